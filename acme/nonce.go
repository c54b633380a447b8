package acme

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"sync"
)

// Nonces makes the numbers that clients may use once (RFC 8555 §6.5). Safe for concurrent use.
type Nonces interface {
	// Make gives a new nonce, in base64url: to somebody whose message an account has just signed,
	// or to a stranger. However many strangers ask for, the nonces of accounts stay good.
	Make(account bool) string
	// Redeem reports whether the nonce is one that was made here, not long ago, and was not redeemed before.
	Redeem(nonce string) bool
}

// nonceWindow is how many nonces of each series may be out at once: one that is older than so many newer ones is
// refused, and the client takes another. A bit each: 1 MiB.
const nonceWindow = 1 << 23

// memoryNonces are two series of numbers in order, one for accounts and one for strangers, each number with a MAC
// under a key that lives as long as the process. To make one, nothing is stored; that one is spent is a bit in
// a ring. Nonces from before the server's start do not verify, so that none is good twice.
type memoryNonces struct {
	key    [32]byte
	window uint64

	mu     sync.Mutex
	series [2]nonceSeries
}

type nonceSeries struct {
	made  uint64   // how many were
	spent []uint64 // bit n modulo window: nonce n was redeemed
}

// ofAccounts is the bit of a nonce's number that tells the two series apart.
const ofAccounts = 1 << 63

// NewNonces are nonces for one server process.
func NewNonces() Nonces { return newNonces(nonceWindow) }

// newNonces: window is a multiple of 64.
func newNonces(window uint64) *memoryNonces {
	n := &memoryNonces{window: window}
	for i := range n.series {
		n.series[i].spent = make([]uint64, window/64)
	}
	rand.Read(n.key[:])
	return n
}

// nonceSize is 8 octets of series and number and 16 of MAC: 32 characters.
const nonceSize = 24

func (n *memoryNonces) mac(number []byte) []byte {
	h := hmac.New(sha256.New, n.key[:])
	h.Write(number)
	return h.Sum(number)[:nonceSize]
}

// Make is part of Nonces.
func (n *memoryNonces) Make(account bool) string {
	s, mark := &n.series[0], uint64(0)
	if account {
		s, mark = &n.series[1], ofAccounts
	}
	n.mu.Lock()
	number := s.made
	s.made++
	s.spent[number%n.window/64] &^= 1 << (number % 64) // of the one that leaves the window
	n.mu.Unlock()
	return base64url.EncodeToString(n.mac(binary.BigEndian.AppendUint64(make([]byte, 0, 40), mark|number)))
}

// Redeem is part of Nonces.
func (n *memoryNonces) Redeem(nonce string) bool {
	if len(nonce) != base64url.EncodedLen(nonceSize) {
		return false
	}
	raw, err := base64url.DecodeString(nonce)
	if err != nil || !hmac.Equal(raw, n.mac(append(make([]byte, 0, 40), raw[:8]...))) {
		return false
	}
	number := binary.BigEndian.Uint64(raw)
	s := &n.series[number>>63]
	number &^= ofAccounts
	n.mu.Lock()
	defer n.mu.Unlock()
	word, bit := &s.spent[number%n.window/64], uint64(1)<<(number%64)
	if number+n.window < s.made || *word&bit != 0 {
		return false
	}
	*word |= bit
	return true
}
