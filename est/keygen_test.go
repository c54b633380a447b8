package est_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/big"
	"mime"
	"mime/multipart"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/device"
	"github.com/deviceca/deviceca/est"
	"github.com/deviceca/deviceca/internal/cms"
	"github.com/deviceca/deviceca/policy"
)

// newResponder is a key of its own under the root.
func (a *authority) newResponder(t testing.TB) est.Responder {
	t.Helper()
	key := newKey(t)
	template := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "Test Responder"}, KeyUsage: x509.KeyUsageDigitalSignature,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, a.root, key.Public(), a.rootKey)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return est.Responder{Key: key, Chain: []*x509.Certificate{cert}}
}

// newKeygenEnv has profiles of every sort.
func newKeygenEnv(t testing.TB, change ...func(*est.Options)) *env {
	t.Helper()
	rules := map[string]est.Rules{"device": {Keygen: est.KeygenClear}, "rsa": {Keygen: est.KeygenClear}, "sealed": {Keygen: est.KeygenSealed},
		"ed": {Keygen: est.KeygenClear}, "odd": {Keygen: est.KeygenClear}, "bound": {Keygen: est.KeygenClear, Binding: true}}
	e := newEnv(t, append([]func(*est.Options){func(o *est.Options) {
		o.Rules = func(p policy.Profile) est.Rules { return rules[p.Name] }
		responder := o.Authority.(*authority).newResponder(t)
		o.Responder = func(context.Context) (est.Responder, error) { return responder, nil }
	}}, change...)...)
	maps.Copy(e.profiles, map[string]policy.Profile{
		"rsa":    {Name: "rsa", Keys: []string{"rsa-2048", "ecdsa-p384"}},
		"sealed": {Name: "sealed", Keys: []string{"ecdsa-p256"}},
		"ed":     {Name: "ed", Keys: []string{"ecdsa-p521", "ed25519"}},
		"odd":    {Name: "odd", Keys: []string{"ecdsa-p521", "rsa-8192"}},
		"bound":  {Name: "bound", Keys: []string{"ecdsa-p256"}},
		"never":  {Name: "never", Keys: []string{"ecdsa-p256"}},
	})
	return e
}

// generated takes the reply apart as RFC 7030 §4.4.2 has it, and returns the
// first part with the certificate.
func (r result) generated(t testing.TB, firstType string) ([]byte, *x509.Certificate) {
	t.Helper()
	if r.status != http.StatusOK {
		t.Fatalf("status %d: %s", r.status, r.body)
	}
	mediaType, params, err := mime.ParseMediaType(r.header.Get("Content-Type"))
	if err != nil || mediaType != "multipart/mixed" {
		t.Fatalf("Content-Type %q, %v", r.header.Get("Content-Type"), err)
	}
	r.wantHeader(t, "Content-Transfer-Encoding", "") // of a multipart, RFC 2045 §6.4 forbids base64
	r.wantHeader(t, "Cache-Control", "no-store")
	in := multipart.NewReader(strings.NewReader(r.body), params["boundary"])
	var parts [][]byte
	for _, want := range []string{firstType, "application/pkcs7-mime; smime-type=certs-only"} {
		p, err := in.NextRawPart()
		if err != nil {
			t.Fatal(err)
		}
		if p.Header.Get("Content-Type") != want || p.Header.Get("Content-Transfer-Encoding") != "base64" {
			t.Errorf("a part with %v, want %s", p.Header, want)
		}
		body, err := io.ReadAll(base64.NewDecoder(base64.StdEncoding, p))
		if err != nil {
			t.Fatal(err)
		}
		parts = append(parts, body)
	}
	if _, err := in.NextRawPart(); !errors.Is(err, io.EOF) {
		t.Errorf("a third part: %v", err)
	}
	certs, err := cms.ParseCertsOnly(parts[1])
	if err != nil || len(certs) != 1 {
		t.Fatalf("%d certificates, %v", len(certs), err)
	}
	cert, err := x509.ParseCertificate(certs[0])
	if err != nil {
		t.Fatal(err)
	}
	return parts[0], cert
}

