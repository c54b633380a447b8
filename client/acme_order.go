package client

import (
	"bytes"
	"cmp"
	"context"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
)

// Identifier is what an order names (RFC 8555 §9.7.7).
type Identifier struct {
	Type  string `json:"type"`
	Value string `json:"value"`
}

func (i Identifier) String() string { return printable(i.Value) + " (" + printable(i.Type) + ")" }

// acmeOrder is RFC 8555 §7.1.3.
type acmeOrder struct {
	Status         string     `json:"status"`
	Error          *acmeError `json:"error"`
	Authorizations []string   `json:"authorizations"`
	Finalize       string     `json:"finalize"`
	Certificate    string     `json:"certificate"`

	url    string
	answer *acmeAnswer
}

// acmeAuthorization is RFC 8555 §7.1.4.
type acmeAuthorization struct {
	Status     string          `json:"status"`
	Identifier Identifier      `json:"identifier"`
	Wildcard   bool            `json:"wildcard"`
	Challenges []acmeChallenge `json:"challenges"`
}

// acmeChallenge is RFC 8555 §7.1.5.
type acmeChallenge struct {
	Type   string     `json:"type"`
	URL    string     `json:"url"`
	Status string     `json:"status"`
	Token  string     `json:"token"`
	Error  *acmeError `json:"error"`
}

// The most that a server may list.
const (
	maxAuthorizations = 100
	maxChain          = 10
)

// acmeState is what is kept of a request that has had no answer yet (Request.State).
type acmeState struct {
	Order string `json:"order"`
	CSR   []byte `json:"csr"`
}

// identifiers are what to order for the names: the device, and what is served on a network. The device
// is not repeated as such in the request: the subject has its ID (draft-ietf-acme-device-attest §3.2).
func identifiers(n Names, attester Attester) ([]Identifier, error) {
	var out []Identifier
	if id := commonName(n.Subject); id != "" {
		out = append(out, deviceIdentifier(id, attester))
	}
	for kind, value := range generalNames(n.SAN) {
		switch kind {
		case "DNS":
			out = append(out, Identifier{"dns", value})
		case "IP":
			out = append(out, Identifier{"ip", value})
		default:
			return nil, &Error{Kind: Usage, Op: "newOrder", Text: "ACME has no way to ask for the " + kind + " " + printable(value),
				Hint: "leave it out, or enrol over EST or CMP"}
		}
	}
	if len(out) == 0 {
		return nil, &Error{Kind: Usage, Op: "newOrder", Text: "there is no name to ask for"}
	}
	return out, nil
}

// deviceIdentifier is what to order a device by: its ID as a permanent-identifier, unless the evidence names it otherwise,
// for a CA compares order and evidence octet for octet. Of several names the one with the ID is taken, else that of the
// hardware, whose serial number need not be the ID.
func deviceIdentifier(id string, attester Attester) Identifier {
	plain := Identifier{"permanent-identifier", id}
	if attester == nil {
		return plain
	}
	named := attester.Identifiers()
	for _, fits := range []func(Identifier) bool{
		func(i Identifier) bool { return i == plain },
		func(i Identifier) bool {
			value, _, _ := strings.Cut(i.Value, "/")
			return sameID(value, id)
		},
		func(i Identifier) bool { return i.Type == "hardware-module" },
	} {
		if at := slices.IndexFunc(named, fits); at >= 0 {
			return named[at]
		}
	}
	return plain
}

