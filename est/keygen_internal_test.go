package est

import (
	"encoding/pem"
	"testing"

	"github.com/deviceca/deviceca/ca"
)

// Whatever the key and signature of a request, it reads as its own request would:
// where ca.ParseCSR takes it, the names are the same.
func FuzzParseUnproven(f *testing.F) {
	for _, v := range vectors(f) {
		if block, _ := pem.Decode(v); block != nil {
			f.Add(block.Bytes)
		}
		if der, err := decodeRequest(v); err == nil {
			f.Add(der)
		}
	}
	f.Fuzz(func(t *testing.T, der []byte) {
		csr, hint, err := parseUnproven(der)
		proven, provenErr := ca.ParseCSR(der)
		if err != nil {
			if s := refuse(err).status; s != 400 {
				t.Fatalf("status %d: %v", s, err)
			}
			if provenErr == nil {
				t.Fatalf("%v, and yet it is a request", err)
			}
			return
		}
		if provenErr == nil && (!csr.Names.Equal(proven.Names) || hint == "" || csr.ChallengePassword != proven.ChallengePassword) {
			t.Fatalf("read as %+v (%s), not as %+v", csr, hint, proven)
		}
	})
}
