//go:build interop && step

package interop

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-tpm/tpm2"

	"github.com/deviceca/deviceca/internal/attesttest"
)

// newStepAuthority is a CA to step's taste: step has no external account binding and sends no
// quote, so accounts without the one may ask, and level tpm does without the other.
func newStepAuthority(t *testing.T) *acmeAuthority {
	t.Helper()
	t.Setenv("STEPPATH", t.TempDir())
	t.Setenv("DEVICECA_ACME_EXTERNAL_ACCOUNT_REQUIRED", "false")
	a := newACMEAuthority(t)
	file := filepath.Join(a.home, "policy.yaml")
	rules := read(t, file)
	for old, by := range map[string]string{
		"requesters: [credential,":                "requesters: [account, credential,",
		` && evidence.quote_age < duration("5m")`: "",
	} {
		mustContain(t, "the default policy", rules, old)
		rules = strings.ReplaceAll(rules, old, by)
	}
	a.deviceca("policy", "apply", write(t, file, rules), "--home", a.home)
	return a
}

// step runs step, which knows the CA by its root.
func (a *acmeAuthority) step(args ...string) (string, error) {
	args = append(args, "--acme", a.directory(), "--root", a.root(), "--force")
	out, errs, err := try("", "step", args...)
	return out + errs, err
}

