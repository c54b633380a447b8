package server_test

import (
	"bytes"
	"testing"
	"time"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/cmp"
)

// mayBeReleased lets registration authorities release what has profile device, not gateway.
func mayBeReleased(source []byte) []byte {
	source = bytes.Replace(source, []byte("    backdate: 5m"), []byte("    release: true\n    backdate: 5m"), 1)
	return bytes.Replace(source, []byte("    extends: device\n    eku: [clientAuth, serverAuth]"), []byte("    extends: device\n    release: false\n    eku: [clientAuth, serverAuth]"), 1)
}

func (e *env) revocation(p party, reason int) *cmp.Message {
	return e.message(&cmp.Revocations{List: []cmp.Revocation{cmp.RevokeCert(p.crt.RawIssuer, p.crt.SerialNumber, reason)}})
}

// RFC 9483 §5.3.2, RFC 5280 §5.3.1: a hold is ended by a registration authority, if
// the profile lets it, and may become final.
func TestHold(t *testing.T) {
	const hold, release, compromise = 6, 8, 1
	e := newEnv(t, mayBeReleased)
	ra := e.registerRA("line-1", "lamp-*")
	rr := func(by, of party, reason int) cmp.FailInfo {
		return status(e.ask(e.revocation(of, reason), by)).FailInfo
	}
	state := func(p party) string {
		c := must[*ca.Certificate](t)(e.store.CertificateBySerial(t.Context(), serialOf(p)))
		if c.Revocation == nil {
			return "good"
		}
		return ca.ReasonName(c.Revocation.Reason)
	}
	lamp, gate := e.enrolled("lamp-1"), e.enrolled("gate-1")
	newer := newKey(t)
	second := party{id: "lamp-1", key: newer, crt: e.certificate(e.ask(e.message(requests(cmp.KUR, crmf(t, "lamp-1", newer, nil)), cmp.ImplicitConfirm()), lamp))}
	gateway := newKey(t)
	other := party{id: "lamp-1", key: gateway, crt: e.certificate(e.ask(e.message(requests(cmp.KUR, crmf(t, "lamp-1", gateway, nil)),
		cmp.ImplicitConfirm(), cmp.CertProfile("gateway")), second))}
	for _, step := range []struct {
		what   string
		by, of party
		reason int
		want   cmp.FailInfo
		state  string // afterwards
	}{
		{"release of what is good", ra, lamp, release, cmp.BadRequest, "good"},
		{"hold by the device", lamp, lamp, hold, 0, "certificateHold"},
		{"release by the certificate on hold", lamp, lamp, release, cmp.SignerNotTrusted, "certificateHold"},
		{"release by another certificate of the device", second, lamp, release, cmp.NotAuthorized, "certificateHold"},
		{"hold again", ra, lamp, hold, cmp.CertRevoked, "certificateHold"},
		{"release by the RA", ra, lamp, release, 0, "good"},
		{"release again", ra, lamp, release, cmp.BadRequest, "good"},
		{"the certificate works again: hold", lamp, lamp, hold, 0, "certificateHold"},
		{"the hold becomes final", ra, lamp, compromise, 0, "keyCompromise"},
		{"release of what is revoked for good", ra, lamp, release, cmp.CertRevoked, "keyCompromise"},
		{"of a profile that does not let it: hold", ra, other, hold, 0, "certificateHold"},
		{"of a profile that does not let it: release", ra, other, release, cmp.NotAuthorized, "certificateHold"},
		{"beyond the RA's bounds: hold", gate, gate, hold, 0, "certificateHold"},
		{"beyond the RA's bounds: release", ra, gate, release, cmp.BadCertID, "certificateHold"},
	} {
		if got := rr(step.by, step.of, step.reason); got != step.want || state(step.of) != step.state {
			t.Errorf("%s: %s, %s; want %s, %s", step.what, got, state(step.of), step.want, step.state)
		}
	}
	// A lost rp is sent again, although nothing is on hold any more.
	must[*ca.Certificate](t)(e.core.Revoke(t.Context(), serialOf(second), hold, nil, "admin:test"))
	raw := e.protected(e.revocation(second, release), ra)
	if first, again := e.postRaw("", raw), e.postRaw("", raw); !bytes.Equal(first, again) || state(second) != "good" {
		t.Errorf("the same rr got another answer, or the certificate is %s", state(second))
	}
}

func serialOf(p party) ca.Serial {
	serial, _ := ca.SerialFromBig(p.crt.SerialNumber)
	return serial
}

// RFC 9483 §5.1.3: what has expired needs no revocation.
func TestRevokeExpired(t *testing.T) {
	e := newEnv(t)
	ra := e.registerRA("line-1", "lamp-*")
	lamp := e.enrolled("lamp-1")
	e.late.Store(int64(time.Until(lamp.crt.NotAfter) + time.Hour))
	if got := status(e.ask(e.revocation(lamp, 1), ra)); got.FailInfo != cmp.CertRevoked {
		t.Error(got)
	}
}

// RFC 9483 §4.2: a device revokes itself, and a lost rp is sent again.
func TestRevoke(t *testing.T) {
	e := newEnv(t)
	own := e.enrolled("lamp-1")
	m := e.message(&cmp.Revocations{List: []cmp.Revocation{cmp.RevokeCert(own.crt.RawIssuer, own.crt.SerialNumber, 1)}})
	raw := e.protected(m, own)
	first := e.postRaw("", raw)
	if got := status(e.verify(must[*cmp.Message](t)(cmp.Parse(first)), m, own)); got.Status != cmp.Accepted {
		t.Fatal(got)
	}
	if !e.revoked(own.crt) {
		t.Error("not revoked")
	}
	if again := e.postRaw("", raw); !bytes.Equal(again, first) {
		t.Error("the same rr got another answer")
	}
	if got := status(e.post("", e.protected(e.message(requests(cmp.KUR, crmf(t, "lamp-1", newKey(t), nil))), own))).FailInfo; got != cmp.SignerNotTrusted {
		t.Errorf("a revoked certificate: %s", got)
	}
}

// RFC 9483 §4.2: a certificate revokes itself and no other of its device, older or newer. Who found a
// discarded key, or renewed with a stolen one, cannot end the certificate that took its place.
func TestRevokeItselfAlone(t *testing.T) {
	e := newEnv(t)
	old, newer := e.enrolled("lamp-2"), newKey(t)
	second := party{id: "lamp-2", key: newer, crt: e.certificate(e.ask(e.message(requests(cmp.KUR, crmf(t, "lamp-2", newer, nil)), cmp.ImplicitConfirm()), old))}
	for _, c := range []struct {
		what   string
		by, of party
		reason int
		want   cmp.FailInfo
	}{
		{"the newer one", old, second, 1, cmp.NotAuthorized},
		{"a hold of the newer one", old, second, 6, cmp.NotAuthorized},
		{"the older one", second, old, 4, cmp.NotAuthorized},
		{"another device's", old, e.enrolled("lamp-3"), 1, cmp.BadCertID},
		{"itself", second, second, 1, 0},
	} {
		if got := status(e.ask(e.revocation(c.of, c.reason), c.by)).FailInfo; got != c.want || e.revoked(c.of.crt) != (c.want == 0) {
			t.Errorf("%s: %s, want %s", c.what, got, c.want)
		}
	}
}
