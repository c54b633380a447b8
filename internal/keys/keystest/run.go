// Package keystest holds the conformance suite of key providers, and makes
// SoftHSM2 tokens for tests.
package keystest

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/deviceca/deviceca/internal/keys"
)

// Run checks a provider against the contract of keys.Provider. Each open(t)
// must open the same, at first empty, place; specs are the kinds of key that it
// makes. Run closes what it opens.
func Run(t *testing.T, open func(t *testing.T) keys.Provider, specs []keys.Spec) {
	p := open(t)
	defer func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	}()
	for _, c := range []struct {
		name string
		run  func(*testing.T, keys.Provider, []keys.Spec)
	}{
		{"unseal before the first seal", unsealEarly},
		{"each kind of key", kinds},
		{"default kind", defaultKind},
		{"labels", labels},
		{"concurrent makers of one label", oneLabel},
		{"refusals", refusals},
		{"concurrent signing", concurrent},
		{"seal", seal},
		{"ping", ping},
		{"context cancelled", cancelled},
	} {
		t.Run(c.name, func(t *testing.T) { c.run(t, p, specs) })
	}
	t.Run("reopen", func(t *testing.T) { reopen(t, p, open) })
	t.Run("check", func(t *testing.T) { check(t, p, specs) })
	t.Run("undo", func(t *testing.T) { undo(t, p, open) })
	t.Run("close then use", func(t *testing.T) { closed(t, open) })
}

func must[T any](v T, err error) func(t *testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func wantErr(t *testing.T, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("got %v, want %v", err, want)
	}
}

func kindLabel(spec keys.Spec) string { return "kind " + string(spec) }

func kinds(t *testing.T, p keys.Provider, specs []keys.Spec) {
	if len(specs) == 0 {
		t.Fatal("no kinds of key to check")
	}
	for _, spec := range specs {
		t.Run(string(spec), func(t *testing.T) {
			made := must(p.Generate(t.Context(), kindLabel(spec), spec))(t)
			checkSpec(t, made, spec)
			found := must(p.Key(t.Context(), kindLabel(spec)))(t)
			if !samePublic(made, found) || found.URI() != made.URI() || found.Label() != kindLabel(spec) {
				t.Errorf("found another key than was made: %s, %s", found.URI(), made.URI())
			}
			if strings.Contains(made.URI(), "pin") {
				t.Errorf("the URI names a PIN: %s", made.URI())
			}
			for _, k := range []keys.Key{made, found} {
				signAll(t, k)
			}
		})
	}
}

func samePublic(a, b keys.Key) bool {
	return a.Public().(interface{ Equal(crypto.PublicKey) bool }).Equal(b.Public())
}

func checkSpec(t *testing.T, k keys.Key, spec keys.Spec) {
	t.Helper()
	var is keys.Spec
	switch pub := k.Public().(type) {
	case *ecdsa.PublicKey:
		is = keys.Spec(fmt.Sprintf("ecdsa-p%d", pub.Curve.Params().BitSize))
	case *rsa.PublicKey:
		is = keys.Spec(fmt.Sprintf("rsa-%d", pub.N.BitLen()))
		if pub.E != 65537 {
			t.Errorf("public exponent %d", pub.E)
		}
	case ed25519.PublicKey:
		is = keys.Ed25519
	}
	if is != spec {
		t.Errorf("asked for %s, got %q", spec, is)
	}
}

func defaultKind(t *testing.T, p keys.Provider, _ []keys.Spec) {
	k := must(p.Generate(t.Context(), "default", ""))(t)
	checkSpec(t, k, keys.ECDSAP256)
}

func labels(t *testing.T, p keys.Provider, _ []keys.Spec) {
	good := []string{
		"plain", "Plain", "with space", "a/b", "..", ".hidden", "semi;colon&amp=?", "100%2F", `quo"te'`, `back\slash`,
		"ключ-鍵-🔑", "*", "[a]", "-rf", strings.Repeat("x", 64),
	}
	public := make(map[string]keys.Key)
	for _, label := range good {
		public[label] = must(p.Generate(t.Context(), label, keys.ECDSAP256))(t)
	}
	uris := make(map[string]string)
	for _, label := range good {
		k := must(p.Key(t.Context(), label))(t)
		if k.Label() != label || !samePublic(k, public[label]) {
			t.Errorf("label %q leads to another key", label)
		}
		if other, ok := uris[k.URI()]; ok {
			t.Errorf("%q and %q have one URI, %s", label, other, k.URI())
		}
		uris[k.URI()] = label
		_, err := p.Generate(t.Context(), label, keys.ECDSAP256)
		wantErr(t, err, keys.ErrExists)
		if again := must(p.Key(t.Context(), label))(t); !samePublic(again, k) {
			t.Errorf("a refused Generate changed the key %q", label)
		}
	}
	for _, label := range []string{"absent", "plai", "plain ", "%2e%2e"} {
		_, err := p.Key(t.Context(), label)
		wantErr(t, err, keys.ErrNotFound)
	}
	for _, label := range []string{"", "nul\x00", "line\nbreak", "\xff\xfe", strings.Repeat("x", 65)} {
		if _, err := p.Generate(t.Context(), label, keys.ECDSAP256); err == nil {
			t.Errorf("Generate took the label %q", label)
		}
		if _, err := p.Key(t.Context(), label); err == nil {
			t.Errorf("Key took the label %q", label)
		}
	}
}

