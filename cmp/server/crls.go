package server

import (
	"context"
	"crypto/x509"
	"errors"
	"time"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/cmp"
)

// Lists finds the CRLs that are published here. It fetches none from elsewhere
// (RFC 9483 §4.3.4). It is safe for concurrent use.
type Lists interface {
	// Newer is the CRL (DER) of a distribution point, by its URI, or, with uri "", the
	// complete one of a CA by the name of its generation. It is nil if thisUpdate is
	// not after since, and if there is no such list. ErrTooLong for more than limit octets.
	Newer(ctx context.Context, uri, issuer string, since time.Time, limit int64) ([]byte, error)
}

// ErrTooLong is the error of Lists for a CRL that has more octets than wanted.
var ErrTooLong = errors.New("the CRL is too long for a message")

// maxLists is how many octets of CRLs the answer to one HTTP request holds.
const maxLists = 4 << 20

// crls answers crlStatusList (RFC 9483 §4.3.4): of each source the CRL that is
// published now, if the client has an older one or none.
func (x *exchange) crls(ctx context.Context, asked cmp.Info) (cmp.Info, error) {
	list, _, err := cmp.Infos{asked}.CRLStatusList()
	if err != nil {
		return cmp.Info{}, err
	}
	var found [][]byte
	for _, v := range list {
		crl, err := x.newer(ctx, v)
		if err != nil {
			return cmp.Info{}, err
		}
		if crl != nil {
			found = append(found, crl)
		}
	}
	return cmp.CRLs(found...)
}

// newer tries the names of one source, which are alternatives to each other
// (RFC 5280 §4.2.1.13). Names relative to an issuer are in no certificate of ours.
func (x *exchange) newer(ctx context.Context, v cmp.CRLStatus) ([]byte, error) {
	for _, n := range v.FullName {
		if uri, ok := n.URI(); ok {
			if crl, err := x.list(ctx, uri, "", v.ThisUpdate.At); crl != nil || err != nil {
				return crl, err
			}
		}
	}
	for _, n := range v.Issuer {
		dn, ok := n.Directory()
		if !ok {
			continue
		}
		if issuer := x.issuerNamed(dn); issuer != "" {
			return x.list(ctx, "", issuer, v.ThisUpdate.At)
		}
	}
	return nil, nil
}

func (x *exchange) list(ctx context.Context, uri, issuer string, since time.Time) ([]byte, error) {
	crl, err := x.Lists.Newer(ctx, uri, issuer, since, x.room.Load())
	if errors.Is(err, ErrTooLong) || err == nil && x.room.Add(-int64(len(crl))) < 0 {
		return nil, refuse(cmp.BadRequest, "RFC 9483 §4.3.4", "the CRLs asked for have more than %d octets: ask for one, or fetch it over HTTP", maxLists)
	}
	return crl, err
}

// issuerNamed is the name of the newest CA generation with a subject; "" if there is none.
func (x *exchange) issuerNamed(dn []byte) (name string) {
	for _, record := range x.Authority.Issuers() { // by generation
		if record.Role == "cross" {
			continue
		}
		if c, err := x509.ParseCertificate(record.Cert); err == nil && cmp.SameName(c.RawSubject, dn) {
			name = record.Name
		}
	}
	return name
}

// currentCRL answers for the CA that issued the requester's certificate, else the
// newest (RFC 9810 §5.3.19.6).
func (x *exchange) currentCRL(ctx context.Context) (cmp.Info, error) {
	issuer := ""
	if own := x.requester.Certificate; own != nil {
		issuer = own.Issuer
	} else {
		issuer = newestIssuing(x.Authority.Issuers(), x.Now())
	}
	crl, err := x.list(ctx, "", issuer, time.Time{})
	return cmp.CurrentCRL(crl), err
}

func newestIssuing(records []ca.IssuerRecord, now time.Time) (name string) {
	for _, r := range records {
		if r.Role == "issuing" && r.Revoked == nil && !r.Activates.After(now) {
			name = r.Name
		}
	}
	return name
}
