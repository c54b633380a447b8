package acme

import (
	"net/http"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/policy"
)

// Fields of the answers to finalize and to the certificate's URL, beyond RFC 8555: what policy decided, and
// why if it is not all that was asked for. EST has the same.
const (
	OutcomeHeader = "Deviceca-Outcome"
	ReasonHeader  = "Deviceca-Reason" // one field per reason
	maxReasons    = 16
	maxReason     = 200 // octets each, of ASCII
)

func tell(h http.Header, d *policy.Decision) {
	h.Set(OutcomeHeader, string(d.Outcome))
	for _, reason := range d.Reasons[:min(len(d.Reasons), maxReasons)] {
		h.Add(ReasonHeader, ca.FieldValue(reason, maxReason))
	}
}