func oneLabel(t *testing.T, p keys.Provider, _ []keys.Spec) {
	errs := make([]error, 8)
	var wg sync.WaitGroup
	for i := range errs {
		wg.Go(func() { _, errs[i] = p.Generate(t.Context(), "contested", keys.ECDSAP256) })
	}
	wg.Wait()
	made := 0
	for _, err := range errs {
		if err == nil {
			made++
		} else {
			wantErr(t, err, keys.ErrExists)
		}
	}
	if made != 1 {
		t.Errorf("%d callers made the key, want 1", made)
	}
}

func refusals(t *testing.T, p keys.Provider, specs []keys.Spec) {
	if _, err := p.Generate(t.Context(), "unknown kind", "dsa-1024"); err == nil {
		t.Error("Generate made a key of an unknown kind")
	}
	digest := sha256.Sum256([]byte("x"))
	for _, spec := range specs {
		k := must(p.Key(t.Context(), kindLabel(spec)))(t)
		type attempt struct {
			name   string
			digest []byte
			opts   crypto.SignerOpts
		}
		tries := []attempt{
			{"no options", digest[:], nil},
			{"SHA-1", digest[:20], crypto.SHA1},
			{"short digest", digest[:31], crypto.SHA256},
			{"long digest", append(digest[:], 0), crypto.SHA256},
			{"empty digest", nil, crypto.SHA256},
			{"digest of another hash", digest[:], crypto.SHA384},
		}
		if spec != keys.Ed25519 {
			tries = append(tries, attempt{"no hash", digest[:], crypto.Hash(0)})
		}
		if strings.HasPrefix(string(spec), "rsa") {
			tries = append(tries, attempt{"PSS salt too long", digest[:], &rsa.PSSOptions{SaltLength: 4000, Hash: crypto.SHA256}})
		} else {
			tries = append(tries, attempt{"PSS", digest[:], &rsa.PSSOptions{Hash: crypto.SHA256}})
		}
		for _, try := range tries {
			_, err := k.Sign(nil, try.digest, try.opts)
			if err == nil || errors.Is(err, keys.ErrUnavailable) {
				t.Errorf("%s, %s: got %v, want a refusal that does not blame the provider", spec, try.name, err)
			}
		}
		signAll(t, k) // the refusals broke nothing
	}
}

func concurrent(t *testing.T, p keys.Provider, _ []keys.Spec) {
	a := must(p.Key(t.Context(), "default"))(t)
	b := must(p.Key(t.Context(), "plain"))(t)
	var wg sync.WaitGroup
	for i := range 64 {
		wg.Go(func() {
			k := []keys.Key{a, b}[i%2]
			for j := range 20 {
				digest := sha256.Sum256(fmt.Append(nil, i, j))
				sig, err := k.Sign(nil, digest[:], crypto.SHA256)
				if err != nil {
					t.Error(err)
				} else if !ecdsa.VerifyASN1(k.Public().(*ecdsa.PublicKey), digest[:], sig) {
					t.Error("a signature made beside others does not verify")
				}
			}
		})
	}
	wg.Wait()
}

func unsealEarly(t *testing.T, p keys.Provider, _ []keys.Spec) {
	_, err := p.Unseal(t.Context(), append([]byte{1}, make([]byte, 40)...), nil)
	wantErr(t, err, keys.ErrSealed)
}

