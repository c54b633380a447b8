// Package stacktest tests the program whole: it builds deviceca, makes CAs with
// SoftHSM tokens, and treats them as the world would: bad requests, kill -9,
// tokens and disks that go away, backups, lost replies. It has tests only, and
// needs softhsm2; the test of a full disk mounts a small tmpfs, so it needs root.
package stacktest
