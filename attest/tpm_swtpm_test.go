package attest_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"

	"github.com/deviceca/deviceca/attest"
	"github.com/deviceca/deviceca/client"
	"github.com/deviceca/deviceca/client/tpm"
	"github.com/deviceca/deviceca/internal/attesttest"
	"github.com/deviceca/deviceca/policy"
)

const keyAuthorization = "evaGxfADs6pSRb2LAv9IZf17Dt3juxGJ-PCt92wr-oA.NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"

// A device with a real TPM: each kind of AK, each kind of key, through credential
// activation, certify and quote.
func TestTPMForReal(t *testing.T) {
	hardware := must(attesttest.Shared())(t)
	authority := must(attesttest.NewAuthority("Acme"))(t)
	other := must(attesttest.NewAuthority("Other"))(t)
	for _, c := range []struct {
		name string
		ak   tpm2.TPMTPublic
		key  client.KeyType
	}{
		{"AK ES256, key P-256", attesttest.ECCAK(tpm2.TPMECCNistP256, tpm2.TPMAlgSHA256), client.ECDSAP256},
		{"AK ES384, key P-384", attesttest.ECCAK(tpm2.TPMECCNistP384, tpm2.TPMAlgSHA384), client.ECDSAP384},
		{"AK RS256, key RSA-2048", attesttest.RSAAK(tpm2.TPMAlgRSASSA, tpm2.TPMAlgSHA256), client.RSA2048},
		{"AK PS256, key P-256", attesttest.RSAAK(tpm2.TPMAlgRSAPSS, tpm2.TPMAlgSHA256), client.ECDSAP256},
		{"AK RS512, key P-256", attesttest.RSAAK(tpm2.TPMAlgRSASSA, tpm2.TPMAlgSHA512), client.ECDSAP256},
	} {
		t.Run(c.name, func(t *testing.T) {
			device := must(hardware.Device(authority, "sensor-17", c.ak, t.TempDir(), tpm.Config{Key: c.key}))(t)
			defer device.Close()
			made := must(device.Attest(t.Context(), keyAuthorization))(t)
			object := must(attest.ParseObject(made.Object))(t)
			if object.Format != "tpm" || object.AuthData != nil {
				t.Fatalf("format %q, authData %x", object.Format, object.AuthData)
			}
			s := attest.Statement{Raw: object.Statement, Quote: made.Quote, Challenge: []byte(keyAuthorization), Now: time.Now(),
				Anchors: []attest.Anchor{
					{Manufacturer: "other", Certificates: []*x509.Certificate{other.Root}},
					{Manufacturer: "acme", Certificates: []*x509.Certificate{authority.Root}},
				}}
			result, err := attest.TPM().Verify(s)
			if err != nil {
				t.Fatal(err)
			}
			spki := must(x509.MarshalPKIXPublicKey(device.Signer().Public()))(t)
			if result.Manufacturer != "acme" || string(result.SPKI) != string(spki) || !device.Signer().Public().(interface{ Equal(crypto.PublicKey) bool }).Equal(result.PublicKey) {
				t.Errorf("manufacturer %q, SPKI %x, key %v", result.Manufacturer, result.SPKI, result.PublicKey)
			}
			if want := []attest.Identifier{{Type: "permanent-identifier", Value: "sensor-17"}}; !reflect.DeepEqual(result.Identifiers, want) {
				t.Errorf("identifiers %v", result.Identifiers)
			}
			zeros := sha256.Sum256(make([]byte, 8*32)) // swtpm measured nothing
			want := policy.Evidence{Kind: "tpm", Vector: policy.Vector{"hardware": 2, "instance_identity": 2}, Facts: map[string]any{
				"ek_chain": true, "key_certified": true, "revocation_checked": false, "manufacturer": "acme",
				"tpm_manufacturer": "id:00001014", "tpm_model": "swtpm", "tpm_version": "id:20191023", "quote_age": time.Duration(0),
				"pcr_bank": "sha256", "pcr_digest": hexOf(zeros[:]), "pcrs": []any{int64(0), int64(1), int64(2), int64(3), int64(4), int64(5), int64(6), int64(7)},
			}}
			if !reflect.DeepEqual(result.Evidence, want) {
				t.Errorf("evidence %v\nwant     %v", result.Evidence, want)
			}
			for _, bad := range []struct {
				name string
				edit func(*attest.Statement)
				says string
			}{
				{"another challenge", func(s *attest.Statement) { s.Challenge = []byte("other.challenge"); s.Quote = nil }, "extraData is not the hash"},
				{"quote of another challenge", func(s *attest.Statement) {
					s.Quote = must(device.Attest(t.Context(), "another."+keyAuthorization))(t).Quote
				}, "extraData is not the SHA-256"},
				{"the other manufacturer alone", func(s *attest.Statement) { s.Anchors = s.Anchors[:1] }, "does not lead to an anchor"},
				{"too late", func(s *attest.Statement) { s.Now = s.Now.AddDate(6, 0, 0) }, "expired"},
			} {
				s := s
				bad.edit(&s)
				refused(t, bad.name, s, bad.says)
			}
		})
	}
}

