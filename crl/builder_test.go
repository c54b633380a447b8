package crl

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

var day = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

func template(issuer *x509.Certificate) *Template {
	return &Template{Issuer: issuer, Number: 7, ThisUpdate: day, NextUpdate: day.AddDate(0, 0, 2), Freshest: "http://ca.example/crl/issuing-1-delta.crl"}
}

// check reads a list back with our parser and with Go's, and compares.
func check(t testing.TB, raw []byte, issuer *x509.Certificate) *List {
	t.Helper()
	l, err := Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	if len(l.Faults) > 0 {
		t.Errorf("faults: %q", l.Faults)
	}
	if err := l.Verify(issuer, l.ThisUpdate.Add(time.Second)); err != nil {
		t.Error(err)
	}
	x, err := x509.ParseRevocationList(raw)
	if err != nil {
		t.Fatal(err)
	}
	if err := x.CheckSignatureFrom(issuer); err != nil {
		t.Error(err)
	}
	if x.Number.Cmp(l.Number) != 0 || !x.ThisUpdate.Equal(l.ThisUpdate) || !x.NextUpdate.Equal(l.NextUpdate) || len(x.RevokedCertificateEntries) != l.Count {
		t.Errorf("x509 reads %s, %s to %s, %d entries", x.Number, x.ThisUpdate, x.NextUpdate, len(x.RevokedCertificateEntries))
	}
	i := 0
	for line := range l.Lines() {
		e := x.RevokedCertificateEntries[i]
		if e.SerialNumber.Cmp(line.Serial) != 0 || !e.RevocationTime.Equal(line.Revoked) || e.ReasonCode != line.Reason {
			t.Fatalf("entry %d: %+v, x509 reads %+v", i, line, e)
		}
		i++
	}
	return l
}

