package client

import (
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
)

// Account is an ACME account (RFC 8555 §7.1.2): the key that signs its requests, and
// where the server keeps it.
type Account struct {
	Directory string // the URL that it belongs to
	Reference string // of the credential that it is bound to, "" for none
	URL       string // "" until the server told
	Key       *ecdsa.PrivateKey
}

// Accounts keeps an account; *Store does, in account.pem.
type Accounts interface {
	// LoadAccount is the account kept, nil if there is none.
	LoadAccount() (*Account, error)
	// SaveAccount keeps an account durably, in place of the one before.
	SaveAccount(*Account) error
}

// AccountFile holds the ACME account and its key, mode 0600.
const AccountFile = "account.pem"

const accountBlock = "DEVICECA ACME ACCOUNT"

// SaveAccount writes account.pem.
func (s *Store) SaveAccount(a *Account) error {
	der, err := x509.MarshalPKCS8PrivateKey(a.Key)
	if err != nil {
		return saveError(AccountFile, err)
	}
	text := pem.EncodeToMemory(&pem.Block{Type: accountBlock, Bytes: der,
		Headers: map[string]string{"Directory": a.Directory, "Reference": a.Reference, "URL": a.URL}})
	if text == nil {
		return saveError(AccountFile, errors.New("it cannot be encoded"))
	}
	return s.write(AccountFile, text, 0o600)
}

// LoadAccount reads account.pem. One that cannot be read is an error: it may be all that the
// server knows this device by.
func (s *Store) LoadAccount() (*Account, error) {
	text, err := s.read(AccountFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	fail := func(err error) (*Account, error) {
		return nil, &Error{Kind: Local, Op: "load", Text: AccountFile + " cannot be read", Err: err,
			Hint: "put it back, or remove it and enrol with a new credential"}
	}
	if err != nil {
		return fail(err)
	}
	block, _ := pem.Decode(text)
	if block == nil || block.Type != accountBlock {
		return fail(errors.New("there is no account in it"))
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return fail(err)
	}
	ec, ok := key.(*ecdsa.PrivateKey)
	if !ok || ec.Curve != elliptic.P256() {
		return fail(errors.New("its key is not on P-256"))
	}
	return &Account{Directory: block.Headers["Directory"], Reference: block.Headers["Reference"], URL: block.Headers["URL"], Key: ec}, nil
}

// fits reports whether a kept account is the one to use: of this server, and of the credential
// that is given, if one is. A new credential makes a new account, as after the old one was revoked.
func (a *Account) fits(directory string, c *Credential) bool {
	return a != nil && a.Directory == directory && (c == nil || c.Reference == a.Reference)
}

// open finds the account, or makes one bound to the credential; a fresh one in any case if fresh is
// set. Its key is kept before it is shown to the server, so that a lost answer costs no use of
// the credential: the server finds the account by its key.
func (s *acmeSession) open(ctx context.Context, c *Credential, fresh bool) error {
	kept, err := s.config.Accounts.LoadAccount()
	if err != nil {
		return err
	}
	directory := s.directory.String()
	if s.account = kept; fresh || !kept.fits(directory, c) {
		if s.account, err = newAccount(directory, c); err != nil {
			return err
		}
		if err := s.config.Accounts.SaveAccount(s.account); err != nil {
			return err
		}
	}
	if s.account.URL != "" {
		return nil
	}
	return s.register(ctx, c)
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

// register makes the account at the server, or finds it there by its key (RFC 8555 §7.3).
func (s *acmeSession) register(ctx context.Context, c *Credential) error {
	const op = "newAccount"
	if c == nil && s.resources.Meta.ExternalAccountRequired {
		return &Error{Kind: Unauthenticated, Op: op, Text: "the server makes accounts for holders of a credential alone",
			Hint: "give the reference and the secret that `deviceca device add` printed"}
	}
	var ask struct {
		Agreed  bool `json:"termsOfServiceAgreed,omitempty"`
		Binding *jws `json:"externalAccountBinding,omitempty"`
	}
	ask.Agreed = s.resources.Meta.TermsOfService != ""
	if c != nil {
		var err error
		if ask.Binding, err = bindAccount(c, s.resources.NewAccount, &s.account.Key.PublicKey); err != nil {
			return &Error{Kind: Local, Op: op, Text: "the binding cannot be made", Err: err}
		}
	}
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
	return s.config.Accounts.SaveAccount(s.account)
}

// memory keeps an account for as long as the program runs.
type memory struct{ account *Account }

func (m *memory) LoadAccount() (*Account, error) { return m.account, nil }

func (m *memory) SaveAccount(a *Account) error {
	m.account = a
	return nil
}
