package ca_test

import (
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/device"
	"github.com/deviceca/deviceca/policy"
)

func TestAccountRequester(t *testing.T) {
	a := newAuthority(t, nil)
	_, own := a.grant("lamp-1", "software", 1)
	group, err := a.AddCredential(t.Context(), device.Credential{Group: "pumps", Names: []string{"pump-*"}, Level: "software", Uses: 1}, 0, "admin:test")
	if err != nil {
		t.Fatal(err)
	}
	id := func(v string) ca.SAN { return ca.SAN{Form: "permanent-identifier", Value: v} }
	for name, c := range map[string]struct {
		credential string
		sans       []ca.SAN
		device     string
		kind       ca.Kind
	}{
		"a device's":                    {own.Reference, []ca.SAN{id("other")}, "lamp-1", 0}, // which names it may have, policy says
		"a group's":                     {group.Reference, []ca.SAN{id("pump-7")}, "pump-7", 0},
		"with an assigner":              {group.Reference, []ca.SAN{id("pump-7/1.2.3")}, "pump-7", 0},
		"by a module":                   {group.Reference, []ca.SAN{{Form: "dns", Value: "x.local"}, {Form: "hardware-module", Value: "pump-8/1.2.3"}}, "pump-8", 0},
		"by a host":                     {group.Reference, []ca.SAN{{Form: "ip", Value: "10.0.0.1"}, {Form: "dns", Value: "pump-9"}}, "pump-9", 0},
		"an identifier before a host":   {group.Reference, []ca.SAN{{Form: "dns", Value: "pump-9"}, id("pump-7")}, "pump-7", 0},
		"not the group's":               {group.Reference, []ca.SAN{id("lamp-1")}, "", ca.Denied},
		"nobody's":                      {group.Reference, []ca.SAN{{Form: "ip", Value: "10.0.0.1"}}, "", ca.Denied},
		"an identifier that is no ID":   {group.Reference, []ca.SAN{id("pump 7")}, "", ca.Denied},
		"of no credential":              {"", []ca.SAN{id("lamp-1")}, "lamp-1", 0},
		"of no credential, for nothing": {"", nil, "", ca.Denied},
		"of one that is unknown":        {"unknown", []ca.SAN{id("lamp-1")}, "", ca.Unauthenticated},
	} {
		r, err := a.AccountRequester(t.Context(), 7, c.credential, c.sans)
		if c.device == "" {
			if ca.KindOf(err) != c.kind {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		want := policy.ByCredential
		if c.credential == "" {
			want = policy.ByAccount
		}
		if err != nil || r.Device != c.device || r.Kind != want || r.Actor() != "account:7" {
			t.Errorf("%s: %+v %v", name, r, err)
		}
	}
	if err := a.RevokeCredential(t.Context(), own.Reference, "admin:test"); err != nil {
		t.Fatal(err)
	}
	if _, err := a.AccountRequester(t.Context(), 7, own.Reference, nil); ca.KindOf(err) != ca.Unauthenticated {
		t.Errorf("of one that was revoked: %v", err)
	}
}

// What can be verified is said protocol by protocol.
func TestVerifiable(t *testing.T) {
	a := newAuthority(t, nil)
	a.opts.Verifiable = map[string][]string{"acme": {"tpm"}}
	a.reopen()
	for protocol, rule := range map[string]string{"est": "levels.tpm.evidence", "cmp": "levels.tpm.evidence", "acme": "evidence incomplete"} {
		d, err := a.Explain(t.Context(), a.Policy().Version(), policy.Input{Protocol: protocol, Requester: policy.ByCredential, Device: policy.Device{ID: "lamp-1", Level: "tpm"}, Key: "ecdsa-p256"})
		if err != nil || d.Rule != rule {
			t.Errorf("%s: %+v, %v", protocol, d, err)
		}
	}
}

// A manufacturer's constraints over the certificate that attests: models are also what TPMs say in their directoryName.
func TestAttesting(t *testing.T) {
	a := newAuthority(t, nil)
	key := newKey(t)
	oid := func(n ...int) asn1.ObjectIdentifier { return n }
	model := pkix.RDNSequence{{{Type: oid(2, 23, 133, 2, 1), Value: "id:13"}}, {{Type: oid(2, 23, 133, 2, 2), Value: "M-500"}}}
	raw, err := asn1.Marshal(model)
	if err != nil {
		t.Fatal(err)
	}
	san, err := asn1.Marshal([]asn1.RawValue{{Class: 2, Tag: 4, IsCompound: true, Bytes: raw}})
	if err != nil {
		t.Fatal(err)
	}
	spec := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: a.clock.Now().Add(-time.Hour), NotAfter: a.clock.Now().AddDate(1, 0, 0),
		IsCA: true, BasicConstraintsValid: true, ExtraExtensions: []pkix.Extension{{Id: oid(2, 5, 29, 17), Value: san}}}
	der, err := x509.CreateCertificate(rand.Reader, spec, spec, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	attester := parse(t, der)
	d := &device.Device{ID: "lamp-1", Level: "tpm"}
	for name, c := range map[string]struct {
		constraints ca.Constraints
		attester    *x509.Certificate
		device      *device.Device
		says        string
	}{
		"all":                   {ca.Constraints{}, nil, d, ""},
		"the model":             {ca.Constraints{Models: []string{"2.23.133.2.2=M-5*"}}, attester, d, ""},
		"another model":         {ca.Constraints{Models: []string{"2.23.133.2.2=M-6*"}}, attester, d, "model"},
		"a model, and nobody":   {ca.Constraints{Models: []string{"2.23.133.2.2=M-5*"}}, nil, d, "no certificate"},
		"the serial":            {ca.Constraints{Serials: []string{"lamp-*"}}, attester, d, ""},
		"another serial":        {ca.Constraints{Serials: []string{"pump-*"}}, attester, d, "serial number"},
		"a device of more rank": {ca.Constraints{}, attester, &device.Device{ID: "lamp-1", Level: "hsm"}, "level"},
	} {
		m := ca.Attesting{Manufacturer: &ca.Manufacturer{Name: "maker", Level: "tpm", Constraints: c.constraints}}
		err := m.Allows(c.attester, "lamp-1", c.device)
		if (err == nil) != (c.says == "") || err != nil && (ca.KindOf(err) != ca.BadEvidence || !strings.Contains(err.Error(), c.says)) {
			t.Errorf("%s: %v", name, err)
		}
	}

	// Of those in force, by format.
	add := func(name, format string, until time.Time) {
		if _, err := a.AddManufacturer(t.Context(), ca.Manufacturer{Name: name, Format: format, Level: "tpm", Anchors: [][]byte{der}, Constraints: ca.Constraints{NotAfter: until}}, "admin:test"); err != nil {
			t.Fatal(err)
		}
	}
	add("one", "tpm", time.Time{})
	add("two", "tpm", a.clock.Now().Add(time.Hour))
	add("three", "idevid", time.Time{})
	names := func() (names []string) {
		all, err := a.Attesting(t.Context(), "tpm")
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range all {
			names = append(names, m.Name)
			if len(m.Certificates) != 1 || !m.Certificates[0].Equal(attester) {
				t.Errorf("anchors of %s: %v", m.Name, m.Certificates)
			}
		}
		return names
	}
	if got := names(); !slices.Equal(got, []string{"one", "two"}) {
		t.Errorf("in force: %v", got)
	}
	a.clock.Add(2 * time.Hour)
	if got := names(); !slices.Equal(got, []string{"one"}) {
		t.Errorf("two hours later: %v", got)
	}
	if err := a.WithdrawManufacturer(t.Context(), "one", "tpm", "admin:test"); err != nil {
		t.Fatal(err)
	}
	if got := names(); len(got) != 0 {
		t.Errorf("withdrawn: %v", got)
	}
}
