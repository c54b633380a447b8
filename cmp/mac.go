package cmp

import (
	"cmp"
	"crypto"
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/subtle"
	encasn1 "encoding/asn1"
	"fmt"

	"golang.org/x/crypto/cryptobyte/asn1"
)

const macSection = "RFC 9481 §6.1"

var (
	oidPBM    = encasn1.ObjectIdentifier{1, 2, 840, 113533, 7, 66, 13}
	oidPBMAC1 = encasn1.ObjectIdentifier{1, 2, 840, 113549, 1, 5, 14}
	oidPBKDF2 = encasn1.ObjectIdentifier{1, 2, 840, 113549, 1, 5, 12}
	oidSHA1   = encasn1.ObjectIdentifier{1, 3, 14, 3, 2, 26}
)

// macOIDs: HMAC-SHA1 has two, and OpenSSL writes the second.
var macOIDs = []struct {
	oid  encasn1.ObjectIdentifier
	hash crypto.Hash
}{
	{encasn1.ObjectIdentifier{1, 2, 840, 113549, 2, 9}, crypto.SHA256},
	{encasn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 8, 1, 2}, crypto.SHA1},
	{encasn1.ObjectIdentifier{1, 2, 840, 113549, 2, 7}, crypto.SHA1},
	{encasn1.ObjectIdentifier{1, 2, 840, 113549, 2, 8}, crypto.SHA224},
	{encasn1.ObjectIdentifier{1, 2, 840, 113549, 2, 10}, crypto.SHA384},
	{encasn1.ObjectIdentifier{1, 2, 840, 113549, 2, 11}, crypto.SHA512},
}

// MACPolicy bounds what a stranger may make us compute, and what we trust.
// The zero value is usable.
type MACPolicy struct {
	MinIterations int   // default 100, the least that RFC 4211 §4.4 allows
	MaxWork       int64 // to derive the key, see [MACParams.Work]; default [DefaultMaxWork]
	RefuseSHA1    bool  // as OWF, PRF and MAC; OpenSSL's default MAC is HMAC-SHA1
	// Begin, if set, is called before a key is derived, with the work that it
	// takes; done is called after it. An error of Begin refuses the message, as it is.
	Begin func(work int64) (done func(), err error)
}

// DefaultMaxWork lets pass the 262,144 iterations that common clients write in
// PBMAC1, with every hash: 130 ms of a CPU with SHA-512 (measured on a 2.5 GHz Xeon, 80 ns a unit), 42 ms with SHA-256.
const DefaultMaxWork = 6 * 262_144

// maxSalt bounds salts; 8 to 16 octets are usual.
const maxSalt = 1024

// MACKind is a way to protect with a shared secret.
type MACKind int

// The MAC algorithms (RFC 9481 §6.1).
const (
	PBM    MACKind = iota // PasswordBasedMac: what all clients have
	PBMAC1                // RFC 8018 §7.1 with PBKDF2: better, and rarer
)

// String returns the name of the algorithm.
func (k MACKind) String() string {
	if k == PBMAC1 {
		return "PBMAC1"
	}
	return "PasswordBasedMac"
}

// MACParams are the parameters of a MAC. Zero fields take the defaults.
type MACParams struct {
	Kind       MACKind
	Salt       []byte      // default 16 random octets
	OWF        crypto.Hash // default SHA-256: one-way function of PBM, hash of the PRF of PBMAC1
	Iterations int         // default 1,000 for PBM, 10,000 for PBMAC1
	MAC        crypto.Hash // default SHA-256: hash of the HMAC
	KeyLength  int         // of PBMAC1, in octets; default the size of MAC
}

// MAC protects and verifies messages with a key derived from a shared secret. It
// may be used for all messages of a transaction, whose parameters should not
// change (RFC 9810 §5.1.3.1), and by several goroutines at once.
type MAC struct {
	reference []byte
	alg       Algorithm
	hash      crypto.Hash
	key       []byte
}

