package ocsp

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"io"
	"log/slog"
	"math/big"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/deviceca/deviceca/ca"
)

// testCA is a CA with a ledger in memory. It is Source and Certifier.
type testCA struct {
	name string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey

	now      func() time.Time
	life     time.Duration // of responder certificates
	mu       sync.Mutex
	status   map[ca.Serial]Status
	away     error
	reads    int
	issued   int
	onStatus func() // called within Status, after the read
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func newCA(t testing.TB, name string, now func() time.Time) *testCA {
	t.Helper()
	key := newKey(t)
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: now().Add(-time.Hour), NotAfter: now().AddDate(20, 0, 0),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign | x509.KeyUsageDigitalSignature,
	}
	raw, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(raw)
	if err != nil {
		t.Fatal(err)
	}
	return &testCA{name: name, cert: cert, key: key, now: now, life: 14 * 24 * time.Hour, status: map[ca.Serial]Status{}}
}

// serial makes a serial with random octets that index determines.
func serial(index uint64) ca.Serial {
	return ca.NewSerial(index, [12]byte{9, 8, 7, 6, 5, 4, 3, 2, 1, byte(index >> 16), byte(index >> 8), byte(index)})
}

func (c *testCA) issue(index uint64) ca.Serial {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := serial(index)
	c.status[s] = Status{Issued: true, NotAfter: c.now().AddDate(1, 0, 0)}
	return s
}

func (c *testCA) revoke(s ca.Serial, sequence int64, reason int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	st := c.status[s]
	st.Revocation = &ca.Revocation{Sequence: sequence, Time: c.now(), Reason: reason}
	c.status[s] = st
}

func (c *testCA) setAway(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.away = err
}

func (c *testCA) Status(_ context.Context, issuer string, s ca.Serial) (Status, error) {
	c.mu.Lock()
	if issuer != c.name {
		c.mu.Unlock()
		return Status{}, errors.New("asked for the wrong issuer")
	}
	c.reads++
	st, err, on := c.status[s], c.away, c.onStatus
	c.mu.Unlock()
	if on != nil {
		on()
	}
	return st, err
}

func (c *testCA) IssueResponder(_ context.Context, _ string, pub crypto.PublicKey) ([]byte, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.away != nil {
		return nil, c.away
	}
	c.issued++
	return c.responderCert(pub, func(*x509.Certificate) {})
}

// responderCert makes a responder certificate, changed by edit.
func (c *testCA) responderCert(pub crypto.PublicKey, edit func(*x509.Certificate)) ([]byte, error) {
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1000 + int64(c.issued)), Subject: pkix.Name{CommonName: c.name + " OCSP"},
		NotBefore: c.now().Add(-time.Minute), NotAfter: c.now().Add(c.life),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageOCSPSigning},
		ExtraExtensions: []pkix.Extension{{Id: oidNoCheck, Value: []byte{5, 0}}},
	}
	edit(tmpl)
	return x509.CreateCertificate(rand.Reader, tmpl, c.cert, pub, c.key)
}

// leaf makes a real end-entity certificate for clients that want one.
func (c *testCA) leaf(t testing.TB, s ca.Serial) *x509.Certificate {
	t.Helper()
	key := newKey(t)
	raw, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: s.Big(), Subject: pkix.Name{CommonName: "lamp"}, NotBefore: c.now().Add(-time.Minute), NotAfter: c.now().AddDate(1, 0, 0),
	}, c.cert, key.Public(), c.key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(raw)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

var quiet = slog.New(slog.NewTextHandler(io.Discard, nil))

func newResponder(t testing.TB, c *testCA, edit func(*Options)) *Responder {
	t.Helper()
	opts := Options{Source: c, Now: c.now, Log: quiet, Prefix: "/ocsp"}
	if edit != nil {
		edit(&opts)
	}
	r, err := New(opts)
	if err != nil {
		t.Fatal(err)
	}
	d := NewDelegate(DelegateOptions{Issuer: c.name, IssuerCert: c.cert, Certifier: c, Now: c.now, Log: quiet})
	if err := r.AddIssuer(c.name, c.cert, d); err != nil {
		t.Fatal(err)
	}
	return r
}

func request(t testing.TB, c *testCA, hash Hash, nonce []byte, serials ...*big.Int) []byte {
	t.Helper()
	in, err := NewRequest(c.cert, hash, nonce, serials...)
	if err != nil {
		t.Fatal(err)
	}
	return in
}

// ask gets an answer and, if it is a successful one, verifies it.
func ask(t testing.TB, r *Responder, c *testCA, in []byte) *Response {
	t.Helper()
	resp, err := ParseResponse(r.Answer(t.Context(), in))
	if err != nil {
		t.Fatal(err)
	}
	if resp.Status == Successful {
		if err := Verify(resp, c.cert, c.now()); err != nil {
			t.Fatal(err)
		}
	}
	return resp
}

type serialOnly struct{ x509.Certificate }

func certWithSerial(n *big.Int) *serialOnly {
	return &serialOnly{x509.Certificate{SerialNumber: n}}
}

// cpu reports the processor time of the whole process from now to the end of
// the benchmark: on a busy machine it says more than the clock.
func cpu(b *testing.B) {
	spent := func() time.Duration {
		var u syscall.Rusage
		if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
			b.Fatal(err)
		}
		return time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	before := spent()
	b.Cleanup(func() { b.ReportMetric(float64(spent()-before)/float64(b.N), "cpu-ns/op") })
}
