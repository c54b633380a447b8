package path

import (
	"cmp"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"

	"github.com/deviceca/deviceca/internal/der"
)

const oidEmailAddress = "\x2a\x86\x48\x86\xf7\x0d\x01\x09\x01" // contents octets

// Name forms, by their tag in GeneralName (RFC 5280 §4.2.1.6).
const (
	formEmail     = 1
	formDNS       = 2
	formDirectory = 4
	formURI       = 6
	formIP        = 7
)

func formName(form int) string {
	if names := []string{"otherName", "rfc822Name", "dNSName", "x400Address", "directoryName", "ediPartyName", "URI", "iPAddress", "registeredID"}; form < len(names) {
		return names[form]
	}
	return "an unknown form"
}

// maxComparisons bounds what the names and the constraints of one path may cost together.
const maxComparisons = 1 << 16

// constraints are those of one CA.
type constraints struct {
	permitted, excluded []subtree
}

// subtree is a GeneralName as a constraint, or as a name: one of the two is set for its form.
type subtree struct {
	form int
	text string   // dNSName, rfc822Name, URI, iPAddress
	name der.Name // directoryName
}

// constrain applies the name constraints of each CA, the anchor included, to the names of all certificates
// below it but self-issued CAs (RFC 5280 §4.2.1.10, §6.1.3 b, c). Each CA's permitted
// subtrees must hold by themselves, which is their intersection.
func constrain(p []*x509.Certificate) error {
	if extension(p[0], oidNameConstraints) != nil && !p[0].IsCA {
		return &Error{p[0], errors.New("has name constraints, which only a CA may have (RFC 5280 §4.2.1.10)")}
	}
	budget := maxComparisons
	names := make([][]subtree, len(p))
	for i := len(p) - 1; i > 0; i-- {
		ext := extension(p[i], oidNameConstraints)
		if ext == nil {
			continue
		}
		limits, err := parseConstraints(ext.Value)
		if err != nil {
			return &Error{p[i], fmt.Errorf("has name constraints that do not count: %w", err)}
		}
		for j := i - 1; j >= 0; j-- {
			if j > 0 && selfIssued(p[j]) {
				continue
			}
			if names[j] == nil {
				if names[j], err = namesOf(p[j]); err != nil {
					return &Error{p[j], err}
				}
			}
			if err := limits.allow(names[j], &budget); err != nil {
				return &Error{p[j], fmt.Errorf("breaks the name constraints of %.200s (RFC 5280 §4.2.1.10): %w", p[i].Subject, err)}
			}
		}
	}
	return nil
}

var errConstraints = errors.New("cannot be read")

// parseConstraints reads
//
//	NameConstraints ::= SEQUENCE {
//	    permittedSubtrees [0] GeneralSubtrees OPTIONAL,
//	    excludedSubtrees  [1] GeneralSubtrees OPTIONAL }
//	GeneralSubtree ::= SEQUENCE { base GeneralName, minimum [0] DEFAULT 0, maximum [1] OPTIONAL }
func parseConstraints(value []byte) (*constraints, error) {
	input := cryptobyte.String(value)
	var body cryptobyte.String
	if !input.ReadASN1(&body, asn1.SEQUENCE) || !input.Empty() {
		return nil, errConstraints
	}
	c := new(constraints)
	for i, to := range []*[]subtree{&c.permitted, &c.excluded} {
		var list cryptobyte.String
		var ok bool
		if !body.ReadOptionalASN1(&list, &ok, asn1.Tag(i).ContextSpecific().Constructed()) {
			return nil, errConstraints
		}
		for !list.Empty() {
			var tree, base cryptobyte.String
			var tag asn1.Tag
			if !list.ReadASN1(&tree, asn1.SEQUENCE) || !tree.ReadAnyASN1(&base, &tag) {
				return nil, errConstraints
			}
			if !tree.Empty() { // minimum and maximum, which this profile does not use
				return nil, errors.New("a subtree has a minimum or a maximum, which are not accepted")
			}
			one, err := generalName(tag, base)
			if err != nil {
				return nil, err
			}
			*to = append(*to, one)
		}
	}
	if !body.Empty() {
		return nil, errConstraints
	}
	return c, nil
}

// formOf is the number of a GeneralName's tag; 15 if it is none.
func formOf(tag asn1.Tag) int {
	if n := int(tag) & 0x1f; int(tag)&0xc0 == 0x80 && n <= 8 {
		return n
	}
	return 15
}

func generalName(tag asn1.Tag, value cryptobyte.String) (n subtree, err error) {
	n.form = formOf(tag)
	if n.form == formDirectory {
		n.name, err = der.ParseName(value)
	} else {
		n.text = string(value)
	}
	return n, err
}

