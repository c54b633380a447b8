package attest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"errors"
	"fmt"
	"math/big"

	"golang.org/x/crypto/cryptobyte"
)

// The structures below are those of the TPM 2.0 Library, Part 2; integers are big-endian, and
// a TPM2B is a UINT16 size and as many octets. Readers take one structure and nothing after it.

// readSized reads a TPM2B of at most max octets.
func readSized(in *cryptobyte.String, out *[]byte, max int) bool {
	var content cryptobyte.String
	if !in.ReadUint16LengthPrefixed(&content) || len(content) > max {
		return false
	}
	*out = content
	return true
}

// Limits of TPM2Bs: a name is a UINT16 and a digest.
const (
	maxDigest = 64
	maxName   = 2 + maxDigest
)

// Types of attestation (Part 2, §6.9).
const (
	attestCertify = 0x8017
	attestQuote   = 0x8018
)

// tpmGenerated is the magic that a TPM puts before what it signs by a restricted key;
// what comes from outside and starts so, it does not sign (Part 2, §6.2).
const tpmGenerated = 0xff544347

// attestation is a TPMS_ATTEST (Part 2, §10.12.12):
//
//	magic UINT32, type UINT16, qualifiedSigner TPM2B, extraData TPM2B,
//	clock UINT64, resetCount UINT32, restartCount UINT32, safe BYTE, firmwareVersion UINT64,
//	certify: name TPM2B, qualifiedName TPM2B
//	quote:   pcrSelect UINT32 count, count × (hash UINT16, size BYTE, bitmap), pcrDigest TPM2B
type attestation struct {
	kind      uint16
	extraData []byte

	name []byte // certify

	bank      uint16 // quote: hash of the one bank selected
	selected  []int  // PCRs of it, rising
	pcrDigest []byte
}

func parseAttest(raw []byte) (*attestation, error) {
	in := cryptobyte.String(raw)
	var a attestation
	var magic, resets, restarts uint32
	var signer []byte
	var clock, firmware uint64
	var safe uint8
	if !in.ReadUint32(&magic) || magic != tpmGenerated {
		return nil, errors.New("it does not start with TPM_GENERATED_VALUE (ff544347): no TPM made it")
	}
	if !in.ReadUint16(&a.kind) || !readSized(&in, &signer, maxName) || !readSized(&in, &a.extraData, maxDigest) ||
		!in.ReadUint64(&clock) || !in.ReadUint32(&resets) || !in.ReadUint32(&restarts) || !in.ReadUint8(&safe) || safe > 1 ||
		!in.ReadUint64(&firmware) {
		return nil, errors.New("not a TPMS_ATTEST")
	}
	switch a.kind {
	case attestCertify:
		var qualified []byte
		if !readSized(&in, &a.name, maxName) || !readSized(&in, &qualified, maxName) {
			return nil, errors.New("not a TPMS_CERTIFY_INFO")
		}
	case attestQuote:
		if err := a.readSelection(&in); err != nil {
			return nil, err
		}
		if !readSized(&in, &a.pcrDigest, maxDigest) {
			return nil, errors.New("not a TPMS_QUOTE_INFO")
		}
	default:
		return nil, fmt.Errorf("type %#04x is neither certify nor quote", a.kind)
	}
	if !in.Empty() {
		return nil, fmt.Errorf("%d octets after its end", len(in))
	}
	return &a, nil
}

// readSelection reads a TPML_PCR_SELECTION of one bank.
func (a *attestation) readSelection(in *cryptobyte.String) error {
	var count uint32
	var size uint8
	var bitmap []byte
	if !in.ReadUint32(&count) {
		return errors.New("not a TPML_PCR_SELECTION")
	}
	if count != 1 {
		return fmt.Errorf("%d banks of PCRs are selected: quote one bank alone", count)
	}
	if !in.ReadUint16(&a.bank) || !in.ReadUint8(&size) || size > 4 || !in.ReadBytes(&bitmap, int(size)) {
		return errors.New("not a TPMS_PCR_SELECTION")
	}
	for i := range 8 * len(bitmap) {
		if bitmap[i/8]>>(i%8)&1 == 1 {
			a.selected = append(a.selected, i)
		}
	}
	return nil
}

