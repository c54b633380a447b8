package main

import (
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"

	"github.com/deviceca/deviceca/internal/admin"
)

// certificateView is what cert show shows: the record, and where the certificate says that its status is.
type certificateView struct {
	*admin.CertificateDetail
	Pointers statusPointers `json:"pointers"`
}

// statusPointers are the places that a certificate names for its status.
type statusPointers struct {
	OCSP      []string `json:"ocsp,omitempty"`
	CRLs      []string `json:"crls,omitempty"`
	DeltaCRLs []string `json:"delta_crls,omitempty"`
	None      bool     `json:"no_rev_avail,omitempty"` // RFC 9608: nowhere
}

var (
	extFreshestCRL = asn1.ObjectIdentifier{2, 5, 29, 46}
	extNoRevAvail  = asn1.ObjectIdentifier{2, 5, 29, 56}
)

func viewCertificate(c *admin.CertificateDetail) (v certificateView, err error) {
	v.CertificateDetail = c
	block, _ := pem.Decode([]byte(c.PEM))
	if block == nil { // a record without a certificate: it was entered after a restore
		return v, nil
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return v, fmt.Errorf("certificate %s: %w", c.Serial, err)
	}
	v.Pointers.OCSP, v.Pointers.CRLs = cert.OCSPServer, cert.CRLDistributionPoints
	for _, e := range cert.Extensions {
		switch {
		case e.Id.Equal(extNoRevAvail):
			v.Pointers.None = true
		case e.Id.Equal(extFreshestCRL):
			if v.Pointers.DeltaCRLs, err = pointURLs(e.Value); err != nil {
				return v, fmt.Errorf("certificate %s: freshestCRL: %w", c.Serial, err)
			}
		}
	}
	return v, nil
}

// pointURLs reads the URIs of CRLDistributionPoints (RFC 5280 §4.2.1.13).
func pointURLs(raw []byte) (urls []string, err error) {
	var points []struct {
		Name struct {
			Full []asn1.RawValue `asn1:"optional,tag:0"`
		} `asn1:"optional,tag:0"`
		Reasons asn1.BitString `asn1:"optional,tag:1"`
		Issuer  asn1.RawValue  `asn1:"optional,tag:2"`
	}
	rest, err := asn1.Unmarshal(raw, &points)
	if err == nil && len(rest) > 0 {
		err = errors.New("trailing octets")
	}
	for _, p := range points {
		for _, name := range p.Name.Full {
			if name.Tag == 6 {
				urls = append(urls, string(name.Bytes))
			}
		}
	}
	return urls, err
}

func (p statusPointers) facts(fact func(name, value string)) {
	fact("OCSP", strings.Join(p.OCSP, " "))
	fact("CRL", strings.Join(p.CRLs, " "))
	fact("delta CRL", strings.Join(p.DeltaCRLs, " "))
	if p.None {
		fact("status", "is not published (noRevAvail): revoking it bars this CA's own protocols only")
	}
}
