package basicauth_test

import (
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"golang.org/x/crypto/bcrypt"

	"github.com/plugmicro/micro/gateway"
	"github.com/plugmicro/micro/gateway/basicauth"
	"github.com/plugmicro/micro/internal/logtest"
	"github.com/plugmicro/micro/plugin"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func line(t *testing.T, user, password string) string {
	hash, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
	require.NoError(t, err)
	return user + ":" + string(hash) + "\n"
}

func write(t *testing.T, file, text string) {
	require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
}

// protect returns what asks: the status, and the user that was let through.
func protect(t *testing.T, file string, public ...string) func(path, user, password string) (int, string) {
	return protectIn(t, new(plugin.Env), file, public...)
}

func protectIn(t *testing.T, env *plugin.Env, file string, public ...string) func(path, user, password string) (int, string) {
	m, err := basicauth.New(env, basicauth.Config{File: file, Realm: "micro", Public: public})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, m.(*basicauth.Auth).Close()) })
	h := m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("User", gateway.Of(r).Metadata()["user"])
	}))
	return func(path, user, password string) (int, string) {
		r := gateway.With(httptest.NewRequest("GET", path, nil), &gateway.Info{})
		if user != "" {
			r.SetBasicAuth(user, password)
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code == http.StatusUnauthorized {
			require.Equal(t, `Basic realm="micro", charset="UTF-8"`, w.Header().Get("WWW-Authenticate"))
		}
		return w.Code, w.Header().Get("User")
	}
}

func TestUsers(t *testing.T) {
	file := filepath.Join(t.TempDir(), "users")
	write(t, file, "# who may\n\n"+line(t, "ada", "secret")+line(t, "grace", "other"))
	ask := protect(t, file, "/status")
	for range 2 { // the second time it is known
		code, user := ask("/a", "ada", "secret")
		require.Equal(t, 200, code)
		require.Equal(t, "ada", user)
	}
	for _, wrong := range [][2]string{{"", ""}, {"ada", ""}, {"ada", "other"}, {"grace", "secret"}, {"nobody", "nobody"}, {"ADA", "secret"}, {"ada", "secret "}} {
		code, _ := ask("/a", wrong[0], wrong[1])
		require.Equal(t, 401, code, wrong)
	}
	code, _ := ask("/status/x", "", "")
	require.Equal(t, 200, code)
	code, _ = ask("/statusx", "", "")
	require.Equal(t, 401, code)
}

// TestThePasswordStays in the gateway, unless it is to go on.
func TestThePasswordStays(t *testing.T) {
	file := filepath.Join(t.TempDir(), "users")
	write(t, file, line(t, "ada", "secret"))
	for _, forward := range []bool{false, true} {
		for _, path := range []string{"/", "/open"} {
			m, err := basicauth.New(new(plugin.Env), basicauth.Config{File: file, Public: []string{"/open"}, Forward: forward})
			require.NoError(t, err)
			var got []string
			r := gateway.With(httptest.NewRequest("GET", path, nil), &gateway.Info{})
			r.SetBasicAuth("ada", "secret")
			m.Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { got = r.Header["Authorization"] })).ServeHTTP(httptest.NewRecorder(), r)
			require.Len(t, got, map[bool]int{true: 1}[forward])
			require.NoError(t, m.(*basicauth.Auth).Close())
		}
	}
}

func TestTwoCredentialsAreNone(t *testing.T) {
	file := filepath.Join(t.TempDir(), "users")
	write(t, file, line(t, "ada", "secret"))
	m, err := basicauth.New(new(plugin.Env), basicauth.Config{File: file})
	require.NoError(t, err)
	defer func() { require.NoError(t, m.(*basicauth.Auth).Close()) }()
	r := httptest.NewRequest("GET", "/", nil)
	r.SetBasicAuth("ada", "secret")
	r.Header.Add("Authorization", "Bearer other")
	w := httptest.NewRecorder()
	m.Handler(http.NotFoundHandler()).ServeHTTP(w, r)
	require.Equal(t, 401, w.Code)
}

