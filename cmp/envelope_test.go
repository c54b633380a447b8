package cmp

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	encasn1 "encoding/asn1"
	"encoding/pem"
	"errors"
	"math/big"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/deviceca/deviceca/internal/cms"
)

// holder certifies a key for encryption.
func holder(t testing.TB, key crypto.Signer, usage x509.KeyUsage, change func(*x509.Certificate)) party {
	t.Helper()
	h := hierarchy()
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(4711), Subject: pkix.Name{CommonName: "device"}, SubjectKeyId: []byte("device key"),
		NotBefore: noon.AddDate(-1, 0, 0), NotAfter: noon.AddDate(30, 0, 0), KeyUsage: usage}
	if change != nil {
		change(tmpl)
	}
	raw := must[[]byte](t)(x509.CreateCertificate(rand.Reader, tmpl, h.issuing.cert, key.Public(), h.issuing.key))
	return party{key, must[*x509.Certificate](t)(x509.ParseCertificate(raw))}
}

// authority is a KGA below the issuing CA.
func authority(t testing.TB) *KGA {
	h := hierarchy()
	p := holder(t, newEC(elliptic.P256()), x509.KeyUsageDigitalSignature, func(c *x509.Certificate) {
		c.Subject.CommonName, c.UnknownExtKeyUsage = "KGA", []encasn1.ObjectIdentifier{oidKGA}
	})
	return must[*KGA](t)(NewKGA(p.key, p.cert, h.issuing.cert, h.root.cert))
}

// RFC 9483 §4.1.6.1 to §4.1.6.3: a key made for each kind of holder is opened by
// that holder alone, and by openssl where it reads what RFC 9481 demands.
func TestSealKey(t *testing.T) {
	kga := authority(t)
	roots := x509.NewCertPool()
	roots.AddCert(hierarchy().root.cert)
	trust := TrustKGA(roots, at(noon))
	secret := []byte("a secret of 128 bits of entropy or more")
	for name, c := range map[string]struct {
		key   crypto.Signer // of the recipient; nil for the secret
		usage x509.KeyUsage
		id    []byte
		tag   byte // of the RecipientInfo
	}{
		"§4.1.6.1 ktri":            {hierarchy().rsa.key, x509.KeyUsageKeyEncipherment, []byte("device key"), 0x30},
		"§4.1.6.1 ktri, no key ID": {hierarchy().rsa.key, 0, nil, 0x30},
		"§4.1.6.2 kari":            {newEC(elliptic.P256()), x509.KeyUsageKeyAgreement | x509.KeyUsageDigitalSignature, []byte("device key"), 0xa1},
		"§4.1.6.2 kari, P-384":     {newEC(elliptic.P384()), x509.KeyUsageKeyAgreement, []byte("device key"), 0xa1},
		"§4.1.6.2 kari, no key ID": {newEC(elliptic.P256()), 0, nil, 0xa1},
		"§4.1.6.3 pwri":            {nil, 0, nil, 0xa3},
	} {
		t.Run(name, func(t *testing.T) {
			to, with := ToSecret(secret), WithSecret(secret)
			other := WithSecret([]byte("another secret"))
			var p party
			if c.key != nil {
				p = holder(t, c.key, c.usage, func(cert *x509.Certificate) { cert.SubjectKeyId = c.id })
				to, with = must[Recipient](t)(ToCertificate(p.cert)), must[Opener](t)(WithKey(p.key))
				other = must[Opener](t)(WithKey(newEC(elliptic.P256())))
				if c.tag == 0x30 {
					other = must[Opener](t)(WithKey(must[*rsa.PrivateKey](t)(rsa.GenerateKey(rand.Reader, 2048))))
				}
			}
			for kind, made := range map[string]crypto.Signer{"ec": newEC(elliptic.P256()), "rsa": hierarchy().rsa.key, "ed": hierarchy().ed.key} {
				sealed := must[*EncryptedKey](t)(kga.SealKey(made, to, noon))
				if bytes.Contains(sealed.EnvelopedData, must[[]byte](t)(x509.MarshalPKIXPublicKey(made.Public()))) {
					t.Error("not encrypted")
				}
				got, err := sealed.OpenKey(with, trust)
				if err != nil || !got.Public().(interface{ Equal(crypto.PublicKey) bool }).Equal(made.Public()) {
					t.Fatalf("%s: %v", kind, err)
				}
				_, err = sealed.OpenKey(other, trust)
				checkInfo(t, err, BadDataFormat)
				if _, err := sealed.OpenKey(with, nil); (err == nil) != (c.key == nil) {
					t.Errorf("without looking at who made it: %v", err)
				}
				_, err = sealed.OpenKey(with, TrustKGA(x509.NewCertPool(), at(noon)))
				checkInfo(t, err, SignerNotTrusted)
			}
			sealed := must[*EncryptedKey](t)(kga.SealKey(newEC(elliptic.P256()), to, noon))
			checkEnvelope(t, sealed.EnvelopedData, c.tag, c.id)
			if c.key != nil {
				opensslOpens(t, sealed.EnvelopedData, p)
			}
		})
	}
}