func samePublic(key crypto.Signer, cert *x509.Certificate) bool {
	return key.Public().(interface{ Equal(crypto.PublicKey) bool }).Equal(cert.PublicKey)
}

const (
	clearKey  = "application/pkcs8"
	sealedKey = "application/pkcs7-mime; smime-type=server-generated-key"
)

func TestServerKeygenClear(t *testing.T) {
	e := newKeygenEnv(t)
	e.credentials["lamp-ref"].Uses = 100
	p256, p384 := newKey(t), func() crypto.Signer {
		k, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}()
	broken := newCSR(t, p256, "lamp-1")
	broken[len(broken)-1] ^= 1
	openssl := func(args string) []byte {
		out, err := exec.CommandContext(t.Context(), "openssl", strings.Fields("req -new -nodes -outform DER -keyout "+t.TempDir()+"/key -subj /CN=lamp-1 -newkey "+args)...).Output()
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	tests := []struct {
		name, path string
		csr        []byte
		want       string
	}{
		{"the request's kind", "serverkeygen", newCSR(t, p256, "lamp-1"), "ecdsa-p256"},
		{"the profile's first", "rsa/serverkeygen", newCSR(t, p256, "lamp-1"), "rsa-2048"},
		{"the request's kind, not the profile's first", "rsa/serverkeygen", newCSR(t, p384, "lamp-1"), "ecdsa-p384"},
		{"the first that is made here", "ed/serverkeygen", newCSR(t, p256, "lamp-1"), "ed25519"},
		{"signature ignored", "serverkeygen", broken, "ecdsa-p256"},
		{"weak key ignored", "serverkeygen", openssl("rsa:1024"), "ecdsa-p256"},
		{"unknown kind of key ignored", "serverkeygen", openssl("ec -pkeyopt ec_paramgen_curve:secp256k1"), "ecdsa-p256"},
		{"another kind of signature ignored", "serverkeygen", openssl("rsa:2048 -md5"), "ecdsa-p256"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := e.do(t, call{path: tt.path, body: base64Body(tt.csr), user: "lamp-ref", pass: lampSecret})
			pkcs8, cert := r.generated(t, clearKey)
			parsed, err := x509.ParsePKCS8PrivateKey(pkcs8)
			if err != nil {
				t.Fatal(err)
			}
			key := parsed.(crypto.Signer)
			if kind, err := policy.KeyAlgorithm(key.Public()); kind != tt.want || err != nil || !samePublic(key, cert) {
				t.Errorf("a key of kind %s (%v), want %s; the certificate's: %t", kind, err, tt.want, samePublic(key, cert))
			}
			if cert.Subject.CommonName != "lamp-1" || samePublic(p256, cert) {
				t.Errorf("subject %s", cert.Subject)
			}
			r.wantHeader(t, est.OutcomeHeader, "issue")
			if strings.Contains(e.logs.String(), base64.StdEncoding.EncodeToString(pkcs8)[24:60]) {
				t.Error("the log holds the key")
			}
		})
	}
	if got := e.lastObserved(); got != "serverkeygen issue" {
		t.Errorf("observed %q", got)
	}
}

// receiver is a device with a key that can be encrypted to.
type receiver struct {
	identity *ca.Certificate
	key      crypto.Signer
	keyID    []byte
	dir      string // with cert.pem and key.pem
}

var rsaKey = sync.OnceValues(func() (*rsa.PrivateKey, error) { return rsa.GenerateKey(rand.Reader, 2048) })

