//go:build race

package stacktest

// many is fewer under the race detector, which makes the test's own SQLite (not
// that of the program, which is built without) slower by a factor of twenty.
const many = 5_000