// checkEnvelope looks at what RFC 9483 §4.1.6 prescribes: versions, one recipient, its name. With pwri it has the version
// of EnvelopedData 0, where RFC 5652 §6.1, which it refers to for the structure, demands 3; that counts.
func checkEnvelope(t *testing.T, raw []byte, tag byte, keyID []byte) {
	t.Helper()
	want := map[byte]struct{ outer, inner int }{0x30: {2, 2}, 0xa1: {2, 3}, 0xa3: {3, 0}}[tag]
	if keyID == nil && tag == 0x30 {
		want.outer, want.inner = 0, 0 // RFC 5652 §6.1, §6.2.1: named by issuer and serial number
	}
	var e struct {
		Version    int
		Recipients []encasn1.RawValue `asn1:"set"`
		Content    encasn1.RawValue
	}
	if rest, err := encasn1.Unmarshal(raw, &e); err != nil || len(rest) > 0 || len(e.Recipients) != 1 {
		t.Fatalf("%d recipients, %v", len(e.Recipients), err)
	}
	var inner int
	if _, err := encasn1.Unmarshal(e.Recipients[0].Bytes, &inner); err != nil || e.Recipients[0].FullBytes[0] != tag || e.Version != want.outer || inner != want.inner {
		t.Errorf("version %d with recipient %#x of version %d, want %d %#x %d, %v", e.Version, e.Recipients[0].FullBytes[0], inner, want.outer, tag, want.inner, err)
	}
	if tag == 0xa1 { // RFC 5753 §3.1.1: originatorKey, the ephemeral key, and not a certificate's name as RFC 9483 §4.1.6.2 has it
		if r := e.Recipients[0].Bytes; r[3] != 0xa0 || r[5] != 0xa1 {
			t.Errorf("the originator is % x", r[3:7])
		}
	}
	if keyID != nil && !bytes.Contains(e.Recipients[0].Bytes, keyID) {
		t.Error("the recipient is not named by its key identifier")
	}
}

// opensslOpens decrypts and verifies as a client without any code of ours would.
func opensslOpens(t *testing.T, enveloped []byte, p party) {
	t.Helper()
	dir := t.TempDir()
	file := func(name, kind string, der []byte) {
		write(t, filepath.Join(dir, name), pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
	}
	file("key.pem", "PRIVATE KEY", must[[]byte](t)(x509.MarshalPKCS8PrivateKey(p.key)))
	file("cert.pem", "CERTIFICATE", p.cert.Raw)
	file("root.pem", "CERTIFICATE", hierarchy().root.cert.Raw)
	write(t, filepath.Join(dir, "enveloped.der"), cms.Content{Type: cms.TypeEnveloped, Bytes: enveloped}.Info())
	run := func(args ...string) []byte {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), "openssl", args...)
		cmd.Dir = dir
		out, err := cmd.Output()
		if exit, ok := errors.AsType[*exec.ExitError](err); ok {
			t.Fatalf("openssl %v: %s", args, exit.Stderr)
		} else if err != nil {
			t.Fatal(err)
		}
		return out
	}
	signed := run("cms", "-decrypt", "-inform", "DER", "-in", "enveloped.der", "-recip", "cert.pem", "-inkey", "key.pem", "-binary")
	write(t, filepath.Join(dir, "signed.der"), cms.Content{Type: cms.TypeSigned, Bytes: signed}.Info())
	pkg := run("cms", "-verify", "-inform", "DER", "-in", "signed.der", "-CAfile", "root.pem", "-purpose", "any", "-binary")
	var keys []encasn1.RawValue
	if rest, err := encasn1.Unmarshal(pkg, &keys); err != nil || len(rest) > 0 || len(keys) != 1 {
		t.Fatalf("no package of one key: %v", err)
	}
	var one struct {
		Version   int
		Algorithm pkix.AlgorithmIdentifier
		Key       []byte
		Public    encasn1.BitString `asn1:"tag:1"`
	}
	if _, err := encasn1.Unmarshal(keys[0].FullBytes, &one); err != nil || one.Version != 1 || one.Public.BitLength == 0 {
		t.Errorf("not a OneAsymmetricKey of version 2 with its public key: %+v %v", one, err)
	}
}