// refused checks that a statement is, for the reason that says has.
func refused(t *testing.T, name string, s attest.Statement, says string) {
	t.Helper()
	result, err := attest.TPM().Verify(s)
	if err == nil || result != nil {
		t.Errorf("%s: accepted: %v", name, result)
		return
	}
	if !errors.Is(err, attest.ErrEvidence) || !strings.Contains(err.Error(), says) {
		t.Errorf("%s: %v\nwhich does not say %q", name, err, says)
	}
}

// Keys that a TPM certifies as readily, and that are no device's: each refused for what it is.
func TestTPMRefusesOtherKeys(t *testing.T) {
	hardware := must(attesttest.Shared())(t)
	authority := must(attesttest.NewAuthority("Acme"))(t)
	ak := must(hardware.MakeAK(attesttest.ECCAK(tpm2.TPMECCNistP256, tpm2.TPMAlgSHA256), 0x81000101))(t)
	chain := must(authority.Certify(hardware, ak, "sensor-17"))(t)
	ecc := func(edit func(*tpm2.TPMTPublic)) tpm2.TPMTPublic {
		p := tpm2.TPMTPublic{Type: tpm2.TPMAlgECC, NameAlg: tpm2.TPMAlgSHA256,
			ObjectAttributes: tpm2.TPMAObject{FixedTPM: true, FixedParent: true, SensitiveDataOrigin: true, UserWithAuth: true, SignEncrypt: true},
			Parameters:       tpm2.NewTPMUPublicParms(tpm2.TPMAlgECC, &tpm2.TPMSECCParms{CurveID: tpm2.TPMECCNistP256})}
		if edit != nil {
			edit(&p)
		}
		return p
	}
	p256 := func(edit func(*tpm2.TPMTPublic)) func(testing.TB) *attesttest.Key {
		return must(hardware.MakeKey(ecc(edit)))
	}
	for _, c := range []struct {
		name string
		key  func(t *testing.T) *attesttest.Key
		says string
	}{
		{"a good one", func(t *testing.T) *attesttest.Key { return p256(nil)(t) }, ""},
		{"restricted", func(t *testing.T) *attesttest.Key {
			return must(hardware.MakeKey(attesttest.ECCAK(tpm2.TPMECCNistP256, tpm2.TPMAlgSHA256)))(t)
		}, "restricted is set"},
		{"decrypts", func(t *testing.T) *attesttest.Key {
			return p256(func(p *tpm2.TPMTPublic) { p.ObjectAttributes.SignEncrypt, p.ObjectAttributes.Decrypt = false, true })(t)
		}, "sign is not set"},
		{"signs and decrypts", func(t *testing.T) *attesttest.Key {
			return p256(func(p *tpm2.TPMTPublic) { p.ObjectAttributes.Decrypt = true })(t)
		}, "decrypt is set"},
		{"a storage key", func(t *testing.T) *attesttest.Key {
			return must(hardware.MakeKey(tpm2.ECCSRKTemplate))(t)
		}, "sign is not set"},
		{"movable", func(t *testing.T) *attesttest.Key {
			return p256(func(p *tpm2.TPMTPublic) { p.ObjectAttributes.FixedTPM, p.ObjectAttributes.FixedParent = false, false })(t)
		}, "fixedTPM is not set"},
		{"made elsewhere", func(t *testing.T) *attesttest.Key { return external(t, hardware) }, "fixedTPM is not set"},
		{"scheme with SHA-1", func(t *testing.T) *attesttest.Key {
			return p256(func(p *tpm2.TPMTPublic) {
				p.Parameters = tpm2.NewTPMUPublicParms(tpm2.TPMAlgECC, &tpm2.TPMSECCParms{CurveID: tpm2.TPMECCNistP256,
					Scheme: tpm2.TPMTECCScheme{Scheme: tpm2.TPMAlgECDSA, Details: tpm2.NewTPMUAsymScheme(tpm2.TPMAlgECDSA, &tpm2.TPMSSigSchemeECDSA{HashAlg: tpm2.TPMAlgSHA1})}})
			})(t)
		}, "scheme's hash"},
		{"name by SHA-1", func(t *testing.T) *attesttest.Key {
			return p256(func(p *tpm2.TPMTPublic) { p.NameAlg = tpm2.TPMAlgSHA1 })(t)
		}, "nameAlg 0x0004"},
	} {
		t.Run(c.name, func(t *testing.T) {
			key := c.key(t)
			defer key.Flush()
			challenge := sha256.Sum256([]byte(keyAuthorization))
			st := must(hardware.Certify(ak, chain, -7, key, challenge[:]))(t)
			s := attest.Statement{Raw: st.Encode(), Challenge: []byte(keyAuthorization), Now: time.Now(),
				Anchors: []attest.Anchor{{Manufacturer: "acme", Certificates: []*x509.Certificate{authority.Root}}}}
			if c.says == "" {
				must(attest.TPM().Verify(s))(t)
				return
			}
			refused(t, c.name, s, c.says)
		})
	}
}

