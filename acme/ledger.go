package acme

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/policy"
)

// Status is how far a resource has come (RFC 8555 §7.1.6).
type Status string

const (
	Open        Status = "open" // of an order, as recorded: its authorizations say whether it is pending or ready
	Pending     Status = "pending"
	Ready       Status = "ready"
	Processing  Status = "processing"
	Valid       Status = "valid"
	Invalid     Status = "invalid"
	Deactivated Status = "deactivated"
	Expired     Status = "expired"
)

// Order is an order (RFC 8555 §7.1.3). Its ID, like those of accounts and
// authorizations, is never given twice.
type Order struct {
	ID, Account         int64
	Status              Status // Open, Processing, Valid or Invalid; see StatusAt
	Identifiers         []Identifier
	Authorizations      []int64
	Profile             string
	NotBefore, NotAfter time.Time // asked for; zero if not
	Replaces            string    // the certificate that it replaces, as a client names it (RFC 9773 §4.1); "" if none
	Created, Expires    time.Time
	CSR                 []byte    // DER, while processing
	Serial              ca.Serial // of the certificate, when valid
	Error               *Problem
}

// StatusAt is the order's status at now, when these are its authorizations. An open order
// is invalid as soon as one of them can no longer become valid.
func (o *Order) StatusAt(authorizations []*Authorization, now time.Time) Status {
	switch {
	case o.Status == Valid || o.Status == Invalid:
		return o.Status
	case !now.Before(o.Expires):
		return Invalid
	case o.Status == Processing:
		return Processing
	}
	all := Ready
	for _, a := range authorizations {
		switch a.StatusAt(now) {
		case Valid:
		case Pending:
			if all == Ready {
				all = Pending
			}
		default:
			return Invalid
		}
	}
	return all
}

// Authorization is an account's authorization to have one identifier (RFC 8555 §7.1.4).
type Authorization struct {
	ID, Account int64
	Identifier  Identifier // of a wildcard without "*."
	Wildcard    bool
	Device      string // whose identifier it is
	Status      Status // Pending, Valid, Invalid or Deactivated; see StatusAt
	Way         string // in which it became valid: a challenge type, or policy.ByBinding
	Created     time.Time
	Expires     time.Time
	Validated   time.Time // zero if it is not
	SPKI        []byte    // the key that was attested, DER: the CSR must be for it
	Evidence    *policy.Evidence
	Challenges  []Challenge
	Version     int64 // counts its changes
}

// StatusAt is the authorization's status at now.
func (a *Authorization) StatusAt(now time.Time) Status {
	switch {
	case now.Before(a.Expires):
		return a.Status
	case a.Status == Valid:
		return Expired
	case a.Status == Pending:
		return Invalid
	}
	return a.Status
}

// Busy reports whether a challenge is being validated.
func (a *Authorization) Busy() bool {
	return a.Status == Pending && slices.ContainsFunc(a.Challenges, func(c Challenge) bool { return c.Status == Processing })
}

// Challenge is one way to become valid (RFC 8555 §7.1.5). It has its JSON in the ledger.
type Challenge struct {
	Type      string     `json:"type"`
	Token     string     `json:"token"`
	Status    Status     `json:"status"`
	Validated *time.Time `json:"validated,omitempty"`
	Error     *Problem   `json:"error,omitempty"`
}

// Fulfilment is the ca.Issuance.With of an order's certificate: the order becomes valid in the
// transaction that records the certificate, unless it is fulfilled or invalid already (ca.ErrAnswered).
type Fulfilment struct{ Order int64 }

// ErrStale is what a change of an authorization or an order says that was changed meanwhile.
var ErrStale = errors.New("it was changed meanwhile")

// ErrFull is what AddOrder says when all the orders that an account may have wait for an administrator.
var ErrFull = errors.New("the account has as many orders without a certificate as it may")

// IdleAccount is how old an account is at least that gives its use of a credential to another: so long it has for its first order.
const IdleAccount = time.Minute

// Ledger is the durable memory of the ACME server. Whatever a method changes is durable
// when it returns nil. Reads that find nothing return ca.ErrNoRecord; every
// method returns a *ca.Error of kind Unavailable when the database is away.
//
// Orders become valid by ca.Ledger.Record alone (Fulfilment).
type Ledger interface {
	Account(ctx context.Context, id int64) (*ca.Account, error)
	AccountByKey(ctx context.Context, thumbprint [32]byte) (*ca.Account, error)
	// Accounts lists accounts, oldest first, from the one after the ID given.
	Accounts(ctx context.Context, f ca.AccountFilter, after int64, limit int) ([]ca.Account, error)
	// AddAccount enters an account, sets its ID and takes a use of its credential, if it has
	// one. If that has none left, the account takes the place of one that was bound to the same credential at least
	// IdleAccount earlier, got no certificate, and has no order that could still lead to one; that is
	// forgotten. ca.ErrSpent if there is none such, or the credential was revoked. If an account with
	// that key is there, it is returned, and nothing changes.
	AddAccount(ctx context.Context, a *ca.Account, e ca.Event) (there *ca.Account, err error)
	SetContact(ctx context.Context, id int64, contact []string) error
	// ChangeKey gives a valid account another key. ca.ErrNoRecord if its key is not the one of
	// the thumbprint any more, ca.ErrRecorded if another account has the new one.
	ChangeKey(ctx context.Context, id int64, old [32]byte, key []byte, thumbprint [32]byte, e ca.Event) error
	// DeactivateAccount is ca.Ledger's.
	DeactivateAccount(ctx context.Context, id int64, e ca.Event) error

	// AddOrder enters an order together with its new authorizations, and sets the IDs of all.
	// Order.Authorizations names those that are there already; the new ones are added to it.
	// If the order replaces a certificate that another order which is not invalid replaces: ca.ErrRecorded.
	// An account has at most so many orders without a certificate: the oldest make room, with their authorizations;
	// those that wait for an administrator do not, and if all do: ErrFull.
	AddOrder(ctx context.Context, o *Order, added []*Authorization, most int) error
	Order(ctx context.Context, id int64) (*Order, error)
	// Orders lists the IDs of an account's orders that are not recorded as invalid.
	Orders(ctx context.Context, account, after int64, limit int) ([]int64, error)
	// HoldOrder makes an open order wait with its CSR; ErrStale if it is not open.
	HoldOrder(ctx context.Context, id int64, csr []byte) error
	// FailOrder makes an open or processing order invalid; ErrStale if it is neither.
	FailOrder(ctx context.Context, id int64, why *Problem) error

	Authorization(ctx context.Context, id int64) (*Authorization, error)
	// ValidAuthorization finds the account's newest valid authorization of an identifier that
	// has not expired at now and was validated at since or later.
	ValidAuthorization(ctx context.Context, account int64, of Identifier, wildcard bool, since, now time.Time) (*Authorization, error)
	// SaveAuthorization stores what became of an authorization, and raises its Version; ErrStale if the
	// Version recorded is another.
	SaveAuthorization(ctx context.Context, a *Authorization) error
	// BusyAuthorizations lists those with a challenge that is being validated, oldest first.
	BusyAuthorizations(ctx context.Context, after int64, limit int) ([]Authorization, error)
	// PruneACME forgets orders and authorizations that expired before a time.
	PruneACME(ctx context.Context, before time.Time) (int64, error)
	// PruneAccounts forgets accounts without a credential that are older than a time and have no orders.
	PruneAccounts(ctx context.Context, before time.Time) (int64, error)

	CertificateBySerial(ctx context.Context, serial ca.Serial) (*ca.Certificate, error)
}
