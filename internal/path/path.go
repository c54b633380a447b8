// Package path validates certification paths (RFC 5280 §6.1), of devices' manufacturers
// and for relying parties alike. crypto/x509 finds the paths; this package adds what that leaves
// out or does otherwise: name constraints of all forms, path lengths that do not count
// self-issued certificates, the strength of signatures and keys, and the rules on noRevAvail.
package path

import (
	"bytes"
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

// Options of [Verify].
type Options struct {
	Anchors       []*x509.Certificate
	Intermediates []*x509.Certificate
	Now           time.Time
	// Usages are extended key usages of which one must hold for the whole path; none accepts any.
	Usages []x509.ExtKeyUsage
	// ReadsNames says that the caller reads the leaf's subjectAltName: crypto/x509
	// leaves a critical one that holds only forms unknown to it to its caller.
	ReadsNames bool
}

// Verify finds the paths from leaf to the anchors that hold, the leaf first and the anchor
// last. There is at least one if there is no error. Revocation is not looked at.
//
//  1. The leaf, and what its signature and key are worth. Weak certificates stay out of the paths.
//  2. Signatures, times, basicConstraints, key usages, and policies: crypto/x509.
//  3. Of the paths found, those stay that hold to the rest of RFC 5280 §6.1 and to RFC 9608 §3.
func Verify(leaf *x509.Certificate, o Options) ([][]*x509.Certificate, error) {
	roots, between := x509.NewCertPool(), x509.NewCertPool()
	originals := map[*x509.Certificate]*x509.Certificate{}
	var weak *Error
	add := func(pool *x509.CertPool, c *x509.Certificate, isAnchor bool) {
		if err := sound(c, isAnchor); err != nil {
			weak = &Error{c, fmt.Errorf("is not used: %w", err)}
			return
		}
		handled := handling(c, false)
		originals[handled] = c
		pool.AddCert(handled)
	}
	for _, c := range o.Anchors {
		add(roots, c, true)
	}
	for _, c := range o.Intermediates {
		add(between, c, false)
	}
	if err := sound(leaf, slices.ContainsFunc(o.Anchors, leaf.Equal)); err != nil {
		return nil, &Error{leaf, fmt.Errorf("is not used: %w", err)}
	}
	judged := handling(leaf, o.ReadsNames)
	originals[judged] = leaf
	usages := o.Usages
	if len(usages) == 0 {
		usages = []x509.ExtKeyUsage{x509.ExtKeyUsageAny}
	}
	found, err := judged.Verify(x509.VerifyOptions{Roots: roots, Intermediates: between, CurrentTime: o.Now, KeyUsages: usages})
	if _, lost := errors.AsType[x509.UnknownAuthorityError](err); lost && weak != nil {
		return nil, fmt.Errorf("%w; %w", err, weak)
	}
	if err != nil {
		return nil, err
	}
	var paths [][]*x509.Certificate
	for _, p := range found {
		for i, c := range p {
			p[i] = original(originals, c)
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

// original maps back what crypto/x509 was given. Its pools may hold the one of two equal certificates.
func original(originals map[*x509.Certificate]*x509.Certificate, c *x509.Certificate) *x509.Certificate {
	if o := originals[c]; o != nil {
		return o
	}
	return c
}

// handling is a copy of c without what this package judges itself: crypto/x509 lets an
// rfc822Name or URI constraint on a host hold for its subdomains, refuses critical
// constraints on directoryName, and counts self-issued certificates in path lengths.
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

// sound judges the strength of a certificate. The signature of an anchor does not count.
func sound(c *x509.Certificate, isAnchor bool) error {
	if !isAnchor {
		if err := der.AcceptSignature(c.SignatureAlgorithm); err != nil {
			return err
		}
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

func selfIssued(c *x509.Certificate) bool { return bytes.Equal(c.RawIssuer, c.RawSubject) }
