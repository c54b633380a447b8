package policy

import (
	"strings"
	"testing"
	"time"
)

// What is published begins as far before now as the certificate that begins the furthest before.
func TestBackdate(t *testing.T) {
	p, err := Parse("policy.yaml", Default())
	if err != nil || p.Backdate() != 5*time.Minute {
		t.Errorf("the default policy backdates by %v, %v", p.Backdate(), err)
	}
	if device, _ := p.Profile("device"); device.Status.CRL != "full" {
		t.Errorf("certificates of the default policy name a CRL of scope %q", device.Status.CRL)
	}
	more := strings.Replace(string(Default()), "    eku: [clientAuth, serverAuth]\n", "    eku: [clientAuth, serverAuth]\n    backdate: 2h\n", 1)
	if p, err = Parse("policy.yaml", []byte(more)); err != nil || p.Backdate() != 2*time.Hour {
		t.Errorf("%v, %v", p.Backdate(), err)
	}
	// A policy that says nothing of status means what it always meant.
	old := strings.Replace(string(Default()), "    status: {ocsp: true, crl: full, freshest: true}\n", "", 1)
	if p, err = Parse("policy.yaml", []byte(old)); err != nil {
		t.Fatal(err)
	}
	if device, _ := p.Profile("device"); device.Status.CRL != "partition" {
		t.Errorf("a policy without status: CRL of scope %q", device.Status.CRL)
	}
}
