package main

import (
	"context"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"
)

// ticketWindow is how long TLS session tickets are made under one key. They are
// taken for one window more.
const ticketWindow = 24 * time.Hour

// tickets shares TLS sessions among all servers of a CA: each derives the same
// keys from the data key, for each window of time, so that a device resumes at
// any of them and none has to tell another. What a ticket saves is the
// handshake; the certificate in it is judged per request like any other.
type tickets struct {
	secret    []byte
	base      *tls.Config
	noCert    []string // server names at which no client certificate is asked for
	now       func() time.Time
	mayResume func(chain []*x509.Certificate) bool // whether a client with these certificates gets tickets
	config    atomic.Pointer[tls.Config]
	open      *tls.Config // asks for no client certificate, and gives no tickets
}

// ticketSecret derives what ticket keys are made from (HKDF, RFC 5869).
func ticketSecret(dataKey []byte) ([]byte, error) {
	return hkdf.Key(sha256.New, dataKey, nil, "deviceca tls session tickets", 32)
}

func newTickets(secret []byte, base *tls.Config, noCert []string, now func() time.Time, mayResume func([]*x509.Certificate) bool) (*tickets, error) {
	t := &tickets{secret: secret, base: base, noCert: noCert, now: now, mayResume: mayResume, open: base.Clone()}
	t.open.ClientAuth, t.open.SessionTicketsDisabled = tls.NoClientCert, true
	return t, t.turn()
}

// serve is the configuration of the listener.
func (t *tickets) serve() *tls.Config {
	config := t.base.Clone()
	config.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		if slices.ContainsFunc(t.noCert, func(name string) bool { return strings.EqualFold(name, hello.ServerName) }) {
			return t.open, nil
		}
		return t.config.Load(), nil
	}
	return config
}

// askNobody is the configuration of a listener that asks for no client certificate, whatever it is called. What it
// would resume is a session without one: it gives no tickets, so that none is taken to where certificates are asked for.
func (t *tickets) askNobody() *tls.Config { return t.open }

// turn sets the keys of this time: tickets are made under the window's own, and
// taken under its neighbours' too, since servers' clocks differ.
func (t *tickets) turn() error {
	window := t.now().Unix() / int64(ticketWindow/time.Second)
	var keys [][32]byte
	for _, w := range []int64{window, window - 1, window + 1} {
		key, err := hkdf.Expand(sha256.New, t.secret, fmt.Sprintf("window %d", w), 32)
		if err != nil {
			return err
		}
		keys = append(keys, [32]byte(key))
	}
	config := t.base.Clone()
	config.SetSessionTicketKeys(keys)
	config.WrapSession = func(client tls.ConnectionState, session *tls.SessionState) ([]byte, error) {
		if !t.mayResume(client.PeerCertificates) {
			return noTicket(), nil
		}
		return config.EncryptTicket(client, session)
	}
	config.UnwrapSession = config.DecryptTicket
	t.config.Store(config)
	return nil
}

// noTicket opens nothing: who offers it gets a full handshake. crypto/tls has no way to
// send no ticket to one client alone.
func noTicket() []byte {
	random := make([]byte, 32)
	rand.Read(random)
	return random
}

// keepTurning changes the keys at the beginning of each window until ctx ends.
func (t *tickets) keepTurning(ctx context.Context) {
	for {
		now := t.now()
		select {
		case <-ctx.Done():
			return
		case <-time.After(now.Truncate(ticketWindow).Add(ticketWindow).Sub(now)):
		}
		if err := t.turn(); err != nil {
			panic(err) // the lengths are constants
		}
	}
}
