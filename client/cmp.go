package client

import (
	"bytes"
	"context"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/deviceca/deviceca/cmp"
)

// CMPConfig configures NewCMP.
type CMPConfig struct {
	// Server is the base URL, "http://host[:port]" or https: CMP protects each
	// message by itself. A path that ends in /.well-known/cmp is understood too.
	Server string
	// Label is the certificate profile, "" for the server's choice.
	Label string
	// Trust must hold roots: they verify what the CA signs. A pin alone does not do.
	Trust Trust
	// Timeout bounds one HTTP exchange, 0 is 30 s; Wait a whole operation, 0 is 10 minutes.
	Timeout, Wait time.Duration
	Now           func() time.Time // nil is time.Now
}

// CMP speaks the Certificate Management Protocol in its Lightweight Profile (RFC
// 9483, over HTTP as in RFC 9811). It implements Enroller, and may be used by
// several goroutines.
type CMP struct {
	url    string
	config CMPConfig
	http   *http.Client
	sleep  func(context.Context, time.Duration) error
}

var _ Enroller = (*CMP)(nil)

const (
	cmpWellKnown = "/.well-known/cmp"
	cmpMediaType = "application/pkixcmp"
	// cmpRepeat is how old a kept request may be to be sent again as it is: less
	// than the 5 minutes by which servers let messageTime be off.
	cmpRepeat = 4 * time.Minute
)

// NewCMP makes a CMP client. It contacts nobody. Errors are of kind Usage.
func NewCMP(c CMPConfig) (*CMP, error) {
	usage := func(text, hint string) (*CMP, error) {
		return nil, &Error{Kind: Usage, Op: "cmp", Text: text, Hint: hint}
	}
	u, err := url.Parse(c.Server)
	switch {
	case err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http":
		return usage("the server is no URL: "+printable(c.Server), "give it as http://host:port or https://host:port")
	case u.User != nil || u.RawQuery != "" || u.Fragment != "":
		return usage("the server's URL holds more than host, port and path", "give credentials apart from the URL")
	case strings.Contains(c.Label, "/"):
		return usage("no profile "+printable(c.Label), "a profile's name is one path segment")
	case !c.Trust.hasRoots():
		return nil, noRoots("CMP")
	}
	if err := c.Trust.check(); err != nil {
		return nil, err
	}
	setBounds(&c.Timeout, &c.Wait, &c.Now)
	base := (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: strings.TrimSuffix(strings.TrimSuffix(u.Path, "/"), cmpWellKnown)}).JoinPath(cmpWellKnown)
	if c.Label != "" {
		base = base.JoinPath("p", url.PathEscape(c.Label))
	}
	client := newHTTP(&tls.Config{MinVersion: tls.VersionTLS12, RootCAs: pool(c.Trust.Roots), Time: c.Now}, c.Timeout)
	client.Timeout, client.CheckRedirect = c.Timeout, noRedirect
	return &CMP{url: base.String(), config: c, http: client, sleep: sleep}, nil
}

// Protocol is "cmp".
func (*CMP) Protocol() string { return "cmp" }

// CACerts are the roots that the client was made with: what stands below them
// comes with each certificate, in extraCerts, and is verified with it.
func (c *CMP) CACerts(context.Context) (*CACerts, error) {
	return &CACerts{Roots: c.config.Trust.Roots}, nil
}

// KeyHint says nothing: CMP answers questions only to those who authenticate, and
// the request is answered just as well.
func (*CMP) KeyHint(context.Context, Auth) (KeyType, error) { return "", nil }

// Enroll sends an ir (RFC 9483 §4.1.1), protected by the credential's secret
// (§4.1.5) or signed with the certificate.
func (c *CMP) Enroll(ctx context.Context, req *Request) (*Reply, error) {
	return c.enroll(ctx, cmp.IR, req)
}

// Renew sends a kur (RFC 9483 §4.1.3), signed with the certificate in req.Auth.
func (c *CMP) Renew(ctx context.Context, req *Request) (*Reply, error) {
	if req.Auth.Certificate == nil {
		return nil, &Error{Kind: Usage, Op: "kur", Text: "there is no certificate to renew"}
	}
	return c.enroll(ctx, cmp.KUR, req)
}

// session is one transaction.
type session struct {
	*CMP
	op        string
	protector cmp.Protector
	secret    []byte // with a credential
}

