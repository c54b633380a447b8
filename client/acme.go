package client

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"
)

// ACMEConfig configures NewACME.
type ACMEConfig struct {
	// Server is the base URL, "https://host[:port]", below which the directory is at
	// /acme/directory; or the URL of a directory, which ends in /directory. Plain http is refused.
	Server string
	// Label is the certificate profile to order, "" for the server's choice.
	Label string
	// Trust must hold roots: they verify the server, and what the CA signs. A pin alone does not do.
	Trust Trust
	// MinTLS is tls.VersionTLS13 (0 stands for it) or tls.VersionTLS12.
	MinTLS uint16
	// Timeout bounds one HTTP exchange, 0 is 30 s; Wait a whole operation, 0 is 10 minutes.
	Timeout, Wait time.Duration
	Now           func() time.Time // nil is time.Now

	// Accounts keeps the accounts; nil keeps them in memory.
	Accounts Accounts
	// Credential binds an account that has to be made when Auth holds none, as at a renewal.
	Credential *Credential
	// HTTP01 is the address to listen on while a name is being validated by http-01, "" to
	// do without. The CA asks at port 80 of the name, so that must lead here.
	HTTP01 string
	// Attester meets device-attest-01, nil to do without.
	Attester Attester
}

// ACME speaks the Automatic Certificate Management Environment (RFC 8555) with external
// account binding, the challenges http-01 and device-attest-01, profiles, and renewal information (RFC
// 9773). It implements Enroller and Adviser, and may be used by several goroutines.
//
// Of golang.org/x/crypto/acme it uses what serves here, the key's thumbprint; not the exchange: that cannot say which certificate an order
// replaces, does not show when an order wants to be looked at again, and waits within finalize, where an order that a person must
// approve has to be left for days. The tests hold the server to it.
type ACME struct {
	directory *url.URL
	config    ACMEConfig
	http      *http.Client
	sleep     func(context.Context, time.Duration) error

	mu    sync.Mutex // held during an operation
	nonce string     // the last one received, "" when it is used
}

var (
	_ Enroller = (*ACME)(nil)
	_ Adviser  = (*ACME)(nil)
)

const acmeDirectoryPath = "/acme/directory"

// NewACME makes an ACME client. It contacts nobody. Errors are of kind Usage.
func NewACME(c ACMEConfig) (*ACME, error) {
	u, minTLS, err := secureServer("ACME", c.Server, c.MinTLS)
	if err != nil {
		return nil, err
	}
	if !c.Trust.hasRoots() {
		return nil, noRoots("ACME")
	}
	if err := c.Trust.check(); err != nil {
		return nil, err
	}
	c.MinTLS = minTLS
	setBounds(&c.Timeout, &c.Wait, &c.Now)
	if c.Accounts == nil {
		c.Accounts = new(memory)
	}
	directory := &url.URL{Scheme: u.Scheme, Host: u.Host, Path: strings.TrimSuffix(u.Path, "/")}
	if !strings.HasSuffix(directory.Path, "/directory") {
		directory = directory.JoinPath(acmeDirectoryPath)
	}
	client := newHTTP(&tls.Config{MinVersion: c.MinTLS, RootCAs: pool(c.Trust.Roots), Time: c.Now}, c.Timeout)
	// What is signed for one URL is of no use at another (RFC 8555 §6.4).
	client.CheckRedirect = noRedirect
	return &ACME{directory: directory, config: c, http: client, sleep: sleep}, nil
}

// Protocol is "acme".
func (*ACME) Protocol() string { return "acme" }

// CACerts are the roots that the client was made with: what stands below them
// comes with each certificate, and is verified with it.
func (a *ACME) CACerts(context.Context) (*CACerts, error) {
	return &CACerts{Roots: a.config.Trust.Roots}, nil
}

// KeyHint says nothing: ACME has no place for it.
func (*ACME) KeyHint(context.Context, Auth) (KeyType, error) { return "", nil }

// Enroll orders a certificate with the account kept, or with a new one that is bound to the credential.
func (a *ACME) Enroll(ctx context.Context, req *Request) (*Reply, error) {
	if req.Auth.Certificate != nil {
		return nil, &Error{Kind: Refused, Op: "newAccount", Text: "ACME has no way to enrol with a certificate",
			Hint: "give a credential, or enrol over EST or CMP"}
	}
	return a.enroll(ctx, req, nil)
}

// Renew orders the successor of the certificate in req.Auth with the account, and says that it replaces it (RFC 9773 §5).
func (a *ACME) Renew(ctx context.Context, req *Request) (*Reply, error) {
	if req.Auth.Certificate == nil || len(req.Auth.Certificate.Certificate) == 0 {
		return nil, &Error{Kind: Usage, Op: "newOrder", Text: "there is no certificate to renew"}
	}
	old, err := x509.ParseCertificate(req.Auth.Certificate.Certificate[0])
	if err != nil {
		return nil, &Error{Kind: Local, Op: "newOrder", Text: "the certificate cannot be read", Err: err}
	}
	return a.enroll(ctx, req, old)
}

// enroll goes the way of RFC 8555 §7.4: order, authorizations, CSR, certificate.
func (a *ACME) enroll(ctx context.Context, req *Request, old *x509.Certificate) (*Reply, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	ids, err := identifiers(req.Names, a.config.Attester)
	if err != nil {
		return nil, err
	}
	s, err := a.begin(ctx)
	if err != nil {
		return nil, err
	}
	credential := req.Auth.Credential
	if credential == nil {
		credential = a.config.Credential
	}
	if err := s.open(ctx, credential, false); err != nil {
		return nil, err
	}
	replaces := ""
	if old != nil && s.resources.RenewalInfo != "" {
		replaces = certificateID(old)
	}
	o, csr, err := s.order(ctx, req, ids, replaces)
	if acmeProblem(err) == "accountDoesNotExist" { // the server lost it, as after a restore
		if err := s.open(ctx, credential, true); err != nil {
			return nil, err
		}
		o, csr, err = s.order(ctx, req, ids, replaces)
	}
	if err != nil {
		return nil, err
	}
	if o.Status == "pending" {
		if err := s.authorize(ctx, o, req, ids); err != nil {
			return nil, err
		}
		if o, err = s.lookAt(ctx, "order", o.url); err != nil {
			return nil, err
		}
		if o, err = s.follow(ctx, o, "pending"); err != nil {
			return nil, err
		}
	}
	if o.Status == "ready" {
		if o, err = s.finalize(ctx, o, csr); err != nil {
			return nil, err
		}
	}
	if o, err = s.follow(ctx, o, "processing"); err != nil {
		return nil, err
	}
	if o.Status != "valid" {
		return nil, badACME("order", errors.New("the order is "+o.Status+" when it should be valid"))
	}
	certs, header, err := s.download(ctx, o)
	if err != nil {
		return nil, err
	}
	out := &Reply{Certificates: certs, Outcome: "issue", Warnings: s.warnings}
	if text := printable(header.Get("Deviceca-Outcome")); text != "" {
		out.Outcome = text
	}
	for _, r := range header.Values("Deviceca-Reason") {
		out.Reasons = append(out.Reasons, printable(r))
	}
	return out, nil
}
