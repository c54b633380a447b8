package admin

import (
	"context"
	"iter"
	"net/http"
	"slices"
	"strconv"

	"github.com/deviceca/deviceca/ca"
)

func (c *call) listAccounts() (any, error) {
	q, w, after, n, err := c.numberedWindow("device", "credential", "status")
	if err != nil {
		return nil, err
	}
	f := ca.AccountFilter{Device: q.Get("device"), Credential: q.Get("credential"), Status: q.Get("status"), Window: w}
	if f.Status != "" && !slices.Contains(ca.AccountStatuses(), f.Status) {
		return nil, ca.Errorf(ca.Malformed, "%q is not a status of accounts", f.Status)
	}
	list, err := c.Reader.Accounts(c.r.Context(), f, after, n)
	return page(list, n, err, func(a ca.Account) string { return windowKey(w, a.Created, strconv.FormatInt(a.ID, 10)) })
}

// accountID reads the account of the path.
func (c *call) accountID() (int64, error) {
	id, err := strconv.ParseInt(c.param("id"), 10, 64)
	if err != nil || id < 1 {
		return 0, ca.Errorf(ca.Malformed, "an account is named by its number")
	}
	return id, nil
}

func (c *call) showAccount() (any, error) {
	if _, err := c.query(); err != nil {
		return nil, err
	}
	id, err := c.accountID()
	if err != nil {
		return nil, err
	}
	a, err := c.Reader.Account(c.r.Context(), id)
	return nonNil(a, missing(err, "there is no account %d; list them with: deviceca account list", id))
}

func (c *call) deactivateAccount() (any, error) {
	id, err := c.accountID()
	if err != nil {
		return nil, err
	}
	var in struct{}
	if err := c.decode(&in); err != nil {
		return nil, err
	}
	return nil, c.Core.DeactivateAccount(c.r.Context(), id, c.who.Actor)
}

// Accounts lists ACME accounts, oldest first.
func (c *Client) Accounts(ctx context.Context, f ca.AccountFilter, after string, limit int) iter.Seq2[ca.Account, error] {
	return pages[ca.Account](ctx, c, "/accounts", inWindow(values("device", f.Device, "credential", f.Credential, "status", f.Status, "after", after), f.Window), limit)
}

// Account shows one.
func (c *Client) Account(ctx context.Context, id int64) (*ca.Account, error) {
	return get[ca.Account](ctx, c, "/accounts/"+strconv.FormatInt(id, 10), nil)
}

// DeactivateAccount ends an ACME account; its certificates stay.
func (c *Client) DeactivateAccount(ctx context.Context, id int64) error {
	return c.do(ctx, http.MethodPost, "/accounts/"+strconv.FormatInt(id, 10)+"/deactivate", nil, struct{}{}, nil)
}
