package acme

import (
	"context"
	"errors"
	"net/netip"
	"time"
)

// Identifier is what a certificate is asked for (RFC 8555 §9.7.7). Type is "dns", "ip" (RFC
// 8738), "permanent-identifier" or "hardware-module".
type Identifier struct {
	Type  string `json:"type"`
	Value string `json:"value"`
}

// ValidationRequest is one challenge that a client says it has met.
type ValidationRequest struct {
	Type string // of the challenge
	// Identifier is the authorization's: of a wildcard, the name without "*." (RFC 8555 §7.1.4).
	Identifier       Identifier
	Token            string
	KeyAuthorization string // RFC 8555 §8.1
}

// Validator looks on the network whether a challenge is met. Safe for concurrent use.
type Validator interface {
	// Validate returns nil when it is. Otherwise the error is a *ValidationError, or that of a
	// context which ended before there was a result. It returns within the time
	// that the validator was made with.
	Validate(ctx context.Context, r ValidationRequest) error
}

// ValidationError says why a challenge is not met.
type ValidationError struct {
	// Problem is the last word of the RFC 8555 §6.7 error type: connection, dns, tls,
	// incorrectResponse, unauthorized or rejectedIdentifier.
	Problem string
	// Detail may be shown to the client. It holds no more of what a target answered than a
	// short printable beginning.
	Detail string
}

func (e *ValidationError) Error() string { return e.Problem + ": " + e.Detail }

// ValidatorOptions are what validators are made of. The zero value validates on the standard
// ports, with the system's resolver, on every network but the special ones.
type ValidatorOptions struct {
	// HTTPPort is where http-01 asks; 0 is 80. TLSPort is where tls-alpn-01 asks; 0 is 443.
	// A redirection of http-01 may lead to either of them, to 80 and to 443, nowhere else.
	HTTPPort, TLSPort uint16
	// Resolver is the "host:port" of the DNS server to ask. "" asks as the system does, hosts file included.
	Resolver string
	// AllowNetworks may be contacted; nil is 0.0.0.0/0 and ::/0. Special addresses (loopback, link-local
	// with the clouds' metadata services, multicast, unspecified, and IPv6 forms of such) are refused all the
	// same, unless an entry that lies within their range lists them, such as 127.0.0.0/8.
	AllowNetworks []netip.Prefix
	// Timeout bounds one validation; 0 is 10 s.
	Timeout time.Duration
}

// NewValidators makes a validator for each type of challenge that is met on a network: "http-01" (RFC
// 8555 §8.3), "dns-01" (§8.4) and "tls-alpn-01" (RFC 8737). It contacts nobody.
func NewValidators(o ValidatorOptions) (map[string]Validator, error) {
	return nil, errors.New("no challenges are validated yet")
}
