package acme

import (
	"bytes"
	"crypto/x509"
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/deviceca/deviceca/ca"
)

// revocable are the reasons that a client may give (RFC 5280 §5.3.1): those of a certificate that is its own. A hold is an
// administrator's, who can end it.
var revocable = []int{0, 1, 3, 4, 5, 9}

var errAlreadyRevoked = problem("alreadyRevoked", "the certificate is revoked already")

// revokeCert revokes a certificate (RFC 8555 §7.6) for the account that got it, for an account that is authorized for
// all that it names, or for whoever holds its key.
func (x *exchange) revokeCert() (*reply, error) {
	if err := x.needBody(); err != nil {
		return nil, err
	}
	der, err := x.body.octets("certificate")
	reason := 0
	if err == nil {
		reason, err = x.body.number("reason")
	}
	if err != nil {
		return nil, problem(malformed, "the request: %w", err)
	}
	if !slices.Contains(revocable, reason) {
		return nil, problem("badRevocationReason", "the reason %d is not one that may be given: use unspecified 0, keyCompromise 1, affiliationChanged 3, superseded 4, cessationOfOperation 5 or privilegeWithdrawn 9", reason)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, problem(malformed, "the certificate cannot be read: %w", err)
	}
	unknown := problem(malformed, "the certificate is not one of this CA's").with(http.StatusNotFound)
	serial, ours := ca.SerialFromBig(cert.SerialNumber)
	if !ours {
		return nil, unknown
	}
	c, err := x.Ledger.CertificateBySerial(x.ctx(), serial)
	if errors.Is(err, ca.ErrNoRecord) || err == nil && (!bytes.Equal(c.DER, der) || c.Device == "") {
		return nil, unknown
	}
	if err != nil {
		return nil, err
	}
	actor, err := x.mayRevoke(c, cert)
	if err != nil {
		return nil, err
	}
	x.device = c.Device
	if err := x.spend(c.Device); err != nil {
		return nil, err
	}
	_, err = x.Authority.Revoke(x.ctx(), serial, reason, nil, actor)
	if err != nil && ca.KindOf(err) == ca.Conflict {
		return nil, errAlreadyRevoked
	}
	return &reply{}, err
}

// mayRevoke is on whose behalf a certificate is revoked; unauthorized if the requester may not.
func (x *exchange) mayRevoke(c *ca.Certificate, cert *x509.Certificate) (actor string, err error) {
	requester, err := x.revoker(c, cert)
	if err == nil {
		err = x.Authority.MayActFor(x.ctx(), requester, ca.Deed{Act: ca.ActRevoke, Certificate: c, Authorized: x.who != nil})
	}
	return requester.Actor(), err
}

// revoker is the requester: the certificate's own key, or an account that got the certificate or is
// authorized for all that it names.
func (x *exchange) revoker(c *ca.Certificate, cert *x509.Certificate) (ca.Requester, error) {
	if x.who == nil {
		if !bytes.Equal(x.key.spki, cert.RawSubjectPublicKeyInfo) {
			return ca.Requester{}, problem(unauthorized, "the request is signed neither by an account nor by the certificate's key")
		}
		if c.Revocation != nil && c.Revocation.Reason != ca.ReasonCertificateHold {
			return ca.Requester{}, errAlreadyRevoked
		}
		return x.Authority.AuthenticateCertificate(x.ctx(), []*x509.Certificate{cert})
	}
	ids := []Identifier{{"permanent-identifier", c.Device}}
	if c.Actor != ca.AccountActor(x.who.ID) {
		var err error
		if ids, err = identifiers(c, cert); err == nil {
			err = x.authorizedFor(ids)
		}
		if err != nil {
			return ca.Requester{}, err
		}
	}
	return x.Authority.AccountRequester(x.ctx(), x.who.ID, x.who.Credential, sans(ids))
}

// authorizedFor reports which of the identifiers the account holds no valid authorization for.
func (x *exchange) authorizedFor(ids []Identifier) error {
	for _, id := range ids {
		name, wildcard := strings.CutPrefix(id.Value, "*.")
		if wildcard = wildcard && id.Type == "dns"; wildcard {
			id.Value = name
		}
		_, err := x.Ledger.ValidAuthorization(x.ctx(), x.who.ID, id, wildcard, time.Time{}.AddDate(1969, 0, 0), x.now)
		if errors.Is(err, ca.ErrNoRecord) {
			return problem(unauthorized, "this account did not get the certificate, and is not authorized for its %s %q", id.Type, id.Value)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// identifiers are those that a certificate names: its SANs, or the device itself where there are none.
func identifiers(c *ca.Certificate, cert *x509.Certificate) ([]Identifier, error) {
	for _, e := range cert.Extensions {
		if !e.Id.Equal(oidSubjectAltName) {
			continue
		}
		names, err := ca.ParseNames(cert.RawSubject, e.Value)
		if err != nil {
			return nil, err
		}
		var ids []Identifier
		for _, n := range names.SANs {
			if n.Form == "dns" {
				n.Value = strings.ToLower(n.Value)
			}
			ids = append(ids, Identifier{n.Form, n.Value})
		}
		return ids, nil
	}
	return []Identifier{{"permanent-identifier", c.Device}}, nil
}