func TestBuild(t *testing.T) {
	key := newKey(t)
	issuer := newCA(t, "issuing-1", key)
	point := "http://ca.example/crl/issuing-1/3.crl"
	tests := []struct {
		name    string
		edit    func(*Template)
		entries []Entry
		says    string // "" succeeds
	}{
		{"empty", nil, nil, ""},
		{"one", nil, []Entry{{Serial: serial(1), Revoked: day}}, ""},
		{"all that an entry can say", nil, []Entry{
			{Serial: serial(1), Revoked: day, Reason: 1, Invalid: day.AddDate(0, -1, 0)},
			{Serial: serial(2), Revoked: day, Reason: 6},
			{Serial: serial(3), Revoked: day, Invalid: time.Date(2051, 1, 1, 0, 0, 0, 0, time.UTC)},
			{Serial: serial(4), Revoked: day, Reason: 10},
		}, ""},
		{"times at the turn of forms", func(x *Template) {
			x.NextUpdate = time.Date(2050, 1, 1, 0, 0, 0, 0, time.UTC)
		}, []Entry{
			{Serial: serial(1), Revoked: time.Date(1950, 1, 1, 0, 0, 0, 0, time.UTC)},
			{Serial: serial(2), Revoked: time.Date(1969, 12, 31, 23, 59, 59, 0, time.UTC)},
			{Serial: serial(3), Revoked: time.Date(2049, 12, 31, 23, 59, 59, 0, time.UTC)},
			{Serial: serial(4), Revoked: time.Date(2050, 1, 1, 0, 0, 0, 0, time.UTC)},
			{Serial: serial(5), Revoked: time.Date(2026, 11, 23, 23, 0, 0, 0, time.FixedZone("x", -7200))},
		}, ""},
		{"delta", func(x *Template) { x.Base, x.Freshest = 5, "" }, []Entry{{Serial: serial(1), Revoked: day, Reason: RemoveFromCRL}}, ""},
		{"partition", func(x *Template) { x.DistributionPoint = point }, []Entry{{Serial: serial(1), Revoked: day}}, ""},
		{"partition's delta", func(x *Template) { x.DistributionPoint, x.Base, x.Freshest = point, 7, "" }, nil, ""},
		{"delta that names a delta", func(x *Template) { x.Base = 5 }, nil, "freshest"},
		{"delta of a later base", func(x *Template) { x.Base, x.Freshest = 8, "" }, nil, "number"},
		{"number 0", func(x *Template) { x.Number = 0 }, nil, "number"},
		{"ends before it begins", func(x *Template) { x.NextUpdate = x.ThisUpdate }, nil, "end"},
		{"removal from a complete list", nil, []Entry{{Serial: serial(1), Revoked: day, Reason: RemoveFromCRL}}, "reason"},
		{"reason 7", nil, []Entry{{Serial: serial(1), Revoked: day, Reason: 7}}, "reason"},
		{"reason 11", nil, []Entry{{Serial: serial(1), Revoked: day, Reason: 11}}, "reason"},
		{"no serial", nil, []Entry{{Revoked: day}}, "cannot be written"},
		{"out of order", nil, []Entry{{Serial: serial(2), Revoked: day}, {Serial: serial(1), Revoked: day}}, "order"},
		{"twice", nil, []Entry{{Serial: serial(2), Revoked: day}, {Serial: serial(2), Revoked: day}}, "order"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tmpl := template(issuer)
			if tt.edit != nil {
				tt.edit(tmpl)
			}
			raw, err := Create(tmpl, key, seq(tt.entries...))
			if tt.says != "" {
				if err == nil || !strings.Contains(err.Error(), tt.says) {
					t.Errorf("%v, want %q", err, tt.says)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			l := check(t, raw, issuer)
			if !l.ThisUpdate.Equal(tmpl.ThisUpdate) || !l.NextUpdate.Equal(tmpl.NextUpdate) || l.Number.Int64() != tmpl.Number ||
				(l.Base != nil) != (tmpl.Base > 0) || l.Base != nil && l.Base.Int64() != tmpl.Base {
				t.Errorf("%+v", l)
			}
			if (tmpl.Freshest != "") != slices.Equal(l.Freshest, []string{tmpl.Freshest}) {
				t.Errorf("freshest %q", l.Freshest)
			}
			if partition := tmpl.DistributionPoint != ""; partition != slices.Equal(l.Scope.URLs, []string{point}) || partition != l.Scope.OnlyUsers {
				t.Errorf("scope %+v", l.Scope)
			}
			i := 0
			for line := range l.Lines() {
				e := tt.entries[i]
				if line.Serial.Cmp(e.Serial.Big()) != 0 || !line.Revoked.Equal(e.Revoked) || line.Reason != e.Reason || !line.Invalid.Equal(e.Invalid) {
					t.Errorf("%+v, want %+v", line, e)
				}
				i++
			}
			// OpenSSL prints each without complaint.
			cmd := exec.Command("openssl", "crl", "-inform", "der", "-noout", "-text")
			cmd.Stdin = bytes.NewReader(raw)
			out, err := cmd.CombinedOutput()
			if err != nil || strings.Count(string(out), "Serial Number") != len(tt.entries) || strings.Contains(strings.ToLower(string(out)), "error") {
				t.Errorf("openssl: %v\n%s", err, out)
			}
		})
	}
}

func TestBuildPassesErrorsOn(t *testing.T) {
	key := newKey(t)
	issuer := newCA(t, "issuing-1", key)
	broken := errors.New("the database went away")
	_, err := Create(template(issuer), key, func(yield func(Entry, error) bool) { yield(Entry{}, broken) })
	if !errors.Is(err, broken) {
		t.Error(err)
	}
	if _, err := Create(template(issuer), newKey(t), seq()); err == nil {
		t.Error("signed with another key")
	}
}

func TestKeys(t *testing.T) {
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for name, key := range map[string]crypto.Signer{"P-384": p384, "RSA": rsaKey, "Ed25519": ed} {
		t.Run(name, func(t *testing.T) {
			issuer := newCA(t, name, key)
			raw, err := Create(template(issuer), key, many(100))
			if err != nil {
				t.Fatal(err)
			}
			check(t, raw, issuer)
		})
	}
}

func buildFile(t testing.TB, path string, tmpl *Template, key crypto.Signer, n int) Built {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	built, err := Build(f, tmpl, key, many(n))
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	return built
}

// A list is the same however it is built: in memory, or by way of the file; at
// sizes around which DER lengths grow and entries begin to spill. RSA's signature is always the same.
func TestBuildInFile(t *testing.T) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	issuer := newCA(t, "issuing-1", key)
	path := filepath.Join(t.TempDir(), "x.crl")
	for _, n := range []int{0, 1, 2, 3, 5, 6, 1400, 1500, 346_000, 400_000} {
		built := buildFile(t, path, template(issuer), key, n)
		raw, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		want, err := Create(template(issuer), key, many(n))
		if err != nil {
			t.Fatal(err)
		}
		if built.Entries != n || built.Size != int64(len(raw)) || !bytes.Equal(raw, want) {
			t.Fatalf("%d entries: %+v, %d octets in the file, %d in memory", n, built, len(raw), len(want))
		}
		if n < 2000 {
			check(t, raw, issuer)
		} else if l, err := Parse(raw); err != nil || l.Count != n || l.Verify(issuer, day.Add(time.Hour)) != nil {
			t.Errorf("%d entries: %v", n, err)
		}
	}
}

