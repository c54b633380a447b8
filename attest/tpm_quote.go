package attest

import (
	"crypto"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"

	"github.com/fxamacker/cbor/v2"
)

// maxQuote is the longest quote that is looked at, in octets.
const maxQuote = 8 << 10

// pcrCount is how many PCRs a bank has on every platform.
const pcrCount = 24

// bootPCRs are those that a quote must cover, 0 to 7: firmware, its configuration, and Secure
// Boot (TCG PC Client Platform Firmware Profile §2.3.4). A quote of what a program may
// reset at will says nothing about the boot.
const bootPCRs = 8

// tpmQuote is what rides along with a statement, in CDDL (RFC 8610):
//
//	tpm-quote = {
//	  "ver": 1,
//	  "alg": int,                            ; COSE algorithm of sig, one that attStmt may have
//	  "quoted": bstr,                        ; TPMS_ATTEST of type quote, over one bank: SHA-256, SHA-384 or SHA-512
//	  "sig": bstr,                           ; over quoted by the AK of x5c, in a form that attStmt's sig may have
//	  "pcrs": { 8*24 pcr => value },         ; the values of the quoted PCRs, 0 to 7 among them
//	}
//	pcr = 0..23
//	value = bstr .size (32 / 48 / 64)        ; a hash of the bank
//
// extraData of quoted is the SHA-256 of the key authorization, whatever alg is.
type tpmQuote struct {
	Version uint64                     `cbor:"ver"`
	Alg     int64                      `cbor:"alg"`
	Quoted  cbor.ByteString            `cbor:"quoted"`
	Sig     cbor.ByteString            `cbor:"sig"`
	PCRs    map[uint64]cbor.ByteString `cbor:"pcrs"`
}

// quoteResult is what a quote proves: that the PCRs of the AK's TPM had these values when
// the challenge was known.
type quoteResult struct {
	pcrs   []any // of int64, as facts have numbers
	bank   string
	digest string
}

// bankNames are the banks that may be quoted, as the fact pcr_bank names them.
var bankNames = map[crypto.Hash]string{crypto.SHA256: "sha256", crypto.SHA384: "sha384", crypto.SHA512: "sha512"}

func verifyQuote(raw []byte, ak crypto.PublicKey, challenge []byte) (*quoteResult, error) {
	if len(raw) > maxQuote {
		return nil, fmt.Errorf("%d octets, of which at most %d are read", len(raw), maxQuote)
	}
	var q tpmQuote
	if err := decodeCBOR(raw, &q); err != nil {
		return nil, err
	}
	switch {
	case q.Version != 1:
		return nil, fmt.Errorf("ver is %d: only 1 is known here", q.Version)
	case len(q.Quoted) == 0 || len(q.Quoted) > maxStructure:
		return nil, fmt.Errorf("quoted has %d octets: 1 to %d are due", len(q.Quoted), maxStructure)
	case len(q.Sig) == 0 || len(q.Sig) > maxStructure:
		return nil, fmt.Errorf("sig has %d octets: 1 to %d are due", len(q.Sig), maxStructure)
	}
	alg, err := algorithmFor(q.Alg, ak)
	if err != nil {
		return nil, err
	}
	if err := alg.verify(ak, []byte(q.Quoted), []byte(q.Sig)); err != nil {
		return nil, fmt.Errorf("sig over quoted: %w", err)
	}
	return q.judge(tpmHash(alg.hash), challenge)
}

// judge says what a quote proves whose signature has been verified; hash is the AK's.
func (q *tpmQuote) judge(hash crypto.Hash, challenge []byte) (*quoteResult, error) {
	info, err := parseAttest([]byte(q.Quoted))
	if err != nil {
		return nil, fmt.Errorf("quoted: %w", err)
	}
	bank := tpmHash(info.bank)
	switch {
	case info.kind != attestQuote:
		return nil, fmt.Errorf("quoted: type %#04x, where TPM_ST_ATTEST_QUOTE (0x8018) is due", info.kind)
	case subtle.ConstantTimeCompare(info.extraData, sum(crypto.SHA256, challenge)) != 1:
		return nil, errors.New("quoted: extraData is not the SHA-256 of this challenge's key authorization: quote anew, for this challenge and account")
	case bank == 0:
		return nil, fmt.Errorf("quoted: the bank of hash %#04x, where SHA-256 (0x000b), SHA-384 or SHA-512 is due", info.bank)
	case len(info.selected) != len(q.PCRs):
		return nil, fmt.Errorf("%d PCRs are quoted, and pcrs has %d", len(info.selected), len(q.PCRs))
	case len(info.selected) < bootPCRs || info.selected[bootPCRs-1] != bootPCRs-1:
		return nil, errors.New("quoted: PCRs 0 to 7, which measure the boot, are not all quoted")
	}
	// A TPM hashes them by the hash that it signs with; the fact is by SHA-256 at all times.
	var values [][]byte
	result := quoteResult{bank: bankNames[bank]}
	for _, i := range info.selected {
		value := []byte(q.PCRs[uint64(i)])
		if i >= pcrCount || len(value) != bank.Size() {
			return nil, fmt.Errorf("PCR %d is quoted, and pcrs does not have it with %d octets", i, bank.Size())
		}
		values = append(values, value)
		result.pcrs = append(result.pcrs, int64(i))
	}
	if subtle.ConstantTimeCompare(info.pcrDigest, sum(hash, values...)) != 1 {
		return nil, errors.New("pcrs are not the values that were quoted: pcrDigest differs")
	}
	result.digest = hex.EncodeToString(sum(crypto.SHA256, values...))
	return &result, nil
}
