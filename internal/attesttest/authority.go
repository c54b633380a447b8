// Package attesttest is what tests of attestation stand on: an attestation authority that
// certifies attestation keys after the real credential activation, a TPM (swtpm) to run
// it against, and a forger whose attestation key is in software, for statements that no TPM would make.
package attesttest

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"os"
	"time"

	"github.com/google/go-tpm/tpm2"
	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/deviceca/deviceca/internal/der"
)

// Object identifiers of the TCG.
var (
	OIDEKCertificate  = asn1.ObjectIdentifier{2, 23, 133, 8, 1}
	OIDAIKCertificate = asn1.ObjectIdentifier{2, 23, 133, 8, 3}
)

// Authority is an attestation authority: a root, and a CA under it that issues AK certificates.
type Authority struct {
	Root, Issuing       *x509.Certificate
	RootKey, IssuingKey crypto.Signer
}

// NewAuthority makes an authority whose certificates hold for ten years around now.
func NewAuthority(name string) (*Authority, error) {
	a := new(Authority)
	var err error
	if a.RootKey, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		return nil, err
	}
	if a.IssuingKey, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		return nil, err
	}
	template := func(cn string) *x509.Certificate {
		t := newTemplate()
		t.Subject = pkix.Name{CommonName: name + " " + cn}
		t.IsCA, t.KeyUsage = true, x509.KeyUsageCertSign|x509.KeyUsageCRLSign
		return t
	}
	root := template("attestation root")
	if a.Root, err = sign(root, root, a.RootKey.Public(), a.RootKey); err != nil {
		return nil, err
	}
	a.Issuing, err = sign(template("attestation CA"), a.Root, a.IssuingKey.Public(), a.RootKey)
	return a, err
}

func newTemplate() *x509.Certificate {
	serial := make([]byte, 16)
	rand.Read(serial)
	serial[0] = 1 // positive, and of one length
	return &x509.Certificate{SerialNumber: new(big.Int).SetBytes(serial), BasicConstraintsValid: true,
		NotBefore: time.Now().AddDate(-5, 0, 0), NotAfter: time.Now().AddDate(5, 0, 0)}
}

func sign(template, parent *x509.Certificate, key crypto.PublicKey, by crypto.Signer) (*x509.Certificate, error) {
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key, by)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

// SANOf is the subjectAltName of an AK certificate: the names of a TPM, and otherNames.
func SANOf(critical bool, otherNames ...[]byte) pkix.Extension {
	return SAN(critical, append([][]byte{DirectoryName("id:00001014", "swtpm", "id:20191023")}, otherNames...)...)
}

// SAN is a subjectAltName of GeneralNames.
func SAN(critical bool, names ...[]byte) pkix.Extension {
	var b cryptobyte.Builder
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) { b.AddBytes(bytes.Join(names, nil)) })
	return pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 17}, Critical: critical, Value: b.BytesOrPanic()}
}

// DirectoryName is the GeneralName that names a TPM; an empty attribute is left out.
func DirectoryName(manufacturer, model, version string) []byte {
	var b cryptobyte.Builder
	b.AddASN1(cbasn1.Tag(4).ContextSpecific().Constructed(), func(b *cryptobyte.Builder) {
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
			for i, value := range []string{manufacturer, model, version} {
				if value == "" {
					continue
				}
				b.AddASN1(cbasn1.SET, func(b *cryptobyte.Builder) {
					b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
						b.AddASN1ObjectIdentifier(asn1.ObjectIdentifier{2, 23, 133, 2, i + 1})
						b.AddASN1(cbasn1.UTF8String, func(b *cryptobyte.Builder) { b.AddBytes([]byte(value)) })
					})
				})
			}
		})
	})
	return b.BytesOrPanic()
}

// PermanentIdentifier is the GeneralName of RFC 4043; a nil assigner is left out.
func PermanentIdentifier(id string, assigner asn1.ObjectIdentifier) []byte {
	return otherName(der.OIDPermanentIdentifier, func(b *cryptobyte.Builder) {
		b.AddASN1(cbasn1.UTF8String, func(b *cryptobyte.Builder) { b.AddBytes([]byte(id)) })
		if assigner != nil {
			b.AddASN1ObjectIdentifier(assigner)
		}
	})
}

// HardwareModule is the GeneralName of RFC 4108 §5.
func HardwareModule(serial string, hardware asn1.ObjectIdentifier) []byte {
	return otherName(der.OIDHardwareModuleName, func(b *cryptobyte.Builder) {
		b.AddASN1ObjectIdentifier(hardware)
		b.AddASN1OctetString([]byte(serial))
	})
}

