package main

import (
	"net"
	"net/netip"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/deviceca/deviceca/policy"
)

// faults finds what cannot work, and what works in a way nobody expects.
func (c *Config) faults(fault func(key, format string, args ...any)) {
	if c.Name == "" || len(c.Name) > 40 {
		fault("name", "must be 1 to 40 characters, so that \"NAME Quarantine CA 1\" fits into a common name (RFC 5280, ub-common-name)")
	}
	c.checkListen(fault)
	c.checkURL(fault)
	if !slices.Contains([]string{"1.2", "1.3"}, c.TLS.MinVersion) {
		fault("tls.min_version", "%q is not served: use \"1.3\", or \"1.2\" for devices that know no better", c.TLS.MinVersion)
	}
	for _, name := range c.TLS.Names {
		if _, err := netip.ParseAddr(name); err != nil && !policy.IsHostName(name) {
			fault("tls.names", "%q is neither a DNS name nor an IP address", name)
		}
	}
	for _, name := range c.TLS.NoClientCertNames {
		_, err := netip.ParseAddr(name)
		switch {
		case err == nil:
			fault("tls.no_client_cert_names", "%q is an IP address, which clients do not send as the server's name (RFC 6066 §3): use listen.https_nocert", name)
		case !policy.IsHostName(name):
			fault("tls.no_client_cert_names", "%q is not a DNS name", name)
		case slices.ContainsFunc(append([]string{"localhost"}, c.TLS.Names...), func(other string) bool { return strings.EqualFold(name, other) }):
			fault("tls.no_client_cert_names", "%q is one of the server's other names (tls.names, localhost): devices that call it by that could not show their certificates", name)
		}
	}
	c.checkEST(fault)
	c.checkKeys(fault)
	if scheme, _, isURL := strings.Cut(c.DB, "://"); isURL && scheme != "postgres" && scheme != "postgresql" {
		fault("db", "%q databases are not known: use a file, or postgres://", scheme)
	} else if c.DB == "" {
		fault("db", "must name a file or a postgres:// URL")
	}
	if c.Policy == "" {
		fault("policy", "must name a file")
	}
	if c.LintShare < 0 || c.LintShare > 1 {
		fault("lint_share", "%g is not between 0 and 1", c.LintShare)
	}
	c.checkLimits(fault)
	c.checkRevocation(fault)
	c.ACME.check(fault)
	c.Approval.check(fault)
	c.Webhook.check(fault)
	if d := c.Audit.CheckpointEvery; d < time.Second || d > 24*time.Hour {
		fault("audit.checkpoint_every", "%s is not between 1s and 24h", c.Audit.CheckpointEvery)
	}
	if f := c.Audit.HeadsFile; f == "" {
		fault("audit.heads_file", "must name a file, or be off")
	} else if f == c.DB || f == c.Policy || f == configFile || strings.HasSuffix(f, "/") {
		fault("audit.heads_file", "%q is not a file for heads alone: name another, such as audit-heads.log", f)
	}
	if !slices.Contains([]string{"debug", "info", "warn", "error"}, c.Log.Level) {
		fault("log.level", "%q is not one of debug, info, warn, error", c.Log.Level)
	}
	if !slices.Contains([]string{"text", "json"}, c.Log.Format) {
		fault("log.format", "%q is neither text nor json", c.Log.Format)
	}
	if c.Log.Refusals < 0 {
		fault("log.refusals", "%d is negative: use 0 for no limit", c.Log.Refusals)
	}
}

