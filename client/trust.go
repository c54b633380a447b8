package client

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/deviceca/deviceca/internal/der"
)

// Trust is how the CA is recognised at the first contact; one of the two must be
// given. There is no way to trust whoever answers.
type Trust struct {
	// Roots verify the server's TLS certificate.
	Roots []*x509.Certificate
	// RootSHA256 is the SHA-256 of the CA's root certificate in DER. The root is then
	// fetched without any secret (RFC 7030 §4.1.1), compared with this, and used to verify
	// the server before anything else is said to it.
	RootSHA256 []byte
}

// ParseRootSHA256 reads a SHA-256 in hex, with or without colons.
func ParseRootSHA256(s string) ([]byte, error) {
	sum, err := hex.DecodeString(strings.ReplaceAll(strings.TrimSpace(s), ":", ""))
	if err != nil || len(sum) != sha256.Size {
		return nil, &Error{Kind: Usage, Op: "trust", Text: "the root's SHA-256 is not 64 hex digits",
			Hint: "print it with: openssl x509 -in root.crt -noout -fingerprint -sha256"}
	}
	return sum, nil
}

func (t Trust) empty() bool { return len(t.Roots) == 0 && len(t.RootSHA256) == 0 }

// hasRoots reports whether there are roots, and the pinned one among them if one is.
func (t Trust) hasRoots() bool {
	return len(t.Roots) > 0 && (len(t.RootSHA256) == 0 || t.pinned(t.Roots) != nil)
}

func noRoots(protocol string) *Error {
	return &Error{Kind: Usage, Op: strings.ToLower(protocol), Text: protocol + " needs the CA's root certificate",
		Hint: "give it with Trust.Roots (-roots, --roots); its SHA-256 is enough for EST alone"}
}

// check refuses roots that cannot be trust anchors.
func (t Trust) check() error {
	if err := checkAnchors("the roots given", t.Roots); err != nil {
		return &Error{Kind: Usage, Op: "trust", Text: "the trust anchors cannot be used", Err: err}
	}
	return nil
}

// pinned is the certificate with the pinned digest, nil when it is not there.
func (t Trust) pinned(certs []*x509.Certificate) *x509.Certificate {
	i := slices.IndexFunc(certs, func(c *x509.Certificate) bool { return t.isPinned(c.Raw) })
	if i < 0 {
		return nil
	}
	return certs[i]
}

func (t Trust) isPinned(der []byte) bool {
	sum := sha256.Sum256(der)
	return bytes.Equal(sum[:], t.RootSHA256)
}

// ReadRoots reads trust anchors, in PEM, from a file. One that is not a CA's certificate is an error.
func ReadRoots(path string) ([]*x509.Certificate, error) {
	roots, err := ReadCertificates(path)
	if err != nil {
		return nil, err
	}
	return roots, checkAnchors(path, roots)
}

// checkAnchors: only the certificate of a CA can be a trust anchor. Go would take any for one, and a device's own
// certificate among the roots would vouch for itself.
func checkAnchors(where string, certs []*x509.Certificate) error {
	for i, c := range certs {
		if err := checkAnchor(c); err != nil {
			return &Error{Kind: Local, Op: "trust", Text: fmt.Sprintf("%s: certificate %d, of \"%s\", is no trust anchor", where, i+1, printable(c.Subject.String())), Err: err,
				Hint: "give the CA's root certificate (deviceca ca export root), and no other"}
		}
	}
	return nil
}

func checkAnchor(c *x509.Certificate) error {
	switch {
	case !c.BasicConstraintsValid || !c.IsCA:
		return errors.New("it is not a CA's (basicConstraints)")
	case c.KeyUsage != 0 && c.KeyUsage&x509.KeyUsageCertSign == 0:
		return errors.New("its key must not sign certificates (keyUsage)")
	}
	return checkKey(c)
}

// keepAnchors chooses what to keep: what the CA lists now, then what was kept before. A pinned one stays first of those; of
// the rest, the ones that live longest, up to maxAnchors or as many as there were. What has expired leaves, and so does a certificate
// that another one of the same name and key outlives.
func (t Trust) keepAnchors(listed, kept []*x509.Certificate, now time.Time) []*x509.Certificate {
	most := max(maxAnchors, len(kept))
	older := slices.Clone(kept)
	slices.SortStableFunc(older, func(a, b *x509.Certificate) int {
		if p, q := t.isPinned(a.Raw), t.isPinned(b.Raw); p != q {
			if p {
				return -1
			}
			return 1
		}
		return b.NotAfter.Compare(a.NotAfter)
	})
	all := union(listed, older)
	all = slices.DeleteFunc(slices.Clone(all), func(c *x509.Certificate) bool {
		return now.After(c.NotAfter) || !t.isPinned(c.Raw) && slices.ContainsFunc(all, func(other *x509.Certificate) bool {
			return bytes.Equal(other.RawSubject, c.RawSubject) && bytes.Equal(other.RawSubjectPublicKeyInfo, c.RawSubjectPublicKeyInfo) &&
				other.NotAfter.After(c.NotAfter) && !now.Before(other.NotBefore)
		})
	})
	return all[:min(len(all), max(most, len(listed)))]
}

