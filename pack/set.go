package pack

import (
	"crypto/sha256"
	"encoding/binary"
	"iter"
	"slices"
)

// blockBits is the width of a block: indices that agree above their low 16 bits lie together.
const blockBits = 16

// block holds the revoked indices num<<16 … num<<16+65535 by their low halves, ascending and never empty. It is never
// changed once made: sets that follow each other share the blocks in which they agree.
type block struct {
	num uint32
	low []uint16
	sum [sha256.Size]byte // over low, big-endian
}

// set is an immutable set of 48-bit indices, two octets each and 64 per block that is not empty. A look-up costs two
// binary searches; what follows from a change costs in proportion to the change and the number of blocks.
type set struct {
	blocks []block
	n      uint64
}

// setBuilder takes indices in strictly ascending order.
type setBuilder struct {
	low    []uint16
	nums   []uint32
	starts []int
}

func (b *setBuilder) add(index uint64) {
	num := uint32(index >> blockBits)
	if len(b.nums) == 0 || b.nums[len(b.nums)-1] != num {
		b.nums = append(b.nums, num)
		b.starts = append(b.starts, len(b.low))
	}
	b.low = append(b.low, uint16(index))
}

func (b *setBuilder) set() set {
	blocks := make([]block, len(b.nums))
	for i, num := range b.nums {
		end := len(b.low)
		if i+1 < len(b.starts) {
			end = b.starts[i+1]
		}
		blocks[i] = newBlock(num, b.low[b.starts[i]:end:end])
	}
	return set{blocks: blocks, n: uint64(len(b.low))}
}

func newBlock(num uint32, low []uint16) block {
	var buf [512]byte
	h := sha256.New()
	for part := range slices.Chunk(low, len(buf)/2) {
		for i, v := range part {
			binary.BigEndian.PutUint16(buf[2*i:], v)
		}
		h.Write(buf[:2*len(part)])
	}
	b := block{num: num, low: low}
	h.Sum(b.sum[:0])
	return b
}

// hash is SHA-256 over, for each block that is not empty, its number (4 octets) and its sum.
func (s set) hash() (out Hash) {
	h := sha256.New()
	var num [4]byte
	for i := range s.blocks {
		binary.BigEndian.PutUint32(num[:], s.blocks[i].num)
		h.Write(num[:])
		h.Write(s.blocks[i].sum[:])
	}
	h.Sum(out[:0])
	return out
}

func (s set) contains(index uint64) bool {
	num := uint32(index >> blockBits)
	lo, hi := 0, len(s.blocks)
	for lo < hi {
		mid := int(uint(lo+hi) >> 1)
		if s.blocks[mid].num < num {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	if lo == len(s.blocks) || s.blocks[lo].num != num {
		return false
	}
	_, found := slices.BinarySearch(s.blocks[lo].low, uint16(index))
	return found
}

// offsets yields the members, ascending, less first. All members must be at or above first.
func (s set) offsets(first uint64) iter.Seq[uint64] {
	return func(yield func(uint64) bool) {
		for i := range s.blocks {
			start := uint64(s.blocks[i].num)<<blockBits - first // may wrap; adding a member unwraps it
			for _, low := range s.blocks[i].low {
				if !yield(start + uint64(low)) {
					return
				}
			}
		}
	}
}

// from is the set without the members below first.
func (s set) from(first uint64) set {
	num := uint32(first >> blockBits)
	blocks := s.blocks
	for len(blocks) > 0 && blocks[0].num < num {
		s.n -= uint64(len(blocks[0].low))
		blocks = blocks[1:]
	}
	if len(blocks) > 0 && blocks[0].num == num {
		b := blocks[0]
		cut, _ := slices.BinarySearch(b.low, uint16(first))
		s.n -= uint64(cut)
		switch {
		case cut == len(b.low):
			blocks = blocks[1:]
		case cut > 0:
			blocks = slices.Clone(blocks)
			blocks[0] = newBlock(num, b.low[cut:])
		}
	}
	s.blocks = blocks
	return s
}

// with is the set with added put in and removed taken out. It reports false if a member is added again, or removed
// without being there.
func (s set) with(added, removed set) (set, bool) {
	out := make([]block, 0, len(s.blocks)+len(added.blocks))
	old, add, del := s.blocks, added.blocks, removed.blocks
	for len(old)+len(add)+len(del) > 0 {
		num := lowestNum(old, add, del)
		unchanged := len(old) > 0 && old[0].num == num
		var keep block
		if unchanged {
			keep = old[0]
		}
		var base, in, gone []uint16
		old, base = pop(old, num)
		add, in = pop(add, num)
		del, gone = pop(del, num)
		if in == nil && gone == nil {
			out = append(out, keep)
			continue
		}
		low, ok := merge(base, in, gone)
		if !ok {
			return set{}, false
		}
		if len(low) > 0 {
			out = append(out, newBlock(num, low))
		}
	}
	return set{blocks: out, n: s.n + added.n - removed.n}, true
}

// diff finds what turns s into to.
func (s set) diff(to set) (added, removed set) {
	var in, gone setBuilder
	old, next := s.blocks, to.blocks
	for len(old)+len(next) > 0 {
		num := lowestNum(old, next, nil)
		if len(old) > 0 && len(next) > 0 && old[0].num == next[0].num && old[0].sum == next[0].sum {
			old, next = old[1:], next[1:]
			continue
		}
		var a, b []uint16
		old, a = pop(old, num)
		next, b = pop(next, num)
		start := uint64(num) << blockBits
		for len(a)+len(b) > 0 {
			switch {
			case len(b) == 0 || len(a) > 0 && a[0] < b[0]:
				gone.add(start + uint64(a[0]))
				a = a[1:]
			case len(a) == 0 || b[0] < a[0]:
				in.add(start + uint64(b[0]))
				b = b[1:]
			default:
				a, b = a[1:], b[1:]
			}
		}
	}
	return in.set(), gone.set()
}

func lowestNum(lists ...[]block) uint32 {
	lowest := uint32(1<<32 - 1)
	for _, l := range lists {
		if len(l) > 0 {
			lowest = min(lowest, l[0].num)
		}
	}
	return lowest
}

// pop takes the members of block num off the front of a list, if they are there.
func pop(list []block, num uint32) ([]block, []uint16) {
	if len(list) == 0 || list[0].num != num {
		return list, nil
	}
	return list[1:], list[0].low
}

func merge(base, added, removed []uint16) ([]uint16, bool) {
	out := make([]uint16, 0, len(base)+len(added))
	for len(base)+len(added) > 0 {
		if len(base) == 0 || len(added) > 0 && added[0] < base[0] {
			out = append(out, added[0])
			added = added[1:]
			continue
		}
		if len(added) > 0 && added[0] == base[0] {
			return nil, false
		}
		if len(removed) > 0 && removed[0] == base[0] {
			removed = removed[1:]
		} else {
			out = append(out, base[0])
		}
		base = base[1:]
	}
	return out, len(removed) == 0
}
