// Package publisher keeps the revocation packs of issuing CAs current and
// serves them; package pack makes them and docs/revocation-pack.md says what they are.
//
// A full pack is made on schedule. Between two of them, each change of the
// revocation journal leads to a new state, to which a relying party that holds
// any state of late comes by one delta.
package publisher
