package acme

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-chi/chi/v5"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/device"
)

// The window in which a certificate should be renewed (RFC 9773 §4.2), in shares of its validity: it is a twentieth wide,
// and its middle lies a twentieth before or after the profile's renewal fraction at most, by
// a number that is the certificate's own, so that a fleet which enrolled in one second does not renew in one.
const (
	windowShare = 20
	jitterShare = 20
	// rotationShare: after a rotation of the CA, windows begin within a tenth of the validity.
	rotationShare = 10
	minWindow     = time.Second
)

// window is when to renew.
type window struct {
	Start time.Time `json:"start"`
	End   time.Time `json:"end"`
}

// renewalWindow is when a certificate should be renewed. issuers are the CAs, as Authority.Issuers lists them.
func renewalWindow(c *ca.Certificate, renewAt float64, issuers []ca.IssuerRecord) window {
	life := c.NotAfter.Sub(c.IssuedAt)
	width := max(life/windowShare, minWindow)
	middle := c.IssuedAt.Add(time.Duration(renewAt*float64(life)) + time.Duration((2*share(c.Serial)-1)*float64(life/jitterShare)))
	w := window{middle.Add(-width / 2), middle.Add(width / 2)}
	if c.Revocation != nil {
		return passed(c.Revocation.Time, width)
	}
	i := slices.IndexFunc(issuers, func(r ca.IssuerRecord) bool { return r.Name == c.Issuer })
	if i < 0 {
		return w.whole()
	}
	if revoked := issuers[i].Revoked; revoked != nil {
		return passed(revoked.Time, width)
	}
	for _, other := range issuers {
		if other.Role == issuers[i].Role && other.Generation > issuers[i].Generation && other.Revoked == nil {
			// Pulled forward, and spread: not all devices at once.
			if start := other.Since().Add(time.Duration(share(c.Serial) * float64(life/rotationShare))); start.Before(w.Start) {
				w = window{start, start.Add(width)}
			}
		}
	}
	return w.whole()
}

// passed is a window that has ended: renew at once.
func passed(at time.Time, width time.Duration) window {
	return window{at.Add(-width), at}.whole()
}

// whole is the window in whole seconds, with its end after its start.
func (w window) whole() window {
	start := w.Start.UTC().Truncate(time.Second)
	return window{start, start.Add(max(w.End.Sub(w.Start).Truncate(time.Second), minWindow))}
}

// share is a number from 0 to below 1 that is the certificate's own.
func share(serial ca.Serial) float64 {
	sum := sha256.Sum256(append([]byte("renewal window"), serial[:]...))
	return float64(binary.BigEndian.Uint64(sum[:8])>>11) / (1 << 53)
}

// Bounds of Retry-After: a twentieth of the validity within these.
const (
	minRenewalRetry = time.Minute
	maxRenewalRetry = 6 * time.Hour
)

// renewalInfo says when to renew a certificate (RFC 9773 §4), to whoever asks.
func (x *exchange) renewalInfo() (*reply, error) {
	if err := x.limits.renewalInfo(x.from, x.now); err != nil {
		return nil, err
	}
	c, _, err := x.certificateByID(chi.URLParam(x.r, "cert"))
	if err != nil {
		return nil, err
	}
	retry := min(max(c.NotAfter.Sub(c.IssuedAt)/windowShare, minRenewalRetry), maxRenewalRetry)
	return &reply{body: map[string]any{"suggestedWindow": renewalWindow(c, x.Authority.RenewAt(c), x.Authority.Issuers())},
		retryAfter: retry, cache: "max-age=" + strconv.Itoa(int(minRenewalRetry/time.Second))}, nil
}

// parseCertID reads the name of a certificate (RFC 9773 §4.1): its authority key identifier and its serial, each in
// base64url, with a dot between. There is one such name for a certificate.
func parseCertID(name string) (authority []byte, serial ca.Serial, err error) {
	bad := problem(malformed, "%.100q is no certificate: write the authority key identifier and the serial number, each in base64url, with a dot between", name)
	first, second, ok := strings.Cut(name, ".")
	if !ok || len(name) > 200 || strings.ContainsAny(name, "\r\n") {
		return nil, serial, bad
	}
	authority, err = base64url.DecodeString(first)
	if err != nil || len(authority) == 0 {
		return nil, serial, bad
	}
	number, err := base64url.DecodeString(second)
	if err != nil || len(number) == 0 {
		return nil, serial, bad
	}
	if len(number) != len(serial) {
		return nil, serial, problem(malformed, "the certificate is not one of this CA's").with(http.StatusNotFound)
	}
	return authority, ca.Serial(number), nil
}

// certificateByID finds the certificate that a client names.
func (x *exchange) certificateByID(name string) (*ca.Certificate, *x509.Certificate, error) {
	authority, serial, err := parseCertID(name)
	if err != nil {
		return nil, nil, err
	}
	unknown := problem(malformed, "the certificate is not one of this CA's").with(http.StatusNotFound)
	c, err := x.Ledger.CertificateBySerial(x.ctx(), serial)
	if errors.Is(err, ca.ErrNoRecord) {
		return nil, nil, unknown
	}
	if err != nil {
		return nil, nil, err
	}
	cert, err := x509.ParseCertificate(c.DER)
	if err != nil {
		return nil, nil, err
	}
	if !bytes.Equal(cert.AuthorityKeyId, authority) {
		return nil, nil, unknown
	}
	return c, cert, nil
}

// predecessor finds the certificate that an order replaces (RFC 9773 §5); nil if it replaces none. It must be of this
// account, or of the device that it is for, and have an identifier of the order.
func (x *exchange) predecessor(o *Order) (*ca.Certificate, error) {
	if o.Replaces == "" {
		return nil, nil
	}
	c, cert, err := x.certificateByID(o.Replaces)
	if err != nil {
		p := refuse(err)
		p.Detail = "replaces: " + p.Detail
		return nil, p
	}
	if c.Actor != ca.AccountActor(x.who.ID) && !device.SameID(c.Device, x.device) {
		return nil, problem(unauthorized, "replaces: the certificate was issued to another account, and to another device")
	}
	ids, err := identifiers(c, cert)
	if err != nil {
		return nil, err
	}
	if !slices.ContainsFunc(ids, func(id Identifier) bool { return slices.Contains(o.Identifiers, id) }) {
		return nil, problem(malformed, "replaces: the certificate has no identifier of this order")
	}
	return c, nil
}