// The certificate of the KGA comes first (RFC 9483 §4.1.6), whatever its octets.
func TestKGACertificateFirst(t *testing.T) {
	secret := []byte("a secret of 128 bits of entropy or more")
	kga := authority(t)
	for range 8 {
		sealed := must[*EncryptedKey](t)(kga.SealKey(newEC(elliptic.P256()), ToSecret(secret), noon))
		content := must[cms.Content](t)(cms.Open(cms.Content{Type: cms.TypeEnveloped, Bytes: sealed.EnvelopedData}, cms.FromPassword(secret)))
		signed := must[*cms.Signed](t)(cms.ParseSigned(content))
		if len(signed.Certs) != 2 || !bytes.Equal(signed.Certs[0], kga.signer.Certs[0]) {
			t.Fatalf("%d certificates, the KGA's not first or the root among them", len(signed.Certs))
		}
		kga = authority(t)
	}
}

func TestKGARefuses(t *testing.T) {
	h := hierarchy()
	for name, make := range map[string]func() (*KGA, error){
		"without id-kp-cmKGA": func() (*KGA, error) { return NewKGA(h.ec.key, h.ec.cert) },
		"another key":         func() (*KGA, error) { return NewKGA(h.p384.key, h.ec.cert) },
	} {
		if _, err := make(); err == nil {
			t.Error(name)
		}
	}
	// One that signs all the same is not trusted.
	secret := []byte("a secret of 128 bits of entropy or more")
	rogue := &KGA{cms.Signer{Key: h.ec.key, ID: cms.ID{KeyID: h.ec.cert.SubjectKeyId}, Certs: [][]byte{h.ec.cert.Raw, h.issuing.cert.Raw}}}
	sealed := must[*EncryptedKey](t)(rogue.SealKey(newEC(elliptic.P256()), ToSecret(secret), noon))
	roots := x509.NewCertPool()
	roots.AddCert(h.root.cert)
	_, err := sealed.OpenKey(WithSecret(secret), TrustKGA(roots, at(noon)))
	checkInfo(t, err, SignerNotTrusted)
	// Nor is what somebody else has signed in its name.
	forged := &KGA{cms.Signer{Key: h.p384.key, ID: cms.ID{KeyID: h.ec.cert.SubjectKeyId}, Certs: [][]byte{h.ec.cert.Raw}}}
	sealed = must[*EncryptedKey](t)(forged.SealKey(newEC(elliptic.P256()), ToSecret(secret), noon))
	_, err = sealed.OpenKey(WithSecret(secret), nil)
	checkInfo(t, err, BadMessageCheck)
}

// Whom nothing is encrypted to.
func TestRecipientRefuses(t *testing.T) {
	h := hierarchy()
	for name, c := range map[string]struct {
		cert *x509.Certificate
		want FailInfo
	}{
		"EC without keyAgreement":     {h.ec.cert, NotAuthorized},
		"RSA without keyEncipherment": {h.rsa.cert, NotAuthorized},
		"RSA with keyAgreement":       {holder(t, h.rsa.key, x509.KeyUsageKeyAgreement, nil).cert, NotAuthorized},
		"Ed25519":                     {h.ed.cert, BadAlg},
		"P-521":                       {holder(t, newEC(elliptic.P521()), x509.KeyUsageKeyAgreement, nil).cert, BadAlg},
		"RSA of 1,024 bits":           {&x509.Certificate{PublicKey: &rsa.PublicKey{N: new(big.Int).Lsh(big.NewInt(1), 1023), E: 65537}, KeyUsage: x509.KeyUsageKeyEncipherment}, BadAlg},
	} {
		_, err := ToCertificate(c.cert)
		if err == nil {
			t.Errorf("%s: encrypted to", name)
			continue
		}
		checkInfo(t, err, c.want)
	}
	if _, err := authority(t).SealKey(newEC(elliptic.P256()), Recipient{}, noon); err == nil {
		t.Error("encrypted to nobody")
	}
	for name, key := range map[string]crypto.PrivateKey{"Ed25519": h.ed.key, "a secret": []byte("x"), "nothing": nil} {
		if _, err := WithKey(key); err == nil {
			t.Errorf("opens with %s", name)
		}
	}
	if _, err := (&EncryptedKey{}).OpenCertificate(Opener{}); err == nil {
		t.Error("opened with nothing")
	}
}

