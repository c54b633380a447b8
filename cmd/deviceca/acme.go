package main

import (
	"net/url"
	"strings"
	"time"

	"github.com/deviceca/deviceca/acme"
	"github.com/deviceca/deviceca/attest"
)

// ACMEConfig is about the ACME server.
type ACMEConfig struct {
	URL                     string   `yaml:"url" doc:"Public base of ACME, for example https://ca.example:8443, if clients come through a proxy or to another port than that of listen.https. Empty: https:// and the host that each request names, which must be one of the server's names (tls.names) with the port of listen.https."`
	ExternalAccountRequired bool     `yaml:"external_account_required" doc:"Lets in only accounts that are bound to an enrolment credential. If false, others may come too, and get what levels give to the requester kind account: by default nothing."`
	Terms                   string   `yaml:"terms" doc:"URL of terms of service, to which new accounts must agree. Empty: there are none."`
	Website                 string   `yaml:"website" doc:"URL that the directory names for people."`
	HTTP01Port              int      `yaml:"http01_port" doc:"Port that http-01 asks." unit:"1 to 65535"`
	TLSALPN01Port           int      `yaml:"tlsalpn01_port" doc:"Port that tls-alpn-01 asks." unit:"1 to 65535"`
	AllowNetworks           []string `yaml:"allow_networks" doc:"Networks that challenges are validated in. Loopback, link-local and other special addresses are refused unless a network within them is listed. Empty: every network but those." unit:"CIDR"`
	Resolver                string   `yaml:"resolver" doc:"DNS server that challenges are validated with. Empty: as the system does, hosts file included." unit:"HOST:PORT"`
	AccountsPerAddress      int      `yaml:"accounts_per_address" doc:"New accounts from one address." unit:"per minute"`
	OrdersPerAccount        int      `yaml:"orders_per_account" doc:"New orders of one account." unit:"per minute"`
	OrdersPerDevice         int      `yaml:"orders_per_device" doc:"New orders of all accounts of one device." unit:"per minute"`
	OrdersPerAddress        int      `yaml:"orders_per_address" doc:"New orders from one address." unit:"per minute"`
	FailuresPerAccount      int      `yaml:"failures_per_account" doc:"Challenges of one account that fail." unit:"per minute"`
	NoncesPerAddress        int      `yaml:"nonces_per_address" doc:"Nonces for one address whose requests show no account." unit:"per minute"`
	RenewalInfoPerAddress   int      `yaml:"renewal_info_per_address" doc:"Questions about renewal from one address." unit:"per minute"`
	OpenOrdersPerAccount    int      `yaml:"open_orders_per_account" doc:"Orders without a certificate that one account may have. A new one takes the place of the oldest."`
}

// check finds what cannot work.
func (c *ACMEConfig) check(fault func(key, format string, args ...any)) {
	for _, u := range []struct{ key, value string }{{"acme.url", c.URL}, {"acme.terms", c.Terms}, {"acme.website", c.Website}} {
		if u.value == "" {
			continue
		}
		parsed, err := url.Parse(u.value)
		switch base := u.key == "acme.url"; {
		case err != nil || parsed.Host == "" || parsed.User != nil || parsed.Scheme != "https" && parsed.Scheme != "http":
			fault(u.key, "%q is no URL: write it as https://ca.example:8443", u.value)
		case base && (parsed.Scheme != "https" || parsed.RawQuery != "" || parsed.Fragment != "" || parsed.Path != "" && parsed.Path != "/"):
			fault(u.key, "%q must be https:// and a host, with nothing behind it: ACME is below /acme", u.value)
		}
	}
	for _, n := range []struct {
		key        string
		value, max int
	}{
		{"acme.http01_port", c.HTTP01Port, 65535}, {"acme.tlsalpn01_port", c.TLSALPN01Port, 65535},
		{"acme.accounts_per_address", c.AccountsPerAddress, 1e6}, {"acme.orders_per_account", c.OrdersPerAccount, 1e6},
		{"acme.orders_per_device", c.OrdersPerDevice, 1e6}, {"acme.orders_per_address", c.OrdersPerAddress, 1e6},
		{"acme.failures_per_account", c.FailuresPerAccount, 1e6}, {"acme.nonces_per_address", c.NoncesPerAddress, 1e6},
		{"acme.renewal_info_per_address", c.RenewalInfoPerAddress, 1e6}, {"acme.open_orders_per_account", c.OpenOrdersPerAccount, 10_000},
	} {
		if n.value < 1 || n.value > n.max {
			fault(n.key, "%d is not between 1 and %d", n.value, n.max)
		}
	}
	for _, network := range c.AllowNetworks {
		if _, err := parseNetwork(network); err != nil {
			fault("acme.allow_networks", "%s", err)
		}
	}
	if c.Resolver != "" {
		if _, err := c.validators(); err != nil {
			fault("acme.resolver", "%s", err)
		}
	}
}

// validators look at the network for challenges.
func (c *ACMEConfig) validators() (map[string]acme.Validator, error) {
	o := acme.ValidatorOptions{HTTPPort: uint16(c.HTTP01Port), TLSPort: uint16(c.TLSALPN01Port), Resolver: c.Resolver}
	for _, network := range c.AllowNetworks {
		prefix, err := parseNetwork(network)
		if err != nil {
			return nil, err
		}
		o.AllowNetworks = append(o.AllowNetworks, prefix)
	}
	return acme.NewValidators(o)
}

// verifiers judge evidence.
func verifiers() []attest.Verifier { return []attest.Verifier{attest.TPM()} }

// verifiable are the kinds of evidence that each protocol's server can verify.
func verifiable() map[string][]string {
	kinds := map[string][]string{}
	for _, v := range verifiers() {
		kinds["acme"] = append(kinds["acme"], v.Format())
	}
	return kinds
}

// newACME makes the ACME server, which the https listener serves.
func (s *server) newACME() (*acme.Server, error) {
	c := s.cfg.ACME
	validators, err := c.validators()
	if err != nil {
		return nil, err
	}
	var hosts []string
	for _, name := range s.cfg.serverNames() {
		hosts = append(hosts, strings.ToLower(name.Value))
	}
	return acme.New(acme.Options{
		Authority: s.service, Ledger: s.store, Validators: validators, Verifiers: verifiers(),
		URL: c.URL, Hosts: hosts, Terms: c.Terms, Website: c.Website, OpenAccounts: !c.ExternalAccountRequired,
		Limits: acme.Limits{AccountsPerAddress: c.AccountsPerAddress, OrdersPerAccount: c.OrdersPerAccount, OrdersPerDevice: c.OrdersPerDevice,
			OrdersPerAddress: c.OrdersPerAddress, FailuresPerAccount: c.FailuresPerAccount,
			NoncesPerAddress: c.NoncesPerAddress, RenewalInfoPerAddress: c.RenewalInfoPerAddress, OpenOrders: c.OpenOrdersPerAccount},
		BodyTimeout: time.Duration(s.cfg.Limits.ReadTimeout), Observe: s.metrics.observe("acme"), Logger: s.log,
	}), nil
}
