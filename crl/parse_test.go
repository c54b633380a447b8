package crl

import (
	"archive/zip"
	"bytes"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func read(t testing.TB, path string) []byte {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join("testdata", path))
	if err != nil {
		t.Fatal(err)
	}
	if block, _ := pem.Decode(raw); block != nil {
		raw = block.Bytes
	}
	return raw
}

// Recorded lists, with what Parse finds wrong with them; sources in testdata/SOURCES.tsv.
func TestRecorded(t *testing.T) {
	tests := []struct {
		file string
		says string // a fault, or "" for none
	}{
		{"boulder/crl_good.pem", ""},
		{"boulder/crl_good_gentime_2050.pem", ""},
		{"boulder/crl_good_utctime_1950.pem", ""},
		{"boulder/crl_gentime_2049.pem", "wrong form"},
		{"boulder/crl_critical_number.pem", "cRLNumber must be critical: false"},
		{"boulder/crl_long_number.pem", "20 octets"},
		{"boulder/crl_no_aki.pem", "no authority key identifier"},
		{"boulder/crl_empty_revoked.pem", "empty"},
		{"boulder/crl_idp_distributionPoint_and_onlyUser_and_onlyCA.pem", "at most one"},
		{"boulder/crl_idp_two_uris.pem", ""},
		{"boulder/crl_no_idp.pem", ""},
		{"boulder/crl_delta.pem", "deltaCRLIndicator must be critical"},
		{"boulder/crl_freshest.pem", "freshestCRL says more"},
		{"zlint/crlEcdsaP256SHA256.pem", "no authority key identifier"},
		{"zlint/crlEcdsaP384SHA384NullParams.pem", "NULL parameters"},
		{"zlint/crlWithReasonCode0.pem", "reason code 0"},
		{"zlint/crlWithReasonCode7.pem", "reason code 7"},
		{"zlint/crl_number_negative.pem", "below zero"},
		{"zlint/crl_number_too_large.pem", "20 octets"},
		{"xipki/no-revoked-certs.crl", ""},
		{"xipki/revoked-certs.crl", ""},
		{"xipki/invaliditydate.crl", ""},
		{"xipki/no-crlnumber.crl", "no CRL number"},
		{"xipki/no-extensions.crl", "no authority key identifier"},
		{"rustcrypto/rsa-2048-sha256-ca-crl.der", "version 1"},
	}
	for _, tt := range tests {
		t.Run(tt.file, func(t *testing.T) {
			l, err := Parse(read(t, tt.file))
			if err != nil {
				t.Fatal(err)
			}
			faults := strings.Join(l.Faults, "; ")
			if tt.says == "" && faults != "" || !strings.Contains(faults, tt.says) {
				t.Errorf("faults %q, want %q", faults, tt.says)
			}
			if tt.says == "version 1" {
				return // x509 does not read it
			}
			x, err := x509.ParseRevocationList(l.Raw)
			if err != nil || len(x.RevokedCertificateEntries) != l.Count || !x.ThisUpdate.Equal(l.ThisUpdate) {
				t.Errorf("x509: %v", err)
			}
		})
	}
	issuer, err := x509.ParseCertificate(read(t, "xipki/ca.crt"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{"no-revoked-certs.crl", "revoked-certs.crl", "invaliditydate.crl", "no-crlnumber.crl", "no-extensions.crl"} {
		l, err := Parse(read(t, "xipki/"+file))
		if err != nil {
			t.Fatal(err)
		}
		if err := l.Verify(issuer, time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)); err != nil {
			t.Errorf("%s: %v", file, err)
		}
		for _, at := range []time.Time{time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(2071, 1, 1, 0, 0, 0, 0, time.UTC)} {
			if err := l.Verify(issuer, at); !errors.Is(err, ErrNotTrusted) {
				t.Errorf("%s at %s: %v", file, at, err)
			}
		}
	}
	l, err := Parse(read(t, "xipki/invaliditydate.crl"))
	if err != nil {
		t.Fatal(err)
	}
	found := false
	for line := range l.Lines() {
		found = found || !line.Invalid.IsZero()
	}
	if !found {
		t.Error("no invalidity date read")
	}
	ca, err := x509.ParseCertificate(read(t, "rustcrypto/rsa-2048-sha256-ca.der"))
	if err != nil {
		t.Fatal(err)
	}
	if l, err = Parse(read(t, "rustcrypto/rsa-2048-sha256-ca-crl.der")); err != nil {
		t.Fatal(err)
	}
	if err := l.Verify(ca, l.ThisUpdate.Add(time.Minute)); err != nil {
		t.Error(err)
	}
}

func TestParseDamaged(t *testing.T) {
	key := newKey(t)
	issuer := newCA(t, "issuing-1", key)
	tmpl := template(issuer)
	tmpl.DistributionPoint = "http://ca.example/crl/issuing-1/3.crl"
	raw, err := Create(tmpl, key, seq(Entry{Serial: serial(1), Revoked: day, Reason: 1, Invalid: day}))
	if err != nil {
		t.Fatal(err)
	}
	for n := range raw {
		if _, err := Parse(raw[:n]); !errors.Is(err, ErrMalformed) {
			t.Errorf("first %d octets: %v", n, err)
		}
	}
	if _, err := Parse(append(bytes.Clone(raw), 0)); !errors.Is(err, ErrMalformed) {
		t.Error("trailing octet accepted")
	}
	for i := range len(raw) * 8 {
		flipped := bytes.Clone(raw)
		flipped[i/8] ^= 1 << (i % 8)
		if l, err := Parse(flipped); err == nil && l.Verify(issuer, day.Add(time.Hour)) == nil {
			t.Errorf("bit %d flipped, and still trusted", i)
		}
	}
}

func FuzzParse(f *testing.F) {
	files, _ := filepath.Glob("testdata/*/*crl*")
	if len(files) < 20 {
		f.Fatal("no seeds")
	}
	for _, path := range files {
		rel, err := filepath.Rel("testdata", path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(read(f, rel))
	}
	// PKITS has every form of scope, and lists that are signed with keys of others.
	archive, err := zip.OpenReader("../internal/path/testdata/pkits.zip")
	if err != nil {
		f.Fatal(err)
	}
	defer archive.Close()
	for _, file := range archive.File {
		if !strings.HasSuffix(file.Name, ".crl") {
			continue
		}
		r, err := file.Open()
		if err != nil {
			f.Fatal(err)
		}
		raw, err := io.ReadAll(r)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		l, err := Parse(in)
		if err != nil {
			if !errors.Is(err, ErrMalformed) {
				t.Fatal(err)
			}
			return
		}
		// As a list of a CA of that name: the scope is for a certificate's points to meet.
		points := pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 31}, Value: in}
		l.Covers(&x509.Certificate{RawIssuer: l.Issuer, Extensions: []pkix.Extension{points}})
		x, err := x509.ParseRevocationList(in)
		if err != nil {
			return
		}
		if len(x.RevokedCertificateEntries) != l.Count || !x.ThisUpdate.Equal(l.ThisUpdate) || (x.Number == nil) != (l.Number == nil) {
			t.Fatalf("%d entries, x509 reads %d", l.Count, len(x.RevokedCertificateEntries))
		}
		i := 0
		for line := range l.Lines() {
			if e := x.RevokedCertificateEntries[i]; e.SerialNumber.Cmp(line.Serial) != 0 || e.ReasonCode != line.Reason {
				t.Fatalf("entry %d: %+v, x509 reads %+v", i, line, e)
			}
			i++
		}
	})
}

