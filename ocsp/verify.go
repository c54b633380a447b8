package ocsp

import (
	"bytes"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"time"

	"github.com/deviceca/deviceca/internal/der"
)

// ErrNotTrusted is wrapped by the errors of Verify.
var ErrNotTrusted = errors.New("the OCSP response is not to be trusted")

// clockSkew is how far ahead of ours a responder's clock may be.
const clockSkew = 5 * time.Minute

var oidNoCheck = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 48, 1, 5}

// Verify checks a response as RFC 6960 §3.2 and draft-ietf-lamps-rfc5019bis §4
// ask of a relying party: signed by the issuer itself, or by a delegate whose
// certificate the issuer signed, that is valid at now, is marked for OCSP
// signing, and need not be checked itself (§4.2.2.2.1: id-pkix-ocsp-nocheck, or no pointer to
// where it could be checked); each answer about the issuer's
// certificates and current at now, with a nextUpdate. What it says of one certificate
// is for [Response.Find]; the nonce is for the caller to compare, if it sent one.
// Errors wrap ErrNotTrusted.
func Verify(r *Response, issuer *x509.Certificate, now time.Time) error {
	return verify(r, issuer, now, false)
}

// verify allows SHA-1 signatures of old recordings if told so.
func verify(r *Response, issuer *x509.Certificate, now time.Time, sha1 bool) error {
	fail := func(format string, args ...any) error {
		return fmt.Errorf("%w: "+format, append([]any{ErrNotTrusted}, args...)...)
	}
	if r.Status != Successful {
		return fail("the responder said %s", r.Status)
	}
	// Who signs is settled before any signature of a stranger is computed.
	signer, err := r.signer(issuer, now, sha1)
	if err != nil {
		return fail("%v", err)
	}
	alg := der.SignatureOf(r.Algorithm)
	if err := accept(alg, signer, sha1); err != nil {
		return fail("%v", err)
	}
	if err := signer.CheckSignature(alg, r.TBS, r.Signature); err != nil {
		return fail("its signature is wrong: %v", err)
	}
	for i := range r.Responses {
		s := &r.Responses[i]
		switch {
		case !s.ID.matches(issuer):
			return fail("it is about certificates of another issuer")
		case s.ThisUpdate.After(now.Add(clockSkew)):
			return fail("it begins in the future, at %s; check the clock", s.ThisUpdate.Format(time.RFC3339))
		case s.NextUpdate.IsZero():
			return fail("it has no nextUpdate, so it could be of any age")
		case s.NextUpdate.Before(now):
			return fail("it ended at %s; fetch a new one", s.NextUpdate.Format(time.RFC3339))
		}
	}
	return nil
}

// accept judges the strength of a signature. An issuer's or delegate's CertID may be hashed with SHA-1 all the same.
func accept(alg x509.SignatureAlgorithm, signer *x509.Certificate, sha1 bool) error {
	if err := der.AcceptSignature(alg); err != nil && !(sha1 && alg == x509.SHA1WithRSA) {
		return err
	}
	if err := der.AcceptKey(signer.PublicKey); err != nil {
		return fmt.Errorf("%s: %w", signer.Subject, err)
	}
	return nil
}

// signer finds the certificate of whoever claims to have signed.
func (r *Response) signer(issuer *x509.Certificate, now time.Time, sha1 bool) (*x509.Certificate, error) {
	if r.isSigner(issuer) {
		return issuer, nil
	}
	for _, raw := range r.Certificates {
		cert, err := der.Certificate(raw)
		if err != nil || !r.isSigner(cert) {
			continue
		}
		if !der.SameName(cert.RawIssuer, issuer.RawSubject) {
			return nil, errors.New("another CA issued the responder's certificate")
		}
		if err := accept(cert.SignatureAlgorithm, issuer, sha1); err != nil {
			return nil, fmt.Errorf("the responder's certificate: %w", err)
		}
		if err := issuer.CheckSignature(cert.SignatureAlgorithm, cert.RawTBSCertificate, cert.Signature); err != nil {
			return nil, fmt.Errorf("the issuer did not sign the responder's certificate: %w", err)
		}
		switch {
		case cert.IsCA: // there the usage only confines what is below it
			return nil, errors.New("the responder's certificate is a CA's")
		case !slices.Contains(cert.ExtKeyUsage, x509.ExtKeyUsageOCSPSigning):
			return nil, errors.New("the responder's certificate is not for OCSP signing")
		case cert.KeyUsage != 0 && cert.KeyUsage&x509.KeyUsageDigitalSignature == 0:
			return nil, errors.New("the responder's key is not for signatures")
		case len(cert.UnhandledCriticalExtensions) > 0:
			return nil, errors.New("the responder's certificate has an unknown critical extension")
		case now.Before(cert.NotBefore) || now.After(cert.NotAfter):
			return nil, errors.New("the responder's certificate has expired or is not valid yet")
		case len(cert.OCSPServer)+len(cert.CRLDistributionPoints) > 0 && !slices.ContainsFunc(cert.Extensions, isNoCheck):
			return nil, errors.New("the responder's certificate may be revoked itself: it lacks ocsp-nocheck")
		}
		return cert, nil
	}
	return nil, errors.New("the responder is neither the issuer nor in the certificates sent along")
}

func isNoCheck(e pkix.Extension) bool { return e.Id.Equal(oidNoCheck) }

func (r *Response) isSigner(cert *x509.Certificate) bool {
	if r.ByKey != nil {
		return bytes.Equal(r.ByKey, SHA1.sum(publicKeyBits(cert)))
	}
	return der.SameName(r.ByName, cert.RawSubject)
}

// Find is what the response says of one certificate, nil if nothing. If it says several
// things, revoked counts, or else the first.
func (r *Response) Find(issuer *x509.Certificate, serial *big.Int) (found *SingleResponse) {
	for i := range r.Responses {
		s := &r.Responses[i]
		if s.ID.SerialNumber().Cmp(serial) == 0 && s.ID.matches(issuer) && (found == nil || s.Status == Revoked && found.Status != Revoked) {
			found = s
		}
	}
	return found
}
