package cms

import (
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	"encoding/binary"
	"fmt"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"
)

// Key transport (RFC 5652 §6.2.1), with RSA:
//
//	KeyTransRecipientInfo ::= SEQUENCE {
//	    version                INTEGER,              -- 0, or 2 with key identifier
//	    rid                    RecipientIdentifier,
//	    keyEncryptionAlgorithm AlgorithmIdentifier,
//	    encryptedKey           OCTET STRING }

type rsaRecipient struct {
	id  ID
	pub *rsa.PublicKey
}

// ToRSA encrypts to an RSA key by OAEP with SHA-256 (RFC 4055).
func ToRSA(id ID, pub *rsa.PublicKey) Recipient { return rsaRecipient{id, pub} }

func (r rsaRecipient) info(cek []byte) (recipientInfo, error) {
	encrypted, err := rsa.EncryptOAEP(crypto.SHA256.New(), rand.Reader, r.pub, cek, nil)
	if err != nil {
		return recipientInfo{}, unsupported("encrypting to an RSA key: %w", err)
	}
	version := 0
	if r.id.KeyID != nil {
		version = 2
	}
	body, err := encode(len(r.id.Issuer)+len(encrypted)+512, func(b *cryptobyte.Builder) {
		b.AddASN1Int64(int64(version))
		r.id.add(b)
		parameters, _ := encode(128, func(b *cryptobyte.Builder) {
			b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) { addHashAndMGF(b, crypto.SHA256) })
		})
		addAlgorithm(b, oidOAEP, parameters)
		b.AddASN1OctetString(encrypted)
	})
	return recipientInfo{tag: tagKTRI, version: version, body: body}, err
}

type rsaKey struct {
	id  ID
	key crypto.Decrypter
}

// FromRSA opens what is encrypted to an RSA key, by OAEP (with SHA-256 or
// better) or by PKCS#1 v1.5, which old peers send. The zero ID takes the first
// RSA recipient for this key.
func FromRSA(id ID, key crypto.Decrypter) Key { return rsaKey{id, key} }

func (k rsaKey) unwrap(r recipientInfo) ([]byte, bool, error) {
	if r.tag != tagKTRI {
		return nil, false, nil
	}
	var version int
	var encrypted cryptobyte.String
	body := r.body
	if !body.ReadASN1Integer(&version) || version != 0 && version != 2 {
		return nil, true, malformed("KeyTransRecipientInfo without version")
	}
	id, ok := readID(&body)
	if !ok {
		return nil, true, malformed("KeyTransRecipientInfo without recipient")
	}
	if !k.id.IsZero() && !k.id.Equal(id) {
		return nil, false, nil
	}
	algorithm, parameters, ok := readAlgorithm(&body, asn1.SEQUENCE)
	if !ok || !body.ReadASN1(&encrypted, asn1.OCTET_STRING) || !body.Empty() {
		return nil, true, malformed("KeyTransRecipientInfo is not as RFC 5652 §6.2.1 has it")
	}
	var options crypto.DecrypterOpts
	switch {
	case algorithm.Equal(oidOAEP):
		var oaep cryptobyte.String
		if !parameters.ReadASN1(&oaep, asn1.SEQUENCE) {
			return nil, true, malformed("RSA-OAEP without parameters")
		}
		h, err := readHashAndMGF(&oaep)
		if err != nil {
			return nil, true, err
		}
		if !oaep.Empty() {
			return nil, true, unsupported("RSA-OAEP with a label")
		}
		options = &rsa.OAEPOptions{Hash: h}
	case algorithm.Equal(oidRSA) && plain(parameters):
		// With the size given, bad padding yields a random key, so that whoever sends
		// forged messages learns nothing of it (RFC 3218 §2.3.2).
		options = &rsa.PKCS1v15DecryptOptions{SessionKeyLen: r.keySize}
	default:
		return nil, true, unsupported("key transport %s", algorithm)
	}
	cek, err := k.key.Decrypt(rand.Reader, encrypted, options)
	if err != nil {
		return nil, true, ErrDecrypt
	}
	return cek, true, nil
}

// Key agreement (RFC 5652 §6.2.2), by ephemeral-static ECDH (RFC 5753 §3.1):
//
//	KeyAgreeRecipientInfo ::= SEQUENCE {
//	    version                INTEGER,              -- 3
//	    originator         [0] EXPLICIT OriginatorIdentifierOrKey,
//	                              -- originatorKey [1] IMPLICIT SEQUENCE { algorithm AlgorithmIdentifier, publicKey BIT STRING }
//	    ukm                [1] EXPLICIT OCTET STRING OPTIONAL,
//	    keyEncryptionAlgorithm AlgorithmIdentifier,  -- its parameter is the key wrap's AlgorithmIdentifier
//	    recipientEncryptedKeys SEQUENCE OF SEQUENCE { rid KeyAgreeRecipientIdentifier, encryptedKey OCTET STRING } }
//
//	KeyAgreeRecipientIdentifier ::= CHOICE {
//	    issuerAndSerialNumber SEQUENCE { issuer Name, serialNumber INTEGER },
//	    rKeyId            [0] IMPLICIT SEQUENCE { subjectKeyIdentifier OCTET STRING, date GeneralizedTime OPTIONAL, other … OPTIONAL } }