// namesOf are the names of a certificate: subject, if not empty, subjectAltName, and, without
// that, emailAddress of the subject.
func namesOf(c *x509.Certificate) (names []subtree, err error) {
	subject, err := der.ParseName(c.RawSubject)
	if err != nil {
		return nil, fmt.Errorf("has a subject that cannot be read: %w", err)
	}
	if len(subject) > 0 {
		names = append(names, subtree{form: formDirectory, name: subject})
	}
	ext := extension(c, oidSubjectAltName)
	if ext == nil {
		for _, address := range subject.Values(oidEmailAddress) {
			names = append(names, subtree{form: formEmail, text: address})
		}
		return names, nil
	}
	input := cryptobyte.String(ext.Value)
	var list cryptobyte.String
	if !input.ReadASN1(&list, asn1.SEQUENCE) || !input.Empty() {
		return nil, errNames
	}
	for !list.Empty() {
		var value cryptobyte.String
		var tag asn1.Tag
		if !list.ReadAnyASN1(&value, &tag) {
			return nil, errNames
		}
		one, err := generalName(tag, value)
		if err != nil {
			return nil, err
		}
		names = append(names, one)
	}
	return names, nil
}

var errNames = errors.New("has a subjectAltName that cannot be read")

// allow holds names to the constraints of one CA. Excluded goes before permitted.
func (c *constraints) allow(names []subtree, budget *int) error {
	if *budget -= len(names) * (len(c.permitted) + len(c.excluded)); *budget < 0 {
		return errors.New("it has too many names to compare with so many constraints")
	}
	for _, name := range names {
		permitted, limited := false, false
		for _, tree := range c.excluded {
			if tree.form != name.form {
				continue
			}
			if within, err := name.within(tree, true); err != nil || within {
				return cmp.Or(err, fmt.Errorf("its name %s is excluded", name))
			}
		}
		for _, tree := range c.permitted {
			if tree.form != name.form {
				continue
			}
			within, err := name.within(tree, false)
			if err != nil {
				return err
			}
			limited, permitted = true, permitted || within
		}
		if limited && !permitted {
			return fmt.Errorf("its name %s is not permitted", name)
		}
	}
	return nil
}

// String shows a name in an error.
func (n subtree) String() string {
	switch n.form {
	case formDirectory:
		return n.name.String()
	case formIP:
		return net.IP(n.text).String()
	}
	return fmt.Sprintf("%.100q", n.text)
}

// within compares a name with a subtree of its form (RFC 5280 §4.2.1.10). any asks whether a
// part of what a wildcard stands for lies within, otherwise all of it must.
func (n subtree) within(tree subtree, any bool) (bool, error) {
	switch n.form {
	case formDirectory:
		return n.name.Within(tree.name), nil
	case formDNS:
		return hostWithin(n.text, tree.text, any), nil
	case formEmail:
		if strings.Count(n.text, "@") != 1 {
			return false, fmt.Errorf("its address %.100q is none that can be compared, and addresses are constrained", n.text)
		}
		return emailWithin(n.text, tree.text), nil
	case formURI:
		return uriWithin(n.text, tree.text)
	case formIP:
		return addressWithin(n.text, tree.text)
	}
	return false, fmt.Errorf("it has a name of form %s, which is constrained and cannot be compared", formName(n.form))
}

// hostWithin: a name with zero or more labels to the left of the subtree's lies within it.
func hostWithin(host, tree string, any bool) bool {
	host, tree = strings.ToLower(host), strings.ToLower(strings.TrimPrefix(tree, "."))
	if parent, wild := strings.CutPrefix(host, "*."); wild {
		_, above, _ := strings.Cut(tree, ".")
		return hostWithin(parent, tree, any) || any && above == parent
	}
	return tree == "" || host == tree || strings.HasSuffix(host, "."+tree)
}

// emailWithin: a mailbox, all of a host, or all of a domain (leading period). Case does not
// count, not even of the local part: it is no way round an exclusion.
func emailWithin(address, tree string) bool {
	if strings.Contains(tree, "@") {
		return strings.EqualFold(address, tree)
	}
	return domainWithin(address[strings.LastIndexByte(address, '@')+1:], tree)
}

// domainWithin: a leading period stands for one or more labels; without it, it is the host itself.
func domainWithin(host, tree string) bool {
	if strings.HasPrefix(tree, ".") {
		return len(host) > len(tree) && strings.EqualFold(host[len(host)-len(tree):], tree)
	}
	return tree == "" || strings.EqualFold(host, tree)
}

// uriWithin compares the host. One without a fully qualified domain name as its host must be refused.
func uriWithin(uri, tree string) (bool, error) {
	u, err := url.Parse(uri)
	if err != nil || u.Hostname() == "" || net.ParseIP(u.Hostname()) != nil {
		return false, fmt.Errorf("its URI %.100q names no host by a domain name, and URIs are constrained", uri)
	}
	return domainWithin(u.Hostname(), tree), nil
}

// addressWithin compares with an address and a mask of the same length.
func addressWithin(address, tree string) (bool, error) {
	half := len(tree) / 2
	if half != net.IPv4len && half != net.IPv6len || len(tree)%2 != 0 {
		return false, errConstraints
	}
	if len(address) != half {
		return false, nil
	}
	for i := range half {
		if (address[i]^tree[i])&tree[half+i] != 0 {
			return false, nil
		}
	}
	return true, nil
}
