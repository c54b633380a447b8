// Package audit is a log that shows when somebody changed it.
//
// Events are written in batches, one [Entry] per batch. An entry holds the
// Merkle root over its events and the hash of the entry before it, so that
// the newest entry commits to every event ever written. A [Checkpoint] is an
// entry's hash signed by a key that whoever can write to the database does not
// hold; [Verify] reads a log from beginning to end against its checkpoints.
//
// What that proves: nothing up to the newest checkpoint was changed, removed,
// inserted or reordered. What it cannot prove: anything about entries newer
// than that; and whoever can write to the database can delete the newest
// checkpoints too. So checkpoints leave the machine as heads ([HeadFile], and
// the webhook), and [CheckHead] holds the log against them.
//
// Events may be dropped when they are old enough, if a checkpoint says so; the
// entries stay, and with them the proof for what is left.
//
// [Verify] also compares the events with the tables that they speak of: a
// certificate or revocation without its event, or an event without its record, is a fault.
package audit

import (
	"crypto/sha256"
	"encoding/binary"
	"math/bits"
	"time"
)

// Entry is one link of the chain: a batch of events that became durable
// together.
type Entry struct {
	Sequence uint64    // dense, from 1
	Time     time.Time // of the commit, by the writer's clock, in microseconds
	Count    int       // events in the batch, at least 1
	Root     [32]byte  // Root over the events
	Previous [32]byte  // Hash of the entry before; zero for the first
}

// Hash is the link to this entry: SHA-256 over
//
//	"deviceca audit entry v1" 0x00   24 octets
//	Sequence                         uint64, big endian
//	Time                             int64, big endian, microseconds since 1970 UTC
//	Count                            uint32, big endian
//	Root                             32 octets
//	Previous                         32 octets
func (e Entry) Hash() [32]byte {
	const label = "deviceca audit entry v1\x00"
	b := make([]byte, 0, len(label)+8+8+4+32+32)
	b = append(b, label...)
	b = binary.BigEndian.AppendUint64(b, e.Sequence)
	b = binary.BigEndian.AppendUint64(b, uint64(e.Time.UnixMicro()))
	b = binary.BigEndian.AppendUint32(b, uint32(e.Count))
	b = append(b, e.Root[:]...)
	b = append(b, e.Previous[:]...)
	return sha256.Sum256(b)
}

// Root is the Merkle tree hash of RFC 6962 §2.1 over leaves:
//
//	MTH({})     = SHA-256()
//	MTH({d})    = SHA-256(0x00 || d)
//	MTH(D[0:n]) = SHA-256(0x01 || MTH(D[0:k]) || MTH(D[k:n])), k the largest power of two below n
func Root(leaves [][]byte) [32]byte {
	switch n := len(leaves); n {
	case 0:
		return sha256.Sum256(nil)
	case 1:
		h := sha256.New()
		h.Write([]byte{0})
		h.Write(leaves[0])
		return [32]byte(h.Sum(nil))
	default:
		k := 1 << (bits.Len(uint(n-1)) - 1)
		left, right := Root(leaves[:k]), Root(leaves[k:])
		node := make([]byte, 0, 1+32+32)
		node = append(node, 1)
		node = append(node, left[:]...)
		node = append(node, right[:]...)
		return sha256.Sum256(node)
	}
}