// agreements are dhSinglePass-stdDH with a KDF; cofactor DH is the same for curves of cofactor 1.
var agreements = []struct {
	oid, cofactor OID
	hash          crypto.Hash
}{
	{OID{1, 3, 132, 1, 11, 1}, OID{1, 3, 132, 1, 14, 1}, crypto.SHA256},
	{OID{1, 3, 132, 1, 11, 2}, OID{1, 3, 132, 1, 14, 2}, crypto.SHA384},
	{OID{1, 3, 132, 1, 11, 3}, OID{1, 3, 132, 1, 14, 3}, crypto.SHA512},
}

// The user keying material, in octets.
const (
	ukmSize = 16
	maxUKM  = 1 << 10
)

type ecdhRecipient struct {
	id  ID
	pub *ecdsa.PublicKey
}

// ToECDH encrypts to an EC key on P-256 (KDF with SHA-256) or P-384 (SHA-384).
func ToECDH(id ID, pub *ecdsa.PublicKey) Recipient { return ecdhRecipient{id, pub} }

func (r ecdhRecipient) info(cek []byte) (recipientInfo, error) {
	static, err := r.pub.ECDH()
	if err != nil {
		return recipientInfo{}, unsupported("encrypting to an EC key: %w", err)
	}
	agreement := agreements[0]
	switch static.Curve() {
	case ecdh.P256():
	case ecdh.P384():
		agreement = agreements[1]
	default:
		return recipientInfo{}, unsupported("encrypting to an EC key on %v: use P-256 or P-384", static.Curve())
	}
	ephemeral, err := static.Curve().GenerateKey(rand.Reader)
	if err != nil {
		return recipientInfo{}, fmt.Errorf("cms: making an ephemeral key: %w", err)
	}
	ukm := make([]byte, ukmSize)
	rand.Read(ukm)
	kek, err := agree(ephemeral, static, agreement.hash, wrapOID(len(cek)), nil, ukm)
	if err != nil {
		return recipientInfo{}, err
	}
	defer clear(kek)
	wrapped, err := wrap(kek, cek)
	if err != nil {
		return recipientInfo{}, err
	}
	body, err := encode(len(r.id.Issuer)+1024, func(b *cryptobyte.Builder) {
		b.AddASN1Int64(3)
		b.AddASN1(tag0, func(b *cryptobyte.Builder) {
			b.AddASN1(tag1, func(b *cryptobyte.Builder) {
				addAlgorithm(b, oidEC, nil)
				b.AddASN1BitString(ephemeral.PublicKey().Bytes())
			})
		})
		b.AddASN1(tag1, func(b *cryptobyte.Builder) { b.AddASN1OctetString(ukm) }) // RFC 9483 §4.1.6.2 wants one
		parameters, _ := encode(32, func(b *cryptobyte.Builder) { addAlgorithm(b, wrapOID(len(cek)), nil) })
		addAlgorithm(b, agreement.oid, parameters)
		b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
				if r.id.KeyID != nil {
					b.AddASN1(tag0, func(b *cryptobyte.Builder) { b.AddASN1OctetString(r.id.KeyID) })
				} else {
					r.id.add(b)
				}
				b.AddASN1OctetString(wrapped)
			})
		})
	})
	return recipientInfo{tag: tagKARI, body: body}, err
}

// agree derives the key encryption key with the KDF of X9.63 (SEC 1 §3.6.1) over
//
//	ECC-CMS-SharedInfo ::= SEQUENCE { keyInfo AlgorithmIdentifier,
//	    entityUInfo [0] EXPLICIT OCTET STRING OPTIONAL, suppPubInfo [2] EXPLICIT OCTET STRING }
func agree(private *ecdh.PrivateKey, public *ecdh.PublicKey, h crypto.Hash, wrapping OID, wrapParameters, ukm []byte) ([]byte, error) {
	size := wrapKeySize(wrapping)
	if size == 0 {
		return nil, unsupported("key wrap %s: use AES", wrapping)
	}
	secret, err := private.ECDH(public)
	if err != nil {
		return nil, ErrDecrypt
	}
	defer clear(secret)
	info, err := encode(128+len(ukm), func(b *cryptobyte.Builder) {
		b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
			addAlgorithm(b, wrapping, wrapParameters)
			if ukm != nil {
				b.AddASN1(tag0, func(b *cryptobyte.Builder) { b.AddASN1OctetString(ukm) })
			}
			b.AddASN1(tag2, func(b *cryptobyte.Builder) { b.AddASN1OctetString(binary.BigEndian.AppendUint32(nil, uint32(8*size))) })
		})
	})
	if err != nil {
		return nil, err
	}
	// Every hash here is at least as long as the longest key: one round does.
	hash := h.New()
	hash.Write(secret)
	hash.Write([]byte{0, 0, 0, 1})
	hash.Write(info)
	return hash.Sum(nil)[:size], nil
}

