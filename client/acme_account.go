package client

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io/fs"
	"net/http"
	"slices"
)

// Account is an ACME account (RFC 8555 §7.1.2): the key that signs its requests, and
// where the server keeps it.
type Account struct {
	Directory string // the URL that it belongs to
	Reference string // of the credential that it is bound to, "" for none
	URL       string // "" until the server told
	Key       *ecdsa.PrivateKey
}

// Accounts keeps accounts; *Store does, in account.pem.
type Accounts interface {
	// LoadAccounts is what is kept, none if there is nothing.
	LoadAccounts() ([]*Account, error)
	// SaveAccounts keeps accounts durably, in place of those before.
	SaveAccounts([]*Account) error
}

// AccountFile holds the ACME accounts and their keys, the one last used first, mode 0600.
const AccountFile = "account.pem"

const accountBlock = "DEVICECA ACME ACCOUNT"

// maxAccounts is how many accounts are kept: of each server and credential that there was, but the oldest.
const maxAccounts = 8

// SaveAccounts writes account.pem.
func (s *Store) SaveAccounts(list []*Account) error {
	var text []byte
	for _, a := range list {
		der, err := x509.MarshalPKCS8PrivateKey(a.Key)
		if err != nil {
			return saveError(AccountFile, err)
		}
		block := pem.EncodeToMemory(&pem.Block{Type: accountBlock, Bytes: der,
			Headers: map[string]string{"Directory": a.Directory, "Reference": a.Reference, "URL": a.URL}})
		if block == nil {
			return saveError(AccountFile, errors.New("it cannot be encoded"))
		}
		text = append(text, block...)
	}
	return s.write(AccountFile, text, 0o600)
}

// LoadAccounts reads account.pem. One that cannot be read is an error: it may be all that the
// server knows this device by.
func (s *Store) LoadAccounts() ([]*Account, error) {
	text, err := s.read(AccountFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var list []*Account
	for err == nil && len(bytes.TrimSpace(text)) > 0 {
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil || block.Type != accountBlock {
			err = errors.New("there is something other than accounts in it")
			break
		}
		var a *Account
		a, err = readAccount(block)
		list = append(list, a)
	}
	if err == nil && len(list) == 0 {
		err = errors.New("there is no account in it")
	}
	if err != nil {
		return nil, &Error{Kind: Local, Op: "load", Text: AccountFile + " cannot be read", Err: err,
			Hint: "put it back, or remove it and enrol with a new credential"}
	}
	return list, nil
}

func readAccount(block *pem.Block) (*Account, error) {
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, err
	}
	ec, ok := key.(*ecdsa.PrivateKey)
	if !ok || ec.Curve != elliptic.P256() {
		return nil, errors.New("its key is not on P-256")
	}
	return &Account{Directory: block.Headers["Directory"], Reference: block.Headers["Reference"], URL: block.Headers["URL"], Key: ec}, nil
}

// of reports whether an account may stand for the credential that is given, if one is. A new credential makes a new
// account, as after the old one was revoked.
func (a *Account) of(c *Credential) bool { return c == nil || c.Reference == a.Reference }

// open finds the account to use, in this order:
//
//  1. one that this server made
//  2. one that is kept for another address and that this server knows as well, as after it was renamed
//  3. a new one, bound to the credential; or the one begun before, whose answer was lost
//
// With fresh the server has just said that it does not know the first. Nothing that is kept is given up for another account. A new
// key is kept before it is shown to the server, so that a lost answer costs no use of the credential: the server
// finds the account by its key.
func (s *acmeSession) open(ctx context.Context, c *Credential, fresh bool) error {
	kept, err := s.config.Accounts.LoadAccounts()
	if err != nil {
		return err
	}
	var here, begun, elsewhere []*Account
	for _, a := range kept {
		switch {
		case !a.of(c):
		case a.Directory == s.directory.String() && a.URL != "":
			here = append(here, a)
		case a.Directory == s.directory.String():
			begun = append(begun, a)
		case a.URL != "":
			elsewhere = append(elsewhere, a)
		}
	}
	if len(here) > 0 && !fresh {
		s.account = here[0]
		return nil
	}
	for _, a := range elsewhere {
		s.account = &Account{Directory: s.directory.String(), Reference: a.Reference, Key: a.Key}
		if found, err := s.lookUp(ctx, kept); found || err != nil {
			return err
		}
	}
	if err := s.bindable(c); err != nil {
		return err
	}
	if len(begun) > 0 {
		s.account = begun[0]
		return s.register(ctx, c, kept)
	}
	if s.account, err = newAccount(s.directory.String(), c); err != nil {
		return err
	}
	if err := s.config.Accounts.SaveAccounts(append(bounded(kept), s.account)); err != nil {
		return err
	}
	return s.register(ctx, c, kept)
}

