package acme

import (
	"errors"
	"net/http"

	"github.com/deviceca/deviceca/ca"
)

// keyChange gives the account another key (RFC 8555 §7.3.5). The payload is a JWS by the new key
// over the account and its old key. The steps are numbered as there; step 1 was done before.
func (x *exchange) keyChange() (*reply, error) {
	if err := x.needBody(); err != nil {
		return nil, err
	}
	// 2. The inner message is well formed.
	inner, err := parseJWS(x.message.body)
	if err != nil {
		p := refuse(err)
		p.Detail = "the inner JWS: " + p.Detail
		return nil, p
	}
	// 3 and 4. It has a key, and is signed with it.
	if inner.jwk == nil {
		return nil, problem(malformed, `the inner JWS must have the new key as "jwk"`)
	}
	if inner.nonce != "" {
		return nil, problem(malformed, "the inner JWS has a nonce, and must not")
	}
	key, err := parseJWK(inner.jwk)
	if err != nil {
		return nil, err
	}
	if err := inner.verify(key); err != nil {
		return nil, err
	}
	// 5. Its payload is a keyChange.
	o, err := parseObject(inner.body)
	if err != nil {
		return nil, problem(malformed, "the payload of the inner JWS cannot be read: %w", err)
	}
	account, err := o.text("account")
	old := o.raw("oldKey")
	if err != nil || old == nil {
		return nil, problem(malformed, `the payload of the inner JWS must have "account" and "oldKey"`)
	}
	// 6, 7 and 8. It is for this URL, this account and its key.
	if inner.url != x.message.url {
		return nil, problem(malformed, "the inner JWS is for another URL than the outer one")
	}
	if account != x.url("account", x.who.ID) {
		return nil, problem(malformed, `"account" is not the account that asks`)
	}
	if was, err := parseJWK(old); err != nil || was.thumbprint != x.who.Thumbprint {
		return nil, problem(malformed, `"oldKey" is not the account's key`)
	}
	// 9. No account has the new key, this one included; of others the ledger knows.
	if key.thumbprint == x.who.Thumbprint {
		return nil, x.keyTaken(key)
	}
	if err := x.spend(x.who.Device); err != nil {
		return nil, err
	}
	err = x.Ledger.ChangeKey(x.ctx(), x.who.ID, x.who.Thumbprint, key.spki, key.thumbprint, x.accountEvent(ca.EventAccountChanged))
	switch {
	case errors.Is(err, ca.ErrRecorded):
		return nil, x.keyTaken(key)
	case errors.Is(err, ca.ErrNoRecord):
		return nil, problem(malformed, "the account's key was changed meanwhile").with(http.StatusConflict)
	case err != nil:
		return nil, err
	}
	return x.showAccount(x.who, 0), nil
}

// keyTaken says whose the new key is.
func (x *exchange) keyTaken(key *publicKey) error {
	p := problem(malformed, "an account has this key already: make a new one").with(http.StatusConflict)
	if a, err := x.Ledger.AccountByKey(x.ctx(), key.thumbprint); err == nil {
		p.location = x.url("account", a.ID)
	}
	return p
}
