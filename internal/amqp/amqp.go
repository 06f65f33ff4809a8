// Package amqp is what the RabbitMQ plugins have in common: their settings, connections that are made within a limit, and
// that are made again when they are lost.
//
//	d, err := amqp.NewDialer("broker", config.Config, log)
//	err = d.Run(ctx, "publish", func(ctx context.Context, c *amqp.Conn, ready func()) error { … ready() … <-c.Lost() … }, failed)
//
// The recovery that amqp091 has is never used: with it an old delivery acknowledges another message after a reconnect. Here
// each connection is a new one, with new channels, and everything that came from an old one fails.
package amqp

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"time"

	"github.com/plugmicro/micro/plugin"
)

// Config is embedded in the Config of each plugin. Fields that are zero have the defaults.
type Config struct {
	Address   []string      `default:"127.0.0.1:5672" help:"servers of one cluster, tried in turn: HOST:PORT, or amqp://USER:PASSWORD@HOST:PORT/VHOST (amqps:// for TLS)"`
	User      string        `default:"guest" help:"user, for addresses that name none"`
	Password  plugin.Secret `default:"guest" help:"password of the user"`
	VHost     string        `name:"vhost" default:"/" help:"virtual host, for addresses that name none"`
	TLS       plugin.TLS
	Timeout   time.Duration `default:"10s" help:"limit for connecting, and for one request to the server"`
	Heartbeat time.Duration `default:"10s" help:"how often server and client show that they live; a server that is silent for one and a half times as long is lost"`
}

// Validate implements plugin's check of settings.
func (c Config) Validate() error { return errors.Join(c.Problems()...) }

// Problems is all that is wrong with c, for the Validate of those who embed it.
func (c Config) Problems() []error {
	c = c.WithDefaults()
	_, errs := c.servers()
	if c.Timeout < 0 {
		errs = append(errs, fmt.Errorf("timeout %s: want more than 0", c.Timeout))
	}
	if c.Heartbeat < time.Second || c.Heartbeat%time.Second != 0 || c.Heartbeat > time.Hour {
		errs = append(errs, fmt.Errorf("heartbeat %s: want whole seconds, from 1s to 1h", c.Heartbeat))
	}
	return errs
}

// WithDefaults fills in what is zero.
func (c Config) WithDefaults() Config {
	if len(c.Address) == 0 {
		c.Address = []string{"127.0.0.1:5672"}
	}
	if c.User == "" {
		c.User = "guest"
		if c.Password.Reveal() == "" {
			c.Password = plugin.NewSecret("guest")
		}
	}
	c.VHost = cmp.Or(c.VHost, "/")
	c.Timeout = cmp.Or(c.Timeout, 10*time.Second)
	c.Heartbeat = cmp.Or(c.Heartbeat, 10*time.Second)
	return c
}

// server is one address, with all that it takes to connect to it.
type server struct {
	addr     string // HOST:PORT
	host     string
	user     string
	password plugin.Secret
	vhost    string
	tls      bool
}

func (c Config) servers() (list []server, errs []error) {
	for i, addr := range c.Address {
		s, err := c.server(addr)
		if err != nil {
			errs = append(errs, fmt.Errorf("address %d: %w", i+1, err)) // the address itself may hold a password
		}
		list = append(list, s)
	}
	return list, errs
}

func (c Config) server(addr string) (server, error) {
	s := server{user: c.User, password: c.Password, vhost: c.VHost, tls: c.TLS.Enabled()}
	if !strings.Contains(addr, "://") {
		return s, s.setHost(addr)
	}
	u, err := url.Parse(addr)
	if err != nil {
		return s, errors.New("it is no URL like amqp://USER:PASSWORD@HOST:PORT/VHOST; is there a character to be written as %XX?")
	}
	switch {
	case u.Scheme != "amqp" && u.Scheme != "amqps":
		return s, fmt.Errorf("it begins with %s://: want amqp:// or amqps://", u.Scheme)
	case u.Scheme == "amqp" && s.tls:
		return s, errors.New("it begins with amqp://, which is without TLS, but tls options are set: want amqps://")
	case u.RawQuery != "" || u.Fragment != "":
		return s, errors.New("parameters behind the virtual host are not supported: set them as options")
	}
	s.tls = u.Scheme == "amqps"
	if u.User != nil {
		password, _ := u.User.Password()
		s.user, s.password = u.User.Username(), plugin.NewSecret(password)
	}
	if vhost := strings.TrimPrefix(u.Path, "/"); vhost != "" {
		s.vhost = vhost
	}
	return s, s.setHost(u.Host)
}

// setHost adds the port that is usual where there is none.
func (s *server) setHost(hostport string) error {
	host, port, err := net.SplitHostPort(hostport)
	if err != nil {
		host, port = strings.Trim(hostport, "[]"), "5672"
		if s.tls {
			port = "5671"
		}
	}
	if host == "" || strings.ContainsAny(host, "@/ ") || port == "" {
		return errors.New("want HOST:PORT, or amqp://USER:PASSWORD@HOST:PORT/VHOST")
	}
	s.addr, s.host = net.JoinHostPort(host, port), host
	return nil
}
