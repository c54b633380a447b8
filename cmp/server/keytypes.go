package server

import (
	"encoding/asn1"
	"slices"
	"strings"

	"github.com/deviceca/deviceca/cmp"
	"github.com/deviceca/deviceca/policy"
)

var (
	oidEC      = asn1.ObjectIdentifier{1, 2, 840, 10045, 2, 1}
	oidRSA     = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 1}
	oidEd25519 = asn1.ObjectIdentifier{1, 3, 101, 112}
	curves     = map[string]asn1.ObjectIdentifier{
		"ecdsa-p256": {1, 2, 840, 10045, 3, 1, 7}, "ecdsa-p384": {1, 3, 132, 0, 34}, "ecdsa-p521": {1, 3, 132, 0, 35}}
	// oidAES256CBC is what our EnvelopedData is encrypted with, and what every peer reads (RFC 9481 §5).
	oidAES256CBC = asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 1, 42}
)

// keyAlgorithms are the algorithms of keys, by policy's names, each once.
func keyAlgorithms(keys []string) (list []cmp.Algorithm) {
	rsa := false
	for _, key := range keys {
		switch curve, ok := curves[key]; {
		case ok:
			params, _ := asn1.Marshal(curve)
			list = append(list, cmp.Algorithm{OID: oidEC, Params: params})
		case key == "ed25519":
			list = append(list, cmp.Algorithm{OID: oidEd25519})
		case strings.HasPrefix(key, "rsa-") && !rsa:
			rsa = true
			list = append(list, cmp.Algorithm{OID: oidRSA, Params: []byte{5, 0}})
		}
	}
	return list
}

// signingKeys are the keys of a profile that may sign, by its key usage.
func signingKeys(p policy.Profile) []string {
	if slices.Contains(p.KeyUsage, "digitalSignature") || slices.Contains(p.KeyUsage, "contentCommitment") {
		return p.Keys
	}
	return nil
}

// encryptionKeys are the keys of a profile that may encrypt (RSA) or agree on keys (ECDH).
func encryptionKeys(p policy.Profile) (keys []string) {
	encrypts := slices.Contains(p.KeyUsage, "keyEncipherment") || slices.Contains(p.KeyUsage, "dataEncipherment")
	agrees := slices.Contains(p.KeyUsage, "keyAgreement")
	for _, key := range p.Keys {
		_, curve := curves[key]
		if curve && agrees || encrypts && strings.HasPrefix(key, "rsa-") {
			keys = append(keys, key)
		}
	}
	return keys
}
