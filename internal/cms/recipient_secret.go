package cms

import (
	"bytes"
	"crypto"
	"crypto/aes"
	"crypto/pbkdf2"
	"crypto/rand"
	_ "crypto/sha1" // for PBKDF2 of old peers
	"hash"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"
)

// A key known to both (RFC 5652 §6.2.3), with AES key wrap (RFC 3565 §2.3.2):
//
//	KEKRecipientInfo ::= SEQUENCE {
//	    version                INTEGER,              -- 4
//	    kekid                  SEQUENCE { keyIdentifier OCTET STRING, date GeneralizedTime OPTIONAL, other … OPTIONAL },
//	    keyEncryptionAlgorithm AlgorithmIdentifier,
//	    encryptedKey           OCTET STRING }

type kek struct{ id, key []byte }

// ToKEK encrypts to a key of 16, 24 or 32 octets that the recipient knows by an
// identifier of 1 to 255 octets.
func ToKEK(id, key []byte) Recipient { return kek{id, key} }

// FromKEK opens what is encrypted to a key that both know; a nil identifier takes
// the first such recipient for this key.
func FromKEK(id, key []byte) Key { return kek{id, key} }

func (k kek) info(cek []byte) (recipientInfo, error) {
	if len(k.id) == 0 || len(k.id) > maxKeyID || wrapOID(len(k.key)) == nil {
		return recipientInfo{}, unsupported("a key encryption key of %d octets with an identifier of %d", len(k.key), len(k.id))
	}
	wrapped, err := wrap(k.key, cek)
	if err != nil {
		return recipientInfo{}, err
	}
	body, err := encode(512, func(b *cryptobyte.Builder) {
		b.AddASN1Int64(4)
		b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) { b.AddASN1OctetString(k.id) })
		addAlgorithm(b, wrapOID(len(k.key)), nil)
		b.AddASN1OctetString(wrapped)
	})
	return recipientInfo{tag: tagKEKRI, body: body}, err
}

func (k kek) unwrap(r recipientInfo) ([]byte, bool, error) {
	if r.tag != tagKEKRI {
		return nil, false, nil
	}
	var version int
	var kekID, id, wrapped cryptobyte.String
	body := r.body
	if !body.ReadASN1Integer(&version) || version != 4 || !body.ReadASN1(&kekID, asn1.SEQUENCE) ||
		!kekID.ReadASN1(&id, asn1.OCTET_STRING) {
		return nil, true, malformed("KEKRecipientInfo is not as RFC 5652 §6.2.3 has it")
	}
	if k.id != nil && !bytes.Equal(k.id, id) {
		return nil, false, nil
	}
	algorithm, parameters, ok := readAlgorithm(&body, asn1.SEQUENCE)
	if !ok || !body.ReadASN1(&wrapped, asn1.OCTET_STRING) || !body.Empty() {
		return nil, true, malformed("KEKRecipientInfo is not as RFC 5652 §6.2.3 has it")
	}
	size := wrapKeySize(algorithm)
	if size == 0 || !plain(parameters) {
		return nil, true, unsupported("key wrap %s: use AES", algorithm)
	}
	if size != len(k.key) {
		return nil, true, ErrDecrypt
	}
	cek, err := unwrap(k.key, wrapped)
	return cek, true, err
}

// A password (RFC 5652 §6.2.4), with PBKDF2 (RFC 8018 A.2) and the wrap of RFC 3211:
//
//	PasswordRecipientInfo ::= SEQUENCE {
//	    version                INTEGER,              -- 0
//	    keyDerivationAlgorithm [0] AlgorithmIdentifier OPTIONAL,
//	    keyEncryptionAlgorithm AlgorithmIdentifier,  -- id-alg-PWRI-KEK with AES-CBC's as parameter, or AES key wrap
//	    encryptedKey           OCTET STRING }
//
//	PBKDF2-params ::= SEQUENCE { salt OCTET STRING, iterationCount INTEGER,
//	    keyLength INTEGER OPTIONAL, prf AlgorithmIdentifier DEFAULT hmacWithSHA1 }

var (
	oidPBKDF2         = OID{1, 2, 840, 113549, 1, 5, 12}
	oidPWRIKEK        = OID{1, 2, 840, 113549, 1, 9, 16, 3, 9}
	oidHMACWithSHA1   = OID{1, 2, 840, 113549, 2, 7}
	oidHMACWithSHA256 = OID{1, 2, 840, 113549, 2, 9}
	oidHMACWithSHA384 = OID{1, 2, 840, 113549, 2, 10}
	oidHMACWithSHA512 = OID{1, 2, 840, 113549, 2, 11}
)

// Bounds of PBKDF2. The upper ones keep a stranger's message from costing more
// than a second or so.
const (
	MinIterations = 10_000 // of what is made
	MaxIterations = 2_000_000
	maxSalt       = 1 << 10
	saltSize      = 16
)

type password struct {
	password   []byte
	iterations int
	aesWrap    bool
}

// ToPassword encrypts to a password by PBKDF2 with HMAC-SHA-256, [MinIterations]
// or more. A secret of 128 bits or more needs no more than that; one that a
// person chose should get 600,000.
func ToPassword(secret []byte, iterations int) Recipient { return password{secret, iterations, false} }

// ToPasswordAESWrap is ToPassword with AES key wrap in place of RFC 3211's, as CMP wants it (RFC 9483
// §4.1.6.3, RFC 9481 §4.3) and OpenSSL does not read it.
func ToPasswordAESWrap(secret []byte, iterations int) Recipient {
	return password{secret, iterations, true}
}