// RFC 9810 §5.2.8.3.2, §8.2: only a certificate for the key that opens it comes out.
func TestSealCertificate(t *testing.T) {
	for name, p := range map[string]party{
		"RSA":   holder(t, hierarchy().rsa.key, x509.KeyUsageKeyEncipherment, nil),
		"P-256": holder(t, newEC(elliptic.P256()), x509.KeyUsageKeyAgreement, nil),
		"P-384": holder(t, newEC(elliptic.P384()), x509.KeyUsageKeyAgreement, nil),
	} {
		t.Run(name, func(t *testing.T) {
			sealed := must[*EncryptedKey](t)(SealCertificate(p.cert.Raw))
			with := must[Opener](t)(WithKey(p.key))
			if cert, err := sealed.OpenCertificate(with); err != nil || !cert.Equal(p.cert) {
				t.Fatal(err)
			}
			if key, ok := p.key.(*ecdsa.PrivateKey); ok {
				agreement := must[Opener](t)(WithKey(must[crypto.PrivateKey](t)(key.ECDH())))
				if cert, err := sealed.OpenCertificate(agreement); err != nil || !cert.Equal(p.cert) {
					t.Error(err)
				}
			}
			to := must[Recipient](t)(ToCertificate(p.cert))
			for what, content := range map[string]cms.Content{
				"no certificate":                  {Type: cms.TypeData, Bytes: []byte("attack at dawn")},
				"another content type":            {Type: cms.TypeSigned, Bytes: p.cert.Raw},
				"the certificate of another key":  {Type: cms.TypeData, Bytes: hierarchy().ec.cert.Raw},
				"a certificate and an octet more": {Type: cms.TypeData, Bytes: append(bytes.Clone(p.cert.Raw), 0)},
			} {
				k := &EncryptedKey{EnvelopedData: must[[]byte](t)(to.seal(content))}
				_, err := k.OpenCertificate(with)
				if err == nil {
					t.Errorf("%s came out", what)
					continue
				}
				checkInfo(t, err, BadDataFormat)
			}
			for i := range sealed.EnvelopedData {
				flipped := bytes.Clone(sealed.EnvelopedData)
				flipped[i] ^= 1 << (i % 8)
				cert, err := (&EncryptedKey{EnvelopedData: flipped}).OpenCertificate(with)
				if err == nil && !cert.PublicKey.(interface{ Equal(crypto.PublicKey) bool }).Equal(p.key.Public()) {
					t.Fatalf("octet %d flipped: another key's certificate", i)
				}
			}
		})
	}
	if _, err := SealCertificate(hierarchy().ec.cert.Raw); err == nil {
		t.Error("encrypted to a key that may only sign")
	}
}

// RFC 9810 §5.2.8.3.3.
func TestChallenge(t *testing.T) {
	sender := CommonName("CA")
	for name, key := range map[string]crypto.Signer{"RSA": hierarchy().rsa.key, "P-256": newEC(elliptic.P256()), "P-384": newEC(elliptic.P384())} {
		t.Run(name, func(t *testing.T) {
			to := must[Recipient](t)(ToKey(key.Public(), 0))
			c := must[Challenge](t)(NewChallenge(sender, to))
			if !c.OWF.Present() || len(c.Challenge) != 0 || len(c.Witness) != 32 {
				t.Errorf("%+v", c)
			}
			// The key is named by the NULL-DN and the certReqId.
			if !bytes.Contains(c.EncryptedRand, []byte{0x30, 5, 0x30, 0, 2, 1, 0}) {
				t.Errorf("the rid is not NULL-DN and 0: %x", c.EncryptedRand)
			}
			with := must[Opener](t)(WithKey(key))
			number, err := c.Open(with, sender)
			if err != nil || !c.Answered(number) {
				t.Fatal(err)
			}
			for _, wrong := range []*big.Int{new(big.Int).Add(number, big.NewInt(1)), new(big.Int).Neg(number), {}, new(big.Int).Lsh(number, 300)} {
				if c.Answered(wrong) {
					t.Errorf("%x is an answer", wrong)
				}
			}
			_, err = c.Open(with, CommonName("somebody else"))
			checkInfo(t, err, BadDataFormat)
			_, err = c.Open(must[Opener](t)(WithKey(newEC(elliptic.P256()))), sender)
			checkInfo(t, err, BadDataFormat)
			_, err = Challenge{Challenge: []byte("old")}.Open(with, sender)
			checkInfo(t, err, BadDataFormat)
			c.EncryptedRand = must[[]byte](t)(to.seal(cms.Content{Type: cms.TypeData, Bytes: []byte("attack at dawn")}))
			_, err = c.Open(with, sender)
			checkInfo(t, err, BadDataFormat)
		})
	}
	if again := must[Challenge](t)(NewChallenge(sender, must[Recipient](t)(ToKey(hierarchy().rsa.key.Public(), 0)))); again.Answered(big.NewInt(0)) {
		t.Error("the number is 0")
	}
	if _, err := ToKey(hierarchy().ed.key.Public(), 0); err == nil {
		t.Error("an Ed25519 key is challenged")
	}
}

