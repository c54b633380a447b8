//go:build !race

package stacktest

// many is how many certificates a full ledger has here.
const many = 100_000
