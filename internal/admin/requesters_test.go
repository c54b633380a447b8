package admin

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/deviceca/deviceca/ca"
)

func (f *fake) AddManufacturerWithLists(_ context.Context, m ca.Manufacturer, lists []byte, actor string) (*ca.Manufacturer, error) {
	if err := f.changed(actor, ca.EventManufacturerAdded, ""); err != nil {
		return nil, err
	}
	m.Created = now
	if lists != nil {
		m.Lists = []ca.RevocationList{{Issuer: m.Anchors[0], Number: "7", Entries: len(lists)}}
	}
	f.makers = append(f.makers, m)
	return &m, nil
}

// ReplaceRevocationLists notes how long what it was given is.
func (f *fake) ReplaceRevocationLists(_ context.Context, name, format string, lists []byte, actor string) (*ca.Manufacturer, error) {
	if err := f.changed(actor, ca.EventManufacturerLists, ""); err != nil {
		return nil, err
	}
	for i := range f.makers {
		if m := &f.makers[i]; m.Name == name && (format == "" || m.Format == format) {
			m.Lists = []ca.RevocationList{{Number: "8", Entries: len(lists), NextUpdate: now}}
			return m, nil
		}
	}
	return nil, ca.Errorf(ca.NotFound, "there is no manufacturer %s in force", name)
}

func (f *fake) WithdrawManufacturer(_ context.Context, name, format, actor string) error {
	if err := f.changed(actor, ca.EventManufacturerWithdrawn, ""); err != nil {
		return err
	}
	for i := range f.makers {
		if m := &f.makers[i]; m.Name == name && (format == "" || m.Format == format) && m.Withdrawn == nil {
			m.Withdrawn = &now
			return nil
		}
	}
	return ca.Errorf(ca.NotFound, "there is no manufacturer %s in force", name)
}

func (f *fake) AddRA(_ context.Context, ra ca.RA, actor string) (*ca.RA, error) {
	if err := f.changed(actor, ca.EventRAAdded, ""); err != nil {
		return nil, err
	}
	f.ras = append(f.ras, ra)
	return &ra, nil
}

func (f *fake) RemoveRA(_ context.Context, name, actor string) error {
	if err := f.changed(actor, ca.EventRARemoved, ""); err != nil {
		return err
	}
	n := len(f.ras)
	if f.ras = slices.DeleteFunc(f.ras, func(ra ca.RA) bool { return ra.Name == name }); len(f.ras) == n {
		return ca.Errorf(ca.NotFound, "there is no registration authority %q", name)
	}
	return nil
}

func (f *fake) Manufacturers(context.Context) ([]ca.Manufacturer, error) { return f.makers, f.fail }
func (f *fake) RAs(context.Context) ([]ca.RA, error)                     { return f.ras, f.fail }

