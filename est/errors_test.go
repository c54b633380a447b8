package est_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/deviceca/deviceca/ca"
)

// Every kind of error of the core, through HTTP, as docs/est.md has them.
func TestEveryKind(t *testing.T) {
	want := map[ca.Kind]struct {
		status int
		retry  string
	}{
		ca.Internal:        {500, ""},
		ca.Malformed:       {400, ""},
		ca.BadPOP:          {400, ""},
		ca.BadAlg:          {400, ""},
		ca.BadKey:          {400, ""},
		ca.Unauthenticated: {401, ""},
		ca.Denied:          {403, ""},
		ca.BadEvidence:     {403, ""},
		ca.Pending:         {202, "2"},
		ca.Conflict:        {409, ""},
		ca.RateLimited:     {429, "2"},
		ca.Unavailable:     {503, "2"},
		ca.NotFound:        {404, ""},
	}
	e := newEnv(t)
	for _, kind := range ca.Kinds() {
		t.Run(kind.String(), func(t *testing.T) {
			expect, ok := want[kind]
			if !ok {
				t.Fatalf("the table of this test lacks %s", kind)
			}
			e.before = func(context.Context, ca.Request) error {
				return fmt.Errorf("wrapped: %w", &ca.Error{Kind: kind, Reason: "what is wrong", Rule: "some rule",
					RetryAfter: 1100 * time.Millisecond, Err: errors.New("our insides")})
			}
			r := e.do(t, call{path: "simpleenroll", body: base64Body(newCSR(t, newKey(t), "lamp-1")), user: "lamp-ref", pass: lampSecret})
			says := "what is wrong (rule some rule)\n"
			if kind == ca.Internal {
				says = "internal error"
			}
			r.wantRefusal(t, expect.status, says)
			r.wantHeader(t, "Retry-After", expect.retry)
			if strings.Contains(r.body, "insides") {
				t.Errorf("the client is told of our insides: %s", r.body)
			}
			if !strings.Contains(e.logs.String(), "our insides") || !strings.Contains(e.logs.String(), "outcome="+kind.String()) {
				t.Errorf("the log lacks the cause or the kind: %s", e.logs)
			}
			if got := e.lastObserved(); got != "simpleenroll "+kind.String() {
				t.Errorf("observed %q", got)
			}
		})
	}
}

func TestErrorDetails(t *testing.T) {
	e := newEnv(t)
	ask := func(err error) result {
		e.before = func(context.Context, ca.Request) error { return err }
		return e.do(t, call{path: "simpleenroll", body: base64Body(newCSR(t, newKey(t), "lamp-1")), user: "lamp-ref", pass: lampSecret})
	}
	t.Run("not of the core", func(t *testing.T) {
		r := ask(errors.New("our insides"))
		r.wantRefusal(t, http.StatusInternalServerError, "internal error")
		if strings.Contains(r.body, "insides") || !strings.Contains(e.logs.String(), "level=ERROR") {
			t.Errorf("body %q, log %s", r.body, e.logs)
		}
	})
	t.Run("without a time to wait", func(t *testing.T) {
		ask(&ca.Error{Kind: ca.Pending, Reason: "an administrator must approve"}).wantHeader(t, "Retry-After", "30")
	})
	t.Run("away", func(t *testing.T) {
		r := ask(ca.Away("the token", errors.New("CKR_DEVICE_REMOVED")))
		r.wantRefusal(t, http.StatusServiceUnavailable, "the token does not answer at the moment; try again")
		r.wantHeader(t, "Retry-After", "5")
	})
	t.Run("long and unprintable", func(t *testing.T) {
		r := ask(ca.Errorf(ca.Denied, "a\r\nb\x00\x1b[31m %s", strings.Repeat("é", 1000)))
		r.wantRefusal(t, http.StatusForbidden, "a??b??[31m é")
		if len(r.body) > 1001 || !strings.HasSuffix(r.body, "é…\n") {
			t.Errorf("%d octets: %q", len(r.body), r.body)
		}
	})
	t.Run("abandoned", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		left := make(chan struct{})
		e.before = func(core context.Context, _ ca.Request) error {
			cancel()
			<-core.Done()
			defer close(left)
			return fmt.Errorf("record: %w", core.Err())
		}
		r, err := http.NewRequestWithContext(ctx, "POST", e.server.URL+"/.well-known/est/simpleenroll", base64Body(newCSR(t, newKey(t), "lamp-1")))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", "application/pkcs10")
		r.SetBasicAuth("lamp-ref", lampSecret)
		if _, err := e.server.Client().Do(r); !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		<-left
		e.server.Close()
		for end := time.Now().Add(5 * time.Second); e.lastObserved() != "simpleenroll gone"; time.Sleep(time.Millisecond) {
			if time.Now().After(end) { // Close does not wait for a handler whose connection is gone
				t.Fatalf("observed %q", e.lastObserved())
			}
		}
	})
}
