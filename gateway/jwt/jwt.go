// Package jwt lets requests through that carry a JSON Web Token (RFC 7519) in "Authorization: Bearer", signed by who is
// trusted:
//
//	micro gateway --gateway-middleware=jwt,router --middleware-jwt-jwks=https://login.example.com/keys \
//	    --middleware-jwt-issuer=https://login.example.com --middleware-jwt-audience=shop
//
// The keys come from a URL (a JWK set, fetched again every hour, and when a token names a key that is not in it; until it
// could be fetched, requests with a token are answered with 503), from a file, or are one shared secret. The file is followed
// while the gateway runs: to change the key without refusing anybody, use a set that has both for a while. One with a
// mistake keeps the gateway from starting, or the keys before in use, and is logged.
//
// A token must not have expired, and must be for the audience. Services find the token's subject in the metadata "user", and
// claims that are asked for in "claim-NAME".
package jwt

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"github.com/MicahParks/keyfunc/v3"
	"github.com/golang-jwt/jwt/v5"
	"golang.org/x/time/rate"

	"github.com/plugmicro/micro/gateway"
	"github.com/plugmicro/micro/internal/filewatch"
	"github.com/plugmicro/micro/plugin"
)

func init() {
	plugin.Register("jwt", New, plugin.Doc("lets requests through that carry a valid JSON Web Token"))
}

// Config is what --middleware-jwt-* sets.
type Config struct {
	JWKS     string        `help:"required, or one of the next two: URL of the keys, a JWK set, of those who sign"`
	KeyFile  string        `help:"or a file with them, a JWK set or one public key in PEM; it is followed while the gateway runs"`
	Secret   plugin.Secret `help:"or the secret that tokens are signed with (HS256, HS384, HS512), of 32 bytes or more"`
	Issuer   string        `help:"who must have issued the token; default: anybody who has the key"`
	Audience []string      `help:"required: for whom the token must be, one of these"`
	Leeway   time.Duration `default:"30s" help:"how far clocks may be apart"`
	Claims   []string      `help:"claims that the called service is told, as metadata claim-NAME"`
	Public   []string      `help:"paths, with what is below them, that need no token; /v1/rpc, where the body names the endpoint, only if it is one of them itself"`
}

// Validate is for package plugin.
func (c *Config) Validate() error {
	var errs []error
	given := 0
	for _, set := range []bool{c.JWKS != "", c.KeyFile != "", c.Secret.Reveal() != ""} {
		if set {
			given++
		}
	}
	if given != 1 {
		errs = append(errs, fmt.Errorf("set one of jwks, key-file and secret: %d are set", given))
	}
	if u, err := url.Parse(c.JWKS); c.JWKS != "" && (err != nil || u.Host == "" || u.Scheme != "https" && !isLoopback(u)) {
		errs = append(errs, errors.New("jwks: want a URL with https, since who can change the keys can sign"))
	}
	if n := len(c.Secret.Reveal()); n > 0 && n < 32 {
		errs = append(errs, fmt.Errorf("secret: it has %d bytes, and can be guessed from a token: take 32 or more", n))
	}
	if len(c.Audience) == 0 {
		errs = append(errs, errors.New("audience: say for whom tokens must be, or those for other services are taken, too"))
	}
	if c.Leeway < 0 || c.Leeway > 10*time.Minute {
		errs = append(errs, fmt.Errorf("leeway %s: want 0 to 10m", c.Leeway))
	}
	return errors.Join(append(errs, gateway.CheckPaths("public", c.Public))...)
}

func isLoopback(u *url.URL) bool {
	return u.Scheme == "http" && (u.Hostname() == "localhost" || u.Hostname() == "127.0.0.1" || u.Hostname() == "::1")
}

// What signs: never "none", and never a public key taken for a secret, because each source of keys has its own algorithms.
var (
	ofSecrets = []string{"HS256", "HS384", "HS512"}
	ofKeys    = []string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"}
)

// Auth is the middleware.
type Auth struct {
	parser *jwt.Parser
	key    jwt.Keyfunc
	keys   keyfunc.Keyfunc // those of a URL; nil: there are always some
	claims []string
	public []string
	stop   context.CancelFunc
	watch  *filewatch.Watch // of the file with the keys; nil without one
}

var _ gateway.Middleware = (*Auth)(nil)

