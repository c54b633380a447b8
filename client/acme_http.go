package client

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strings"
	"time"
)

const (
	jsonType    = "application/json"
	problemType = "application/problem+json"          // RFC 7807
	chainType   = "application/pem-certificate-chain" // RFC 8555 §9.1
	joseType    = "application/jose+json"
)

// maxNonceAttempts is how often a request is signed anew for a nonce that the server does not take.
const maxNonceAttempts = 5

// acmeDirectory is RFC 8555 §7.1.1, as far as it is used here.
type acmeDirectory struct {
	NewNonce    string `json:"newNonce"`
	NewAccount  string `json:"newAccount"`
	NewOrder    string `json:"newOrder"`
	RenewalInfo string `json:"renewalInfo"` // RFC 9773 §3
	Meta        struct {
		TermsOfService          string `json:"termsOfService"`
		ExternalAccountRequired bool   `json:"externalAccountRequired"`
	} `json:"meta"`
}

// acmeSession is one operation: what it found out about the server, and until when it may take.
type acmeSession struct {
	*ACME
	resources acmeDirectory
	account   *Account
	deadline  time.Time
	warnings  []string // of the Attester
}

// acmeCall is one request of an operation.
type acmeCall struct {
	op      string
	url     string
	payload []byte // nil for POST-as-GET (RFC 8555 §6.3)
	key     bool   // sign with the key in jwk: there is no account yet
	want    string // media type of the answer; "" is JSON
}

// acmeAnswer is a good answer.
type acmeAnswer struct {
	op     string
	status int
	header http.Header
	body   []byte
}

// decode reads the answer as JSON.
func (a *acmeAnswer) decode(v any) error {
	if err := json.Unmarshal(a.body, v); err != nil {
		return badACME(a.op, err)
	}
	return nil
}

func badACME(op string, err error) error {
	return &Error{Kind: BadReply, Op: op, Text: "the server's answer cannot be used", Err: err,
		Hint: "check that the URL leads to an ACME server and not to a proxy or another service"}
}

// begin starts an operation: it reads the directory.
func (a *ACME) begin(ctx context.Context) (*acmeSession, error) {
	s := &acmeSession{ACME: a, deadline: a.config.Now().Add(a.config.Wait)}
	const op = "directory"
	got, err := s.get(ctx, op, a.directory.String())
	if err != nil {
		return nil, err
	}
	if err := got.decode(&s.resources); err != nil {
		return nil, err
	}
	for name, u := range map[string]string{"newNonce": s.resources.NewNonce, "newAccount": s.resources.NewAccount, "newOrder": s.resources.NewOrder} {
		if s.foreign(u) {
			return nil, badACME(op, fmt.Errorf("%s is at %s", name, cmp.Or(printable(u), "no URL")))
		}
	}
	if s.resources.RenewalInfo != "" && s.foreign(s.resources.RenewalInfo) {
		return nil, badACME(op, errors.New("renewalInfo is at "+printable(s.resources.RenewalInfo)))
	}
	return s, nil
}

// foreign reports whether a URL leads elsewhere than to the server that was named. What the account signs goes nowhere else.
func (a *ACME) foreign(s string) bool {
	u, err := url.Parse(s)
	return err != nil || u.Scheme != a.directory.Scheme || !strings.EqualFold(u.Host, a.directory.Host) || u.User != nil || u.Fragment != ""
}

// get makes an unauthenticated request, again while the server is busy or away.
func (s *acmeSession) get(ctx context.Context, op, at string) (*acmeAnswer, error) {
	return s.insist(ctx, op, func() (*acmeAnswer, error) { return s.once(ctx, op, http.MethodGet, at, nil, jsonType) })
}

// post makes a signed request, again while the server is busy or away, and with a new nonce where it does not take the first.
func (s *acmeSession) post(ctx context.Context, c acmeCall) (*acmeAnswer, error) {
	if s.foreign(c.url) {
		return nil, badACME(c.op, errors.New("the next step is at "+cmp.Or(printable(c.url), "no URL")))
	}
	return s.insist(ctx, c.op, func() (*acmeAnswer, error) {
		for n := 1; ; n++ {
			body, err := s.sign(ctx, c)
			if err != nil {
				return nil, err
			}
			a, err := s.once(ctx, c.op, http.MethodPost, c.url, body, cmp.Or(c.want, jsonType))
			if n == maxNonceAttempts || acmeProblem(err) != "badNonce" {
				return a, err
			}
		}
	})
}

