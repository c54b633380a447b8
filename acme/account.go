package acme

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/mail"
	"net/url"
	"strconv"
	"strings"

	"github.com/deviceca/deviceca/ca"
)

// Bounds of what an account may say of itself.
const (
	maxContacts = 8
	maxContact  = 254 // octets of one address
)

// accountObject is an account as clients see it (RFC 8555 §7.1.2).
type accountObject struct {
	Status  string   `json:"status"`
	Contact []string `json:"contact,omitempty"`
	Agreed  bool     `json:"termsOfServiceAgreed,omitempty"`
	Orders  string   `json:"orders"`
	// As the client sent it (RFC 8555 §7.3.4).
	Binding json.RawMessage `json:"externalAccountBinding,omitempty"`
}

func (x *exchange) showAccount(a *ca.Account, status int) *reply {
	return &reply{status: status, location: x.url("account", a.ID),
		body: accountObject{a.Status, a.Contact, a.Agreed, x.url("account", a.ID, "orders"), a.Binding}}
}

// newAccount makes an account, or finds the one with this key (RFC 8555 §7.3).
func (x *exchange) newAccount() (*reply, error) {
	if err := x.needBody(); err != nil {
		return nil, err
	}
	there, err := x.Ledger.AccountByKey(x.ctx(), x.key.thumbprint)
	if err == nil {
		return x.sameAccount(there)
	}
	if !errors.Is(err, ca.ErrNoRecord) {
		return nil, err
	}
	onlyExisting, err := x.body.truth("onlyReturnExisting")
	if err != nil {
		return nil, problem(malformed, "the account: %w", err)
	}
	if onlyExisting { // RFC 8555 §7.3.1
		return nil, problem("accountDoesNotExist", "there is no account with this key")
	}
	if err := x.limits.newAccount(x.from, x.now); err != nil {
		return nil, err
	}
	a := &ca.Account{Key: x.key.spki, Thumbprint: x.key.thumbprint, Status: string(Valid), Created: x.now}
	if a.Contact, err = x.contacts(); err != nil {
		return nil, err
	}
	if a.Agreed, err = x.body.truth("termsOfServiceAgreed"); err != nil {
		return nil, problem(malformed, "the account: %w", err)
	}
	if x.Terms != "" && !a.Agreed {
		p := problem("userActionRequired", "new accounts must agree to the terms of service at %s (termsOfServiceAgreed)", x.Terms)
		p.terms = true
		return nil, p
	}
	actor := "acme"
	bound, err := x.binding()
	if err != nil {
		return nil, err
	}
	if bound != nil {
		a.Binding = x.body.raw("externalAccountBinding")
		a.Credential, a.Device, actor = bound.Reference, bound.Device, "credential:"+bound.Reference
	}
	there, err = x.Ledger.AddAccount(x.ctx(), a, ca.Event{Time: x.now, Kind: ca.EventAccountAdded, Actor: actor, Protocol: "acme", Device: a.Device})
	switch {
	case errors.Is(err, ca.ErrSpent):
		return nil, problem(unauthorized, "%w; ask for a new one; if no account of it ever got a certificate, or has an order that can, try again in a minute", err)
	case err != nil:
		return nil, err
	case there != nil: // another connection was quicker
		return x.sameAccount(there)
	}
	x.who, x.device = a, a.Device
	return x.showAccount(a, http.StatusCreated), nil
}

// sameAccount answers a newAccount by a key that has one already.
func (x *exchange) sameAccount(a *ca.Account) (*reply, error) {
	x.who, x.device = a, a.Device
	if a.Status != string(Valid) {
		return nil, problem(unauthorized, "the account of this key was deactivated: make a new key")
	}
	return x.showAccount(a, http.StatusOK), nil
}

