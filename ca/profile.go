package ca

import (
	"crypto/sha256"
	"encoding/asn1"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/deviceca/deviceca/policy"
)

// Profile is a policy.Profile compiled against the issuer that will sign: all
// extensions that are the same in each of its certificates are encoded once.
// There is no way to change one, and newProfile returns only what lints clean.
type Profile struct {
	policy.Profile
	issuer *Issuer
	base   string // public URL, no trailing slash
	fixed  []byte // extensions that never vary, DER, concatenated
	// pointers were encoded last: certificates come in the order of their partitions.
	pointers *atomic.Pointer[crlPointers]
}

// crlPointers are the extensions that name a partition's CRLs.
type crlPointers struct {
	partition int
	der       []byte
}

var (
	oidSubjectKeyID     = asn1.ObjectIdentifier{2, 5, 29, 14}
	oidKeyUsage         = asn1.ObjectIdentifier{2, 5, 29, 15}
	oidCRLDistribution  = asn1.ObjectIdentifier{2, 5, 29, 31}
	oidCertPolicies     = asn1.ObjectIdentifier{2, 5, 29, 32}
	oidAuthorityKeyID   = asn1.ObjectIdentifier{2, 5, 29, 35}
	oidExtKeyUsage      = asn1.ObjectIdentifier{2, 5, 29, 37}
	oidFreshestCRL      = asn1.ObjectIdentifier{2, 5, 29, 46}
	oidNoRevAvail       = asn1.ObjectIdentifier{2, 5, 29, 56}
	oidAuthorityInfo    = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 1, 1}
	oidTLSFeature       = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 1, 24}
	oidAccessOCSP       = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 48, 1}
	oidAccessIssuers    = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 48, 2}
	tlsFeatureStatusReq = 5 // status_request, RFC 6066 §8
)

// keyUsageBits are the names of RFC 5280 §4.2.1.3, in bit order.
var keyUsageBits = []string{"digitalSignature", "contentCommitment", "keyEncipherment", "dataEncipherment",
	"keyAgreement", "keyCertSign", "cRLSign", "encipherOnly", "decipherOnly"}

// extKeyUsages are the purposes that policy files call by name.
var extKeyUsages = map[string]asn1.ObjectIdentifier{
	"serverAuth":      {1, 3, 6, 1, 5, 5, 7, 3, 1},
	"clientAuth":      {1, 3, 6, 1, 5, 5, 7, 3, 2},
	"codeSigning":     {1, 3, 6, 1, 5, 5, 7, 3, 3},
	"emailProtection": {1, 3, 6, 1, 5, 5, 7, 3, 4},
	"timeStamping":    {1, 3, 6, 1, 5, 5, 7, 3, 8},
	"ocspSigning":     {1, 3, 6, 1, 5, 5, 7, 3, 9},
	"cmcCA":           {1, 3, 6, 1, 5, 5, 7, 3, 27},
	"cmcRA":           {1, 3, 6, 1, 5, 5, 7, 3, 28},
	"cmKGA":           {1, 3, 6, 1, 5, 5, 7, 3, 32},
}

func newProfile(p policy.Profile, issuer *Issuer, base string) (*Profile, error) {
	c := &Profile{Profile: p, issuer: issuer, base: strings.TrimSuffix(base, "/"), pointers: new(atomic.Pointer[crlPointers])}
	var b cryptobyte.Builder
	if bits, err := keyUsage(p.KeyUsage); err != nil {
		return nil, fmt.Errorf("profile %s: %w", p.Name, err)
	} else if bits != nil {
		addExtension(&b, oidKeyUsage, true, bits)
	}
	if len(p.EKU) > 0 {
		eku, err := oidSequence(p.EKU, extKeyUsages)
		if err != nil {
			return nil, fmt.Errorf("profile %s: eku: %w", p.Name, err)
		}
		addExtension(&b, oidExtKeyUsage, false, eku)
	}
	addExtension(&b, oidAuthorityKeyID, false, authorityKeyID(issuer.Cert.SubjectKeyId))
	if len(p.PolicyOIDs) > 0 {
		policies, err := certificatePolicies(p.PolicyOIDs)
		if err != nil {
			return nil, fmt.Errorf("profile %s: policies: %w", p.Name, err)
		}
		addExtension(&b, oidCertPolicies, false, policies)
	}
	if p.Status.NoRevAvail {
		addExtension(&b, oidNoRevAvail, false, []byte{5, 0}) // NULL, RFC 9608 §2
	}
	addExtension(&b, oidAuthorityInfo, false, c.authorityInfo())
	if p.Status.MustStaple {
		feature, _ := asn1.Marshal([]int{tlsFeatureStatusReq})
		addExtension(&b, oidTLSFeature, false, feature)
	}
	if p.Status.CRL == "full" {
		c.addCRLPointers(&b, "")
	}
	fixed, err := b.Bytes()
	c.fixed = fixed
	return c, err
}