// insist repeats what may succeed later, within the deadline.
func (s *acmeSession) insist(ctx context.Context, op string, try func() (*acmeAnswer, error)) (*acmeAnswer, error) {
	for n := 1; ; n++ {
		a, err := try()
		if err == nil {
			return a, nil
		}
		if ctx.Err() != nil {
			return nil, &Error{Kind: Unreachable, Op: op, Text: "given up", Err: errors.Join(ctx.Err(), err)}
		}
		fail, ok := errors.AsType[*Error](err)
		if !ok || fail.Final() || n >= maxAttempts {
			return nil, err
		}
		wait := pause(fail.RetryAfter, n)
		if s.config.Now().Add(wait).After(s.deadline) || s.sleep(ctx, wait) != nil {
			return nil, err
		}
	}
}

// sign makes the body of a request, with a nonce of its own.
func (s *acmeSession) sign(ctx context.Context, c acmeCall) ([]byte, error) {
	nonce := s.nonce
	if s.nonce = ""; nonce == "" {
		if _, err := s.once(ctx, "newNonce", http.MethodHead, s.resources.NewNonce, nil, ""); err != nil {
			return nil, err
		}
		if nonce = s.nonce; nonce == "" {
			return nil, badACME("newNonce", errors.New("it holds no nonce"))
		}
		s.nonce = ""
	}
	h := jwsHeader{Nonce: nonce, URL: c.url}
	if !c.key {
		h.KID = s.account.URL
	} else {
		var err error
		if h.JWK, err = publicJWK(&s.account.Key.PublicKey); err != nil {
			return nil, &Error{Kind: Local, Op: c.op, Text: "the account's key cannot be used", Err: err}
		}
	}
	signed, err := signJWS(h, c.payload, s.account.Key)
	if err == nil {
		var body []byte
		if body, err = json.Marshal(signed); err == nil {
			return body, nil
		}
	}
	return nil, &Error{Kind: Local, Op: c.op, Text: "the request cannot be signed", Err: err}
}

// once performs one HTTP exchange, and keeps the nonce that comes with the answer. Its error is an *Error.
func (a *ACME) once(ctx context.Context, op, method, at string, body []byte, want string) (*acmeAnswer, error) {
	ctx, cancel := context.WithTimeout(ctx, a.config.Timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, at, bytes.NewReader(body))
	if err != nil {
		return nil, &Error{Kind: Usage, Op: op, Text: "the request cannot be made", Err: err}
	}
	req.Header.Set("User-Agent", "deviceca-client")
	if want != "" {
		req.Header.Set("Accept", want)
	}
	if method == http.MethodPost {
		req.Header.Set("Content-Type", joseType)
	}
	resp, err := a.http.Do(req)
	if err != nil {
		return nil, transportError(op, err)
	}
	defer resp.Body.Close()
	// RFC 8555 §6.5.1: what is not base64url is no nonce.
	if n := resp.Header.Get("Replay-Nonce"); n != "" && len(n) <= maxNonce && isBase64URL(n) {
		a.nonce = n
	}
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		return nil, a.problem(op, resp)
	}
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxReply+1))
	if err != nil {
		return nil, transportError(op, err)
	}
	if len(text) > maxReply {
		return nil, badACME(op, fmt.Errorf("it is longer than %d octets", maxReply))
	}
	if got, _, err := mime.ParseMediaType(resp.Header.Get("Content-Type")); want != "" && (err != nil || got != want) {
		return nil, badACME(op, fmt.Errorf("its type is %s, not %s", cmp.Or(printable(resp.Header.Get("Content-Type")), "missing"), want))
	}
	return &acmeAnswer{op: op, status: resp.StatusCode, header: resp.Header, body: text}, nil
}

// maxNonce is far above what servers make.
const maxNonce = 1024

