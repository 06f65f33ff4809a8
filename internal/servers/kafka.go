//go:build unix

package servers

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	kafka "github.com/segmentio/kafka-go"
)

// KafkaOption changes the server that Kafka starts.
type KafkaOption func(*kafkaConfig)

type kafkaConfig struct {
	lines []string // of server.properties
	sasl  map[string]string
	tls   [2]string
}

// KafkaSetting adds a line to server.properties; the last one of a name counts.
func KafkaSetting(name, value string) KafkaOption {
	return func(c *kafkaConfig) { c.lines = append(c.lines, name+"="+value) }
}

// KafkaUsers adds a listener (KafkaServer.SASL) for users and their passwords, by PLAIN; for SCRAM they have to be created
// as the superuser, who is whoever comes without a name. Without a rule the others may do nothing, once there are rules.
func KafkaUsers(users map[string]string) KafkaOption {
	return func(c *kafkaConfig) { c.sasl = users }
}

// KafkaTLS adds a listener (KafkaServer.TLS) with that key, certificate and authorities, in PEM.
func KafkaTLS(keyAndCert, authorities string) KafkaOption {
	return func(c *kafkaConfig) { c.tls = [2]string{keyAndCert, authorities} }
}

// KafkaServer is a Kafka with all that it listens on. Clients of Addr are told that the server is at Addr, and those of
// Proxy.Addr that it is there: no connection goes round the proxy.
type KafkaServer struct {
	*Server
	Version string
	SASL    string // with KafkaUsers
	TLS     string // with KafkaTLS
}

// Kafka starts a Kafka server of its own, one node that is broker and controller. Topics are not created by themselves.
func Kafka(t testing.TB, opts ...KafkaOption) *KafkaServer {
	t.Helper()
	archive := need(t, "Kafka", kafkaArchive())
	libs := filepath.Dir(archive)
	java, err := exec.LookPath("java")
	if err != nil {
		t.Fatalf("Kafka is installed, but java is not: %v", err)
	}
	var c kafkaConfig
	for _, opt := range opts {
		opt(&c)
	}
	_, version, _ := strings.Cut(strings.TrimSuffix(filepath.Base(archive), ".jar"), "-")
	s := &KafkaServer{Server: newServer(t), Version: version}
	port := func() string { return fmt.Sprintf("127.0.0.1:%d", freePort(t)) }
	direct, proxied, controller := port(), port(), port()
	s.listen(t, proxied)
	s.Addr = direct

	listeners := []string{"DIRECT://" + direct, "PROXIED://" + proxied, "CONTROLLER://" + controller}
	advertised := []string{"DIRECT://" + direct, "PROXIED://" + s.Proxy.Addr()}
	security := []string{"DIRECT:PLAINTEXT", "PROXIED:PLAINTEXT", "CONTROLLER:PLAINTEXT", "SASL:SASL_PLAINTEXT", "TLS:SSL"}
	if c.sasl != nil {
		s.SASL = port()
		listeners, advertised = append(listeners, "SASL://"+s.SASL), append(advertised, "SASL://"+s.SASL)
	}
	if c.tls[0] != "" {
		s.TLS = port()
		listeners, advertised = append(listeners, "TLS://"+s.TLS), append(advertised, "TLS://"+s.TLS)
	}
	lines := append([]string{
		"process.roles=broker,controller",
		"node.id=1",
		"controller.quorum.voters=1@" + controller,
		"controller.listener.names=CONTROLLER",
		"inter.broker.listener.name=DIRECT",
		"listeners=" + strings.Join(listeners, ","),
		"advertised.listeners=" + strings.Join(advertised, ","),
		"listener.security.protocol.map=" + strings.Join(security, ","),
		"log.dirs=" + s.Dir,
		"auto.create.topics.enable=false",
		"num.partitions=1",
		"default.replication.factor=1",
		"offsets.topic.replication.factor=1",
		"offsets.topic.num.partitions=4",
		"transaction.state.log.replication.factor=1",
		"transaction.state.log.min.isr=1",
		"transaction.state.log.num.partitions=1",
		"group.initial.rebalance.delay.ms=0",
		"group.min.session.timeout.ms=500",
		"log.index.size.max.bytes=65536", // a suite makes hundreds of partitions, each of which is checked after a kill -9
		"num.recovery.threads.per.data.dir=4",
		"broker.heartbeat.interval.ms=300",
		"broker.session.timeout.ms=1500", // for so long the node that was killed is in the way of its successor
	}, c.security()...)
	lines = append(lines, c.lines...)

	conf := filepath.Join(t.TempDir(), "server.properties")
	if err := os.WriteFile(conf, []byte(strings.Join(lines, "\n")), 0o600); err != nil {
		t.Fatal(err)
	}
	s.command = func() *exec.Cmd {
		cmd := exec.Command(java, "-Xmx512m", "-Xms128m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData",
			"-XX:SharedArchiveFile="+filepath.Join(Dir(), "kafka", "classes.jsa"), // install.sh makes it; not needed, but quicker
			"-Dorg.apache.logging.log4j.level=WARN", "-cp", filepath.Join(libs, "*"), "kafka.Kafka", conf)
		cmd.Dir = filepath.Dir(conf)
		return cmd
	}
	// What the storage tool would write, without another JVM.
	s.prepare = func() error {
		const meta = "version=1\ncluster.id=bWljcm8tdGVzdHMtMDAwMA\nnode.id=1\ndirectory.id=bWljcm8tdGVzdHMtZGlyMQ\n"
		return os.WriteFile(filepath.Join(s.Dir, "meta.properties"), []byte(meta), 0o600)
	}
	s.ready = func() error { return kafkaReady(direct) }
	s.begin(t)
	return s
}

// security is for those who have to say who they are.
func (c *kafkaConfig) security() []string {
	var lines []string
	if c.sasl != nil {
		var users strings.Builder
		for name, password := range c.sasl {
			fmt.Fprintf(&users, " user_%s=%q", name, password)
		}
		lines = append(lines,
			"listener.name.sasl.sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512",
			"listener.name.sasl.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required"+users.String()+";",
			"listener.name.sasl.scram-sha-256.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;",
			"listener.name.sasl.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;",
			"authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer",
			"super.users=User:ANONYMOUS",
			"allow.everyone.if.no.acl.found=false",
		)
	}
	if c.tls[0] != "" {
		lines = append(lines,
			"ssl.keystore.type=PEM", "ssl.keystore.location="+c.tls[0],
			"ssl.truststore.type=PEM", "ssl.truststore.location="+c.tls[1],
			"ssl.client.auth=requested")
	}
	return lines
}

func kafkaArchive() string {
	found, _ := filepath.Glob(filepath.Join(Dir(), "kafka", "libs", "kafka_2.13-*.jar"))
	return cmp.Or(strings.Join(found, ""), filepath.Join(Dir(), "kafka", "libs"))
}

// kafkaReady is nil once the node is in its own cluster, and has found its group coordinator's topic or could make it.
func kafkaReady(addr string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	c, err := kafka.DialContext(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(2 * time.Second)); err != nil {
		return err
	}
	_, err = c.Controller()
	return err
}
