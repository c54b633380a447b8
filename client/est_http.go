package client

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"mime"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The most octets read of a body.
const (
	maxReply   = 256 << 10 // a certificate and its chain
	maxCACerts = 1 << 20   // many generations, large keys
	maxText    = 64 << 10  // csrattrs, errors
)

// Waiting between attempts: the server's Retry-After within these bounds, and
// without one an exponential backoff up to maxBackoff.
const (
	minWait     = time.Second
	maxWait     = 24 * time.Hour
	maxBackoff  = time.Minute
	maxAttempts = 6 // for a server that is busy or away; an approval is asked for until Wait ends
)

// call is one EST operation.
type call struct {
	op         string
	auth       Auth
	body       []byte // POST when not nil
	limit      int64
	unverified bool // the first cacerts under a pin: no auth is sent, and the answer is worth only what the pin says
}

type answer struct {
	body   []byte
	header http.Header
}

// do performs a call, again while the answer is "not yet" and there is time:
//
//   - 202: the same request after Retry-After (RFC 7030 §4.2.3)
//   - 429, 502, 503, 504 and a network that fails: after Retry-After, else with
//     backoff, up to maxAttempts
//
// All else is final. Repeating is safe because the body, and so the key, is the same each time.
func (e *EST) do(ctx context.Context, c call) (*answer, error) {
	deadline := e.config.Now().Add(e.config.Wait)
	for n := 1; ; n++ {
		a, err := e.once(ctx, c)
		if err == nil {
			return a, nil
		}
		if ctx.Err() != nil {
			return nil, &Error{Kind: Unreachable, Op: c.op, Text: "given up", Err: errors.Join(ctx.Err(), err)}
		}
		fail, ok := err.(*Error)
		if !ok || fail.Final() || (fail.Kind != Pending && n >= maxAttempts) {
			return nil, err
		}
		wait := pause(fail.RetryAfter, n)
		if e.config.Now().Add(wait).After(deadline) {
			return nil, err
		}
		if err := e.sleep(ctx, wait); err != nil {
			return nil, &Error{Kind: fail.Kind, Op: c.op, Text: "given up while waiting", RetryAfter: fail.RetryAfter, Err: errors.Join(err, fail)}
		}
	}
}