func (a *acmeAuthority) mustStep(args ...string) {
	a.t.Helper()
	if out, err := a.step(args...); err != nil {
		a.t.Fatalf("step %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// step with http-01, the one challenge of the network that it has. It makes an account for each
// run and keeps none, so renewal is another run. Its renew, rekey and revoke are not for ACME: they
// speak the protocol of step's own CA.
func TestStepHTTP01(t *testing.T) {
	a, dir := newStepAuthority(t), t.TempDir()
	id := "step.gw.example"
	a.addDevice(id)
	at := func(name string) string { return filepath.Join(dir, name) }
	how := []string{"--standalone", "--http-listen", a.http01}
	enrol := slices.Concat([]string{"ca", "certificate", id, at("crt"), at("key"), "--san", id, "--san", id + ".lan", "--not-after", "2h"}, how)
	a.mustStep(enrol...)
	a.verify(at("crt"), "CN = "+id, "DNS:"+id+", DNS:"+id+".lan", "TLS Web Server Authentication")
	if out, _, err := try(dir, "openssl", "x509", "-in", at("crt"), "-noout", "-checkend", "7300"); err == nil || !strings.Contains(out, "will expire") {
		t.Errorf("step asked for 2h, and got more: %s", out)
	}
	first := read(t, at("crt"))
	a.mustStep(enrol...)
	a.verify(at("crt"), "CN = "+id)
	if read(t, at("crt")) == first {
		t.Error("renewal left the certificate as it was")
	}
	// With the key that there is.
	run(t, dir, "openssl", "req", "-new", "-key", at("key"), "-subj", "/CN="+id, "-addext", "subjectAltName=DNS:"+id, "-out", at("csr"))
	a.mustStep(slices.Concat([]string{"ca", "sign", at("csr"), at("again.crt")}, how)...)
	a.verify(at("again.crt"), "CN = "+id, "DNS:"+id)
	a.expect(id, 3, 0)
	if out, err := a.step(slices.Concat([]string{"ca", "certificate", "other.gw.example", at("other.crt"), at("other.key")}, how)...); err == nil || !strings.Contains(out, "may not have these names") {
		t.Errorf("a name of nobody's: %v\n%s", err, out)
	}
}

// step with device-attest-01: it makes attestation key and key in the TPM, and has the first
// certified by an attestation CA that speaks smallstep's protocol.
func TestStepTPM(t *testing.T) {
	a, dir := newStepAuthority(t), t.TempDir()
	hardware, err := attesttest.Start()
	if err != nil {
		t.Fatal(err)
	}
	defer hardware.Close()
	certifier := newStepCertifier(t, hardware, "sensor-17")
	front := httptest.NewTLSServer(certifier)
	defer front.Close()
	at := func(name string) string { return filepath.Join(dir, name) }
	for path, cert := range map[string]*x509.Certificate{at("front.pem"): front.Certificate(), at("authority.pem"): certifier.authority.Root} {
		if err := attesttest.WritePEM(path, []*x509.Certificate{cert}); err != nil {
			t.Fatal(err)
		}
	}
	enrol := func(id, key string, more ...string) []string {
		return append([]string{"ca", "certificate", id, at(key + ".crt"), "--attestation-uri", "tpmkms:name=" + key + ";device=" + hardware.Socket,
			"--attestation-ca-url", front.URL, "--attestation-ca-root", at("front.pem"), "--tpm-storage-directory", at("tpm")}, more...)
	}
	rsa2048 := []string{"--kty", "RSA", "--size", "2048"}
	for _, id := range []string{"sensor-17", "sensor-18"} {
		a.deviceca("device", "add", "--home", a.home, "--id", id, "--level", "tpm")
	}
	a.deviceca("manufacturer", "add", "acme", "--home", a.home, "--format", "tpm", "--level", "tpm", "--anchor", at("authority.pem"))
	a.mustStep(enrol("sensor-17", "one", rsa2048...)...)
	a.verify(at("one.crt"), "CN = sensor-17")
	// Renewal is with another key: the attestation of a key is bound to one challenge, and step makes none for a key that it has.
	a.mustStep(enrol("sensor-17", "two", rsa2048...)...)
	a.verify(at("two.crt"), "CN = sensor-17")
	a.expect("sensor-17", 2, 0)
	for _, c := range a.ledger("sensor-17") {
		if c.Profile != "device" { // set apart, it would be another
			t.Errorf("the attested key got a certificate of profile %s", c.Profile)
		}
	}
	for _, tt := range []struct {
		id, key, says string
		more          []string
	}{
		// Of an ECDSA key, step says that the attestation key's signature is ECDSA too; that key is RSA.
		{"sensor-17", "three", "ES256", nil},
		{"sensor-18", "four", "another device", rsa2048},
	} {
		if out, err := a.step(enrol(tt.id, tt.key, tt.more...)...); err == nil || !strings.Contains(out, tt.says) {
			t.Errorf("%s, %s: %v\n%s", tt.id, tt.key, err, out)
		}
	}
	a.expect("sensor-17", 2, 0)
	a.expect("sensor-18", 0, 0)
	certifier.Lock()
	defer certifier.Unlock()
	if certifier.certified != 1 {
		t.Errorf("the attestation key was certified %d times", certifier.certified)
	}
}

// stepCertifier is an attestation CA as step expects one: POST /attest with endorsement key and
// attestation key is answered with a credential to activate, POST /secret with the certificate chain
// of the attestation key. It knows the endorsement key of one TPM, whose device has a name.
type stepCertifier struct {
	authority *attesttest.Authority
	device    string
	ek        tpm2.TPMTPublic
	ekKey     *rsa.PublicKey

	sync.Mutex
	ak        crypto.PublicKey // that was last asked for
	secret    []byte           // that proves it
	certified int
}

func newStepCertifier(t *testing.T, hardware *attesttest.TPM, device string) *stepCertifier {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	c := &stepCertifier{device: device}
	var err error
	c.authority, err = attesttest.NewAuthority("Acme")
	must(err)
	// step knows RSA endorsement keys alone, and makes the one of the TCG's template where the TPM has no certificate for it.
	made, err := tpm2.CreatePrimary{PrimaryHandle: tpm2.TPMRHEndorsement, InPublic: tpm2.New2B(tpm2.RSAEKTemplate)}.Execute(hardware)
	must(err)
	_, err = tpm2.FlushContext{FlushHandle: made.ObjectHandle}.Execute(hardware)
	must(err)
	area, err := made.OutPublic.Contents()
	must(err)
	key, err := tpm2.Pub(*area)
	must(err)
	c.ek, c.ekKey = *area, key.(*rsa.PublicKey)
	return c
}

func (c *stepCertifier) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c.Lock()
	defer c.Unlock()
	var asked struct {
		EK     []byte `json:"ek"`
		Params struct {
			Public []byte `json:"public"`
		} `json:"params"`
		Secret []byte `json:"secret"`
	}
	var answer any
	err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<16)).Decode(&asked)
	switch {
	case err != nil:
	case r.Method == http.MethodPost && r.URL.Path == "/attest":
		answer, err = c.challenge(asked.EK, asked.Params.Public)
	case r.Method == http.MethodPost && r.URL.Path == "/secret":
		answer, err = c.certify(asked.Secret)
	default:
		err = errors.New("not asked for by step")
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	json.NewEncoder(w).Encode(answer)
}

// challenge makes a credential that only the TPM with the endorsement key can activate, and only if it has the attestation key.
func (c *stepCertifier) challenge(ek, public []byte) (any, error) {
	key, err := x509.ParsePKIXPublicKey(ek)
	if err != nil {
		return nil, err
	}
	if !c.ekKey.Equal(key) {
		return nil, errors.New("an unknown endorsement key")
	}
	ak, err := tpm2.Unmarshal[tpm2.TPMTPublic](public)
	if err != nil {
		return nil, err
	}
	if ak.ObjectAttributes != attesttest.AKAttributes {
		return nil, errors.New("not an attestation key")
	}
	name, err := tpm2.ObjectName(ak)
	if err != nil {
		return nil, err
	}
	if c.ak, err = tpm2.Pub(*ak); err != nil {
		return nil, err
	}
	to, err := tpm2.ImportEncapsulationKey(&c.ek)
	if err != nil {
		return nil, err
	}
	c.secret = make([]byte, 32)
	rand.Read(c.secret)
	blob, encrypted, err := tpm2.CreateCredential(rand.Reader, to, name.Buffer, c.secret)
	return map[string][]byte{"credential": attesttest.Sized(blob), "secret": attesttest.Sized(encrypted)}, err
}

// certify issues the certificate. step wants to find its endorsement key in it, as a URI.
func (c *stepCertifier) certify(secret []byte) (any, error) {
	if c.secret == nil || !bytes.Equal(secret, c.secret) {
		return nil, errors.New("another secret")
	}
	c.secret = nil
	spki, err := x509.MarshalPKIXPublicKey(c.ekKey)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(spki)
	const uniformResourceIdentifier = 6 // of GeneralName
	uri, err := asn1.Marshal(asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: uniformResourceIdentifier, Bytes: []byte("urn:ek:sha256:" + base64.StdEncoding.EncodeToString(sum[:]))})
	if err != nil {
		return nil, err
	}
	chain, err := c.authority.Issue(c.ak, c.device, func(t *x509.Certificate) {
		t.ExtraExtensions = []pkix.Extension{attesttest.SANOf(true, attesttest.PermanentIdentifier(c.device, nil), uri)}
	})
	if err != nil {
		return nil, err
	}
	c.certified++
	return map[string][][]byte{"chain": {chain[0].Raw, chain[1].Raw}}, nil
}
