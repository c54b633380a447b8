package policy

import "strings"

// Tier is an AR4SI trustworthiness tier (draft-ietf-rats-ar4si §2.3.2). Tiers
// are ordered from no statement to the worst one.
type Tier int8

const (
	None            Tier = iota // nothing is said; never as good as affirming
	Affirming                   // the verifier affirms the aspect
	Warning                     // the verifier warns about it
	Contraindicated             // the verifier says it is not to be trusted
)

// TierOf gives the tier of a claim's value. Negative ranges, for reasons that
// no standard lists, reach one further than the positive ones.
func TierOf(value int8) Tier {
	switch {
	case value >= -1 && value <= 1:
		return None
	case value >= -32 && value <= 31:
		return Affirming
	case value >= -96 && value <= 95:
		return Warning
	}
	return Contraindicated
}

func (t Tier) String() string {
	switch t {
	case None:
		return "NONE"
	case Affirming:
		return "AFFIRMING"
	case Warning:
		return "WARNING"
	}
	return "CONTRAINDICATED"
}

// claims are AR4SI's, as `verdict.` names them.
var claims = [...]string{"hardware", "executables", "instance_identity", "configuration",
	"file_system", "runtime_opaque", "storage_opaque", "sourced_data"}

// claimIndex finds a claim; drafts write "-" where CEL needs "_".
func claimIndex(name string) int {
	name = strings.ReplaceAll(name, "-", "_")
	for i, c := range claims {
		if c == name {
			return i
		}
	}
	return -1
}

// verdict is what all evidence of one request amounts to.
type verdict struct {
	claims            [len(claims)]Tier
	any               Tier
	affirming         bool // each kind demanded is there, says something affirming and nothing worse
	missing           string
	missingRequired   bool
	requiredAffirming bool
}

// weigh takes the worst tier per claim over all evidence: bad news counts
// whoever brings it, good news only in evidence of a kind that was demanded.
// A claim that AR4SI does not name counts in `any`.
func weigh(evidence []Evidence, demanded []string) (v verdict) {
	for i := range evidence {
		for name, value := range evidence[i].Vector {
			tier := TierOf(value)
			v.any = max(v.any, tier)
			if c := claimIndex(name); c >= 0 {
				v.claims[c] = max(v.claims[c], tier)
			}
		}
	}
	v.affirming = true
	for _, kind := range demanded {
		present, worst := false, None
		for i := range evidence {
			if evidence[i].Kind != kind {
				continue
			}
			present = true
			for _, value := range evidence[i].Vector {
				worst = max(worst, TierOf(value))
			}
		}
		if !present && v.missing == "" {
			v.missing = kind
		}
		v.affirming = v.affirming && worst == Affirming
	}
	return v
}
