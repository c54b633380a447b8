package keys

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
)

// Encrypted PKCS#8 (RFC 5958 §3) with PBES2 (RFC 8018 §6.2): PBKDF2 with
// HMAC-SHA256, then AES-256-CBC. It is what `openssl pkcs8 -topk8` writes and
// reads, so that a key file can be looked into without this program.

const (
	pemType = "ENCRYPTED PRIVATE KEY"
	// iterations of PBKDF2: some 50 ms for each key, once per start.
	iterations    = 200_000
	maxIterations = 10_000_000
)

var (
	oidPBES2      = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 5, 13}
	oidPBKDF2     = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 5, 12}
	oidHMACSHA256 = asn1.ObjectIdentifier{1, 2, 840, 113549, 2, 9}
	oidAES256CBC  = asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 1, 42}
)

type algorithm struct {
	OID  asn1.ObjectIdentifier
	Null asn1.RawValue `asn1:"optional"`
}

type kdfParams struct {
	Salt       []byte
	Iterations int
	KeyLength  int       `asn1:"optional"`
	PRF        algorithm `asn1:"optional"`
}

type encryptedKey struct {
	Algorithm struct {
		OID    asn1.ObjectIdentifier
		Params struct {
			KDF struct {
				OID    asn1.ObjectIdentifier
				Params kdfParams
			}
			Cipher struct {
				OID asn1.ObjectIdentifier
				IV  []byte
			}
		}
	}
	Data []byte
}

// encryptPKCS8 wraps a PrivateKeyInfo in DER into an encrypted PEM block.
func encryptPKCS8(der []byte, passphrase string) ([]byte, error) {
	var e encryptedKey
	p := &e.Algorithm.Params
	e.Algorithm.OID = oidPBES2
	p.KDF.OID = oidPBKDF2
	p.KDF.Params = kdfParams{
		Salt:       random(16),
		Iterations: iterations,
		PRF:        algorithm{oidHMACSHA256, asn1.NullRawValue},
	}
	p.Cipher.OID = oidAES256CBC
	p.Cipher.IV = random(aes.BlockSize)
	block, err := p.KDF.Params.cipher(passphrase)
	if err != nil {
		return nil, err
	}
	pad := aes.BlockSize - len(der)%aes.BlockSize
	e.Data = append(bytes.Clone(der), bytes.Repeat([]byte{byte(pad)}, pad)...)
	cipher.NewCBCEncrypter(block, p.Cipher.IV).CryptBlocks(e.Data, e.Data)
	out, err := asn1.Marshal(e)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: pemType, Bytes: out}), nil
}

// decryptPKCS8 is the reverse of encryptPKCS8. CBC proves nothing: a wrong
// passphrase shows as bad padding, which is ErrPIN, or as DER that does not
// parse, which is the caller's to see.
func decryptPKCS8(text []byte, passphrase string) ([]byte, error) {
	block, rest := pem.Decode(text)
	if block == nil || block.Type != pemType || len(bytes.TrimSpace(rest)) > 0 {
		return nil, fmt.Errorf("want one PEM block %q", pemType)
	}
	var e encryptedKey
	if rest, err := asn1.Unmarshal(block.Bytes, &e); err != nil || len(rest) > 0 {
		return nil, errors.New("not an encrypted PKCS#8 key with PBES2 and PBKDF2")
	}
	p := e.Algorithm.Params
	if !e.Algorithm.OID.Equal(oidPBES2) || !p.KDF.OID.Equal(oidPBKDF2) || !p.KDF.Params.PRF.OID.Equal(oidHMACSHA256) ||
		!p.Cipher.OID.Equal(oidAES256CBC) {
		return nil, errors.New("only PBES2 with PBKDF2, HMAC-SHA256 and AES-256-CBC is read: convert it with openssl pkcs8 -topk8 -v2 aes-256-cbc -v2prf hmacWithSHA256")
	}
	if n := p.KDF.Params.Iterations; n < 1 || n > maxIterations {
		return nil, fmt.Errorf("%d iterations of PBKDF2: want 1 to %d", n, maxIterations)
	}
	if l := p.KDF.Params.KeyLength; l != 0 && l != 32 || len(p.Cipher.IV) != aes.BlockSize ||
		len(e.Data) == 0 || len(e.Data)%aes.BlockSize != 0 {
		return nil, errors.New("damaged encrypted PKCS#8 key")
	}
	c, err := p.KDF.Params.cipher(passphrase)
	if err != nil {
		return nil, err
	}
	cipher.NewCBCDecrypter(c, p.Cipher.IV).CryptBlocks(e.Data, e.Data)
	pad := int(e.Data[len(e.Data)-1])
	if pad == 0 || pad > aes.BlockSize || !bytes.Equal(e.Data[len(e.Data)-pad:], bytes.Repeat([]byte{byte(pad)}, pad)) {
		return nil, ErrPIN
	}
	return e.Data[:len(e.Data)-pad], nil
}

func (p kdfParams) cipher(passphrase string) (cipher.Block, error) {
	key, err := pbkdf2.Key(sha256.New, passphrase, p.Salt, p.Iterations, 32)
	if err != nil {
		return nil, err
	}
	return aes.NewCipher(key)
}

func random(n int) []byte {
	b := make([]byte, n)
	rand.Read(b) // never fails: crypto/rand ends the program instead
	return b
}