func (e *env) newReceiver(t testing.TB, kind string, usage x509.KeyUsage) receiver {
	t.Helper()
	var key crypto.Signer
	var err error
	switch kind {
	case "rsa-2048":
		key, err = rsaKey()
	case "ecdsa-p384":
		key, err = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case "ecdsa-p521":
		key, err = ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	case "ed25519":
		_, key, err = ed25519.GenerateKey(rand.Reader)
	default:
		key = newKey(t)
	}
	if err != nil {
		t.Fatal(err)
	}
	spki, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	id := sha1.Sum(spki)
	var random [12]byte
	rand.Read(random[:])
	serial := ca.NewSerial(uint64(1000+len(e.issued)), random)
	template := &x509.Certificate{SerialNumber: serial.Big(), Subject: pkix.Name{CommonName: "lamp-1"}, SubjectKeyId: id[:], KeyUsage: usage,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	der, err := x509.CreateCertificate(rand.Reader, template, e.root, key.Public(), e.rootKey)
	if err != nil {
		t.Fatal(err)
	}
	e.mu.Lock()
	e.authority.mu.Lock()
	cert := &ca.Certificate{Serial: serial, Issuer: "issuing-1", Device: "lamp-1", Profile: "device", NotAfter: template.NotAfter, DER: der}
	e.issued[serial] = cert
	e.authority.mu.Unlock()
	e.mu.Unlock()
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	r := receiver{cert, key, id[:], t.TempDir()}
	for name, block := range map[string]*pem.Block{"cert.pem": {Type: "CERTIFICATE", Bytes: der}, "key.pem": {Type: "PRIVATE KEY", Bytes: pkcs8}} {
		if err := os.WriteFile(filepath.Join(r.dir, name), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return r
}

// openssl decrypts as a device without a line of our code would, and returns the SignedData.
func decryptWithOpenSSL(t testing.TB, dir string, sealed []byte, args ...string) []byte {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "openssl", append([]string{"cms", "-decrypt", "-binary", "-inform", "DER"}, args...)...)
	var stderr bytes.Buffer
	cmd.Dir, cmd.Stdin, cmd.Stderr = dir, bytes.NewReader(sealed), &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("openssl %q: %v\n%s", args, err, &stderr)
	}
	return out
}

// opened checks the signature of the responder and returns the key.
func (e *env) opened(t testing.TB, signedData []byte) crypto.Signer {
	t.Helper()
	signed, err := cms.ParseSigned(cms.Content{Type: cms.TypeSigned, Bytes: signedData})
	if err != nil {
		t.Fatal(err)
	}
	signer := signed.SignerCert()
	if signer == nil || signer.Subject.CommonName != "Test Responder" || signer.CheckSignatureFrom(e.root) != nil {
		t.Fatalf("signed by %v", signer)
	}
	if err := signed.Verify(signer.PublicKey); err != nil {
		t.Fatal(err)
	}
	key, err := cms.ParseKeyPackage(signed.Content)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func TestServerKeygenSealed(t *testing.T) {
	tests := []struct {
		kind  string
		usage x509.KeyUsage
		caps  []cms.OID
	}{
		{"ecdsa-p256", x509.KeyUsageKeyAgreement, []cms.OID{aes256CBC, aes256Wrap}},
		{"ecdsa-p256", x509.KeyUsageDigitalSignature | x509.KeyUsageKeyAgreement, []cms.OID{aes128CBC, aes128Wrap}},
		{"ecdsa-p384", 0, []cms.OID{aes256Wrap}},
		{"ecdsa-p256", 0, []cms.OID{aes128GCM, aes128Wrap}},
		{"rsa-2048", x509.KeyUsageKeyEncipherment, []cms.OID{aes256CBC, rsaOAEP}},
		{"rsa-2048", 0, []cms.OID{rsaOAEP}},
	}
	for _, path := range []string{"serverkeygen", "sealed/serverkeygen"} {
		for i, tt := range tests {
			t.Run(fmt.Sprint(path, " ", i, " ", tt.kind), func(t *testing.T) {
				e := newKeygenEnv(t)
				to := e.newReceiver(t, tt.kind, tt.usage)
				csr := csrWith(t, newKey(t), "lamp-1", capabilities(tt.caps...), octets(attrPublicID, to.keyID))
				r := e.do(t, call{path: path, body: base64Body(csr), as: &identity{to.identity, to.key}})
				sealed, cert := r.generated(t, sealedKey)
				if key := e.opened(t, decryptWithOpenSSL(t, to.dir, sealed, "-recip", "cert.pem", "-inkey", "key.pem")); !samePublic(key, cert) {
					t.Error("the key is not the certificate's")
				}
			})
		}
	}
	t.Run("secret", func(t *testing.T) {
		e := newKeygenEnv(t)
		csr := csrWith(t, newKey(t), "lamp-1", capabilities(aes256CBC, aes256Wrap), octets(attrSecretID, []byte("lamp-ref")))
		r := e.do(t, call{path: "sealed/serverkeygen", body: base64Body(csr), user: "lamp-ref", pass: lampSecret})
		sealed, cert := r.generated(t, sealedKey)
		key := e.opened(t, decryptWithOpenSSL(t, t.TempDir(), sealed,
			"-secretkey", hex.EncodeToString(est.KEK(device.Secret(lampSecret))), "-secretkeyid", hex.EncodeToString([]byte("lamp-ref"))))
		if !samePublic(key, cert) {
			t.Error("the key is not the certificate's")
		}
	})
	t.Run("and used", func(t *testing.T) {
		e := newKeygenEnv(t)
		pkcs8, cert := e.do(t, call{path: "serverkeygen", body: base64Body(newCSR(t, newKey(t), "lamp-1")), user: "lamp-ref", pass: lampSecret}).generated(t, clearKey)
		key, err := x509.ParsePKCS8PrivateKey(pkcs8)
		if err != nil {
			t.Fatal(err)
		}
		serial, _ := ca.SerialFromBig(cert.SerialNumber)
		own := identity{e.issued[serial], key.(*ecdsa.PrivateKey)}
		e.do(t, call{path: "simplereenroll", body: base64Body(newCSR(t, own.key, "lamp-1")), as: &own}).certs(t)
	})
}

func TestServerKeygenRefusals(t *testing.T) {
	e := newKeygenEnv(t)
	good := e.newReceiver(t, "ecdsa-p256", x509.KeyUsageKeyAgreement)
	signOnly := e.newReceiver(t, "ecdsa-p256", x509.KeyUsageDigitalSignature)
	rsaSign := e.newReceiver(t, "rsa-2048", x509.KeyUsageDigitalSignature)
	p521 := e.newReceiver(t, "ecdsa-p521", 0)
	ed := e.newReceiver(t, "ed25519", 0)
	caps := capabilities(aes256CBC, aes256Wrap, rsaOAEP)
	key := newKey(t)
	plain := newCSR(t, key, "lamp-1")
	with := func(attributes ...attribute) []byte { return csrWith(t, key, "lamp-1", attributes...) }
	tests := []struct {
		name, path string
		csr        []byte
		as         *receiver // "" for the credential
		status     int
		says       string
	}{
		{"profile without it", "never/serverkeygen", plain, nil, 403, "does not allow"},
		{"clear where it must be sealed", "sealed/serverkeygen", plain, nil, 403, "encrypted only"},
		{"capabilities alone name no key", "sealed/serverkeygen", with(caps), &good, 403, "encrypted only"},
		{"no kind of key that is made", "odd/serverkeygen", plain, nil, 403, "no kind of key"},
		{"unknown label", "nosuch/serverkeygen", plain, nil, 404, ""},
		{"another device's name", "serverkeygen", newCSR(t, key, "lamp-2"), nil, 403, "(rule names)"},
		{"no request", "serverkeygen", []byte("\x30\x03\x02\x01\x00"), nil, 400, "not one DER-encoded"},
		{"trailing octet", "serverkeygen", append(bytes.Clone(plain), 0), nil, 400, "not one DER-encoded"},
		{"attribute twice", "serverkeygen", with(caps, caps), &good, 400, "twice"},
		{"both keys", "serverkeygen", with(caps, octets(attrSecretID, []byte("x")), octets(attrPublicID, good.keyID)), &good, 400, "both"},
		{"no capabilities", "serverkeygen", with(octets(attrPublicID, good.keyID)), &good, 400, "SMIMECapabilities"},
		{"unreadable capabilities", "serverkeygen", with(attribute{attrCaps, []byte{5, 0}}, octets(attrPublicID, good.keyID)), &good, 400, "SMIMECapabilities"},
		{"foreign capabilities", "serverkeygen", with(capabilities(cms.OID{1, 2, 3}), octets(attrPublicID, good.keyID)), &good, 400, "SMIMECapabilities"},
		{"identifier is no OCTET STRING", "serverkeygen", with(caps, attribute{attrPublicID, []byte{5, 0}}), &good, 400, "OCTET STRING"},
		{"empty identifier", "serverkeygen", with(caps, octets(attrPublicID, nil)), &good, 400, "OCTET STRING"},
		{"long identifier", "serverkeygen", with(caps, octets(attrPublicID, make([]byte, 256))), &good, 400, "OCTET STRING"},
		{"foreign key", "serverkeygen", with(caps, octets(attrPublicID, signOnly.keyID)), &good, 403, "subject key identifier"},
		{"public key without certificate", "serverkeygen", with(caps, octets(attrPublicID, good.keyID)), nil, 403, "with none of ours"},
		{"key that only signs", "serverkeygen", with(caps, octets(attrPublicID, signOnly.keyID)), &signOnly, 400, "keyAgreement"},
		{"RSA key that only signs", "serverkeygen", with(caps, octets(attrPublicID, rsaSign.keyID)), &rsaSign, 400, "keyEncipherment"},
		{"Ed25519 cannot be encrypted to", "serverkeygen", with(caps, octets(attrPublicID, ed.keyID)), &ed, 400, "keyAgreement"},
		{"P-521 is not encrypted to", "serverkeygen", with(caps, octets(attrPublicID, p521.keyID)), &p521, 400, "P-384"},
		{"another credential's secret", "serverkeygen", with(caps, octets(attrSecretID, []byte("group-ref"))), nil, 403, "reference of the credential"},
		{"secret, by certificate", "serverkeygen", with(caps, octets(attrSecretID, []byte("lamp-ref"))), &good, 403, "reference of the credential"},
		{"secret with a short wrap", "serverkeygen", with(capabilities(aes128CBC, aes128Wrap), octets(attrSecretID, []byte("lamp-ref"))), nil, 400, "AES-256"},
		{"bound to nothing", "bound/serverkeygen", plain, nil, 403, "linking of identity"},
		{"wrong binding", "serverkeygen", with(challengePassword("AAAA")), nil, 400, "channel binding"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			issued := len(e.issued)
			c := call{path: tt.path, body: base64Body(tt.csr), user: "lamp-ref", pass: lampSecret}
			if tt.as != nil {
				c.user, c.pass, c.as = "", "", &identity{tt.as.identity, tt.as.key}
			}
			e.do(t, c).wantRefusal(t, tt.status, tt.says)
			if len(e.issued) != issued {
				t.Error("a certificate was issued")
			}
		})
	}
	t.Run("nobody", func(t *testing.T) {
		e.do(t, call{path: "serverkeygen", body: base64Body(plain)}).wantRefusal(t, 401, "")
	})
	t.Run("media type", func(t *testing.T) {
		e.do(t, call{path: "serverkeygen", body: base64Body(plain), contentType: "text/plain", user: "lamp-ref", pass: lampSecret}).wantRefusal(t, 415, "pkcs10")
	})
	t.Run("sealed without responder", func(t *testing.T) {
		e := newKeygenEnv(t, func(o *est.Options) { o.Responder = nil })
		to := e.newReceiver(t, "ecdsa-p256", 0)
		csr := csrWith(t, key, "lamp-1", caps, octets(attrPublicID, to.keyID))
		e.do(t, call{path: "serverkeygen", body: base64Body(csr), as: &identity{to.identity, to.key}}).wantRefusal(t, 501, "")
	})
	t.Run("responder away", func(t *testing.T) {
		e := newKeygenEnv(t, func(o *est.Options) {
			o.Responder = func(context.Context) (est.Responder, error) {
				return est.Responder{}, ca.Away("the token", io.ErrUnexpectedEOF)
			}
		})
		to := e.newReceiver(t, "ecdsa-p256", 0)
		csr := csrWith(t, key, "lamp-1", caps, octets(attrPublicID, to.keyID))
		e.do(t, call{path: "serverkeygen", body: base64Body(csr), as: &identity{to.identity, to.key}}).wantRefusal(t, 503, "the token")
	})
	if slices.Contains(e.observed, "serverkeygen internal") {
		t.Error("a refusal counted as a fault of ours")
	}
}