// isBase64URL reports whether s is made of the base64url alphabet alone, as tokens and nonces must be.
func isBase64URL(s string) bool {
	return s != "" && strings.Trim(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_") == ""
}

// acmeError is a problem document (RFC 8555 §6.7), as the cause of an *Error.
type acmeError struct {
	Type        string      `json:"type"`
	Detail      string      `json:"detail"`
	Subproblems []acmeError `json:"subproblems"`
	Identifier  *Identifier `json:"identifier"`
}

const acmeErrorPrefix = "urn:ietf:params:acme:error:"

// word is the last word of the type.
func (p *acmeError) word() string { return strings.TrimPrefix(p.Type, acmeErrorPrefix) }

// Error is what the server says, fit to show.
func (p *acmeError) Error() string {
	text := printable(p.word())
	if p.Detail != "" {
		text += ": " + printable(p.Detail)
	}
	for i, sub := range p.Subproblems {
		if i == 5 {
			return text + "; …"
		}
		text += "; "
		if sub.Identifier != nil {
			text += printable(sub.Identifier.Value) + ": "
		}
		if text += printable(sub.word()); sub.Detail != p.Detail {
			text += " " + printable(sub.Detail)
		}
	}
	return text
}

// acmeProblem is the last word of the problem that an error stands for, "" for none.
func acmeProblem(err error) string {
	if p, ok := errors.AsType[*acmeError](err); ok {
		return p.word()
	}
	return ""
}

// problem is the *Error for an answer that is none.
func (a *ACME) problem(op string, resp *http.Response) error {
	text, _ := io.ReadAll(io.LimitReader(resp.Body, maxText)) // as much as came
	asked := retryAfter(resp.Header.Get("Retry-After"), a.config.Now())
	p := new(acmeError)
	if got, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type")); got != problemType || json.Unmarshal(text, p) != nil || p.Type == "" {
		out := &Error{Kind: BadReply, Op: op, Status: resp.StatusCode, Text: cmp.Or(printable(string(text)), http.StatusText(resp.StatusCode)),
			Hint: "check that the URL leads to an ACME server and not to a proxy or another service"}
		switch s := resp.StatusCode; {
		case s == http.StatusTooManyRequests, s == http.StatusBadGateway, s == http.StatusServiceUnavailable, s == http.StatusGatewayTimeout:
			out.Kind, out.Hint = Busy, "try again later"
		case s >= 300 && s < 400:
			out.Kind, out.Hint = Untrusted, "if the redirection is meant, give its target as the server"
		}
		return out.wait(asked)
	}
	out := p.refusal(op).wait(asked)
	out.Status = resp.StatusCode
	if resp.StatusCode == http.StatusServiceUnavailable || resp.StatusCode == http.StatusTooManyRequests {
		out.Kind, out.Hint = Busy, "try again later"
	}
	return out
}

// refusal is the *Error that a problem stands for (RFC 8555 §6.7).
func (p *acmeError) refusal(op string) *Error {
	out := &Error{Kind: Refused, Op: op, Text: "the server refuses", Err: p}
	switch p.word() {
	case "externalAccountRequired", "accountDoesNotExist":
		out.Kind, out.Hint = Unauthenticated, "enrol with a new credential"
	case "unauthorized":
		if op == "newAccount" {
			out.Kind, out.Hint = Unauthenticated, "check reference and secret; a credential may be spent or expired"
		} else {
			out.Hint = "the CA's policy refused; its operator sees why under `deviceca policy explain`"
		}
	case "rateLimited", "orderNotReady":
		out.Kind, out.Hint = Busy, "try again later"
	case "serverInternal":
		out.Kind, out.Hint = BadReply, "look into the server's log"
	case "malformed", "badCSR", "badPublicKey", "badSignatureAlgorithm", "badNonce", "unsupportedIdentifier", "unsupportedContact", "invalidContact", "invalidProfile":
		out.Kind = BadRequest
	case "connection", "dns", "tls", "incorrectResponse":
		out.Hint = "see that the CA reaches this host by the names asked for, at the port of http-01"
	case "badAttestationStatement":
		out.Hint = "the reason above is about this device's hardware; the CA must know its maker: `deviceca manufacturer show`, `manufacturer add`"
	}
	return out
}
