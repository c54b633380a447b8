package acme

import (
	"bytes"
	"crypto/x509"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/deviceca/deviceca/ca"
)

// revocable are the reasons that a client may give (RFC 5280 §5.3.1): those of a certificate that is its own. A hold is an
// administrator's, who can end it.
var revocable = []int{0, 1, 3, 4, 5, 9}

// revokeCert revokes a certificate (RFC 8555 §7.6) for the account that got it, for an account that is authorized for
// all that it names, or for whoever holds its key.
func (x *exchange) revokeCert() (*reply, error) {
	if err := x.needBody(); err != nil {
		return nil, err
	}
	der, err := x.body.octets("certificate")
	reason := 0
	if err == nil && x.body.has("reason") {
		reason, err = strconv.Atoi(string(x.body.raw("reason")))
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
		return nil, problem("alreadyRevoked", "the certificate is revoked already")
	}
	return &reply{}, err
}

// mayRevoke is on whose behalf a certificate is revoked; unauthorized if whoever asks may not.
func (x *exchange) mayRevoke(c *ca.Certificate, cert *x509.Certificate) (actor string, err error) {
	if x.who == nil {
		if !bytes.Equal(x.key.spki, cert.RawSubjectPublicKeyInfo) {
			return "", problem(unauthorized, "the request is signed neither by an account nor by the certificate's key")
		}
		return "device:" + c.Device, nil
	}
	actor = ca.AccountActor(x.who.ID)
	if c.Actor == actor {
		return actor, nil
	}
	ids, err := identifiers(c, cert)
	if err != nil {
		return "", err
	}
	for _, id := range ids {
		name, wildcard := strings.CutPrefix(id.Value, "*.")
		if wildcard = wildcard && id.Type == "dns"; wildcard {
			id.Value = name
		}
		_, err := x.Ledger.ValidAuthorization(x.ctx(), x.who.ID, id, wildcard, time.Time{}.AddDate(1969, 0, 0), x.now)
		if errors.Is(err, ca.ErrNoRecord) {
			return "", problem(unauthorized, "this account did not get the certificate, and is not authorized for its %s %q", id.Type, id.Value)
		}
		if err != nil {
			return "", err
		}
	}
	return actor, nil
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