// New makes the middleware. Keys at a URL that does not answer yet are fetched until it does; no token is taken until then.
func New(env *plugin.Env, c Config) (gateway.Middleware, error) {
	ctx, stop := context.WithCancel(env.Context())
	a := &Auth{claims: c.Claims, public: c.Public, stop: stop}
	methods := ofKeys
	var err error
	switch {
	case c.Secret.Reveal() != "":
		methods = ofSecrets
		secret := []byte(c.Secret.Reveal())
		a.key = func(*jwt.Token) (any, error) { return secret, nil }
	case c.KeyFile != "":
		a.key, a.watch, err = fromFile(env, c.KeyFile)
	default:
		a.key, a.keys, err = fromURL(ctx, env, c.JWKS)
	}
	if err != nil {
		stop()
		return nil, fmt.Errorf("the keys of jwt: %w", err)
	}
	options := []jwt.ParserOption{jwt.WithValidMethods(methods), jwt.WithExpirationRequired(), jwt.WithLeeway(c.Leeway),
		jwt.WithAudience(c.Audience...), jwt.WithStrictDecoding()}
	if c.Issuer != "" {
		options = append(options, jwt.WithIssuer(c.Issuer))
	}
	a.parser = jwt.NewParser(options...)
	return a, nil
}

func fromURL(ctx context.Context, env *plugin.Env, address string) (jwt.Keyfunc, keyfunc.Keyfunc, error) {
	later := true
	shown := withoutSecrets(address)
	k, err := keyfunc.NewDefaultOverrideCtx(ctx, []string{address}, keyfunc.Override{
		HTTPTimeout:               10 * time.Second,
		RefreshInterval:           time.Hour,
		NoErrorReturnFirstHTTPReq: &later,
		RefreshUnknownKID:         rate.NewLimiter(rate.Inf, 1), // the limit is ours: the library's shares its time with the fetching
		RateLimitWaitMax:          10 * time.Second,
		RefreshErrorHandlerFunc: func(string) func(context.Context, error) {
			return func(_ context.Context, err error) {
				if ctx.Err() == nil {
					env.Logger().Warn("cannot fetch the keys that tokens are signed with; those that are there stay", "url", shown, "error", reasonOf(err))
				}
			}
		},
	})
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", shown, reasonOf(err))
	}
	fetches := rate.NewLimiter(rate.Every(fetchAgain), 1)
	return func(token *jwt.Token) (any, error) {
		if kid, ok := token.Header["kid"].(string); ok && !isKnown(ctx, k, kid) && !fetches.Allow() {
			return nil, errUnknownKey
		}
		return k.Keyfunc(token)
	}, k, nil
}

// fetchAgain is how often keys are fetched because a token names one that is not known: strangers can do so at will.
const fetchAgain = 10 * time.Second

var errUnknownKey = errors.New("the key is not known, and the keys were fetched a moment ago")

func isKnown(ctx context.Context, k keyfunc.Keyfunc, kid string) bool {
	all, err := k.Storage().KeyReadAll(ctx)
	if err != nil {
		return false
	}
	for _, key := range all {
		if key.Marshal().KID == kid {
			return true
		}
	}
	return false
}

// withoutSecrets leaves out what may be one: a password, and the query.
func withoutSecrets(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return ""
	}
	return u.Scheme + "://" + u.Host + u.Path
}

// reasonOf is err without the URL, which net/http repeats.
func reasonOf(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err
	}
	return err
}

// fromFile uses the keys that the file has at the moment.
func fromFile(env *plugin.Env, file string) (jwt.Keyfunc, *filewatch.Watch, error) {
	var current atomic.Pointer[jwt.Keyfunc]
	watch, err := filewatch.Follow(file, env.Logger(), func(data []byte) error {
		keys, err := parseKeys(env.Context(), file, data)
		if err == nil {
			current.Store(&keys)
		}
		return err
	})
	return func(token *jwt.Token) (any, error) { return (*current.Load())(token) }, watch, err
}

func parseKeys(ctx context.Context, file string, data []byte) (jwt.Keyfunc, error) {
	if bytes.HasPrefix(bytes.TrimSpace(data), []byte("{")) {
		k, err := keyfunc.NewJWKSetJSON(json.RawMessage(data))
		if err != nil {
			return nil, fmt.Errorf("%s is no JWK set: %w", file, err)
		}
		if !hasKeys(ctx, k) {
			return nil, fmt.Errorf("%s: there is no key in the JWK set", file)
		}
		return k.Keyfunc, nil
	}
	key, err := publicKey(data)
	if err != nil {
		return nil, fmt.Errorf("%s: there is neither a JWK set nor a public key in PEM in it", file)
	}
	return func(*jwt.Token) (any, error) { return key, nil }, nil
}

func publicKey(data []byte) (any, error) {
	if k, err := jwt.ParseRSAPublicKeyFromPEM(data); err == nil {
		return k, nil
	}
	if k, err := jwt.ParseECPublicKeyFromPEM(data); err == nil {
		return k, nil
	}
	return jwt.ParseEdPublicKeyFromPEM(data)
}

