package ocsp

import (
	"bytes"
	"crypto"
	_ "crypto/sha1" // CertIDs of RFC 6960 and 5019 clients
	_ "crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
	"slices"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"

	"github.com/deviceca/deviceca/internal/der"
)

// Limits of what is read.
const (
	// MaxRequest is the largest request, in octets: sixteen CertIDs, a signature
	// and its certificates fit well. Larger ones are malformed.
	MaxRequest = 16 << 10
	// MaxCertIDs is how many certificates one live answer speaks of.
	MaxCertIDs = 16
	// MaxNonce is the longest nonce, in octets (RFC 9654 §2.1).
	MaxNonce = 128
)

// ErrMalformed is wrapped by all errors of the parsers in this package.
var ErrMalformed = errors.New("malformed OCSP message")

func malformed(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrMalformed}, args...)...)
}

// Hash is the algorithm that a CertID names its issuer with.
type Hash uint8

// The hashes that issuers are known by. A CertID with any other parses, and
// matches no issuer.
const (
	OtherHash Hash = iota
	SHA1
	SHA256
)

var hashOIDs = [...]string{SHA1: "\x2b\x0e\x03\x02\x1a", SHA256: "\x60\x86\x48\x01\x65\x03\x04\x02\x01"}

func (h Hash) sum(data []byte) []byte {
	f := crypto.SHA1.New()
	if h == SHA256 {
		f = crypto.SHA256.New()
	}
	f.Write(data)
	return f.Sum(nil)
}

// CertID names one certificate (RFC 6960 §4.1.1):
//
//	CertID ::= SEQUENCE {
//	    hashAlgorithm   AlgorithmIdentifier,
//	    issuerNameHash  OCTET STRING,
//	    issuerKeyHash   OCTET STRING,
//	    serialNumber    CertificateSerialNumber }
//
// Its slices are parts of the message it was read from.
type CertID struct {
	Raw      []byte // the whole element; an answer repeats it octet by octet
	Hash     Hash
	NameHash []byte
	KeyHash  []byte
	Serial   []byte // content octets of the INTEGER

	// issuer is the first three elements as they stand: as one CA writes them
	// in very few ways, they serve as its name in a map.
	issuer []byte
}

// SerialNumber is the serial as a number.
func (c *CertID) SerialNumber() *big.Int {
	n := new(big.Int).SetBytes(c.Serial)
	if len(c.Serial) > 0 && c.Serial[0]&0x80 != 0 {
		n.Sub(n, new(big.Int).Lsh(big.NewInt(1), uint(8*len(c.Serial))))
	}
	return n
}

// matches reports whether the issuer is the one that the CertID names.
func (c *CertID) matches(issuer *x509.Certificate) bool {
	if c.Hash == OtherHash {
		return false
	}
	return bytes.Equal(c.NameHash, c.Hash.sum(issuer.RawSubject)) && bytes.Equal(c.KeyHash, c.Hash.sum(publicKeyBits(issuer)))
}

// Request is an OCSP request (RFC 6960 §4.1.1):
//
//	OCSPRequest ::= SEQUENCE {
//	    tbsRequest             TBSRequest,
//	    optionalSignature  [0] EXPLICIT Signature OPTIONAL }
//	TBSRequest ::= SEQUENCE {
//	    version            [0] EXPLICIT Version DEFAULT v1,
//	    requestorName      [1] EXPLICIT GeneralName OPTIONAL,
//	    requestList            SEQUENCE OF Request,
//	    requestExtensions  [2] EXPLICIT Extensions OPTIONAL }
//	Request ::= SEQUENCE {
//	    reqCert                     CertID,
//	    singleRequestExtensions [0] EXPLICIT Extensions OPTIONAL }
//
// A Request is large and meant to be used again: Parse overwrites it. It holds
// parts of the octets given to Parse.
type Request struct {
	Count  int    // of CertIDs in the request, kept or not
	Nonce  []byte // nil if there is none
	Signed bool   // the signature is not looked into (draft-ietf-lamps-rfc5019bis §3.1.2)

	ids [MaxCertIDs]CertID
}