func TestLookup(t *testing.T) {
	key := newKey(t)
	issuer := newCA(t, "issuing-1", key)
	make := func(number, base int64, point string, entries ...Entry) *List {
		t.Helper()
		raw, err := Create(&Template{Issuer: issuer, Number: number, Base: base, ThisUpdate: day, NextUpdate: day.Add(time.Hour), DistributionPoint: point}, key, seq(entries...))
		if err != nil {
			t.Fatal(err)
		}
		l, err := Parse(raw)
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	revoked, held, fresh, released := serial(1), serial(2), serial(3), serial(4)
	full := make(5, 0, "", Entry{Serial: revoked, Revoked: day, Reason: 1}, Entry{Serial: held, Revoked: day, Reason: 6}, Entry{Serial: released, Revoked: day, Reason: 6})
	delta := make(7, 5, "", Entry{Serial: held, Revoked: day, Reason: 4}, Entry{Serial: fresh, Revoked: day, Reason: 3}, Entry{Serial: released, Revoked: day, Reason: RemoveFromCRL})
	for _, tt := range []struct {
		name         string
		index        uint64
		alone, after int // reason, −1 not revoked
	}{
		{"revoked before", 1, 1, 1}, {"on hold, then superseded", 2, 6, 4}, {"revoked since", 3, -1, 3}, {"released since", 4, 6, -1}, {"never", 5, -1, -1},
	} {
		for _, with := range []struct {
			delta *List
			want  int
		}{{nil, tt.alone}, {delta, tt.after}} {
			line, err := Lookup(full, with.delta, serial(tt.index).Big())
			got := -1
			if line != nil {
				got = line.Reason
			}
			if err != nil || got != with.want {
				t.Errorf("%s, delta %t: reason %d, want %d (%v)", tt.name, with.delta != nil, got, with.want, err)
			}
		}
	}
	const point = "http://ca.example/crl/issuing-1/0.crl"
	for name, pair := range map[string][2]*List{
		"base too old":        {make(4, 0, ""), delta},
		"delta too old":       {make(8, 0, ""), delta},
		"another scope":       {make(5, 0, point), delta},
		"delta as base":       {delta, nil},
		"complete as delta":   {full, full},
		"delta of other base": {full, make(7, 5, point)},
	} {
		if _, err := Lookup(pair[0], pair[1], revoked.Big()); !errors.Is(err, ErrNotTrusted) {
			t.Errorf("%s: %v", name, err)
		}
	}
	part := make(5, 0, point)
	if err := part.CheckDelta(make(6, 5, point)); err != nil {
		t.Error(err)
	}
	leaf := func(urls ...string) *x509.Certificate {
		raw, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{SerialNumber: revoked.Big(), CRLDistributionPoints: urls}, issuer, key.Public(), key)
		if err != nil {
			t.Fatal(err)
		}
		c, err := x509.ParseCertificate(raw)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	if part.Covers(leaf()) || part.Covers(leaf(point+"x")) || !full.Covers(leaf()) {
		t.Error("a certificate without the partition's URL is not in it")
	}
	if !part.Covers(leaf(point)) || !part.Covers(leaf(point+"x", point)) {
		t.Error("not covered")
	}
	other := newCA(t, "issuing-2", newKey(t))
	if err := full.Verify(other, day); !errors.Is(err, ErrNotTrusted) {
		t.Error(err)
	}
	same := newCA(t, "issuing-1", newKey(t)) // same name, another key
	if err := full.Verify(same, day); !errors.Is(err, ErrNotTrusted) {
		t.Error(err)
	}
}
