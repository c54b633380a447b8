package ca_test

import (
	"errors"
	"testing"
	"time"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/device"
)

// budgeted is an authority with budgets.
func budgeted(t testing.TB, b ca.Budgets) *authority {
	t.Helper()
	a := newAuthority(t, nil)
	a.opts.Budgets = b
	a.reopen()
	return a
}

// A device that renews in a loop gets its burst and then one each sixtieth of the
// validity; one that asks again for what it has gets that.
func TestCertificatesPerDevice(t *testing.T) {
	a := budgeted(t, ca.Budgets{CertificatesPerDevice: 60})
	r, _ := a.grant("lamp-1", "software", 1)
	key := newKey(t)
	first := a.enroll(a.request(r, newCSR(t, key, named("lamp-1"))))
	renew := func() ca.Request {
		return a.request(a.byCertificate(first.Certificate.DER), newCSR(t, newKey(t), named("lamp-1")))
	}
	var last ca.Request
	var newest *ca.Issued
	for range 59 {
		last = renew()
		newest = a.enroll(last)
	}
	every := first.Certificate.Decision.Validity / 60
	_, err := a.Enroll(t.Context(), renew())
	e := ca.AsError(err)
	if err == nil || e.Kind != ca.RateLimited || e.RetryAfter != every || !contains(e.Reason, "device lamp-1 has used its budget of 60 certificates") {
		t.Fatalf("the 61st: %v, wait %s; want rateLimited for %s", err, e.RetryAfter, every)
	}
	// The same key and names as the newest of that key: that one again.
	if again := a.enroll(last); !again.Again || again.Certificate.Serial != newest.Certificate.Serial {
		t.Errorf("the same key and names got %s, want %s again", again.Certificate.Serial, newest.Certificate.Serial)
	}
	other := last
	other.Names.SANs = []ca.SAN{{Form: "dns", Value: "lamp-1"}}
	a.refused(other, ca.RateLimited, "budget")
	if _, err := a.Revoke(t.Context(), newest.Certificate.Serial, 4, nil, "admin:test"); err != nil {
		t.Fatal(err)
	}
	a.refused(last, ca.RateLimited, "budget")

	// Another device has its own, by whatever credential.
	r, _ = a.grant("lamp-2", "software", 1)
	a.enroll(a.request(r, newCSR(t, newKey(t), named("lamp-2"))))

	a.clock.Add(every)
	a.enroll(renew())
	a.refused(renew(), ca.RateLimited, "budget")
	a.clock.Add(60 * every) // as the validity ends, the bucket is full
	r, _ = a.grant("lamp-3", "software", 1)
	a.enroll(a.request(r, newCSR(t, newKey(t), named("lamp-3"))))
}

// What is not issued costs nothing.
func TestTokensAreReturned(t *testing.T) {
	a := budgeted(t, ca.Budgets{CertificatesPerDevice: 2, ActsPerCredential: 2})
	r, _ := a.grant("lamp-1", "software", 9)
	fault := errors.New("the token is away")
	a.signer.set(func([]byte, error) ([]byte, error) { return nil, fault })
	for range 5 {
		if _, err := a.Enroll(t.Context(), a.request(r, newCSR(t, newKey(t), named("lamp-1")))); err == nil || ca.KindOf(err) == ca.RateLimited {
			t.Fatal(err)
		}
	}
	a.signer.set(nil)
	lost := a.request(r, newCSR(t, newKey(t), named("lamp-1")))
	a.enroll(lost)
	for range 5 { // a lost reply, given again
		a.enroll(lost)
	}
	a.enroll(a.request(r, newCSR(t, newKey(t), named("lamp-1"))))
	a.refused(a.request(r, newCSR(t, newKey(t), named("lamp-1"))), ca.RateLimited, "budget of 2 certificates")
}

