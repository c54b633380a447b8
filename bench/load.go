package main

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/deviceca/deviceca/internal/cms"
)

// How a device comes to the server with each of its requests.
const (
	keptAlive = "kept alive"     // one connection for all
	fresh     = "new connection" // a full handshake for each
	resumed   = "resumed"        // a handshake that resumes the session before
)

// target is one server.
type target struct {
	addr  string         // host:port
	roots *x509.CertPool // nil: plain HTTP
}

// work is what one load does; every connection does the same.
type work struct {
	target
	path       string // "/.well-known/est/simpleenroll"
	connection string // keptAlive, fresh, resumed
	devices    []*member
	limit      time.Duration
}

// member is one connection's share of a load: who it is and what it will send.
// Requests are encoded before the clock starts.
type member struct {
	cert     *tls.Certificate // nil: none is shown
	requests [][]byte
	again    bool // when the requests are used up, begin anew
	// follow, if set, judges an answer, and gives what to send next; nil when the transaction is over.
	follow func(answer []byte) ([]byte, error)
	// perform, if set, does the nth transaction of size in place of requests.
	perform func(ctx context.Context, c *client, n int) error
	size    int
}

// prepared is how many transactions there are to do.
func (m *member) prepared() int { return max(len(m.requests), m.size) }

// outcome is what came of a load.
type outcome struct {
	done      int
	took      time.Duration
	latencies []time.Duration // sorted
	resumed   int             // connections that resumed a session
	short     bool            // the prepared requests were used up before the time
}

func (o outcome) rate() float64 { return float64(o.done) / o.took.Seconds() }

// quantile of the latencies; q is 0 to 1.
func (o outcome) quantile(q float64) time.Duration {
	if len(o.latencies) == 0 {
		return 0
	}
	return o.latencies[min(int(q*float64(len(o.latencies))), len(o.latencies)-1)]
}

// run connects every device (those with kept connections before the clock
// starts), sends until the time is over or the requests are used up, and waits for every
// answer. started is called when all are connected, ended when all answers are there.
// The first answer that is no certificate ends it.
func (w *work) run(ctx context.Context, started, ended func() error) (outcome, error) {
	clients := make([]*client, len(w.devices))
	for i, m := range w.devices {
		clients[i] = newClient(w.target, m.cert, w.connection == resumed)
		defer clients[i].close()
	}
	if w.connection == keptAlive {
		if err := each(clients, func(_ int, c *client) error { return c.connect(ctx) }); err != nil {
			return outcome{}, err
		}
	}
	if err := started(); err != nil {
		return outcome{}, err
	}
	var stop, short atomic.Bool
	latencies := make([][]time.Duration, len(clients))
	began := time.Now()
	deadline := began.Add(w.limit)
	err := each(clients, func(i int, c *client) error {
		m := w.devices[i]
		for n := 0; time.Now().Before(deadline) && !stop.Load() && ctx.Err() == nil; n++ {
			if n >= m.prepared() && !m.again {
				short.Store(true)
				stop.Store(true) // fewer connections than asked for would not be the same load
				return nil
			}
			sent := time.Now()
			if w.connection != keptAlive {
				c.close()
			}
			if err := c.transact(ctx, m, n); err != nil {
				stop.Store(true)
				return err
			}
			latencies[i] = append(latencies[i], time.Since(sent))
		}
		return ctx.Err()
	})
	took := time.Since(began)
	if err = errors.Join(err, ended()); err != nil {
		return outcome{}, err
	}
	all := slices.Concat(latencies...)
	slices.Sort(all)
	o := outcome{done: len(all), took: took, latencies: all, short: short.Load()}
	for _, c := range clients {
		o.resumed += c.resumed
	}
	return o, nil
}

// transact sends the nth request, and what follows from its answers.
func (c *client) transact(ctx context.Context, m *member, n int) error {
	if m.perform != nil {
		return m.perform(ctx, c, n)
	}
	answer, err := c.post(ctx, m.requests[n%len(m.requests)])
	for err == nil && m.follow != nil {
		next, faulty := m.follow(answer)
		if next == nil || faulty != nil {
			return faulty
		}
		answer, err = c.post(ctx, next)
	}
	return err
}

