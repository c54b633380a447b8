package acme

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
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
	// Resolver is the "host:port" of the DNS server to ask; "" for those that the system
	// asks. The hosts file goes first for addresses, either way.
	Resolver string
	// AllowNetworks may be contacted; nil is 0.0.0.0/0 and ::/0. Special addresses (see
	// specialRanges) are refused all the same, unless an entry that lies within
	// their range lists them, such as 127.0.0.0/8.
	AllowNetworks []netip.Prefix
	// Timeout bounds one validation; 0 is 10 s.
	Timeout time.Duration
}

// NewValidators makes a validator for each type of challenge that is met on a network: "http-01" (RFC
// 8555 §8.3), "dns-01" (§8.4) and "tls-alpn-01" (RFC 8737). It contacts nobody.
func NewValidators(o ValidatorOptions) (map[string]Validator, error) {
	guard, err := newGuard(o.AllowNetworks)
	if err != nil {
		return nil, err
	}
	lookup, err := newResolver(o.Resolver)
	if err != nil {
		return nil, err
	}
	httpPort, tlsPort := cmp.Or(o.HTTPPort, 80), cmp.Or(o.TLSPort, 443)
	net := newNetwork(guard, lookup)
	timeout := cmp.Or(o.Timeout, 10*time.Second)
	return map[string]Validator{
		"http-01":     bounded{timeout, newHTTPValidator(net, httpPort, tlsPort)},
		"dns-01":      bounded{timeout, &dnsValidator{lookup}},
		"tls-alpn-01": bounded{timeout, &tlsALPNValidator{net, tlsPort}},
	}, nil
}

// bounded gives a validator its time.
type bounded struct {
	timeout time.Duration
	Validator
}

func (b bounded) Validate(ctx context.Context, r ValidationRequest) error {
	within, cancel := context.WithTimeout(ctx, b.timeout)
	defer cancel()
	err := b.Validator.Validate(within, r)
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil: // the caller's, not the target's fault
		return ctx.Err()
	case expired(within):
		return failed("connection", "no answer within %v", b.timeout)
	}
	return err
}

// expired reports whether a context's time is over. A connection may notice before the context does.
func expired(ctx context.Context) bool {
	deadline, ok := ctx.Deadline()
	return ctx.Err() != nil || ok && !time.Now().Before(deadline)
}

// isHostName reports whether s is a host name in lower case (RFC 1123 §2.1), without a dot at its
// end. One whose last label is a number is none: resolvers might take it for an address.
func isHostName(s string) bool {
	if len(s) > 253 {
		return false
	}
	labels := strings.Split(s, ".")
	for _, l := range labels {
		if len(l) == 0 || len(l) > 63 || l[0] == '-' || l[len(l)-1] == '-' {
			return false
		}
		for _, c := range []byte(l) {
			if !('a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '-') {
				return false
			}
		}
	}
	last := labels[len(labels)-1]
	_, err := strconv.ParseUint(last, 0, 64)
	return err != nil && strings.Trim(last, "0123456789") != "" && !strings.HasPrefix(last, "0x")
}

// isToken reports whether s may be a challenge's token (RFC 8555 §8.3): it becomes part of a URL.
func isToken(s string) bool {
	return s != "" && strings.Trim(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_") == ""
}

func failed(problem, format string, args ...any) *ValidationError {
	return &ValidationError{problem, fmt.Sprintf(format, args...)}
}

// printable is the beginning of s as one line that does no harm: at most 40 characters.
func printable(s string) string {
	const limit = 40
	var b strings.Builder
	n := 0
	for _, r := range s {
		if n++; n > limit {
			b.WriteString("…")
			break
		}
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			r = '.'
		}
		b.WriteRune(r)
	}
	return b.String()
}
