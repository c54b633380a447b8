package acme

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/deviceca/deviceca/ca"
)

const (
	// orderLife is how long a client has to fulfil an order and its authorizations.
	orderLife = 7 * 24 * time.Hour
	// maxIdentifiers is how many an order may have: as many as a certificate.
	maxIdentifiers = 32
	maxIdentifier  = 255 // octets
)

// orderObject is an order as clients see it (RFC 8555 §7.1.3).
type orderObject struct {
	Status         Status       `json:"status"`
	Expires        time.Time    `json:"expires"`
	Identifiers    []Identifier `json:"identifiers"`
	NotBefore      *time.Time   `json:"notBefore,omitempty"`
	NotAfter       *time.Time   `json:"notAfter,omitempty"`
	Profile        string       `json:"profile,omitempty"`
	Replaces       string       `json:"replaces,omitempty"`
	Error          *Problem     `json:"error,omitempty"`
	Authorizations []string     `json:"authorizations"`
	Finalize       string       `json:"finalize"`
	Certificate    string       `json:"certificate,omitempty"`
}

// showOrder is the order with this status; authorizations are those of an open one, for its error.
func (x *exchange) showOrder(o *Order, status Status, authorizations []*Authorization) *reply {
	v := orderObject{Status: status, Expires: o.Expires.UTC().Truncate(time.Second), Identifiers: o.Identifiers, Profile: o.Profile, Replaces: o.Replaces,
		NotBefore: timeOrNil(o.NotBefore), NotAfter: timeOrNil(o.NotAfter), Finalize: x.url("order", o.ID, "finalize"), Authorizations: []string{}}
	for _, id := range o.Authorizations {
		v.Authorizations = append(v.Authorizations, x.url("authorization", id))
	}
	if status == Valid {
		v.Certificate = x.url("certificate", o.Serial.String())
	}
	if status == Invalid {
		v.Error = o.failure(authorizations, x.now).document()
	}
	answer := &reply{body: v, location: x.url("order", o.ID)}
	if status == Processing {
		answer.retryAfter = retryProcessing
	}
	return answer
}

// retryProcessing is when a client should ask again for what needs a moment.
const retryProcessing = time.Second