// NewMAC derives a key. reference names the secret to the peer: it becomes
// senderKID and the commonName of the sender (RFC 9483 §4.1.5).
func NewMAC(reference, secret []byte, p MACParams) (*MAC, error) {
	if p.Salt == nil {
		p.Salt = make([]byte, 16)
		rand.Read(p.Salt)
	}
	if p.OWF == 0 {
		p.OWF = crypto.SHA256
	}
	if p.MAC == 0 {
		p.MAC = crypto.SHA256
	}
	if p.Iterations == 0 {
		p.Iterations = 1000
		if p.Kind == PBMAC1 {
			p.Iterations = 10_000
		}
	}
	if p.KeyLength == 0 {
		p.KeyLength = p.MAC.Size()
	}
	if p.Kind != PBM && p.Kind != PBMAC1 || p.Iterations < 1 || p.KeyLength < 1 || len(p.Salt) > maxSalt {
		return nil, fmt.Errorf("parameters of %s are out of range", p.Kind)
	}
	// The OWF of PBM and the PRF of PBMAC1 are of the same family.
	if !hmacAlgorithm(p.OWF).Present() || !hmacAlgorithm(p.MAC).Present() {
		return nil, fmt.Errorf("%s needs SHA-1 or SHA-2, not %s and %s", p.Kind, p.OWF, p.MAC)
	}
	alg, err := p.algorithm()
	if err != nil {
		return nil, err
	}
	key, err := p.derive(secret)
	if err != nil {
		return nil, err
	}
	return &MAC{reference: reference, alg: alg, hash: p.MAC, key: key}, nil
}

// Reference returns what names the secret.
func (k *MAC) Reference() []byte { return k.reference }

// Sender implements Protector.
func (k *MAC) Sender() GeneralName {
	if len(k.reference) == 0 {
		return NullName()
	}
	return CommonName(string(k.reference))
}

// Algorithm returns what protectionAlg will be.
func (k *MAC) Algorithm() Algorithm { return k.alg }

//	PBMParameter ::= SEQUENCE {
//	    salt                OCTET STRING,
//	    owf                 AlgorithmIdentifier,
//	    iterationCount      INTEGER,
//	    mac                 AlgorithmIdentifier }
//	PBMAC1-params ::= SEQUENCE {
//	    keyDerivationFunc   AlgorithmIdentifier,   -- PBKDF2
//	    messageAuthScheme   AlgorithmIdentifier }
//	PBKDF2-params ::= SEQUENCE {
//	    salt CHOICE { specified OCTET STRING, otherSource AlgorithmIdentifier },
//	    iterationCount INTEGER (1..MAX),
//	    keyLength INTEGER (1..MAX) OPTIONAL,
//	    prf AlgorithmIdentifier DEFAULT algid-hmacWithSHA1 }

func (p MACParams) algorithm() (Algorithm, error) {
	oid := oidPBM
	raw, err := encode(96, func(b *out) {
		b.AddASN1(asn1.SEQUENCE, func(b *out) {
			if p.Kind == PBM {
				b.AddASN1OctetString(p.Salt)
				addAlgorithm(b, Algorithm{OID: owfOID(p.OWF)})
				b.AddASN1Int64(int64(p.Iterations))
				addAlgorithm(b, hmacAlgorithm(p.MAC))
				return
			}
			kdf := mustEncode(func(b *out) {
				b.AddASN1(asn1.SEQUENCE, func(b *out) {
					b.AddASN1OctetString(p.Salt)
					b.AddASN1Int64(int64(p.Iterations))
					b.AddASN1Int64(int64(p.KeyLength))
					if p.OWF != crypto.SHA1 { // the DEFAULT, which DER leaves out
						addAlgorithm(b, hmacAlgorithm(p.OWF))
					}
				})
			})
			addAlgorithm(b, Algorithm{OID: oidPBKDF2, Params: kdf})
			addAlgorithm(b, hmacAlgorithm(p.MAC))
		})
	})
	if p.Kind == PBMAC1 {
		oid = oidPBMAC1
	}
	return Algorithm{OID: oid, Params: raw}, err
}

func owfOID(h crypto.Hash) encasn1.ObjectIdentifier {
	if h == crypto.SHA1 {
		return oidSHA1
	}
	return oidOfHash(h)
}

func hmacAlgorithm(h crypto.Hash) Algorithm {
	for _, m := range macOIDs {
		if m.hash == h {
			return Algorithm{OID: m.oid}
		}
	}
	return Algorithm{}
}