// order goes on with the order of an earlier attempt, or makes a new one. It returns the CSR as well, which
// is kept with the order.
func (s *acmeSession) order(ctx context.Context, req *Request, ids []Identifier, replaces string) (*acmeOrder, []byte, error) {
	var kept acmeState
	if json.Unmarshal(req.State, &kept) == nil && csrFor(kept.CSR, req) {
		o, err := s.lookAt(ctx, "order", kept.Order)
		if err == nil && o.Status != "invalid" {
			return o, kept.CSR, nil
		}
		if fail, ok := errors.AsType[*Error](err); ok && (fail.Status == 0 || !fail.Final()) {
			return nil, nil, err // the server did not say that it is of no use
		}
	}
	csr, err := req.csr()
	if err != nil {
		return nil, nil, err
	}
	o, err := s.newOrder(ctx, ids, replaces)
	if fail, ok := errors.AsType[*acmeError](err); ok && replaces != "" && fail.word() != "rateLimited" {
		// To say which one it replaces helps the CA, which may not know it as this account's; the order is good without.
		o, err = s.newOrder(ctx, ids, "")
	}
	if err != nil {
		return nil, nil, err
	}
	state, err := json.Marshal(acmeState{Order: o.url, CSR: csr})
	if err != nil {
		return nil, nil, &Error{Kind: Local, Op: "newOrder", Text: "the order cannot be kept", Err: err}
	}
	return o, csr, req.save(state)
}

// newOrder is RFC 8555 §7.4, with a profile (draft-ietf-acme-profiles) and the certificate it replaces (RFC 9773 §5).
func (s *acmeSession) newOrder(ctx context.Context, ids []Identifier, replaces string) (*acmeOrder, error) {
	payload, err := json.Marshal(struct {
		Identifiers []Identifier `json:"identifiers"`
		Profile     string       `json:"profile,omitempty"`
		Replaces    string       `json:"replaces,omitempty"`
	}{ids, s.config.Label, replaces})
	if err != nil {
		return nil, &Error{Kind: Local, Op: "newOrder", Text: "the request cannot be made", Err: err}
	}
	a, err := s.post(ctx, acmeCall{op: "newOrder", url: s.resources.NewOrder, payload: payload})
	if err != nil {
		return nil, err
	}
	return s.readOrder(a, a.header.Get("Location"))
}

// lookAt reads an order.
func (s *acmeSession) lookAt(ctx context.Context, op, at string) (*acmeOrder, error) {
	a, err := s.post(ctx, acmeCall{op: op, url: at})
	if err != nil {
		return nil, err
	}
	return s.readOrder(a, at)
}

func (s *acmeSession) readOrder(a *acmeAnswer, at string) (*acmeOrder, error) {
	o := &acmeOrder{url: at, answer: a}
	if err := a.decode(o); err != nil {
		return nil, err
	}
	switch {
	case s.foreign(at):
		return nil, badACME(a.op, errors.New("the order is at "+cmp.Or(printable(at), "no URL")))
	case len(o.Authorizations) > maxAuthorizations:
		return nil, badACME(a.op, fmt.Errorf("it lists %d authorizations", len(o.Authorizations)))
	case !slices.Contains([]string{"pending", "ready", "processing", "valid", "invalid"}, o.Status):
		return nil, badACME(a.op, errors.New("an order is not "+cmp.Or(printable(o.Status), "without status")))
	}
	return o, nil
}

// follow reads the order again for as long as it is in a status.
func (s *acmeSession) follow(ctx context.Context, o *acmeOrder, status string) (*acmeOrder, error) {
	for n := 1; o.Status == status; n++ {
		if err := s.rest(ctx, "order", o.answer, n, "the CA has not decided yet"); err != nil {
			return nil, err
		}
		var err error
		if o, err = s.lookAt(ctx, "order", o.url); err != nil {
			return nil, err
		}
	}
	if o.Status == "invalid" {
		if o.Error != nil {
			return nil, o.Error.refusal("order")
		}
		return nil, &Error{Kind: Refused, Op: "order", Text: "the server made the order invalid and does not say why"}
	}
	return o, nil
}

// rest waits until the server wants to be asked the n-th time; an error of kind Pending when that is
// after the deadline.
func (s *acmeSession) rest(ctx context.Context, op string, a *acmeAnswer, n int, why string) error {
	asked := retryAfter(a.header.Get("Retry-After"), s.config.Now())
	wait := pause(asked, n)
	pending := (&Error{Kind: Pending, Op: op, Text: why,
		Hint: "have the request approved at the CA, then run this again: it goes on with the same order"}).wait(cmp.Or(asked, maxBackoff))
	if s.config.Now().Add(wait).After(s.deadline) {
		return pending
	}
	if err := s.sleep(ctx, wait); err != nil {
		pending.Text, pending.Err = "given up while waiting", err
		return pending
	}
	return nil
}