func TestReload(t *testing.T) {
	file := filepath.Join(t.TempDir(), "users")
	write(t, file, line(t, "ada", "secret"))
	settings, err := plugin.NewLoader(plugin.NewCatalog()).Load(nil)
	require.NoError(t, err)
	log := new(logtest.Buffer)
	host := settings.Open(t.Context(), slog.New(slog.NewTextHandler(log, nil)))
	t.Cleanup(func() { require.NoError(t, host.Close()) })
	ask := protectIn(t, host.Env(), file)
	code, _ := ask("/", "ada", "secret")
	require.Equal(t, 200, code)
	write(t, file, line(t, "ada", "new"))
	require.Eventually(t, func() bool { code, _ := ask("/", "ada", "new"); return code == 200 }, 10*time.Second, 10*time.Millisecond)
	code, _ = ask("/", "ada", "secret")
	require.Equal(t, 401, code, "what was known is forgotten")

	write(t, file, "ada:new\n"+line(t, "bob", "new"))
	require.Eventually(t, func() bool { return strings.Contains(log.String(), "users:1: want USER:HASH") }, 10*time.Second, 10*time.Millisecond)
	code, _ = ask("/", "ada", "new")
	require.Equal(t, 200, code, "a file with a mistake leaves those before")
	code, _ = ask("/", "bob", "new")
	require.Equal(t, 401, code)
}

func TestManyAtOnce(t *testing.T) {
	file := filepath.Join(t.TempDir(), "users")
	write(t, file, line(t, "ada", "secret"))
	ask := protect(t, file)
	var all sync.WaitGroup
	for i := range 50 {
		all.Go(func() {
			password, want := "secret", 200
			if i%2 == 0 {
				password, want = "wrong", 401
			}
			code, _ := ask("/", "ada", password)
			require.Equal(t, want, code)
		})
	}
	all.Wait()
}

// TestGuessesDoNotQueueForEver sends more passwords at once than may wait: some are told to come again, and none of them waits
// for all others.
func TestGuessesDoNotQueueForEver(t *testing.T) {
	file := filepath.Join(t.TempDir(), "users")
	hash, err := bcrypt.GenerateFromPassword([]byte("secret"), 6)
	require.NoError(t, err)
	write(t, file, "ada:"+string(hash)+"\n")
	ask := protect(t, file)
	codes := make(chan int, 300)
	var all sync.WaitGroup
	for range cap(codes) {
		all.Go(func() { code, _ := ask("/", "ada", "wrong"); codes <- code })
	}
	all.Wait()
	close(codes)
	count := map[int]int{}
	for code := range codes {
		count[code]++
	}
	require.Positive(t, count[503], count)
	require.GreaterOrEqual(t, count[401], 64, count)
	code, _ := ask("/", "ada", "secret")
	require.Equal(t, 200, code)
}

func TestRefusesToStart(t *testing.T) {
	file := filepath.Join(t.TempDir(), "users")
	for text, want := range map[string]string{
		"":                                    "there is no user",
		"ada:secret":                          "users:1: want USER:HASH",
		"ada:{SHA}x\nbob:$apr1$x":             "users:2: want USER:HASH",
		line(t, "a", "b") + line(t, "a", "c"): "users:2: user a is there twice",
	} {
		write(t, file, text)
		_, err := basicauth.New(new(plugin.Env), basicauth.Config{File: file})
		require.ErrorContains(t, err, want)
		require.NotContains(t, err.Error(), "secret")
	}
	require.ErrorContains(t, (&basicauth.Config{}).Validate(), "file:")
	require.ErrorContains(t, (&basicauth.Config{File: "x", Realm: `a"b`}).Validate(), "realm")
	require.ErrorContains(t, (&basicauth.Config{File: "x", Public: []string{"a"}}).Validate(), "public")
}
