package cms

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	_ "crypto/sha256" // for crypto.Hash
	_ "crypto/sha512"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"
)

var (
	oidSHA256 = OID{2, 16, 840, 1, 101, 3, 4, 2, 1}
	oidSHA384 = OID{2, 16, 840, 1, 101, 3, 4, 2, 2}
	oidSHA512 = OID{2, 16, 840, 1, 101, 3, 4, 2, 3}

	oidRSA           = OID{1, 2, 840, 113549, 1, 1, 1}
	oidOAEP          = OID{1, 2, 840, 113549, 1, 1, 7}
	oidMGF1          = OID{1, 2, 840, 113549, 1, 1, 8}
	oidPSS           = OID{1, 2, 840, 113549, 1, 1, 10}
	oidRSAWithSHA256 = OID{1, 2, 840, 113549, 1, 1, 11}
	oidRSAWithSHA384 = OID{1, 2, 840, 113549, 1, 1, 12}
	oidRSAWithSHA512 = OID{1, 2, 840, 113549, 1, 1, 13}

	oidEC              = OID{1, 2, 840, 10045, 2, 1}
	oidECDSAWithSHA256 = OID{1, 2, 840, 10045, 4, 3, 2}
	oidECDSAWithSHA384 = OID{1, 2, 840, 10045, 4, 3, 3}
	oidECDSAWithSHA512 = OID{1, 2, 840, 10045, 4, 3, 4}
	oidEd25519         = OID{1, 3, 101, 112}
)

// hashes are the digests spoken. SHA-1 is not: its collisions are for sale.
var hashes = []struct {
	hash                    crypto.Hash
	oid, withRSA, withECDSA OID
}{
	{crypto.SHA256, oidSHA256, oidRSAWithSHA256, oidECDSAWithSHA256},
	{crypto.SHA384, oidSHA384, oidRSAWithSHA384, oidECDSAWithSHA384},
	{crypto.SHA512, oidSHA512, oidRSAWithSHA512, oidECDSAWithSHA512},
}

func hashOID(h crypto.Hash) OID {
	for _, known := range hashes {
		if known.hash == h {
			return known.oid
		}
	}
	return nil
}

func readHash(s *cryptobyte.String) (crypto.Hash, error) {
	oid, parameters, ok := readAlgorithm(s, asn1.SEQUENCE)
	if !ok {
		return 0, malformed("not a digest algorithm")
	}
	for _, known := range hashes {
		if known.oid.Equal(oid) && plain(parameters) {
			return known.hash, nil
		}
	}
	return 0, unsupported("digest %s: use SHA-256, SHA-384 or SHA-512", oid)
}

// scheme is a signature algorithm.
type scheme struct {
	kind byte        // 'e' ECDSA, 'r' RSA PKCS#1 v1.5, 'p' RSA-PSS, 'd' Ed25519
	hash crypto.Hash // of the message; 0 if the algorithm identifier leaves it open
}

// schemeFor is what a key signs with. Ed25519 comes with SHA-512 as digest of the content (RFC 8419 §3.1).
func schemeFor(pub crypto.PublicKey, pss bool) (scheme, error) {
	switch k := pub.(type) {
	case *ecdsa.PublicKey:
		switch k.Curve {
		case elliptic.P256():
			return scheme{'e', crypto.SHA256}, nil
		case elliptic.P384():
			return scheme{'e', crypto.SHA384}, nil
		case elliptic.P521():
			return scheme{'e', crypto.SHA512}, nil
		}
	case *rsa.PublicKey:
		if pss {
			return scheme{'p', crypto.SHA256}, nil
		}
		return scheme{'r', crypto.SHA256}, nil
	case ed25519.PublicKey:
		return scheme{'d', crypto.SHA512}, nil
	}
	return scheme{}, unsupported("cannot sign with %T", pub)
}

func (s scheme) add(b *cryptobyte.Builder) {
	for _, known := range hashes {
		if known.hash != s.hash {
			continue
		}
		switch s.kind {
		case 'e':
			addAlgorithm(b, known.withECDSA, nil)
		case 'r':
			addAlgorithm(b, known.withRSA, null)
		case 'p':
			addAlgorithm(b, oidPSS, pssParameters(s.hash))
		case 'd':
			addAlgorithm(b, oidEd25519, nil)
		}
	}
}

func readScheme(s *cryptobyte.String) (scheme, error) {
	oid, parameters, ok := readAlgorithm(s, asn1.SEQUENCE)
	if !ok {
		return scheme{}, malformed("not a signature algorithm")
	}
	for _, known := range hashes {
		switch {
		case known.withECDSA.Equal(oid) && parameters.Empty():
			return scheme{'e', known.hash}, nil
		case known.withRSA.Equal(oid) && plain(parameters):
			return scheme{'r', known.hash}, nil
		}
	}
	switch {
	case oid.Equal(oidRSA) && plain(parameters): // the digest algorithm says which hash (RFC 5754 §3.2)
		return scheme{'r', 0}, nil
	case oid.Equal(oidEd25519) && parameters.Empty():
		return scheme{'d', 0}, nil
	case oid.Equal(oidPSS):
		return readPSS(parameters)
	}
	return scheme{}, unsupported("signature algorithm %s", oid)
}

