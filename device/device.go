package device

import (
	"fmt"
	"slices"
	"time"
)

// State is where a device stands in its life.
type State string

const (
	Manufactured State = "manufactured" // known, not yet claimed: earns no operational certificate
	Claimed      State = "claimed"      // may enrol; its first certificate makes it active
	Active       State = "active"
	Suspended    State = "suspended" // refused by every protocol until resumed
	Retired      State = "retired"   // refused for good, its certificates revoked
)

// next is the life of a device: which states may follow which.
var next = map[State][]State{
	Manufactured: {Claimed, Retired},
	Claimed:      {Active, Suspended, Retired},
	Active:       {Suspended, Retired},
	Suspended:    {Claimed, Active, Retired},
	Retired:      nil,
}

// CheckMove reports whether a device in state from may move to state to.
func CheckMove(from, to State) error {
	if _, known := next[to]; !known {
		return fmt.Errorf("%q is not a device state", to)
	}
	if !slices.Contains(next[from], to) {
		return fmt.Errorf("a device that is %s cannot become %s", from, to)
	}
	return nil
}

// MayEnrol reports whether a device in this state may be given certificates.
func (s State) MayEnrol() bool { return s == Claimed || s == Active }

// Device is one line of the inventory.
type Device struct {
	ID         string    `json:"id"` // as first written; compared by Fold
	Level      string    `json:"level"`
	Group      string    `json:"group,omitempty"`
	State      State     `json:"state"`
	Credential string    `json:"credential,omitempty"` // who brought it in: a group credential's reference, "manufacturer:NAME" or "ra:NAME", with #N where another had the name before; "" an administrator
	Created    time.Time `json:"created"`
	Updated    time.Time `json:"updated"`
}

// Filter selects devices; zero fields select all.
type Filter struct {
	Level  string
	Group  string
	State  State
	Prefix string // of the ID, without case
	Window        // by Created
}
