package est

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	encasn1 "encoding/asn1"
	"errors"
	"fmt"
	"mime/multipart"
	"net/http"
	"net/textproto"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/internal/cms"
	"github.com/deviceca/deviceca/policy"
)

// serverkeygen makes a key for the device and certifies it (RFC 7030 §4.4). The
// key lives in memory from step 4 until the reply was sent, and nowhere else: a
// reply that is lost is a key that is lost, and the device asks again.
func (s *server) serverkeygen(w http.ResponseWriter, r *http.Request, label string) (*reply, error) {
	if s.Rules == nil {
		return nil, errNotImplemented
	}

	// 1. The body, and who asks.
	requester, body, err := s.receive(w, r, "application/pkcs10")
	if err != nil {
		return nil, err
	}

	// 2. May there be a key for it at all? The profile says.
	profile, err := s.profile(requester, label)
	if err != nil {
		return nil, err
	}
	allowed := s.rules(profile).Keygen
	if allowed == KeygenNever {
		return nil, ca.Errorf(ca.Denied, "profile %s does not allow that keys are made by the server: make one and use simpleenroll", profile.Name)
	}

	// 3. What is asked, over this connection, by who may have it, and who shall be able to read the key.
	der, err := decodeRequest(body)
	if err != nil {
		return nil, err
	}
	csr, hint, err := parseUnproven(der)
	if err != nil {
		return nil, err
	}
	if err := s.bound(r, requester, label, csr); err != nil {
		return nil, err
	}
	asked := request(r, requester, label, csr, false)
	asked.ServerKey = true
	deed, err := asked.Deed()
	if err == nil {
		asked.Requester, err = s.may(r, requester, deed)
	}
	if err != nil {
		return nil, err
	}
	envelope, err := s.envelope(r.Context(), asked.Requester, csr, allowed)
	if err != nil {
		return nil, err
	}

	// 4. The key. It costs more than a certificate does, whatever comes of the request.
	if err := s.Authority.Spend(requester, requester.Device, r.RemoteAddr); err != nil {
		return nil, err
	}
	key, err := ca.MakeKey(r.Context(), profile.Keys, hint)
	if err != nil {
		return nil, err
	}
	defer ca.WipeKey(key)
	asked.PublicKey = key.Public()
	if asked.SPKI, err = x509.MarshalPKIXPublicKey(asked.PublicKey); err != nil {
		return nil, fmt.Errorf("encoding a key just made: %w", err)
	}

	// 5. Its envelope, before anything is issued: what cannot be delivered is not certified.
	private, err := s.seal(r.Context(), envelope, key)
	if err != nil {
		return nil, err
	}
	defer clear(private.body)

	// 6. The core decides, issues, and makes it durable.
	issued, err := s.issue(r, asked)
	if err != nil {
		return nil, err
	}
	if !bytes.Contains(issued.Certificate.DER, asked.SPKI) {
		return nil, errors.New("the certificate issued is not for the key that was made")
	}

	// 7. Key first, certificate second (§4.4.2).
	contentType, whole, err := mixed(private, part{certsOnly, encodeBody(cms.CertsOnly(issued.Certificate.DER))})
	if err != nil {
		return nil, err
	}
	return &reply{status: http.StatusOK, contentType: contentType, header: decided(issued), body: whole,
		outcome: string(issued.Outcome), secret: true}, nil
}

// parseUnproven reads a request (RFC 2986 §4) whose key and signature are to be
// ignored, as RFC 7030 §4.4.1 demands: with a key of ours in their place it is a request
// like any other. hint is the kind of the key it came with, "" if that is none.
//
//	CertificationRequest ::= SEQUENCE { certificationRequestInfo, signatureAlgorithm, signature }
//	CertificationRequestInfo ::= SEQUENCE { version INTEGER, subject Name,
//	    subjectPKInfo SubjectPublicKeyInfo, attributes [0] IMPLICIT SET OF Attribute }
func parseUnproven(der []byte) (csr *ca.CSR, hint string, err error) {
	var outer, info, version, subject, spki cryptobyte.String
	in := cryptobyte.String(der)
	if !in.ReadASN1(&outer, asn1.SEQUENCE) || !in.Empty() || !outer.ReadASN1(&info, asn1.SEQUENCE) ||
		!outer.SkipASN1(asn1.SEQUENCE) || !outer.SkipASN1(asn1.BIT_STRING) || !outer.Empty() ||
		!info.ReadASN1Element(&version, asn1.INTEGER) || !info.ReadASN1Element(&subject, asn1.SEQUENCE) ||
		!info.ReadASN1Element(&spki, asn1.SEQUENCE) {
		return nil, "", ca.Errorf(ca.Malformed, "the request is not one DER-encoded PKCS#10 certificate request")
	}
	if pub, err := x509.ParsePKIXPublicKey(spki); err == nil {
		hint, _ = policy.KeyAlgorithm(pub) // an unfit one is no hint
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, "", fmt.Errorf("making a key: %w", err)
	}
	if spki, err = x509.MarshalPKIXPublicKey(key.Public()); err != nil {
		return nil, "", fmt.Errorf("encoding a key: %w", err)
	}
	var b cryptobyte.Builder
	b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		for _, part := range []cryptobyte.String{version, subject, spki, info} { // the rest of info: attributes
			b.AddBytes(part)
		}
	})
	signed := b.BytesOrPanic() // fails only beyond 4 GiB
	digest := sha256.Sum256(signed)
	signature, err := key.Sign(rand.Reader, digest[:], crypto.SHA256)
	if err != nil {
		return nil, "", fmt.Errorf("signing a request: %w", err)
	}
	var whole cryptobyte.Builder
	whole.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddBytes(signed)
		b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) { b.AddASN1ObjectIdentifier(oidECDSAWithSHA256) })
		b.AddASN1BitString(signature)
	})
	csr, err = ca.ParseCSR(whole.BytesOrPanic())
	return csr, hint, err
}

var oidECDSAWithSHA256 = encasn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 2}

// part is one part of a multipart body, in base64.
type part struct {
	contentType string
	body        []byte
}

// mixed joins parts to multipart/mixed (RFC 2046 §5.1.3). Each says that it is
// base64, which RFC 7030 §4.4.2 wants and RFC 8951 §3.2.4 lets go.
func mixed(parts ...part) (contentType string, body []byte, err error) {
	size := 1024
	for _, p := range parts {
		size += len(p.body)
	}
	out := bytes.NewBuffer(make([]byte, 0, size)) // not to be reallocated: it is wiped
	w := multipart.NewWriter(out)
	for _, p := range parts {
		to, err := w.CreatePart(textproto.MIMEHeader{"Content-Type": {p.contentType}, "Content-Transfer-Encoding": {"base64"}})
		if err != nil {
			return "", nil, err
		}
		if _, err := to.Write(p.body); err != nil {
			return "", nil, err
		}
	}
	if err := w.Close(); err != nil {
		return "", nil, err
	}
	return "multipart/mixed; boundary=" + w.Boundary(), out.Bytes(), nil
}
