package server

import (
	"bytes"
	"context"
	"crypto/x509"
	"sync"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/cmp"
)

// registered are the certificates of registration authorities that the message may have been signed with, where it
// does not bring its protection certificate along: RFC 9483 §3.3 has clients leave out what is self-signed, and some
// leave that out too. They are found by senderKID. Whether the RA may speak is asked as of any other.
func (x *exchange) registered(ctx context.Context) (known []*x509.Certificate, err error) {
	kid := x.in.Header.SenderKID
	if len(kid) == 0 || x.in.UsesMAC() || x.in.Protection == nil {
		return nil, nil
	}
	if len(x.in.ExtraCerts) > 0 {
		if first, err := x509.ParseCertificate(x.in.ExtraCerts[0]); err == nil && bytes.Equal(first.SubjectKeyId, kid) {
			return nil, nil
		}
	}
	dn, ok := x.in.Header.Sender.Directory()
	if !ok {
		return nil, nil
	}
	all, err := x.Ledger.RAs(ctx)
	if err != nil {
		return nil, err
	}
	for _, ra := range all {
		if ra.Removed != nil {
			continue
		}
		if c := x.registrars.certificate(ra); c != nil && bytes.Equal(c.SubjectKeyId, kid) && cmp.SameName(c.RawSubject, dn) {
			known = append(known, c)
		}
	}
	return known, nil
}

// registrars keeps the certificates of registration authorities parsed: an entry of the register has one for good.
type registrars struct{ parsed sync.Map } // *x509.Certificate by ca.RA.ID

// certificate is nil if it cannot be read.
func (r *registrars) certificate(ra ca.RA) *x509.Certificate {
	if c, ok := r.parsed.Load(ra.ID); ok {
		return c.(*x509.Certificate)
	}
	c, err := x509.ParseCertificate(ra.Cert)
	if err != nil {
		return nil
	}
	r.parsed.Store(ra.ID, c)
	return c
}
