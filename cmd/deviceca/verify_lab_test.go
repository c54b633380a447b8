package main

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	xocsp "golang.org/x/crypto/ocsp"

	"github.com/deviceca/deviceca/pack"
)

// lab makes certificates and lists for relying parties' tests, as files of a directory.
type lab struct {
	t      *testing.T
	dir    string
	now    time.Time
	serial int64
}

func newLab(t *testing.T) *lab {
	return &lab{t: t, dir: t.TempDir(), now: time.Now().Truncate(time.Second), serial: 1}
}

// member is a certificate of the lab, and its key.
type member struct {
	*x509.Certificate
	key crypto.Signer
}

func (l *lab) must(err error) {
	l.t.Helper()
	if err != nil {
		l.t.Fatal(err)
	}
}

func (l *lab) ecKey() crypto.Signer {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	l.must(err)
	return key
}

func (l *lab) rsaKey(bits int) crypto.Signer {
	l.t.Setenv("GODEBUG", "rsa1024min=0")
	key, err := rsa.GenerateKey(rand.Reader, bits)
	l.must(err)
	return key
}

// ca makes a CA's certificate, below by or, with nil, self-signed. edit may be nil.
func (l *lab) ca(name string, by *member, key crypto.Signer, edit func(*x509.Certificate)) *member {
	return l.issue(by, key, func(c *x509.Certificate) {
		c.Subject = pkix.Name{CommonName: name}
		c.IsCA, c.KeyUsage = true, x509.KeyUsageCertSign|x509.KeyUsageCRLSign
		if edit != nil {
			edit(c)
		}
	})
}

// device makes a device's certificate.
func (l *lab) device(name string, by *member, edit func(*x509.Certificate)) *member {
	return l.issue(by, l.ecKey(), func(c *x509.Certificate) {
		c.Subject = pkix.Name{CommonName: name}
		c.KeyUsage, c.ExtKeyUsage = x509.KeyUsageDigitalSignature, []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
		if edit != nil {
			edit(c)
		}
	})
}

func (l *lab) issue(by *member, key crypto.Signer, edit func(*x509.Certificate)) *member {
	l.t.Helper()
	l.serial++
	serial := append([]byte{1, 0, 0, 0, 0, 0, byte(l.serial)}, bytes.Repeat([]byte{byte(l.serial)}, 12)...)
	c := &x509.Certificate{SerialNumber: new(big.Int).SetBytes(serial), NotBefore: l.now.Add(-time.Hour), NotAfter: l.now.AddDate(1, 0, 0), BasicConstraintsValid: true}
	edit(c)
	parent, signer := c, key
	if by != nil {
		parent, signer = by.Certificate, by.key
	}
	raw, err := x509.CreateCertificate(rand.Reader, c, parent, key.Public(), signer)
	l.must(err)
	cert, err := x509.ParseCertificate(raw)
	l.must(err)
	return &member{cert, key}
}

func (l *lab) write(name string, raw []byte) string {
	l.t.Helper()
	path := filepath.Join(l.dir, name)
	l.must(os.WriteFile(path, raw, 0o644))
	return path
}

func (l *lab) certs(name string, certs ...*member) string {
	var b bytes.Buffer
	for _, c := range certs {
		pem.Encode(&b, &pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
	}
	return l.write(name, b.Bytes())
}

// crl makes a CRL of by that lists the revoked; edit may be nil.
func (l *lab) crl(by *member, edit func(*x509.RevocationList), revoked ...*member) []byte {
	l.t.Helper()
	list := &x509.RevocationList{Number: big.NewInt(7), ThisUpdate: l.now.Add(-time.Minute), NextUpdate: l.now.Add(time.Hour)}
	for _, c := range revoked {
		list.RevokedCertificateEntries = append(list.RevokedCertificateEntries,
			x509.RevocationListEntry{SerialNumber: c.SerialNumber, RevocationTime: l.now.Add(-2 * time.Minute), ReasonCode: 2})
	}
	if edit != nil {
		edit(list)
	}
	raw, err := x509.CreateRevocationList(rand.Reader, list, by.Certificate, by.key)
	l.must(err)
	return raw
}

// pack makes a full pack of by, number sequence.
func (l *lab) pack(by *member, sequence uint64, revoked ...*member) []byte {
	l.t.Helper()
	var indices []uint64
	for _, c := range revoked {
		index, ok := pack.Index(c.SerialNumber.Bytes())
		if !ok {
			l.t.Fatal("no index")
		}
		indices = append(indices, index)
	}
	slices.Sort(indices)
	st, err := pack.NewState(pack.Header{Issuer: pack.IssuerHash(by.Certificate), Epoch: 1, Sequence: sequence,
		ThisUpdate: l.now.Add(-time.Minute), NextUpdate: l.now.Add(time.Hour), Size: 1000}, slices.Values(indices))
	l.must(err)
	signer, err := pack.NewSigner(by.Certificate, by.key, nil)
	l.must(err)
	raw, err := st.Sign(signer, pack.Hash{})
	l.must(err)
	return raw
}

// ocsp makes an OCSP answer of by about c; edit may be nil.
func (l *lab) ocsp(by, c *member, status int, edit func(*xocsp.Response)) []byte {
	return l.ocspBy(by, by, c, status, edit)
}

// ocspBy has responder sign it.
func (l *lab) ocspBy(by, responder, c *member, status int, edit func(*xocsp.Response)) []byte {
	l.t.Helper()
	answer := xocsp.Response{Status: status, SerialNumber: c.SerialNumber, ThisUpdate: l.now.Add(-time.Minute), NextUpdate: l.now.Add(time.Hour)}
	if status == xocsp.Revoked {
		answer.RevokedAt = l.now.Add(-2 * time.Minute)
	}
	if responder != by {
		answer.Certificate = responder.Certificate
	}
	if edit != nil {
		edit(&answer)
	}
	raw, err := xocsp.CreateResponse(by.Certificate, responder.Certificate, answer, responder.key)
	l.must(err)
	return raw
}

// run runs the command line in this process.
func (l *lab) run(args ...string) (code int, out, errs string) {
	var stdout, stderr bytes.Buffer
	code = run(context.Background(), house{}, args, strings.NewReader(""), &stdout, &stderr)
	return code, stdout.String(), stderr.String()
}

// verify runs verify with --json, and demands that its exit status fits its verdict.
func (l *lab) verify(args ...string) Verdict {
	l.t.Helper()
	code, out, errs := l.run(append([]string{"verify", "--json"}, args...)...)
	var v Verdict
	if err := json.Unmarshal([]byte(out), &v); err != nil {
		l.t.Fatalf("exit %d: %s%s", code, out, errs)
	}
	if v.Good != (code == exitDone) {
		l.t.Fatalf("exit status %d, and good: %t", code, v.Good)
	}
	return v
}
