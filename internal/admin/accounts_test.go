package admin

import (
	"context"
	"strings"
	"testing"

	"github.com/deviceca/deviceca/ca"
)

// accounts are those of every world.
func accounts() []ca.Account {
	return []ca.Account{
		{ID: 1, Status: "valid", Device: "Lamp-1", Credential: "abc", Contact: []string{"mailto:a@example.com"}, Created: now},
		{ID: 2, Status: "deactivated", Device: "lamp-2", Credential: "def", Created: now},
		{ID: 3, Status: "valid", Credential: "grp", Created: now},
	}
}

func (f *fake) Accounts(_ context.Context, filter ca.AccountFilter, after int64, limit int) (out []ca.Account, err error) {
	for _, a := range accounts() {
		if a.ID > after && len(out) < limit && (filter.Status == "" || filter.Status == a.Status) && (filter.Device == "" || strings.EqualFold(filter.Device, a.Device)) &&
			(filter.Credential == "" || filter.Credential == a.Credential) {
			out = append(out, a)
		}
	}
	return out, f.fail
}

func (f *fake) Account(_ context.Context, id int64) (*ca.Account, error) {
	for _, a := range accounts() {
		if a.ID == id {
			return &a, f.fail
		}
	}
	return nil, ca.ErrNoRecord
}

func (f *fake) DeactivateAccount(_ context.Context, id int64, actor string) error {
	if id != 1 && id != 3 {
		return ca.Errorf(ca.NotFound, "there is no valid account %d", id)
	}
	return f.changed(actor, ca.EventAccountEnded, "")
}

func TestAccounts(t *testing.T) {
	w := newWorld(t)
	c := w.local()
	for name, tt := range map[string]struct {
		filter ca.AccountFilter
		limit  int
		want   string
	}{
		"all":             {ca.AccountFilter{}, 0, "123"},
		"two":             {ca.AccountFilter{}, 2, "12"},
		"of a device":     {ca.AccountFilter{Device: "lamp-1"}, 0, "1"},
		"of a credential": {ca.AccountFilter{Credential: "grp"}, 0, "3"},
		"that are valid":  {ca.AccountFilter{Status: "valid"}, 0, "13"},
	} {
		got := ""
		for a, err := range c.Accounts(t.Context(), tt.filter, "", tt.limit) {
			if err != nil {
				t.Fatal(err)
			}
			got += string(rune('0' + a.ID))
		}
		if got != tt.want {
			t.Errorf("%s: %s, want %s", name, got, tt.want)
		}
	}
	for _, err := range c.Accounts(t.Context(), ca.AccountFilter{Status: "odd"}, "", 0) {
		if err == nil || !strings.Contains(err.Error(), "odd") {
			t.Errorf("a status that is none: %v", err)
		}
	}
	a, err := c.Account(t.Context(), 1)
	if err != nil || a.Device != "Lamp-1" || len(a.Contact) != 1 {
		t.Errorf("%+v %v", a, err)
	}
	if _, err := c.Account(t.Context(), 9); err == nil || !strings.Contains(err.Error(), "account 9") {
		t.Errorf("one that is not there: %v", err)
	}
	if err := c.DeactivateAccount(t.Context(), 1); err != nil {
		t.Error(err)
	}
	if err := c.DeactivateAccount(t.Context(), 2); err == nil {
		t.Error("one that was deactivated ended again")
	}
}