func (c *CMP) enroll(ctx context.Context, of cmp.BodyType, req *Request) (*Reply, error) {
	s := &session{CMP: c, op: of.String()}
	if err := s.open(req.Auth); err != nil {
		return nil, err
	}
	message := s.kept(req.State, of, req)
	if message == nil {
		var err error
		if message, err = s.request(of, req); err != nil {
			return nil, err
		}
		if err := req.save(message.Raw()); err != nil {
			return nil, err
		}
	}
	deadline := c.config.Now().Add(c.config.Wait)
	answer, err := s.exchange(ctx, message, deadline)
	for err == nil {
		wait, waiting := waits(answer)
		if !waiting {
			break
		}
		if c.config.Now().Add(min(wait, maxWait)).After(deadline) {
			return nil, (&Error{Kind: Pending, Op: s.op, Text: "the CA waits for a person to approve", Hint: "ask again later: the same request is found again"}).wait(wait)
		}
		if err := c.sleep(ctx, min(wait, maxWait)); err != nil {
			return nil, &Error{Kind: Pending, Op: s.op, Text: "given up while waiting", Err: err}
		}
		answer, err = s.exchange(ctx, cmp.Reply(answer, &cmp.PollRequests{CertReqIDs: []int64{0}}, c.config.Now()), deadline)
	}
	if err != nil {
		return nil, err
	}
	return s.accept(ctx, req, answer, deadline)
}

// open decides how messages are protected.
func (s *session) open(auth Auth) (err error) {
	switch {
	case auth.Certificate != nil:
		key, ok := auth.Certificate.PrivateKey.(crypto.Signer)
		if !ok {
			return &Error{Kind: Usage, Op: s.op, Text: "the certificate comes without a key that signs"}
		}
		var chain []*x509.Certificate
		for _, raw := range auth.Certificate.Certificate {
			c, err := x509.ParseCertificate(raw)
			if err != nil {
				return &Error{Kind: Local, Op: s.op, Text: "the certificate cannot be read", Err: err}
			}
			chain = append(chain, c)
		}
		if len(chain) == 0 {
			return &Error{Kind: Usage, Op: s.op, Text: "there is no certificate beside the key"}
		}
		s.protector, err = cmp.NewSigner(key, chain[0], cmp.SignerOptions{Chain: chain[1:]})
	case auth.Credential != nil:
		s.secret = []byte(auth.Credential.Secret)
		s.protector, err = cmp.NewMAC([]byte(auth.Credential.Reference), s.secret, cmp.MACParams{})
	default:
		return &Error{Kind: Usage, Op: s.op, Text: "CMP needs a credential or a certificate", Hint: "give the reference and the secret that `deviceca device add` printed"}
	}
	if err != nil {
		return &Error{Kind: Local, Op: s.op, Text: "the message cannot be protected", Err: err}
	}
	return nil
}

// kept is the request of an earlier attempt, if it is fresh and for the same:
// sent again octet for octet, it gets the answer that was lost.
func (s *session) kept(state []byte, of cmp.BodyType, req *Request) *cmp.Message {
	m, err := cmp.Parse(state)
	if err != nil || m.Body.Type() != of || s.config.Now().Sub(m.Header.Time).Abs() > cmpRepeat || m.UsesMAC() != (s.secret != nil) {
		return nil
	}
	r := m.Body.(*cmp.CertRequests).Requests[0]
	spki, err := x509.MarshalPKIXPublicKey(req.Key.Public())
	if err != nil || !bytes.Equal(r.Template.PublicKey, spki) || !bytes.Equal(r.Template.Subject, req.Names.Subject) {
		return nil
	}
	return m
}

// request makes the message that begins the transaction.
func (s *session) request(of cmp.BodyType, req *Request) (*cmp.Message, error) {
	r := &cmp.CertReqMsg{Template: cmp.CertTemplate{Subject: req.Names.Subject}}
	if req.Names.SAN != nil {
		r.Template.Extensions = []pkix.Extension{{Id: oidSAN, Value: req.Names.SAN}}
	}
	if err := r.SignPOP(req.Key, cmp.POPAuth{}); err != nil {
		return nil, &Error{Kind: Local, Op: s.op, Text: "the request cannot be signed", Err: err}
	}
	m := cmp.NewRequest(&cmp.CertRequests{Of: of, Requests: []*cmp.CertReqMsg{r}},
		cmp.HeaderOptions{Time: s.config.Now(), Infos: cmp.Infos{cmp.ImplicitConfirm()}})
	if err := m.Protect(s.protector); err != nil {
		return nil, &Error{Kind: Local, Op: s.op, Text: "the message cannot be protected", Err: err}
	}
	return m, nil
}

