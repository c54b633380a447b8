package main

import (
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/deviceca/deviceca/internal/der"
	"github.com/deviceca/deviceca/internal/path"
	"github.com/deviceca/deviceca/policy"
)

// usages are the purposes that crypto/x509 knows, by name and by OID.
var usages = map[string]x509.ExtKeyUsage{
	"any":        x509.ExtKeyUsageAny,
	"serverAuth": x509.ExtKeyUsageServerAuth, "1.3.6.1.5.5.7.3.1": x509.ExtKeyUsageServerAuth,
	"clientAuth": x509.ExtKeyUsageClientAuth, "1.3.6.1.5.5.7.3.2": x509.ExtKeyUsageClientAuth,
	"1.3.6.1.5.5.7.3.3": x509.ExtKeyUsageCodeSigning,
	"1.3.6.1.5.5.7.3.4": x509.ExtKeyUsageEmailProtection,
	"1.3.6.1.5.5.7.3.8": x509.ExtKeyUsageTimeStamping,
	"1.3.6.1.5.5.7.3.9": x509.ExtKeyUsageOCSPSigning,
}

// purposes is what the certificate is verified for: a usage of crypto/x509's, or another OID.
func (in *verifyInput) purposes() (usage x509.ExtKeyUsage, oid string, err error) {
	if usage, ok := usages[in.purpose]; ok {
		return usage, "", nil
	}
	oid = in.purpose
	if oid == "remediation" {
		oid = policy.RemediationEKU
	}
	if strings.Trim(oid, "0123456789.") != "" || !strings.Contains(oid, ".") {
		return 0, "", usagef("--purpose: %q is none; use clientAuth, serverAuth, remediation, any, or an OID", in.purpose)
	}
	return x509.ExtKeyUsageAny, oid, nil
}

// material is what paths are made of.
type material struct {
	leaf           *x509.Certificate
	between, roots []*x509.Certificate
}

// certificates reads the certificates. Those among the roots that are not self-signed are
// intermediates, unless there is no other root.
func (in *verifyInput) certificates() (m material, err error) {
	chain, err := readCerts(in.cert)
	if err != nil {
		return m, err
	}
	m.leaf, m.between = chain[0], chain[1:]
	for _, file := range in.chain {
		certs, err := readCerts(file)
		if err != nil {
			return m, err
		}
		m.between = append(m.between, certs...)
	}
	var given []*x509.Certificate
	for _, file := range in.roots {
		certs, err := readCerts(file)
		if err != nil {
			return m, err
		}
		given = append(given, certs...)
	}
	selfIssued := func(c *x509.Certificate) bool { return der.SameName(c.RawIssuer, c.RawSubject) }
	only := slices.ContainsFunc(given, selfIssued)
	for _, c := range given {
		if only && !selfIssued(c) {
			m.between = append(m.between, c)
		} else {
			m.roots = append(m.roots, c)
		}
	}
	return m, nil
}

// paths finds all paths for the purpose, each with the leaf first and the root last.
func (in *verifyInput) paths(m material, now time.Time) ([][]*x509.Certificate, error) {
	usage, oid, err := in.purposes()
	if err != nil {
		return nil, err
	}
	paths, err := path.Verify(m.leaf, m.between, path.Options{Anchors: path.Anchors(m.roots), Now: now, Usages: []x509.ExtKeyUsage{usage}, ReadsNames: true})
	if err != nil {
		return nil, err
	}
	if oid != "" {
		// crypto/x509 knows no purposes but its own: here the leaf and all above
		// it that are limited to purposes must have this one.
		paths = slices.DeleteFunc(paths, func(p []*x509.Certificate) bool {
			return slices.ContainsFunc(p, func(c *x509.Certificate) bool { return !hasPurpose(c, oid, c == m.leaf) })
		})
		if len(paths) == 0 {
			return nil, fmt.Errorf("the certificate, or a CA above it, is not for purpose %s", oid)
		}
	}
	if oid != policy.RemediationEKU {
		paths = slices.DeleteFunc(paths, func(p []*x509.Certificate) bool { return slices.ContainsFunc(p, isQuarantined) })
		if len(paths) == 0 {
			return nil, errors.New("it is a quarantine certificate, which is for remediation alone: --purpose remediation verifies it as one")
		}
	}
	return paths, nil
}

func isQuarantined(c *x509.Certificate) bool {
	return slices.ContainsFunc(c.UnknownExtKeyUsage, func(u asn1.ObjectIdentifier) bool { return u.String() == policy.RemediationEKU })
}

func hasPurpose(c *x509.Certificate, oid string, must bool) bool {
	if len(c.ExtKeyUsage)+len(c.UnknownExtKeyUsage) == 0 {
		return !must
	}
	for _, u := range c.UnknownExtKeyUsage {
		if u.String() == oid {
			return true
		}
	}
	return slices.Contains(c.ExtKeyUsage, x509.ExtKeyUsageAny) && !must
}
