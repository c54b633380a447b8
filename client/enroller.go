package client

import (
	"cmp"
	"context"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"time"
)

// Enroller gets certificates from a CA by one protocol. Its methods retry what
// can be retried, within the bounds it was made with, and return an *Error. They
// never write files.
type Enroller interface {
	// Protocol is "est", "acme" or "cmp".
	Protocol() string

	// CACerts fetches the CA's certificates. It returns them only when the
	// server proved, against the trust that the Enroller was made with, that it
	// may hand them out.
	CACerts(ctx context.Context) (*CACerts, error)

	// KeyHint says which kind of key the CA wants, "" when it does not say or
	// says something unknown here.
	KeyHint(ctx context.Context, auth Auth) (KeyType, error)

	// Enroll asks for a first certificate, proving who asks by req.Auth.
	Enroll(ctx context.Context, req *Request) (*Reply, error)

	// Renew asks for the successor of the certificate in req.Auth, which may
	// have lapsed. The names in req are those of that certificate.
	Renew(ctx context.Context, req *Request) (*Reply, error)
}

// setBounds puts the defaults of an Enroller in place: 30 s for an exchange, 10 minutes for an operation.
func setBounds(timeout, wait *time.Duration, now *func() time.Time) {
	if *timeout <= 0 {
		*timeout = 30 * time.Second
	}
	if *wait <= 0 {
		*wait = 10 * time.Minute
	}
	if *now == nil {
		*now = time.Now
	}
}

// secureServer reads the address of a server that must be spoken to over TLS, and the
// oldest TLS allowed, 1.3 for 0.
func secureServer(protocol, server string, minTLS uint16) (*url.URL, uint16, error) {
	usage := func(text, hint string) (*url.URL, uint16, error) {
		return nil, 0, &Error{Kind: Usage, Op: strings.ToLower(protocol), Text: text, Hint: hint}
	}
	u, err := url.Parse(server)
	switch {
	case err != nil || u.Host == "":
		return usage("the server is no URL: "+printable(server), "give it as https://host:port")
	case u.Scheme != "https":
		return usage(protocol+" runs over https only, not "+printable(u.Scheme), "give the server as https://host:port")
	case u.User != nil || u.RawQuery != "" || u.Fragment != "":
		return usage("the server's URL holds more than host, port and path", "give credentials apart from the URL")
	case minTLS != 0 && minTLS != tls.VersionTLS12 && minTLS != tls.VersionTLS13:
		return usage("TLS below 1.2 is not offered", "use TLS 1.3, or 1.2 where the server has nothing newer")
	}
	return u, cmp.Or(minTLS, tls.VersionTLS13), nil
}

// Request is what a device wants, in no protocol's terms.
type Request struct {
	Key   crypto.Signer
	Names Names
	Auth  Auth

	// State is what Save was given for this very key and these names by an
	// earlier attempt that ended without an answer; nil at the first. With it,
	// an Enroller repeats its request instead of making a second one (in EST a
	// pending request is found again by the same CSR).
	State []byte
	// Save keeps state durably before the request is sent. Nil keeps nothing.
	Save func(state []byte) error

	// Check judges a reply before an Enroller confirms its certificate to the CA; with an
	// error the CA is told that it is rejected, where the protocol can say so. Nil accepts.
	Check func(*Reply) error
}

func (r *Request) check(reply *Reply) error {
	if r.Check == nil {
		return nil
	}
	return r.Check(reply)
}

func (r *Request) save(state []byte) error {
	if r.Save == nil {
		return nil
	}
	return r.Save(state)
}

// Auth is how a device proves who it is: one of the two, or neither where the
// server needs none.
type Auth struct {
	Credential  *Credential
	Certificate *tls.Certificate // with PrivateKey set; an IDevID, or the certificate to renew
}

// Credential is an enrolment credential, as `deviceca device add` prints it. It
// does not show its secret when printed or logged.
type Credential struct {
	Reference string
	Secret    string
}

// String is the reference alone.
func (c Credential) String() string { return fmt.Sprintf("credential %q", c.Reference) }

// GoString is String: %#v shows no secret either.
func (c Credential) GoString() string { return c.String() }

// LogValue is the reference alone.
func (c Credential) LogValue() slog.Value { return slog.StringValue(c.Reference) }

// Reply is a CA's answer, not yet checked against the request.
type Reply struct {
	// Certificates in the order received; one of them is for the request's key.
	Certificates []*x509.Certificate
	// Outcome is what policy made of the request: "issue" (the normal case, also when the
	// server does not say), "restricted", "quarantine", "update-required".
	Outcome string
	Reasons []string
	// Warnings are about what this device sent: evidence that lacks something.
	Warnings []string
}

// CACerts are a CA's own certificates.
type CACerts struct {
	Roots         []*x509.Certificate // self-signed: the trust anchors
	Remediation   []*x509.Certificate // self-signed: anchors of the device's own certificate alone, while it is in quarantine
	Intermediates []*x509.Certificate
}