// What is held in memory does not grow with the list.
func TestBuildMemory(t *testing.T) {
	key := newKey(t)
	issuer := newCA(t, "issuing-1", key)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	built := buildFile(t, filepath.Join(t.TempDir(), "x.crl"), template(issuer), key, 1_000_000)
	runtime.ReadMemStats(&after)
	if total := after.TotalAlloc - before.TotalAlloc; built.Size < 40<<20 || total > 20<<20 {
		t.Errorf("%d octets allocated in all for a list of %d", total, built.Size)
	}
}

// Whatever the entries, what is written is read back alike by our parser, by
// Go's and by OpenSSL's.
func FuzzBuild(f *testing.F) {
	key := newKey(f)
	issuer := newCA(f, "issuing-1", key)
	f.Add([]byte{}, false)
	f.Add([]byte{1, 0, 0, 0, 0, 0, 2, 6, 9, 9, 9, 9, 1}, false)
	f.Add(bytes.Repeat([]byte{1, 8, 200, 3, 77, 12, 0}, 40), true)
	f.Fuzz(func(t *testing.T, in []byte, delta bool) {
		var entries []Entry
		index := uint64(0)
		for ; len(in) >= 7; in = in[7:] {
			index += uint64(in[0]) + 1
			e := Entry{Serial: serial(index), Reason: int(in[1]) % 11, Revoked: time.Unix((int64(in[2])<<24|int64(in[3])<<16|int64(in[4])<<8)-1<<29, 0)}
			if in[5] > 127 {
				e.Invalid = time.Unix(int64(in[6])<<26, 0)
			}
			if e.Reason == 7 || e.Reason == RemoveFromCRL && !delta {
				e.Reason = 0
			}
			entries = append(entries, e)
		}
		tmpl := template(issuer)
		if delta {
			tmpl.Base, tmpl.Freshest, tmpl.DistributionPoint = 3, "", "http://ca.example/crl/issuing-1/0.crl"
		}
		raw, err := Create(tmpl, key, seq(entries...))
		if err != nil {
			t.Fatal(err)
		}
		l := check(t, raw, issuer)
		if l.Count != len(entries) {
			t.Errorf("%d entries, want %d", l.Count, len(entries))
		}
		cmd := exec.Command("openssl", "crl", "-inform", "der", "-outform", "der")
		cmd.Stdin = bytes.NewReader(raw)
		out, err := cmd.Output()
		if err != nil || !bytes.Equal(out, raw) {
			t.Errorf("openssl writes it back otherwise: %v", err)
		}
	})
}
