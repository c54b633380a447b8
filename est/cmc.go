package est

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"mime"
	"net/http"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/device"
	"github.com/deviceca/deviceca/internal/cms"
)

const cmcResponse = "application/pkcs7-mime; smime-type=CMC-response"

// fullcmc takes a Full PKI Request with one certification request (RFC 7030
// §4.3, RFC 5272). The message says itself who asks, so that neither the TLS
// client certificate nor HTTP Basic is looked at. Whatever goes wrong with it is
// told in a Full PKI Response too (§4.3.2).
func (s *server) fullcmc(w http.ResponseWriter, r *http.Request, label string) (*reply, error) {
	if s.Responder == nil {
		return nil, errNotImplemented
	}
	if err := checkCMCType(r.Header); err != nil {
		return nil, err
	}
	body, err := s.readBody(w, r)
	if err != nil {
		return nil, err
	}
	done, err := s.pkiRequest(r, label, body)
	if err != nil {
		return nil, s.tell(r.Context(), done, err)
	}
	answer, err := s.pkiResponse(r.Context(), fault{status: statusSuccess, parts: []uint32{done.part}, says: strings.Join(done.issued.Reasons, "; ")},
		done.transaction, append([][]byte{done.issued.Certificate.DER}, done.issued.Chain...)...)
	if err != nil {
		return nil, err
	}
	answer.header, answer.outcome = decided(done.issued), string(done.issued.Outcome)
	return answer, nil
}

// cmcDone is as much of a Full PKI Request as was done.
type cmcDone struct {
	transaction transaction
	part        uint32 // 0 until it is known
	issued      *ca.Issued
}

// pkiRequest is the straight line of one Full PKI Request. Errors are faults of the message, or the core's.
func (s *server) pkiRequest(r *http.Request, label string, body []byte) (done cmcDone, err error) {
	// 1. The message.
	raw, err := decodeBase64(body, "a Full PKI Request")
	if err != nil {
		return done, err
	}
	signed, err := parseFullRequest(raw)
	if err != nil {
		return done, err
	}
	data, err := parsePKIData(signed.Content.Bytes)
	if err != nil {
		return done, err
	}
	if done.transaction, err = data.transaction(); err != nil {
		return done, err
	}

	// 2. Who asks: by a secret that both know, or by a certificate of ours. The
	// signature of the latter is checked here, since it proves who asks.
	requester, secret, err := s.cmcRequester(r.Context(), signed, data)
	if err != nil {
		return done, err
	}

	// 3. What is asked, and that who asks holds the key.
	done.part = data.part
	csr, notAfter, witness, err := data.request()
	if err != nil {
		return done, err
	}
	if requester.Credential != nil { // initial: the key asked for signs the message, which links both
		if err := signed.Verify(csr.PublicKey); err != nil {
			return done, &fault{status: statusFailed, fail: failBadMessageCheck, says: "the message is not signed with the key in the request", err: err}
		}
	}
	if err := s.cmcLinked(r, requester, label, data, csr, secret, witness); err != nil {
		return done, err
	}

	// 4. The core decides, issues, and makes it durable. A message signed with a
	// certificate keeps its names, which is what links the key to it (RFC 6402 §2.4).
	wanted := request(r, requester, label, csr, true)
	wanted.NotAfter = notAfter
	if done.issued, err = s.Authority.Enroll(r.Context(), wanted); err == nil {
		s.logIssued(r, done.issued)
	}
	return done, err
}

// checkCMCType demands application/pkcs7-mime; an smime-type that is there must say CMC-request.
func checkCMCType(h http.Header) error {
	if err := checkMediaType(h, "application/pkcs7-mime"); err != nil {
		return err
	}
	_, params, err := mime.ParseMediaType(h.Get("Content-Type"))
	if err != nil || params["smime-type"] != "" && !strings.EqualFold(params["smime-type"], "CMC-request") {
		return wrongMediaType("application/pkcs7-mime; smime-type=CMC-request")
	}
	return nil
}

func parseFullRequest(raw []byte) (*cms.Signed, error) {
	info, err := cms.ParseInfo(raw)
	if err != nil {
		return nil, cmsFault(err)
	}
	signed, err := cms.ParseSigned(info)
	if err != nil {
		return nil, cmsFault(err)
	}
	if !signed.Content.Type.Equal(typePKIData) {
		return nil, badRequest("the message does not hold PKIData")
	}
	return signed, nil
}

