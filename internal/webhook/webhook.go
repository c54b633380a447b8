// Package webhook tells an HTTP server of the operator's what happens at the
// CA: it follows the audit log and posts its events, signed, in order, and at
// least once.
//
// The follower reads the durable log by itself, so that nothing which changes
// the CA ever waits for it or knows of it. How far it has come is durable too,
// and moves only when the receiver has answered 2xx: a crash, a restart or an
// outage of the receiver delays events and loses none.
//
// A post is
//
//	POST URL
//	Content-Type: application/json
//	Deviceca-Instance: 5f0c…
//	Deviceca-Timestamp: 1893456000
//	Deviceca-Signature: sha256=HEX
//
//	{"instance":"5f0c…","events":[{"id":41,"time":…,"kind":"request.pending",…},…]}
//
// with up to 100 events whose IDs rise, of one instance of the ledger: 128 random bits that are drawn when
// the ledger is made and at each restore from a backup. Two restores of one backup number their
// events each by themselves, so that an event is known by instance and ID together. "head" beside them is the newest signed
// head of the audit log (audit.HeadKind), if it moved since the last post; one
// that has nothing else to tell has no events, and the newest instance. HEX is the HMAC-SHA256, under the
// shared secret, of the timestamp's digits, ".", and the body. A post that is
// repeated has a new timestamp and thus a new signature.
package webhook

import (
	"cmp"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"time"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/internal/audit"
)

// Headers of a post.
const (
	TimestampHeader = "Deviceca-Timestamp"
	SignatureHeader = "Deviceca-Signature"
	InstanceHeader  = "Deviceca-Instance" // the same as in the body, which is what is signed
)

// Limits.
const (
	MaxEvents = 100 // in a post
	MinSecret = 16  // octets

	signatureScheme = "sha256="
)

// Event is an event with its place in the audit log.
type Event struct {
	ID int64 `json:"id"`
	ca.Event
}

// Instance is one life of the ledger: the events with IDs from FirstEvent on, up to
// those of the next instance, are its own.
type Instance struct {
	ID         string
	FirstEvent int64
}

// Log is what the follower reads, and where it keeps how far it came.
type Log interface {
	// Events returns up to limit events whose ID is above after, oldest first.
	Events(ctx context.Context, after int64, limit int) ([]Event, error)
	// Instances lists the ledger's instances, oldest first. There is one at least; a new
	// one comes only while nothing follows the log.
	Instances(ctx context.Context) ([]Instance, error)
	// Newest is the ID of the newest event, 0 if there is none.
	Newest(ctx context.Context) (int64, error)
	// Head is the newest signed head of the log; nil if none was signed yet.
	Head(ctx context.Context) (*audit.Checkpoint, error)
	// Cursor is what SetCursor kept; ca.ErrNoRecord if it never did.
	Cursor(ctx context.Context) (int64, error)
	// SetCursor makes the cursor durable.
	SetCursor(ctx context.Context, id int64) error
}

// DefaultEvents are the kinds of events that are posted unless told otherwise.
func DefaultEvents() []string {
	return []string{string(ca.EventRequestPending), string(ca.EventIssued), string(ca.EventRefused), string(ca.EventRevoked), string(ca.EventDeviceMoved)}
}

// Options are what a Follower is made of. Log, URL and Secret are required.
type Options struct {
	Log     Log
	URL     string         // as CheckURL wants it
	Secret  string         // MinSecret octets or more
	Roots   *x509.CertPool // nil: the system's
	Events  []string       // kinds to post; nil: DefaultEvents. Heads are always posted
	Timeout time.Duration  // of one post, default 10 s

	Poll               time.Duration // between looks at the log, default 1 s
	MinDelay, MaxDelay time.Duration // after a failure, default 1 s and 5 min
	Now                func() time.Time
	Logger             *slog.Logger
}

// New makes a follower; Run runs it.
func New(o Options) (*Follower, error) {
	if err := CheckURL(o.URL); err != nil {
		return nil, err
	}
	if len(o.Secret) < MinSecret {
		return nil, fmt.Errorf("the webhook's secret is shorter than %d octets: make one with: openssl rand -hex 32", MinSecret)
	}
	if o.Events == nil {
		o.Events = DefaultEvents()
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	o.Timeout, o.Poll = cmp.Or(o.Timeout, 10*time.Second), cmp.Or(o.Poll, time.Second)
	o.MinDelay, o.MaxDelay = cmp.Or(o.MinDelay, time.Second), cmp.Or(o.MaxDelay, 5*time.Minute)
	f := &Follower{Options: o, kinds: map[ca.EventKind]bool{}}
	for _, kind := range o.Events {
		f.kinds[ca.EventKind(kind)] = true
	}
	f.client = &http.Client{
		Timeout: o.Timeout,
		Transport: &http.Transport{Proxy: http.ProxyFromEnvironment, TLSClientConfig: &tls.Config{RootCAs: o.Roots, MinVersion: tls.VersionTLS12},
			ForceAttemptHTTP2: true, MaxIdleConns: 1, IdleConnTimeout: time.Minute},
		// Whoever can make the receiver redirect must not learn what the CA does.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return f, nil
}

// CheckURL says what is wrong with a receiver's URL: it must be https, or http
// to this very host.
func CheckURL(s string) error {
	u, err := url.Parse(s)
	switch {
	case err != nil || u.Host == "" || u.User != nil || u.Fragment != "" || u.Opaque != "":
		return errors.New("is not the URL of a receiver: write it as https://HOST/PATH, without a password")
	case u.Scheme == "https", u.Scheme == "http" && isLocal(u.Hostname()):
		return nil
	}
	return errors.New("must be https, or http to localhost: events tell what devices there are")
}

func isLocal(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.IsLoopback()
}

// Sign is the value of SignatureHeader for a post.
func Sign(secret string, timestamp int64, body []byte) string {
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write(strconv.AppendInt(nil, timestamp, 10))
	mac.Write([]byte("."))
	mac.Write(body)
	return signatureScheme + hex.EncodeToString(mac.Sum(nil))
}

// Verify is for receivers: it checks a post's headers against its body, and
// that the timestamp is no further than tolerance from now.
func Verify(secret string, header http.Header, body []byte, now time.Time, tolerance time.Duration) error {
	at, err := strconv.ParseInt(header.Get(TimestampHeader), 10, 64)
	if err != nil {
		return fmt.Errorf("no %s", TimestampHeader)
	}
	if subtle.ConstantTimeCompare([]byte(Sign(secret, at, body)), []byte(header.Get(SignatureHeader))) != 1 {
		return errors.New("the signature does not verify")
	}
	if age := now.Sub(time.Unix(at, 0)).Abs(); age > tolerance {
		return fmt.Errorf("the timestamp is %s off", age.Round(time.Second))
	}
	return nil
}
