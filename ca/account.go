package ca

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/deviceca/deviceca/device"
	"github.com/deviceca/deviceca/policy"
)

// Account is an ACME account (RFC 8555 §7.1.2); package acme makes them. An ID is never given twice.
type Account struct {
	ID         int64     `json:"id"`
	Key        []byte    `json:"-"`      // SubjectPublicKeyInfo, DER
	Thumbprint [32]byte  `json:"-"`      // of Key, RFC 7638; no two accounts have the same
	Status     string    `json:"status"` // "valid" or "deactivated"
	Contact    []string  `json:"contact,omitempty"`
	Agreed     bool      `json:"terms_agreed,omitempty"`
	Credential string    `json:"credential,omitempty"` // reference of the one that it is bound to
	Device     string    `json:"device,omitempty"`     // the credential's; "" if that is a group's
	Binding    []byte    `json:"-"`                    // to the credential, as the client sent it: JSON; nil of accounts from before it was kept
	Created    time.Time `json:"created"`
}

// AccountFilter selects accounts; zero fields select all.
type AccountFilter struct {
	Device        string
	Credential    string
	Status        string
	device.Window // by Created
}

// AccountStatuses are what an account may be.
func AccountStatuses() []string { return []string{"valid", "deactivated"} }

// DeactivateAccount ends an ACME account: nothing that its key signs is accepted any more.
// Certificates that it got stay. Errors: NotFound, if there is none that is valid.
func (s *Service) DeactivateAccount(ctx context.Context, id int64, actor string) error {
	now := s.now()
	err := s.ledger.DeactivateAccount(ctx, id, Event{Time: now, Kind: EventAccountEnded, Actor: actor, Account: id})
	if errors.Is(err, ErrNoRecord) {
		return Errorf(NotFound, "there is no valid account %d; list them with `account list`", id)
	}
	return err
}

// AccountActor is how the audit log calls an ACME account.
func AccountActor(id int64) string { return "account:" + strconv.FormatInt(id, 10) }

// AccountRequester finds the requester behind an ACME account whose key was
// proven, for one order with these SANs. An account that was bound to a credential
// stands for it: it spends no uses, outlives the credential's expiry and uses, and ends
// when the credential is revoked. credential is "" for an account without binding.
//
// The device is the credential's own. An account of a group, or without binding,
// names it: by a permanent-identifier, else by a hardware-module's serial number,
// else by the first DNS name.
//
// Errors: Unauthenticated (the credential was revoked), Denied (no device named, or
// one that the credential is not for), Unavailable.
func (s *Service) AccountRequester(ctx context.Context, account int64, credential string, sans []SAN) (Requester, error) {
	if err := s.closed(ctx); err != nil {
		return Requester{}, err
	}
	r := Requester{Kind: policy.ByAccount, Account: account}
	if credential != "" {
		c, err := s.ledger.Credential(ctx, credential)
		if errors.Is(err, ErrNoRecord) || err == nil && c.Revoked != nil {
			return Requester{}, Errorf(Unauthenticated, "the credential that this account is bound to was revoked: make a new account with a new credential")
		}
		if err != nil {
			return Requester{}, err
		}
		r.Kind, r.Credential, r.Device = policy.ByCredential, c, c.Device
	}
	if r.Device != "" {
		return r, nil
	}
	id := deviceNamed(sans)
	if id == "" {
		return Requester{}, Errorf(Denied, "the order names no device: ask for a permanent-identifier that is the device ID")
	}
	if err := r.covers(id); err != nil {
		return Requester{}, err
	}
	r.Device = id
	return r, nil
}

// deviceNamed is the device ID that SANs hold; "" if none does.
func deviceNamed(sans []SAN) string {
	for _, form := range []string{"permanent-identifier", "hardware-module", "dns"} {
		i := slices.IndexFunc(sans, func(n SAN) bool { return n.Form == form })
		if i < 0 {
			continue
		}
		if id, _, _ := strings.Cut(sans[i].Value, "/"); device.CheckID(id) == nil {
			return id
		}
	}
	return ""
}

// Prospect is what a request may come to, as far as that can be said before there
// are a key and evidence.
type Prospect struct {
	policy.Prospect
	Device *device.Device // as it is, or as it would enter the inventory
}

// Consider says what a request may come to, without its key and evidence. What
// it refuses (Prospect.Refused) could never be issued as things are.
//
// Errors: Denied (a device that may not enrol, or that the requester may not enrol), Unavailable.
func (s *Service) Consider(ctx context.Context, r Request) (*Prospect, error) {
	now, st := s.now(), s.current.Load()
	deed, err := r.Deed()
	if err != nil {
		return nil, err
	}
	id, err := r.Requester.deviceOf(deed)
	if err != nil {
		return nil, err
	}
	known, err := s.ledger.Device(ctx, id)
	if err != nil && !errors.Is(err, ErrNoRecord) {
		return nil, err
	}
	dev, _, err := st.mayAct(&r.Requester, deed, id, known, now)
	if err != nil {
		return nil, err
	}
	return &Prospect{st.policy.Consider(s.input(st, r, dev, "", now)), dev}, nil
}

// RenewAt is the fraction of a certificate's validity after which it should be
// renewed: its level's, else its profile's, else half.
func (s *Service) RenewAt(c *Certificate) float64 {
	p := s.Policy()
	if l, ok := p.Level(c.Level); ok && l.RenewAt > 0 {
		return l.RenewAt
	}
	if profile, ok := p.Profile(c.Profile); ok && profile.RenewAt > 0 {
		return profile.RenewAt
	}
	return 0.5
}
