package client

import (
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"net"
	"net/url"
	"strings"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

var (
	oidSAN        = asn1.ObjectIdentifier{2, 5, 29, 17}
	oidCommonName = asn1.ObjectIdentifier{2, 5, 4, 3}
)

// Names is what a certificate is asked for: a subject and subject alternative names, both in DER.
type Names struct {
	Subject []byte // RDNSequence
	SAN     []byte // GeneralNames, nil for none
}

// AltNames are names asked for beside the device ID.
type AltNames struct {
	DNS []string
	IP  []net.IP
	URI []*url.URL
}

// DeviceNames makes the names of a device: CN=id, and alt as subject
// alternative names. The ID is 1 to 64 of [A-Za-z0-9._:-].
func DeviceNames(id string, alt AltNames) (Names, error) {
	if err := checkID(id); err != nil {
		return Names{}, err
	}
	subject, err := asn1.Marshal(pkix.Name{CommonName: id}.ToRDNSequence())
	if err != nil {
		return Names{}, &Error{Kind: Usage, Op: "names", Text: "the subject cannot be encoded", Err: err}
	}
	n := Names{Subject: subject}
	if len(alt.DNS)+len(alt.IP)+len(alt.URI) == 0 {
		return n, nil
	}
	// GeneralName ::= CHOICE { dNSName [2] IA5String, uniformResourceIdentifier [6] IA5String, iPAddress [7] OCTET STRING, … } (RFC 5280 §4.2.1.6)
	var b cryptobyte.Builder
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		add := func(tag uint8, value []byte) {
			b.AddASN1(cbasn1.Tag(tag).ContextSpecific(), func(b *cryptobyte.Builder) { b.AddBytes(value) })
		}
		for _, name := range alt.DNS {
			add(2, []byte(name))
		}
		for _, u := range alt.URI {
			add(6, []byte(u.String()))
		}
		for _, ip := range alt.IP {
			if v4 := ip.To4(); v4 != nil {
				ip = v4
			}
			add(7, ip)
		}
	})
	if n.SAN, err = b.Bytes(); err != nil {
		return Names{}, &Error{Kind: Usage, Op: "names", Text: "the names cannot be encoded", Err: err}
	}
	for _, name := range append(alt.DNS, uris(alt.URI)...) {
		if strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r > '~' }) {
			return Names{}, &Error{Kind: Usage, Op: "names", Text: "the name " + printable(name) + " is not printable ASCII", Hint: "encode it (punycode, percent)"}
		}
	}
	return n, nil
}

func uris(list []*url.URL) (out []string) {
	for _, u := range list {
		out = append(out, u.String())
	}
	return out
}

// NamesOf is the names of a certificate, octet for octet, as re-enrolment must
// repeat them (RFC 7030 §4.2.2).
func NamesOf(cert *x509.Certificate) Names {
	n := Names{Subject: cert.RawSubject}
	for _, e := range cert.Extensions {
		if e.Id.Equal(oidSAN) {
			n.SAN = e.Value
		}
	}
	return n
}

// csr makes a PKCS#10 request (RFC 2986) for the names, signed by key.
func (r *Request) csr() ([]byte, error) {
	template := &x509.CertificateRequest{RawSubject: r.Names.Subject}
	if r.Names.SAN != nil {
		template.ExtraExtensions = []pkix.Extension{{Id: oidSAN, Value: r.Names.SAN}}
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, template, r.Key)
	if err != nil {
		return nil, &Error{Kind: Local, Op: "csr", Text: "the request cannot be signed", Err: err, Hint: "check that the key can sign (and that its token answers)"}
	}
	return der, nil
}

// checkID applies the device ID's rule before anything is sent.
func checkID(id string) error {
	ok := 0 < len(id) && len(id) <= 64 && !strings.ContainsFunc(id, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("._:-", r)
	})
	if !ok {
		return &Error{Kind: Usage, Op: "names", Text: "\"" + printable(id) + "\" is no device ID", Hint: "use 1 to 64 of A-Z a-z 0-9 . _ : -"}
	}
	return nil
}

// commonName is the common name in a DER subject, "" for none.
func commonName(subject []byte) string {
	var rdn pkix.RDNSequence
	if rest, err := asn1.Unmarshal(subject, &rdn); err != nil || len(rest) > 0 {
		return ""
	}
	var name pkix.Name
	name.FillFromRDNSequence(&rdn)
	return name.CommonName
}

// missingNames lists the general names asked for that the certificate lacks,
// in a form to show.
func missingNames(want []byte, cert *x509.Certificate) []string {
	have := map[string]bool{}
	for tag, value := range generalNames(NamesOf(cert).SAN) {
		have[tag+value] = true
	}
	var missing []string
	for tag, value := range generalNames(want) {
		if !have[tag+value] {
			missing = append(missing, tag+" "+printable(value))
		}
	}
	return missing
}

// generalNames yields each GeneralName of der as its kind and content; DNS names in lower case.
func generalNames(der []byte) func(yield func(kind, value string) bool) {
	return func(yield func(string, string) bool) {
		in := cryptobyte.String(der)
		var list cryptobyte.String
		if !in.ReadASN1(&list, cbasn1.SEQUENCE) {
			return
		}
		for !list.Empty() {
			var value cryptobyte.String
			var tag cbasn1.Tag
			if !list.ReadAnyASN1(&value, &tag) {
				return
			}
			kind, text := "name", string(value)
			switch tag &^ 0x20 {
			case 0x82:
				kind, text = "DNS", strings.ToLower(text)
			case 0x86:
				kind = "URI"
			case 0x87:
				kind, text = "IP", net.IP(value).String()
			}
			if !yield(kind, text) {
				return
			}
		}
	}
}

// sameID compares device IDs, which have no case.
func sameID(a, b string) bool { return strings.EqualFold(a, b) }