// IDs are the first MaxCertIDs certificates asked about.
func (r *Request) IDs() []CertID { return r.ids[:min(r.Count, MaxCertIDs)] }

// Parse reads a request of at most MaxRequest octets, strictly: DER, nothing
// after the end, no unknown critical extension. It allocates nothing unless it
// fails. Errors wrap ErrMalformed.
func (r *Request) Parse(in []byte) error {
	r.Count, r.Nonce, r.Signed = 0, nil, false
	if len(in) > MaxRequest {
		return malformed("request of %d octets, more than %d", len(in), MaxRequest)
	}
	input := cryptobyte.String(in)
	var body, tbs, list, part cryptobyte.String
	if !input.ReadASN1(&body, asn1.SEQUENCE) || !input.Empty() || !body.ReadASN1(&tbs, asn1.SEQUENCE) {
		return malformed("no OCSPRequest")
	}
	var ok bool
	if !body.ReadOptionalASN1(&part, &ok, explicit(0)) || !body.Empty() {
		return malformed("bad optionalSignature")
	}
	if ok {
		if err := checkSignature(part); err != nil {
			return err
		}
		r.Signed = true
	}
	// DER leaves a default out, yet some clients write it.
	if !tbs.ReadOptionalASN1(&part, &ok, explicit(0)) || ok && string(part) != "\x02\x01\x00" {
		return malformed("version is not v1")
	}
	if !tbs.ReadOptionalASN1(&part, &ok, explicit(1)) {
		return malformed("bad requestorName")
	}
	if ok {
		if err := der.Check(part, 8); err != nil {
			return malformed("requestorName: %v", err)
		}
	}
	if !tbs.ReadASN1(&list, asn1.SEQUENCE) || list.Empty() {
		return malformed("no requestList")
	}
	for !list.Empty() {
		if err := r.parseOne(&list); err != nil {
			return err
		}
	}
	if !tbs.ReadOptionalASN1(&part, &ok, explicit(2)) || !tbs.Empty() {
		return malformed("bad requestExtensions")
	}
	if ok {
		return r.parseExtensions(part)
	}
	return nil
}

// ParseRequest parses into a new Request.
func ParseRequest(in []byte) (*Request, error) {
	r := new(Request)
	if err := r.Parse(in); err != nil {
		return nil, err
	}
	return r, nil
}

func explicit(n uint8) asn1.Tag { return asn1.Tag(n).Constructed().ContextSpecific() }

// checkSignature looks at the form alone of
// Signature ::= SEQUENCE { AlgorithmIdentifier, BIT STRING, certs [0] EXPLICIT … OPTIONAL }.
func checkSignature(in cryptobyte.String) error {
	var sig cryptobyte.String
	if !in.ReadASN1(&sig, asn1.SEQUENCE) || !in.Empty() ||
		!sig.SkipASN1(asn1.SEQUENCE) || !sig.SkipASN1(asn1.BIT_STRING) ||
		!sig.SkipOptionalASN1(explicit(0)) || !sig.Empty() {
		return malformed("bad optionalSignature")
	}
	return nil
}

func (r *Request) parseOne(list *cryptobyte.String) error {
	var one, part cryptobyte.String
	if !list.ReadASN1(&one, asn1.SEQUENCE) {
		return malformed("bad Request")
	}
	var spare CertID
	id := &spare
	if r.Count < MaxCertIDs {
		id = &r.ids[r.Count]
	}
	if err := id.parse(&one); err != nil {
		return err
	}
	r.Count++
	var ok bool
	if !one.ReadOptionalASN1(&part, &ok, explicit(0)) || !one.Empty() {
		return malformed("bad singleRequestExtensions")
	}
	if ok {
		return readExtensions(part, func(oid, _ []byte, critical bool) error {
			if critical {
				return malformed("unknown critical singleRequestExtension")
			}
			return nil
		})
	}
	return nil
}

