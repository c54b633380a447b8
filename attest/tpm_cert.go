package attest

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/fxamacker/cbor/v2"

	"github.com/deviceca/deviceca/internal/der"
	certpath "github.com/deviceca/deviceca/internal/path"
)

var (
	oidSubjectAltName = asn1.ObjectIdentifier{2, 5, 29, 17}
	oidAIKCertificate = asn1.ObjectIdentifier{2, 23, 133, 8, 3} // tcg-kp-AIKCertificate
)

// parseX5C reads the certificates of a statement, the AK's first.
func parseX5C(x5c []cbor.ByteString) ([]*x509.Certificate, error) {
	chain := make([]*x509.Certificate, 0, len(x5c))
	for i, raw := range x5c {
		if len(raw) > maxCertificate {
			return nil, fmt.Errorf("x5c certificate %d has %d octets, of which at most %d are read", i+1, len(raw), maxCertificate)
		}
		cert, err := der.Certificate([]byte(raw))
		if err == nil {
			err = sound(cert)
		}
		if err != nil {
			return nil, fmt.Errorf("x5c certificate %d: %w", i+1, err)
		}
		chain = append(chain, cert)
	}
	return chain, nil
}

// sound refuses what no certificate of a chain may be, whoever issued it.
func sound(cert *x509.Certificate) error {
	if cert.SerialNumber.Sign() < 0 { // crypto/x509 lets it pass under a GODEBUG setting
		return errors.New("its serial number is negative, which RFC 5280 forbids")
	}
	switch cert.SignatureAlgorithm {
	case x509.UnknownSignatureAlgorithm, x509.MD2WithRSA, x509.MD5WithRSA, x509.SHA1WithRSA, x509.ECDSAWithSHA1, x509.DSAWithSHA1, x509.DSAWithSHA256:
		return fmt.Errorf("it is signed by an algorithm that is not accepted (%v): SHA-256 or better is due", cert.SignatureAlgorithm)
	}
	switch key := cert.PublicKey.(type) {
	case *rsa.PublicKey:
		if n := key.N.BitLen(); n < 2048 || n > 4096 {
			return fmt.Errorf("its key is RSA of %d bits: 2048 to 4096 are accepted", n)
		}
	case *ecdsa.PublicKey:
		if c := key.Curve; c != elliptic.P256() && c != elliptic.P384() && c != elliptic.P521() {
			return fmt.Errorf("its key is on %s: P-256, P-384 and P-521 are accepted", c.Params().Name)
		}
	case ed25519.PublicKey: // of a CA; no TPM has it
	default:
		return errors.New("its key is of a kind that is not accepted")
	}
	return nil
}

// akIdentity is what an AK's certificate says of the TPM and the device.
type akIdentity struct {
	manufacturer, model, version string // of the TPM
	identifiers                  []Identifier
}

// inspectAK holds a certificate to what WebAuthn Level 2 §8.3.1 demands of an AK's. A
// certificate without basicConstraints is not a CA's (RFC 5280 §4.2.1.9), and passes.
func inspectAK(cert *x509.Certificate) (*akIdentity, error) {
	switch {
	case cert.Version != 3:
		return nil, fmt.Errorf("it is of version %d, where 3 is due", cert.Version)
	case !bytes.Equal(cert.RawSubject, []byte{0x30, 0}):
		return nil, errors.New("its subject is not empty")
	case cert.IsCA || cert.KeyUsage&(x509.KeyUsageCertSign|x509.KeyUsageCRLSign) != 0:
		return nil, errors.New("it is a CA's")
	case cert.KeyUsage != 0 && cert.KeyUsage&x509.KeyUsageDigitalSignature == 0:
		return nil, errors.New("its key usage lacks digitalSignature")
	case !slices.ContainsFunc(cert.UnknownExtKeyUsage, oidAIKCertificate.Equal):
		return nil, errors.New("its extended key usages lack tcg-kp-AIKCertificate (2.23.133.8.3)")
	}
	i := slices.IndexFunc(cert.Extensions, func(e pkix.Extension) bool { return e.Id.Equal(oidSubjectAltName) })
	switch {
	case i < 0:
		return nil, errors.New("it has no subjectAltName, which says what TPM the key is in")
	case !cert.Extensions[i].Critical:
		return nil, errors.New("its subjectAltName is not critical, as it must be beside an empty subject (RFC 5280 §4.2.1.6)")
	}
	ak, err := parseAKNames(cert.Extensions[i].Value)
	if err != nil {
		return nil, fmt.Errorf("subjectAltName: %w", err)
	}
	return ak, nil
}

// path is where an AK's certificate leads.
type path struct {
	manufacturer      string
	revocationChecked bool
}

// findPath finds the manufacturer to one of whose anchors the AK's certificate leads. Each
// is tried by its own anchors alone, in order; the rest of chain may stand between.
func findPath(chain []*x509.Certificate, anchors []Anchor, now time.Time) (path, error) {
	refusal := errors.New("the AK certificate does not lead to an anchor that is registered for this format; is an intermediate certificate missing in x5c?")
	foreign, sent := refusal, certpath.NewChain(chain)
	for _, a := range anchors {
		// parseAKNames has read the subjectAltName, which is critical.
		paths, err := sent.Verify(certpath.Options{Anchors: certpath.Anchors(a.Certificates), Now: now, ReadsNames: true})
		if err != nil {
			// No path at all is the least that can be said.
			_, unknown := errors.AsType[x509.UnknownAuthorityError](err)
			if _, weak := errors.AsType[*certpath.Error](err); (!unknown || weak) && refusal == foreign {
				refusal = fmt.Errorf("the AK certificate's path to the anchors of %s: %w", a.Manufacturer, err)
			}
			continue
		}
		for _, p := range paths {
			checked, err := inspectPath(p, &a, now)
			if err == nil {
				return path{a.Manufacturer, checked}, nil
			}
			if refusal == foreign {
				refusal = fmt.Errorf("the AK certificate's path to the anchors of %s: %w", a.Manufacturer, err)
			}
		}
	}
	return path{}, refusal
}

// inspectPath judges a path, leaf first and anchor last, whose signatures and times are good:
// no CA on it may be confined to other purposes than AKs, and none of it be revoked.
func inspectPath(path []*x509.Certificate, anchor *Anchor, now time.Time) (revocationChecked bool, err error) {
	if len(path) < 2 {
		return false, errors.New("the AK certificate is registered as an anchor itself: anchors are CA certificates")
	}
	for _, ca := range path[1 : len(path)-1] {
		confined := len(ca.ExtKeyUsage)+len(ca.UnknownExtKeyUsage) > 0
		if confined && !slices.ContainsFunc(ca.UnknownExtKeyUsage, oidAIKCertificate.Equal) && !slices.Contains(ca.ExtKeyUsage, x509.ExtKeyUsageAny) {
			return false, errors.New("an intermediate CA is confined to purposes that leave out tcg-kp-AIKCertificate (2.23.133.8.3)")
		}
	}
	if anchor.Revoked == nil {
		return false, nil
	}
	revocationChecked = true
	for i, cert := range path[:len(path)-1] {
		checked, err := anchor.Revoked(cert, path[i+1], now)
		if err != nil {
			return false, err
		}
		revocationChecked = revocationChecked && checked
	}
	return revocationChecked, nil
}
