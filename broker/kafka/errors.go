package kafka

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"

	kafka "github.com/segmentio/kafka-go"
)

// final tells whether trying again is of no use.
func final(err error) bool {
	var code kafka.Error
	var untrusted *tls.CertificateVerificationError
	var noTLS tls.RecordHeaderError
	var alert *net.OpError
	var done stop
	switch {
	case errors.As(err, &done), errors.As(err, &untrusted), errors.As(err, &noTLS):
		return true
	case errors.As(err, &alert) && alert.Op == "remote error": // of TLS
		return true
	case !errors.As(err, &code) || code.Temporary():
		return false
	}
	switch code {
	case kafka.Unknown, kafka.BrokerNotAvailable, kafka.ReplicaNotAvailable, kafka.StaleControllerEpoch, kafka.OffsetOutOfRange,
		kafka.RebalanceInProgress, kafka.UnknownMemberId, kafka.IllegalGeneration:
		return false
	}
	return true
}

// stop is an error after which nothing is tried again.
type stop struct{ error }

func (s stop) Unwrap() error { return s.error }

// explain says what an error of the server or of the connection means here; met, if a server has answered before.
func (c Config) explain(err error, met bool) error {
	var untrusted *tls.CertificateVerificationError
	var noTLS tls.RecordHeaderError
	hint := ""
	switch {
	case err == nil:
		return nil
	case errors.Is(err, kafka.SASLAuthenticationFailed):
		hint = fmt.Sprintf("the user %q is refused: check user, password and mechanism (%s)", c.User, c.Mechanism)
	case errors.Is(err, kafka.UnsupportedSASLMechanism):
		hint = fmt.Sprintf("the server does not have the mechanism %s: set another mechanism", c.Mechanism)
	case errors.Is(err, kafka.IllegalSASLState):
		hint = "the port does not ask for a user: leave user and password out, or use another port"
	case errors.Is(err, kafka.TopicAuthorizationFailed):
		hint = "the user " + c.user() + " lacks a right on the topic: grant it Read, Write, Describe, or Create for topics that are missing"
	case errors.Is(err, kafka.GroupAuthorizationFailed):
		hint = "the user " + c.user() + " lacks the right Read on the group"
	case errors.Is(err, kafka.ClusterAuthorizationFailed):
		hint = "the user " + c.user() + " lacks a right on the cluster"
	case errors.As(err, &untrusted):
		hint = "the server's certificate is not trusted: set tls-ca, or tls-server-name"
	case errors.As(err, &noTLS):
		hint = "the port does not speak TLS"
	case errors.Is(err, kafka.InvalidReplicationFactor):
		hint = "there are fewer servers than replicas: set replication"
	case lost(err) && !met && c.TLS.Enabled():
		hint = "the server ended the connection: does the port speak TLS?"
	case lost(err) && !met && c.User == "":
		hint = "the server ended the connection: does the port want TLS (tls-enable), or a user?"
	}
	if hint == "" {
		return err
	}
	return fmt.Errorf("%s: %w", hint, err)
}

func (c Config) user() string {
	if c.User == "" {
		return "nobody (none is set)"
	}
	return fmt.Sprintf("%q", c.User)
}

func lost(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}
