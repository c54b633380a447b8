package ocsp

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	xocsp "golang.org/x/crypto/ocsp"
)

func ors(t testing.TB, name string) []byte {
	t.Helper()
	raw, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(string(read(t, "openssl", name))), ""))
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func certFile(t testing.TB, path ...string) *x509.Certificate {
	t.Helper()
	raw := read(t, path...)
	if block, _ := pem.Decode(raw); block != nil {
		raw = block.Bytes
	}
	cert, err := x509.ParseCertificate(raw)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// The recordings were made with SHA-1, which Verify refuses for that alone;
// all else is judged as OpenSSL judges it. Each is read at its own time.
func TestRecordedResponses(t *testing.T) {
	d1, nd1 := time.Date(2012, 10, 24, 0, 0, 0, 0, time.UTC), time.Date(2012, 10, 12, 0, 0, 0, 0, time.UTC)
	tests := []struct {
		name, response, issuer string
		now                    time.Time
		says                   string // "" accepts
	}{
		{"delegated", "D1.ors", "D1_Issuer_ICA.pem", d1, ""},
		{"delegated, root", "D2.ors", "D2_Issuer_Root.pem", d1, ""},
		{"direct", "ND1.ors", "ND1_Issuer_ICA.pem", nd1, ""},
		{"direct, cross-signed issuer", "ND1.ors", "ND1_Issuer_ICA-Cross.pem", nd1, ""},
		{"stale", "D1.ors", "D1_Issuer_ICA.pem", d1.AddDate(0, 0, 10), "ended"},
		{"bad signature, delegated", "ISOP_D1.ors", "D1_Issuer_ICA.pem", d1, "signature"},
		{"bad signature, direct", "ISOP_ND1.ors", "ND1_Issuer_ICA.pem", nd1, "signature"},
		{"responder ID, delegated", "WRID_D1.ors", "D1_Issuer_ICA.pem", d1, "neither the issuer"},
		{"responder ID, direct", "WRID_ND1.ors", "ND1_Issuer_ICA.pem", nd1, "neither the issuer"},
		{"issuer name hash, delegated", "WINH_D1.ors", "D1_Issuer_ICA.pem", d1, "signature is wrong"},
		{"issuer name hash, direct", "WINH_ND1.ors", "ND1_Issuer_ICA.pem", nd1, "signature is wrong"},
		{"issuer key hash, delegated", "WIKH_D1.ors", "D1_Issuer_ICA.pem", d1, "signature is wrong"},
		{"issuer key hash, direct", "WIKH_ND1.ors", "ND1_Issuer_ICA.pem", nd1, "signature is wrong"},
		{"delegate's key", "WKDOSC_D1.ors", "D1_Issuer_ICA.pem", d1, "neither the issuer"},
		{"delegate's signature", "ISDOSC_D1.ors", "D1_Issuer_ICA.pem", d1, "did not sign"},
		{"issuer's subject", "D1.ors", "WSNIC_D1_Issuer_ICA.pem", d1, "another"},
		{"issuer's subject, direct", "ND1.ors", "WSNIC_ND1_Issuer_ICA.pem", nd1, "another issuer"},
		{"issuer's key", "D1.ors", "WKIC_D1_Issuer_ICA.pem", d1, "did not sign"},
		{"issuer's key, direct", "ND1.ors", "WKIC_ND1_Issuer_ICA.pem", nd1, "neither the issuer"},
		{"issuer's own signature broken", "D1.ors", "ISIC_D1_Issuer_ICA.pem", d1, ""},
		{"issuer's own signature broken, direct", "ND1.ors", "ISIC_ND1_Issuer_ICA.pem", nd1, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			issuer := certFile(t, "openssl", tt.issuer)
			resp, err := ParseResponse(ors(t, tt.response))
			if err == nil {
				err = verify(resp, issuer, tt.now, true)
			}
			switch {
			case tt.says == "" && err != nil, tt.says != "" && (err == nil || !strings.Contains(err.Error(), tt.says)):
				t.Errorf("%v, want %q", err, tt.says)
			case tt.says == "" && Verify(resp, issuer, tt.now) == nil:
				t.Error("SHA-1 accepted")
			}
		})
	}
}