type ecdhKey struct {
	id  ID
	key *ecdh.PrivateKey
}

// FromECDH opens what is encrypted to an EC key on a NIST curve. The zero ID
// takes the first EC recipient for this key.
func FromECDH(id ID, key *ecdh.PrivateKey) Key { return ecdhKey{id, key} }

func (k ecdhKey) unwrap(r recipientInfo) ([]byte, bool, error) {
	if r.tag != tagKARI {
		return nil, false, nil
	}
	bad := malformed("KeyAgreeRecipientInfo is not as RFC 5652 §6.2.2 and RFC 5753 §3.1.1 have it")
	var version int
	var originator, key, ukm, explicit, wrapped cryptobyte.String
	var point []byte
	var hasUKM bool
	body := r.body
	if !body.ReadASN1Integer(&version) || version != 3 || !body.ReadASN1(&originator, tag0) ||
		!originator.ReadASN1(&key, tag1) || !originator.Empty() {
		return nil, true, bad
	}
	// Parameters say which curve; it is the recipient's or the point does not parse.
	ec, _, ok := readAlgorithm(&key, asn1.SEQUENCE)
	if !ok || !ec.Equal(oidEC) || !key.ReadASN1BitStringAsBytes(&point) || !key.Empty() ||
		!body.ReadOptionalASN1(&explicit, &hasUKM, tag1) ||
		hasUKM && (!explicit.ReadASN1(&ukm, asn1.OCTET_STRING) || !explicit.Empty() || len(ukm) > maxUKM) {
		return nil, true, bad
	}
	agreement, parameters, ok := readAlgorithm(&body, asn1.SEQUENCE)
	if !ok {
		return nil, true, bad
	}
	wrapped, mine, err := k.find(&body)
	if !mine || err != nil {
		return nil, mine, err
	}
	wrapping, wrapParameters, ok := readAlgorithm(&parameters, asn1.SEQUENCE)
	if !ok || !parameters.Empty() || !plain(wrapParameters) {
		return nil, true, bad
	}
	for _, known := range agreements {
		if !known.oid.Equal(agreement) && !known.cofactor.Equal(agreement) {
			continue
		}
		public, err := k.key.Curve().NewPublicKey(point)
		if err != nil {
			return nil, true, ErrDecrypt
		}
		if !hasUKM {
			ukm = nil
		}
		kek, err := agree(k.key, public, known.hash, wrapping, wrapParameters, ukm)
		if err != nil {
			return nil, true, err
		}
		defer clear(kek)
		cek, err := unwrap(kek, wrapped)
		return cek, true, err
	}
	return nil, true, unsupported("key agreement %s: use ECDH with SHA-256 or better", agreement)
}

// find looks for this key among the recipientEncryptedKeys.
func (k ecdhKey) find(body *cryptobyte.String) (wrapped cryptobyte.String, mine bool, err error) {
	bad := malformed("recipientEncryptedKeys are not as RFC 5652 §6.2.2 has them")
	var keys cryptobyte.String
	if !body.ReadASN1(&keys, asn1.SEQUENCE) || !body.Empty() || keys.Empty() {
		return nil, true, bad
	}
	for n := 0; !keys.Empty(); n++ {
		var one, named, keyID, encrypted cryptobyte.String
		var id ID
		if n == MaxRecipients || !keys.ReadASN1(&one, asn1.SEQUENCE) {
			return nil, true, bad
		}
		if one.PeekASN1Tag(tag0) {
			if !one.ReadASN1(&named, tag0) || !named.ReadASN1(&keyID, asn1.OCTET_STRING) {
				return nil, true, bad
			}
			id.KeyID = keyID
		} else {
			var ok bool
			if id, ok = readID(&one); !ok {
				return nil, true, bad
			}
		}
		if !one.ReadASN1(&encrypted, asn1.OCTET_STRING) || !one.Empty() {
			return nil, true, bad
		}
		if !mine && (k.id.IsZero() || k.id.Equal(id)) {
			wrapped, mine = encrypted, true
		}
	}
	return wrapped, mine, nil
}