// Close ends the fetching of keys, and the following of their file.
func (a *Auth) Close() error {
	a.stop()
	if a.watch == nil {
		return nil
	}
	return a.watch.Close()
}

// Handler implements gateway.Middleware.
func (a *Auth) Handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if gateway.IsPublic(r.URL.Path, a.public) {
			next.ServeHTTP(w, r)
			return
		}
		claims, err := a.verify(r)
		switch {
		case err == nil:
			a.tell(gateway.Of(r), claims)
			next.ServeHTTP(w, r)
		case errors.Is(err, jwt.ErrTokenUnverifiable) && a.keys != nil && !hasKeys(r.Context(), a.keys):
			gateway.Fail(w, r, gateway.NewProblem(http.StatusServiceUnavailable, "tokens cannot be verified yet: the gateway could not fetch the keys"))
		default:
			challenge := `Bearer error="invalid_token"`
			if errors.Is(err, errNoToken) {
				challenge = "Bearer" // RFC 6750, 3: no code where there was no token
			}
			w.Header().Set("WWW-Authenticate", challenge)
			gateway.Fail(w, r, gateway.NewProblem(http.StatusUnauthorized, "%s", reason(err)))
		}
	})
}

// hasKeys says whether there is any; those of a URL may not have been fetched yet.
func hasKeys(ctx context.Context, k keyfunc.Keyfunc) bool {
	all, err := k.VerificationKeySet(ctx)
	return err == nil && len(all.Keys) > 0
}

var errNoToken = errors.New("no token")

func (a *Auth) verify(r *http.Request) (jwt.MapClaims, error) {
	lines := r.Header.Values("Authorization")
	if len(lines) != 1 {
		return nil, errNoToken
	}
	scheme, token, _ := strings.Cut(lines[0], " ")
	if !strings.EqualFold(scheme, "Bearer") || token == "" {
		return nil, errNoToken
	}
	claims := jwt.MapClaims{}
	parsed, err := a.parser.ParseWithClaims(strings.TrimSpace(token), claims, a.key)
	if err != nil {
		return nil, err
	}
	return claims, understood(parsed.Header, claims)
}

// understood refuses what the library passes over: extensions that a token says are critical (RFC 7515, 4.1.11), times
// beyond the year 9999, which do not fit into a time, and a subject that is no text.
func understood(header map[string]any, claims jwt.MapClaims) error {
	if _, ok := header["crit"]; ok {
		return fmt.Errorf("%w: it has critical extensions", jwt.ErrTokenMalformed)
	}
	const year9999 = 253402300799
	for _, name := range []string{"exp", "nbf", "iat"} {
		if v, ok := claims[name].(float64); ok && (v > year9999 || v < 0) {
			return fmt.Errorf("%w: %s is no time", jwt.ErrTokenMalformed, name)
		}
	}
	if _, err := claims.GetSubject(); err != nil {
		return fmt.Errorf("%w: sub is no text", jwt.ErrTokenMalformed)
	}
	return nil
}

// reason is for the one who sent the token: what is wrong, and nothing of what is in it.
func reason(err error) string {
	switch {
	case errors.Is(err, errNoToken):
		return "a token is needed, as in Authorization: Bearer TOKEN"
	case errors.Is(err, jwt.ErrTokenExpired):
		return "the token has expired: get a new one"
	case errors.Is(err, jwt.ErrTokenNotValidYet):
		return "the token is not valid yet"
	case errors.Is(err, jwt.ErrTokenInvalidAudience), errors.Is(err, jwt.ErrTokenInvalidIssuer):
		return "the token is not for this gateway, or not from an issuer that it trusts"
	case errors.Is(err, jwt.ErrTokenRequiredClaimMissing):
		return "the token lacks a claim: exp, aud or iss"
	case errors.Is(err, jwt.ErrTokenMalformed):
		return "the token is malformed"
	}
	return "the token is not signed by anybody whom the gateway trusts"
}

// tell gives the service what the token says. A claim that is no text is given as JSON.
func (a *Auth) tell(info *gateway.Info, claims jwt.MapClaims) {
	if subject, err := claims.GetSubject(); err == nil && subject != "" {
		info.SetMetadata("user", subject)
	}
	for _, name := range a.claims {
		switch v := claims[name].(type) {
		case nil:
			info.SetMetadata("claim-"+name, "") // what a client sent under that name is not taken for it
		case string:
			info.SetMetadata("claim-"+name, v)
		default:
			if text, err := json.Marshal(v); err == nil {
				info.SetMetadata("claim-"+name, string(text))
			}
		}
	}
}