func TestRecordedRevoked(t *testing.T) {
	issuer := certFile(t, "rustcrypto", "rsa-2048-sha256-ca.der")
	resp, err := ParseResponse(read(t, "rustcrypto", "rsa-2048-sha256-revoked-ocsp-res.der"))
	if err != nil {
		t.Fatal(err)
	}
	if err := Verify(resp, issuer, time.Unix(1700000000, 0)); err != nil && !strings.Contains(err.Error(), "nextUpdate") {
		t.Error(err)
	}
	one := resp.Responses[0]
	if one.Status != Revoked || one.RevokedAt.IsZero() {
		t.Errorf("%+v", one)
	}
}

func TestRecordedErrors(t *testing.T) {
	for file, want := range map[string]ResponseStatus{
		"ocsp-malformed.der": MalformedRequest, "ocsp-internal-error.der": InternalError, "ocsp-try-later.der": TryLater,
		"ocsp-sig-required.der": SigRequired, "ocsp-unauthorized.der": Unauthorized,
	} {
		resp, err := ParseResponse(read(t, "rustcrypto", file))
		if err != nil || resp.Status != want || !bytes.Equal(ErrorResponse(want), resp.Raw) {
			t.Error(file, resp, err)
		}
	}
}

// Each recording is read, or refused, as x/crypto does it; and where both read,
// they read the same.
func TestResponseOracle(t *testing.T) {
	files, err := filepath.Glob("testdata/rustcrypto/*-res*.der")
	if err != nil || len(files) < 9 {
		t.Fatal("no files", err)
	}
	for _, path := range files {
		t.Run(filepath.Base(path), func(t *testing.T) {
			raw, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			compare(t, raw)
			if _, err := ParseResponse(raw); err != nil {
				t.Error(err)
			}
		})
	}
}

func compare(t *testing.T, raw []byte) {
	ours, err := ParseResponse(raw)
	if err != nil {
		if !errors.Is(err, ErrMalformed) {
			t.Fatal(err)
		}
		return
	}
	x, err := xocsp.ParseResponse(raw, nil)
	if err != nil || ours.Status != Successful || len(ours.Responses) != 1 {
		return
	}
	one := ours.Responses[0]
	if one.ID.SerialNumber().Cmp(x.SerialNumber) != 0 || int(one.Status) != x.Status || !one.ThisUpdate.Equal(x.ThisUpdate) ||
		!one.NextUpdate.Equal(x.NextUpdate) || !bytes.Equal(ours.Signature, x.Signature) || !bytes.Equal(ours.TBS, x.TBSResponseData) {
		t.Fatalf("ours %+v, x/crypto %+v", one, x)
	}
}

