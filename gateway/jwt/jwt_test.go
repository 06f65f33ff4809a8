package jwt_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"log/slog"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/plugmicro/micro/gateway"
	gwjwt "github.com/plugmicro/micro/gateway/jwt"
	"github.com/plugmicro/micro/internal/logtest"
	"github.com/plugmicro/micro/plugin"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const secret = "0123456789abcdef0123456789abcdef"

func fine() jwt.MapClaims {
	return jwt.MapClaims{"sub": "ada", "aud": "shop", "iss": "me", "exp": time.Now().Add(time.Hour).Unix(), "roles": []string{"a", "b"}}
}

func with(name string, v any) jwt.MapClaims {
	c := fine()
	if c[name] = v; v == nil {
		delete(c, name)
	}
	return c
}

func sign(t *testing.T, method jwt.SigningMethod, key any, kid string, claims jwt.MapClaims) string {
	token := jwt.NewWithClaims(method, claims)
	if kid != "" {
		token.Header["kid"] = kid
	}
	s, err := token.SignedString(key)
	require.NoError(t, err)
	return s
}

// protect returns what asks: the status, the reason, and what the service would be told.
func protect(t *testing.T, c gwjwt.Config) func(path, authorization string) (int, string, map[string]string) {
	return protectIn(t, new(plugin.Env), c)
}

func protectIn(t *testing.T, env *plugin.Env, c gwjwt.Config) func(path, authorization string) (int, string, map[string]string) {
	c.Audience = []string{"shop", "other"}
	require.NoError(t, c.Validate())
	m, err := gwjwt.New(env, c)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, m.(*gwjwt.Auth).Close()) })
	return func(path, authorization string) (int, string, map[string]string) {
		info := new(gateway.Info)
		r := gateway.With(httptest.NewRequest("GET", path, nil), info)
		if authorization != "" {
			r.Header.Set("Authorization", authorization)
		}
		w := httptest.NewRecorder()
		m.Handler(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})).ServeHTTP(w, r)
		var p gateway.Problem
		if w.Code != http.StatusOK {
			require.Equal(t, w.Code == http.StatusUnauthorized, strings.HasPrefix(w.Header().Get("WWW-Authenticate"), "Bearer"))
			require.NoError(t, json.Unmarshal(w.Body.Bytes(), &p))
		}
		return w.Code, p.Detail, info.Metadata()
	}
}

func TestClaims(t *testing.T) {
	ask := protect(t, gwjwt.Config{Secret: plugin.NewSecret(secret), Issuer: "me", Claims: []string{"roles", "iss", "missing"}, Public: []string{"/open"}, Leeway: time.Second})
	hs := func(claims jwt.MapClaims) string {
		return "Bearer " + sign(t, jwt.SigningMethodHS256, []byte(secret), "", claims)
	}
	code, _, told := ask("/", hs(fine()))
	require.Equal(t, 200, code)
	require.Equal(t, map[string]string{"user": "ada", "claim-roles": `["a","b"]`, "claim-iss": "me", "claim-missing": ""}, told)
	code, _, _ = ask("/open/x", "")
	require.Equal(t, 200, code)
	critical := jwt.NewWithClaims(jwt.SigningMethodHS256, fine())
	critical.Header["crit"] = []string{"b64"}
	withCrit, err := critical.SignedString([]byte(secret))
	require.NoError(t, err)
	for name, c := range map[string]struct{ authorization, want string }{
		"critical":          {"Bearer " + withCrit, "malformed"},
		"never, as it were": {hs(with("nbf", 1e300)), "malformed"},
		"for ever":          {hs(with("exp", 1e300)), "has expired"},
		"no subject":        {hs(with("sub", 5)), "malformed"},
		"nothing":           {"", "a token is needed"},
		"another scheme":    {"Basic x", "a token is needed"},
		"no JWT":            {"Bearer x", "malformed"},
		"expired":           {hs(with("exp", time.Now().Add(-time.Minute).Unix())), "has expired"},
		"never expires":     {hs(with("exp", nil)), "lacks a claim"},
		"not yet":           {hs(with("nbf", time.Now().Add(time.Minute).Unix())), "not valid yet"},
		"another's":         {hs(with("aud", "bank")), "is not for this gateway"},
		"nobody's":          {hs(with("aud", nil)), "lacks a claim"},
		"another issuer":    {hs(with("iss", "you")), "not from an issuer"},
		"another secret":    {"Bearer " + sign(t, jwt.SigningMethodHS256, []byte(strings.Repeat("x", 32)), "", fine()), "not signed by anybody"},
		"alg none":          {"Bearer " + sign(t, jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, "", fine()), "not signed by anybody"},
		"cut":               {strings.TrimSuffix(hs(fine()), "x")[:60], "malformed"},
		"two in one line":   {hs(fine()) + "," + hs(fine())[7:], "malformed"},
	} {
		t.Run(name, func(t *testing.T) {
			code, why, _ := ask("/", c.authorization)
			require.Equal(t, 401, code)
			require.Contains(t, why, c.want)
		})
	}
}