// bodyWith is a request that registers a certificate.
func bodyWith(t *testing.T, path string) string {
	t.Helper()
	cert, _ := signed(t, "someone", nil, nil, now.Add(time.Hour))
	var v any = NewManufacturer{Name: "acme", Level: "hsm", Anchors: encodePEM(cert.Raw)}
	if path == "/ras" {
		v = NewRA{Name: "line-1", Cert: encodePEM(cert.Raw), Names: []string{"*"}, Levels: []string{"hsm"}}
	}
	raw, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

func TestRegister(t *testing.T) {
	w := newWorld(t)
	c := w.overSocket(t)
	one, _ := signed(t, "anchor one", nil, nil, now.Add(time.Hour))
	two, _ := signed(t, "anchor two", nil, nil, now.Add(time.Hour))
	both := encodePEM(one.Raw) + "\n" + encodePEM(two.Raw)

	m, err := c.AddManufacturer(t.Context(), NewManufacturer{Name: "acme", Format: "tpm", Level: "tpm", Anchors: both,
		Models: []string{"ou=RT-*"}, Serials: []string{"A1..A9"}, Until: now.Add(time.Hour)})
	if err != nil || len(m.Anchors) != 2 || m.Anchors[1].Subject != "CN=anchor two" || !m.Anchors[1].NotAfter.Equal(two.NotAfter) || m.Anchors[0].PEM != "" {
		t.Fatalf("%+v, %v", m, err)
	}
	last := w.makers[len(w.makers)-1]
	if c := last.Constraints; last.Format != "tpm" || !slices.Equal(c.Models, []string{"ou=RT-*"}) || !slices.Equal(c.Serials, []string{"A1..A9"}) || !c.NotAfter.Equal(now.Add(time.Hour)) {
		t.Errorf("the core got %+v", last)
	}
	shown, err := c.Manufacturer(t.Context(), "acme")
	if err != nil || len(shown) != 1 || shown[0].Anchors[0].PEM != encodePEM(one.Raw) {
		t.Errorf("%+v, %v", shown, err)
	}
	// Lists are larger than other bodies.
	large := strings.Repeat("x", 2*MaxBody)
	with, err := c.AddManufacturer(t.Context(), NewManufacturer{Name: "bolt", Level: "hsm", Anchors: both, Lists: large})
	if err != nil || len(with.Lists) != 1 || with.Lists[0].Issuer != "CN=anchor one" || with.Lists[0].Number != "7" || with.Lists[0].Entries != len(large) {
		t.Errorf("%+v, %v", with, err)
	}
	if m.Lists != nil {
		t.Errorf("lists that nobody gave: %+v", m.Lists)
	}
	given, err := c.ReplaceRevocationLists(t.Context(), "acme", NewLists{Format: "tpm", Lists: large + "y"})
	if err != nil || len(given.Lists) != 1 || given.Lists[0].Number != "8" || given.Lists[0].Entries != len(large)+1 || !given.Lists[0].NextUpdate.Equal(now) {
		t.Errorf("%+v, %v", given, err)
	}
	if err := c.WithdrawManufacturer(t.Context(), "acme", "tpm"); err != nil {
		t.Error(err)
	}
	if all, err := c.Manufacturers(t.Context()); err != nil || all[len(all)-2].Withdrawn == nil || all[len(all)-1].Withdrawn != nil {
		t.Errorf("%+v, %v", all, err)
	}
	ra, err := c.AddRA(t.Context(), NewRA{Name: "line-9", Cert: encodePEM(one.Raw), Names: []string{"a*"}, Levels: []string{"hsm"}})
	if err != nil || ra.Cert.Subject != "CN=anchor one" || !slices.Equal(ra.Names, []string{"a*"}) {
		t.Errorf("%+v, %v", ra, err)
	}
	for name, err := range map[string]error{
		"anchors that are no PEM": second(c.AddManufacturer(t.Context(), NewManufacturer{Name: "a", Anchors: "anchor.pem"})),
		"a key beside":            second(c.AddManufacturer(t.Context(), NewManufacturer{Name: "a", Anchors: both + "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"})),
		"two RA certificates":     second(c.AddRA(t.Context(), NewRA{Name: "a", Cert: both})),
		"no RA certificate":       second(c.AddRA(t.Context(), NewRA{Name: "a"})),
	} {
		if p, ok := errors.AsType[*Problem](err); !ok || p.Kind != "malformed" || strings.Contains(p.Detail, "AAAA") {
			t.Errorf("%s: %v, want malformed", name, err)
		}
	}
	for name, err := range map[string]error{
		"show nobody":     second(c.Manufacturer(t.Context(), "nobody")),
		"lists of nobody": second(c.ReplaceRevocationLists(t.Context(), "nobody", NewLists{Lists: "x"})),
		"withdraw nobody": c.WithdrawManufacturer(t.Context(), "nobody", ""),
		"remove nobody":   c.RemoveRA(t.Context(), "nobody"),
	} {
		if p, ok := errors.AsType[*Problem](err); !ok || p.Kind != "notFound" {
			t.Errorf("%s: %v, want not found", name, err)
		}
	}
}

func second[T any](_ T, err error) error { return err }
