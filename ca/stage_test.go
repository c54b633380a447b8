package ca_test

import (
	"crypto/elliptic"
	"crypto/rand"
	"strings"
	"testing"
	"time"

	"github.com/deviceca/deviceca/ca"
)

// publish makes the next issuing generation, which issues after lead.
func (a *authority) publish(lead time.Duration) string {
	a.t.Helper()
	name, generation := a.Next("issuing")
	key := ecKey(a.t, elliptic.P256())
	a.keys[name] = key
	cert, err := ca.NewSubordinate(a.root.Raw, a.rootKeys["root-1"], "issuing", generation, key.Public(),
		ca.Hierarchy{Organization: "Test", URL: "http://ca.test:8080", Root: "root-1", Now: a.clock.Now()})
	if err != nil {
		a.t.Fatal(err)
	}
	a.take(ca.IssuerRecord{Name: name, Role: "issuing", Generation: generation, Key: name, Cert: cert, Activates: a.clock.Now().Add(lead)})
	return name
}

func (a *authority) stages(want ...string) {
	a.t.Helper()
	var got []string
	for _, g := range a.Generations() {
		if g.Role == "issuing" {
			got = append(got, string(g.Stage))
		}
	}
	if strings.Join(got, " ") != strings.Join(want, " ") {
		a.t.Errorf("the issuing CAs are %v, want %v", got, want)
	}
}

func (a *authority) issuesBy(want string) {
	a.t.Helper()
	id := strings.ToLower("lamp-" + rand.Text())
	r, _ := a.grant(id, "software", 9)
	issued := a.enroll(a.request(r, newCSR(a.t, newKey(a.t), named(id))))
	if issued.Certificate.Issuer != want {
		a.t.Errorf("issued by %s, want %s", issued.Certificate.Issuer, want)
	}
}

// A new CA is published first, and issues from its time on: by itself once the state is made anew, and after a restart.
func TestPublishedFirst(t *testing.T) {
	a := newAuthority(t, nil)
	a.issuesBy("issuing-1")
	a.publish(24 * time.Hour)
	a.stages("active", "published")
	a.issuesBy("issuing-1")
	if !a.handsOut("issuing-2") {
		t.Error("cacerts lacks the CA that is published")
	}
	if live := a.Live("issuing"); len(live) != 2 || string(live[0]) != string(a.Issuers()[2].Cert) {
		t.Errorf("%d certificates are live, or the one that issues is not the first", len(live))
	}
	if _, err := a.IssueBuiltin(t.Context(), ca.BuiltinOCSP, "issuing-2", newKey(t).Public(), nil, time.Hour); err != nil {
		t.Errorf("its OCSP answers cannot be signed: %v", err)
	}
	next := a.NextActivation()
	if want := a.clock.Now().Add(24 * time.Hour); !next.Equal(want) {
		t.Errorf("it issues from %v, want %v", next, want)
	}
	if err := a.MayRotate("issuing"); ca.KindOf(err) != ca.Conflict {
		t.Errorf("a third generation beside one that waits: %v", err)
	}

	a.clock.Add(24*time.Hour - time.Second)
	a.reopen()
	a.issuesBy("issuing-1")
	a.clock.Add(time.Second)
	if err := a.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	a.stages("retiring", "active")
	a.issuesBy("issuing-2")
	if !a.NextActivation().IsZero() {
		t.Error("something waits still")
	}
	a.clock.Add(25 * time.Hour)
	a.stages("ended", "active")

	// Its time passes while no server runs.
	a.publish(time.Hour)
	a.issuesBy("issuing-2")
	a.clock.Add(2 * time.Hour)
	a.reopen()
	a.stages("ended", "retiring", "active")
	a.issuesBy("issuing-3")
}

// What signs a CA's OCSP answers and packs does not keep it from ending.
func TestRetiredEnds(t *testing.T) {
	a := newAuthority(t, nil)
	a.issuesBy("issuing-1")
	a.rotate(a.root, "root-1")
	if _, err := a.IssueBuiltin(t.Context(), ca.BuiltinOCSP, "issuing-1", newKey(t).Public(), nil, 30*24*time.Hour); err != nil {
		t.Fatal(err)
	}
	a.reopen()
	a.stages("retiring", "active")
	a.clock.Add(25 * time.Hour)
	a.reopen()
	a.stages("ended", "active")
}

func TestActivate(t *testing.T) {
	a := newAuthority(t, nil)
	a.publish(24 * time.Hour)
	for name, kind := range map[string]ca.Kind{"issuing-9": ca.NotFound, "issuing": ca.NotFound, "issuing-1": ca.Conflict} {
		if err := a.Activate(t.Context(), name, "admin:test"); ca.KindOf(err) != kind {
			t.Errorf("activating %s: %v, want %v", name, err, kind)
		}
	}
	if err := a.Activate(t.Context(), "issuing-2", "admin:test"); err != nil {
		t.Fatal(err)
	}
	a.issuesBy("issuing-2")

	// One that is published can be withdrawn, and never issues.
	a.publish(time.Hour)
	if err := a.RevokeCA(t.Context(), "issuing-3", ca.ReasonSuperseded, "admin:test"); err != nil {
		t.Fatal(err)
	}
	a.clock.Add(2 * time.Hour)
	a.reopen()
	a.stages("ended", "active", "revoked")
	a.issuesBy("issuing-2")
	if a.handsOut("issuing-3") {
		t.Error("cacerts has the CA that was withdrawn")
	}
}

// A CA that nears its end is warned of before certificates are cut short, and one that has ended says so.
func TestEnds(t *testing.T) {
	a := newAuthority(t, nil)
	warns := func(want string) {
		t.Helper()
		if got := a.Warning("issuing-1"); want == "" && got != "" || !strings.Contains(got, want) {
			t.Errorf("the warning is %q, want %q", got, want)
		}
	}
	r, _ := a.grant("lamp-1", "software", 9)
	warns("")
	end := a.Generations()[2].NotAfter
	a.clock.Add(end.Sub(a.clock.Now()) - 61*24*time.Hour) // no certificate of the default policy lives longer than 30 days
	warns("")
	a.clock.Add(2 * 24 * time.Hour)
	warns("from " + end.Add(-30*24*time.Hour).UTC().Format(time.RFC3339) + " on certificates are cut short")
	a.clock.Add(58*24*time.Hour + 12*time.Hour)
	warns("so certificates are cut short")
	issued := a.enroll(a.request(r, newCSR(t, newKey(t), named("lamp-1"))))
	if !issued.Certificate.NotAfter.Equal(end) || a.Stats().Shortened != 1 {
		t.Errorf("it ends at %v, and %d were cut short", issued.Certificate.NotAfter, a.Stats().Shortened)
	}
	a.clock.Add(12 * time.Hour)
	warns("nothing is issued")
	a.refused(a.request(r, newCSR(t, newKey(t), named("lamp-1"))), ca.Unavailable, "the CA issuing-1 expired at "+end.UTC().Format(time.RFC3339))
	if got := a.Warning("root-1"); got != "" {
		t.Errorf("the root has 15 years, and the warning is %q", got)
	}
}