func timeOrNil(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

// failure is why an order is invalid.
func (o *Order) failure(authorizations []*Authorization, now time.Time) *Problem {
	if o.Error != nil {
		return o.Error
	}
	p := problem(unauthorized, "an identifier of the order is not authorized")
	for _, a := range authorizations {
		status := a.StatusAt(now)
		if status == Valid || status == Pending {
			continue
		}
		sub := problem(unauthorized, "the authorization is %s", status)
		for _, c := range a.Challenges {
			if c.Error != nil {
				sub = &Problem{Type: c.Error.Type, Detail: c.Error.Detail}
			}
		}
		sub.Status, sub.Identifier = 0, &a.Identifier
		p.Subproblems = append(p.Subproblems, *sub)
	}
	if !now.Before(o.Expires) {
		p = problem(unauthorized, "the order expired before it was fulfilled")
	}
	return p
}

// newOrder takes an order (RFC 8555 §7.4), in steps that go from what the request says to what it would cost:
//
//  1. Read it.
//  2. Whose device is it for, and does the account speak for that device?
//  3. Which certificate does it replace?
//  4. Could policy ever grant it? What it never could is refused now, name by name.
//  5. What has to be proven for each name?
//  6. Make order and authorizations durable together.
func (x *exchange) newOrder() (*reply, error) {
	if err := x.needBody(); err != nil {
		return nil, err
	}
	o, err := x.readOrder()
	if err != nil {
		return nil, err
	}
	request := ca.Request{Protocol: "acme", Names: ca.Names{SANs: sans(o.Identifiers)}, Profile: o.Profile, Address: x.r.RemoteAddr}
	if request.Requester, err = x.Authority.AccountRequester(x.ctx(), x.who.ID, x.who.Credential, request.Names.SANs); err != nil {
		return nil, err
	}
	x.device = request.Requester.Device
	if err := x.limits.newOrder(x.who.ID, x.device, x.from, x.now); err != nil {
		return nil, err
	}
	replaced, err := x.predecessor(o)
	if err != nil {
		return nil, err
	}
	if replaced != nil {
		request.Replaces = replaced.Serial
	}
	prospect, err := x.consider(request, replaced)
	if err != nil {
		return nil, x.discreet(err)
	}
	if err := x.period(o, prospect); err != nil {
		return nil, err
	}
	o.Profile = prospect.Profile
	authorizations, err := x.authorize(o, prospect)
	if err != nil {
		return nil, err
	}
	var added []*Authorization
	for _, a := range authorizations {
		if a.ID == 0 {
			added = append(added, a)
		} else {
			o.Authorizations = append(o.Authorizations, a.ID)
		}
	}
	err = x.Ledger.AddOrder(x.ctx(), o, added, x.limits.OpenOrders)
	switch {
	case errors.Is(err, ca.ErrRecorded):
		return nil, problem("alreadyReplaced", "another order replaces this certificate already")
	case errors.Is(err, ErrFull):
		p := problem("rateLimited", "%d orders of this account wait for an administrator, as many as may: ask for approval of these first", x.limits.OpenOrders)
		p.retryAfter = pruneEvery
		return nil, p
	case err != nil:
		return nil, err
	}
	answer := x.showOrder(o, o.StatusAt(authorizations, x.now), authorizations)
	answer.status = http.StatusCreated
	return answer, nil
}

// discreet keeps from accounts that nobody vouches for which devices there are.
func (x *exchange) discreet(err error) error {
	if p := refuse(err); x.who.Credential == "" && p.Status == http.StatusForbidden {
		return problem(unauthorized, "an account without external account binding may not have these names")
	}
	return err
}

// readOrder reads the payload of newOrder.
func (x *exchange) readOrder() (*Order, error) {
	o := &Order{Account: x.who.ID, Status: Open, Created: x.now, Expires: x.now.Add(orderLife)}
	items, _, err := x.body.list("identifiers")
	if err == nil && (len(items) == 0 || len(items) > maxIdentifiers) {
		err = fmt.Errorf(`"identifiers" has %d, 1 to %d allowed`, len(items), maxIdentifiers)
	}
	var refused []Problem
	for i := 0; err == nil && i < len(items); i++ {
		var id Identifier
		var p *Problem
		if id, p, err = readIdentifier(items[i]); p != nil {
			p.Identifier, p.Status = &id, 0
			refused = append(refused, *p)
		} else if !slices.Contains(o.Identifiers, id) {
			o.Identifiers = append(o.Identifiers, id)
		}
	}
	for _, f := range []struct {
		name string
		to   *time.Time
	}{{"notBefore", &o.NotBefore}, {"notAfter", &o.NotAfter}} {
		if err == nil {
			*f.to, err = x.body.moment(f.name)
			*f.to = f.to.Truncate(time.Second) // certificates know no fractions
		}
	}
	if err == nil {
		o.Profile, err = x.body.text("profile")
	}
	if err == nil {
		o.Replaces, err = x.body.text("replaces")
	}
	if err != nil {
		return nil, problem(malformed, "the order: %w", err)
	}
	return o, compound(refused)
}

// compound makes one problem of those of single identifiers; nil if there are none.
func compound(refused []Problem) error {
	if len(refused) == 0 {
		return nil
	}
	p := problem(refused[0].Type, "%s", refused[0].Detail)
	for _, r := range refused[1:] {
		if r.Type != p.Type {
			p = problem(rejectedIdentifier, "some of the identifiers are refused")
		} else if r.Detail != p.Detail {
			p.Detail = "some of the identifiers are refused"
		}
	}
	p.Subproblems = refused
	return p
}

// readIdentifier reads one identifier and brings DNS names into small letters. A problem is about the
// identifier, an error about the JSON.
func readIdentifier(raw []byte) (id Identifier, p *Problem, err error) {
	o, err := parseObject(raw)
	if err == nil {
		id.Type, err = o.text("type")
	}
	if err == nil {
		id.Value, err = o.text("value")
	}
	if err != nil {
		return id, nil, fmt.Errorf(`an identifier: %w`, err)
	}
	if len(id.Value) > maxIdentifier || len(id.Type) > 64 {
		return Identifier{Type: visible(id.Type), Value: visible(id.Value)}, problem(malformed, "an identifier has more than %d octets", maxIdentifier), nil
	}
	switch id.Type {
	case "dns":
		id.Value = strings.ToLower(id.Value)
		if host := strings.TrimPrefix(id.Value, "*."); !isHostName(host) {
			p = problem(malformed, "%q is no host name: labels of a-z, 0-9 and '-', internationalized names as A-labels, no dot at the end", id.Value)
		}
	case "ip": // RFC 8738 §3
		if addr, err := netip.ParseAddr(id.Value); err != nil || addr.Zone() != "" || addr.Is4In6() || addr.String() != id.Value {
			p = problem(malformed, "%q is no IP address as in RFC 5952", id.Value)
		}
	case "permanent-identifier": // draft-ietf-acme-device-attest §3.1
		if value, assigner, has := strings.Cut(id.Value, "/"); !isPlain(value) || has && !isOID(assigner) {
			p = problem(malformed, "%q is no permanent identifier: ID or ID/ASSIGNER, with the assigner's object identifier", id.Value)
		}
	case "hardware-module": // §4.1
		if serial, hardware, has := strings.Cut(id.Value, "/"); !isPlain(serial) || !has || !isOID(hardware) {
			p = problem(malformed, "%q is no hardware module: SERIAL/TYPE, with the type's object identifier", id.Value)
		}
	default:
		p = problem(unsupportedIdentifier, "identifiers of type %q are not supported: use dns, ip, permanent-identifier or hardware-module", id.Type)
	}
	return id, p, nil
}

// isPlain accepts what certificates here carry as the value of an otherName.
func isPlain(s string) bool {
	return s != "" && utf8.ValidString(s) && !strings.ContainsFunc(s, func(c rune) bool { return c < 0x20 || c == 0x7f })
}

// isOID accepts an object identifier in its one dotted form.
func isOID(s string) bool {
	parts := strings.Split(s, ".")
	for i, part := range parts {
		n, ok := parseID("1" + part) // so that the part itself may be 0
		if !ok || part == "" || len(part) > 1 && part[0] == '0' || len(part) > 9 {
			return false
		}
		if i == 0 && n > 12 || i == 1 && parts[0] != "2" && len(part) > 1 && part > "39" {
			return false
		}
	}
	return len(parts) >= 2
}

// sans are identifiers as certificates have them.
func sans(ids []Identifier) []ca.SAN {
	list := make([]ca.SAN, len(ids))
	for i, id := range ids {
		list[i] = ca.SAN{Form: id.Type, Value: id.Value}
	}
	return list
}

// consider asks policy what it could never grant. An order that replaces a certificate and names no profile
// keeps the certificate's, if the level still has it.
func (x *exchange) consider(r ca.Request, replaced *ca.Certificate) (*ca.Prospect, error) {
	prospect, err := x.Authority.Consider(x.ctx(), r)
	if err != nil {
		return nil, err
	}
	if replaced != nil && r.Profile == "" && replaced.Profile != prospect.Profile {
		r.Profile = replaced.Profile
		if same, err := x.Authority.Consider(x.ctx(), r); err == nil && len(same.Refused) == 0 {
			return same, nil
		}
		r.Profile = ""
	}
	var refused []Problem
	for _, no := range prospect.Refused {
		switch says := visible(no.Reason + " (rule " + no.Rule + ")"); {
		case strings.HasPrefix(no.Rule, "levels.") && strings.HasSuffix(no.Rule, ".profiles"), r.Profile != "" && strings.HasSuffix(no.Rule, ".san"):
			return nil, problem("invalidProfile", "%s", says)
		case no.Name < 0:
			return nil, problem(unauthorized, "%s", says)
		default:
			name := r.Names.SANs[no.Name]
			refused = append(refused, Problem{Type: rejectedIdentifier, Detail: says, Identifier: &Identifier{name.Form, name.Value}})
		}
	}
	return prospect, compound(refused)
}

// period checks notBefore and notAfter: what cannot be had exactly is refused (RFC 8555 §7.4).
func (x *exchange) period(o *Order, p *ca.Prospect) error {
	latest, earliest := x.now.Add(p.Longest), x.now.Add(-p.Backdate)
	if end := x.issuerEnd(p.Profile); !end.IsZero() && end.Before(latest) {
		latest = end
	}
	switch {
	case !o.NotBefore.IsZero() && (o.NotBefore.Before(earliest.Truncate(time.Second)) || o.NotBefore.After(x.now)):
		return problem(malformed, "notBefore is %s: profile %s begins between %s and now", o.NotBefore.Format(time.RFC3339), p.Profile, earliest.UTC().Format(time.RFC3339))
	case !o.NotAfter.IsZero() && o.NotAfter.After(latest):
		return problem(malformed, "notAfter is %s: profile %s ends at %s at the latest", o.NotAfter.Format(time.RFC3339), p.Profile, latest.UTC().Format(time.RFC3339))
	case !o.NotAfter.IsZero() && !o.NotAfter.After(x.now):
		return problem(malformed, "notAfter is %s, which has passed", o.NotAfter.Format(time.RFC3339))
	}
	return nil
}

// issuerEnd is when the newest CA that issues a profile ends; zero if there is none.
func (x *exchange) issuerEnd(profile string) (end time.Time) {
	p, ok := x.Authority.Policy().Profile(profile)
	if !ok {
		return end
	}
	generation := 0
	for _, i := range x.Authority.Issuers() {
		if i.Role != p.Issuer || i.Generation <= generation || i.Revoked != nil {
			continue
		}
		if cert, err := x509.ParseCertificate(i.Cert); err == nil {
			generation, end = i.Generation, cert.NotAfter
		}
	}
	return end
}

// ownOrder reads the order of the path, with its authorizations if it is open.
func (x *exchange) ownOrder() (*Order, []*Authorization, error) {
	id, err := x.pathID()
	if err != nil {
		return nil, nil, err
	}
	return x.orderByID(id)
}

func (x *exchange) orderByID(id int64) (*Order, []*Authorization, error) {
	o, err := x.Ledger.Order(x.ctx(), id)
	if errors.Is(err, ca.ErrNoRecord) || err == nil && o.Account != x.who.ID {
		return nil, nil, notFound()
	}
	if err != nil || o.Status == Valid || o.Status == Invalid {
		return o, nil, err
	}
	authorizations := make([]*Authorization, len(o.Authorizations))
	for i, id := range o.Authorizations {
		a, err := x.Ledger.Authorization(x.ctx(), id)
		if errors.Is(err, ca.ErrNoRecord) { // expired so long ago that it is forgotten
			a, err = &Authorization{ID: id, Status: Invalid}, nil
		}
		if err != nil {
			return nil, nil, err
		}
		authorizations[i] = a
	}
	return o, authorizations, nil
}

// order shows an order. One that waits for an administrator's approval is asked for anew.
func (x *exchange) order() (*reply, error) {
	if err := x.onlyGet(); err != nil {
		return nil, err
	}
	o, authorizations, err := x.ownOrder()
	if err != nil {
		return nil, err
	}
	if o.StatusAt(authorizations, x.now) == Processing {
		// One at a time: who comes second must not ask for another approval.
		wait := &x.waits[o.ID%int64(len(x.waits))]
		wait.Lock()
		defer wait.Unlock()
		if o, authorizations, err = x.orderByID(o.ID); err != nil {
			return nil, err
		}
		if o.StatusAt(authorizations, x.now) == Processing {
			return x.issue(o, authorizations, o.CSR)
		}
	}
	return x.showOrder(o, o.StatusAt(authorizations, x.now), authorizations), nil
}