// contacts reads "contact": mailto URLs (RFC 6068) of one address each, as all servers must take (RFC 8555 §7.3).
func (x *exchange) contacts() ([]string, error) {
	items, _, err := x.body.list("contact")
	if err != nil {
		return nil, problem(malformed, "the account: %w", err)
	}
	if len(items) > maxContacts {
		return nil, problem("invalidContact", "%d contacts: give at most %d", len(items), maxContacts)
	}
	var contacts []string
	for _, raw := range items {
		c, ok := unquote(raw)
		if !ok {
			return nil, problem(malformed, `the account: "contact" is not an array of strings`)
		}
		scheme, to, _ := strings.Cut(c, ":")
		if !strings.EqualFold(scheme, "mailto") {
			return nil, problem("unsupportedContact", "the contact %.100q is no mailto URL", c)
		}
		if !isMailbox(to) {
			return nil, problem("invalidContact", "the contact %.100q is not mailto: and one plain address", c)
		}
		contacts = append(contacts, "mailto:"+to)
	}
	return contacts, nil
}

// spend pays for what the ledger is about to keep for the account, for a device or "", beside a certificate.
func (x *exchange) spend(device string) error {
	r := ca.Requester{Device: device}
	if x.who != nil {
		r.Account = x.who.ID
	}
	return x.Authority.Spend(r, device, x.r.RemoteAddr)
}

// isMailbox accepts the "to" of a mailto URL that is one plain address, percent-encoded or not (RFC 6068 §2), and nothing else.
func isMailbox(to string) bool {
	address, err := url.PathUnescape(to)
	if err != nil || len(to) > 3*maxContact || len(address) > maxContact || strings.ContainsAny(to, "?#,") || visible(address) != address {
		return false
	}
	parsed, err := mail.ParseAddress(address)
	return err == nil && parsed.Address == address
}

// account shows, changes or deactivates the account that asks (RFC 8555 §7.3.2, §7.3.6).
func (x *exchange) account() (*reply, error) {
	id, err := x.pathID()
	if err != nil {
		return nil, err
	}
	if id != x.who.ID {
		return nil, notFound()
	}
	if x.asGet {
		return x.showAccount(x.who, 0), nil
	}
	status, err := x.body.text("status")
	switch {
	case err != nil:
		return nil, problem(malformed, "the account: %w", err)
	case status == string(Deactivated):
		err = x.Ledger.DeactivateAccount(x.ctx(), id, x.accountEvent(ca.EventAccountEnded))
		if err != nil && !errors.Is(err, ca.ErrNoRecord) { // that another connection was quicker changes nothing
			return nil, err
		}
		x.who.Status = string(Deactivated)
		return x.showAccount(x.who, 0), nil
	case status != "" && status != string(Valid):
		return nil, problem(malformed, "an account can be made deactivated, and nothing else")
	}
	// Other fields are ignored, as RFC 8555 §7.3.2 wants.
	if x.body.raw("contact") != nil {
		if x.who.Contact, err = x.contacts(); err != nil {
			return nil, err
		}
		if err := x.spend(x.who.Device); err != nil {
			return nil, err
		}
		if err := x.Ledger.SetContact(x.ctx(), id, x.who.Contact); err != nil {
			return nil, err
		}
	}
	return x.showAccount(x.who, 0), nil
}

func (x *exchange) accountEvent(kind ca.EventKind) ca.Event {
	return ca.Event{Time: x.now, Kind: kind, Actor: ca.AccountActor(x.who.ID), Protocol: "acme", Device: x.who.Device, Account: x.who.ID}
}

// ordersPage is how many orders one page lists.
const ordersPage = 100

// orders lists the account's orders (RFC 8555 §7.1.2.1), page after page by key.
func (x *exchange) orders() (*reply, error) {
	id, err := x.pathID()
	if err != nil {
		return nil, err
	}
	if id != x.who.ID {
		return nil, notFound()
	}
	if err := x.onlyGet(); err != nil {
		return nil, err
	}
	var after int64
	if q := x.r.URL.Query().Get("after"); q != "" {
		var ok bool
		if after, ok = parseID(q); !ok {
			return nil, problem(malformed, `"after" is the number of an order`)
		}
	}
	ids, err := x.Ledger.Orders(x.ctx(), id, after, ordersPage+1)
	if err != nil {
		return nil, err
	}
	answer := &reply{}
	if len(ids) > ordersPage {
		ids = ids[:ordersPage]
		answer.links = []string{link(x.url("account", id, "orders")+"?after="+strconv.FormatInt(ids[len(ids)-1], 10), "next")}
	}
	urls := make([]string, len(ids))
	for i, id := range ids {
		urls[i] = x.url("order", id)
	}
	answer.body = map[string]any{"orders": urls}
	return answer, nil
}
