package policy

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// RemediationEKU is the only extended key usage of quarantine certificates
// and of the CA that issues them, so that ordinary relying parties refuse them.
const RemediationEKU = "1.3.6.1.4.1.55555.1.1"

var ekuNames = []string{"clientAuth", "serverAuth", "codeSigning", "emailProtection", "timeStamping"}

// ekuRefused would turn a device into part of the PKI.
var ekuRefused = map[string]string{
	"anyExtendedKeyUsage":    "would let the device act as anything",
	"2.5.29.37.0":            "would let the device act as anything",
	"OCSPSigning":            "would make every device an OCSP responder of the CA (RFC 6960 §4.2.2.2)",
	"1.3.6.1.5.5.7.3.9":      "would make every device an OCSP responder of the CA (RFC 6960 §4.2.2.2)",
	"1.3.6.1.5.5.7.3.27":     "would make every device a CA to its peers (RFC 6402 §2.10)",
	"1.3.6.1.5.5.7.3.28":     "would make every device a registration authority (RFC 6402 §2.10)",
	"2.23.133.8.1":           "marks a TPM endorsement key, not a device",
	"2.23.133.8.3":           "marks a TPM attestation key, not a device",
	"1.3.6.1.4.1.311.20.2.1": "would let the device request certificates for others",
}

func (d *document) ekuName(v value, w string) (string, bool) {
	if why := ekuRefused[w]; why != "" {
		d.fault(v, "leave it out", "%q %s", w, why)
		return "", false
	}
	if validOID(w) {
		return w, true
	}
	if slices.Contains(ekuNames, w) {
		return w, true
	}
	hint := didYouMean(w, ekuNames)
	if nearest(w, ekuNames) == "" {
		hint += `; anything else by its OID, like "1.3.6.1.5.5.7.3.17"`
	}
	d.fault(v, hint, "unknown extended key usage %q", short(w))
	return "", false
}

// usageKeys says which kinds of key a key usage suits (RFC 3279 §2.3.1, RFC
// 5480 §3, RFC 8410 §5).
var usageKeys = map[string]string{
	"digitalSignature":  "ecdsa rsa ed25519",
	"contentCommitment": "ecdsa rsa ed25519",
	"keyEncipherment":   "rsa",
	"dataEncipherment":  "rsa",
	"keyAgreement":      "ecdsa",
	"encipherOnly":      "ecdsa",
	"decipherOnly":      "ecdsa",
}

var usageNames = []string{"digitalSignature", "contentCommitment", "keyEncipherment", "dataEncipherment", "keyAgreement", "encipherOnly", "decipherOnly"}

func (d *document) usageName(v value, w string) (string, bool) {
	switch w {
	case "keyCertSign", "cRLSign":
		d.fault(v, "leave it out", "%q is for CAs, and devices are none", w)
		return "", false
	case "nonRepudiation": // its name before X.509 of 2000
		return "contentCommitment", true
	}
	return d.oneOf("key usage", usageNames...)(v, w)
}

// usageSuits reports key usages that a key algorithm of the profile cannot have.
func (d *document) usageSuits(v value, usage, keys []string) {
	for _, u := range usage {
		for _, k := range keys {
			kind, _, _ := strings.Cut(k, "-")
			if !slices.Contains(strings.Fields(usageKeys[u]), kind) {
				d.fault(v, fmt.Sprintf("leave out %q, or make a profile without %s keys", u, kind), "key usage %q is not for %s keys", u, kind)
				break
			}
		}
	}
	if !slices.Contains(usage, "keyAgreement") && (slices.Contains(usage, "encipherOnly") || slices.Contains(usage, "decipherOnly")) {
		d.fault(v, `add "keyAgreement"`, "encipherOnly and decipherOnly mean nothing without keyAgreement (RFC 5280 §4.2.1.3)")
	}
}

// validOID accepts dotted OIDs whose arcs fit in 31 bits.
func validOID(s string) bool {
	arcs := strings.Split(s, ".")
	if len(arcs) < 2 || len(arcs) > 32 {
		return false
	}
	for i, a := range arcs {
		n, err := strconv.ParseUint(a, 10, 31)
		if err != nil || strconv.FormatUint(n, 10) != a || i == 0 && n > 2 || i == 1 && n > 39 && arcs[0] != "2" {
			return false
		}
	}
	return true
}

func (d *document) oid(v value, s string) (string, bool) {
	if !validOID(s) {
		d.fault(v, `write it dotted and in quotes, like "1.3.6.1.4.1.55555.2.1"`, "%q is not an OID", short(s))
		return "", false
	}
	return s, true
}