// append adds one more extension that never varies.
func (p *Profile) append(oid asn1.ObjectIdentifier, value []byte) {
	var b cryptobyte.Builder
	b.AddBytes(p.fixed)
	addExtension(&b, oid, false, value)
	p.fixed = b.BytesOrPanic()
}

// PartitionSize is how many consecutive issuance indexes share a CRL partition;
// package crl says why. It must never change.
const PartitionSize = 1 << 16

// Partition is the CRL partition of an issuance index, fixed at issuance and
// named in the certificate.
func Partition(index uint64) int { return int(index / PartitionSize) }

// extensions encodes what varies with the certificate, after what does not.
func (p *Profile) extensions(serial Serial, spki []byte, names Names) ([]byte, error) {
	b := cryptobyte.NewBuilder(make([]byte, 0, len(p.fixed)+512))
	b.AddBytes(p.fixed)
	addExtension(b, oidSubjectKeyID, false, octetString(subjectKeyID(spki)))
	if len(names.SANs) > 0 {
		san, err := marshalSANs(names.SANs)
		if err != nil {
			return nil, err
		}
		addExtension(b, oidSubjectAltName, len(names.Subject) == 0, san) // RFC 5280 §4.2.1.6
	}
	if p.Status.CRL == "partition" {
		b.AddBytes(p.partitionPointers(Partition(serial.Index())))
	}
	return b.Bytes()
}

func (p *Profile) partitionPointers(partition int) []byte {
	if last := p.pointers.Load(); last != nil && last.partition == partition {
		return last.der
	}
	var b cryptobyte.Builder
	p.addCRLPointers(&b, "/"+strconv.Itoa(partition))
	made := &crlPointers{partition, b.BytesOrPanic()}
	p.pointers.Store(made)
	return made.der
}

func (p *Profile) addCRLPointers(b *cryptobyte.Builder, partition string) {
	url := p.base + "/crl/" + p.issuer.Record.Name + partition
	addExtension(b, oidCRLDistribution, false, distributionPoint(url+".crl"))
	if p.Status.Freshest {
		addExtension(b, oidFreshestCRL, false, distributionPoint(url+"-delta.crl"))
	}
}

// authorityInfo encodes AuthorityInfoAccess (RFC 5280 §4.2.2.1). caIssuers
// stays with noRevAvail: it says nothing of revocation.
func (p *Profile) authorityInfo() []byte {
	var b cryptobyte.Builder
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		add := func(method asn1.ObjectIdentifier, url string) {
			b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
				b.AddASN1ObjectIdentifier(method)
				b.AddASN1(cbasn1.Tag(tagURI).ContextSpecific(), func(b *cryptobyte.Builder) { b.AddBytes([]byte(url)) })
			})
		}
		if p.Status.OCSP {
			add(oidAccessOCSP, p.base+"/ocsp")
		}
		add(oidAccessIssuers, p.base+"/ca/"+p.issuer.Record.Name+".crt")
	})
	return b.BytesOrPanic()
}

// addExtension encodes Extension ::= SEQUENCE { extnID, critical DEFAULT FALSE, extnValue OCTET STRING }.
func addExtension(b *cryptobyte.Builder, oid asn1.ObjectIdentifier, critical bool, value []byte) {
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1ObjectIdentifier(oid)
		if critical {
			b.AddASN1Boolean(true)
		}
		b.AddASN1OctetString(value)
	})
}

func octetString(value []byte) []byte {
	var b cryptobyte.Builder
	b.AddASN1OctetString(value)
	return b.BytesOrPanic()
}

// subjectKeyID is the leftmost 160 bits of the SHA-256 of the
// SubjectPublicKeyInfo's BIT STRING value (RFC 7093 §2 method 1).
func subjectKeyID(spki []byte) []byte {
	input := cryptobyte.String(spki)
	var seq cryptobyte.String
	var bits []byte
	if !input.ReadASN1(&seq, cbasn1.SEQUENCE) || !seq.SkipASN1(cbasn1.SEQUENCE) || !seq.ReadASN1BitStringAsBytes(&bits) {
		return nil
	}
	sum := sha256.Sum256(bits)
	return sum[:20]
}

func authorityKeyID(id []byte) []byte {
	var b cryptobyte.Builder
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1(cbasn1.Tag(0).ContextSpecific(), func(b *cryptobyte.Builder) { b.AddBytes(id) })
	})
	return b.BytesOrPanic()
}

// distributionPoint encodes CRLDistributionPoints with one URL (RFC 5280 §4.2.1.13).
func distributionPoint(url string) []byte {
	constructed := cbasn1.Tag(0).ContextSpecific().Constructed()
	var b cryptobyte.Builder
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1(constructed, func(b *cryptobyte.Builder) { // distributionPoint
				b.AddASN1(constructed, func(b *cryptobyte.Builder) { // fullName
					b.AddASN1(cbasn1.Tag(tagURI).ContextSpecific(), func(b *cryptobyte.Builder) { b.AddBytes([]byte(url)) })
				})
			})
		})
	})
	return b.BytesOrPanic()
}

