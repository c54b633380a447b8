package client

import (
	"bytes"
	"context"
	"crypto/x509"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"
)

// ESTConfig configures NewEST.
type ESTConfig struct {
	// Server is the base URL, "https://host[:port]"; a path that ends in /.well-known/est is
	// understood too. Plain http is refused.
	Server string
	// Label is the path segment between est and the operation (RFC 7030
	// §3.2.2); in deviceca it names the certificate profile. "" for none.
	Label string
	Trust Trust
	// MinTLS is tls.VersionTLS13 (0 stands for it) or tls.VersionTLS12.
	MinTLS uint16
	// Timeout bounds one HTTP exchange, body included; 0 is 30 s.
	Timeout time.Duration
	// Wait bounds a whole operation: how long to wait in sum for an approval
	// (202), a busy server or a network that is away; 0 is 10 minutes.
	Wait time.Duration
	// Now is the clock; nil is time.Now.
	Now func() time.Time
}

// EST speaks Enrollment over Secure Transport (RFC 7030, with the clarifications
// of RFC 8951 and RFC 9908). It implements Enroller, and may be used by several goroutines.
type EST struct {
	base   *url.URL
	config ESTConfig
	sleep  func(context.Context, time.Duration) error

	mu    sync.Mutex
	roots []*x509.Certificate // verify the server; empty until a pin was resolved
	conns map[string]*http.Client
}

var _ Enroller = (*EST)(nil)

// operations of RFC 7030 §3.2.2: a label must not be one of them.
var operations = []string{"cacerts", "simpleenroll", "simplereenroll", "fullcmc", "serverkeygen", "csrattrs"}

const wellKnown = "/.well-known/est"

// NewEST makes an EST client. It contacts nobody. Errors are of kind Usage.
func NewEST(c ESTConfig) (*EST, error) {
	u, minTLS, err := secureServer("EST", c.Server, c.MinTLS)
	if err != nil {
		return nil, err
	}
	switch {
	case strings.Contains(c.Label, "/") || slices.Contains(operations, c.Label) || c.Label == "." || c.Label == "..":
		return nil, &Error{Kind: Usage, Op: "est", Text: "no label " + printable(c.Label), Hint: "a label is one path segment, and not the name of an EST operation"}
	case c.Trust.empty():
		return nil, &Error{Kind: Usage, Op: "est", Text: "nothing says how to recognise the CA", Hint: "give the CA's root certificate or its SHA-256 (Trust; -roots or -root-sha256)"}
	}
	if err := c.Trust.check(); err != nil {
		return nil, err
	}
	c.MinTLS = minTLS
	setBounds(&c.Timeout, &c.Wait, &c.Now)
	path := strings.TrimSuffix(u.Path, "/")
	path = strings.TrimSuffix(path, wellKnown)
	base := (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: path}).JoinPath(wellKnown)
	if c.Label != "" {
		base = base.JoinPath(url.PathEscape(c.Label))
	}
	return &EST{base: base, config: c, sleep: sleep, roots: c.Trust.Roots, conns: map[string]*http.Client{}}, nil
}

// Protocol is "est".
func (*EST) Protocol() string { return "est" }

// CACerts fetches the CA's certificates (RFC 7030 §4.1). With a pin and nothing
// else to trust it first fetches them over a connection that is not verified, sends nothing
// secret there, keeps only the root that the pin names, and asks again over a connection verified by that root.
func (e *EST) CACerts(ctx context.Context) (*CACerts, error) {
	if err := e.bootstrap(ctx); err != nil {
		return nil, err
	}
	reply, err := e.do(ctx, call{op: "cacerts", limit: maxCACerts})
	if err != nil {
		return nil, err
	}
	certs, err := parseCertsOnly(reply.body, maxCACertCount)
	if err != nil {
		return nil, badReply("cacerts", err)
	}
	ca := sortCACerts(certs)
	if n := len(ca.Roots); n > maxAnchors {
		return nil, badReply("cacerts", fmt.Errorf("it lists %d roots, and %d is the most taken", n, maxAnchors))
	} else if n == 0 {
		return nil, &Error{Kind: BadReply, Op: "cacerts", Text: "the server sent no root certificate", Hint: "a root must be in cacerts (RFC 7030 §4.1.3)"}
	}
	if len(e.config.Trust.RootSHA256) > 0 && e.config.Trust.pinned(ca.Roots) == nil && e.config.Trust.pinned(e.config.Trust.Roots) == nil {
		return nil, wrongPin()
	}
	return ca, nil
}