// work is one challenge that was begun.
type work struct {
	authorization string
	identifier    Identifier
}

// authorize meets a challenge for each authorization that needs one.
func (s *acmeSession) authorize(ctx context.Context, o *acmeOrder, req *Request, ids []Identifier) error {
	var begun []work
	var listener *http01
	defer func() {
		if listener != nil {
			listener.close()
		}
	}()
	for _, at := range o.Authorizations {
		z, _, err := s.authorization(ctx, at)
		if err != nil {
			return err
		}
		if !slices.ContainsFunc(ids, func(i Identifier) bool {
			return i.Type == z.Identifier.Type && strings.EqualFold(i.Value, z.Identifier.Value)
		}) {
			return badACME("authorization", fmt.Errorf("it is for %v, which was not asked for", z.Identifier))
		}
		switch z.Status {
		case "valid":
			continue
		case "pending":
		default:
			return z.refusal()
		}
		c, err := s.choose(z)
		if err != nil {
			return err
		}
		authorization, err := keyAuthorization(c.Token, &s.account.Key.PublicKey)
		if err != nil {
			return &Error{Kind: Local, Op: c.Type, Text: "the account's key cannot be used", Err: err}
		}
		payload := []byte("{}")
		switch c.Type {
		case "device-attest-01":
			if payload, err = s.attest(ctx, authorization, req); err != nil {
				return err
			}
		case "http-01":
			if listener == nil {
				if listener, err = listenHTTP01(s.config.HTTP01); err != nil {
					return err
				}
			}
			listener.add(c.Token, authorization)
		}
		if c.Status == "pending" {
			if _, err := s.post(ctx, acmeCall{op: c.Type, url: c.URL, payload: payload}); err != nil {
				return err
			}
		}
		begun = append(begun, work{at, z.Identifier})
	}
	for _, w := range begun {
		for n := 1; ; n++ {
			z, a, err := s.authorization(ctx, w.authorization)
			if err != nil {
				return err
			}
			if z.Status == "valid" {
				break
			}
			if z.Status != "pending" {
				return z.refusal()
			}
			if err := s.rest(ctx, "authorization", a, n, "the CA has not looked at "+w.identifier.String()+" yet"); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *acmeSession) authorization(ctx context.Context, at string) (*acmeAuthorization, *acmeAnswer, error) {
	a, err := s.post(ctx, acmeCall{op: "authorization", url: at})
	if err != nil {
		return nil, nil, err
	}
	z := new(acmeAuthorization)
	if err := a.decode(z); err != nil {
		return nil, nil, err
	}
	return z, a, nil
}

// refusal is the error of an authorization that cannot become valid.
func (z *acmeAuthorization) refusal() error {
	for _, c := range z.Challenges {
		if c.Error != nil {
			e := c.Error.refusal(printable(c.Type))
			e.Text = "the CA does not believe that this is " + z.Identifier.String()
			return e
		}
	}
	return &Error{Kind: Refused, Op: "authorization", Text: fmt.Sprintf("the authorization of %v is %s", z.Identifier, printable(z.Status))}
}

// choose picks a challenge that this device can meet.
func (s *acmeSession) choose(z *acmeAuthorization) (acmeChallenge, error) {
	var offered []string
	for _, c := range z.Challenges {
		switch {
		case c.Type == "device-attest-01" && s.config.Attester == nil, c.Type == "http-01" && s.config.HTTP01 == "",
			c.Type != "device-attest-01" && c.Type != "http-01":
			offered = append(offered, printable(c.Type))
		case !isBase64URL(c.Token):
			return acmeChallenge{}, badACME("authorization", errors.New("the token is not base64url"))
		default:
			return c, nil
		}
	}
	e := &Error{Kind: Refused, Op: "authorization", Text: fmt.Sprintf("the CA wants %v proven by %s", z.Identifier, cmp.Or(strings.Join(offered, " or "), "nothing it offers"))}
	switch {
	case slices.Contains(offered, "http-01"):
		e.Hint = "say where to answer http-01 (-http01 ADDR), or ask for fewer names"
	case slices.Contains(offered, "device-attest-01"):
		e.Hint = "enrol with the device's TPM (--tpm)"
	}
	return acmeChallenge{}, e
}

// attest makes the response to device-attest-01 (draft-ietf-acme-device-attest §5).
func (s *acmeSession) attest(ctx context.Context, authorization string, req *Request) ([]byte, error) {
	const op = "device-attest-01"
	made, err := s.config.Attester.Attest(ctx, authorization)
	if err != nil {
		return nil, &Error{Kind: Local, Op: op, Text: "the key cannot be attested", Err: err}
	}
	if !samePublic(made.Key.Public(), req.Key.Public()) {
		return nil, &Error{Kind: Usage, Op: op, Text: "the key that is attested is not the one that the certificate is for",
			Hint: "give the attested key as Config.Signer"}
	}
	response := struct {
		Object string `json:"attObj"`
		Quote  string `json:"quote,omitempty"`
	}{b64.EncodeToString(made.Object), b64.EncodeToString(made.Quote)}
	for _, w := range made.Warnings {
		if !slices.Contains(s.warnings, w) {
			s.warnings = append(s.warnings, w)
		}
	}
	payload, err := json.Marshal(response)
	if err != nil {
		return nil, &Error{Kind: Local, Op: op, Text: "the evidence cannot be encoded", Err: err}
	}
	return payload, nil
}

// finalize sends the CSR (RFC 8555 §7.4).
func (s *acmeSession) finalize(ctx context.Context, o *acmeOrder, csr []byte) (*acmeOrder, error) {
	payload, err := json.Marshal(struct {
		CSR string `json:"csr"`
	}{b64.EncodeToString(csr)})
	if err != nil {
		return nil, &Error{Kind: Local, Op: "finalize", Text: "the request cannot be made", Err: err}
	}
	a, err := s.post(ctx, acmeCall{op: "finalize", url: o.Finalize, payload: payload})
	if err != nil {
		return nil, err
	}
	return s.readOrder(a, o.url)
}

// download fetches the certificate and its chain (RFC 8555 §7.4.2).
func (s *acmeSession) download(ctx context.Context, o *acmeOrder) ([]*x509.Certificate, http.Header, error) {
	const op = "certificate"
	a, err := s.post(ctx, acmeCall{op: op, url: o.Certificate, want: chainType})
	if err != nil {
		return nil, nil, err
	}
	certs, err := parseChain(a.body)
	if err != nil {
		return nil, nil, badACME(op, err)
	}
	return certs, a.header, nil
}

// parseChain reads application/pem-certificate-chain (RFC 8555 §9.1): certificates in PEM and nothing else.
func parseChain(text []byte) ([]*x509.Certificate, error) {
	var out []*x509.Certificate
	for rest := bytes.TrimSpace(text); len(rest) > 0; rest = bytes.TrimSpace(rest) {
		var block *pem.Block
		if !bytes.HasPrefix(rest, []byte("-----BEGIN CERTIFICATE-----")) {
			return nil, errors.New("it holds something other than certificates")
		}
		if block, rest = pem.Decode(rest); block == nil || block.Type != "CERTIFICATE" || len(block.Headers) > 0 {
			return nil, errors.New("it is not PEM")
		}
		if len(out) == maxChain {
			return nil, fmt.Errorf("it holds more than %d certificates", maxChain)
		}
		c, err := parseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("certificate %d: %w", len(out)+1, err)
		}
		out = append(out, c)
	}
	if len(out) == 0 {
		return nil, errors.New("it is empty")
	}
	return out, nil
}
