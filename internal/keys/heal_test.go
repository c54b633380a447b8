//go:build cgo

package keys_test

import (
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/pkcs11"

	"github.com/deviceca/deviceca/internal/keys"
	"github.com/deviceca/deviceca/internal/keys/keystest"
)

func rename(t *testing.T, from, to string) {
	t.Helper()
	if err := os.Rename(from, to); err != nil {
		t.Fatal(err)
	}
}

// SoftHSM notices that its directory is gone, finds nothing in the token and
// calls that success; it sees the directory's return only when initialised anew.
func TestTokenDirectoryAway(t *testing.T) {
	uri, dir := keystest.SoftHSM(t)
	p := open(t, uri, keys.Options{})
	k := generate(t, p)
	tokens := filepath.Join(dir, "tokens")
	for range 2 {
		rename(t, tokens, tokens+".away")
		wantAway(t, p, k)
		time.Sleep(1500 * time.Millisecond)
		wantAway(t, p, k)
		rename(t, tokens+".away", tokens)
		wantBack(t, p, k)
	}
	// An empty directory in its place is no token either.
	rename(t, tokens, tokens+".away")
	if err := os.Mkdir(tokens, 0o700); err != nil {
		t.Fatal(err)
	}
	wantAway(t, p, k)
	if err := os.RemoveAll(tokens); err != nil {
		t.Fatal(err)
	}
	rename(t, tokens+".away", tokens)
	wantBack(t, p, k)
}

// Someone else in the process ends what the provider built: no caller notices.
func TestSessionsKilled(t *testing.T) {
	uri, _ := keystest.SoftHSM(t)
	p := open(t, uri, keys.Options{})
	k := generate(t, p)
	ctx, raw := rawSession(t)
	info, err := ctx.GetSessionInfo(raw)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		kill func() error
	}{
		{"all sessions closed", func() error { return ctx.CloseAllSessions(info.SlotID) }},
		{"logged out", func() error {
			s, err := ctx.OpenSession(info.SlotID, pkcs11.CKF_SERIAL_SESSION)
			if err != nil {
				return err
			}
			return ctx.Logout(s)
		}},
		{"finalized", ctx.Finalize},
	} {
		t.Run(c.name, func(t *testing.T) {
			time.Sleep(5100 * time.Millisecond) // an old connection is replaced at once, a young one after a pause
			if err := c.kill(); err != nil {
				t.Fatal(err)
			}
			wantBack(t, p, k)
		})
	}
}

func TestModuleFails(t *testing.T) {
	proxy := newProxy(t)
	p := open(t, proxy.uri, keys.Options{})
	k := generate(t, p)
	for _, c := range []struct{ name, lines string }{
		{"device removed", "* fail 32"},
		{"device error at sign", "C_Sign fail 30"},
		{"general error at sign", "C_Sign fail 5"},
		{"session handle invalid", "C_SignInit fail b3\nC_OpenSession fail b3\nC_GetSessionInfo fail b3"},
		{"session closed at sign", "C_Sign fail b0"},
		{"not logged in at sign", "C_SignInit fail 101"},
		{"key handle invalid", "C_SignInit fail 60"},
		{"object handle invalid", "C_SignInit fail 82"},
		{"token not present", "C_SignInit fail e0\nC_GetTokenInfo fail e0"},
		{"no session opens", "C_Sign fail b3\nC_OpenSession fail 30"},
		{"does not initialise", "C_Sign fail 190\nC_Initialize fail 5"},
		{"vendor's own code", "C_Sign fail 80000123"},
	} {
		t.Run(c.name, func(t *testing.T) {
			proxy.control(t, c.lines)
			if err := sign(k); !isErr(err, keys.ErrUnavailable) {
				t.Fatalf("sign: %v", err)
			}
			wantAway(t, p, k)
			proxy.control(t, "")
			wantBack(t, p, k)
		})
	}
}

// Only the known codes mean that the token is away.
func TestModuleRefuses(t *testing.T) {
	proxy := newProxy(t)
	p := open(t, proxy.uri, keys.Options{})
	k := generate(t, p)
	proxy.control(t, "C_Sign fail 68") // CKR_KEY_FUNCTION_NOT_PERMITTED
	if err := sign(k); err == nil || isErr(err, keys.ErrUnavailable) {
		t.Errorf("sign: %v", err)
	}
	if err := p.Ping(t.Context()); err != nil {
		t.Errorf("a refused signature made the token look away: %v", err)
	}
	proxy.control(t, "C_GetMechanismInfo fail 70")
	if _, err := p.Generate(t.Context(), "ed", keys.Ed25519); err == nil || isErr(err, keys.ErrUnavailable) {
		t.Errorf("generate without the mechanism: %v", err)
	}
	proxy.control(t, "")
	wantBack(t, p, k)
}

