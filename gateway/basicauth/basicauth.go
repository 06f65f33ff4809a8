// Package basicauth asks for a user and a password (RFC 7617), from a file as "htpasswd -B" writes it:
//
//	micro gateway --gateway-middleware=basicauth --middleware-basicauth-file=users
//
// Checking a password takes the time of a processor, on purpose; those that were right are known again. Choose ratelimit before
// this middleware to bound how many a stranger can try.
//
// The file is followed while the gateway runs. Services find the user in the metadata "user"; the password goes no further,
// unless forward is set. Passwords travel readable: use it with TLS.
package basicauth

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/crypto/bcrypt"

	"github.com/plugmicro/micro/gateway"
	"github.com/plugmicro/micro/internal/filewatch"
	"github.com/plugmicro/micro/plugin"
)

func init() { plugin.Register("basicauth", New, plugin.Doc("asks for a user and a password")) }

// Config is what --middleware-basicauth-* sets.
type Config struct {
	File   string   `help:"required: file with users and their passwords as htpasswd -B writes them, one in a line"`
	Realm  string   `default:"micro" help:"what the browser says it asks for"`
	Public []string `help:"paths, with what is below them, that everybody may use; /v1/rpc, where the body names the endpoint, only if it is one of them itself"`

	Forward bool `help:"hand the password on, in the header Authorization: to services, upstreams and mirrors"`
}

// Validate is for package plugin.
func (c *Config) Validate() error {
	if c.File == "" {
		return errors.New("file: name the file with the users, as htpasswd -B -c FILE USER makes it")
	}
	if strings.ContainsAny(c.Realm, "\"\\\r\n") {
		return fmt.Errorf("realm %q: it cannot have quotes, backslashes or line breaks", c.Realm)
	}
	return gateway.CheckPaths("public", c.Public)
}

// Auth is the middleware.
type Auth struct {
	realm   string
	public  []string
	forward bool
	users   atomic.Pointer[users]
	queue   chan struct{} // bounds how many wait to have their password checked
	busy    chan struct{} // bounds how many are checked at once: each takes a core for 50 ms
	watch   *filewatch.Watch
}

var _ gateway.Middleware = (*Auth)(nil)

// New makes the middleware.
func New(env *plugin.Env, c Config) (gateway.Middleware, error) {
	a := &Auth{realm: `Basic realm="` + c.Realm + `", charset="UTF-8"`, public: c.Public, forward: c.Forward, queue: make(chan struct{}, maxWaiting), busy: make(chan struct{}, max(1, runtime.GOMAXPROCS(0)/2))}
	var err error
	a.watch, err = filewatch.Follow(c.File, env.Logger(), func(data []byte) error {
		u, err := parseUsers(c.File, data)
		if err == nil {
			a.users.Store(u)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("the users of basicauth: %w", err)
	}
	return a, nil
}

// Close ends the following of the file.
func (a *Auth) Close() error { return a.watch.Close() }

// Handler implements gateway.Middleware.
func (a *Auth) Handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user, password, ok := r.BasicAuth()
		ok = ok && len(r.Header.Values("Authorization")) == 1
		if !a.forward {
			r.Header.Del("Authorization")
		}
		if gateway.IsPublic(r.URL.Path, a.public) {
			next.ServeHTTP(w, r)
			return
		}
		if !ok {
			a.refuse(w, r, "a user and a password are needed")
			return
		}
		switch right, checked := a.check(r, user, password); {
		case !checked:
			w.Header().Set("Retry-After", "1")
			gateway.Fail(w, r, gateway.NewProblem(http.StatusServiceUnavailable, "too many passwords are to be checked: try again"))
		case !right:
			a.refuse(w, r, "the user or the password is wrong")
		default:
			gateway.Of(r).SetMetadata("user", user)
			next.ServeHTTP(w, r)
		}
	})
}

func (a *Auth) refuse(w http.ResponseWriter, r *http.Request, why string) {
	w.Header().Set("WWW-Authenticate", a.realm)
	gateway.Fail(w, r, gateway.NewProblem(http.StatusUnauthorized, "%s", why))
}

// maxWaiting is a few seconds of checking: who guesses passwords does not keep others out for longer.
const maxWaiting = 64

// users are the content of the file, and who has shown the right password since it was read.
type users struct {
	hashes map[string][]byte
	nobody []byte // what the password of an unknown user is compared with, so that it takes as long
	key    []byte
	known  sync.Map // user → []byte, what sum makes of the right password: at most one for each user
}

func (a *Auth) check(r *http.Request, user, password string) (right, checked bool) {
	u := a.users.Load()
	sum := u.sum(user, password)
	if known, ok := u.known.Load(user); ok && hmac.Equal(known.([]byte), sum) {
		return true, true
	}
	hash, known := u.hashes[user]
	if !known {
		hash = u.nobody
	}
	select {
	case a.queue <- struct{}{}:
		defer func() { <-a.queue }()
	default:
		return false, false
	}
	select {
	case a.busy <- struct{}{}:
		defer func() { <-a.busy }()
	case <-r.Context().Done():
		return false, false
	}
	if bcrypt.CompareHashAndPassword(hash, []byte(password)) != nil || !known {
		return false, true
	}
	u.known.Store(user, sum)
	return true, true
}

// sum lets a password that was right be known again without being kept.
func (u *users) sum(user, password string) []byte {
	h := hmac.New(sha256.New, u.key)
	fmt.Fprintf(h, "%d %s %s", len(user), user, password)
	return h.Sum(nil)
}

// parseUsers returns all that is wrong with the file, each with its line.
func parseUsers(file string, data []byte) (*users, error) {
	u := &users{hashes: make(map[string][]byte), key: make([]byte, 32)}
	_, _ = rand.Read(u.key) // it never fails
	var errs []error
	cost := 0
	for i, line := range strings.Split(string(data), "\n") {
		if line = strings.TrimSpace(line); line == "" || line[0] == '#' {
			continue
		}
		user, hash, _ := strings.Cut(line, ":")
		c, err := bcrypt.Cost([]byte(hash))
		switch {
		case user == "" || err != nil:
			errs = append(errs, fmt.Errorf("%s:%d: want USER:HASH with a hash of bcrypt, as htpasswd -B makes it", file, i+1))
		case u.hashes[user] != nil:
			errs = append(errs, fmt.Errorf("%s:%d: user %s is there twice", file, i+1, user))
		}
		u.hashes[user] = []byte(hash)
		cost = max(cost, c)
	}
	if len(u.hashes) == 0 {
		errs = append(errs, fmt.Errorf("%s: there is no user in it", file))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	var err error
	u.nobody, err = bcrypt.GenerateFromPassword([]byte("nobody"), cost)
	return u, err
}