// derive computes the key: for PBM as RFC 9810 §5.1.3.1 says. HMAC takes keys of
// any length, so BASEKEY is used whole and never expanded, as all peers do.
func (p MACParams) derive(secret []byte) ([]byte, error) {
	if p.Kind == PBMAC1 {
		key, err := pbkdf2.Key(p.OWF.New, string(secret), p.Salt, p.Iterations, p.KeyLength)
		if err != nil {
			return nil, fmt.Errorf("PBKDF2: %w", err)
		}
		return key, nil
	}
	h := p.OWF.New()
	h.Write(secret)
	h.Write(p.Salt)
	key := h.Sum(make([]byte, 0, h.Size()))
	for range p.Iterations - 1 {
		h.Reset()
		h.Write(key)
		key = h.Sum(key[:0])
	}
	return key, nil
}

// derive is p.derive between Begin and done.
func (l MACPolicy) derive(p MACParams, secret []byte) ([]byte, error) {
	if l.Begin != nil {
		done, err := l.Begin(p.Work())
		if err != nil {
			return nil, err
		}
		defer done()
	}
	return p.derive(secret)
}

// Work is what deriving the key takes, in units of one compression of SHA-256 or
// SHA-1. SHA-384 and SHA-512 count three: so they measure. An iteration of PBKDF2 is two
// compressions for each block of the key, one of PBM is one.
func (p MACParams) Work() int64 {
	unit := 1
	if p.OWF.Size() > 32 {
		unit = 3
	}
	if p.Kind == PBMAC1 {
		blocks := (p.KeyLength + p.OWF.Size() - 1) / p.OWF.Size()
		unit *= 2 * blocks
	}
	return int64(p.Iterations) * int64(unit)
}

// minKeyLength of PBMAC1 is 128 bits.
const minKeyLength = 16

// ParseMACParams decodes and bounds a MAC algorithm. Errors carry badAlg for what
// is unknown or out of bounds, badDataFormat for what is malformed.
func (l MACPolicy) ParseMACParams(a Algorithm) (MACParams, error) {
	var p MACParams
	var err error
	switch {
	case a.OID.Equal(oidPBM):
		p, err = parseValue(a.Params, "PBMParameter", readPBM)
	case a.OID.Equal(oidPBMAC1):
		p, err = parseValue(a.Params, "PBMAC1-params", readPBMAC1)
	default:
		return p, refuse(BadAlg, macSection, "MAC algorithm %s is not supported", oidName(a.OID))
	}
	if err != nil {
		return MACParams{}, err
	}
	least, most := orDefault(l.MinIterations, 100), cmp.Or(l.MaxWork, DefaultMaxWork)
	switch {
	case p.OWF == 0 || p.MAC == 0:
		err = refuse(BadAlg, macSection, "the hash or MAC of %s is not supported", p.Kind)
	case p.Iterations < least:
		err = refuse(BadAlg, macSection, "%s with fewer than %d iterations, or more than 2^31: use %d or more", p.Kind, least, least)
	case len(p.Salt) > maxSalt:
		err = refuse(BadAlg, macSection, "%s with a salt of more than %d octets", p.Kind, maxSalt)
	case p.Kind == PBMAC1 && (p.KeyLength < minKeyLength || p.KeyLength > max(p.OWF.Size(), p.MAC.Size())):
		err = refuse(BadAlg, macSection, "PBMAC1 with a key length that is not %d octets to the size of its hashes: use %d", minKeyLength, p.OWF.Size())
	case p.Work() > most:
		err = refuse(BadAlg, macSection, "%s with too many iterations for its hashes: use at most %d", p.Kind, most*int64(p.Iterations)/p.Work())
	case l.RefuseSHA1 && (p.OWF == crypto.SHA1 || p.MAC == crypto.SHA1):
		err = refuse(BadAlg, macSection, "%s with SHA-1", p.Kind)
	}
	if err != nil {
		return MACParams{}, err
	}
	return p, nil
}

func readPBM(r *in) MACParams {
	s := r.seq("PBMParameter")
	p := MACParams{Kind: PBM, Salt: s.octets("salt")}
	owf := readAlgorithm(&s)
	p.Iterations = s.count()
	mac := readAlgorithm(&s)
	s.end("PBMParameter")
	if owf.plain() {
		if owf.OID.Equal(oidSHA1) {
			p.OWF = crypto.SHA1
		} else {
			p.OWF, _ = hashByOID(owf.OID)
		}
	}
	p.MAC = hmacHash(mac)
	return p
}