// bootstrap turns a pin into a trust anchor, once. The reply comes from anybody: it is compared with the pin before
// any certificate in it is parsed, and only the one that fits is.
func (e *EST) bootstrap(ctx context.Context) error {
	e.mu.Lock()
	known := len(e.roots) > 0
	e.mu.Unlock()
	if known {
		return nil
	}
	reply, err := e.do(ctx, call{op: "cacerts", limit: maxCACerts, unverified: true})
	if err != nil {
		return err
	}
	raw, err := readCertsOnly(reply.body)
	if err != nil {
		return badReply("cacerts", err)
	}
	i := slices.IndexFunc(raw, e.config.Trust.isPinned)
	if i < 0 {
		return wrongPin()
	}
	root, err := parseCertificate(raw[i])
	if err != nil {
		return badReply("cacerts", err)
	}
	if !selfSigned(root) {
		return &Error{Kind: Untrusted, Op: "cacerts", Text: "the certificate with the given SHA-256, of \"" + printable(root.Subject.String()) + "\", is not a root",
			Hint: "give the SHA-256 of the CA's root certificate (deviceca ca export root)"}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.roots = []*x509.Certificate{root}
	return nil
}

func wrongPin() error {
	return &Error{Kind: Untrusted, Op: "cacerts", Text: "the server's CA certificates do not hold the root with the given SHA-256",
		Hint: "compare the digest with the CA's operator; if it is right, someone else answers at this address"}
}

func badReply(op string, err error) error {
	return &Error{Kind: BadReply, Op: op, Text: "the server's answer cannot be used", Err: err,
		Hint: "check that the URL leads to an EST server and not to a proxy or another service"}
}

// CSRAttrs asks what the CA wants in a request (RFC 7030 §4.5). A server that has
// nothing to say (204, 404, 501 or an empty body) gives the zero value.
func (e *EST) CSRAttrs(ctx context.Context, auth Auth) (CSRAttrs, error) {
	if err := e.bootstrap(ctx); err != nil {
		return CSRAttrs{}, err
	}
	reply, err := e.do(ctx, call{op: "csrattrs", auth: auth, limit: maxText})
	if e, ok := err.(*Error); ok && (e.Status == http.StatusNotFound || e.Status == http.StatusNotImplemented) {
		return CSRAttrs{}, nil
	}
	if err != nil {
		return CSRAttrs{}, err
	}
	if len(bytes.TrimSpace(reply.body)) == 0 {
		return CSRAttrs{}, nil
	}
	der, err := decodeCSRAttrs(reply.body)
	if err != nil {
		return CSRAttrs{}, badReply("csrattrs", err)
	}
	attrs, err := ParseCSRAttrs(der)
	if err != nil {
		return CSRAttrs{}, badReply("csrattrs", err)
	}
	return attrs, nil
}

// KeyHint is the key of CSRAttrs. It is advice: what cannot be read is no hint.
func (e *EST) KeyHint(ctx context.Context, auth Auth) (KeyType, error) {
	attrs, err := e.CSRAttrs(ctx, auth)
	if KindOf(err) == BadReply && err != nil {
		return "", nil
	}
	return attrs.Key, err
}

// Enroll sends a simpleenroll request (RFC 7030 §4.2.1). The credential goes as
// HTTP Basic and only to the verified server; a certificate goes into the TLS handshake.
func (e *EST) Enroll(ctx context.Context, req *Request) (*Reply, error) {
	return e.enroll(ctx, "simpleenroll", req)
}

// Renew sends a simplereenroll request (RFC 7030 §4.2.2), with the certificate in
// req.Auth as the TLS client certificate.
func (e *EST) Renew(ctx context.Context, req *Request) (*Reply, error) {
	if req.Auth.Certificate == nil {
		return nil, &Error{Kind: Usage, Op: "simplereenroll", Text: "there is no certificate to renew"}
	}
	return e.enroll(ctx, "simplereenroll", req)
}

func (e *EST) enroll(ctx context.Context, op string, req *Request) (*Reply, error) {
	if err := e.bootstrap(ctx); err != nil {
		return nil, err
	}
	csr := req.State
	if !csrFor(csr, req) {
		var err error
		if csr, err = req.csr(); err != nil {
			return nil, err
		}
		if err := req.save(csr); err != nil {
			return nil, err
		}
	}
	reply, err := e.do(ctx, call{op: op, auth: req.Auth, body: encodeBody(csr), limit: maxReply})
	if err != nil {
		return nil, err
	}
	certs, err := parseCertsOnly(reply.body, maxReplyCerts)
	if err != nil {
		return nil, badReply(op, err)
	}
	out := &Reply{Certificates: certs, Outcome: "issue"}
	if o := printable(reply.header.Get("Deviceca-Outcome")); o != "" {
		out.Outcome = o
	}
	for _, r := range reply.header.Values("Deviceca-Reason") {
		out.Reasons = append(out.Reasons, printable(r))
	}
	return out, nil
}

// csrFor reports whether a kept CSR is one for this request.
func csrFor(der []byte, req *Request) bool {
	if der == nil {
		return false
	}
	csr, err := x509.ParseCertificateRequest(der)
	if err != nil || !bytes.Equal(csr.RawSubject, req.Names.Subject) || !samePublic(req.Key.Public(), csr.PublicKey) {
		return false
	}
	var san []byte
	for _, x := range csr.Extensions {
		if x.Id.Equal(oidSAN) {
			san = x.Value
		}
	}
	return bytes.Equal(san, req.Names.SAN)
}

func (e *EST) String() string { return fmt.Sprintf("EST at %s", e.base) }