// TestKeyIsNoSecret signs with the public key as if it were a secret, which everybody has.
func TestKeyIsNoSecret(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	der, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	require.NoError(t, err)
	public := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
	file := filepath.Join(t.TempDir(), "key.pem")
	require.NoError(t, os.WriteFile(file, public, 0o600))
	ask := protect(t, gwjwt.Config{KeyFile: file})
	code, _, _ := ask("/", "Bearer "+sign(t, jwt.SigningMethodES256, key, "", fine()))
	require.Equal(t, 200, code)
	code, _, _ = ask("/", "Bearer "+sign(t, jwt.SigningMethodHS256, public, "", fine()))
	require.Equal(t, 401, code)
}

// issuer serves a JWK set, as those who log people in do.
type issuer struct {
	mu   sync.Mutex
	keys map[string]*rsa.PrivateKey
	away atomic.Bool
	slow atomic.Int64 // nanoseconds that an answer takes
	*httptest.Server
}

func (i *issuer) hide(kid string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	delete(i.keys, kid)
}

func (i *issuer) show(kid string, key *rsa.PrivateKey) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.keys[kid] = key
}

func newIssuer(t *testing.T, kids ...string) *issuer {
	i := &issuer{keys: map[string]*rsa.PrivateKey{}}
	for _, kid := range kids {
		key, err := rsa.GenerateKey(rand.Reader, 2048)
		require.NoError(t, err)
		i.keys[kid] = key
	}
	i.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if i.away.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		time.Sleep(time.Duration(i.slow.Load()))
		_, _ = w.Write(i.set())
	}))
	t.Cleanup(func() { i.Close(); http.DefaultClient.CloseIdleConnections() })
	return i
}

func (i *issuer) set() []byte {
	i.mu.Lock()
	defer i.mu.Unlock()
	var keys []map[string]string
	for kid, key := range i.keys {
		keys = append(keys, map[string]string{"kty": "RSA", "kid": kid, "alg": "RS256", "use": "sig",
			"n": base64.RawURLEncoding.EncodeToString(key.N.Bytes()), "e": base64.RawURLEncoding.EncodeToString(big.NewInt(int64(key.E)).Bytes())})
	}
	data, _ := json.Marshal(map[string]any{"keys": keys})
	return data
}

func TestKeysFromURL(t *testing.T) {
	i := newIssuer(t, "one", "two")
	ask := protect(t, gwjwt.Config{JWKS: i.URL})
	stranger, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(t, err)
	for kid, want := range map[string]int{"one": 200, "two": 200, "three": 401} {
		key := i.keys[kid]
		if key == nil {
			key = stranger
		}
		code, _, _ := ask("/", "Bearer "+sign(t, jwt.SigningMethodRS256, key, kid, fine()))
		require.Equal(t, want, code, kid)
	}
	code, _, _ := ask("/", "Bearer "+sign(t, jwt.SigningMethodRS256, stranger, "one", fine()))
	require.Equal(t, 401, code)
}

// TestNewKey: the issuer has a new key, and answers slowly, while requests with unknown keys come all the time.
func TestNewKey(t *testing.T) {
	i := newIssuer(t, "one", "two")
	two := i.keys["two"]
	i.hide("two")
	ask := protect(t, gwjwt.Config{JWKS: i.URL})
	i.show("two", two)
	i.slow.Store(int64(300 * time.Millisecond))
	token := "Bearer " + sign(t, jwt.SigningMethodRS256, two, "two", fine())
	require.Eventually(t, func() bool { code, _, _ := ask("/", token); return code == 200 }, 30*time.Second, 10*time.Millisecond)
}

func TestIssuerThatIsAwayLetsNobodyIn(t *testing.T) {
	i := newIssuer(t, "one")
	i.away.Store(true)
	ask := protect(t, gwjwt.Config{JWKS: i.URL})
	token := "Bearer " + sign(t, jwt.SigningMethodRS256, i.keys["one"], "one", fine())
	code, why, _ := ask("/", token)
	require.Equal(t, 503, code, "it is not the client's fault")
	require.Contains(t, why, "could not fetch the keys")
	code, _, _ = ask("/", "")
	require.Equal(t, 401, code)
	i.away.Store(false)
	require.Eventually(t, func() bool { code, _, _ := ask("/", token); return code == 200 }, 30*time.Second, 50*time.Millisecond)
}