func readPBMAC1(r *in) MACParams {
	s := r.seq("PBMAC1-params")
	kdf := readAlgorithm(&s)
	mac := readAlgorithm(&s)
	s.end("PBMAC1-params")
	p := MACParams{Kind: PBMAC1, MAC: hmacHash(mac)}
	if p.MAC != 0 {
		p.KeyLength = p.MAC.Size()
	}
	if !kdf.OID.Equal(oidPBKDF2) {
		return MACParams{Kind: PBMAC1} // without hashes: refused as badAlg
	}
	kr := in{kdf.Params, r.d}
	k := kr.seq("PBKDF2-params")
	p.Salt = k.octets("salt")
	p.Iterations = k.count()
	if k.has(asn1.INTEGER) {
		p.KeyLength = k.count()
	}
	p.OWF = crypto.SHA1
	if !k.s.Empty() {
		p.OWF = hmacHash(readAlgorithm(&k))
	}
	k.end("PBKDF2-params")
	kr.end("PBKDF2-params")
	return p
}

// count reads an INTEGER; what is too large or negative becomes 0, which is out of
// every bound.
func (r *in) count() int {
	n := r.bigInt("iterationCount")
	if !n.IsInt64() || n.Int64() < 0 || n.Int64() > 1<<31-1 {
		return 0
	}
	return int(n.Int64())
}

func hmacHash(a Algorithm) crypto.Hash {
	if a.plain() {
		for _, m := range macOIDs {
			if m.oid.Equal(a.OID) {
				return m.hash
			}
		}
	}
	return 0
}

func (k *MAC) sum(msg []byte) []byte {
	h := hmac.New(k.hash.New, k.key)
	h.Write(msg)
	return h.Sum(nil)
}

// protect implements Protector.
func (k *MAC) protect(m *Message) error {
	m.Header.ProtectionAlg = k.alg
	m.Header.SenderKID = nil
	if len(k.reference) > 0 {
		m.Header.SenderKID = k.reference
		// An RA that answers for a CA may have set its name.
		if m.Header.Sender == nil {
			m.Header.Sender = k.Sender()
		}
	}
	return m.seal(func(part []byte) ([]byte, error) { return k.sum(part), nil })
}

// Verify checks that m is protected with the same secret and the same parameters,
// without deriving the key again: for the later messages of a transaction.
// Errors carry wrongIntegrity or badMessageCheck.
func (k *MAC) Verify(m *Message) error {
	if err := m.needsMAC(); err != nil {
		return err
	}
	if !m.Header.ProtectionAlg.Equal(k.alg) {
		return refuse(BadMessageCheck, "RFC 9810 §5.1.3.1", "the parameters of the MAC have changed within the transaction")
	}
	part, err := m.protectedPart()
	if err != nil {
		return err
	}
	if subtle.ConstantTimeCompare(k.sum(part), m.Protection) != 1 {
		return refuse(BadMessageCheck, generic, "the MAC does not verify")
	}
	return nil
}

// UsesMAC reports whether the protection algorithm is PBM or PBMAC1.
func (m *Message) UsesMAC() bool {
	oid := m.Header.ProtectionAlg.OID
	return oid.Equal(oidPBM) || oid.Equal(oidPBMAC1)
}

// VerifyMAC checks the protection with a shared secret. The MAC returned protects
// the answer with the same parameters and verifies what follows. The time taken
// does not depend on whether the secret is right. Errors carry badMessageCheck,
// wrongIntegrity (not a MAC), badAlg or badDataFormat, or are those of policy.Begin.
func (m *Message) VerifyMAC(secret []byte, policy MACPolicy) (*MAC, error) {
	if err := m.needsMAC(); err != nil {
		return nil, err
	}
	p, err := policy.ParseMACParams(m.Header.ProtectionAlg)
	if err != nil {
		return nil, err
	}
	key, err := policy.derive(p, secret)
	if err != nil {
		return nil, err
	}
	k := &MAC{reference: m.Reference(), alg: m.Header.ProtectionAlg, hash: p.MAC, key: key}
	if err := k.Verify(m); err != nil {
		return nil, err
	}
	return k, nil
}

func (m *Message) needsMAC() error {
	if m.Protection == nil || !m.Header.ProtectionAlg.Present() {
		return errUnprotected
	}
	if !m.UsesMAC() {
		return refuse(WrongIntegrity, generic, "the message is not protected by a shared secret")
	}
	return nil
}

var errUnprotected = refuse(BadMessageCheck, generic, "the message is not protected")