// accept takes the certificate out of the answer, has it checked, and confirms or rejects it where the CA
// wants to hear (RFC 9483 §4.1.1): what this device cannot use, the CA should not go on vouching for.
func (s *session) accept(ctx context.Context, req *Request, answer *cmp.Message, deadline time.Time) (*Reply, error) {
	b, ok := answer.Body.(*cmp.CertResponses)
	if !ok || len(b.Responses) != 1 || b.Responses[0].KeyPair == nil || b.Responses[0].KeyPair.Certificate == nil {
		return nil, badCMP(s.op, errors.New("the answer holds no certificate"))
	}
	r := b.Responses[0]
	implicit, err := answer.Header.GeneralInfo.ImplicitConfirm()
	if err != nil {
		return nil, badCMP(s.op, err)
	}
	out, err := s.reply(&r, answer.ExtraCerts)
	if err == nil {
		err = req.check(out)
	}
	switch {
	case err != nil && implicit:
		return nil, &Error{Kind: KindOf(err), Op: s.op, Text: "the certificate is rejected, and the CA does not ask whether it is", Err: err,
			Hint: "have the CA's operator revoke it: deviceca cert list shows the device's newest"}
	case err != nil:
		return nil, errors.Join(err, s.confirm(ctx, answer, &r, rejection(err), deadline))
	case implicit:
		return out, nil
	}
	return out, s.confirm(ctx, answer, &r, nil, deadline)
}

// reply is what the answer gives.
func (s *session) reply(r *cmp.CertResponse, extra [][]byte) (*Reply, error) {
	certs, err := parseCertificates(slices.Concat([][]byte{r.KeyPair.Certificate}, extra), maxReplyCerts)
	if err != nil {
		return nil, badCMP(s.op, err)
	}
	out := &Reply{Certificates: certs, Outcome: "issue"}
	for _, text := range r.Status.Text {
		if outcome, ok := strings.CutPrefix(text, "outcome: "); ok {
			out.Outcome = printable(outcome)
		} else {
			out.Reasons = append(out.Reasons, printable(text))
		}
	}
	return out, nil
}

// rejection says why a certificate is not taken, without what is of this device alone.
func rejection(err error) *cmp.StatusInfo {
	out := &cmp.StatusInfo{Status: cmp.Rejection, FailInfo: cmp.IncorrectData}
	if e, ok := errors.AsType[*Error](err); ok {
		out.Text = []string{printable(e.Text)}
	}
	return out
}

// confirm sends certConf and waits for pkiConf.
func (s *session) confirm(ctx context.Context, answer *cmp.Message, r *cmp.CertResponse, info *cmp.StatusInfo, deadline time.Time) error {
	status, err := cmp.Confirmation(r.KeyPair.Certificate, r.CertReqID, info)
	if err != nil {
		return badCMP(s.op, err)
	}
	done, err := s.exchange(ctx, cmp.Reply(answer, &cmp.Confirmations{List: []cmp.CertStatus{status}}, s.config.Now()), deadline)
	if err != nil {
		return err
	}
	if done.Body.Type() != cmp.PKIConf {
		return badCMP(s.op, fmt.Errorf("%s instead of pkiConf", done.Body.Type()))
	}
	return nil
}

// exchange sends a message and verifies the answer. What can be tried again is, with the same octets.
func (s *session) exchange(ctx context.Context, m *cmp.Message, deadline time.Time) (*cmp.Message, error) {
	if m.Raw() == nil {
		if err := m.Protect(s.protector); err != nil {
			return nil, &Error{Kind: Local, Op: s.op, Text: "the message cannot be protected", Err: err}
		}
	}
	for n := 1; ; n++ {
		answer, err := s.once(ctx, m)
		fail, ok := errors.AsType[*Error](err)
		if err == nil || ctx.Err() != nil || !ok || fail.Final() || n >= maxAttempts {
			return answer, err
		}
		wait := pause(fail.RetryAfter, n)
		if s.config.Now().Add(wait).After(deadline) || s.sleep(ctx, wait) != nil {
			return nil, err
		}
	}
}

func (s *session) once(ctx context.Context, m *cmp.Message) (*cmp.Message, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.url, bytes.NewReader(m.Raw()))
	if err != nil {
		return nil, &Error{Kind: Usage, Op: s.op, Text: "the request cannot be made", Err: err}
	}
	req.Header.Set("Content-Type", cmpMediaType)
	req.Header.Set("User-Agent", "deviceca-client")
	resp, err := s.http.Do(req)
	if err != nil {
		if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
			return nil, &Error{Kind: Untrusted, Op: s.op, Text: "the server's certificate does not lead to the roots", Err: err}
		}
		return nil, &Error{Kind: Unreachable, Op: s.op, Text: "the server does not answer", Err: err}
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxReply+1))
	switch {
	case err != nil:
		return nil, &Error{Kind: Unreachable, Op: s.op, Text: "the answer broke off", Err: err}
	case resp.StatusCode == http.StatusServiceUnavailable || resp.StatusCode == http.StatusTooManyRequests:
		return nil, (&Error{Kind: Busy, Op: s.op, Status: resp.StatusCode, Text: "the server is busy"}).wait(retryAfter(resp.Header.Get("Retry-After"), s.config.Now()))
	case resp.StatusCode != http.StatusOK || resp.Header.Get("Content-Type") != cmpMediaType:
		return nil, &Error{Kind: BadReply, Op: s.op, Status: resp.StatusCode, Text: printable(string(body[:min(len(body), 500)])),
			Hint: "check that the URL leads to a CMP server"}
	case len(body) > maxReply:
		return nil, badCMP(s.op, errors.New("it is too large"))
	}
	answer, err := cmp.Parse(body)
	if err != nil {
		return nil, badCMP(s.op, err)
	}
	if err := boundCMP(answer); err != nil {
		return nil, badCMP(s.op, err)
	}
	if err := s.verify(answer, m); err != nil {
		return nil, &Error{Kind: Untrusted, Op: s.op, Text: "the answer does not prove that it is the CA's", Err: err,
			Hint: "compare the roots, and the credential's secret, with the CA's operator"}
	}
	return answer, refusal(s.op, answer)
}

