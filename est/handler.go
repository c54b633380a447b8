package est

import (
	"crypto/sha256"
	"encoding/hex"
	"log/slog"
	"net/http"
	"strconv"
	"strings"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/internal/cms"
	"github.com/deviceca/deviceca/policy"
)

// Header fields of a successful enrolment, beyond RFC 7030: what was decided
// (a policy outcome), and why if it is not all that was asked for.
const (
	OutcomeHeader = "Deviceca-Outcome"
	ReasonHeader  = "Deviceca-Reason" // one field per reason
)

// Bounds of ReasonHeader.
const (
	maxReasons = 16
	maxReason  = 200 // octets each
)

func (s *server) simpleenroll(w http.ResponseWriter, r *http.Request, label string) (*reply, error) {
	return s.enroll(w, r, label, false)
}

// simplereenroll renews the certificate that the TLS client showed (RFC 7030
// §4.2.2). A requester who is authenticated in another way shows nothing to be
// renewed, and the request is judged as one for enrolment: the path gives no
// right that simpleenroll would not give, and a device whose certificate lapsed
// comes back in by its credential though it only knows this path.
func (s *server) simplereenroll(w http.ResponseWriter, r *http.Request, label string) (*reply, error) {
	return s.enroll(w, r, label, true)
}

// enroll is the straight line of one enrolment.
func (s *server) enroll(w http.ResponseWriter, r *http.Request, label string, again bool) (*reply, error) {
	// 1. The body, and who asks. What the body holds is not looked at before the
	// requester is known, so that strangers cost us no signature check.
	requester, body, err := s.receive(w, r, "application/pkcs10")
	if err != nil {
		return nil, err
	}

	// 2. What is asked, that who asks holds the key, and asks over this connection.
	der, err := decodeRequest(body)
	if err != nil {
		return nil, err
	}
	csr, err := ca.ParseCSR(der)
	if err != nil {
		return nil, err
	}
	if err := s.bound(r, requester, label, csr); err != nil {
		return nil, err
	}

	// 3. The core decides, issues, and makes it durable.
	issued, err := s.issue(r, request(r, requester, label, csr, again))
	if err != nil {
		return nil, err
	}

	// 4. The reply holds the certificate alone (RFC 7030 §4.2.3); its chain is in cacerts.
	answer := newReply(certsOnly, cms.CertsOnly(issued.Certificate.DER))
	answer.header, answer.outcome = decided(issued), string(issued.Outcome)
	return answer, nil
}

const certsOnly = "application/pkcs7-mime; smime-type=certs-only"

// receive reads the body, within bounds of size and time, and finds out who asks.
func (s *server) receive(w http.ResponseWriter, r *http.Request, mediaType string) (ca.Requester, []byte, error) {
	if err := checkMediaType(r.Header, mediaType); err != nil {
		return ca.Requester{}, nil, err
	}
	body, err := s.readBody(w, r)
	if err != nil {
		return ca.Requester{}, nil, err
	}
	requester, err := s.authenticate(r)
	return requester, body, err
}

// bound checks the link between the request and the connection.
func (s *server) bound(r *http.Request, requester ca.Requester, label string, csr *ca.CSR) error {
	demanded := false
	if s.Rules != nil {
		profile, err := s.profile(requester, label)
		if err != nil {
			return err
		}
		demanded = s.Rules(profile).Binding
	}
	return checkBinding(r.TLS, csr.ChallengePassword, demanded)
}

func request(r *http.Request, requester ca.Requester, label string, csr *ca.CSR, again bool) ca.Request {
	return ca.Request{
		Protocol:  "est",
		Requester: requester,
		Renew:     again && ownCertificate(requester),
		PublicKey: csr.PublicKey,
		SPKI:      csr.SPKI,
		Names:     csr.Names,
		Profile:   label,
		Address:   remoteAddr(r).String(),
		Bound:     csr.ChallengePassword != "", // checkBinding has refused every other one
	}
}