// RFC 4211 §4.2, §4.3: which method goes with which key.
func TestLaterPOP(t *testing.T) {
	h := hierarchy()
	for key, want := range map[crypto.Signer]POPMethod{h.rsa.key: KeyEncipherment, h.ec.key: KeyAgreement} {
		m := &CertReqMsg{Template: CertTemplate{PublicKey: must[[]byte](t)(x509.MarshalPKIXPublicKey(key.Public()))}}
		if err := m.LaterPOP(ChallengeResp); err != nil || m.POP.Method != want || m.POP.Key.Subsequent != ChallengeResp {
			t.Errorf("%T: %+v %v", key, m.POP, err)
		}
		if v := NewRequest(&CertRequests{Of: IR, Requests: []*CertReqMsg{m}}, HeaderOptions{}).Header.Version; v != CMP2021 {
			t.Errorf("pvno %d", v)
		}
	}
	for _, spki := range [][]byte{nil, must[[]byte](t)(x509.MarshalPKIXPublicKey(h.ed.key.Public()))} {
		if err := (&CertReqMsg{Template: CertTemplate{PublicKey: spki}}).LaterPOP(EncrCert); err == nil {
			t.Errorf("%x", spki)
		}
	}
}

// Describe says who can open what, and what is asked for.
func TestDescribeEnvelopes(t *testing.T) {
	kga := authority(t)
	secret := []byte("a secret of 128 bits of entropy or more")
	vault := holder(t, newEC(elliptic.P256()), x509.KeyUsageKeyAgreement, nil)
	rsaTo := must[Recipient](t)(ToKey(hierarchy().rsa.key.Public(), 0))
	for name, c := range map[string]struct {
		body Body
		want []string
	}{
		"a key asked for": {&CertRequests{Of: IR, Requests: []*CertReqMsg{{Template: CertTemplate{Subject: nullDN}}}}, []string{"key: to be made by the CA"}},
		"a key": {&CertResponses{Of: IP, Responses: []CertResponse{{KeyPair: &KeyPair{Certificate: vault.cert.Raw,
			PrivateKey: must[*EncryptedKey](t)(kga.SealKey(newEC(elliptic.P256()), ToSecret(secret), noon))}}}},
			[]string{"privateKey: EnvelopedData", "version: 3", "by password", "AES-256 key wrap", "content: signedData", "AES-256-CBC"}},
		"a certificate": {&CertResponses{Of: IP, Responses: []CertResponse{{KeyPair: &KeyPair{EncryptedCert: must[*EncryptedKey](t)(SealCertificate(vault.cert.Raw))}}}},
			[]string{"encryptedCert: EnvelopedData", "version: 2", "by key agreement", "ECDH with SHA-256", "content: data"}},
		"a challenge": {&Challenges{List: []Challenge{must[Challenge](t)(NewChallenge(CommonName("CA"), rsaTo))}},
			[]string{"owf: SHA-256", "encryptedRand: EnvelopedData", "by key transport", "RSAES-OAEP"}},
		"not EnvelopedData": {&Challenges{List: []Challenge{{EncryptedRand: []byte{0x30, 3, 2, 1, 2}}}}, []string{"encryptedRand: EnvelopedData: 3003020102"}},
	} {
		m := NewRequest(c.body, HeaderOptions{Time: noon})
		var text strings.Builder
		if err := m.Describe(&text); err != nil {
			t.Fatal(err)
		}
		for _, want := range c.want {
			if !strings.Contains(text.String(), want) {
				t.Errorf("%s does not say %q:\n%s", name, want, text.String())
			}
		}
	}
}
