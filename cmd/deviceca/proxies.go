package main

import (
	"fmt"
	"net/netip"

	"github.com/deviceca/deviceca/est"
)

// ESTConfig is about EST.
type ESTConfig struct {
	Proxies   []string `yaml:"proxies" doc:"Networks of reverse proxies that end TLS for devices and name the device's certificate in Client-Cert and Client-Cert-Chain (RFC 9440). From any other address these fields are refused. Empty: no proxies." unit:"CIDR"`
	ProxyCert string   `yaml:"proxy_cert" doc:"Certificate that the proxies show as TLS client, PEM, relative to the home: a proxy's address alone is then not enough. Empty: it is."`
}

func (c *Config) checkEST(fault func(key, format string, args ...any)) {
	for _, network := range c.EST.Proxies {
		if _, err := parseNetwork(network); err != nil {
			fault("est.proxies", "%s", err)
		}
	}
	if c.EST.ProxyCert != "" && len(c.EST.Proxies) == 0 {
		fault("est.proxy_cert", "is of no use without est.proxies, the addresses that it is taken from")
	}
}

// parseNetwork reads a network, or one address.
func parseNetwork(s string) (netip.Prefix, error) {
	if addr, err := netip.ParseAddr(s); err == nil {
		return netip.PrefixFrom(addr.Unmap(), addr.Unmap().BitLen()), nil
	}
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return p, fmt.Errorf("%q is not a network: write it as 192.0.2.0/24", s)
	}
	if p != p.Masked() {
		return p, fmt.Errorf("%q has bits beyond its length: write %s", s, p.Masked())
	}
	return p, nil
}

// proxies are the proxies of a configuration that was checked.
func (c *Config) proxies() (est.Proxies, error) {
	var p est.Proxies
	for _, network := range c.EST.Proxies {
		prefix, err := parseNetwork(network)
		if err != nil {
			return p, err
		}
		p.Networks = append(p.Networks, prefix)
	}
	if c.EST.ProxyCert == "" {
		return p, nil
	}
	certs, err := readCerts(c.EST.ProxyCert)
	if err != nil {
		return p, fmt.Errorf("est.proxy_cert: %w", err)
	}
	p.Cert = certs[0].Raw
	return p, nil
}
