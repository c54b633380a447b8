package client

import (
	"context"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
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
}

// CACerts are a CA's own certificates.
type CACerts struct {
	Roots         []*x509.Certificate // self-signed: the trust anchors
	Intermediates []*x509.Certificate
}