func seal(t *testing.T, p keys.Provider, _ []keys.Spec) {
	aad := []byte("credential 7")
	seals := make([][]byte, 8)
	var wg sync.WaitGroup
	for i := range seals {
		wg.Go(func() { // the first of them makes the key, the others must use it
			var err error
			if seals[i], err = p.Seal(t.Context(), []byte("secret"), aad); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for i, sealed := range seals {
		if got := must(p.Unseal(t.Context(), sealed, aad))(t); string(got) != "secret" {
			t.Fatalf("unsealed %q", got)
		}
		if bytes.Contains(sealed, []byte("secret")) {
			t.Error("the secret lies open in its sealed form")
		}
		if slices.ContainsFunc(seals[:i], func(b []byte) bool { return bytes.Equal(b, sealed) }) {
			t.Error("sealing twice gave the same bytes: the nonce repeats")
		}
	}
	for _, n := range []int{0, 1, 15, 16, 17, keys.MaxSecret} {
		for _, aad := range [][]byte{nil, aad} {
			secret := bytes.Repeat([]byte{0xa5}, n)
			sealed := must(p.Seal(t.Context(), secret, aad))(t)
			if got := must(p.Unseal(t.Context(), sealed, aad))(t); !bytes.Equal(got, secret) {
				t.Errorf("%d bytes came back as %d others", n, len(got))
			}
		}
	}
	if _, err := p.Seal(t.Context(), make([]byte, keys.MaxSecret+1), nil); err == nil {
		t.Error("Seal took more than MaxSecret bytes")
	}
	sealed := seals[0]
	for _, wrong := range [][]byte{nil, []byte("credential 8"), []byte("credential 77"), []byte("credential ")} {
		_, err := p.Unseal(t.Context(), sealed, wrong)
		wantErr(t, err, keys.ErrSealed)
	}
	step := max(1, len(sealed)/64) // a long one is RSA: slow
	for i := 0; i < len(sealed); i += step {
		bad := bytes.Clone(sealed)
		bad[i] ^= 1 << (i % 8)
		_, err := p.Unseal(t.Context(), bad, aad)
		wantErr(t, err, keys.ErrSealed)
	}
	for n := 0; n < len(sealed); n += step {
		_, err := p.Unseal(t.Context(), sealed[:n], aad)
		wantErr(t, err, keys.ErrSealed)
	}
	_, err := p.Unseal(t.Context(), append(bytes.Clone(sealed), 0), aad)
	wantErr(t, err, keys.ErrSealed)
	_, err = p.Unseal(t.Context(), make([]byte, 100_000), aad)
	wantErr(t, err, keys.ErrSealed)
	must(p.Unseal(t.Context(), sealed, aad))(t) // the refusals broke nothing
}

func ping(t *testing.T, p keys.Provider, _ []keys.Spec) {
	for range 3 {
		if err := p.Ping(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

func cancelled(t *testing.T, p keys.Provider, _ []keys.Spec) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := p.Generate(ctx, "too late", keys.ECDSAP256)
	wantErr(t, err, context.Canceled)
	_, err = p.Key(t.Context(), "too late")
	wantErr(t, err, keys.ErrNotFound)
	_, err = p.Key(ctx, "plain")
	wantErr(t, err, context.Canceled)
	_, err = p.Seal(ctx, nil, nil)
	wantErr(t, err, context.Canceled)
	_, err = p.Unseal(ctx, append([]byte{1}, make([]byte, 40)...), nil)
	wantErr(t, err, context.Canceled)
}

// reopen looks from a second provider at what the first made.
func reopen(t *testing.T, p keys.Provider, open func(t *testing.T) keys.Provider) {
	before := must(p.Key(t.Context(), "plain"))(t)
	sealed := must(p.Seal(t.Context(), []byte("kept"), []byte("aad")))(t)
	q := open(t)
	after := must(q.Key(t.Context(), "plain"))(t)
	if !samePublic(before, after) || before.URI() != after.URI() {
		t.Error("another key after opening again")
	}
	signAll(t, after)
	if got := must(q.Unseal(t.Context(), sealed, []byte("aad")))(t); string(got) != "kept" {
		t.Errorf("unsealed %q", got)
	}
	_, err := q.Generate(t.Context(), "plain", "")
	wantErr(t, err, keys.ErrExists)
	if err := q.Close(); err != nil {
		t.Fatal(err)
	}
	signAll(t, before) // closing one leaves the other alone
}

func closed(t *testing.T, open func(t *testing.T) keys.Provider) {
	p := open(t)
	k := must(p.Key(t.Context(), "plain"))(t)
	for range 2 {
		if err := p.Close(); err != nil {
			t.Fatal(err)
		}
	}
	digest := sha256.Sum256(nil)
	_, err := k.Sign(nil, digest[:], crypto.SHA256)
	wantErr(t, err, keys.ErrUnavailable)
	_, err = p.Key(t.Context(), "plain")
	wantErr(t, err, keys.ErrUnavailable)
	_, err = p.Generate(t.Context(), "after the end", "")
	wantErr(t, err, keys.ErrUnavailable)
	_, err = p.Seal(t.Context(), nil, nil)
	wantErr(t, err, keys.ErrUnavailable)
	wantErr(t, p.Ping(t.Context()), keys.ErrUnavailable)
}
