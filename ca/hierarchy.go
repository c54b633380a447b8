package ca

import (
	"bytes"
	"cmp"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"
	"strings"
	"time"
)

// Hierarchy says what the CA certificates look like.
type Hierarchy struct {
	Organization string
	URL          string        // public base for AIA and CRL pointers
	Root         string        // name of the root that signs; default the role's first
	RootLife     time.Duration // default 20 years
	IssuingLife  time.Duration // default 5 years, for issuing and quarantine
	Now          time.Time
}

const year = 365 * 24 * time.Hour

// RemediationEKU is what quarantine certificates are for, and all that the
// quarantine CA may issue beside OCSP responders. Relying parties that apply the extended
// key usages of CAs refuse them for that; the others have no anchor for them.
const RemediationEKU = "1.3.6.1.4.1.55555.1.1"

var oidOCSPSigning = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 3, 9}

// BackdateCA is how far before now CAs and the CRLs of roots begin. It lets devices whose clock is a little behind use a CA at once.
const BackdateCA = time.Hour

// roots are the roles of the CAs that others stand below, by the role of those.
var roots = map[string]string{"issuing": "root", "quarantine": "quarantine-root"}

// RootOf is the role of the root that a CA of a role should stand below; "" if
// role is not that of a subordinate CA.
func RootOf(role string) string { return roots[role] }

// NewRoot makes the self-signed root certificate (RFC 5280 §3.2): key usage
// certificate and CRL signing, no path length, so that issuing CAs of issuing CAs stay possible.
func NewRoot(key crypto.Signer, generation int, h Hierarchy) ([]byte, error) {
	return newRoot(key, "root", generation, h)
}

// NewQuarantineRoot makes the self-signed root of the quarantine CAs: an anchor of its own, since
// there is software that ignores the extended key usages of a CA, and none that
// accepts an anchor it was not given. It is restricted like the CAs below it, so that
// whoever reads it among other anchors can tell what it is for.
func NewQuarantineRoot(key crypto.Signer, generation int, h Hierarchy) ([]byte, error) {
	return newRoot(key, "quarantine-root", generation, h)
}

func newRoot(key crypto.Signer, role string, generation int, h Hierarchy) ([]byte, error) {
	spki, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return nil, fmt.Errorf("root key: %w", err)
	}
	t := &x509.Certificate{
		SerialNumber: caSerial(), Subject: h.subject(role, generation),
		NotBefore: h.Now.Add(-BackdateCA).Truncate(time.Second), NotAfter: h.Now.Add(cmp.Or(h.RootLife, 20*year)).Truncate(time.Second),
		IsCA: true, BasicConstraintsValid: true,
		KeyUsage:     x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		SubjectKeyId: subjectKeyID(spki),
	}
	if role == "quarantine-root" {
		if err := addRoleEKU(t, "quarantine"); err != nil {
			return nil, err
		}
	}
	return lintedCA(x509.CreateCertificate(rand.Reader, t, t, key.Public(), key))
}

// NewSubordinate makes the certificate of a CA below a root: role "issuing",
// or "quarantine", which belongs below the quarantine root (extended key usage restricted to
// remediation and OCSP signing, which path validation inherits); path length 0.
func NewSubordinate(root []byte, rootKey crypto.Signer, role string, generation int, pub crypto.PublicKey, h Hierarchy) ([]byte, error) {
	parent, err := x509.ParseCertificate(root)
	if err != nil {
		return nil, fmt.Errorf("root certificate: %w", err)
	}
	spki, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		return nil, fmt.Errorf("%s key: %w", role, err)
	}
	base, signer := strings.TrimSuffix(h.URL, "/"), cmp.Or(h.Root, RootOf(role)+"-1")
	t := &x509.Certificate{
		SerialNumber: caSerial(), Subject: h.subject(role, generation),
		NotBefore: h.Now.Add(-BackdateCA).Truncate(time.Second), NotAfter: h.Now.Add(cmp.Or(h.IssuingLife, 5*year)).Truncate(time.Second),
		IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign | x509.KeyUsageDigitalSignature, // the last for OCSP
		SubjectKeyId:          subjectKeyID(spki),
		IssuingCertificateURL: []string{base + "/ca/" + signer + ".crt"},
		CRLDistributionPoints: []string{base + "/crl/" + signer + ".crl"},
	}
	if t.NotBefore.Before(parent.NotBefore) {
		t.NotBefore = parent.NotBefore
	}
	if t.NotAfter.After(parent.NotAfter) {
		t.NotAfter = parent.NotAfter
	}
	if err := addRoleEKU(t, role); err != nil {
		return nil, err
	}
	return lintedCA(x509.CreateCertificate(rand.Reader, t, parent, pub, rootKey))
}