func keyUsage(names []string) ([]byte, error) {
	var bits uint16
	last := -1
	for _, name := range names {
		bit := slices.Index(keyUsageBits, name)
		if bit < 0 {
			return nil, fmt.Errorf("%q is not a key usage", name)
		}
		bits |= 1 << (15 - bit)
		last = max(last, bit)
	}
	if last < 0 {
		return nil, nil
	}
	// X.690 §11.2.2: trailing zero bits of a named bit list are dropped.
	return asn1.Marshal(asn1.BitString{Bytes: []byte{byte(bits >> 8), byte(bits)}[:last/8+1], BitLength: last + 1})
}

func oidSequence(names []string, known map[string]asn1.ObjectIdentifier) ([]byte, error) {
	var oids []asn1.ObjectIdentifier
	for _, name := range names {
		oid, ok := known[name]
		if !ok {
			var err error
			if oid, err = parseOID(name); err != nil {
				return nil, err
			}
		}
		oids = append(oids, oid)
	}
	return asn1.Marshal(oids)
}

func certificatePolicies(dotted []string) ([]byte, error) {
	var infos []struct{ ID asn1.ObjectIdentifier }
	for _, d := range dotted {
		oid, err := parseOID(d)
		if err != nil {
			return nil, err
		}
		infos = append(infos, struct{ ID asn1.ObjectIdentifier }{oid})
	}
	return asn1.Marshal(infos)
}

// template is everything a certificate will say, decided.
type template struct {
	serial              Serial
	notBefore, notAfter time.Time
	names               Names
	spki                []byte
}

// tbs encodes the TBSCertificate (RFC 5280 §4.1.2).
func (p *Profile) tbs(t template) ([]byte, error) {
	subject, err := marshalSubject(t.names.Subject)
	if err != nil {
		return nil, err
	}
	extensions, err := p.extensions(t.serial, t.spki, t.names)
	if err != nil {
		return nil, err
	}
	b := cryptobyte.NewBuilder(make([]byte, 0, len(subject)+len(extensions)+len(t.spki)+512))
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1(cbasn1.Tag(0).ContextSpecific().Constructed(), func(b *cryptobyte.Builder) { b.AddASN1Int64(2) }) // v3
		b.AddASN1(cbasn1.INTEGER, func(b *cryptobyte.Builder) { b.AddBytes(t.serial[:]) })                          // positive, as it begins with 0x01
		b.AddBytes(p.issuer.alg.ID)
		b.AddBytes(p.issuer.Cert.RawSubject)
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
			addTime(b, t.notBefore)
			addTime(b, t.notAfter)
		})
		b.AddBytes(subject)
		b.AddBytes(t.spki)
		b.AddASN1(cbasn1.Tag(3).ContextSpecific().Constructed(), func(b *cryptobyte.Builder) {
			b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) { b.AddBytes(extensions) })
		})
	})
	return b.Bytes()
}

// addTime writes UTCTime through 2049 and GeneralizedTime after (RFC 5280 §4.1.2.5).
func addTime(b *cryptobyte.Builder, t time.Time) {
	if t = t.UTC(); t.Year() < 2050 {
		b.AddASN1UTCTime(t)
	} else {
		b.AddASN1GeneralizedTime(t)
	}
}

// seal puts the signature behind the TBSCertificate.
func (i *Issuer) seal(tbs, signature []byte) []byte {
	b := cryptobyte.NewBuilder(make([]byte, 0, len(tbs)+len(signature)+64))
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddBytes(tbs)
		b.AddBytes(i.alg.ID)
		b.AddASN1BitString(signature)
	})
	return b.BytesOrPanic()
}

// check is the last look at a certificate before it is signed: what varies,
// compared with what was decided. What does not vary was linted at load.
func (p *Profile) check(t template, now time.Time) error {
	switch {
	case t.serial.IsZero():
		return fmt.Errorf("no serial")
	case !t.notBefore.Before(t.notAfter):
		return fmt.Errorf("notAfter %s is not after notBefore %s", t.notAfter, t.notBefore)
	case t.notAfter.After(p.issuer.Cert.NotAfter):
		return fmt.Errorf("notAfter %s is later than that of CA %s", t.notAfter, p.issuer.Record.Name)
	case !t.notAfter.After(now):
		return fmt.Errorf("it would be expired already; rotate CA %s", p.issuer.Record.Name)
	case len(t.names.Subject) == 0 && len(t.names.SANs) == 0:
		return fmt.Errorf("it would name nothing")
	case len(t.spki) == 0 || len(t.spki) > 4096:
		return fmt.Errorf("its key is %d octets", len(t.spki))
	}
	return nil
}