func cmsFault(err error) *fault {
	f := &fault{status: statusFailed, fail: failBadRequest, says: "the message is not SignedData with one signer (RFC 5652 §5)", err: err}
	if errors.Is(err, cms.ErrAlgorithm) {
		f.fail, f.says = failBadAlg, "the message is signed with an algorithm that is not taken: use SHA-256 or longer"
	}
	return f
}

// cmcRequester finds out who asks. secret is set if it is a credential's.
func (s *server) cmcRequester(ctx context.Context, signed *cms.Signed, data *pkiData) (ca.Requester, device.Secret, error) {
	control, proven := data.controls[cmcIdentityProofV2]
	if proven {
		return s.provenRequester(ctx, data, control)
	}
	for _, number := range []int{cmcIdentification, cmcPOPLinkRandom} {
		if c, ok := data.controls[number]; ok {
			return ca.Requester{}, "", badRequest("identification and popLinkRandom mean nothing without identityProofV2", c.part)
		}
	}
	cert := signed.SignerCert()
	if cert == nil {
		return ca.Requester{}, "", &fault{status: statusFailed, fail: failBadIdentity, err: ca.Errorf(ca.Unauthenticated, "no identity"),
			says: "nobody is shown to ask: add the signer's certificate, or the controls identification and identityProofV2"}
	}
	requester, err := s.Authority.AuthenticateCertificate(ctx, []*x509.Certificate{cert})
	if err != nil {
		return ca.Requester{}, "", err
	}
	if err := signed.Verify(cert.PublicKey); err != nil {
		return ca.Requester{}, "", &fault{status: statusFailed, fail: failBadMessageCheck, says: "the signature of the message does not verify", err: err}
	}
	return requester, "", nil
}

// provenRequester checks the identity proof. A reference that does not exist
// costs the same and gets the same answer as a wrong secret.
func (s *server) provenRequester(ctx context.Context, data *pkiData, control control) (ca.Requester, device.Secret, error) {
	p, err := parseProof(control.value)
	if err != nil {
		f := badRequest("identityProofV2: "+err.Error(), control.part)
		if errors.Is(err, errProofAlgorithm) {
			f.fail = failBadAlg
		}
		return ca.Requester{}, "", f
	}
	identification, ok := data.controls[cmcIdentification]
	var reference cryptobyte.String
	if value := identification.value; !ok || !value.ReadASN1(&reference, asn1.UTF8String) || !value.Empty() || len(reference) > 255 {
		return ca.Requester{}, "", badRequest("identification must say the credential's reference, as UTF8String", control.part)
	}
	requester, secret, err := s.Authority.CredentialSecret(ctx, string(reference))
	if err != nil && secret == "" {
		return ca.Requester{}, "", err
	}
	if !p.holds(secret, reference, data.reqSequence) || requester.Credential == nil && err == nil {
		return ca.Requester{}, "", &fault{status: statusFailed, fail: failBadIdentity, parts: []uint32{control.part},
			says: "unknown reference or wrong secret", err: ca.Errorf(ca.Unauthenticated, "the identity proof does not verify")}
	}
	return requester, secret, err // an expired credential is told apart only now
}

// request reads the certification request. witness is that of the POP link, nil if there is none.
func (d *pkiData) request() (csr *ca.CSR, notAfter time.Time, witness cryptobyte.String, err error) {
	if d.crmf != nil {
		return parseCRMF(d.crmf)
	}
	if csr, err = ca.ParseCSR(d.pkcs10); err != nil {
		return nil, notAfter, nil, err
	}
	if value, ok := csr.Attributes[oidCMC(cmcPOPLinkWitnessV2).String()]; ok {
		witness = append(cryptobyte.String{}, value...) // not nil, even if it is empty
	}
	return csr, notAfter, witness, nil
}

