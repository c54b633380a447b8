package est_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/device"
	"github.com/deviceca/deviceca/policy"
)

// authority is a small core in memory. It signs with a real key and checks what
// the tests of this package lean on; what it lacks (policy, lint, a ledger) EST
// never sees.
type authority struct {
	root    *x509.Certificate
	rootKey *ecdsa.PrivateKey
	now     func() time.Time

	// before, if set, is asked first: an error of its own ends the enrolment.
	before func(context.Context, ca.Request) error
	// outcome and reasons are what issued certificates come with.
	outcome policy.Outcome
	reasons []string
	// forgives is renew_after_expiry of every profile.
	forgives time.Duration

	mu          sync.Mutex
	profiles    map[string]policy.Profile
	credentials map[string]*credential
	states      map[string]device.State
	issued      map[ca.Serial]*ca.Certificate
	keys        map[[32]byte]string // owner of each key
	requests    []ca.Request        // that reached Enroll
	secrets     int                 // calls of AuthenticateSecret
	from        netip.Addr          // of the last of them
}

type credential struct {
	secret string
	device.Credential
}

const (
	lampSecret  = "lamp-secret"
	groupSecret = "group-secret"
)

func newAuthority(t testing.TB) *authority {
	t.Helper()
	key := newKey(t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Test Root"}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	root, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &authority{
		root: root, rootKey: key, now: time.Now, outcome: policy.Issue, forgives: time.Hour,
		profiles: map[string]policy.Profile{
			"device":  {Name: "device", Keys: []string{"ecdsa-p256", "ed25519"}},
			"gateway": {Name: "gateway", Keys: []string{"rsa-3072"}},
			"silent":  {Name: "silent"},
		},
		credentials: map[string]*credential{
			"lamp-ref":  {lampSecret, device.Credential{Reference: "lamp-ref", Device: "lamp-1", Uses: 3, Expires: time.Now().Add(time.Hour)}},
			"group-ref": {groupSecret, device.Credential{Reference: "group-ref", Group: "lamps", Names: []string{"lamp-*"}, Uses: 100, Expires: time.Now().Add(time.Hour)}},
			"spent-ref": {lampSecret, device.Credential{Reference: "spent-ref", Device: "lamp-1", Expires: time.Now().Add(time.Hour)}},
			"old-ref":   {lampSecret, device.Credential{Reference: "old-ref", Device: "lamp-1", Uses: 1, Expires: time.Now().Add(-time.Hour)}},
			"gone-ref":  {lampSecret, device.Credential{Reference: "gone-ref", Device: "lamp-9", Uses: 1, Expires: time.Now().Add(time.Hour)}},
		},
		states: map[string]device.State{"lamp-1": device.Active, "lamp-2": device.Active, "lamp-8": device.Suspended, "lamp-9": device.Retired},
		issued: map[ca.Serial]*ca.Certificate{}, keys: map[[32]byte]string{},
	}
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func (a *authority) AuthenticateSecret(_ context.Context, reference, secret string, from netip.Addr) (ca.Requester, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.secrets++
	a.from = from
	c, ok := a.credentials[reference]
	if !ok || c.secret != secret {
		return ca.Requester{}, ca.Errorf(ca.Unauthenticated, "unknown reference or wrong secret")
	}
	if err := c.Usable(a.now()); err != nil {
		return ca.Requester{}, ca.Errorf(ca.Unauthenticated, "%w", err)
	}
	return ca.Requester{Kind: policy.ByCredential, Device: c.Device, Credential: &c.Credential}, nil
}

func (a *authority) CredentialSecret(_ context.Context, reference string) (ca.Requester, device.Secret, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	c, ok := a.credentials[reference]
	if !ok {
		return ca.Requester{}, device.NewSecret(), nil
	}
	if err := c.Usable(a.now()); err != nil {
		return ca.Requester{}, device.Secret(c.secret), ca.Errorf(ca.Unauthenticated, "%w", err)
	}
	return ca.Requester{Kind: policy.ByCredential, Device: c.Device, Credential: &c.Credential}, device.Secret(c.secret), nil
}

func (a *authority) AuthenticateCertificate(_ context.Context, chain []*x509.Certificate) (ca.Requester, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	serial, _ := ca.SerialFromBig(chain[0].SerialNumber)
	c, ok := a.issued[serial]
	if !ok || !bytes.Equal(c.DER, chain[0].Raw) {
		return ca.Requester{}, ca.Errorf(ca.Unauthenticated, "the client certificate was not issued by this CA")
	}
	if c.Revocation != nil {
		return ca.Requester{}, ca.Errorf(ca.Unauthenticated, "the client certificate was revoked")
	}
	return ca.Requester{Kind: policy.ByCertificate, Device: c.Device, Certificate: c, Lapsed: max(0, a.now().Sub(c.NotAfter))}, nil
}

func (a *authority) MayActFor(context.Context, ca.Requester, ca.Deed) error { return nil }

func (a *authority) Enroll(ctx context.Context, r ca.Request) (*ca.Issued, error) {
	if a.before != nil {
		if err := a.before(ctx, r); err != nil {
			return nil, err
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.requests = append(a.requests, r)
	if r.Requester.Kind == "" {
		return nil, ca.Errorf(ca.Unauthenticated, "nobody asked")
	}
	id := r.Requester.Device
	if id == "" {
		id = r.Names.CommonName()
	}
	if cn := r.Names.CommonName(); cn != "" && !device.SameID(cn, id) {
		return nil, &ca.Error{Kind: ca.Denied, Reason: "the common name is not that of device " + id, Rule: "names"}
	}
	c := r.Requester.Credential
	if c != nil && !c.Covers(id) {
		return nil, ca.Errorf(ca.Denied, "this credential is not for device %s", id)
	}
	if c != nil && c.Spent() {
		return nil, ca.Errorf(ca.Unauthenticated, "this credential has no uses left; ask for a new one")
	}
	if state, known := a.states[id]; known && !state.MayEnrol() {
		return nil, ca.Errorf(ca.Denied, "device %s is %s and gets no certificates", id, state)
	}
	keyID := sha256.Sum256(r.SPKI)
	if owner, known := a.keys[keyID]; known && owner != id {
		return nil, ca.Errorf(ca.BadKey, "this key is known under another device: make a new key")
	}
	if r.Requester.Lapsed > a.forgives {
		return nil, ca.Errorf(ca.Unauthenticated, "the certificate expired: enrol with a credential")
	}
	if r.Renew {
		if err := sameNames(r.Requester.Certificate.DER, r.Names); err != nil {
			return nil, err
		}
	}
	cert, err := a.sign(id, r.PublicKey, r.Names, a.now().Add(time.Hour))
	if err != nil {
		return nil, err
	}
	if c != nil {
		c.Used++
	}
	a.keys[keyID] = id
	return &ca.Issued{Certificate: cert, Chain: [][]byte{a.root.Raw}, Outcome: a.outcome, Reasons: a.reasons}, nil
}

func sameNames(old []byte, asked ca.Names) error {
	cert, err := x509.ParseCertificate(old)
	if err != nil {
		return err
	}
	var san []byte
	for _, e := range cert.Extensions {
		if e.Id.String() == "2.5.29.17" {
			san = e.Value
		}
	}
	was, err := ca.ParseNames(cert.RawSubject, san)
	if err != nil {
		return err
	}
	if !was.Equal(asked) {
		return ca.Errorf(ca.Denied, "re-enrolment keeps the names of the certificate it renews")
	}
	return nil
}

// sign issues and remembers; the lock is held, or nobody else is there yet.
func (a *authority) sign(id string, pub crypto.PublicKey, names ca.Names, notAfter time.Time) (*ca.Certificate, error) {
	var random [12]byte
	rand.Read(random[:])
	serial := ca.NewSerial(uint64(len(a.issued)+1), random)
	template := &x509.Certificate{
		SerialNumber: serial.Big(), Subject: pkix.Name{CommonName: id},
		NotBefore: notAfter.Add(-2 * time.Hour), NotAfter: notAfter,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	for _, san := range names.SANs {
		template.DNSNames = append(template.DNSNames, san.Value)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.root, pub, a.rootKey)
	if err != nil {
		return nil, err
	}
	cert := &ca.Certificate{Serial: serial, Issuer: "issuing-1", Device: id, Profile: "device", NotBefore: template.NotBefore, NotAfter: notAfter, DER: der}
	a.issued[serial] = cert
	return cert, nil
}

func (a *authority) Spend(ca.Requester, string, string) error { return nil }

func (a *authority) Anchors() [][]byte { return [][]byte{a.root.Raw} }

func (a *authority) HasProfile(name string) bool {
	_, ok := a.profiles[name]
	return ok
}

func (a *authority) ProfileFor(r ca.Requester, asked string) (policy.Profile, error) {
	if r.Kind != "" && asked == "gateway" {
		return policy.Profile{}, ca.Errorf(ca.Denied, "level software may not have profile gateway")
	}
	if asked == "" {
		asked = "device"
	}
	return a.profiles[asked], nil
}

// last is the request that Enroll saw last.
func (a *authority) last(t testing.TB) ca.Request {
	t.Helper()
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.requests) == 0 {
		t.Fatal("no request reached the core")
	}
	return a.requests[len(a.requests)-1]
}
