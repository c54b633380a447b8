package ca_test

import (
	"crypto/elliptic"
	"crypto/x509"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/device"
)

// The table of ca.Service.MayActFor, cell by cell.
func TestMayActFor(t *testing.T) {
	a := newAuthority(t, func(source string) string {
		return strings.Replace(source, "    renew_after_expiry: 720h", "    release: true\n    renew_after_expiry: 1h", 1)
	})
	ctx := t.Context()
	maker := newMaker(t, "Acme")
	a.addMaker(maker, "acme", "software", ca.Constraints{})
	key := ecKey(t, elliptic.P256())
	raChain := []*x509.Certificate{raCert(a, key, func(c *x509.Certificate) { c.NotAfter = a.clock.Now().AddDate(2, 0, 0) })}
	a.addRA("line-1", raChain[0], []string{"lamp-*"}, "software")

	byLamp, _ := a.grant("lamp-1", "software", 9)
	lamp := a.enroll(a.request(byLamp, newCSR(t, newKey(t), named("lamp-1")))).Certificate
	second := a.enroll(a.request(a.byCertificate(lamp.DER), newCSR(t, newKey(t), named("lamp-1")))).Certificate
	a.grant("lamp-2", "brownfield", 1)
	byGroup := func(names ...string) ca.Requester {
		g, err := a.AddCredential(ctx, device.Credential{Group: "g", Names: names, Level: "software", Uses: 9}, 0, "admin:test")
		if err != nil {
			t.Fatal(err)
		}
		return a.bySecret(g)
	}
	group := byGroup("bulb-*", "lamp-1")
	bulb := a.enroll(a.request(group, newCSR(t, newKey(t), named("bulb-1")))).Certificate
	other := byGroup("bulb-*")
	own := a.enroll(a.request(a.byChain(maker.device("A1", nil)), newCSR(t, newKey(t), named("A1")))).Certificate
	account := func(reference string, id string) ca.Requester {
		r, err := a.AccountRequester(ctx, 7, reference, []ca.SAN{{Form: "permanent-identifier", Value: id}})
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	ra, idevid := a.byChain(raChain), a.byChain(maker.device("A1", nil))
	builtin, err := a.IssueBuiltin(ctx, ca.BuiltinCMP, "issuing", ecKey(t, elliptic.P256()).Public(), nil, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	on := func(act ca.Act, c *ca.Certificate) ca.Deed { return ca.Deed{Act: act, Certificate: c} }
	named := func(act ca.Act, id string) ca.Deed { return ca.Deed{Act: act, Device: id} }
	authorized := func(c *ca.Certificate) ca.Deed {
		return ca.Deed{Act: ca.ActRevoke, Certificate: c, Authorized: true}
	}
	const may = ca.Kind(0)
	check := func(what string, r ca.Requester, deed ca.Deed, want ca.Kind, part string) {
		t.Helper()
		err := a.MayActFor(ctx, r, deed)
		if part == "" {
			if err != nil {
				t.Errorf("%s: %v", what, err)
			}
			return
		}
		if e := ca.AsError(err); err == nil || e.Kind != want || !contains(e.Reason, part) {
			t.Errorf("%s: got %v, want %v with %q", what, err, want, part)
		}
	}

	check("nobody", ca.Requester{}, named(ca.ActAsk, ""), ca.Unauthenticated, "no requester")
	// A certificate of ours.
	check("certificate asks", a.byCertificate(lamp.DER), named(ca.ActAsk, ""), may, "")
	check("certificate enrols", a.byCertificate(lamp.DER), named(ca.ActEnrol, "bulb-9"), may, "") // its own device, whatever is named
	check("certificate revokes itself", a.byCertificate(lamp.DER), on(ca.ActRevoke, lamp), may, "")
	check("certificate holds itself", a.byCertificate(lamp.DER), on(ca.ActHold, lamp), may, "")
	check("certificate releases itself", a.byCertificate(lamp.DER), on(ca.ActRelease, lamp), ca.Denied, "not by the device")
	check("certificate revokes the newer", a.byCertificate(lamp.DER), on(ca.ActRevoke, second), ca.Denied, "itself alone")
	check("certificate revokes the older", a.byCertificate(second.DER), on(ca.ActRevoke, lamp), ca.Denied, "itself alone")
	check("certificate revokes another's", a.byCertificate(lamp.DER), on(ca.ActRevoke, bulb), ca.Denied, "of another device")
	check("certificate revokes the CA's", a.byCertificate(lamp.DER), on(ca.ActRevoke, builtin.Certificate), ca.Denied, "the CA's own")
	// A manufacturer's.
	check("IDevID enrols", idevid, named(ca.ActEnrol, ""), may, "")
	check("IDevID of a newcomer", a.byChain(maker.device("A9", nil)), named(ca.ActAsk, ""), may, "")
	check("IDevID revokes", idevid, on(ca.ActRevoke, own), may, "")
	check("IDevID releases", idevid, on(ca.ActRelease, own), ca.Denied, "not by the device")
	check("IDevID revokes another's", idevid, on(ca.ActRevoke, lamp), ca.Denied, "of another device")
	check("IDevID of a device of another level", a.byChain(maker.device("lamp-2", nil)), named(ca.ActAsk, ""), ca.Denied, "vouches for level software only")
	check("IDevID of a device of the group", a.byChain(maker.device("bulb-1", nil)), on(ca.ActRevoke, bulb), ca.Denied, "has no say")
	// A credential.
	check("credential asks", byLamp, named(ca.ActAsk, ""), may, "")
	check("credential revokes", byLamp, on(ca.ActRevoke, lamp), ca.Denied, "credential revokes nothing")
	check("group asks about none", group, named(ca.ActAsk, ""), may, "")
	check("group enrols none", group, named(ca.ActEnrol, ""), ca.Denied, "names no device")
	check("group enrols a newcomer", group, named(ca.ActEnrol, "bulb-2"), may, "")
	check("group enrols its own", group, named(ca.ActEnrol, "bulb-1"), may, "")
	check("group enrols another's", group, named(ca.ActEnrol, "lamp-1"), ca.Denied, "not first enrolled")
	check("another group enrols", other, named(ca.ActEnrol, "bulb-1"), ca.Denied, "not first enrolled")
	check("group beyond its names", group, named(ca.ActEnrol, "gate-1"), ca.Denied, "not for device")
	// A registration authority.
	check("RA asks about none", ra, named(ca.ActAsk, ""), may, "")
	check("RA enrols", ra, named(ca.ActEnrol, "lamp-1"), may, "")
	check("RA of another level", ra, named(ca.ActEnrol, "lamp-2"), ca.Denied, "may not act for devices of level")
	check("RA revokes", ra, on(ca.ActRevoke, lamp), may, "")
	check("RA releases", ra, on(ca.ActRelease, lamp), may, "")
	check("RA beyond its names", ra, on(ca.ActRevoke, bulb), ca.Denied, "names are others")
	check("approved by an RA", a.byCertificate(lamp.DER), ca.Deed{Act: ca.ActRevoke, Certificate: lamp, Approvers: []*ca.RA{ra.RA}}, may, "")
	check("approved beyond its names", a.byCertificate(bulb.DER), ca.Deed{Act: ca.ActRevoke, Certificate: bulb, Approvers: []*ca.RA{ra.RA}}, ca.Denied, "may not approve")
	// An ACME account.
	bound := account(byLamp.Credential.Reference, "lamp-1")
	check("account revokes what it got", bound, authorized(lamp), may, "")
	check("account authorized for the names", bound, authorized(bulb), may, "")
	check("account revokes another's", bound, on(ca.ActRevoke, lamp), ca.Denied, "did not get")
	check("account releases", bound, on(ca.ActRelease, lamp), ca.Denied, "not by the device")
	check("unbound account", account("", "lamp-1"), authorized(lamp), may, "")

	// A device out of service does nothing; a registration authority acts for it.
	move := func(id string, to device.State) {
		t.Helper()
		if _, err := a.MoveDevice(ctx, id, to, 0, "admin:test"); err != nil {
			t.Fatal(err)
		}
	}
	move("lamp-1", device.Suspended)
	for what, r := range map[string]ca.Requester{"certificate": a.byCertificate(lamp.DER), "credential": byLamp, "account": bound} {
		for _, deed := range []ca.Deed{named(ca.ActAsk, ""), named(ca.ActEnrol, ""), authorized(lamp)} {
			check(fmt.Sprintf("suspended: %s, %s", what, deed.Act), r, deed, ca.Denied, "is suspended")
		}
	}
	check("suspended: RA revokes", ra, on(ca.ActRevoke, lamp), may, "")
	check("suspended: RA enrols", ra, named(ca.ActEnrol, "lamp-1"), ca.Denied, "is suspended")
	move("lamp-1", device.Active)

	// On hold it does not authenticate.
	if _, err := a.Revoke(ctx, second.Serial, ca.ReasonCertificateHold, nil, "admin:test"); err != nil {
		t.Fatal(err)
	}
	a.notBy([]*x509.Certificate{parse(t, second.DER)}, "revoked")

	// Expired, it may still renew, with the same key; then not even that.
	a.clock.Add(lamp.NotAfter.Sub(a.clock.Now()) + 30*time.Minute)
	same := ca.Deed{Act: ca.ActEnrol, Key: lamp.KeyID}
	check("lapsed asks", a.byCertificate(lamp.DER), named(ca.ActAsk, ""), may, "")
	check("lapsed renews", a.byCertificate(lamp.DER), same, may, "")
	check("lapsed with another key", a.byCertificate(lamp.DER), named(ca.ActEnrol, ""), ca.Unauthenticated, "same key")
	check("lapsed revokes itself", a.byCertificate(lamp.DER), on(ca.ActRevoke, lamp), ca.Unauthenticated, "nothing else")
	a.clock.Add(time.Hour)
	for _, deed := range []ca.Deed{named(ca.ActAsk, ""), same, on(ca.ActRevoke, lamp)} {
		check("lapsed for long: "+string(deed.Act), a.byCertificate(lamp.DER), deed, ca.Unauthenticated, "more than the 1h")
	}
}

// A name that is given again is not its last owner's: neither approvals nor devices go with it. Approvals
// end with the removal, also for an RA that comes back with the same key.
func TestNameGivenAgain(t *testing.T) {
	a := newAuthority(t, approve)
	ctx := t.Context()
	first, second := ecKey(t, elliptic.P256()), ecKey(t, elliptic.P256())
	cert, next := raCert(a, first, nil), raCert(a, second, nil)
	register := func(c *x509.Certificate) ca.Requester {
		t.Helper()
		a.addRA("line-1", c, []string{"lamp-*"}, "software")
		return a.byChain([]*x509.Certificate{c})
	}
	remove := func() {
		t.Helper()
		if err := a.RemoveRA(ctx, "line-1", "admin:test"); err != nil {
			t.Fatal(err)
		}
	}
	csr := newCSR(t, newKey(t), named("lamp-1"))
	p := a.waits(a.request(register(cert), csr))
	a.rule(p.ID, true, "")
	remove()
	stranger := register(next)
	q := a.waits(a.request(stranger, csr))
	if q.ID == p.ID {
		t.Error("the new RA waits in the old one's request")
	}
	if q.Actor != "ra:line-1" {
		t.Errorf("the actor is %s", q.Actor)
	}
	remove()
	if back := a.waits(a.request(register(cert), csr)); back.ID == p.ID || back.Actor != p.Actor {
		t.Errorf("the first is back as %s, and goes on with request %d", back.Actor, back.ID)
	}
}

func TestManufacturersNameGivenAgain(t *testing.T) {
	a := newAuthority(t, nil)
	acme, rogue := newMaker(t, "Acme"), newMaker(t, "Rogue")
	ask := func(chain []*x509.Certificate, id string) ca.Request {
		return a.request(a.byChain(chain), newCSR(t, newKey(t), named(id)))
	}
	a.addMaker(acme, "acme", "software", ca.Constraints{})
	device := a.enroll(ask(acme.device("A1", nil), "A1")).Certificate
	a.withdraw("acme")
	a.addMaker(rogue, "acme", "software", ca.Constraints{})
	a.refused(ask(rogue.device("A1", nil), "A1"), ca.Denied, "came in by manufacturer:acme")
	if err := a.MayActFor(t.Context(), a.byChain(rogue.device("A1", nil)), ca.Deed{Act: ca.ActRevoke, Certificate: device}); ca.KindOf(err) != ca.Denied {
		t.Errorf("it revokes: %v", err)
	}
	a.enroll(ask(rogue.device("R1", nil), "R1"))
	a.withdraw("acme")
	// With one of its anchors the first is itself again, and has none of the other's.
	if _, err := a.AddManufacturer(t.Context(), ca.Manufacturer{Name: "acme", Level: "software", Anchors: [][]byte{newMaker(t, "New").root.Raw, acme.root.Raw}}, "admin:test"); err != nil {
		t.Fatal(err)
	}
	a.enroll(ask(acme.device("A1", nil), "A1"))
	a.refused(ask(acme.device("R1", nil), "R1"), ca.Denied, "came in by manufacturer:acme#")
}