// parse takes one CertID off s.
func (c *CertID) parse(s *cryptobyte.String) error {
	var raw, id, alg, oid, name, key, serial cryptobyte.String
	if !s.ReadASN1Element(&raw, asn1.SEQUENCE) {
		return malformed("no CertID")
	}
	id = raw
	if !id.ReadASN1(&id, asn1.SEQUENCE) {
		return malformed("no CertID")
	}
	start := id
	if !id.ReadASN1(&alg, asn1.SEQUENCE) || !alg.ReadASN1(&oid, asn1.OBJECT_IDENTIFIER) ||
		!id.ReadASN1(&name, asn1.OCTET_STRING) || !id.ReadASN1(&key, asn1.OCTET_STRING) {
		return malformed("bad CertID")
	}
	issuer := start[:len(start)-len(id)]
	if !id.ReadASN1(&serial, asn1.INTEGER) || !id.Empty() || !minimalInteger(serial) {
		return malformed("bad serialNumber in CertID")
	}
	hash, size := OtherHash, len(name)
	switch string(oid) {
	case hashOIDs[SHA1]:
		hash, size = SHA1, 20
	case hashOIDs[SHA256]:
		hash, size = SHA256, 32
	}
	if hash != OtherHash && len(alg) != 0 && string(alg) != "\x05\x00" {
		return malformed("parameters of the hash algorithm in CertID")
	}
	if len(name) != size || len(key) != size {
		return malformed("hashes in CertID are not of their algorithm's length")
	}
	*c = CertID{Raw: raw, Hash: hash, NameHash: name, KeyHash: key, Serial: serial, issuer: issuer}
	return nil
}

// minimalInteger reports whether content is an INTEGER in DER (X.690 §8.3.2).
func minimalInteger(content []byte) bool {
	if len(content) < 2 {
		return len(content) == 1
	}
	return !(content[0] == 0 && content[1]&0x80 == 0 || content[0] == 0xff && content[1]&0x80 != 0)
}

// Extensions (id-pkix-ocsp 1.3.6.1.5.5.7.48.1), as content octets of their OIDs.
const (
	oidBasic         = "\x2b\x06\x01\x05\x05\x07\x30\x01\x01"
	oidNonce         = "\x2b\x06\x01\x05\x05\x07\x30\x01\x02"
	oidAcceptable    = "\x2b\x06\x01\x05\x05\x07\x30\x01\x04"
	oidArchiveCutoff = "\x2b\x06\x01\x05\x05\x07\x30\x01\x06"
)

func (r *Request) parseExtensions(in cryptobyte.String) error {
	return readExtensions(in, func(oid, value []byte, critical bool) (err error) {
		switch string(oid) {
		case oidNonce:
			r.Nonce, err = parseNonce(value)
			return err
		case oidAcceptable:
			if !bytes.Contains(value, []byte("\x06\x09"+oidBasic)) {
				return malformed("no acceptable response type that exists here")
			}
			return nil
		}
		if critical {
			return malformed("unknown critical requestExtension")
		}
		return nil
	})
}

// parseNonce reads Nonce ::= OCTET STRING (SIZE(1..128)), RFC 9654 §2.1.
func parseNonce(value cryptobyte.String) ([]byte, error) {
	var nonce cryptobyte.String
	if !value.ReadASN1(&nonce, asn1.OCTET_STRING) || !value.Empty() || len(nonce) < 1 || len(nonce) > MaxNonce {
		return nil, malformed("a nonce is an OCTET STRING of 1 to %d octets", MaxNonce)
	}
	return nonce, nil
}