// cmcLinked checks what links proof of possession and identity, beyond the
// message's signature: the witness of RFC 5272 §6.3.1, and the channel
// binding of RFC 7030 §3.5. Each must be right where it is; a profile that
// demands a binding wants one of them from who comes with a secret.
func (s *server) cmcLinked(r *http.Request, requester ca.Requester, label string, data *pkiData, csr *ca.CSR, secret device.Secret, witness cryptobyte.String) error {
	random, err := data.octets(cmcPOPLinkRandom)
	if err != nil {
		return err
	}
	if (random != nil) != (witness != nil) {
		return popFault("popLinkRandom and popLinkWitnessV2 go together", data.part, nil)
	}
	if random != nil {
		p, err := parseProof(witness)
		if err != nil {
			return popFault("popLinkWitnessV2", data.part, err)
		}
		if requester.Credential == nil || !p.holds(secret, nil, random) {
			return popFault("popLinkWitnessV2 does not verify", data.part, nil)
		}
	}
	demanded := false
	if s.Rules != nil && random == nil && requester.Credential != nil {
		profile, err := s.profile(requester, label)
		if err != nil {
			return err
		}
		demanded = s.Rules(profile).Binding
	}
	if err := checkBinding(r.TLS, csr.ChallengePassword, demanded); err != nil {
		return &fault{status: statusFailed, fail: failPOPFailed, parts: []uint32{data.part}, says: ca.AsError(err).Reason, err: err} // RFC 7030 §3.5
	}
	return nil
}

func popFault(says string, part uint32, err error) *fault {
	return &fault{status: statusFailed, fail: failPOPFailed, parts: []uint32{part}, says: says, err: &ca.Error{Kind: ca.BadPOP, Reason: says, Err: err}}
}

// failInfos is what each kind of error is in CMC.
var failInfos = map[ca.Kind]int{
	ca.Internal:        failInternal,
	ca.Malformed:       failBadRequest,
	ca.BadPOP:          failPOPFailed,
	ca.BadAlg:          failBadAlg,
	ca.BadKey:          failBadRequest,
	ca.Unauthenticated: failBadIdentity,
	ca.Denied:          failBadRequest,
	ca.BadEvidence:     failBadRequest,
	ca.Conflict:        failBadRequest,
	ca.RateLimited:     failTryLater,
	ca.Unavailable:     failTryLater,
	ca.NotFound:        failBadRequest,
}

// told is an error that is answered already.
type told struct {
	answer *reply
	err    error
}

func (t *told) Error() string { return t.err.Error() }
func (t *told) Unwrap() error { return t.err }

// tell puts an error into a Full PKI Response. What waits for an administrator is
// told by HTTP alone (202): CMC would want to be asked by a token of its own.
func (s *server) tell(ctx context.Context, done cmcDone, err error) error {
	plain := refuse(err)
	f, ok := errors.AsType[*fault](err)
	if ok {
		kind := ca.Malformed
		if known, ok := errors.AsType[*ca.Error](f.err); ok {
			kind = known.Kind
		} else if f.fail == failBadMessageCheck {
			kind = ca.Unauthenticated
		}
		plain = refuse(&ca.Error{Kind: kind, Reason: f.says})
	} else {
		kind := ca.KindOf(err)
		if _, low := errors.AsType[*httpError](err); low || kind == ca.Pending || ctx.Err() != nil {
			return err
		}
		f = &fault{status: statusFailed, fail: failInfos[kind], says: strings.TrimSuffix(string(plain.body), "\n"), err: err}
		if done.part != 0 {
			f.parts = []uint32{done.part}
		}
	}
	answer, sealErr := s.pkiResponse(ctx, *f, done.transaction)
	if sealErr != nil {
		return errors.Join(sealErr, err)
	}
	answer.status, answer.outcome, answer.header = plain.status, plain.outcome, plain.header
	if answer.status == http.StatusUnauthorized { // no HTTP authentication would help
		answer.status = http.StatusForbidden
		answer.header.Del("WWW-Authenticate")
	}
	return &told{answer, err}
}

const nonceSize = 16 // octets

// pkiResponse makes a signed Full PKI Response with certificates (RFC 5272 §4.2).
func (s *server) pkiResponse(ctx context.Context, f fault, t transaction, certs ...[]byte) (*reply, error) {
	responder, err := s.Responder(ctx)
	if err != nil {
		return nil, err
	}
	nonce := make([]byte, nonceSize)
	rand.Read(nonce)
	body, err := encodePKIResponse(f, t, nonce)
	if err != nil {
		return nil, err
	}
	signer := responder.signer(s.Now())
	for _, cert := range certs {
		if !slices.ContainsFunc(signer.Certs, func(c []byte) bool { return bytes.Equal(c, cert) }) {
			signer.Certs = append(signer.Certs, cert)
		}
	}
	signed, err := cms.Sign(cms.Content{Type: typePKIResponse, Bytes: body}, signer)
	if err != nil {
		return nil, err
	}
	return newReply(cmcResponse, signed.Info()), nil
}
