package attesttest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	_ "crypto/sha1" // forged statements have it
	"crypto/x509"
	"encoding/binary"
	"encoding/pem"
	"fmt"
	"os"

	"github.com/fxamacker/cbor/v2"
)

// Attestation is attStmt of format "tpm", to be spoilt and encoded.
type Attestation struct {
	Version  string   `cbor:"ver"`
	Alg      int64    `cbor:"alg"`
	X5C      [][]byte `cbor:"x5c"`
	Sig      []byte   `cbor:"sig"`
	CertInfo []byte   `cbor:"certInfo"`
	PubArea  []byte   `cbor:"pubArea"`
}

// Encode is the statement as CBOR.
func (a *Attestation) Encode() []byte { return encode(a) }

// Quote is the quote that rides along, to be spoilt and encoded.
type Quote struct {
	Version uint64            `cbor:"ver"`
	Alg     int64             `cbor:"alg"`
	Quoted  []byte            `cbor:"quoted"`
	Sig     []byte            `cbor:"sig"`
	PCRs    map[uint64][]byte `cbor:"pcrs"`
}

// Encode is the quote as CBOR.
func (q *Quote) Encode() []byte { return encode(q) }

// Object is an attestation object around a statement.
func Object(format string, statement []byte) []byte {
	return encode(map[string]any{"fmt": format, "attStmt": cbor.RawMessage(statement)})
}

func encode(v any) []byte {
	out, err := cbor.Marshal(v)
	if err != nil {
		panic(err) // the types above can be encoded
	}
	return out
}

// SignBy signs as a TPM's AK would, by the COSE number, and with the hash given instead of the
// number's own unless it is 0. The signature is bare: RSA's octets, ECDSA's DER.
func SignBy(key crypto.Signer, alg int64, hash crypto.Hash, message []byte) ([]byte, error) {
	own := map[int64]crypto.Hash{-7: crypto.SHA256, -35: crypto.SHA384, -36: crypto.SHA512, -37: crypto.SHA256, -38: crypto.SHA384,
		-39: crypto.SHA512, -257: crypto.SHA256, -258: crypto.SHA384, -259: crypto.SHA512, -65535: crypto.SHA1}
	if hash == 0 {
		hash = own[alg]
	}
	h := hash.New()
	h.Write(message)
	digest := h.Sum(nil)
	switch key := key.(type) {
	case *ecdsa.PrivateKey:
		return ecdsa.SignASN1(rand.Reader, key, digest)
	case *rsa.PrivateKey:
		if alg >= -39 {
			return rsa.SignPSS(rand.Reader, key, hash, digest, nil)
		}
		return rsa.SignPKCS1v15(rand.Reader, key, hash, digest)
	}
	return nil, fmt.Errorf("a %T", key)
}

// Sized is a TPM2B.
func Sized(content []byte) []byte {
	return append(binary.BigEndian.AppendUint16(nil, uint16(len(content))), content...)
}

// TPMSAttest is a TPMS_ATTEST: attested is what its type has at the end.
func TPMSAttest(magic uint32, kind uint16, extraData, attested []byte) []byte {
	out := binary.BigEndian.AppendUint32(nil, magic)
	out = binary.BigEndian.AppendUint16(out, kind)
	out = append(out, Sized(append([]byte{0, 0x0b}, make([]byte, 32)...))...) // qualifiedSigner
	out = append(out, Sized(extraData)...)
	out = append(out, make([]byte, 8+4+4)...) // clock, resetCount, restartCount
	out = append(out, 1)                      // safe
	out = append(out, make([]byte, 8)...)     // firmwareVersion
	return append(out, attested...)
}

// PCRSelection is a TPML_PCR_SELECTION of one bank of 24 PCRs, and bitmap's low bit is PCR 0.
func PCRSelection(bank uint16, bitmap uint32) []byte {
	out := binary.BigEndian.AppendUint32(nil, 1)
	out = binary.BigEndian.AppendUint16(out, bank)
	return append(out, 3, byte(bitmap), byte(bitmap>>8), byte(bitmap>>16))
}

func raws(chain []*x509.Certificate) [][]byte {
	out := make([][]byte, len(chain))
	for i, c := range chain {
		out[i] = c.Raw
	}
	return out
}

func readPEM(path string) ([]*x509.Certificate, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var certs []*x509.Certificate
	for {
		block, rest := pem.Decode(text)
		if block == nil {
			return certs, nil
		}
		text = rest
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		certs = append(certs, c)
	}
}
