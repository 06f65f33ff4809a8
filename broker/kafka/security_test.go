//go:build unix

package kafka

import (
	"context"
	"crypto/pbkdf2"
	"crypto/sha256"
	"crypto/sha512"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	kafka "github.com/segmentio/kafka-go"
	"github.com/stretchr/testify/require"

	"github.com/plugmicro/micro/broker"
	"github.com/plugmicro/micro/internal/servers"
	"github.com/plugmicro/micro/internal/testcert"
	"github.com/plugmicro/micro/plugin"
)

const password = "tell-nobody"

// secured is a server that asks who one is, and the settings of a client that it trusts the certificate of.
func secured(t *testing.T) (*servers.KafkaServer, plugin.TLS) {
	own := testcert.New(t).TLS()
	key, err := os.ReadFile(own.Key)
	require.NoError(t, err)
	cert, err := os.ReadFile(own.Cert)
	require.NoError(t, err)
	both := filepath.Join(t.TempDir(), "both.pem")
	require.NoError(t, os.WriteFile(both, append(key, cert...), 0o600))
	s := servers.Kafka(t, servers.KafkaUsers(map[string]string{"micro": password, "stranger": password}), servers.KafkaTLS(both, own.CA))
	admin := &kafka.Client{Addr: kafka.TCP(s.Addr), Timeout: 10 * time.Second, Transport: newAdminTransport(t)}

	salt := []byte("0123456789abcdef")
	sum256, err := pbkdf2.Key(sha256.New, password, salt, 4096, sha256.Size)
	require.NoError(t, err)
	sum512, err := pbkdf2.Key(sha512.New, password, salt, 4096, sha512.Size)
	require.NoError(t, err)
	for _, credential := range []kafka.UserScramCredentialsUpsertion{ // one of a user at a time
		{Name: "micro", Mechanism: kafka.ScramMechanismSha256, Iterations: 4096, Salt: salt, SaltedPassword: sum256},
		{Name: "micro", Mechanism: kafka.ScramMechanismSha512, Iterations: 4096, Salt: salt, SaltedPassword: sum512},
	} {
		set, err := admin.AlterUserScramCredentials(t.Context(), &kafka.AlterUserScramCredentialsRequest{
			Upsertions: []kafka.UserScramCredentialsUpsertion{credential},
		})
		require.NoError(t, err)
		require.NoError(t, set.Results[0].Error)
	}
	var rules []kafka.ACLEntry
	for _, who := range []string{"User:micro", "User:CN=test"} { // by SASL, and by certificate
		for name, kind := range map[string]kafka.ResourceType{"our-": kafka.ResourceTypeTopic, "ours@": kafka.ResourceTypeGroup} {
			rules = append(rules, kafka.ACLEntry{
				ResourceType: kind, ResourceName: name, ResourcePatternType: kafka.PatternTypePrefixed,
				Principal: who, Host: "*", Operation: kafka.ACLOperationTypeAll, PermissionType: kafka.ACLPermissionTypeAllow,
			})
		}
	}
	rights, err := admin.CreateACLs(t.Context(), &kafka.CreateACLsRequest{ACLs: rules})
	require.NoError(t, err)
	for _, err := range rights.Errors {
		require.NoError(t, err)
	}
	created, err := admin.CreateTopics(t.Context(), &kafka.CreateTopicsRequest{
		Topics: []kafka.TopicConfig{{Topic: "theirs", NumPartitions: 1, ReplicationFactor: 1}},
	})
	require.NoError(t, err)
	require.NoError(t, created.Errors["theirs"])
	return s, own
}

func newAdminTransport(t testing.TB) *kafka.Transport {
	ctx, cancel := context.WithCancel(context.Background())
	tr := &kafka.Transport{Context: ctx}
	t.Cleanup(func() {
		cancel()
		tr.CloseIdleConnections()
	})
	return tr
}

