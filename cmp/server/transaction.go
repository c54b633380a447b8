package server

import (
	"context"
	"crypto/sha256"
	"time"

	"github.com/deviceca/deviceca/ca"
)

// State is how far a transaction has come.
type State string

// The states of a transaction.
const (
	Working    State = "working"    // someone is at it; there is no answer yet
	Challenged State = "challenged" // answered with popdecc: the requester must prove that it has the key
	Polling    State = "polling"    // answered with waiting: an administrator must approve
	Waiting    State = "waiting"    // answered, and waits for certConf
	Repeated   State = "repeated"   // answered with a certificate of before: its certConf is welcome, and its absence means nothing
	Done       State = "done"       // answered, and nothing more is expected
	Confirmed  State = "confirmed"  // certConf has accepted
	Rejected   State = "rejected"   // certConf has rejected; the certificate is revoked
	Overdue    State = "overdue"    // certConf did not come in time; the certificate is revoked
)

// Transaction is what outlives a message: enough to answer a repeated one with
// the same octets, and to know what a certConf speaks of.
type Transaction struct {
	ID      [32]byte  // SHA-256 of the transactionID
	Begun   time.Time // when its first message was taken up
	Expires time.Time // when it may be forgotten
	State   State
	Request [32]byte // SHA-256 of the first message
	Answer  []byte   // to it; nil while Working

	Actor    string    // who began it: credential or device
	Signer   []byte    // protection certificate of the first message, DER; nil with a MAC
	Serial   ca.Serial // of the certificate issued; zero if none
	ReqID    int64     // certReqId of the request
	Nonce    []byte    // senderNonce of Answer
	Deadline time.Time // by when certConf must be there; zero if the certificate was confirmed in another transaction

	Confirm       [32]byte // SHA-256 of the certConf, or before it the popdecr or last pollReq
	ConfirmAnswer []byte   // to it; nil before

	Message []byte // the first message, while Challenged or Polling
	Profile string // that its path named
	// MadeKey is the SubjectPublicKeyInfo of a key made for the requester, and SealedKey the private one in
	// EnvelopedData that the requester alone can open, while Polling.
	MadeKey, SealedKey []byte

	// Seen, of one that a message without messageTime began, says for how long its ID is remembered, beyond Expires.
	// Only what enters the transaction looks at it.
	Seen *Seen

	Was State // its state in the ledger; "" if it is not there yet
	// Share is how many of Actor may be open at once; not kept.
	Share int
}

// Seen is a transactionID that must not come again.
type Seen struct {
	Owner string    // what protected the message: credential or certificate
	Until time.Time // when that has ended, and the message is worth nothing
}

// Open reports whether the transaction goes on in a later message of the requester's.
func (t *Transaction) Open() bool { return t.State == Challenged || t.State == Polling }

// Bounds of the transactions that are open, since those keep the message that began them.
const (
	MaxOpen     = 2048     // in all
	shareOfOne  = 16       // of who asks for one device
	shareOfMany = 128      // of a group's credential, a registration authority, a manufacturer
	maxKept     = 32 << 10 // octets of a message
)

// transactionID is a transactionID as the ledger keeps it.
func transactionID(id []byte) [32]byte { return sha256.Sum256(id) }

// Ledger remembers transactions, for all servers on the same database. What a
// method changes is durable when it returns nil. Errors are ca.ErrNoRecord where
// something is not there, or *ca.Error of kind Unavailable.
type Ledger interface {
	// Transaction finds a transaction by its ID.
	Transaction(ctx context.Context, id [32]byte) (*Transaction, error)
	// BeginTransaction enters t and returns nil. If there is one of its ID, that
	// is returned, untouched, and t not entered. But if that has the same Request, is
	// still Working and was begun before stale, whoever was at it is gone: then
	// Begun is set anew, and it is returned with resumed true, for the caller to finish.
	// What t.Seen asks to be remembered is; ca.ErrAnswered if it was, and t is not entered.
	BeginTransaction(ctx context.Context, t *Transaction, stale time.Time) (there *Transaction, resumed bool, err error)
	// KeepTransaction enters t, or if t.Was is set changes it, which must then still be its
	// state. Else, and if there is one of its ID already, ca.ErrAnswered. If t is new and open, the
	// oldest open ones of its actor are forgotten beyond t.Share, and those of whoever has most beyond MaxOpen. The ledger
	// does the same where t is ca.Issuance.With: both are durable, or neither is. Of t.Seen as in BeginTransaction.
	KeepTransaction(ctx context.Context, t *Transaction) error
	// FinishTransaction stores all that may have changed of one that is Working or Polling.
	FinishTransaction(ctx context.Context, t *Transaction) error
	// DropTransaction forgets one that is Working, Challenged or Polling, and its ID: nothing came of it.
	DropTransaction(ctx context.Context, id [32]byte) error
	// SeenTransaction reports whether the ID of a transaction is remembered for Seen, and how many are of an owner, up to limit.
	SeenTransaction(ctx context.Context, id [32]byte, owner string, limit int) (seen bool, owned int, err error)
	// ConfirmTransaction ends one that is Waiting or Repeated, with the certConf and its answer if t has them; one
	// that is Confirmed settles the certificate (ca.Ledger.Settle), and no other transaction waits for it then. ErrNoRecord
	// if it is neither any more; ca.ErrKeyTaken, and nothing changes.
	ConfirmTransaction(ctx context.Context, t *Transaction) error
	// WaitingTransaction is the one whose Deadline decides on a certificate; ErrNoRecord if none does.
	WaitingTransaction(ctx context.Context, serial ca.Serial) (*Transaction, error)
	// OverdueTransactions lists those Waiting whose Deadline is before a time.
	OverdueTransactions(ctx context.Context, before time.Time, limit int) ([]Transaction, error)
	// PruneTransactions forgets those that Expires allows to, but for those Waiting, and the IDs that Seen.Until allows to.
	PruneTransactions(ctx context.Context, before time.Time) (int64, error)

	// RAs lists the registration authorities, removed ones included.
	RAs(ctx context.Context) ([]ca.RA, error)
	// CertificateBySerial and Certificates are those of ca.Ledger.
	CertificateBySerial(ctx context.Context, serial ca.Serial) (*ca.Certificate, error)
	Certificates(ctx context.Context, f ca.CertificateFilter, after int64, limit int) ([]ca.Certificate, error)
}
