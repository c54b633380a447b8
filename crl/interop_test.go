package crl

import (
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/cryptobyte"
	cryptoasn1 "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/internal/revlist"
)

func writePEM(t *testing.T, path, kind string, blocks ...[]byte) string {
	t.Helper()
	var out []byte
	for _, b := range blocks {
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: b})...)
	}
	if err := os.WriteFile(path, out, 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// leaf makes a certificate that names its partition and the partition's delta.
func (h *house) leaf(t *testing.T, s ca.Serial) []byte {
	t.Helper()
	partition := Partition(s.Index(), 10)
	var b cryptobyte.Builder
	b.AddASN1(cryptoasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1(cryptoasn1.SEQUENCE, func(b *cryptobyte.Builder) {
			addPoint(b, URL(publicURL, "issuing-1", partition, true))
		})
	})
	key := newKey(t)
	raw, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: s.Big(), Subject: pkix.Name{CommonName: "lamp"}, NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour),
		CRLDistributionPoints: []string{URL(publicURL, "issuing-1", partition, false)},
		ExtraExtensions:       []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, revlist.ExtFreshest}, Value: b.BytesOrPanic()}},
	}, h.cert, key.Public(), h.key)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// OpenSSL accepts complete lists with their deltas, whole and by partition,
// believes them, and refuses what does not fit together; GnuTLS verifies them.
func TestOpenSSLVerify(t *testing.T) {
	dir := t.TempDir()
	h := newHouse(t, filepath.Join(dir, "crl"), nil)
	var serials []ca.Serial
	for range 15 {
		serials = append(serials, h.j.issue(time.Hour))
	}
	before, held, since, never, other := serials[0], serials[1], serials[2], serials[3], serials[12]
	h.j.revoke(before, 1)
	h.j.revoke(held, 6)
	if err := h.p.Publish(t.Context(), ""); err != nil {
		t.Fatal(err)
	}
	h.j.release(held)
	h.j.revoke(since, 4)
	h.j.revoke(other, 5)
	if err := h.p.round(t.Context(), h.p.issuers[0], false); err != nil {
		t.Fatal(err)
	}
	trust := writePEM(t, filepath.Join(dir, "ca.pem"), "CERTIFICATE", h.cert.Raw)
	lists := func(name string, ids ...int) string {
		var raw [][]byte
		for _, id := range ids {
			raw = append(raw, h.list(id, false).Raw, h.list(id, true).Raw)
		}
		return writePEM(t, filepath.Join(dir, name), "X509 CRL", raw...)
	}
	whole, part0, part1 := lists("whole.pem", Whole), lists("0.pem", 0), lists("1.pem", 1)
	alone := writePEM(t, filepath.Join(dir, "alone.pem"), "X509 CRL", h.list(Whole, false).Raw)
	mixed := writePEM(t, filepath.Join(dir, "mixed.pem"), "X509 CRL", h.list(0, false).Raw, h.list(1, true).Raw)
	tests := []struct {
		name   string
		lists  string
		deltas bool
		serial ca.Serial
		says   string // "" accepts
	}{
		{"whole, before", whole, true, before, "certificate revoked"},
		{"whole, since", whole, true, since, "certificate revoked"},
		{"whole, released", whole, true, held, ""},
		{"whole, never", whole, true, never, ""},
		{"whole without delta, since", alone, false, since, ""},
		{"whole without delta, held", alone, false, held, "certificate revoked"},
		{"partition, before", part0, true, before, "certificate revoked"},
		{"partition, since", part0, true, since, "certificate revoked"},
		{"partition, released", part0, true, held, ""},
		{"partition, never", part0, true, never, ""},
		{"other partition's certificate, its list", part1, true, other, "certificate revoked"},
		{"other partition's certificate, this list", part0, true, other, "different CRL scope"},
		{"delta of another partition is passed over", mixed, true, since, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			args := []string{"verify", "-CAfile", trust, "-CRLfile", tt.lists, "-crl_check", "-extended_crl"}
			if tt.deltas {
				args = append(args, "-use_deltas")
			}
			cert := writePEM(t, filepath.Join(dir, "leaf.pem"), "CERTIFICATE", h.leaf(t, tt.serial))
			out, err := exec.Command("openssl", append(args, cert)...).CombinedOutput()
			if (err == nil) != (tt.says == "") || !strings.Contains(string(out), tt.says) {
				t.Errorf("%v, want %q\n%s", err, tt.says, out)
			}
		})
	}
	for _, id := range []int{Whole, 0} {
		for _, delta := range []bool{false, true} {
			path := writePEM(t, filepath.Join(dir, "x.pem"), "X509 CRL", h.list(id, delta).Raw)
			out, err := exec.Command("certtool", "--verify-crl", "--load-ca-certificate", trust, "--infile", path).CombinedOutput()
			if err != nil || !strings.Contains(string(out), "Verification output: Verified") {
				t.Errorf("certtool: %v\n%s", err, out)
			}
		}
	}
}
