package kafka

import (
	"context"
	"crypto/tls"
	"crypto/x509"
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

// explain says what an error of the server or of the connection means here, and which options to look at; met, if a server of
// Kafka has answered before: otherwise it may be something else that listens there.
func (c Config) explain(err error, met bool) error {
	var untrusted *tls.CertificateVerificationError
	var name x509.HostnameError
	var noTLS tls.RecordHeaderError
	var op *net.OpError
	switch {
	case err == nil:
		return nil
	case errors.Is(err, kafka.SASLAuthenticationFailed):
		return fmt.Errorf("user %q or the password is wrong, or not for the mechanism %s: check --broker-user, --broker-password and --broker-mechanism (%w)", c.User, c.Mechanism, err)
	case errors.Is(err, kafka.UnsupportedSASLMechanism):
		return fmt.Errorf("the server does not have the mechanism %s: set --broker-mechanism to another (%w)", c.Mechanism, err)
	case errors.Is(err, kafka.IllegalSASLState):
		return fmt.Errorf("the port does not ask for a user: leave out --broker-user and --broker-password, or set --broker-address to another port (%w)", err)
	case errors.Is(err, kafka.TopicAuthorizationFailed):
		return fmt.Errorf("%s lacks a right on the topic: grant Read, Write and Describe, and Create for topics that are missing (%w)", c.who(), err)
	case errors.Is(err, kafka.GroupAuthorizationFailed):
		return fmt.Errorf("%s lacks the right Read on the group (%w)", c.who(), err)
	case errors.Is(err, kafka.ClusterAuthorizationFailed):
		return fmt.Errorf("%s lacks a right on the cluster (%w)", c.who(), err)
	case errors.Is(err, kafka.InvalidReplicationFactor):
		return fmt.Errorf("there are fewer servers than replicas: set --broker-replication (%w)", err)
	case errors.As(err, &name):
		return fmt.Errorf("%w: set --broker-tls-server-name to a name that the certificate is for", err)
	case errors.As(err, &untrusted):
		return fmt.Errorf("%w: set --broker-tls-ca to the certificates of the server's authorities", err)
	case errors.As(err, &noTLS):
		return fmt.Errorf("%w: does the server take TLS at that port?", err)
	case errors.As(err, &op) && op.Op == "remote error":
		return fmt.Errorf("%w: does the server ask for a certificate (--broker-tls-cert, --broker-tls-key)?", err)
	case errors.As(err, &op) && op.Op == "dial" && !met:
		return fmt.Errorf("%w: check --broker-address", op)
	case errors.As(err, &op) && op.Op == "dial":
		return op // kafka-go tells the address once more
	case met:
		return err
	case lost(err):
		return fmt.Errorf("the server ended the connection: %s (%w)", c.guess(), err)
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("%w: %s", err, c.guess())
	}
	return err
}

// guess is why there is a connection, but no answer that could be read.
func (c Config) guess() string {
	switch {
	case c.TLS.Enabled():
		return "is it Kafka that listens there, and does it take TLS at that port?"
	case c.User == "":
		return "is it Kafka that listens there, and does the port want TLS (--broker-tls-enable), or a user (--broker-user)?"
	}
	return "is it Kafka that listens there, and does the port want TLS (--broker-tls-enable)?"
}

// who is how the servers see this client.
func (c Config) who() string {
	if c.User == "" {
		return "a client without --broker-user"
	}
	return fmt.Sprintf("user %q", c.User)
}

func lost(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}