// readExtensions reads one Extensions element, at most 16 in number, none twice.
func readExtensions(in cryptobyte.String, each func(oid, value []byte, critical bool) error) error {
	var list cryptobyte.String
	if !in.ReadASN1(&list, asn1.SEQUENCE) || !in.Empty() || list.Empty() {
		return malformed("bad Extensions")
	}
	var seen [16][]byte
	for n := 0; !list.Empty(); n++ {
		var ext, oid, flag, value cryptobyte.String
		var ok bool
		if n == len(seen) {
			return malformed("more than %d extensions", len(seen))
		}
		if !list.ReadASN1(&ext, asn1.SEQUENCE) || !ext.ReadASN1(&oid, asn1.OBJECT_IDENTIFIER) ||
			!ext.ReadOptionalASN1(&flag, &ok, asn1.BOOLEAN) || !ext.ReadASN1(&value, asn1.OCTET_STRING) || !ext.Empty() {
			return malformed("bad Extension")
		}
		// FALSE is the default; some clients write it.
		if ok && string(flag) != "\xff" && string(flag) != "\x00" {
			return malformed("bad critical flag")
		}
		if slices.ContainsFunc(seen[:n], func(s []byte) bool { return bytes.Equal(s, oid) }) {
			return malformed("an extension twice")
		}
		seen[n] = oid
		if err := each(oid, value, ok && flag[0] != 0); err != nil {
			return err
		}
	}
	return nil
}

// NewRequest makes an unsigned request for certificates of one issuer. With a
// nonce (32 octets from a CSPRNG, RFC 9654 §2.1) the answer cannot be an old one
// played again, and is not a cached one either. One serial and no nonce is
// what RFC 5019 asks clients for.
func NewRequest(issuer *x509.Certificate, hash Hash, nonce []byte, serials ...*big.Int) ([]byte, error) {
	if hash != SHA1 && hash != SHA256 || len(nonce) > MaxNonce || len(serials) == 0 || publicKeyBits(issuer) == nil {
		return nil, errors.New("an OCSP request needs an issuer, SHA-1 or SHA-256, at most 128 octets of nonce, and a serial")
	}
	prefix := issuerPrefix(issuer, hash, true)
	var b cryptobyte.Builder
	b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
				for _, serial := range serials {
					b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
						b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
							b.AddBytes(prefix)
							b.AddASN1BigInt(serial)
						})
					})
				}
			})
			if len(nonce) > 0 {
				b.AddASN1(explicit(2), func(b *cryptobyte.Builder) { addNonce(b, nonce) })
			}
		})
	})
	return b.Bytes()
}

// issuerPrefix is the part of a CertID that names the issuer. Both absent and
// NULL parameters of the hash are met; NULL is more common.
func issuerPrefix(issuer *x509.Certificate, hash Hash, null bool) []byte {
	var b cryptobyte.Builder
	b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1(asn1.OBJECT_IDENTIFIER, func(b *cryptobyte.Builder) { b.AddBytes([]byte(hashOIDs[hash])) })
		if null {
			b.AddASN1NULL()
		}
	})
	b.AddASN1OctetString(hash.sum(issuer.RawSubject))
	b.AddASN1OctetString(hash.sum(publicKeyBits(issuer)))
	return b.BytesOrPanic()
}

func addNonce(b *cryptobyte.Builder, nonce []byte) {
	b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		addExtension(b, oidNonce, func(b *cryptobyte.Builder) { b.AddASN1OctetString(nonce) })
	})
}

func addExtension(b *cryptobyte.Builder, oid string, value cryptobyte.BuilderContinuation) {
	b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1(asn1.OBJECT_IDENTIFIER, func(b *cryptobyte.Builder) { b.AddBytes([]byte(oid)) })
		b.AddASN1(asn1.OCTET_STRING, value)
	})
}

// publicKeyBits is the subjectPublicKey of a certificate without tag, length and
// unused bits: what issuerKeyHash and byKey hash. nil if it cannot be read.
func publicKeyBits(cert *x509.Certificate) []byte {
	spki := cryptobyte.String(cert.RawSubjectPublicKeyInfo)
	var body cryptobyte.String
	var bits []byte
	if !spki.ReadASN1(&body, asn1.SEQUENCE) || !body.SkipASN1(asn1.SEQUENCE) || !body.ReadASN1BitStringAsBytes(&bits) {
		return nil
	}
	return bits
}