func (c *Config) checkListen(fault func(key, format string, args ...any)) {
	taken := map[string]string{}
	for _, l := range []struct{ key, addr string }{
		{"listen.https", c.Listen.HTTPS}, {"listen.https_nocert", c.Listen.HTTPSNoCert}, {"listen.http", c.Listen.HTTP}, {"listen.metrics", c.Listen.Metrics},
	} {
		if l.key == "listen.metrics" && l.addr == "off" || l.key == "listen.https_nocert" && l.addr == "" {
			continue
		}
		host, port, err := net.SplitHostPort(l.addr)
		if err != nil {
			fault(l.key, "%q is not an address: write HOST:PORT, for example 127.0.0.1:8443, or :8443 for every interface", l.addr)
			continue
		}
		if n, err := strconv.ParseUint(port, 10, 16); err != nil {
			fault(l.key, "%q is not a port: use 1 to 65535", port)
		} else if other, ok := taken[l.addr]; ok && n != 0 {
			fault(l.key, "is the same address as %s", other)
		}
		taken[l.addr] = l.key
		if host != "" && !policy.IsHostName(host) {
			if _, err := netip.ParseAddr(host); err != nil {
				fault(l.key, "%q is neither a host name nor an IP address", host)
			}
		}
	}
}

func (c *Config) checkURL(fault func(key, format string, args ...any)) {
	if c.URL == "" {
		host, _, err := net.SplitHostPort(c.Listen.HTTP)
		ip, ipErr := netip.ParseAddr(host)
		if err == nil && (host == "" || ipErr == nil && ip.IsUnspecified()) {
			fault("url", "is missing: listen.http is on every interface, so say by which name others reach it, as http://ca.example:8080")
		}
		return
	}
	u, err := url.Parse(c.URL)
	switch {
	case err != nil || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" || u.Opaque != "":
		fault("url", "%q is not a base URL: write it as http://ca.example:8080", c.URL)
	case u.Scheme == "https":
		fault("url", "must be http: who checks a certificate's status cannot be made to check another's first (RFC 5280 §8)")
	case u.Scheme != "http":
		fault("url", "%q is not http", u.Scheme)
	}
}

func (c *Config) checkKeys(fault func(key, format string, args ...any)) {
	k := c.Keys
	scheme := "pkcs11:"
	switch {
	case k.Provider == "softhsm":
	case k.Provider == "pkcs11", strings.HasPrefix(k.Provider, "pkcs11:"): // a URI there is the issuing token's, as init --keys takes it
		if k.Issuing == "" {
			fault("keys.issuing", "is missing: with keys.provider pkcs11, name the token by its URI")
		}
	case k.Provider == "file":
		scheme = "file:"
		if !k.AllowFile {
			fault("keys.provider", "file is for development: set keys.allow_file to say that you know")
		}
	default:
		fault("keys.provider", "%q is not one of softhsm, pkcs11, file", k.Provider)
		return
	}
	for _, uri := range []struct{ key, value string }{{"keys.root", k.Root}, {"keys.issuing", k.Issuing}} {
		if uri.value != "" && !strings.HasPrefix(uri.value, scheme) {
			fault(uri.key, "must begin with %s since keys.provider is %s", scheme, k.Provider)
		}
		if strings.Contains(uri.value, "pin-value=") {
			fault(uri.key, "holds a PIN; say where it is with keys.pin_root or keys.pin_issuing")
		}
	}
	if k.Root != "" && k.Root == k.Issuing {
		fault("keys.issuing", "is the root's token: the two live apart, so that the root's can be put away")
	}
	for _, pin := range []struct{ key, value string }{{"keys.pin_root", k.PINRoot}, {"keys.pin_issuing", k.PINIssuing}} {
		if pin.value != "" && !isPINSource(pin.value) { // a token may ask for none, or the URI say where it is
			// The value may be the PIN itself: do not repeat it.
			fault(pin.key, "must say where the PIN is: file:PATH, env:NAME or credential:NAME")
		}
	}
	if k.Sessions < 1 || k.Sessions > 256 {
		fault("keys.sessions", "%d is not between 1 and 256", k.Sessions)
	}
}

func isPINSource(s string) bool {
	kind, name, ok := strings.Cut(s, ":")
	if !ok || name == "" {
		return false
	}
	switch kind {
	case "file":
		return true
	case "env":
		return !strings.Contains(name, "=")
	case "credential":
		return filepath.Base(name) == name && name != "." && name != ".."
	}
	return false
}

