package server_test

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"crypto/x509/pkix"
	"testing"
	"time"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/cmp"
	"github.com/deviceca/deviceca/device"
)

// renewsForAnHour lets certificates renew for an hour after they expired.
func renewsForAnHour(source []byte) []byte {
	return bytes.Replace(source, []byte("renew_after_expiry: 720h"), []byte("renew_after_expiry: 1h"), 1)
}

func (e *env) kur(p party, key crypto.Signer) *cmp.Message {
	return e.ask(e.message(requests(cmp.KUR, crmf(e.t, p.id, key, nil)), cmp.ImplicitConfirm()), p)
}

// RFC 9483 §3.5: an expired certificate is good for its renewal with the same key, for as long as its profile
// says, and for nothing else: a discarded key is no switch to turn its device off.
func TestLapsedMayRenewAlone(t *testing.T) {
	e := newEnv(t, renewsForAnHour)
	old, newer := e.enrolled("lamp-1"), newKey(t)
	e.late.Store(int64(time.Until(old.crt.NotAfter) - time.Minute))
	second := party{id: "lamp-1", key: newer, crt: e.certificate(e.kur(old, newer))}
	for _, c := range []struct {
		after                                time.Duration // of the old one's end
		revoke, hold, ask, another, renewing cmp.FailInfo
	}{
		{30 * time.Minute, cmp.SignerNotTrusted, cmp.SignerNotTrusted, 0, cmp.SignerNotTrusted, 0},
		{2 * time.Hour, cmp.SignerNotTrusted, cmp.SignerNotTrusted, cmp.SignerNotTrusted, cmp.SignerNotTrusted, cmp.SignerNotTrusted},
	} {
		e.late.Store(int64(time.Until(old.crt.NotAfter) + c.after))
		for what, step := range map[string]struct {
			got  cmp.FailInfo
			want cmp.FailInfo
		}{
			"rr of the new one":   {status(e.ask(e.revocation(second, 1), old)).FailInfo, c.revoke},
			"hold of the new one": {status(e.ask(e.revocation(second, 6), old)).FailInfo, c.hold},
			"rr of itself":        {status(e.ask(e.revocation(old, 1), old)).FailInfo, c.revoke},
			"genm":                {status(e.ask(e.message(&cmp.General{}), old)).FailInfo, c.ask},
			"kur, another key":    {status(e.kur(old, newKey(t))).FailInfo, c.another},
			"kur, the same key":   {status(e.kur(old, old.key)).FailInfo, c.renewing},
		} {
			if step.got != step.want {
				t.Errorf("%s after its end, %s: %s, want %s", c.after, what, step.got, step.want)
			}
		}
	}
	if e.revoked(second.crt) || e.revoked(old.crt) {
		t.Error("something was revoked")
	}
}

// A manufacturer's word is good for the devices that it may enrol, and so is its power to revoke.
func TestIDevIDRevokesWhatItMayEnrol(t *testing.T) {
	e := newEnv(t)
	makerKey, deviceKey := newKey(t), newKey(t)
	root := issue(t, &x509.Certificate{Subject: pkix.Name{CommonName: "Maker"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}, nil, makerKey.Public(), makerKey)
	must[*ca.Manufacturer](t)(e.core.AddManufacturer(t.Context(), ca.Manufacturer{Name: "maker", Level: "brownfield", Anchors: [][]byte{root.Raw}}, "admin:test"))
	idevid := func(serial string) party {
		return party{id: serial, key: deviceKey, crt: issue(t, &x509.Certificate{Subject: pkix.Name{SerialNumber: serial}}, root, deviceKey.Public(), makerKey)}
	}
	lamp := e.enrolled("lamp-1") // of level software, by an administrator
	for what, m := range map[string]*cmp.Message{
		"rr":   e.revocation(lamp, 1),
		"hold": e.revocation(lamp, 6),
		"genm": e.message(&cmp.General{}),
		"ir":   e.message(requests(cmp.IR, crmf(t, "lamp-1", newKey(t), nil)), cmp.ImplicitConfirm()),
	} {
		if got := status(e.ask(m, idevid("lamp-1"))).FailInfo; got != cmp.NotAuthorized {
			t.Errorf("%s by the IDevID of a manufacturer of another level: %s", what, got)
		}
	}
	if e.revoked(lamp.crt) {
		t.Error("revoked")
	}
	// Of its own devices it may: the device has lost its key.
	key := newKey(t)
	bulb := party{id: "bulb-1", key: key, crt: e.certificate(e.ask(e.message(requests(cmp.IR, crmf(t, "bulb-1", key, nil)), cmp.ImplicitConfirm()), idevid("bulb-1")))}
	if got := status(e.ask(e.revocation(bulb, 1), idevid("bulb-1"))); got.Status != cmp.Accepted || !e.revoked(bulb.crt) {
		t.Errorf("rr by its IDevID: %v", got)
	}
}

// A suspended device may do nothing; a registration authority may still revoke for it.
func TestSuspendedMayDoNothing(t *testing.T) {
	e := newEnv(t, withProfiles)
	ra := e.registerRA("line-1", "lamp-*")
	lamp, byMAC := e.enrolled("lamp-1"), e.register("lamp-2", 9)
	for _, id := range []string{"lamp-1", "lamp-2"} {
		must[ca.Revoked](t)(e.core.MoveDevice(t.Context(), id, device.Suspended, 0, "admin:test"))
	}
	for what, m := range map[string]*cmp.Message{
		"rr":   e.revocation(lamp, 1),
		"hold": e.revocation(lamp, 6),
		"genm": e.message(&cmp.General{}),
		"kur":  e.message(requests(cmp.KUR, crmf(t, "lamp-1", newKey(t), nil)), cmp.ImplicitConfirm()),
	} {
		if got := status(e.ask(m, lamp)).FailInfo; got != cmp.NotAuthorized {
			t.Errorf("%s: %s", what, got)
		}
	}
	for what, m := range map[string]*cmp.Message{
		"genm by MAC":  e.message(&cmp.General{}),
		"a challenge":  e.message(requests(cmp.IR, later(t, "lamp-2", newKey(t), cmp.ChallengeResp)), cmp.CertProfile("vault-ec")),
		"a key for it": e.message(requests(cmp.IR, noKey("lamp-2", nil)), cmp.CertProfile("made-ec"), cmp.ImplicitConfirm()),
	} {
		if answer := e.ask(m, byMAC); status(answer).FailInfo != cmp.NotAuthorized {
			t.Errorf("%s: %s %v", what, answer.Body.Type(), status(answer))
		}
	}
	if got := status(e.ask(e.revocation(lamp, 1), ra)); got.Status != cmp.Accepted || !e.revoked(lamp.crt) {
		t.Errorf("rr by the RA: %v", got)
	}
}