// with adds trust anchors kept from earlier. A pin that they do not fit means
// that the operator speaks of another CA: then they are left aside.
func (t Trust) with(kept []*x509.Certificate) Trust {
	if len(t.RootSHA256) > 0 && t.pinned(kept) == nil {
		return t
	}
	return Trust{Roots: union(t.Roots, kept), RootSHA256: t.RootSHA256}
}

func union(a, b []*x509.Certificate) []*x509.Certificate {
	out := slices.Clone(a)
	for _, c := range b {
		if !slices.ContainsFunc(out, c.Equal) {
			out = append(out, c)
		}
	}
	return out
}

func pool(certs []*x509.Certificate) *x509.CertPool {
	p := x509.NewCertPool()
	for _, c := range certs {
		p.AddCert(c)
	}
	return p
}

// sortCACerts tells anchors from the rest: an anchor is a CA certificate that
// verifies under its own key. The keys were bounded when they were parsed.
func sortCACerts(certs []*x509.Certificate) *CACerts {
	out := new(CACerts)
	for _, c := range certs {
		switch {
		case !c.IsCA:
		case selfSigned(c):
			if forRemediation(c) {
				out.Remediation = union(out.Remediation, []*x509.Certificate{c})
			} else {
				out.Roots = union(out.Roots, []*x509.Certificate{c})
			}
		default:
			out.Intermediates = union(out.Intermediates, []*x509.Certificate{c})
		}
	}
	return out
}

func selfSigned(c *x509.Certificate) bool {
	return checkAnchor(c) == nil && bytes.Equal(c.RawIssuer, c.RawSubject) && c.CheckSignatureFrom(c) == nil
}

// maxAhead is how far a certificate's validity may begin after what the device's clock says.
const maxAhead = 24 * time.Hour

// accept checks a reply against what was asked, in this order: our key, our
// name, valid soon and still, a chain to the anchors. It returns what may be stored, and
// warnings about what differs without harm.
func accept(reply *Reply, req *Request, ca *CACerts, now time.Time) (*Identity, []string, error) {
	refuse := func(text, hint string, err error) (*Identity, []string, error) {
		return nil, nil, &Error{Kind: BadReply, Op: "check", Text: text, Hint: hint, Err: err}
	}
	if err := checkKeys(reply.Certificates, ca.Roots, ca.Intermediates); err != nil {
		return refuse("the server's certificates cannot be used", "nothing was written", err)
	}
	if err := checkAnchors("the CA's roots", ca.Roots); err != nil {
		return refuse("the CA's roots cannot be used", "nothing was written", err)
	}
	i := slices.IndexFunc(reply.Certificates, func(c *x509.Certificate) bool { return samePublic(req.Key.Public(), c.PublicKey) })
	if i < 0 {
		return refuse("the reply holds no certificate for our key", "nothing was written; ask the CA's operator which certificate was issued", nil)
	}
	cert := reply.Certificates[i]
	if !der.SameName(cert.RawSubject, req.Names.Subject) {
		return refuse("the certificate is for \""+printable(cert.Subject.String())+"\", which is not the name asked for", "nothing was written", nil)
	}
	if cert.IsCA {
		return refuse("the certificate is a CA's", "nothing was written", nil)
	}
	date := func(t time.Time) string { return t.UTC().Format(time.RFC3339) }
	clock := "check this device's clock: it says " + date(now)
	switch {
	case !cert.NotAfter.After(cert.NotBefore):
		return refuse("the certificate ends at "+date(cert.NotAfter)+", before it begins", "nothing was written", nil)
	case now.After(cert.NotAfter):
		return refuse("the certificate expired at "+date(cert.NotAfter), clock, nil)
	case cert.NotBefore.Sub(now) > maxAhead:
		return refuse("the certificate is valid only from "+date(cert.NotBefore), clock, nil)
	}
	var warnings []string
	if now.Before(cert.NotBefore) {
		warnings = append(warnings, "the certificate is valid from "+date(cert.NotBefore)+", later than this device's clock")
		now = cert.NotBefore
	}
	intermediates := slices.Concat(reply.Certificates, ca.Intermediates)
	chains, err := verifyChains(cert, union(ca.Roots, ca.Remediation), intermediates, now)
	if err != nil {
		return refuse("the certificate does not chain to the CA's root", "nothing was written; if the CA changed, enrol with its new root", err)
	}
	for _, name := range missingNames(req.Names.SAN, cert) {
		warnings = append(warnings, "asked for, and not in the certificate: "+name)
	}
	return &Identity{Key: req.Key, Certificate: cert, Chain: joined(chains, intermediates, now)}, warnings, nil
}

// verifyChains finds the chains from a certificate to the roots, both included. Go tries at most 100 signatures for them.
func verifyChains(cert *x509.Certificate, roots, intermediates []*x509.Certificate, at time.Time) ([][]*x509.Certificate, error) {
	judged := *cert
	judged.UnhandledCriticalExtensions = nil // they bind those who rely on the certificate, not its holder
	chains, err := judged.Verify(x509.VerifyOptions{
		Roots: pool(roots), Intermediates: pool(intermediates), CurrentTime: at,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	})
	if err != nil {
		return nil, err
	}
	if slices.ContainsFunc(chains, func(chain []*x509.Certificate) bool { return len(chain) < 2 }) {
		return nil, errors.New("it is its own root")
	}
	return chains, nil
}
