package tpm

import (
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"math"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// keyBlock is the PEM type of key files.
const keyBlock = "TSS2 PRIVATE KEY"

// oidLoadable marks a key that TPM2_Load takes.
var oidLoadable = asn1.ObjectIdentifier{2, 23, 133, 10, 1, 3}

// KeyFile is a key that one TPM can use: what TPM2_Create gave out, and under which parent. Its file
// is the "ASN.1 format for TPM 2.0 keys" that the TPM engines and providers of OpenSSL read:
//
//	TPMKey ::= SEQUENCE {
//	  type        OBJECT IDENTIFIER,              -- 2.23.133.10.1.3, loadable
//	  emptyAuth   [0] EXPLICIT BOOLEAN OPTIONAL,  -- see ParseKeyFile
//	  policy      [1] …, secret [2] …, authPolicy [3] … OPTIONAL,   -- not understood here
//	  description [4] EXPLICIT UTF8String OPTIONAL,
//	  rsaParent   [5] EXPLICIT BOOLEAN OPTIONAL,  -- TRUE is not understood here
//	  parent      INTEGER,                        -- a persistent handle, or the owner: its primary storage key, ECC P-256
//	  pubkey      OCTET STRING,                   -- TPM2B_PUBLIC
//	  privkey     OCTET STRING }                  -- TPM2B_PRIVATE
type KeyFile struct {
	Parent  uint32
	Public  []byte // TPMT_PUBLIC
	Private []byte // wrapped by the parent
}

// Marshal is the file, PEM.
func (k KeyFile) Marshal() []byte {
	sized := func(content []byte) []byte {
		return append([]byte{byte(len(content) >> 8), byte(len(content))}, content...)
	}
	var b cryptobyte.Builder
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1ObjectIdentifier(oidLoadable)
		b.AddASN1(cbasn1.Tag(0).ContextSpecific().Constructed(), func(b *cryptobyte.Builder) { b.AddASN1Boolean(true) })
		b.AddASN1Int64(int64(k.Parent))
		b.AddASN1OctetString(sized(k.Public))
		b.AddASN1OctetString(sized(k.Private))
	})
	return pem.EncodeToMemory(&pem.Block{Type: keyBlock, Bytes: b.BytesOrPanic()})
}

// ParseKeyFile reads a file of a key without policy. Whether the key has an authorization value is for the TPM to say: emptyAuth is
// left out by some programs, and tpm2_encodeobject 5.4 writes FALSE for keys without one and TRUE for others.
func ParseKeyFile(text []byte) (*KeyFile, error) {
	block, _ := pem.Decode(text)
	if block == nil || block.Type != keyBlock {
		return nil, fmt.Errorf("there is no %s", keyBlock)
	}
	in, seq := cryptobyte.String(block.Bytes), cryptobyte.String(nil)
	var kind asn1.ObjectIdentifier
	if !in.ReadASN1(&seq, cbasn1.SEQUENCE) || !in.Empty() || !seq.ReadASN1ObjectIdentifier(&kind) {
		return nil, errors.New("not a TPMKey")
	}
	if !kind.Equal(oidLoadable) {
		return nil, fmt.Errorf("a TPM key of type %v, where a loadable one (%v) is due", kind, oidLoadable)
	}
	if err := skipOptions(&seq); err != nil {
		return nil, err
	}
	var parent int64
	var public, private cryptobyte.String
	if !seq.ReadASN1Integer(&parent) || parent < 0 || parent > math.MaxUint32 ||
		!seq.ReadASN1(&public, cbasn1.OCTET_STRING) || !seq.ReadASN1(&private, cbasn1.OCTET_STRING) || !seq.Empty() {
		return nil, errors.New("not a TPMKey")
	}
	k := &KeyFile{Parent: uint32(parent)}
	for _, part := range []struct {
		from cryptobyte.String
		to   *[]byte
	}{{public, &k.Public}, {private, &k.Private}} {
		var content cryptobyte.String
		if !part.from.ReadUint16LengthPrefixed(&content) || !part.from.Empty() || content.Empty() {
			return nil, errors.New("not a TPMKey: what it holds is no TPM2B")
		}
		*part.to = content
	}
	return k, nil
}

// skipOptions passes over the optional fields, and refuses those that change how the key is used.
func skipOptions(seq *cryptobyte.String) error {
	for tag := range uint8(6) {
		var field cryptobyte.String
		var has bool
		if !seq.ReadOptionalASN1(&field, &has, cbasn1.Tag(tag).ContextSpecific().Constructed()) {
			return errors.New("not a TPMKey")
		}
		switch {
		case !has:
		case tag == 0 || tag == 5:
			truth, ok := readBoolean(&field)
			if !ok || !field.Empty() {
				return errors.New("not a TPMKey")
			}
			if tag == 5 && truth {
				return errors.New("its parent is an RSA key: make it below an ECC P-256 storage key, or a persistent one")
			}
		case tag == 4:
			var description cryptobyte.String
			if !field.ReadASN1(&description, cbasn1.UTF8String) || !field.Empty() {
				return errors.New("not a TPMKey")
			}
		default:
			return errors.New("it has a policy or a secret, which this program cannot satisfy: make one without")
		}
	}
	return nil
}

// readBoolean reads a BOOLEAN in BER, where any octet but 0 is TRUE: tpm2_encodeobject writes 1.
func readBoolean(in *cryptobyte.String) (truth, ok bool) {
	var value cryptobyte.String
	if !in.ReadASN1(&value, cbasn1.BOOLEAN) || len(value) != 1 {
		return false, false
	}
	return value[0] != 0, true
}
