package acme

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"net"
	"slices"
	"strings"
)

// dnsValidator validates dns-01 (RFC 8555 §8.4). It contacts nobody but the resolver.
type dnsValidator struct{ resolver *net.Resolver }

func (v *dnsValidator) Validate(ctx context.Context, r ValidationRequest) error {
	host := strings.ToLower(r.Identifier.Value)
	if r.Identifier.Type != "dns" { // RFC 8738 §7
		return failed("rejectedIdentifier", "dns-01 validates no identifiers of type %q", printable(r.Identifier.Type))
	}
	if !isHostName(host) {
		return failed("rejectedIdentifier", "%q is not a host name", printable(r.Identifier.Value))
	}
	name := "_acme-challenge." + host
	records, err := v.resolver.LookupTXT(ctx, name+".")
	if err != nil {
		if e, ok := errors.AsType[*net.DNSError](err); ok && e.IsNotFound {
			return failed("dns", "there is no TXT record at %s", name)
		}
		return failed("dns", "the TXT records at %s cannot be looked up: %s", name, cause(err))
	}
	sum := sha256.Sum256([]byte(r.KeyAuthorization))
	want := base64.RawURLEncoding.EncodeToString(sum[:])
	switch {
	case slices.Contains(records, want):
		return nil
	case len(records) == 0:
		return failed("dns", "there is no TXT record at %s", name)
	}
	return failed("incorrectResponse", "none of the %d TXT records at %s is the digest of the key authorization; one is %q",
		len(records), name, printable(records[0]))
}
