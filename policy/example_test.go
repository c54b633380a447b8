package policy_test

import (
	"fmt"
	"time"

	"github.com/deviceca/deviceca/policy"
)

// The outcomes that docs/policy.md shows.
func ExamplePolicy_Decide() {
	p, err := policy.Parse("policy.yaml", policy.Default())
	if err != nil {
		fmt.Println(err)
		return
	}
	ask := func(level string, names []policy.Name, verifiable []string, evidence ...policy.Evidence) {
		d := p.Decide(policy.Input{Now: time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC), Protocol: "est", Operation: "enroll", Requester: policy.ByCredential,
			Key: "ecdsa-p256", Device: policy.Device{ID: "pump-7", Level: level}, Names: names, Verifiable: verifiable, Evidence: evidence})
		fmt.Printf("%s by rule %q", d.Outcome, d.Rule)
		if d.Profile != "" {
			fmt.Printf(": %s for %s", d.Profile, d.Validity)
		}
		fmt.Println()
		for _, r := range d.Reasons {
			fmt.Println("  " + r)
		}
	}
	facts := map[string]any{"ek_chain": true, "key_certified": true, "quote_age": time.Minute}

	ask("software", []policy.Name{{Form: "dns", Value: "pump-7"}}, nil)
	ask("software", []policy.Name{{Form: "dns", Value: "pump-8"}}, nil)
	ask("tpm", nil, nil)
	ask("tpm", nil, []string{"tpm"})
	ask("tpm", nil, []string{"tpm"}, policy.Evidence{Kind: "tpm", Facts: facts, Vector: policy.Vector{"hardware": 2, "executables": 2}})
	ask("tpm", nil, []string{"tpm"}, policy.Evidence{Kind: "tpm", Facts: facts, Vector: policy.Vector{"hardware": 2, "executables": 33}})
	// Output:
	// issue by rule "sound": device for 24h0m0s
	// deny by rule "profiles.device.names.dns"
	//   The dns name "pump-8" is not one that device pump-7 may have: profile device allows {device.id}.
	// deny by rule "levels.tpm.evidence"
	//   Level tpm demands tpm evidence, which this server cannot verify yet.
	// quarantine by rule "evidence incomplete": remediation for 4h0m0s
	//   Rule "evidence incomplete" puts the device in quarantine: level tpm demands tpm evidence, and the request has none.
	//   Put that right, then enrol again with the quarantine certificate.
	// issue by rule "sound": device for 720h0m0s
	// update-required by rule "old firmware": remediation for 4h0m0s
	//   Rule "old firmware" asks for an update: the evidence speaks against executables (WARNING).
	//   Update the device, then enrol again with the quarantine certificate.
}
