package cmp

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	_ "crypto/sha1" // OWF and HMAC of older clients
	_ "crypto/sha256"
	_ "crypto/sha512"
	encasn1 "encoding/asn1"
	"errors"
	"fmt"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"
)

const algorithms = "RFC 9481 §3"

type keyKind int

const (
	kindRSA keyKind = iota
	kindPSS
	kindECDSA
	kindEd25519
)

// signature is a signature algorithm that we take: RFC 9481 §3 without SHAKE and
// Ed448, which Go's standard library does not have. SHA-1 and MD5 are refused.
type signature struct {
	kind keyKind
	hash crypto.Hash // 0 for Ed25519
	salt int         // of PSS
}

var (
	oidPSS     = encasn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 10}
	oidMGF1    = encasn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 8}
	oidEd25519 = encasn1.ObjectIdentifier{1, 3, 101, 112}
)

var signatureAlgs = []struct {
	oid  encasn1.ObjectIdentifier
	kind keyKind
	hash crypto.Hash
}{
	{encasn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 2}, kindECDSA, crypto.SHA256},
	{encasn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 3}, kindECDSA, crypto.SHA384},
	{encasn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 4}, kindECDSA, crypto.SHA512},
	{encasn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 1}, kindECDSA, crypto.SHA224},
	{encasn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 11}, kindRSA, crypto.SHA256},
	{encasn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 12}, kindRSA, crypto.SHA384},
	{encasn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 13}, kindRSA, crypto.SHA512},
	{encasn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 14}, kindRSA, crypto.SHA224},
	{oidEd25519, kindEd25519, 0},
}

var hashOIDs = []struct {
	oid  encasn1.ObjectIdentifier
	hash crypto.Hash
}{
	{encasn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 1}, crypto.SHA256},
	{encasn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 2}, crypto.SHA384},
	{encasn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 3}, crypto.SHA512},
	{encasn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 4}, crypto.SHA224},
}

func hashByOID(oid encasn1.ObjectIdentifier) (crypto.Hash, bool) {
	for _, h := range hashOIDs {
		if h.oid.Equal(oid) {
			return h.hash, true
		}
	}
	return 0, false
}

func oidOfHash(hash crypto.Hash) encasn1.ObjectIdentifier {
	for _, h := range hashOIDs {
		if h.hash == hash {
			return h.oid
		}
	}
	return nil
}

// signatureOf says what an AlgorithmIdentifier means. NULL parameters are let
// pass everywhere but for Ed25519: they are within what is protected, and clients
// in the field write them even for ECDSA.
func signatureOf(a Algorithm) (signature, error) {
	if a.OID.Equal(oidPSS) {
		return pssOf(a)
	}
	for _, s := range signatureAlgs {
		if s.oid.Equal(a.OID) {
			if !a.plain() || s.kind == kindEd25519 && a.Params != nil {
				return signature{}, refuse(BadAlg, algorithms, "%s with parameters", oidName(a.OID))
			}
			return signature{kind: s.kind, hash: s.hash}, nil
		}
	}
	return signature{}, refuse(BadAlg, algorithms, "signature algorithm %s is not supported", oidName(a.OID))
}

//	RSASSA-PSS-params ::= SEQUENCE {
//	    hashAlgorithm     [0] HashAlgorithm    DEFAULT sha1,
//	    maskGenAlgorithm  [1] MaskGenAlgorithm DEFAULT mgf1SHA1,
//	    saltLength        [2] INTEGER          DEFAULT 20,
//	    trailerField      [3] INTEGER          DEFAULT 1 }   -- RFC 4055 §3.1

// pssOf takes SHA-2 with MGF1 of the same hash, so the first two fields must be there.
func pssOf(a Algorithm) (signature, error) {
	bad := refuse(BadAlg, algorithms, "RSASSA-PSS needs SHA-2, MGF1 with the same hash and a salt")
	if a.Params == nil {
		return signature{}, bad
	}
	d := &decoder{limits: Limits{}.withDefaults()}
	r := in{a.Params, d}
	s := r.seq("RSASSA-PSS-params")
	e := s.sub(context(0), "hashAlgorithm")
	h := readAlgorithm(&e)
	e.end("hashAlgorithm")
	e = s.sub(context(1), "maskGenAlgorithm")
	g := e.seq("maskGenAlgorithm")
	mgf := g.oid("maskGenAlgorithm")
	gh := readAlgorithm(&g)
	g.end("maskGenAlgorithm")
	e.end("maskGenAlgorithm")
	salt := int64(20)
	if s.has(context(2)) {
		e = s.sub(context(2), "saltLength")
		salt = e.int("saltLength")
		e.end("saltLength")
	}
	if s.has(context(3)) {
		e = s.sub(context(3), "trailerField")
		if e.int("trailerField") != 1 {
			s.fail("trailerField")
		}
		e.end("trailerField")
	}
	s.end("RSASSA-PSS-params")
	r.end("RSASSA-PSS-params")
	hash, ok := hashByOID(h.OID)
	// Go reads salt length 0 as "any", so it is refused with the absurd ones.
	if d.err != nil || !ok || !h.plain() || !gh.plain() || !mgf.Equal(oidMGF1) || !gh.OID.Equal(h.OID) || salt < 1 || salt > 512 {
		return signature{}, bad
	}
	return signature{kind: kindPSS, hash: hash, salt: int(salt)}, nil
}

