package keystest

import (
	"crypto"
	"crypto/sha256"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/deviceca/deviceca/internal/keys"
)

// Swapped checks what the contract of keys.Key says of a key that somebody
// replaces in its place: it signs nothing, Ping names it, keys beside it go on,
// and it serves again by itself. in puts another key in the place of k, which p made, and out puts it back.
func Swapped(t *testing.T, p keys.Provider, k keys.Key, in, out func()) {
	t.Helper()
	sibling := must(p.Generate(t.Context(), "beside "+k.Label(), ""))(t)
	for range 2 {
		in()
		WaitFor(t, "the key is suspect", func() bool { return names(sign(k), k) && names(p.Ping(t.Context()), k) })
		began := time.Now()
		for range 100 {
			WantSuspect(t, sign(k), k)
		}
		if took := time.Since(began); took > time.Second {
			t.Errorf("100 refusals took %v", took)
		}
		WantSuspect(t, p.Ping(t.Context()), k)
		found, err := p.Key(t.Context(), k.Label())
		if err == nil {
			err = sign(found)
		}
		WantSuspect(t, err, k)
		if err := sign(sibling); err != nil {
			t.Errorf("a key beside it: %v", err)
		}
		out()
		WaitFor(t, "the key signs again", func() bool { return sign(k) == nil })
		if err := p.Ping(t.Context()); err != nil {
			t.Errorf("it signs again, and Ping says %v", err)
		}
		if again := must(p.Key(t.Context(), k.Label()))(t); !samePublic(again, k) {
			t.Error("another key has its label")
		}
	}
}

// WantSuspect checks that an error says that k is suspect.
func WantSuspect(t *testing.T, err error, k keys.Key) {
	t.Helper()
	if !names(err, k) {
		t.Errorf("got %v, want that key %q is unavailable, and named", err, k.Label())
	}
}

func names(err error, k keys.Key) bool {
	return errors.Is(err, keys.ErrUnavailable) && strings.Contains(err.Error(), `"`+k.Label()+`"`)
}

// sign has k, which is no Ed25519 key, sign something.
func sign(k keys.Key) error {
	digest := sha256.Sum256([]byte("something"))
	_, err := k.Sign(nil, digest[:], crypto.SHA256)
	return err
}