func (c *Config) checkLimits(fault func(key, format string, args ...any)) {
	l := c.Limits
	for _, n := range []struct {
		key             string
		value, min, max int
	}{
		{"limits.header_bytes", l.HeaderBytes, 4 << 10, 1 << 20},
		{"limits.connections", l.Connections, 1, 1 << 20},
		{"limits.connections_per_address", l.ConnectionsPerAddress, 1, 1 << 20},
		{"limits.wrong_secrets_per_address", l.WrongSecretsPerAddress, 1, 1 << 20},
		{"limits.wrong_secrets_per_reference", l.WrongSecretsPerCredential, 1, 1 << 20},
		{"limits.certificates_per_device", l.CertificatesPerDevice, 0, 1 << 20},
		{"limits.acts_per_device", l.ActsPerDevice, 0, 1 << 30},
		{"limits.acts_per_credential", l.ActsPerCredential, 0, 1 << 30},
		{"limits.acts_per_account", l.ActsPerAccount, 0, 1 << 30},
		{"limits.acts_per_registrar", l.ActsPerRegistrar, 0, 1 << 30},
		{"limits.refusals_per_address", l.RefusalsPerAddress, 0, 1 << 30},
		{"limits.acts_per_address", l.ActsPerAddress, 0, 1 << 30},
	} {
		if n.value < n.min || n.value > n.max {
			fault(n.key, "%d is not between %d and %d", n.value, n.min, n.max)
		}
	}
	for _, d := range []struct {
		key   string
		value time.Duration
	}{
		{"limits.header_timeout", l.HeaderTimeout}, {"limits.read_timeout", l.ReadTimeout},
		{"limits.write_timeout", l.WriteTimeout}, {"limits.idle_timeout", l.IdleTimeout},
	} {
		// None may be off: a client that says nothing would hold its connection for ever.
		if d.value < 100*time.Millisecond || d.value > time.Hour {
			fault(d.key, "%s is not between 100ms and 1h", d.value)
		}
	}
}

// checkRevocation: what is published ends before the certificate that it is
// signed under, and after what replaces it.
func (c *Config) checkRevocation(fault func(key, format string, args ...any)) {
	const day = 24 * time.Hour
	for _, d := range []struct {
		key             string
		value, min, max time.Duration
	}{
		{"ocsp.life", c.OCSP.Life, time.Minute, delegateLife / 4},
		{"ocsp.max_age", c.OCSP.MaxAge, time.Second, delegateLife / 4},
		{"ocsp.retention", c.OCSP.Retention, 0, 100 * 365 * day},
		{"crl.full_every", c.CRL.FullEvery, time.Minute, 90 * day},
		{"crl.full_within", c.CRL.FullWithin, 0, 90 * day},
		{"crl.overlap", c.CRL.Overlap, time.Minute, 90 * day},
		{"crl.delta_every", c.CRL.DeltaEvery, 10 * time.Second, 30 * day},
		{"crl.delta_overlap", c.CRL.DeltaOverlap, 10 * time.Second, 30 * day},
		{"crl.max_age", c.CRL.MaxAge, time.Second, 30 * day},
		{"pack.every", c.Pack.Every, time.Minute, delegateLife / 4},
		{"pack.refresh", c.Pack.Refresh, 10 * time.Second, delegateLife / 4},
		{"pack.overlap", c.Pack.Overlap, time.Minute, delegateLife / 4},
	} {
		if d.value < d.min || d.value > d.max {
			fault(d.key, "%s is not between %s and %s", durationText(d.value), durationText(d.min), durationText(d.max))
		}
	}
	if c.OCSP.DelegateKey != "memory" && c.OCSP.DelegateKey != "token" {
		fault("ocsp.delegate_key", "%q is neither memory nor token", c.OCSP.DelegateKey)
	}
	for _, n := range []struct {
		key             string
		value, min, max int
	}{{"ocsp.live_rate", c.OCSP.LiveRate, 1, 1_000_000}, {"ocsp.answers", c.OCSP.Answers, 256, 1 << 28}, {"pack.keep", c.Pack.Keep, 1, 1000}} {
		if n.value < n.min || n.value > n.max {
			fault(n.key, "%d is not between %d and %d", n.value, n.min, n.max)
		}
	}
}
