package client

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"slices"
	"strings"
	"time"
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

// pinned is the certificate with the pinned digest, nil when it is not there.
func (t Trust) pinned(certs []*x509.Certificate) *x509.Certificate {
	for _, c := range certs {
		if sum := sha256.Sum256(c.Raw); bytes.Equal(sum[:], t.RootSHA256) {
			return c
		}
	}
	return nil
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
// verifies under its own key.
func sortCACerts(certs []*x509.Certificate) *CACerts {
	out := new(CACerts)
	for _, c := range certs {
		switch {
		case !c.IsCA:
		case bytes.Equal(c.RawIssuer, c.RawSubject) && c.CheckSignatureFrom(c) == nil:
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

// accept checks a reply against what was asked, in this order: our key, our
// name, still valid, a chain to the anchors. It returns what may be stored, and
// warnings about what differs without harm.
func accept(reply *Reply, req *Request, ca *CACerts, now time.Time) (*Identity, []string, error) {
	refuse := func(text, hint string, err error) (*Identity, []string, error) {
		return nil, nil, &Error{Kind: BadReply, Op: "check", Text: text, Hint: hint, Err: err}
	}
	i := slices.IndexFunc(reply.Certificates, func(c *x509.Certificate) bool { return samePublic(req.Key.Public(), c.PublicKey) })
	if i < 0 {
		return refuse("the reply holds no certificate for our key", "nothing was written; ask the CA's operator which certificate was issued", nil)
	}
	cert := reply.Certificates[i]
	if !sameSubject(cert.RawSubject, req.Names.Subject) {
		return refuse("the certificate is for \""+printable(cert.Subject.String())+"\", which is not the name asked for", "nothing was written", nil)
	}
	if cert.IsCA {
		return refuse("the certificate is a CA's", "nothing was written", nil)
	}
	if now.After(cert.NotAfter) {
		return refuse("the certificate expired at "+cert.NotAfter.UTC().Format(time.RFC3339), "check this device's clock: it says "+now.UTC().Format(time.RFC3339), nil)
	}
	var warnings []string
	if now.Before(cert.NotBefore) {
		warnings = append(warnings, "the certificate is valid from "+cert.NotBefore.UTC().Format(time.RFC3339)+", later than this device's clock")
		now = cert.NotBefore
	}
	intermediates := slices.Concat(reply.Certificates, ca.Intermediates)
	judged := *cert
	judged.UnhandledCriticalExtensions = nil // they bind those who rely on the certificate, not its holder
	chains, err := judged.Verify(x509.VerifyOptions{
		Roots: pool(union(ca.Roots, ca.Remediation)), Intermediates: pool(intermediates), CurrentTime: now,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	})
	if err != nil {
		return refuse("the certificate does not chain to the CA's root", "nothing was written; if the CA changed, enrol with its new root", err)
	}
	for _, name := range missingNames(req.Names.SAN, cert) {
		warnings = append(warnings, "asked for, and not in the certificate: "+name)
	}
	return &Identity{Key: req.Key, Certificate: cert, Chain: joined(chains, intermediates, now)}, warnings, nil
}
