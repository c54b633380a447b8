package cms

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/subtle"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"
)

// Cipher is how content is encrypted.
type Cipher int

// AES in CBC mode makes EnvelopedData (RFC 3565), which every peer reads and
// which does not show whether the content was changed: sign it. AES in GCM makes AuthEnvelopedData (RFC 5083, RFC 5084).
const (
	AES256CBC Cipher = iota
	AES128CBC
	AES256GCM
	AES128GCM
)

var ciphers = []struct {
	cipher Cipher
	oid    OID
	size   int // of the key, octets
	gcm    bool
}{
	{AES128CBC, OID{2, 16, 840, 1, 101, 3, 4, 1, 2}, 16, false},
	{AES256CBC, OID{2, 16, 840, 1, 101, 3, 4, 1, 42}, 32, false},
	{AES128GCM, OID{2, 16, 840, 1, 101, 3, 4, 1, 6}, 16, true},
	{AES256GCM, OID{2, 16, 840, 1, 101, 3, 4, 1, 46}, 32, true},
}

// maxCEK is the largest content encryption key, in octets.
const maxCEK = 32

const (
	gcmNonce = 12
	gcmTag   = 16
)

// KeySize is the length of the key, in octets; 0 for no Cipher.
func (c Cipher) KeySize() int {
	for _, known := range ciphers {
		if known.cipher == c {
			return known.size
		}
	}
	return 0
}

func (c Cipher) gcm() bool { return c == AES128GCM || c == AES256GCM }

func (c Cipher) oid() OID {
	for _, known := range ciphers {
		if known.cipher == c {
			return known.oid
		}
	}
	return nil
}

// add writes the AlgorithmIdentifier: the parameter of CBC is its IV (RFC 3565 §4.2), that of
// GCM is SEQUENCE { aes-nonce OCTET STRING, aes-ICVlen INTEGER DEFAULT 12 } (RFC 5084 §3.2).
func (c Cipher) add(b *cryptobyte.Builder, iv []byte) {
	parameters, _ := encode(64, func(b *cryptobyte.Builder) {
		if !c.gcm() {
			b.AddASN1OctetString(iv)
			return
		}
		b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1OctetString(iv)
			b.AddASN1Int64(gcmTag)
		})
	})
	addAlgorithm(b, c.oid(), parameters)
}

// sealed is how one content is encrypted.
type sealed struct {
	Cipher
	iv  []byte
	tag int // octets, GCM only
}

func readCipher(s *cryptobyte.String) (sealed, error) {
	oid, parameters, ok := readAlgorithm(s, asn1.SEQUENCE)
	if !ok {
		return sealed{}, malformed("not a content encryption algorithm")
	}
	for _, known := range ciphers {
		if !known.oid.Equal(oid) {
			continue
		}
		out := sealed{Cipher: known.cipher, tag: 12}
		var body, iv cryptobyte.String
		if !known.gcm {
			if !parameters.ReadASN1(&iv, asn1.OCTET_STRING) || len(iv) != aes.BlockSize {
				return out, malformed("AES-CBC without an IV")
			}
			out.iv = iv
			return out, nil
		}
		if !parameters.ReadASN1(&body, asn1.SEQUENCE) || !body.ReadASN1(&iv, asn1.OCTET_STRING) ||
			!body.Empty() && (!body.ReadASN1Integer(&out.tag) || !body.Empty()) {
			return out, malformed("AES-GCM without parameters")
		}
		if len(iv) != gcmNonce || out.tag < 12 || out.tag > gcmTag {
			return out, unsupported("AES-GCM with a nonce of %d and a tag of %d octets", len(iv), out.tag)
		}
		out.iv = iv
		return out, nil
	}
	return sealed{}, unsupported("content encryption %s: use AES-128 or AES-256 in CBC or GCM", oid)
}

// encrypt returns the ciphertext, and GCM's tag. key is right for the cipher.
func (c Cipher) encrypt(key, content, authenticated []byte) (s sealed, ciphertext, tag []byte, err error) {
	s = sealed{Cipher: c, iv: make([]byte, aes.BlockSize), tag: gcmTag}
	block, err := aes.NewCipher(key)
	if err != nil {
		return s, nil, nil, unsupported("%w", err)
	}
	if c.gcm() {
		s.iv = s.iv[:gcmNonce]
		rand.Read(s.iv)
		aead, err := cipher.NewGCM(block)
		if err != nil {
			return s, nil, nil, unsupported("%w", err)
		}
		out := aead.Seal(nil, s.iv, content, authenticated)
		return s, out[:len(content)], out[len(content):], nil
	}
	rand.Read(s.iv)
	pad := aes.BlockSize - len(content)%aes.BlockSize
	padded := make([]byte, len(content)+pad)
	for i := range padded[copy(padded, content):] {
		padded[len(content)+i] = byte(pad)
	}
	cipher.NewCBCEncrypter(block, s.iv).CryptBlocks(padded, padded)
	return s, padded, nil, nil
}

// decrypt knows one error. A wrong key of the right size runs as long as the right one.
func (s sealed) decrypt(key, ciphertext, authenticated, tag []byte) ([]byte, error) {
	block, err := aes.NewCipher(key)
	if err != nil || len(key) != s.KeySize() {
		return nil, ErrDecrypt
	}
	if s.gcm() {
		aead, err := cipher.NewGCMWithTagSize(block, s.tag)
		if err != nil || len(tag) != s.tag {
			return nil, ErrDecrypt
		}
		out, err := aead.Open(nil, s.iv, append(append([]byte(nil), ciphertext...), tag...), authenticated)
		if err != nil {
			return nil, ErrDecrypt
		}
		return out, nil
	}
	if len(ciphertext) == 0 || len(ciphertext)%aes.BlockSize != 0 {
		return nil, ErrDecrypt
	}
	out := make([]byte, len(ciphertext))
	cipher.NewCBCDecrypter(block, s.iv).CryptBlocks(out, ciphertext)
	pad := int(out[len(out)-1])
	good := subtle.ConstantTimeLessOrEq(1, pad) & subtle.ConstantTimeLessOrEq(pad, aes.BlockSize)
	for i := range aes.BlockSize {
		inPad := subtle.ConstantTimeLessOrEq(i+1, pad)
		same := subtle.ConstantTimeByteEq(out[len(out)-1-i], byte(pad))
		good &= subtle.ConstantTimeSelect(inPad, same, 1)
	}
	if good != 1 {
		clear(out)
		return nil, ErrDecrypt
	}
	return out[:len(out)-pad], nil
}