// NewCross makes the certificate that leads from one root to another: the
// subject and key of root, signed by another root's key. A relying party that
// trusts only the other then accepts what stands below this one (OldWithNew
// and NewWithOld of RFC 9810 §4.4).
func NewCross(root, signer []byte, signerKey crypto.Signer, h Hierarchy) ([]byte, error) {
	subject, err := x509.ParseCertificate(root)
	if err != nil {
		return nil, fmt.Errorf("root certificate: %w", err)
	}
	parent, err := x509.ParseCertificate(signer)
	if err != nil {
		return nil, fmt.Errorf("the other root's certificate: %w", err)
	}
	t := &x509.Certificate{
		SerialNumber: caSerial(), RawSubject: subject.RawSubject,
		NotBefore: h.Now.Add(-BackdateCA).Truncate(time.Second), NotAfter: subject.NotAfter,
		IsCA: true, BasicConstraintsValid: true,
		KeyUsage:     x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		SubjectKeyId: subject.SubjectKeyId,
		ExtKeyUsage:  subject.ExtKeyUsage, UnknownExtKeyUsage: subject.UnknownExtKeyUsage,
		// Who trusts the signer asks the signer's list.
		IssuingCertificateURL: []string{strings.TrimSuffix(h.URL, "/") + "/ca/" + h.Root + ".crt"},
		CRLDistributionPoints: []string{strings.TrimSuffix(h.URL, "/") + "/crl/" + h.Root + ".crl"},
	}
	if t.NotAfter.After(parent.NotAfter) {
		t.NotAfter = parent.NotAfter
	}
	return lintedCA(x509.CreateCertificate(rand.Reader, t, parent, subject.PublicKey, signerKey))
}

func addRoleEKU(t *x509.Certificate, role string) error {
	switch role {
	case "issuing":
	case "quarantine":
		remediation, err := parseOID(RemediationEKU)
		if err != nil {
			return err
		}
		t.UnknownExtKeyUsage = []asn1.ObjectIdentifier{remediation, oidOCSPSigning}
	default:
		return fmt.Errorf("%q is not the role of a subordinate CA: issuing or quarantine", role)
	}
	return nil
}

// SubordinateCSR makes the request for a root that lives elsewhere. It asks for
// what NewSubordinate would give, so that the other side sees what is needed.
func SubordinateCSR(key crypto.Signer, role string, generation int, h Hierarchy) ([]byte, error) {
	constraints, err := asn1.Marshal(struct {
		IsCA       bool
		MaxPathLen int
	}{true, 0})
	if err != nil {
		return nil, err
	}
	usage, err := keyUsage([]string{"digitalSignature", "keyCertSign", "cRLSign"})
	if err != nil {
		return nil, err
	}
	t := &x509.CertificateRequest{Subject: h.subject(role, generation), ExtraExtensions: []pkix.Extension{
		{Id: asn1.ObjectIdentifier{2, 5, 29, 19}, Critical: true, Value: constraints},
		{Id: oidKeyUsage, Critical: true, Value: usage},
	}}
	switch role {
	case "issuing":
	case "quarantine":
		eku, err := oidSequence([]string{RemediationEKU, "ocspSigning"}, extKeyUsages)
		if err != nil {
			return nil, err
		}
		t.ExtraExtensions = append(t.ExtraExtensions, pkix.Extension{Id: oidExtKeyUsage, Value: eku})
	default:
		return nil, fmt.Errorf("%q is not the role of a subordinate CA: issuing or quarantine", role)
	}
	return x509.CreateCertificateRequest(rand.Reader, t, key)
}

// CheckSubordinate checks a certificate that an external root made, against the
// key and role it is for.
func CheckSubordinate(cert, root []byte, role string, pub crypto.PublicKey, now time.Time) error {
	c, err := x509.ParseCertificate(cert)
	if err != nil {
		return fmt.Errorf("the %s certificate does not parse: %w", role, err)
	}
	r, err := x509.ParseCertificate(root)
	if err != nil {
		return fmt.Errorf("the root certificate does not parse: %w", err)
	}
	want, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		return err
	}
	remediationOnly := remediationOnly(c)
	switch {
	case !r.IsCA || !r.BasicConstraintsValid:
		return errors.New("the root certificate is not a CA's (basicConstraints)")
	case c.CheckSignatureFrom(r) != nil:
		return fmt.Errorf("the %s certificate is not signed by this root: %w", role, c.CheckSignatureFrom(r))
	case !bytes.Equal(c.RawSubjectPublicKeyInfo, want):
		return fmt.Errorf("the %s certificate is for another key than the one in the token: was it made from the right request?", role)
	case !c.IsCA || !c.BasicConstraintsValid:
		return fmt.Errorf("the %s certificate is not a CA's: basicConstraints cA must be true", role)
	case c.KeyUsage&x509.KeyUsageCertSign == 0 || c.KeyUsage&x509.KeyUsageCRLSign == 0:
		return fmt.Errorf("the %s certificate must have key usages keyCertSign and cRLSign", role)
	case len(c.SubjectKeyId) == 0:
		return fmt.Errorf("the %s certificate has no subjectKeyIdentifier (RFC 5280 §4.2.1.2)", role)
	case now.Before(c.NotBefore) || !now.Before(c.NotAfter):
		return fmt.Errorf("the %s certificate is valid from %s to %s, not now", role, c.NotBefore, c.NotAfter)
	case role == "quarantine" && !remediationOnly:
		return fmt.Errorf("the quarantine certificate must be restricted to extended key usages %s and OCSP signing: else ordinary relying parties accept quarantined devices", RemediationEKU)
	case role == "issuing" && remediationOnly:
		return errors.New("the issuing certificate is restricted to remediation: were the two requests swapped?")
	}
	return nil
}