func TestModuleBlocks(t *testing.T) {
	proxy := newProxy(t)
	const sessions, queue, callers = 2, 5, 200
	p := open(t, proxy.uri, keys.Options{Sessions: sessions, Queue: queue, Wait: 300 * time.Millisecond})
	k := generate(t, p)
	proxy.control(t, "C_Sign block ffff")
	var wg sync.WaitGroup
	var returned, refused atomic.Int64
	for range callers {
		wg.Go(func() {
			began := time.Now()
			switch err := sign(k); {
			case err == nil:
			case isErr(err, keys.ErrUnavailable):
				if refused.Add(1); time.Since(began) > time.Second {
					t.Errorf("refused after %v", time.Since(began))
				}
			default:
				t.Error(err)
			}
			returned.Add(1)
		})
	}
	for began := time.Now(); refused.Load() < callers-sessions-queue; time.Sleep(time.Millisecond) {
		if time.Since(began) > 5*time.Second {
			t.Fatalf("only %d callers refused at once", refused.Load())
		}
	}
	for range 3 {
		began := time.Now()
		if err := p.Ping(t.Context()); !isErr(err, keys.ErrUnavailable) || time.Since(began) > time.Second {
			t.Errorf("ping of a module that hangs: %v after %v", err, time.Since(began))
		}
	}
	for began := time.Now(); refused.Load() < callers-sessions && time.Since(began) < 5*time.Second; {
		time.Sleep(time.Millisecond) // the queue's Wait runs out
	}
	if n := refused.Load(); n != callers-sessions || returned.Load() != n {
		t.Errorf("%d refused, %d returned; want all but the %d in the module", n, returned.Load(), sessions)
	}
	proxy.control(t, "")
	wg.Wait()
	if returned.Load()-refused.Load() != sessions {
		t.Error("a blocked signature failed though the module came back")
	}
	wantBack(t, p, k)
	if _, most := proxy.calls(t, "C_OpenSession"); most > sessions+1 {
		t.Errorf("%d sessions were open at once; want at most %d and the keeper", most, sessions)
	}
}

// A PIN is tried once, at Open and at reconnecting: three wrong ones lock a token.
func TestWrongPIN(t *testing.T) {
	proxy := newProxy(t)
	pin := filepath.Join(proxy.dir, "user.pin")
	setPIN := func(s string) {
		if err := os.WriteFile(pin, []byte(s), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	logins := func() int { rvs, _ := proxy.calls(t, "C_Login"); return len(rvs) }
	setPIN("wrong")
	if p, err := keys.Open(t.Context(), proxy.uri, keys.Options{}); !isErr(err, keys.ErrPIN) {
		t.Fatalf("open: %v, %v", p, err)
	}
	if n := logins(); n != 1 {
		t.Fatalf("%d logins with a wrong PIN", n)
	}
	setPIN(keystest.PIN)
	p := open(t, proxy.uri, keys.Options{})
	k := generate(t, p)
	before := logins()
	setPIN("changed")
	proxy.control(t, "C_Sign fail 32")
	if err := sign(k); !isErr(err, keys.ErrUnavailable) {
		t.Fatal(err)
	}
	proxy.control(t, "")
	time.Sleep(2 * time.Second)
	err := sign(k)
	if !isErr(err, keys.ErrPIN) || !isErr(err, keys.ErrUnavailable) {
		t.Errorf("sign after the PIN changed: %v", err)
	}
	if err := p.Ping(t.Context()); !isErr(err, keys.ErrPIN) {
		t.Errorf("ping after the PIN changed: %v", err)
	}
	if n := logins() - before; n != 1 {
		t.Errorf("%d logins with a PIN that was changed, want 1", n)
	}
}

// One token of a module goes away, and the module is initialised again and
// again to find it; the other's callers see none of it.
func TestSiblingToken(t *testing.T) {
	uri, dir := keystest.SoftHSM(t)
	module := keystest.Module(t)
	tokens := filepath.Join(dir, "tokens")
	mine, err := os.ReadDir(tokens)
	if err != nil || len(mine) != 1 {
		t.Fatal(mine, err)
	}
	if err := keys.InitToken(module, "other", "officer", "user-pin"); err != nil {
		t.Fatal(err)
	}
	if err := keys.InitToken(module, "other", "officer", "user-pin"); !isErr(err, keys.ErrExists) {
		t.Errorf("a second token of one label: %v", err)
	}
	t.Setenv("OTHER_PIN", "user-pin")
	p := open(t, uri, keys.Options{})
	q := open(t, keys.URI{Token: "other", ModulePath: module}.String(), keys.Options{PIN: pinSource(t, "env:OTHER_PIN")})
	kp, kq := generate(t, p), generate(t, q)
	home := filepath.Join(tokens, mine[0].Name())
	away := filepath.Join(dir, "away")
	stop := make(chan struct{})
	var wg sync.WaitGroup
	var signed atomic.Int64
	for range 4 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if err := sign(kq); err != nil {
					t.Errorf("the other token's caller: %v", err)
					return
				}
				signed.Add(1)
			}
		})
	}
	rename(t, home, away)
	if err := sign(kp); !isErr(err, keys.ErrUnavailable) {
		t.Errorf("token away: %v", err)
	}
	time.Sleep(4 * time.Second)
	rename(t, away, home)
	wantBack(t, p, kp)
	close(stop)
	wg.Wait()
	t.Logf("%d signatures by the other token meanwhile", signed.Load())
	if signed.Load() < 100 {
		t.Errorf("only %d signatures by the other token", signed.Load())
	}
}