// bounded leaves room for one more account: what no server has answered for leaves first, then what was used longest ago.
func bounded(kept []*Account) []*Account {
	out := slices.Clone(kept)
	for len(out) >= maxAccounts {
		i := slices.IndexFunc(out, func(a *Account) bool { return a.URL == "" })
		if i < 0 {
			i = len(out) - 1
		}
		out = slices.Delete(out, i, i+1)
	}
	return out
}

// keep puts the account in use first among those kept.
func (s *acmeSession) keep(kept []*Account) error {
	others := slices.DeleteFunc(slices.Clone(kept), func(a *Account) bool {
		return a.Directory == s.account.Directory && a.Key.Equal(s.account.Key)
	})
	return s.config.Accounts.SaveAccounts(slices.Concat([]*Account{s.account}, bounded(others)))
}

// bindable: is there what it takes to make an account?
func (s *acmeSession) bindable(c *Credential) error {
	if c == nil && s.resources.Meta.ExternalAccountRequired {
		return &Error{Kind: Unauthenticated, Op: "newAccount", Text: "the server makes accounts for holders of a credential alone",
			Hint: "give the reference and the secret that `deviceca device add` printed"}
	}
	return nil
}

func newAccount(directory string, c *Credential) (*Account, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, &Error{Kind: Local, Op: "key", Text: "no key could be made", Err: err}
	}
	a := &Account{Directory: directory, Key: key}
	if c != nil {
		a.Reference = c.Reference
	}
	return a, nil
}

// newAccountRequest is RFC 8555 §7.3.
type newAccountRequest struct {
	Agreed   bool `json:"termsOfServiceAgreed,omitempty"`
	Existing bool `json:"onlyReturnExisting,omitempty"`
	Binding  *jws `json:"externalAccountBinding,omitempty"`
}

// register makes the account at the server, or finds it there by its key (RFC 8555 §7.3).
func (s *acmeSession) register(ctx context.Context, c *Credential, kept []*Account) error {
	ask := newAccountRequest{Agreed: s.resources.Meta.TermsOfService != ""}
	if c != nil {
		var err error
		if ask.Binding, err = bindAccount(c, s.resources.NewAccount, &s.account.Key.PublicKey); err != nil {
			return &Error{Kind: Local, Op: "newAccount", Text: "the binding cannot be made", Err: err}
		}
	}
	return s.askAccount(ctx, ask, kept)
}

// lookUp asks whether the server knows the account's key (RFC 8555 §7.3.1).
func (s *acmeSession) lookUp(ctx context.Context, kept []*Account) (found bool, err error) {
	err = s.askAccount(ctx, newAccountRequest{Existing: true}, kept)
	if err != nil && slices.Contains([]Kind{Unauthenticated, Refused, BadRequest}, KindOf(err)) {
		return false, nil // not known, or of no use any more
	}
	return err == nil, err
}

func (s *acmeSession) askAccount(ctx context.Context, ask newAccountRequest, kept []*Account) error {
	const op = "newAccount"
	payload, err := json.Marshal(ask)
	if err != nil {
		return &Error{Kind: Local, Op: op, Text: "the request cannot be made", Err: err}
	}
	a, err := s.post(ctx, acmeCall{op: op, url: s.resources.NewAccount, payload: payload, key: true})
	if err != nil {
		return err
	}
	var made struct{ Status string }
	if err := a.decode(&made); err != nil {
		return err
	}
	switch at := a.header.Get("Location"); {
	case made.Status != "valid":
		return &Error{Kind: Unauthenticated, Op: op, Text: "the account is " + printable(made.Status), Hint: "enrol with a new credential"}
	case a.status != http.StatusOK && a.status != http.StatusCreated:
		return badACME(op, errors.New("its status is neither 200 nor 201"))
	case s.foreign(at):
		return badACME(op, errors.New("the account is at "+printable(at)))
	default:
		s.account.URL = at
	}
	return s.keep(kept)
}

// memory keeps accounts for as long as the program runs.
type memory struct{ list []*Account }

func (m *memory) LoadAccounts() ([]*Account, error) { return m.list, nil }

func (m *memory) SaveAccounts(list []*Account) error {
	m.list = list
	return nil
}
