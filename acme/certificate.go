package acme

import (
	"bytes"
	"encoding/pem"
	"errors"
	"strconv"

	"github.com/go-chi/chi/v5"

	"github.com/deviceca/deviceca/ca"
)

// certificate gives a certificate with its chain, in PEM (RFC 8555 §7.4.2). Where a root was rotated there are several
// chains, and each answer links to the others.
func (x *exchange) certificate() (*reply, error) {
	if err := x.onlyGet(); err != nil {
		return nil, err
	}
	name := chi.URLParam(x.r, "serial")
	var serial ca.Serial
	if err := serial.UnmarshalText([]byte(name)); err != nil || serial.String() != name {
		return nil, notFound()
	}
	c, err := x.Ledger.CertificateBySerial(x.ctx(), serial)
	if errors.Is(err, ca.ErrNoRecord) || err == nil && c.Actor != ca.AccountActor(x.who.ID) {
		return nil, notFound()
	}
	if err != nil {
		return nil, err
	}
	chains, which := x.Authority.Chains(c.Issuer), 0
	if k := chi.URLParam(x.r, "chain"); k != "" {
		n, ok := parseID(k)
		if !ok || int(n) >= len(chains) {
			return nil, notFound()
		}
		which = int(n)
	}
	answer := &reply{media: "application/pem-certificate-chain"}
	for i := range chains {
		if i != which {
			url := x.url("certificate", name)
			if i > 0 {
				url += "/" + strconv.Itoa(i)
			}
			answer.links = append(answer.links, link(url, "alternate"))
		}
	}
	var b bytes.Buffer
	pem.Encode(&b, &pem.Block{Type: "CERTIFICATE", Bytes: c.DER})
	if which < len(chains) {
		for _, der := range chains[which] {
			pem.Encode(&b, &pem.Block{Type: "CERTIFICATE", Bytes: der})
		}
	}
	answer.raw = b.Bytes()
	return answer, nil
}