// pause is how long to wait before attempt n+1. A fleet that was told the same
// Retry-After spreads over a quarter of it more, an hour at most; never less than was asked.
func pause(retryAfter time.Duration, n int) time.Duration {
	if retryAfter > 0 {
		d := min(max(retryAfter, minWait), maxWait)
		return d + rand.N(min(d/4, time.Hour)+1)
	}
	d := min(minWait<<min(n-1, 16), maxBackoff)
	return d/2 + rand.N(d/2+1)
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// once performs one HTTP exchange. Its error is an *Error.
func (e *EST) once(ctx context.Context, c call) (*answer, error) {
	ctx, cancel := context.WithTimeout(ctx, e.config.Timeout)
	defer cancel()
	method, body := http.MethodGet, io.Reader(nil)
	if c.body != nil {
		method, body = http.MethodPost, bytes.NewReader(c.body)
	}
	req, err := http.NewRequestWithContext(ctx, method, e.base.JoinPath(c.op).String(), body)
	if err != nil {
		return nil, &Error{Kind: Usage, Op: c.op, Text: "the request cannot be made", Err: err}
	}
	req.Header.Set("User-Agent", "deviceca-client")
	if c.body != nil {
		req.Header.Set("Content-Type", "application/pkcs10")
		// Without meaning since RFC 8951 §3.1, and still demanded by older servers.
		req.Header.Set("Content-Transfer-Encoding", "base64")
	}
	if cred := c.auth.Credential; cred != nil && !c.unverified {
		req.SetBasicAuth(cred.Reference, cred.Secret)
	}
	resp, err := e.client(c).Do(req)
	if err != nil {
		return nil, transportError(c.op, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusNoContent {
		return nil, e.statusError(c, resp)
	}
	if err := checkType(c.op, resp.Header.Get("Content-Type")); err != nil {
		return nil, badReply(c.op, err)
	}
	text, err := io.ReadAll(io.LimitReader(resp.Body, c.limit+1))
	if err != nil {
		return nil, transportError(c.op, err)
	}
	if int64(len(text)) > c.limit {
		return nil, badReply(c.op, fmt.Errorf("it is longer than %d octets", c.limit))
	}
	return &answer{body: text, header: resp.Header}, nil
}

// checkType turns away what is plainly something else, such as the page of a
// captive portal. No type at all is let through: the body is parsed strictly anyway.
func checkType(op, header string) error {
	want := []string{"application/pkcs7-mime", "application/x-pkcs7-mime"}
	if op == "csrattrs" {
		want = []string{"application/csrattrs"}
	}
	got, _, err := mime.ParseMediaType(header)
	if header == "" || (err == nil || errors.Is(err, mime.ErrInvalidMediaParameter)) && slices.Contains(want, got) {
		return nil
	}
	return fmt.Errorf("its type is %s, not %s", printable(header), want[0])
}

// client is the HTTP client for a call. Connections and TLS sessions made with one
// certificate must not serve another, so each certificate has its own.
func (e *EST) client(c call) *http.Client {
	key := "anonymous"
	if c.auth.Certificate != nil {
		sum := sha256.Sum256(c.auth.Certificate.Certificate[0])
		key = string(sum[:])
	}
	if c.unverified {
		key = "unverified"
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if client, ok := e.conns[key]; ok {
		return client
	}
	config := &tls.Config{
		MinVersion:         e.config.MinTLS,
		RootCAs:            pool(e.roots),
		ClientSessionCache: tls.NewLRUClientSessionCache(4),
		Time:               e.config.Now,
	}
	if cert := c.auth.Certificate; cert != nil && !c.unverified {
		// Always ours: the list of CAs that the server names may lack the one of an IDevID.
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return cert, nil }
	}
	if c.unverified {
		// Only the fetch of a certificate whose digest is known beforehand: see CACerts.
		config.InsecureSkipVerify, config.RootCAs, config.ClientSessionCache = true, nil, nil
	}
	client := newHTTP(config, e.config.Timeout)
	client.CheckRedirect = sameOrigin
	e.conns[key] = client
	return client
}

// newHTTP is the HTTP client of each protocol. It unpacks nothing, and bounds what comes before a body; each protocol bounds its
// bodies. A TLSClientConfig of our own keeps Go at HTTP/1.1, as EST expects. In the handshake Go itself bounds the server's chain: 256 KiB,
// RSA keys of 8192 bits, 100 signatures tried.
func newHTTP(config *tls.Config, timeout time.Duration) *http.Client {
	return &http.Client{Transport: &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		TLSClientConfig:        config,
		TLSHandshakeTimeout:    timeout,
		DisableCompression:     true,
		MaxResponseHeaderBytes: maxText,
		MaxIdleConns:           2,
		IdleConnTimeout:        30 * time.Second,
	}}
}

func noRedirect(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

var errRedirect = errors.New("redirect not followed")

// sameOrigin follows a redirection only within scheme, host and port, and only a
// few (RFC 7030 §3.2.1): a credential goes to the server that was named, and nowhere else.
func sameOrigin(req *http.Request, via []*http.Request) error {
	first := via[0].URL
	if req.URL.Scheme != first.Scheme || !strings.EqualFold(req.URL.Host, first.Host) || req.URL.User != nil {
		return fmt.Errorf("%w: the server points to %s://%s", errRedirect, printable(req.URL.Scheme), printable(req.URL.Host))
	}
	if len(via) > 3 {
		return fmt.Errorf("%w: too many", errRedirect)
	}
	return nil
}

// transportError sorts what happens before there is an HTTP answer.
func transportError(op string, err error) *Error {
	out := &Error{Kind: Unreachable, Op: op, Text: "the server cannot be reached", Err: err, Hint: "check the server's address and the network"}
	if v, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		out.Kind, out.Text, out.Hint = Untrusted, "the server's certificate is not trusted", "check the trust anchors given, and that the server's name is the one in its certificate"
		if invalid, ok := errors.AsType[x509.CertificateInvalidError](v.Err); ok && invalid.Reason == x509.Expired {
			out.Hint = "check this device's clock; if it is right, the server's certificate needs renewal"
		}
		return out
	}
	if o, ok := errors.AsType[*net.OpError](err); ok && o.Op == "remote error" { // a TLS alert
		out.Kind, out.Text, out.Hint = Unauthenticated, "the server ended the TLS connection", "it may not accept the client certificate, or the TLS version (-tls12)"
		return out
	}
	if _, ok := errors.AsType[tls.RecordHeaderError](err); ok || errors.Is(err, http.ErrSchemeMismatch) {
		out.Kind, out.Text, out.Hint = Untrusted, "the server does not speak TLS", "check the port"
		return out
	}
	if errors.Is(err, errRedirect) {
		out.Kind, out.Text, out.Hint = Untrusted, "the server redirects elsewhere", "if that is meant, give that address as the server"
		return out
	}
	return out
}

// statusError sorts the HTTP statuses other than 200 and 204.
func (e *EST) statusError(c call, resp *http.Response) *Error {
	text, _ := io.ReadAll(io.LimitReader(resp.Body, 4<<10)) // as much as came
	out := (&Error{Op: c.op, Status: resp.StatusCode, Text: cmp.Or(printable(string(text)), http.StatusText(resp.StatusCode))}).
		wait(retryAfter(resp.Header.Get("Retry-After"), e.config.Now()))
	switch s := resp.StatusCode; {
	case s == http.StatusAccepted:
		out.Kind, out.Hint = Pending, "have the request approved at the CA, then run this again: it asks with the same request"
		out.RetryAfter = cmp.Or(out.RetryAfter, maxBackoff)
	case s == http.StatusTooManyRequests, s == http.StatusBadGateway, s == http.StatusServiceUnavailable, s == http.StatusGatewayTimeout:
		out.Kind, out.Hint = Busy, "try again later"
	case s == http.StatusUnauthorized:
		out.Kind, out.Hint = Unauthenticated, "check reference and secret, or the client certificate; a credential may be spent or expired"
	case s == http.StatusForbidden:
		out.Kind, out.Hint = Refused, "the CA's policy refused; its operator sees why under `deviceca policy explain`"
	case s == http.StatusNotFound:
		out.Kind, out.Hint = BadRequest, "check the server's address and the label"
	case s >= 300 && s < 400:
		out.Kind, out.Hint = Untrusted, "if the redirection is meant, give its target as the server"
	case s >= 400 && s < 500:
		out.Kind = BadRequest
	default:
		out.Kind, out.Hint = BadReply, "look into the server's log"
	}
	return out
}

// retryAfter reads seconds or a date (RFC 9110 §10.2.3); 0 when absent or unreadable. It is what the server asks, without any
// bound: see Error.wait.
func retryAfter(value string, now time.Time) time.Duration {
	n, err := strconv.ParseInt(strings.TrimSpace(value), 10, 64)
	if err == nil || errors.Is(err, strconv.ErrRange) {
		return time.Duration(min(max(n, 0), int64(math.MaxInt64/time.Second))) * time.Second
	}
	if at, err := http.ParseTime(value); err == nil {
		return max(at.Sub(now), 0)
	}
	return 0
}
