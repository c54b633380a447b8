package client

import (
	"crypto/x509"
	"encoding/asn1"
)

// oidRemediation is the extended key usage that the CAs of quarantined devices are restricted to.
var oidRemediation = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 55555, 1, 1}

// forRemediation reports whether a root is restricted to remediation. A device in quarantine
// verifies its own certificate with it. It is no anchor for servers or peers: a device that kept it
// among those would accept others that are in quarantine.
func forRemediation(c *x509.Certificate) bool {
	for _, use := range c.UnknownExtKeyUsage {
		if use.Equal(oidRemediation) {
			return true
		}
	}
	return false
}
