package acme

import (
	"net/http"
	"strings"
)

// directory says where everything is (RFC 8555 §7.1.1). There is no newAuthz: orders make their authorizations.
func (x *exchange) directory() (*reply, error) {
	meta := map[string]any{"externalAccountRequired": !x.OpenAccounts}
	if x.Terms != "" {
		meta["termsOfService"] = x.Terms
	}
	if x.Website != "" {
		meta["website"] = x.Website
	}
	meta["profiles"] = x.profiles()
	return &reply{body: map[string]any{
		"newNonce": x.url("new-nonce"), "newAccount": x.url("new-account"), "newOrder": x.url("new-order"),
		"revokeCert": x.url("revoke-cert"), "keyChange": x.url("key-change"), "renewalInfo": x.url("renewal-info"),
		"meta": meta,
	}}, nil
}

// profiles are those that some level may have, with what they are for.
func (x *exchange) profiles() map[string]string {
	p := x.Authority.Policy()
	offered := map[string]string{}
	for _, name := range p.Levels() {
		level, _ := p.Level(name)
		for _, name := range level.Profiles {
			profile, _ := p.Profile(name)
			offered[name] = "for " + strings.Join(profile.EKU, ", ") + "; names: " + strings.Join(profile.SAN, ", ")
		}
	}
	return offered
}

// newNonce gives a nonce (RFC 8555 §7.2), which send puts on.
func (x *exchange) newNonce() (*reply, error) {
	if err := x.limits.nonce(x.from, x.now); err != nil {
		return nil, err
	}
	if x.r.Method == http.MethodHead {
		return &reply{nonce: true}, nil
	}
	return &reply{status: http.StatusNoContent, nonce: true}, nil
}