// Each of those concerned has a budget of acts, and what is refused by one is not taken from another.
func TestActs(t *testing.T) {
	credential := func(reference string) ca.Requester {
		return ca.Requester{Credential: &device.Credential{Reference: reference}}
	}
	account := credential("abc")
	account.Account = 7
	const from = "192.0.2.1:1"
	type act struct {
		r             ca.Requester
		id, from      string
		limited       string        // by what, "" if not
		after, waited time.Duration // of the clock before it, and the wait it is told
	}
	tests := []struct {
		name    string
		budgets ca.Budgets
		acts    []act
	}{
		{"device", ca.Budgets{ActsPerDevice: 2}, []act{{id: "lamp-1"}, {id: "LAMP-1"}, {id: "lamp-1", limited: "device lamp-1", waited: 30 * time.Second}, {id: "lamp-2"},
			{id: "lamp-1", after: 20 * time.Second, limited: "device lamp-1", waited: 10 * time.Second}, {id: "lamp-1", after: 10 * time.Second}}},
		{"unknown device", ca.Budgets{ActsPerDevice: 1}, []act{{}, {}, {}}},
		{"credential", ca.Budgets{ActsPerCredential: 2}, []act{{r: credential("abc"), id: "lamp-1"}, {r: account, id: "lamp-2"}, {r: credential("abc"), id: "lamp-3", limited: "this credential", waited: 30 * time.Second},
			{r: account, id: "lamp-3", limited: "this credential", waited: 30 * time.Second}, {r: credential("other"), id: "lamp-3"}}},
		{"account", ca.Budgets{ActsPerAccount: 1}, []act{{r: account}, {r: account, limited: "this account", waited: time.Minute}, {r: credential("abc")}}},
		{"registration authority", ca.Budgets{ActsPerRegistrar: 1}, []act{{r: ca.Requester{RA: &ca.RA{Name: "line"}}}, {r: ca.Requester{RA: &ca.RA{Name: "line"}}, limited: "ra:line", waited: time.Minute},
			{r: ca.Requester{RA: &ca.RA{Name: "hall"}}}}},
		{"manufacturer", ca.Budgets{ActsPerRegistrar: 1}, []act{{r: ca.Requester{Manufacturer: &ca.Manufacturer{Name: "acme"}}},
			{r: ca.Requester{Manufacturer: &ca.Manufacturer{Name: "acme"}}, limited: "manufacturer:acme", waited: time.Minute}}},
		{"address", ca.Budgets{ActsPerAddress: 1}, []act{{from: from}, {from: "192.0.2.1:2", limited: "address 192.0.2.1", waited: time.Minute}, {from: "192.0.2.2:1"},
			{from: "[2001:db8::1]:1"}, {from: "[2001:db8::2]:1", limited: "address 2001:db8::/64", waited: time.Minute}, {from: ""}, {from: ""},
			{from: "192.0.2.3"}, {from: "192.0.2.3:1", limited: "address 192.0.2.3", waited: time.Minute}}},
		{"the smallest first refunds the rest", ca.Budgets{ActsPerCredential: 2, ActsPerDevice: 1}, []act{{r: credential("abc"), id: "lamp-1"},
			{r: credential("abc"), id: "lamp-1", limited: "device lamp-1", waited: time.Minute}, {r: credential("abc"), id: "lamp-2"}}},
		{"none", ca.Budgets{}, []act{{r: account, id: "lamp-1", from: from}, {r: account, id: "lamp-1", from: from}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a := budgeted(t, tt.budgets)
			for i, act := range tt.acts {
				a.clock.Add(act.after)
				err := a.Spend(act.r, act.id, act.from)
				if act.limited == "" {
					if err != nil {
						t.Errorf("act %d: %v", i, err)
					}
					continue
				}
				if e := ca.AsError(err); err == nil || e.Kind != ca.RateLimited || e.RetryAfter != act.waited || !contains(e.Reason, act.limited) {
					t.Errorf("act %d: %v, wait %s; want it limited for %q, wait %s", i, err, e.RetryAfter, act.limited, act.waited)
				}
			}
		})
	}
}

// A credential that serves a fleet has a budget for all of its certificates.
func TestActsOfEnrolment(t *testing.T) {
	a := budgeted(t, ca.Budgets{CertificatesPerDevice: 60, ActsPerCredential: 3})
	group, err := a.AddCredential(t.Context(), device.Credential{Group: "lamps", Names: []string{"lamp-*"}, Level: "software", Uses: 99}, 0, "admin:test")
	if err != nil {
		t.Fatal(err)
	}
	enrol := func(id string) ca.Request { return a.request(a.bySecret(group), newCSR(t, newKey(t), named(id))) }
	for _, id := range []string{"lamp-1", "lamp-2", "lamp-3"} {
		a.enroll(enrol(id))
	}
	a.refused(enrol("lamp-4"), ca.RateLimited, "limits.acts_per_credential")
	a.clock.Add(20 * time.Second)
	a.enroll(enrol("lamp-4"))
}