// options are those for crypto.Signer, which is given the digest, or for
// Ed25519 the message.
func (s scheme) options() crypto.SignerOpts {
	switch s.kind {
	case 'p':
		return &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: s.hash}
	case 'd':
		return crypto.Hash(0)
	}
	return s.hash
}

func (s scheme) input(message []byte) []byte {
	if s.kind == 'd' {
		return message
	}
	return sum(s.hash, message)
}

func (s scheme) verify(pub crypto.PublicKey, message, signature []byte) bool {
	switch k := pub.(type) {
	case *ecdsa.PublicKey:
		return s.kind == 'e' && ecdsa.VerifyASN1(k, s.input(message), signature)
	case ed25519.PublicKey:
		return s.kind == 'd' && len(k) == ed25519.PublicKeySize && ed25519.Verify(k, message, signature)
	case *rsa.PublicKey:
		switch {
		case k.N.BitLen() > maxRSA:
			return false
		case s.kind == 'r':
			return rsa.VerifyPKCS1v15(k, s.hash, s.input(message), signature) == nil
		case s.kind == 'p':
			return rsa.VerifyPSS(k, s.hash, s.input(message), signature, s.options().(*rsa.PSSOptions)) == nil
		}
	}
	return false
}

// maxRSA bounds what a stranger's key can make us compute, in bits: a verification
// takes time quadratic in the length of the modulus, 1 to 3 ms at this one.
const maxRSA = 8192

func sum(h crypto.Hash, message []byte) []byte {
	hash := h.New()
	hash.Write(message)
	return hash.Sum(nil)
}

// addHashAndMGF writes the first two parameters that OAEP and PSS share (RFC 4055 §3.1, §4.1):
//
//	hashAlgorithm [0] HashAlgorithm, maskGenAlgorithm [1] MaskGenAlgorithm  -- MGF1 with the same hash
func addHashAndMGF(b *cryptobyte.Builder, h crypto.Hash) {
	hash, _ := encode(32, func(b *cryptobyte.Builder) { addAlgorithm(b, hashOID(h), null) })
	b.AddASN1(tag0, func(b *cryptobyte.Builder) { b.AddBytes(hash) })
	b.AddASN1(tag1, func(b *cryptobyte.Builder) { addAlgorithm(b, oidMGF1, hash) })
}

// readHashAndMGF wants both, with the same hash: their defaults are SHA-1.
func readHashAndMGF(s *cryptobyte.String) (crypto.Hash, error) {
	var explicit, mask cryptobyte.String
	if !s.ReadASN1(&explicit, tag0) {
		return 0, unsupported("RSA with SHA-1: use SHA-256")
	}
	h, err := readHash(&explicit)
	if err != nil || !explicit.Empty() {
		return 0, unsupported("RSA parameters of an unknown hash")
	}
	var mgf OID
	var ok bool
	if !s.ReadASN1(&explicit, tag1) {
		return 0, unsupported("RSA with a mask of SHA-1: use SHA-256")
	}
	if mgf, mask, ok = readAlgorithm(&explicit, asn1.SEQUENCE); !ok || !explicit.Empty() || !mgf.Equal(oidMGF1) {
		return 0, unsupported("RSA mask generation other than MGF1")
	}
	if inner, err := readHash(&mask); err != nil || inner != h {
		return 0, unsupported("an RSA mask with another hash")
	}
	return h, nil
}

func pssParameters(h crypto.Hash) []byte {
	out, _ := encode(128, func(b *cryptobyte.Builder) {
		b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
			addHashAndMGF(b, h)
			b.AddASN1(tag2, func(b *cryptobyte.Builder) { b.AddASN1Int64(int64(h.Size())) })
		})
	})
	return out
}

// readPSS reads RSASSA-PSS-params (RFC 4055 §3.1); the salt is as long as the hash.
func readPSS(parameters cryptobyte.String) (scheme, error) {
	var body, explicit cryptobyte.String
	var salt, trailer int
	var hasTrailer bool
	if !parameters.ReadASN1(&body, asn1.SEQUENCE) {
		return scheme{}, unsupported("RSA-PSS without parameters")
	}
	h, err := readHashAndMGF(&body)
	if err != nil {
		return scheme{}, err
	}
	if !body.ReadASN1(&explicit, tag2) || !explicit.ReadASN1Integer(&salt) || !explicit.Empty() || salt != h.Size() {
		return scheme{}, unsupported("RSA-PSS with a salt of other length than its hash")
	}
	if !body.ReadOptionalASN1(&explicit, &hasTrailer, tag3) || !body.Empty() ||
		hasTrailer && (!explicit.ReadASN1Integer(&trailer) || !explicit.Empty() || trailer != 1) {
		return scheme{}, malformed("not RSASSA-PSS-params")
	}
	return scheme{'p', h}, nil
}

// CheckSignature verifies a signature that stands beside its AlgorithmIdentifier
// (DER), as in PKCS#10 and CRMF. Errors wrap ErrMalformed, ErrAlgorithm or ErrSignature.
func CheckSignature(algorithm []byte, pub crypto.PublicKey, message, signature []byte) error {
	in := cryptobyte.String(algorithm)
	s, err := readScheme(&in)
	switch {
	case err != nil:
		return err
	case !in.Empty():
		return malformed("octets after a signature algorithm")
	case s.hash == 0 && s.kind != 'd':
		return unsupported("a signature algorithm that does not say its hash")
	case !s.verify(pub, message, signature):
		return ErrSignature
	}
	return nil
}