// boundCMP bounds what verifying an answer costs, before anything of it is verified.
func boundCMP(m *cmp.Message) error {
	if len(m.ExtraCerts) > maxReplyCerts {
		return fmt.Errorf("%d extraCerts, and %d is the most taken", len(m.ExtraCerts), maxReplyCerts)
	}
	for i, raw := range m.ExtraCerts {
		if len(raw) > maxCertificate {
			return fmt.Errorf("extraCerts %d: it has %d octets, and %d is the most taken", i+1, len(raw), maxCertificate)
		}
		cert, err := x509.ParseCertificate(raw)
		if err != nil {
			continue // it is of no use, and costs nothing
		}
		if err := checkKey(cert); err != nil {
			return fmt.Errorf("extraCerts %d: %w", i+1, err)
		}
	}
	if m.UsesMAC() {
		_, err := cmp.MACPolicy{}.ParseMACParams(m.Header.ProtectionAlg)
		return err
	}
	return nil
}

// idKpCMCCA is what the certificate of a CA's delegate may do (RFC 9483 §1.5).
var idKpCMCCA = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 3, 27}

// verify: the answer belongs to what was asked, and is the CA's: protected by the
// shared secret, or signed by a CA or its delegate below the roots. A device of the
// same CA must not pass for it.
func (s *session) verify(answer, to *cmp.Message) error {
	trust := cmp.TrustRoots(pool(s.config.Trust.Roots), s.config.Now)
	o := cmp.VerifyOptions{
		Header: cmp.HeaderRules{TransactionID: to.Header.TransactionID, RecipNonces: [][]byte{to.Header.SenderNonce}},
		Trust: func(signer *x509.Certificate, others []*x509.Certificate) error {
			if !signer.IsCA && !slices.ContainsFunc(signer.UnknownExtKeyUsage, idKpCMCCA.Equal) {
				return errors.New("the signer is neither a CA nor its delegate")
			}
			return trust(signer, others)
		},
	}
	if s.secret != nil {
		o.Secret = func([]byte) ([]byte, error) { return s.secret, nil }
	}
	_, err := answer.Verify(o)
	return err
}

// waits reports whether the CA wants to be asked again, and when.
func waits(m *cmp.Message) (time.Duration, bool) {
	switch b := m.Body.(type) {
	case *cmp.PollReplies:
		if len(b.Replies) > 0 {
			return max(b.Replies[0].CheckAfter, minWait), true
		}
	case *cmp.CertResponses:
		if len(b.Responses) > 0 && b.Responses[0].Status.Status == cmp.Waiting {
			return minWait, true
		}
	}
	return 0, false
}

// refusal is the *Error for an answer that says no; nil for one that does not.
func refusal(op string, m *cmp.Message) error {
	var info cmp.StatusInfo
	switch b := m.Body.(type) {
	case *cmp.ErrorBody:
		info = b.Status
	case *cmp.CertResponses:
		if len(b.Responses) == 0 || b.Responses[0].Status.Status != cmp.Rejection {
			return nil
		}
		info = b.Responses[0].Status
	default:
		return nil
	}
	e := &Error{Kind: Refused, Op: op, Text: printable(info.String())}
	switch {
	case info.FailInfo&(cmp.BadMessageCheck|cmp.SignerNotTrusted|cmp.WrongIntegrity) != 0:
		e.Kind = Unauthenticated
	case info.FailInfo&(cmp.SystemUnavail|cmp.SystemFailure) != 0:
		e.Kind = Busy
	case info.FailInfo&cmp.BadTime != 0:
		e.Kind, e.Hint = BadRequest, "set the device's clock"
	case info.FailInfo&(cmp.BadPOP|cmp.BadCertTemplate|cmp.BadRequest|cmp.BadDataFormat|cmp.BadAlg|cmp.TransactionIDInUse) != 0:
		e.Kind = BadRequest
	}
	return e
}

func badCMP(op string, err error) error {
	return &Error{Kind: BadReply, Op: op, Text: "the server's answer cannot be used", Err: err}
}
