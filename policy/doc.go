// Package policy decides what a device earns.
//
// A policy file (YAML, policy.yaml) names certificate profiles, trust levels and outcome
// rules. [Parse] reads it whole and reports every fault with its line; what it
// returns is valid and immutable. [Policy.Decide] takes the facts of one
// request and answers with an outcome, the rule that gave it, and the reasons;
// [Policy.Explain] does the same and says every rule tried. [Policy.Grants] lists
// what a policy can issue, for a CA to lint when it loads one.
// The package is pure: no clock, no I/O, nothing of ours imported.
package policy