// each runs f for every element at once.
func each[T any](all []T, f func(int, T) error) error {
	errs := make([]error, len(all))
	var wg sync.WaitGroup
	for i, v := range all {
		wg.Go(func() { errs[i] = f(i, v) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// client is a device's HTTP/1.1 on one connection at a time. It writes requests
// that were encoded before and so takes little of the processors that the server needs.
type client struct {
	target
	config  *tls.Config
	conn    net.Conn
	reader  *bufio.Reader
	resumed int
}

func newClient(t target, cert *tls.Certificate, resume bool) *client {
	host, _, _ := net.SplitHostPort(t.addr)
	c := &client{target: t, config: &tls.Config{RootCAs: t.roots, ServerName: host, NextProtos: []string{"http/1.1"},
		// What devices have today. P-256 is for estserver, which has no X25519.
		CurvePreferences: []tls.CurveID{tls.X25519, tls.CurveP256}}}
	if cert != nil {
		c.config.Certificates = []tls.Certificate{*cert}
	}
	if resume {
		c.config.ClientSessionCache = tls.NewLRUClientSessionCache(1)
	}
	return c
}

const requestTimeout = 20 * time.Second

func (c *client) connect(ctx context.Context) error {
	c.close()
	plain := &net.Dialer{Timeout: requestTimeout}
	dial := plain.DialContext
	if c.roots != nil {
		dial = (&tls.Dialer{NetDialer: plain, Config: c.config}).DialContext
	}
	conn, err := dial(ctx, "tcp", c.addr)
	if err != nil {
		return err
	}
	c.conn, c.reader = conn, bufio.NewReader(conn)
	if secured, ok := conn.(*tls.Conn); ok && secured.ConnectionState().DidResume {
		c.resumed++
	}
	return nil
}

func (c *client) close() {
	if c.conn != nil {
		c.conn.Close()
		c.conn = nil
	}
}

// post sends one request and returns the body of its answer, which must be 200.
func (c *client) post(ctx context.Context, request []byte) ([]byte, error) {
	resp, body, err := c.roundTrip(ctx, http.MethodPost, request)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("the server answered %s: %.300s", resp.Status, body)
	}
	return body, err
}

// roundTrip sends one request and reads its answer.
func (c *client) roundTrip(ctx context.Context, method string, request []byte) (*http.Response, []byte, error) {
	if c.conn == nil {
		if err := c.connect(ctx); err != nil {
			return nil, nil, err
		}
	}
	if err := c.conn.SetDeadline(time.Now().Add(requestTimeout)); err != nil {
		return nil, nil, err
	}
	if _, err := c.conn.Write(request); err != nil {
		return nil, nil, err
	}
	resp, err := http.ReadResponse(c.reader, &http.Request{Method: method})
	if err != nil {
		return nil, nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	return resp, body, err
}

// encodeRequest makes the octets of one EST request. Content-Transfer-Encoding
// is for servers that want it.
func encodeRequest(addr, path string, csr []byte, authorization string) []byte {
	body := base64.StdEncoding.EncodeToString(csr)
	head := fmt.Sprintf("POST %s HTTP/1.1\r\nHost: %s\r\nContent-Type: application/pkcs10\r\nContent-Transfer-Encoding: base64\r\nContent-Length: %d\r\n",
		path, addr, len(body))
	if authorization != "" {
		head += "Authorization: " + authorization + "\r\n"
	}
	return []byte(head + "\r\n" + body)
}

func newKey() (*ecdsa.PrivateKey, error) { return ecdsa.GenerateKey(elliptic.P256(), rand.Reader) }

func newCSR(id string, key *ecdsa.PrivateKey) ([]byte, error) {
	return x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: id}}, key)
}

// firstCertificate enrols a device with a credential.
func firstCertificate(ctx context.Context, t target, id, authorization string) (*tls.Certificate, error) {
	key, err := newKey()
	if err != nil {
		return nil, err
	}
	csr, err := newCSR(id, key)
	if err != nil {
		return nil, err
	}
	c := newClient(t, nil, false)
	defer c.close()
	body, err := c.post(ctx, encodeRequest(t.addr, estPath+"simpleenroll", csr, authorization))
	if err != nil {
		return nil, fmt.Errorf("first enrolment of %s: %w", id, err)
	}
	message, err := base64.StdEncoding.DecodeString(string(body))
	if err != nil {
		return nil, err
	}
	certs, err := cms.ParseCertsOnly(message)
	if err != nil || len(certs) == 0 {
		return nil, fmt.Errorf("first enrolment of %s: no certificate came: %w", id, err)
	}
	return &tls.Certificate{Certificate: certs, PrivateKey: key}, nil
}

const estPath = "/.well-known/est/"