func otherName(form asn1.ObjectIdentifier, content cryptobyte.BuilderContinuation) []byte {
	explicit := cbasn1.Tag(0).ContextSpecific().Constructed()
	var b cryptobyte.Builder
	b.AddASN1(explicit, func(b *cryptobyte.Builder) {
		b.AddASN1ObjectIdentifier(form)
		b.AddASN1(explicit, func(b *cryptobyte.Builder) { b.AddASN1(cbasn1.SEQUENCE, content) })
	})
	return b.BytesOrPanic()
}

// Issue certifies an AK without asking anybody, for the device named (none if ""), and gives the
// chain without the root. edit may spoil the certificate first; its SAN is ExtraExtensions[0].
func (a *Authority) Issue(ak crypto.PublicKey, device string, edit ...func(*x509.Certificate)) ([]*x509.Certificate, error) {
	t := newTemplate()
	t.KeyUsage = x509.KeyUsageDigitalSignature
	t.UnknownExtKeyUsage = []asn1.ObjectIdentifier{OIDAIKCertificate}
	var names [][]byte
	if device != "" {
		names = append(names, PermanentIdentifier(device, nil))
	}
	t.ExtraExtensions = []pkix.Extension{SANOf(true, names...)}
	for _, f := range edit {
		f(t)
	}
	leaf, err := sign(t, a.Issuing, ak, a.IssuingKey)
	return []*x509.Certificate{leaf, a.Issuing}, err
}

// Certify certifies the AK of a TPM for the device named, as an attestation authority should:
//
//  1. the certificate of the TPM's endorsement key leads to its manufacturer
//  2. the AK's public area is one of an attestation key that does not leave its TPM
//  3. the TPM that holds the EK holds the AK as well: only then does it give back the secret
func (a *Authority) Certify(t *TPM, ak *AK, device string, edit ...func(*x509.Certificate)) ([]*x509.Certificate, error) {
	ek, err := t.endorsementKey()
	if err != nil {
		return nil, err
	}
	roots, between := x509.NewCertPool(), x509.NewCertPool()
	for _, c := range t.Manufacturer {
		if bytes.Equal(c.RawSubject, c.RawIssuer) {
			roots.AddCert(c)
		} else {
			between.AddCert(c)
		}
	}
	leaf := *ek.certificate
	leaf.UnhandledCriticalExtensions = nil // the subjectAltName; here it is of no interest
	if _, err := leaf.Verify(x509.VerifyOptions{Roots: roots, Intermediates: between, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}); err != nil {
		return nil, fmt.Errorf("EK certificate: %w", err)
	}
	if len(leaf.UnknownExtKeyUsage) != 1 || !leaf.UnknownExtKeyUsage[0].Equal(OIDEKCertificate) {
		return nil, errors.New("EK certificate: not for an endorsement key")
	}
	if !ek.key.Equal(leaf.PublicKey) {
		return nil, errors.New("EK certificate: for another key")
	}
	if at := ak.Public.ObjectAttributes; !at.FixedTPM || !at.FixedParent || !at.SensitiveDataOrigin || !at.Restricted || !at.SignEncrypt || at.Decrypt {
		return nil, errors.New("not an attestation key")
	}
	secret := make([]byte, 32)
	rand.Read(secret)
	to, err := tpm2.ImportEncapsulationKey(&ek.public)
	if err != nil {
		return nil, err
	}
	blob, encrypted, err := tpm2.CreateCredential(rand.Reader, to, ak.Name.Buffer, secret)
	if err != nil {
		return nil, err
	}
	back, err := t.activate(ak, ek, blob, encrypted)
	if err != nil {
		return nil, fmt.Errorf("credential activation: %w", err)
	}
	if !bytes.Equal(back, secret) {
		return nil, errors.New("credential activation: another secret came back")
	}
	return a.Issue(ak.Key, device, edit...)
}

// Revoke makes a CRL of the issuing CA, or of the root, that is good for a day around now.
func (a *Authority) Revoke(by *x509.Certificate, certs ...*x509.Certificate) (*x509.RevocationList, error) {
	t := &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: time.Now().Add(-time.Hour), NextUpdate: time.Now().Add(23 * time.Hour)}
	for _, c := range certs {
		t.RevokedCertificateEntries = append(t.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: c.SerialNumber, RevocationTime: t.ThisUpdate})
	}
	key := a.IssuingKey
	if by == a.Root {
		key = a.RootKey
	}
	der, err := x509.CreateRevocationList(rand.Reader, t, by, key)
	if err != nil {
		return nil, err
	}
	return x509.ParseRevocationList(der)
}

// WritePEM writes certificates to a file.
func WritePEM(path string, certs []*x509.Certificate) error {
	var out []byte
	for _, c := range certs {
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})...)
	}
	return os.WriteFile(path, out, 0o644)
}
