// Package path validates certification paths (RFC 5280 §6.1), of devices' manufacturers
// and for relying parties alike. crypto/x509 finds the paths; this package adds what that leaves
// out or does otherwise: name constraints of all forms, path lengths that do not count
// self-issued certificates, names that differ in case, space or string type, the strength of
// signatures and keys, and the rules on noRevAvail.
package path

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/deviceca/deviceca/internal/der"
)

var (
	oidSubjectAltName  = asn1.ObjectIdentifier{2, 5, 29, 17}
	oidNameConstraints = asn1.ObjectIdentifier{2, 5, 29, 30}
	oidCRLPoints       = asn1.ObjectIdentifier{2, 5, 29, 31}
	oidFreshestCRL     = asn1.ObjectIdentifier{2, 5, 29, 46}
	oidNoRevAvail      = asn1.ObjectIdentifier{2, 5, 29, 56}
)

// Anchor is a trust anchor, made ready by [Anchors].
type Anchor struct {
	*x509.Certificate
	name string // its subject's key, to compare by
}

// Anchors makes certificates trust anchors. Those that are used again and again should be made once.
func Anchors(certs []*x509.Certificate) []Anchor {
	anchors := make([]Anchor, len(certs))
	for i, c := range certs {
		anchors[i] = Anchor{c, der.NameKey(c.RawSubject)}
	}
	return anchors
}

// Chain is what a peer sent, the leaf first, and what may stand between it and an anchor, in any order. It is
// made ready once by [NewChain], however many anchors it is tried with: names are what a stranger can make long.
type Chain struct {
	leaf    link
	between []link
}

// link is a certificate of a chain.
type link struct {
	*x509.Certificate
	issuer, subject string // its names' keys, to compare by
}

// NewChain makes a chain of certificates, of which there is at least one.
func NewChain(certs []*x509.Certificate) Chain {
	links := make([]link, len(certs))
	for i, c := range certs {
		links[i] = link{c, der.NameKey(c.RawIssuer), der.NameKey(c.RawSubject)}
	}
	return Chain{links[0], links[1:]}
}

// Verify is Verify of a chain of leaf and intermediates.
func Verify(leaf *x509.Certificate, intermediates []*x509.Certificate, o Options) ([][]*x509.Certificate, error) {
	return NewChain(append([]*x509.Certificate{leaf}, intermediates...)).Verify(o)
}

// Options of [Chain.Verify].
type Options struct {
	Anchors []Anchor
	Now     time.Time
	// Usages are extended key usages of which one must hold for the whole path; none accepts any.
	Usages []x509.ExtKeyUsage
	// ReadsNames says that the caller reads the leaf's subjectAltName: crypto/x509
	// leaves a critical one that holds only forms unknown to it to its caller.
	ReadsNames bool
}

// Verify finds the paths from the leaf to the anchors that hold, the leaf first and the anchor
// last. There is at least one if there is no error. Revocation is not looked at.
//
//  1. From the anchors down: which certificates they lead to, and whether the leaf is one. Weak
//     certificates are left out. See reach.
//  2. Signatures, times, basicConstraints, key usages, and policies: crypto/x509.
//  3. Of the paths found, those stay that hold to the rest of RFC 5280 §6.1 and to RFC 9608 §3.
//
// The errors are an [Error], or those of crypto/x509.
func (c Chain) Verify(o Options) ([][]*x509.Certificate, error) {
	leaf := c.leaf.Certificate
	anchors, between, err := c.reach(o.Anchors)
	if err != nil {
		return nil, err
	}
	originals := map[*x509.Certificate]*x509.Certificate{}
	pool := func(certs []*x509.Certificate) *x509.CertPool {
		p := x509.NewCertPool()
		for _, c := range certs {
			handled := handling(c, false)
			originals[handled] = c
			p.AddCert(handled)
		}
		return p
	}
	judged := handling(leaf, o.ReadsNames)
	originals[judged] = leaf
	usages := o.Usages
	if len(usages) == 0 {
		usages = []x509.ExtKeyUsage{x509.ExtKeyUsageAny}
	}
	found, err := judged.Verify(x509.VerifyOptions{Roots: pool(anchors), Intermediates: pool(between), CurrentTime: o.Now, KeyUsages: usages})
	if err != nil {
		return nil, err
	}
	var paths [][]*x509.Certificate
	for _, p := range found {
		for i, c := range p {
			p[i] = originals[c]
		}
		if bad := inspect(p); bad == nil {
			paths = append(paths, p)
		} else if err == nil {
			err = bad
		}
	}
	if len(paths) == 0 {
		return nil, err
	}
	return paths, nil
}

