package server_test

import (
	"crypto"
	"strings"
	"testing"

	"github.com/deviceca/deviceca/cmp"
)

// Wrong MACs count against the limits, for references that are there and that are
// not alike; a right secret is never limited.
func TestWrongSecretsAreLimited(t *testing.T) {
	e := newEnv(t)
	lamp := e.register("lamp-1", 100)
	ir := func(p party) cmp.StatusInfo {
		return status(e.post("", e.protected(e.message(requests(cmp.IR, crmf(t, "lamp-1", newKey(t), nil)), cmp.ImplicitConfirm()), p)))
	}
	guess := func(reference string) party {
		return party{mac: must[*cmp.MAC](t)(cmp.NewMAC([]byte(reference), []byte("wrong"), cmp.MACParams{}))}
	}
	known, unknown := guess(string(lamp.mac.Reference())), guess("nobody")
	for i := range 12 {
		want := cmp.BadMessageCheck
		if i >= 10 {
			want = cmp.SystemUnavail
		}
		a, b := ir(known), ir(unknown)
		if a.FailInfo != want || a.String() != b.String() {
			t.Errorf("guess %d: %v with a reference that is there, %v with one that is not; want %s", i+1, a, b, want)
		}
	}
	if got := ir(lamp); got.Status != cmp.Accepted {
		t.Errorf("the right secret: %v", got)
	}
	// Parameters that are out of bounds are no guess, and say so to everybody.
	weak := party{mac: must[*cmp.MAC](t)(cmp.NewMAC(lamp.mac.Reference(), []byte("wrong"), cmp.MACParams{Iterations: 10}))}
	if got := ir(weak); got.FailInfo != cmp.BadAlg || !strings.Contains(got.String(), "iteration") {
		t.Errorf("10 iterations: %v", got)
	}
	if n := e.core.Stats().WrongSecrets; n != 24 {
		t.Errorf("%d wrong secrets counted", n)
	}
}

// Work beyond the bound is refused before it is done, to known and unknown references alike; a
// right secret passes with as much as common clients ask for, also beside guesses from its own address.
func TestMACWorkIsBounded(t *testing.T) {
	e := newEnv(t)
	lamp := e.register("lamp-1", 100)
	secret := string(lamp.secret)
	ir := func(reference, secret string, p cmp.MACParams) cmp.StatusInfo {
		by := party{mac: must[*cmp.MAC](t)(cmp.NewMAC([]byte(reference), []byte(secret), p))}
		return status(e.post("", e.protected(e.message(requests(cmp.IR, crmf(t, "lamp-1", newKey(t), nil)), cmp.ImplicitConfirm()), by)))
	}
	reference := string(lamp.mac.Reference())
	blocks := cmp.MACParams{Kind: cmp.PBMAC1, OWF: crypto.SHA1, Iterations: 1000, KeyLength: 256}
	for _, r := range []string{reference, "nobody"} {
		if got := ir(r, "wrong", blocks); got.FailInfo != cmp.BadAlg || !strings.Contains(got.String(), "key length") {
			t.Errorf("a key of 13 blocks, reference %s: %v, want badAlg", r, got)
		}
	}
	if n := e.core.Stats().WrongSecrets; n != 0 {
		t.Errorf("%d guesses counted: nothing was computed", n)
	}
	for range 11 {
		ir(reference, "wrong", cmp.MACParams{})
	}
	if got := ir(reference, "wrong", cmp.MACParams{Kind: cmp.PBMAC1, Iterations: 2000}); got.FailInfo != cmp.SystemUnavail {
		t.Errorf("one guess too many: %v", got)
	}
	if got := ir(reference, secret, cmp.MACParams{Kind: cmp.PBMAC1, Iterations: 262_144}); got.Status != cmp.Accepted {
		t.Errorf("the right secret among guesses: %v", got)
	}
}

// RFC 9483 §4.1.5: who guesses learns nothing from the answer.
func TestNoOracle(t *testing.T) {
	e := newEnv(t)
	lamp := e.register("lamp-1", 1)
	secret := func(reference, secret string) party {
		return party{mac: must[*cmp.MAC](t)(cmp.NewMAC([]byte(reference), []byte(secret), cmp.MACParams{}))}
	}
	gone := e.register("lamp-9", 1)
	if err := e.core.RevokeCredential(t.Context(), string(gone.mac.Reference()), "admin:test"); err != nil {
		t.Fatal(err)
	}
	var first cmp.StatusInfo
	for i, p := range []party{secret(string(lamp.mac.Reference()), "wrong"), secret("nobody", "wrong"), secret("", "wrong"), secret(string(gone.mac.Reference()), "wrong")} {
		answer := e.post("", e.protected(e.message(requests(cmp.IR, crmf(t, "lamp-1", newKey(t), nil))), p))
		if got := status(answer); i == 0 {
			first = got
		} else if got.String() != first.String() || got.FailInfo != cmp.BadMessageCheck {
			t.Errorf("%v, and %v to a wrong secret", got, first)
		}
	}
	// Whoever has the secret is told.
	if got := status(e.post("", e.protected(e.message(requests(cmp.IR, crmf(t, "lamp-9", newKey(t), nil))), gone))); !strings.Contains(got.String(), "revoked") {
		t.Errorf("a revoked credential: %v", got)
	}
}
