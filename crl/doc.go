// Package crl makes, publishes, reads and combines certificate revocation
// lists: complete and delta, whole and partitioned (RFC 5280 §5).
//
// [Build] writes a list of any length from an iterator, in bounded memory.
// A [Publisher] keeps the lists of each CA generation current in a directory,
// and [Handler] serves that directory; so what was published last is served at
// once after a restart, whatever else is away. [Parse], [List.Verify] and
// [Lookup] are the relying party's side.
package crl