// FromPassword opens what is encrypted to a password with either wrap.
func FromPassword(secret []byte) Key { return password{secret, 0, false} }

func (p password) info(cek []byte) (recipientInfo, error) {
	if p.iterations < MinIterations || p.iterations > MaxIterations || len(p.password) == 0 {
		return recipientInfo{}, unsupported("a password of %d octets with %d iterations", len(p.password), p.iterations)
	}
	random := make([]byte, saltSize+aes.BlockSize)
	rand.Read(random)
	salt, iv := random[:saltSize], random[saltSize:]
	key, err := pbkdf2.Key(crypto.SHA256.New, string(p.password), salt, p.iterations, len(cek))
	if err != nil {
		return recipientInfo{}, unsupported("%w", err)
	}
	defer clear(key)
	var wrapped []byte
	if p.aesWrap {
		wrapped, err = wrap(key, cek)
	} else {
		wrapped, err = passwordWrap(key, iv, cek)
	}
	if err != nil {
		return recipientInfo{}, err
	}
	cipher := AES256CBC
	if len(cek) == 16 {
		cipher = AES128CBC
	}
	body, err := encode(512, func(b *cryptobyte.Builder) {
		b.AddASN1Int64(0)
		b.AddASN1(tag0, func(b *cryptobyte.Builder) {
			b.AddASN1ObjectIdentifier(oidPBKDF2)
			b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
				b.AddASN1OctetString(salt)
				b.AddASN1Int64(int64(p.iterations))
				b.AddASN1Int64(int64(len(cek)))
				addAlgorithm(b, oidHMACWithSHA256, null)
			})
		})
		if p.aesWrap {
			addAlgorithm(b, wrapOID(len(cek)), nil)
		} else {
			parameters, _ := encode(64, func(b *cryptobyte.Builder) { cipher.add(b, iv) })
			addAlgorithm(b, oidPWRIKEK, parameters)
		}
		b.AddASN1OctetString(wrapped)
	})
	return recipientInfo{tag: tagPWRI, body: body}, err
}

func (p password) unwrap(r recipientInfo) ([]byte, bool, error) {
	if r.tag != tagPWRI {
		return nil, false, nil
	}
	var version int
	var wrapped cryptobyte.String
	body := r.body
	if !body.ReadASN1Integer(&version) || version != 0 {
		return nil, true, malformed("PasswordRecipientInfo without version")
	}
	derivation, parameters, ok := readAlgorithm(&body, tag0)
	if !ok || !derivation.Equal(oidPBKDF2) {
		return nil, true, unsupported("a password without PBKDF2")
	}
	encryption, inner, ok := readAlgorithm(&body, asn1.SEQUENCE)
	if !ok || !body.ReadASN1(&wrapped, asn1.OCTET_STRING) || !body.Empty() {
		return nil, true, malformed("PasswordRecipientInfo is not as RFC 5652 §6.2.4 has it")
	}
	size, iv := wrapKeySize(encryption), []byte(nil)
	switch {
	case encryption.Equal(oidPWRIKEK):
		how, err := readCipher(&inner)
		if err != nil {
			return nil, true, err
		}
		if how.gcm() || !inner.Empty() {
			return nil, true, unsupported("id-alg-PWRI-KEK other than with AES-CBC")
		}
		size, iv = how.KeySize(), how.iv
	case size == 0 || !plain(inner):
		return nil, true, unsupported("key wrap %s: use id-alg-PWRI-KEK or AES", encryption)
	}
	key, err := p.derive(parameters, size)
	if err != nil {
		return nil, true, err
	}
	defer clear(key)
	if iv == nil {
		cek, err := unwrap(key, wrapped)
		return cek, true, err
	}
	cek, err := passwordUnwrap(key, iv, wrapped)
	return cek, true, err
}

func (p password) derive(parameters cryptobyte.String, size int) ([]byte, error) {
	bad := malformed("PBKDF2-params are not as RFC 8018 A.2 has them")
	var body, salt cryptobyte.String
	var iterations, length int
	if !parameters.ReadASN1(&body, asn1.SEQUENCE) || !body.ReadASN1(&salt, asn1.OCTET_STRING) || !body.ReadASN1Integer(&iterations) ||
		body.PeekASN1Tag(asn1.INTEGER) && (!body.ReadASN1Integer(&length) || length != size) {
		return nil, bad
	}
	if iterations < 1 || iterations > MaxIterations || len(salt) == 0 || len(salt) > maxSalt {
		return nil, unsupported("PBKDF2 with %d iterations and a salt of %d octets", iterations, len(salt))
	}
	prf := oidHMACWithSHA1
	if !body.Empty() {
		var ok bool
		var none cryptobyte.String
		if prf, none, ok = readAlgorithm(&body, asn1.SEQUENCE); !ok || !body.Empty() || !plain(none) {
			return nil, bad
		}
	}
	for _, known := range []struct {
		oid  OID
		hash crypto.Hash
	}{
		{oidHMACWithSHA1, crypto.SHA1}, // as PRF it stands, and peers leave it to the default
		{oidHMACWithSHA256, crypto.SHA256},
		{oidHMACWithSHA384, crypto.SHA384},
		{oidHMACWithSHA512, crypto.SHA512},
	} {
		if known.oid.Equal(prf) {
			key, err := pbkdf2.Key(func() hash.Hash { return known.hash.New() }, string(p.password), salt, iterations, size)
			if err != nil {
				return nil, unsupported("%w", err)
			}
			return key, nil
		}
	}
	return nil, unsupported("PBKDF2 with %s", prf)
}