// issue asks the core, and logs what it issued.
func (s *server) issue(r *http.Request, request ca.Request) (*ca.Issued, error) {
	issued, err := s.Authority.Enroll(r.Context(), request)
	if request.Requester.Lapsed > 0 && offersSecret(r) && ca.KindOf(err) == ca.Unauthenticated {
		// The certificate lapsed longer ago than its profile forgives, which
		// only the core could tell. A credential lets the device in again.
		if request.Requester, err = s.bySecret(r); err == nil {
			request.Renew = false
			issued, err = s.Authority.Enroll(r.Context(), request)
		}
	}
	if err != nil {
		return nil, err
	}
	s.logIssued(r, issued)
	return issued, nil
}

func (s *server) logIssued(r *http.Request, issued *ca.Issued) {
	s.Logger.LogAttrs(r.Context(), slog.LevelInfo, "issued", slog.String("protocol", "est"),
		slog.String("device", issued.Certificate.Device), slog.String("serial", issued.Certificate.Serial.String()),
		slog.String("issuer", issued.Certificate.Issuer), slog.String("profile", issued.Certificate.Profile),
		slog.String("outcome", string(issued.Outcome)), slog.Bool("again", issued.Again), slog.String("address", r.RemoteAddr))
}

// decided is the header that says what was decided, and why.
func decided(issued *ca.Issued) http.Header {
	header := http.Header{}
	header.Set(OutcomeHeader, ca.FieldValue(string(issued.Outcome), maxReason))
	for _, reason := range issued.Reasons[:min(len(issued.Reasons), maxReasons)] {
		header.Add(ReasonHeader, ca.FieldValue(reason, maxReason))
	}
	return header
}

// ownCertificate reports whether the requester showed a certificate that can be renewed.
func ownCertificate(r ca.Requester) bool {
	return r.Kind == policy.ByCertificate || r.Kind == policy.ByQuarantine
}

// cacerts hands out the trust anchors and all that chains to them (RFC 7030
// §4.1.3), to anyone, the same under each label. Caches must ask again each time:
// after a rotation a device needs the new issuing CA with its very next certificate.
func (s *server) cacerts(_ http.ResponseWriter, r *http.Request, _ string) (*reply, error) {
	answer := newReply("application/pkcs7-mime", cms.CertsOnly(s.Authority.Anchors()...))
	sum := sha256.Sum256(answer.body)
	tag := `"` + hex.EncodeToString(sum[:16]) + `"`
	answer.header = http.Header{"Etag": {tag}, "Cache-Control": {"no-cache"}}
	if r.Header.Get("If-None-Match") == tag {
		return &reply{status: http.StatusNotModified, header: answer.header, outcome: "ok"}, nil
	}
	return answer, nil
}

// csrattrs says what a request should look like (RFC 7030 §4.5). It needs no
// authentication; whoever offers some must be right, and gets the answer that fits.
func (s *server) csrattrs(_ http.ResponseWriter, r *http.Request, label string) (*reply, error) {
	var requester ca.Requester
	var err error
	if !anonymous(r) {
		if requester, err = s.authenticate(r); err == nil {
			requester, err = s.may(r, requester, ca.Deed{Act: ca.ActAsk})
		}
		if err != nil {
			return nil, err
		}
	}
	profile, err := s.profile(requester, label)
	if err != nil {
		return nil, err
	}
	attrs := encodeCSRAttrs(profile, s.rules(profile), requester.Device)
	if attrs == nil {
		return &reply{status: http.StatusNoContent, outcome: "ok"}, nil
	}
	return newReply("application/csrattrs", attrs), nil
}

// newReply is a 200 whose body is der in base64.
func newReply(contentType string, der []byte) *reply {
	return &reply{status: http.StatusOK, contentType: contentType, body: encodeBody(der), outcome: "ok"}
}

// send writes the reply. Content-Transfer-Encoding says nothing since RFC 8951
// §3, but clients written before it want to see it.
func (a *reply) send(w http.ResponseWriter) {
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	for name, values := range a.header {
		h[name] = values
	}
	if a.contentType != "" {
		h.Set("Content-Type", a.contentType)
		h.Set("Content-Length", strconv.Itoa(len(a.body)))
		h.Set("X-Content-Type-Options", "nosniff")
		if a.status == http.StatusOK && !strings.HasPrefix(a.contentType, "multipart/") {
			h.Set("Content-Transfer-Encoding", "base64")
		}
	}
	w.WriteHeader(a.status)
	w.Write(a.body) // a client that went away is no fault of ours
	if a.secret {
		clear(a.body)
	}
}