// remediationOnly reports whether a CA's extended key usages are those of quarantine alone.
func remediationOnly(c *x509.Certificate) bool {
	only := len(c.ExtKeyUsage)+len(c.UnknownExtKeyUsage) > 0
	for _, use := range c.ExtKeyUsage {
		only = only && use == x509.ExtKeyUsageOCSPSigning
	}
	for _, use := range c.UnknownExtKeyUsage {
		only = only && use.String() == RemediationEKU
	}
	return only
}

// CheckQuarantineRoot checks an anchor for quarantine that was made elsewhere against the
// other roots: what those who trust them accept, it must stand apart from.
func CheckQuarantineRoot(cert []byte, others [][]byte, now time.Time) error {
	c, err := x509.ParseCertificate(cert)
	if err != nil {
		return fmt.Errorf("the quarantine root's certificate does not parse: %w", err)
	}
	switch {
	case !c.IsCA || !c.BasicConstraintsValid:
		return errors.New("the quarantine root's certificate is not a CA's (basicConstraints)")
	case now.Before(c.NotBefore) || !now.Before(c.NotAfter):
		return fmt.Errorf("the quarantine root's certificate is valid from %s to %s, not now", c.NotBefore, c.NotAfter)
	}
	for _, der := range others {
		other, err := x509.ParseCertificate(der)
		if err != nil {
			return err
		}
		if bytes.Equal(c.RawSubjectPublicKeyInfo, other.RawSubjectPublicKeyInfo) || bytes.Equal(c.RawIssuer, other.RawSubject) && c.CheckSignatureFrom(other) == nil {
			return fmt.Errorf("whoever trusts %s trusts this quarantine root too: quarantine needs an anchor of its own, with a key of its own that signs itself", other.Subject)
		}
	}
	return nil
}

// RevokedCA is a subordinate on the root's CRL.
type RevokedCA struct {
	Serial *big.Int
	Time   time.Time
	Reason int
}

// RootCRL signs the root's CRL (RFC 5280 §5). number must be above that of the
// CRL before.
func RootCRL(root []byte, key crypto.Signer, number int64, revoked []RevokedCA, now, next time.Time) ([]byte, error) {
	issuer, err := x509.ParseCertificate(root)
	if err != nil {
		return nil, fmt.Errorf("root certificate: %w", err)
	}
	t := &x509.RevocationList{Number: big.NewInt(number), ThisUpdate: now.Add(-BackdateCA).Truncate(time.Second), NextUpdate: next.Truncate(time.Second)}
	for _, r := range revoked {
		t.RevokedCertificateEntries = append(t.RevokedCertificateEntries, x509.RevocationListEntry{
			SerialNumber: r.Serial, RevocationTime: r.Time.Truncate(time.Second), ReasonCode: r.Reason})
	}
	return x509.CreateRevocationList(rand.Reader, t, issuer, key)
}

// subject names a CA: "ORG Root CA", "ORG Quarantine Root CA", "ORG Issuing CA 1", "ORG Quarantine CA 1".
func (h Hierarchy) subject(role string, generation int) pkix.Name {
	org := cmp.Or(h.Organization, "deviceca")
	words := map[string]string{"root": "Root", "quarantine-root": "Quarantine Root", "issuing": "Issuing", "quarantine": "Quarantine"}
	name := pkix.Name{Organization: []string{org}, CommonName: org + " " + words[role] + " CA"}
	if RootOf(role) != "" || generation > 1 {
		name.CommonName += fmt.Sprintf(" %d", generation)
	}
	return name
}

// caSerial is 127 random bits, never 0; CA certificates are few, and their
// serials say nothing.
func caSerial() *big.Int {
	var raw [16]byte
	rand.Read(raw[:])
	raw[0] = raw[0]&0x7f | 0x40
	return new(big.Int).SetBytes(raw[:])
}

func lintedCA(der []byte, err error) ([]byte, error) {
	if err != nil {
		return nil, err
	}
	faults, err := lintCertificate(der)
	return der, errors.Join(err, lintError(faults))
}