// external loads a key of our own making: a TPM certifies it, and says of it that it is not fixed to it.
func external(t *testing.T, hardware *attesttest.TPM) *attesttest.Key {
	key := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))(t)
	point := must(key.PublicKey.Bytes())(t)
	scalar := must(key.Bytes())(t)
	return must(hardware.LoadExternal(
		tpm2.TPMTPublic{Type: tpm2.TPMAlgECC, NameAlg: tpm2.TPMAlgSHA256, ObjectAttributes: tpm2.TPMAObject{UserWithAuth: true, SignEncrypt: true},
			Parameters: tpm2.NewTPMUPublicParms(tpm2.TPMAlgECC, &tpm2.TPMSECCParms{CurveID: tpm2.TPMECCNistP256}),
			Unique:     tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, &tpm2.TPMSECCPoint{X: tpm2.TPM2BECCParameter{Buffer: point[1:33]}, Y: tpm2.TPM2BECCParameter{Buffer: point[33:]}})},
		tpm2.TPMTSensitive{SensitiveType: tpm2.TPMAlgECC,
			Sensitive: tpm2.NewTPMUSensitiveComposite(tpm2.TPMAlgECC, &tpm2.TPM2BECCParameter{Buffer: scalar})},
	))(t)
}

// The authority certifies no AK but that of the TPM whose endorsement key it has seen.
func TestCredentialActivation(t *testing.T) {
	hardware := must(attesttest.Shared())(t)
	authority := must(attesttest.NewAuthority("Acme"))(t)
	ak := must(hardware.MakeAK(attesttest.ECCAK(tpm2.TPMECCNistP256, tpm2.TPMAlgSHA256), 0x81000101))(t)
	another := *ak
	another.Name.Buffer = append([]byte{0, 0x0b}, make([]byte, 32)...)
	if _, err := authority.Certify(hardware, &another, "sensor-17"); err == nil {
		t.Error("an AK of another name was activated")
	}
	plain := *ak
	plain.Public.ObjectAttributes.Restricted = false
	if _, err := authority.Certify(hardware, &plain, "sensor-17"); err == nil {
		t.Error("a key that is not restricted was certified")
	}
}