// TPMA_OBJECT (Part 2, §8.3).
const (
	attrFixedTPM            = 1 << 1
	attrSTClear             = 1 << 2
	attrFixedParent         = 1 << 4
	attrSensitiveDataOrigin = 1 << 5
	attrUserWithAuth        = 1 << 6
	attrAdminWithPolicy     = 1 << 7
	attrFirmwareLimited     = 1 << 8
	attrSVNLimited          = 1 << 9
	attrNoDA                = 1 << 10
	attrRestricted          = 1 << 16
	attrDecrypt             = 1 << 17
	attrSign                = 1 << 18

	// attrMay are those that a device key may have or not: who may use it, and when it ends.
	attrMay = attrSTClear | attrUserWithAuth | attrAdminWithPolicy | attrFirmwareLimited | attrSVNLimited | attrNoDA
)

// publicArea is a TPMT_PUBLIC (Part 2, §12.2.4) of an asymmetric key:
//
//	type UINT16, nameAlg UINT16, objectAttributes UINT32, authPolicy TPM2B,
//	RSA: symmetric, scheme, keyBits UINT16, exponent UINT32; unique TPM2B
//	ECC: symmetric, scheme, curveID UINT16, kdf;             x TPM2B, y TPM2B
type publicArea struct {
	kind       uint16
	attributes uint32
	name       []byte // nameAlg, and the hash by it over the whole area
	symmetric  uint16 // algNull but for storage keys
	scheme     uint16
	schemeHash uint16

	bits     uint16 // RSA
	exponent uint32
	modulus  []byte

	curve uint16 // ECC
	kdf   uint16
	x, y  []byte
}

// maxModulus is of RSA-4096, maxCoordinate of P-521, in octets.
const (
	maxModulus    = 512
	maxCoordinate = 66
)

func parsePublic(raw []byte) (*publicArea, error) {
	in := cryptobyte.String(raw)
	var p publicArea
	var nameAlg uint16
	var authPolicy []byte
	if !in.ReadUint16(&p.kind) || !in.ReadUint16(&nameAlg) || !in.ReadUint32(&p.attributes) || !readSized(&in, &authPolicy, maxDigest) {
		return nil, errors.New("not a TPMT_PUBLIC")
	}
	hash := tpmHash(nameAlg)
	if hash == 0 {
		return nil, fmt.Errorf("nameAlg %#04x: make the key with SHA-256, SHA-384 or SHA-512", nameAlg)
	}
	p.name = sum(hash, raw)
	p.name = append([]byte{byte(nameAlg >> 8), byte(nameAlg)}, p.name...)
	var ok bool
	switch p.kind {
	case algRSA:
		ok = p.readParameters(&in) && in.ReadUint16(&p.bits) && in.ReadUint32(&p.exponent) && readSized(&in, &p.modulus, maxModulus)
	case algECC:
		ok = p.readParameters(&in) && in.ReadUint16(&p.curve) && p.readKDF(&in) &&
			readSized(&in, &p.x, maxCoordinate) && readSized(&in, &p.y, maxCoordinate)
	default:
		return nil, fmt.Errorf("a key of type %#04x, where RSA or ECC is due", p.kind)
	}
	switch {
	case !ok:
		return nil, errors.New("not a TPMT_PUBLIC of this type")
	case !in.Empty():
		return nil, fmt.Errorf("%d octets after its end", len(in))
	}
	return &p, nil
}

// readParameters reads symmetric (TPMT_SYM_DEF_OBJECT) and scheme (TPMT_RSA_SCHEME or TPMT_ECC_SCHEME).
func (p *publicArea) readParameters(in *cryptobyte.String) bool {
	var bits, mode uint16
	if !in.ReadUint16(&p.symmetric) || p.symmetric != algNull && (!in.ReadUint16(&bits) || !in.ReadUint16(&mode)) {
		return false
	}
	if !in.ReadUint16(&p.scheme) {
		return false
	}
	// Some schemes have no hash, or a count after it; a key with such a one is
	// refused whether the rest is read rightly or not.
	return p.scheme == algNull || in.ReadUint16(&p.schemeHash)
}