// errSignature keeps apart a signature that is wrong from one that cannot be judged, and errUnfit one that no key of
// this kind can have made.
var (
	errSignature = errors.New("the signature does not verify")
	errUnfit     = errors.New("the algorithm does not fit the key")
)

func unfit(kind string) error {
	return &Error{Info: BadAlg, Section: algorithms, Reason: "the algorithm does not fit " + kind, Err: errUnfit}
}

// verify checks sig over msg.
func (s signature) verify(pub crypto.PublicKey, msg, sig []byte) error {
	if tooLarge(pub) {
		return refuse(BadAlg, algorithms, "RSA keys of more than %d bits are not supported", maxRSA)
	}
	digest := s.digest(msg)
	ok := false
	switch key := pub.(type) {
	case *rsa.PublicKey:
		switch s.kind {
		case kindRSA:
			ok = rsa.VerifyPKCS1v15(key, s.hash, digest, sig) == nil
		case kindPSS:
			ok = rsa.VerifyPSS(key, s.hash, digest, sig, &rsa.PSSOptions{SaltLength: s.salt, Hash: s.hash}) == nil
		default:
			return unfit("an RSA key")
		}
	case *ecdsa.PublicKey:
		if s.kind != kindECDSA {
			return unfit("an EC key")
		}
		ok = ecdsa.VerifyASN1(key, digest, sig)
	case ed25519.PublicKey:
		if s.kind != kindEd25519 {
			return unfit("an Ed25519 key")
		}
		ok = len(key) == ed25519.PublicKeySize && ed25519.Verify(key, msg, sig)
	default:
		return refuse(BadAlg, algorithms, "keys of this kind are not supported: use RSA, EC or Ed25519")
	}
	if !ok {
		return errSignature
	}
	return nil
}

// maxRSA bounds what a stranger's key can make us compute: a verification takes
// time quadratic in the length of the modulus.
const maxRSA = 8192

func tooLarge(pub crypto.PublicKey) bool {
	key, ok := pub.(*rsa.PublicKey)
	return ok && key.N.BitLen() > maxRSA
}

func (s signature) digest(msg []byte) []byte {
	if s.hash == 0 {
		return msg
	}
	h := s.hash.New()
	h.Write(msg)
	return h.Sum(nil)
}

// sign signs msg.
func (s signature) sign(signer crypto.Signer, msg []byte) ([]byte, error) {
	var opts crypto.SignerOpts = s.hash
	if s.kind == kindPSS {
		opts = &rsa.PSSOptions{SaltLength: s.salt, Hash: s.hash}
	}
	sig, err := signer.Sign(rand.Reader, s.digest(msg), opts)
	if err != nil {
		return nil, fmt.Errorf("sign CMP message: %w", err)
	}
	return sig, nil
}

// signatureFor chooses how a key signs: ECDSA with the hash that fits the curve,
// RSA PKCS#1 v1.5 or PSS with SHA-256, Ed25519.
func signatureFor(pub crypto.PublicKey, pss bool) (signature, Algorithm, error) {
	var s signature
	switch key := pub.(type) {
	case *rsa.PublicKey:
		s = signature{kind: kindRSA, hash: crypto.SHA256}
		if pss {
			s = signature{kind: kindPSS, hash: crypto.SHA256, salt: crypto.SHA256.Size()}
			return s, pssAlgorithm(s), nil
		}
	case *ecdsa.PublicKey:
		s = signature{kind: kindECDSA, hash: crypto.SHA256}
		if size := key.Curve.Params().BitSize; size > 384 {
			s.hash = crypto.SHA512
		} else if size > 256 {
			s.hash = crypto.SHA384
		}
	case ed25519.PublicKey:
		s = signature{kind: kindEd25519}
	default:
		return s, Algorithm{}, refuse(BadAlg, algorithms, "keys of this kind are not supported: use RSA, EC or Ed25519")
	}
	for _, a := range signatureAlgs {
		if a.kind == s.kind && a.hash == s.hash {
			alg := Algorithm{OID: a.oid}
			if s.kind == kindRSA {
				alg.Params = derNull // RFC 4055 §5
			}
			return s, alg, nil
		}
	}
	return s, Algorithm{}, refuse(BadAlg, algorithms, "no algorithm for this key")
}

func pssAlgorithm(s signature) Algorithm {
	hash := Algorithm{OID: oidOfHash(s.hash), Params: derNull}
	return Algorithm{OID: oidPSS, Params: mustEncode(func(b *cryptobyte.Builder) {
		b.AddASN1(asn1.SEQUENCE, func(b *out) {
			addExplicit(b, 0, func(b *out) { addAlgorithm(b, hash) })
			addExplicit(b, 1, func(b *out) { addAlgorithm(b, Algorithm{OID: oidMGF1, Params: hash.DER()}) })
			addExplicit(b, 2, func(b *out) { b.AddASN1Int64(int64(s.salt)) })
		})
	})}
}