func TestSecurity(t *testing.T) {
	t.Parallel()
	s, own := secured(t)
	user := func(name, password, mechanism string) Config {
		return Config{Address: []string{s.SASL}, User: name, Password: plugin.NewSecret(password), Mechanism: mechanism, Timeout: 5 * time.Second}
	}
	for name, c := range map[string]Config{
		"plain":          user("micro", password, ""),
		"scram-sha-256":  user("micro", password, "scram-sha-256"),
		"scram-sha-512":  user("micro", password, "scram-sha-512"),
		"of several":     {Address: []string{s.SASL, s.SASL}, User: "micro", Password: plugin.NewSecret(password), Timeout: 5 * time.Second},
		"tls":            {Address: []string{s.TLS}, TLS: own, Timeout: 5 * time.Second},
		"tls of several": {Address: []string{s.TLS, s.TLS}, TLS: own, Timeout: 5 * time.Second},
		"tls, no cert":   {Address: []string{s.TLS}, TLS: plugin.TLS{CA: own.CA}, Timeout: 5 * time.Second},
	} {
		t.Run("taken: "+name, func(t *testing.T) {
			b := open(t, c)
			defer b.Close()
			for _, group := range []string{"", "ours"} {
				topic := "our-" + broker.NewID()
				got := subscribe(t, b, topic, broker.Group(group))
				require.NoError(t, b.Publish(t.Context(), topic, &broker.Message{Body: []byte("hello")}))
				require.Equal(t, "hello", string(receive(t, got).Body))
			}
		})
	}

	silent, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { silent.Close() })
	nobody, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	nobody.Close()
	web := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(web.Close)
	foreign := testcert.New(t)
	for name, refused := range map[string]struct {
		config Config
		topic  string
		says   []string
	}{
		"unreachable":         {Config{Address: []string{nobody.Addr().String()}}, "our-x", []string{nobody.Addr().String(), "connection refused: check --broker-address"}},
		"silent":              {Config{Address: []string{silent.Addr().String()}}, "our-x", []string{silent.Addr().String(), "no answer within 2s", "is it Kafka that listens there, and does the port want TLS (--broker-tls-enable)"}},
		"not Kafka":           {Config{Address: []string{web.Listener.Addr().String()}}, "our-x", []string{web.Listener.Addr().String(), "is it Kafka that listens there"}},
		"not for that name":   {Config{Address: []string{s.TLS}, TLS: plugin.TLS{CA: own.CA, ServerName: "elsewhere"}}, "our-x", []string{s.TLS, "elsewhere: set --broker-tls-server-name"}},
		"wrong password":      {user("micro", password+"!", ""), "our-x", []string{s.SASL, `user "micro" or the password is wrong, or not for the mechanism plain`, "--broker-user, --broker-password and --broker-mechanism"}},
		"wrong SCRAM":         {user("micro", password+"!", "scram-sha-512"), "our-x", []string{s.SASL, `user "micro" or the password is wrong`, "scram-sha-512"}},
		"unknown user":        {user("nobody", password, "scram-sha-256"), "our-x", []string{s.SASL, `user "nobody" or the password is wrong`}},
		"no user":             {Config{Address: []string{s.SASL}}, "our-x", []string{s.SASL, "or a user (--broker-user)?"}},
		"user for open port":  {Config{Address: []string{s.Addr}, User: "micro", Password: plugin.NewSecret(password)}, "our-x", []string{s.Addr, "does not ask for a user: leave out --broker-user"}},
		"unknown authority":   {Config{Address: []string{s.TLS}, TLS: plugin.TLS{CA: foreign.File}}, "our-x", []string{s.TLS, "unknown authority", "set --broker-tls-ca"}},
		"system's authority":  {Config{Address: []string{s.TLS}, TLS: plugin.TLS{Enable: true}}, "our-x", []string{s.TLS, "unknown authority: set --broker-tls-ca"}},
		"plain to TLS":        {Config{Address: []string{s.TLS}}, "our-x", []string{s.TLS, "does the port want TLS (--broker-tls-enable)"}},
		"TLS to plain":        {Config{Address: []string{s.Addr}, TLS: own}, "our-x", []string{s.Addr, "does it take TLS at that port?"}},
		"no right to create":  {user("stranger", password, ""), "our-y", []string{s.SASL, `user "stranger" lacks a right on the topic`, "our-y"}},
		"no right on a topic": {user("stranger", password, ""), "theirs", []string{s.SASL, `user "stranger" lacks a right on the topic`, "theirs"}},
		"missing topic": {
			Config{Address: []string{s.Addr}, MissingTopics: "fail"}, "our-none",
			[]string{s.Addr, `the topic "our-none" does not exist`, "kafka-topics.sh --create", "--broker-missing-topics", "a client without --broker-user may not see it"},
		},
	} {
		t.Run("refused: "+name, func(t *testing.T) {
			t.Parallel()
			c := refused.config
			c.Timeout = 2 * time.Second
			b := open(t, c)
			defer b.Close()
			ignore := func(context.Context, *broker.Message) error { return nil }
			attempts := []func() error{
				func() error { return b.Publish(t.Context(), refused.topic, &broker.Message{}) },
				func() error { _, err := b.Subscribe(t.Context(), refused.topic, ignore); return err },
				func() error {
					_, err := b.Subscribe(t.Context(), refused.topic, ignore, broker.Group("ours"))
					return err
				},
			}
			results := make(chan error, len(attempts))
			begun := time.Now()
			for _, attempt := range attempts {
				go func() { results <- attempt() }()
			}
			for range attempts {
				err := <-results
				require.Less(t, time.Since(begun), 2*c.Timeout)
				require.Error(t, err)
				for _, says := range append(refused.says, "broker kafka at ") {
					require.ErrorContains(t, err, says)
				}
				require.NotContains(t, err.Error(), password)
				require.Equal(t, 1, strings.Count(err.Error(), refused.topic+`": broker kafka at`), err)
			}
		})
	}
	t.Run("refused: no right on the group", func(t *testing.T) {
		b := open(t, user("micro", password, ""))
		defer b.Close()
		_, err := b.Subscribe(t.Context(), "our-x", func(context.Context, *broker.Message) error { return nil }, broker.Group("theirs"))
		require.ErrorContains(t, err, `user "micro" lacks the right Read on the group`)
		require.ErrorContains(t, err, s.SASL)
	})
}