// reach goes from the anchors down, and finds the intermediates that they lead to, which must
// lead to the leaf. A stranger makes up chains at no cost: a search from the leaf up would verify,
// with keys of the stranger's choice, every way through them. This way each signature is
// verified with a key that an anchor vouches for, and names alone turn others away.
func (c Chain) reach(trusted []Anchor) (anchors, between []*x509.Certificate, err error) {
	var refused error // the first of those whose names fit
	refuse := func(err error) {
		if refused == nil {
			refused = err
		}
	}
	follows := func(c link, issuer Anchor) bool {
		if c.issuer != issuer.name {
			return false
		}
		if err := sound(c.Certificate); err != nil {
			refuse(&Error{c.Certificate, fmt.Errorf("is not used: %w", err)})
			return false
		}
		if err := c.CheckSignatureFrom(issuer.Certificate); err != nil {
			refuse(fmt.Errorf("%s is not used: %w", naming(c.Certificate), err))
			return false
		}
		return true
	}
	leaf, rest := c.leaf, slices.Clone(c.between)
	there := false
	var issuers []Anchor
	for _, c := range trusted {
		err := der.AcceptKey(c.PublicKey)
		switch {
		case err == nil:
			anchors, issuers = append(anchors, c.Certificate), append(issuers, c)
			there = there || c.Equal(leaf.Certificate)
		case leaf.issuer == c.name || slices.ContainsFunc(rest, func(i link) bool { return i.issuer == c.name }):
			refuse(&Error{c.Certificate, fmt.Errorf("is not used: %w", err)})
		}
	}
	for len(issuers) > 0 {
		var next []Anchor
		for _, issuer := range issuers {
			there = there || follows(leaf, issuer)
			rest = slices.DeleteFunc(rest, func(c link) bool {
				if !follows(c, issuer) {
					return false
				}
				next = append(next, Anchor{c.Certificate, c.subject})
				between = append(between, c.Certificate)
				return true
			})
		}
		issuers = next
	}
	unknown := x509.UnknownAuthorityError{Cert: leaf.Certificate}
	switch {
	case there:
		return anchors, between, nil
	case refused != nil:
		return nil, nil, fmt.Errorf("%w; %w", unknown, refused)
	}
	return nil, nil, unknown
}

// handling is a copy of c without what this package judges itself: crypto/x509 lets an
// rfc822Name or URI constraint on a host hold for its subdomains, refuses critical
// constraints on directoryName, counts self-issued certificates in path lengths, and
// compares names octet by octet: the copy's are written so that this is RFC 5280 §7.1.
func handling(c *x509.Certificate, names bool) *x509.Certificate {
	handled := *c
	handled.UnhandledCriticalExtensions = slices.DeleteFunc(slices.Clone(c.UnhandledCriticalExtensions), func(oid asn1.ObjectIdentifier) bool {
		return oid.Equal(oidNameConstraints) || names && oid.Equal(oidSubjectAltName)
	})
	handled.PermittedDNSDomains, handled.ExcludedDNSDomains = nil, nil
	handled.PermittedIPRanges, handled.ExcludedIPRanges = nil, nil
	handled.PermittedEmailAddresses, handled.ExcludedEmailAddresses = nil, nil
	handled.PermittedURIDomains, handled.ExcludedURIDomains = nil, nil
	handled.MaxPathLen = -1
	handled.RawSubject, handled.RawIssuer = []byte(der.NameKey(c.RawSubject)), []byte(der.NameKey(c.RawIssuer))
	return &handled
}

// Error is a fault of one certificate: its signature, key, names, or what RFC 9608 forbids. What
// crypto/x509 finds is an error of that package. Both may be told to whoever sent the certificates.
type Error struct {
	Certificate *x509.Certificate
	Reason      error
}

func (e *Error) Error() string { return naming(e.Certificate) + " " + e.Reason.Error() }
func (e *Error) Unwrap() error { return e.Reason }

// sound judges the strength of a certificate below an anchor, whose own signature does not count.
func sound(c *x509.Certificate) error {
	if err := der.AcceptSignature(c.SignatureAlgorithm); err != nil {
		return err
	}
	return der.AcceptKey(c.PublicKey)
}

// naming names a certificate in an error.
func naming(c *x509.Certificate) string {
	if name := c.Subject.String(); name != "" {
		return fmt.Sprintf("the certificate of %.200s", name)
	}
	return fmt.Sprintf("certificate %x", c.SerialNumber)
}

// inspect holds a path that crypto/x509 accepts to the rest of the rules.
func inspect(p []*x509.Certificate) error {
	for _, c := range p[:max(len(p)-1, 1)] {
		if err := noRevAvail(c); err != nil {
			return &Error{c, err}
		}
	}
	if err := pathLength(p); err != nil {
		return err
	}
	return constrain(p)
}

// pathLength counts the CAs between, but for self-issued ones (RFC 5280 §4.2.1.9, §6.1.4 l, m).
func pathLength(p []*x509.Certificate) error {
	between := 0
	for i := 1; i < len(p); i++ {
		if c := p[i]; c.BasicConstraintsValid && c.MaxPathLen >= 0 && between > c.MaxPathLen {
			return &Error{c, fmt.Errorf("allows for %d CAs below it, and there are %d (pathLenConstraint)", c.MaxPathLen, between)}
		}
		if !selfIssued(p[i]) {
			between++
		}
	}
	return nil
}

// NoRevAvail reports whether a certificate says that its status is not published (RFC 9608).
func NoRevAvail(c *x509.Certificate) bool { return extension(c, oidNoRevAvail) != nil }

// noRevAvail holds certificates with the extension to RFC 9608 §3.
func noRevAvail(c *x509.Certificate) error {
	switch {
	case !NoRevAvail(c):
		return nil
	case c.IsCA:
		return errors.New("is a CA's, and says noRevAvail (RFC 9608 §3)")
	case extension(c, oidCRLPoints) != nil || extension(c, oidFreshestCRL) != nil || len(c.OCSPServer) > 0:
		return errors.New("says noRevAvail, and where its status is published (RFC 9608 §3)")
	}
	return nil
}

func extension(c *x509.Certificate, oid asn1.ObjectIdentifier) *pkix.Extension {
	for i := range c.Extensions {
		if c.Extensions[i].Id.Equal(oid) {
			return &c.Extensions[i]
		}
	}
	return nil
}

func selfIssued(c *x509.Certificate) bool { return der.SameName(c.RawIssuer, c.RawSubject) }