// A public key alone may be loaded with any attributes; no TPM certifies it, for it could not
// say that the private key is there. On this the fact key_certified stands.
func TestTPMCertifiesNoPublicKeyAlone(t *testing.T) {
	hardware := must(attesttest.Shared())(t)
	authority := must(attesttest.NewAuthority("Acme"))(t)
	ak := must(hardware.MakeAK(attesttest.ECCAK(tpm2.TPMECCNistP256, tpm2.TPMAlgSHA256), 0x81000101))(t)
	chain := must(authority.Certify(hardware, ak, "sensor-17"))(t)
	key := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))(t)
	point := must(key.PublicKey.Bytes())(t)
	public := tpm2.TPMTPublic{Type: tpm2.TPMAlgECC, NameAlg: tpm2.TPMAlgSHA256,
		ObjectAttributes: tpm2.TPMAObject{FixedTPM: true, FixedParent: true, SensitiveDataOrigin: true, UserWithAuth: true, SignEncrypt: true},
		Parameters:       tpm2.NewTPMUPublicParms(tpm2.TPMAlgECC, &tpm2.TPMSECCParms{CurveID: tpm2.TPMECCNistP256}),
		Unique:           tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, &tpm2.TPMSECCPoint{X: tpm2.TPM2BECCParameter{Buffer: point[1:33]}, Y: tpm2.TPM2BECCParameter{Buffer: point[33:]}})}
	loaded := must(hardware.LoadPublic(public))(t)
	defer loaded.Flush()
	challenge := sha256.Sum256([]byte(keyAuthorization))
	if _, err := hardware.Certify(ak, chain, -7, loaded, challenge[:]); !errors.Is(err, tpm2.TPMRCAuthUnavailable) {
		t.Errorf("the TPM says %v", err)
	}
}

// The state of the device is in the quote as it is now.
func TestTPMQuoteFollowsPCRs(t *testing.T) {
	hardware := must(attesttest.Start())(t) // one of its own: what is measured stays so until it starts anew
	defer hardware.Close()
	authority := must(attesttest.NewAuthority("Acme"))(t)
	device := must(hardware.Device(authority, "sensor-17", attesttest.ECCAK(tpm2.TPMECCNistP256, tpm2.TPMAlgSHA256), t.TempDir(), tpm.Config{PCRs: []int{14, 0, 1, 2, 3, 4, 5, 6, 7}}))(t)
	defer device.Close()
	digest := func() any {
		made := must(device.Attest(t.Context(), keyAuthorization))(t)
		object := must(attest.ParseObject(made.Object))(t)
		s := attest.Statement{Raw: object.Statement, Quote: made.Quote, Challenge: []byte(keyAuthorization), Now: time.Now(),
			Anchors: []attest.Anchor{{Manufacturer: "acme", Certificates: []*x509.Certificate{authority.Root}}}}
		return must(attest.TPM().Verify(s))(t).Evidence.Facts["pcr_digest"]
	}
	first := digest()
	if digest() != first {
		t.Error("the digest changed by itself")
	}
	measured := sha256.Sum256([]byte("another boot loader"))
	must(tpm2.PCRExtend{PCRHandle: tpm2.AuthHandle{Handle: 4, Auth: tpm2.PasswordAuth(nil)},
		Digests: tpm2.TPMLDigestValues{Digests: []tpm2.TPMTHA{{HashAlg: tpm2.TPMAlgSHA256, Digest: measured[:]}}}}.Execute(hardware))(t)
	if digest() == first {
		t.Error("what was measured is not in the digest")
	}
}
