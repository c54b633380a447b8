package admin

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"strconv"

	"github.com/deviceca/deviceca/ca"
)

func (c *call) listCertificates() (any, error) {
	q, w, after, n, err := c.numberedWindow("device", "issuer", "profile", "revoked", "expires_before", "expires_after")
	if err != nil {
		return nil, err
	}
	f := ca.CertificateFilter{Device: q.Get("device"), Issuer: q.Get("issuer"), Profile: q.Get("profile"), Window: w}
	if v := q.Get("revoked"); v != "" {
		revoked, err := strconv.ParseBool(v)
		if err != nil {
			return nil, ca.Errorf(ca.Malformed, "revoked must be true or false")
		}
		f.Revoked = &revoked
	}
	if f.ExpiresBefore, err = timeParam(q, "expires_before"); err != nil {
		return nil, err
	}
	if f.ExpiresAfter, err = timeParam(q, "expires_after"); err != nil {
		return nil, err
	}
	list, err := c.Reader.Certificates(c.r.Context(), f, after, n)
	return page(list, n, err, func(r ca.Certificate) string { return windowKey(w, r.IssuedAt, strconv.FormatInt(r.ID, 10)) })
}

// certificate reads the one that the path names.
func (c *call) certificate() (*ca.Certificate, error) {
	serial, err := c.serial()
	if err != nil {
		return nil, err
	}
	cert, err := c.Reader.CertificateBySerial(c.r.Context(), serial)
	return cert, missing(err, "no certificate with serial %s", serial)
}

func (c *call) showCertificate() (any, error) {
	if _, err := c.query(); err != nil {
		return nil, err
	}
	cert, err := c.certificate()
	if err != nil {
		return nil, err
	}
	if len(cert.DER) == 0 { // entered after a restore, from a revocation alone
		return CertificateDetail{*cert, ""}, nil
	}
	return CertificateDetail{*cert, encodePEM(cert.DER)}, nil
}

func encodePEM(der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

func (c *call) revokeCertificate() (any, error) {
	serial, err := c.serial()
	if err != nil {
		return nil, err
	}
	var in Revoke
	if err := c.decode(&in); err != nil {
		return nil, err
	}
	if in.Reason == "" {
		in.Reason = "unspecified"
	}
	reason, err := ca.ParseReason(in.Reason)
	if err != nil {
		return nil, ca.Errorf(ca.Malformed, "%s", err)
	}
	if in.Invalid != nil && in.Invalid.After(c.Now()) {
		return nil, ca.Errorf(ca.Malformed, "the invalidity date lies in the future: it is when the key was lost (RFC 5280 §5.3.2)")
	}
	lost, err := in.lost()
	if err != nil {
		return nil, err
	}
	if lost.Cert != nil {
		there, err := c.Reader.CertificateBySerial(c.r.Context(), serial)
		if err == nil && len(there.DER) > 0 && !bytes.Equal(there.DER, lost.Cert.Raw) {
			return nil, ca.Errorf(ca.Malformed, "the certificate is another than the one issued with serial %s", serial)
		}
	}
	cert, err := c.Core.Revoke(c.r.Context(), serial, reason, in.Invalid, c.who.Actor)
	if err != nil && ca.KindOf(err) == ca.NotFound && (lost.Cert != nil || lost.Issuer != "") {
		cert, err = c.Core.RevokeLost(c.r.Context(), serial, lost, reason, in.Invalid, c.who.Actor)
	}
	return nonNil(cert, missing(err, "no certificate with serial %s", serial))
}

// lost reads what a request says of a certificate that the ledger does not hold.
func (in *Revoke) lost() (ca.Lost, error) {
	l := ca.Lost{Issuer: in.Issuer}
	if in.NotAfter != nil {
		l.NotAfter = *in.NotAfter
	}
	if in.Cert == "" {
		return l, nil
	}
	block, rest := pem.Decode([]byte(in.Cert))
	if block == nil || block.Type != "CERTIFICATE" || len(bytes.TrimSpace(rest)) > 0 {
		return l, ca.Errorf(ca.Malformed, "cert must be one certificate in PEM")
	}
	var err error
	if l.Cert, err = x509.ParseCertificate(block.Bytes); err != nil {
		return l, ca.Errorf(ca.Malformed, "the certificate cannot be read: %w", err)
	}
	return l, nil
}

func (c *call) releaseCertificate() (any, error) {
	serial, err := c.serial()
	if err != nil {
		return nil, err
	}
	if err := c.decode(&struct{}{}); err != nil {
		return nil, err
	}
	cert, err := c.Core.Release(c.r.Context(), serial, c.who.Actor)
	return nonNil(cert, missing(err, "no certificate with serial %s", serial))
}

// publish makes CRLs and packs beside their schedule.
func (c *call) publish() (any, error) {
	var in Publish
	if err := c.decode(&in); err != nil {
		return nil, err
	}
	if c.Publish == nil {
		return nil, ca.Errorf(ca.Denied, "this server publishes no CRLs")
	}
	names, err := c.Publish(c.r.Context(), in.CA)
	if err != nil {
		return nil, err
	}
	return Published{CAs: names}, nil
}