func (p *publicArea) readKDF(in *cryptobyte.String) bool {
	var hash uint16
	return in.ReadUint16(&p.kdf) && (p.kdf == algNull || in.ReadUint16(&hash))
}

// mayIdentify says why a key cannot be a device's.
func (p *publicArea) mayIdentify() error {
	has := func(attribute uint32) bool { return p.attributes&attribute != 0 }
	const must = attrFixedTPM | attrFixedParent | attrSensitiveDataOrigin | attrSign
	switch {
	case !has(attrFixedTPM):
		return errors.New("fixedTPM is not set: the key can be moved to another TPM")
	case !has(attrFixedParent):
		return errors.New("fixedParent is not set: the key can be moved under another parent")
	case !has(attrSensitiveDataOrigin):
		return errors.New("sensitiveDataOrigin is not set: the key was not made in the TPM")
	case !has(attrSign):
		return errors.New("sign is not set: the key cannot sign")
	case has(attrDecrypt):
		return errors.New("decrypt is set: a key that decrypts does not identify a device here")
	case has(attrRestricted):
		return errors.New("restricted is set: the key signs only what its TPM made, so no certificate request; is it an attestation key?")
	case p.attributes&^(must|attrMay) != 0:
		return fmt.Errorf("objectAttributes %#08x has bits that a device's signing key does not have", p.attributes)
	case p.symmetric != algNull:
		return errors.New("it has a symmetric algorithm, as only storage keys do")
	}
	switch {
	case p.kind == algRSA && p.scheme != algNull && p.scheme != algRSASSA && p.scheme != algRSAPSS:
		return fmt.Errorf("scheme %#04x: none, RSASSA or RSAPSS is due for an RSA key", p.scheme)
	case p.kind == algECC && p.scheme != algNull && p.scheme != algECDSA:
		return fmt.Errorf("scheme %#04x: none or ECDSA is due for an ECC key", p.scheme)
	case p.kind == algECC && p.kdf != algNull:
		return errors.New("it has a key derivation scheme, which a signing key has not")
	case p.scheme != algNull && tpmHash(p.schemeHash) == 0:
		return fmt.Errorf("its scheme's hash is %#04x: SHA-256, SHA-384 or SHA-512 is due", p.schemeHash)
	}
	return nil
}

// Curves (TCG Algorithm Registry, TPM_ECC_CURVE).
var curves = map[uint16]elliptic.Curve{0x0003: elliptic.P256(), 0x0004: elliptic.P384()}

// key is the public key: RSA of 2048 to 4096 bits with exponent 65537, or ECC on P-256 or P-384.
func (p *publicArea) key() (crypto.PublicKey, error) {
	if p.kind == algRSA {
		n := new(big.Int).SetBytes(p.modulus)
		switch {
		case p.bits < 2048 || p.bits > 4096 || p.bits%8 != 0:
			return nil, fmt.Errorf("RSA of %d bits: 2048 to 4096 are due", p.bits)
		case p.exponent != 0 && p.exponent != 65537: // 0 stands for 65537
			return nil, fmt.Errorf("RSA exponent %d: 65537 is due", p.exponent)
		case n.BitLen() != int(p.bits) || len(p.modulus) != int(p.bits)/8 || n.Bit(0) == 0:
			return nil, fmt.Errorf("the RSA modulus is not one of %d bits", p.bits)
		}
		return &rsa.PublicKey{N: n, E: 65537}, nil
	}
	curve, ok := curves[p.curve]
	if !ok {
		return nil, fmt.Errorf("curve %#04x: P-256 or P-384 is due", p.curve)
	}
	size := (curve.Params().BitSize + 7) / 8
	if len(p.x) > size || len(p.y) > size {
		return nil, errors.New("its coordinates are longer than the curve's")
	}
	// A TPM may leave leading zeros away.
	point := make([]byte, 1+2*size)
	point[0] = 4 // uncompressed
	copy(point[1+size-len(p.x):], p.x)
	copy(point[1+2*size-len(p.y):], p.y)
	key, err := ecdsa.ParseUncompressedPublicKey(curve, point)
	if err != nil {
		return nil, errors.New("its point is not on the curve")
	}
	return key, nil
}
