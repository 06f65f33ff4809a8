package gateway_test

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/plugmicro/micro/gateway"
	"github.com/plugmicro/micro/status"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestInfoIsOfTheRequest(t *testing.T) {
	r := httptest.NewRequest("GET", "/", nil)
	require.NotNil(t, gateway.Of(r))
	r = gateway.With(r, &gateway.Info{ID: "7"})
	require.Equal(t, "7", gateway.Of(r).ID)
	gateway.Of(r).SetMetadata("user", "ada")
	require.Equal(t, map[string]string{"user": "ada"}, gateway.FromContext(r.Context()).Metadata())
}

func TestGuardsAreAllAsked(t *testing.T) {
	var info gateway.Info
	require.NoError(t, info.Admit("greeter", "Greeter.Hello"))
	var asked []string
	info.Guard(func(service, endpoint string) error { asked = append(asked, service+" "+endpoint); return nil })
	no := errors.New("no")
	info.Guard(func(string, string) error { return no })
	require.ErrorIs(t, info.Admit("greeter", "Greeter.Hello"), no)
	require.Equal(t, []string{"greeter Greeter.Hello"}, asked)
}

func TestFail(t *testing.T) {
	for name, c := range map[string]struct {
		err  error
		body string
	}{
		"a problem": {gateway.NewProblem(403, "not from %s", "there"),
			`{"title":"Forbidden","status":403,"code":"PermissionDenied","detail":"not from there","request_id":"7"}`},
		"an error of a call": {status.Errorf(status.NotFound, "no greeting"),
			`{"title":"Not Found","status":404,"code":"NotFound","detail":"no greeting","request_id":"7"}`},
		"the client is gone": {status.Errorf(status.Canceled, "gone"),
			`{"title":"Client Closed Request","status":499,"code":"Canceled","detail":"gone","request_id":"7"}`},
	} {
		t.Run(name, func(t *testing.T) {
			w := httptest.NewRecorder()
			w.Header().Set("Content-Length", "1000")
			w.Header().Set("X-Other", "stays")
			gateway.Fail(w, gateway.With(httptest.NewRequest("GET", "/", nil), &gateway.Info{ID: "7"}), c.err)
			require.JSONEq(t, c.body, w.Body.String())
			require.Equal(t, gateway.ProblemOf(c.err).Status, w.Code)
			require.Equal(t, "application/problem+json", w.Header().Get("Content-Type"))
			require.Empty(t, w.Header().Get("Content-Length"))
			require.Equal(t, "stays", w.Header().Get("X-Other"))
		})
	}
	w := httptest.NewRecorder()
	gateway.Fail(w, httptest.NewRequest("HEAD", "/", nil), io.ErrUnexpectedEOF)
	require.Empty(t, w.Body.String())
	require.Equal(t, http.StatusInternalServerError, w.Code)
}

func TestHTTPStatus(t *testing.T) {
	want := map[status.Code]int{
		status.OK: 200, status.Canceled: 499, status.Unknown: 500, status.InvalidArgument: 400, status.DeadlineExceeded: 504,
		status.NotFound: 404, status.AlreadyExists: 409, status.PermissionDenied: 403, status.ResourceExhausted: 429,
		status.FailedPrecondition: 400, status.Aborted: 409, status.OutOfRange: 400, status.Unimplemented: 501,
		status.Internal: 500, status.Unavailable: 503, status.DataLoss: 500, status.Unauthenticated: 401,
	}
	for code, s := range want {
		require.Equal(t, s, gateway.HTTPStatus(code), code.String())
	}
}

func TestCodeOfAProblem(t *testing.T) {
	for httpStatus, code := range map[int]string{400: "InvalidArgument", 413: "InvalidArgument", 418: "InvalidArgument", 401: "Unauthenticated",
		404: "NotFound", 409: "Aborted", 429: "ResourceExhausted", 499: "Canceled", 500: "Internal", 502: "Unavailable", 504: "DeadlineExceeded"} {
		require.Equal(t, code, gateway.NewProblem(httpStatus, "").Code, httpStatus)
	}
}