// TestNoSecretsInTheLog: neither a password in the URL nor its query.
func TestNoSecretsInTheLog(t *testing.T) {
	env, log := logged(t)
	i := newIssuer(t)
	i.Close()
	address := strings.Replace(i.URL, "http://", "http://user:s3cret@", 1) + "/keys?token=t0ken"
	m, err := gwjwt.New(env, gwjwt.Config{JWKS: address, Audience: []string{"shop"}})
	require.NoError(t, err)
	require.NoError(t, m.(*gwjwt.Auth).Close())
	require.Contains(t, log.String(), "cannot fetch the keys")
	require.Contains(t, log.String(), "/keys")
	require.NotContains(t, log.String(), "s3cret")
	require.NotContains(t, log.String(), "t0ken")
}

// TestKeysInAFile are changed while requests come, by mistakes too.
func TestKeysInAFile(t *testing.T) {
	i := newIssuer(t, "one", "two")
	one, two := i.keys["one"], i.keys["two"]
	tokenOf := func(kid string, key *rsa.PrivateKey) string {
		return "Bearer " + sign(t, jwt.SigningMethodRS256, key, kid, fine())
	}
	file := filepath.Join(t.TempDir(), "keys.json")
	put := func(data []byte) { require.NoError(t, os.WriteFile(file, data, 0o600)) }
	i.hide("two")
	put(i.set())
	env, log := logged(t)
	ask := protectIn(t, env, gwjwt.Config{KeyFile: file})
	status := func(token string) int { code, _, _ := ask("/", token); return code }
	require.Equal(t, 200, status(tokenOf("one", one)))
	require.Equal(t, 401, status(tokenOf("two", two)))

	for wrong, want := range map[string]string{
		"nonsense":               "neither a JWK set nor a public key",
		`{"keys": []}`:           "there is no key in the JWK set",
		`{}`:                     "there is no key in the JWK set",
		`{"keys": [{"kty": 1}]}`: "is no JWK set",
	} {
		put([]byte(wrong))
		require.Eventually(t, func() bool { return strings.Contains(log.String(), want) }, 30*time.Second, 5*time.Millisecond, wrong)
		require.Equal(t, 200, status(tokenOf("one", one)))
		log.Reset()
		_, err := gwjwt.New(new(plugin.Env), gwjwt.Config{KeyFile: file})
		require.ErrorContains(t, err, want)
		require.ErrorContains(t, err, file)
	}

	i.hide("one")
	i.show("two", two)
	put(i.set())
	require.Eventually(t, func() bool { return status(tokenOf("two", two)) == 200 }, 30*time.Second, 5*time.Millisecond)
	require.Equal(t, 401, status(tokenOf("one", one)))
	der, err := x509.MarshalPKIXPublicKey(&one.PublicKey)
	require.NoError(t, err)
	put(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
	require.Eventually(t, func() bool { return status(tokenOf("", one)) == 200 }, 30*time.Second, 5*time.Millisecond)
}

// logged is an Env with a log.
func logged(t *testing.T) (*plugin.Env, *logtest.Buffer) {
	settings, err := plugin.NewLoader(plugin.NewCatalog()).Load(nil)
	require.NoError(t, err)
	log := new(logtest.Buffer)
	host := settings.Open(t.Context(), slog.New(slog.NewTextHandler(log, nil)))
	t.Cleanup(func() { require.NoError(t, host.Close()) })
	return host.Env(), log
}

func TestValidate(t *testing.T) {
	err := (&gwjwt.Config{Leeway: time.Hour, Public: []string{"x"}}).Validate()
	require.ErrorContains(t, err, "set one of jwks, key-file and secret: 0 are set")
	require.ErrorContains(t, err, "audience:")
	require.ErrorContains(t, err, "leeway")
	require.ErrorContains(t, err, "public")
	err = (&gwjwt.Config{JWKS: "http://login.example.com", Secret: plugin.NewSecret("short")}).Validate()
	require.ErrorContains(t, err, "2 are set")
	require.ErrorContains(t, err, "https")
	require.ErrorContains(t, err, "secret: it has 5 bytes")
	require.NotContains(t, err.Error(), "short")
}
