package client

import (
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// opaqueSigner hides the key behind crypto.Signer, as a token does.
type opaqueSigner struct{ crypto.Signer }

// fakeCA is an Enroller without a network, for tests of time.
type fakeCA struct {
	t        *testing.T
	ca       *testCA
	validity time.Duration
	fail     []error // answers to come before the next certificate
	at       []time.Time
}

func (f *fakeCA) Protocol() string { return "fake" }
func (f *fakeCA) CACerts(context.Context) (*CACerts, error) {
	return &CACerts{Roots: []*x509.Certificate{f.ca.root}, Intermediates: []*x509.Certificate{f.ca.issuing}}, nil
}
func (f *fakeCA) KeyHint(context.Context, Auth) (KeyType, error) { return "", nil }
func (f *fakeCA) Renew(ctx context.Context, r *Request) (*Reply, error) {
	return f.Enroll(ctx, r)
}
func (f *fakeCA) Enroll(_ context.Context, r *Request) (*Reply, error) {
	f.at = append(f.at, time.Now())
	if len(f.fail) > 0 {
		err := f.fail[0]
		f.fail = f.fail[1:]
		return nil, err
	}
	cert := f.ca.leaf(f.t, "", r.Key.Public(), func(c *x509.Certificate) {
		c.RawSubject, c.NotBefore, c.NotAfter = r.Names.Subject, time.Now(), time.Now().Add(f.validity)
	})
	return &Reply{Certificates: []*x509.Certificate{cert}, Outcome: "issue"}, nil
}

func TestAgent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeCA{t: t, ca: newTestCA(t, "good"), validity: 100 * time.Hour}
		busy := &Error{Kind: Busy, Op: "x", Text: "busy", RetryAfter: 10 * time.Minute}
		f.fail = []error{errors.New("no network"), errors.New("no network"), busy}
		var hooked []string
		hookFails := 1
		hook := func(_ context.Context, r Result) error {
			if hookFails > 0 {
				hookFails--
				return errors.New("reload failed")
			}
			hooked = append(hooked, r.Serial)
			return nil
		}
		config := Config{Dir: t.TempDir(), Device: "sensor-1", Enroller: f}
		start := time.Now()
		watch := func(d time.Duration) {
			ctx, cancel := context.WithTimeout(t.Context(), d)
			defer cancel()
			if err := (&Agent{Config: config, Hook: hook}).Watch(ctx); !errors.Is(err, context.DeadlineExceeded) {
				t.Fatal(err)
			}
		}
		watch(5 * time.Hour)
		if len(f.at) != 4 {
			t.Fatalf("asked %d times in the first hours", len(f.at))
		}
		for i, b := range [][2]time.Duration{{5 * time.Second, 10 * time.Second}, {10 * time.Second, 20 * time.Second}, {10 * time.Minute, 12*time.Minute + 30*time.Second}} {
			if d := f.at[i+1].Sub(f.at[i]); d < b[0] || d > b[1] {
				t.Errorf("wait %d is %v, want %v", i, d, b)
			}
		}
		if len(hooked) != 1 {
			t.Errorf("the hook succeeded %d times, want once, after its failure", len(hooked))
		}
		// A restart asks for nothing and calls no hook.
		watch(5 * time.Hour)
		if len(f.at) != 4 || len(hooked) != 1 {
			t.Errorf("the restart asked %d times, hooked %d", len(f.at)-4, len(hooked)-1)
		}
		// A renewal by somebody else is noticed.
		other := config
		other.Renew = true
		mustRun(t, other)
		watch(2 * time.Hour)
		if len(hooked) != 2 {
			t.Errorf("a renewal from elsewhere was not hooked: %d", len(hooked))
		}
		// And then once per half life, for a month.
		asked := len(f.at)
		watch(30 * 24 * time.Hour)
		if n := len(f.at) - asked; n < 12 || n > 17 {
			t.Errorf("%d renewals in 720 h of certificates for 100 h", n)
		}
		for i := asked; i+1 < len(f.at); i++ {
			if d := f.at[i+1].Sub(f.at[i]); d < 44*time.Hour || d > 56*time.Hour {
				t.Errorf("renewal %d after %v", i, d)
			}
		}
		if len(hooked)-2 != len(f.at)-asked {
			t.Errorf("%d hooks for %d renewals", len(hooked)-2, len(f.at)-asked)
		}
		t.Logf("%d certificates in %v", len(f.at)-3, time.Since(start))
	})
}

// TestAgentRefused: what is refused for good is asked for rarely, and still asked for.
func TestAgentRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeCA{t: t, ca: newTestCA(t, "good"), validity: 100 * time.Hour}
		for range 1000 {
			f.fail = append(f.fail, &Error{Kind: Refused, Text: "no"})
		}
		ctx, cancel := context.WithTimeout(t.Context(), 24*time.Hour)
		defer cancel()
		(&Agent{Config: Config{Dir: t.TempDir(), Device: "sensor-1", Enroller: f}}).Watch(ctx)
		if n := len(f.at); n < 24 || n > 49 {
			t.Errorf("asked %d times in a day", n)
		}
	})
}

// TestAgentDueAtOnce: a CA whose certificates are due when they arrive is not flooded.
func TestAgentDueAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeCA{t: t, ca: newTestCA(t, "good"), validity: time.Second}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
		defer cancel()
		(&Agent{Config: Config{Dir: t.TempDir(), Device: "sensor-1", Enroller: f}}).Watch(ctx)
		if n := len(f.at); n < 2 || n > 61 {
			t.Errorf("asked %d times in ten minutes", n)
		}
	})
}

func TestAgentMisused(t *testing.T) {
	err := (&Agent{Config: Config{Dir: t.TempDir(), Device: "no id", Server: "https://127.0.0.1"}}).Watch(t.Context())
	if KindOf(err) != Usage || err == nil {
		t.Errorf("Watch: %v", err)
	}
}
