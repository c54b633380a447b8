package admin

import (
	"fmt"
	"slices"
	"strings"
)

// reasons are the CRLReason names of RFC 5280 §5.3.1, by number; 7 is unused.
var reasons = []string{"unspecified", "keyCompromise", "cACompromise", "affiliationChanged", "superseded",
	"cessationOfOperation", "certificateHold", "", "removeFromCRL", "privilegeWithdrawn", "aACompromise"}

// Reasons lists the revocation reasons that may be given.
func Reasons() []string {
	return slices.DeleteFunc(slices.Clone(reasons), func(r string) bool {
		return r == "" || r == "certificateHold" || r == "removeFromCRL"
	})
}

// ParseReason reads the name of a revocation reason, without case. Revocation
// is for good here, so the two reasons of a temporary one are refused.
func ParseReason(name string) (int, error) {
	for i, known := range reasons {
		if known == "" || !strings.EqualFold(known, name) {
			continue
		}
		if !slices.Contains(Reasons(), known) {
			return 0, fmt.Errorf("reason %s is not supported, since revocation here is for good; to stop a device for a while, suspend it", known)
		}
		return i, nil
	}
	return 0, fmt.Errorf("%q is not a revocation reason; use one of %s", name, strings.Join(Reasons(), ", "))
}

// ReasonName is the reverse of ParseReason.
func ReasonName(code int) string {
	if code < 0 || code >= len(reasons) || reasons[code] == "" {
		return fmt.Sprintf("reason %d", code)
	}
	return reasons[code]
}