func FuzzResponse(f *testing.F) {
	files, _ := filepath.Glob("testdata/rustcrypto/*-res*.der")
	if len(files) < 9 {
		f.Fatal("no seeds")
	}
	for _, path := range files {
		raw, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	f.Add(ors(f, "D1.ors"))
	f.Add(ErrorResponse(TryLater))
	for _, hostile := range hostileResponses(f) {
		f.Add(hostile.raw)
	}
	issuer := certFile(f, "rustcrypto", "rsa-2048-sha256-ca.der")
	f.Fuzz(func(t *testing.T, raw []byte) {
		compare(t, raw)
		if resp, err := ParseResponse(raw); err == nil && resp.Status == Successful {
			resp.signer(issuer, time.Unix(1700000000, 0), true)
		}
	})
}

type hostile struct {
	name   string
	raw    []byte
	issuer *x509.Certificate
	says   string // of Verify; "" accepts
}

// hostileResponses are what no relying party should take, and one that it should.
func hostileResponses(t testing.TB) (all []hostile) {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	now := time.Now().Truncate(time.Second)
	strong, err := rsa.GenerateKey(rand.Reader, 2048)
	must(err)
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(err)
	make := func(key crypto.Signer, by *x509.Certificate, byKey crypto.Signer, edit func(*x509.Certificate)) *x509.Certificate {
		c := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "issuer"}, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour),
			BasicConstraintsValid: true, IsCA: true, KeyUsage: x509.KeyUsageCertSign}
		if by != nil {
			c.Subject.CommonName, c.IsCA, c.KeyUsage = "responder", false, x509.KeyUsageDigitalSignature
			c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageOCSPSigning}
			edit(c)
		} else {
			by = c
		}
		raw, err := x509.CreateCertificate(rand.Reader, c, by, key.Public(), byKey)
		must(err)
		cert, err := x509.ParseCertificate(raw)
		must(err)
		return cert
	}
	answer := func(issuer, responder *x509.Certificate, key crypto.Signer, alg x509.SignatureAlgorithm) []byte {
		r := xocsp.Response{SerialNumber: big.NewInt(7), ThisUpdate: now, NextUpdate: now.Add(time.Hour), SignatureAlgorithm: alg}
		if responder != issuer {
			r.Certificate = responder
		}
		raw, err := xocsp.CreateResponse(issuer, responder, r, key)
		must(err)
		return raw
	}
	rsaIssuer, ecIssuer := make(strong, nil, strong, nil), make(ec, nil, ec, nil)
	delegate := func(edit func(*x509.Certificate)) []byte {
		return answer(ecIssuer, make(ec, ecIssuer, ec, edit), ec, x509.ECDSAWithSHA256)
	}
	return []hostile{
		{"plain", answer(rsaIssuer, rsaIssuer, strong, x509.SHA256WithRSA), rsaIssuer, ""},
		{"SHA-1", answer(rsaIssuer, rsaIssuer, strong, x509.SHA1WithRSA), rsaIssuer, "signed with SHA1-RSA"},
		{"ECDSA with SHA-1", answer(ecIssuer, ecIssuer, ec, x509.ECDSAWithSHA1), ecIssuer, "not accepted"},
		{"delegate", delegate(func(*x509.Certificate) {}), ecIssuer, ""},
		{"delegate's certificate by ECDSA with SHA-1", delegate(func(c *x509.Certificate) { c.SignatureAlgorithm = x509.ECDSAWithSHA1 }), ecIssuer, "signed with ECDSA-SHA1"},
		{"delegate that is a CA", delegate(func(c *x509.Certificate) { c.IsCA, c.KeyUsage = true, c.KeyUsage|x509.KeyUsageCertSign }), ecIssuer, "is a CA's"},
		{"expired delegate", delegate(func(c *x509.Certificate) { c.NotAfter = now.Add(-time.Minute) }), ecIssuer, "expired"},
	}
}

func TestHostileResponses(t *testing.T) {
	for _, tt := range hostileResponses(t) {
		t.Run(tt.name, func(t *testing.T) {
			r, err := ParseResponse(tt.raw)
			if err != nil {
				t.Fatal(err)
			}
			err = Verify(r, tt.issuer, time.Now())
			if tt.says == "" && err != nil || tt.says != "" && (!errors.Is(err, ErrNotTrusted) || !strings.Contains(err.Error(), tt.says)) {
				t.Errorf("%v, want %q", err, tt.says)
			}
		})
	}
}

// Of several answers about one certificate in a response, revoked counts.
func TestFindRevoked(t *testing.T) {
	plain := hostileResponses(t)[0]
	r, err := ParseResponse(plain.raw)
	if err != nil {
		t.Fatal(err)
	}
	again := r.Responses[0]
	again.Status = Revoked
	r.Responses = append(r.Responses, again, r.Responses[0])
	if found := r.Find(plain.issuer, big.NewInt(7)); found == nil || found.Status != Revoked {
		t.Errorf("%+v", found)
	}
}
