// Package keys holds the private keys of a CA where nobody can copy them.
//
// A [Provider] is one place that holds keys: a PKCS#11 token (the default, any
// module) or, for development, a directory of encrypted PKCS#8 files. [Open]
// finds one by URI. What it makes and finds are [Key] values: crypto.Signer
// with a name. The key material stays behind the provider, and so does the key
// under which [Provider.Seal] encrypts the few secrets that a CA must store.
//
// A token that goes away costs nothing but the time it is away: calls fail with
// [ErrUnavailable] at once, and the provider brings sessions, login and module
// back by itself. A key that somebody replaced on the token is found out: it
// signs nothing until it is put back.
package keys

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Spec names a kind of key.
type Spec string

// The kinds of key that a provider makes. Ed25519 needs a token that knows
// CKM_EC_EDWARDS_KEY_PAIR_GEN (PKCS#11 3.0).
const (
	ECDSAP256 Spec = "ecdsa-p256"
	ECDSAP384 Spec = "ecdsa-p384"
	RSA3072   Spec = "rsa-3072"
	RSA4096   Spec = "rsa-4096"
	Ed25519   Spec = "ed25519"

	// DefaultSpec is what an empty Spec means.
	DefaultSpec = ECDSAP256
)

// Specs lists every kind of key.
func Specs() []Spec { return []Spec{ECDSAP256, ECDSAP384, RSA3072, RSA4096, Ed25519} }

// normal gives the spec that s means, or an error that lists the choices.
func (s Spec) normal() (Spec, error) {
	if s == "" {
		return DefaultSpec, nil
	}
	if !slices.Contains(Specs(), s) {
		return "", fmt.Errorf("keys: unknown kind of key %q: use one of %v", string(s), Specs())
	}
	return s, nil
}

// Provider is one place that holds private keys: one token, or one directory.
// It is safe for concurrent use.
type Provider interface {
	// Generate makes a key pair on the provider and returns it. The private key
	// is sensitive and never extractable. The label is 1 to 64 bytes of
	// printable UTF-8; one in use is ErrExists.
	Generate(ctx context.Context, label string, spec Spec) (Key, error)
	// Key finds a key by label; ErrNotFound if the provider answers and has none.
	Key(ctx context.Context, label string) (Key, error)
	// Seal encrypts a secret of up to MaxSecret bytes under a key that never
	// leaves the provider and that the first Seal creates: by AES-GCM, or by what
	// the provider has (see SealedBy). The result opens only with the same aad.
	Seal(ctx context.Context, plaintext, aad []byte) ([]byte, error)
	// Unseal is the reverse of Seal. Anything but an unchanged result of Seal
	// with its aad is ErrSealed.
	Unseal(ctx context.Context, sealed, aad []byte) ([]byte, error)
	// Check says beforehand, and without making anything, why the provider would not
	// make keys of these kinds under these labels (ErrExists for one in use, ErrNotOffered for
	// a kind that it never makes), or would not Seal.
	Check(ctx context.Context, want map[string]Spec, seal bool) error
	// Undo destroys what this Provider value has made since it was opened, and nothing
	// else: keys by Generate, and the wrapping key if one of its Seals made it.
	Undo(ctx context.Context) error
	// Ping asks the provider itself whether it answers now, and whether every key
	// that is suspect (see Key) signs right again; ErrUnavailable, which names the
	// key, if not. It returns when ctx ends, even if the provider hangs.
	Ping(ctx context.Context) error
	// Close ends every session. Calls afterwards, also on keys of this
	// provider, return ErrUnavailable. Closing twice is fine.
	Close() error
}

// Key is a crypto.Signer with a name. Sign is safe for concurrent use and
// returns an error matching ErrUnavailable when the token is away or too many
// callers wait for it.
//
// Sign takes a SHA-256, SHA-384 or SHA-512 digest for ECDSA and RSA (with
// *rsa.PSSOptions for PSS), the message itself for Ed25519, and ignores its
// io.Reader.
//
// Sign returns no signature that it did not verify under Public, which never
// changes: callers need not verify again. A key whose signature was wrong, that
// is gone, or whose public half changed on the provider is suspect: Sign fails with ErrUnavailable
// at once, and Ping fails, until a trial shows that the key is what it was. The provider tries by itself.
type Key interface {
	crypto.Signer
	// URI names the key (RFC 7512, or file:), without any PIN.
	URI() string
	Label() string
}

// MaxSecret is the most bytes that Seal takes.
const MaxSecret = 4096

var (
	// ErrUnavailable means that the provider does not answer now; try again later.
	ErrUnavailable = errors.New("keys: provider unavailable")
	// ErrNotFound means that the provider answers and has no such key.
	ErrNotFound = errors.New("keys: no such key")
	// ErrExists means that the label is in use.
	ErrExists = errors.New("keys: label in use")
	// ErrPIN means that the PIN or passphrase was refused. A provider never
	// tries again by itself, so that a token is not locked by it.
	ErrPIN = errors.New("keys: PIN refused")
	// ErrNotOffered means that the provider is well and does not make such a key.
	ErrNotOffered = errors.New("keys: not offered")
	// ErrSealed means that a sealed secret does not open: another provider's,
	// another aad, or changed bytes.
	ErrSealed = errors.New("keys: sealed secret does not open")

	errClosed = fmt.Errorf("%w: it was closed", ErrUnavailable)
)

// Options say how to open a provider.
type Options struct {
	// PIN is the user PIN of the token, or the passphrase of the key files.
	// It may come as pin-source in a pkcs11 URI instead, but not from both.
	PIN PINSource
	// Sessions is how many sessions work in parallel at most; 0 means 8. One
	// more holds the login.
	Sessions int
	// Queue is how many callers may wait for a session; 0 means 256. One more
	// gets ErrUnavailable at once.
	Queue int
	// Wait is how long a caller waits for a session, and for the first attempt
	// at reconnecting a lost token; 0 means 2 s.
	Wait time.Duration
	// AllowFile permits file: providers, which are for development.
	AllowFile bool
	// Logger hears of lost and regained tokens; nil means slog.Default().
	Logger *slog.Logger
}

func (o Options) withDefaults() (Options, error) {
	if o.Sessions < 0 || o.Queue < 0 || o.Wait < 0 {
		return o, errors.New("keys: Sessions, Queue and Wait cannot be negative: leave them 0 for the defaults")
	}
	if o.Sessions == 0 {
		o.Sessions = 8
	}
	if o.Queue == 0 {
		o.Queue = 256
	}
	if o.Wait == 0 {
		o.Wait = 2 * time.Second
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	return o, nil
}

// Open opens the provider that uri names: "pkcs11:token=NAME?module-path=/…"
// (RFC 7512, the token by label or serial) or "file:/directory".
func Open(ctx context.Context, uri string, opts Options) (Provider, error) {
	opts, err := opts.withDefaults()
	if err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	scheme, _, _ := strings.Cut(uri, ":")
	switch strings.ToLower(scheme) {
	case "pkcs11":
		u, err := ParseURI(uri)
		if err != nil {
			return nil, err
		}
		return openToken(ctx, u, opts)
	case "file":
		return openFile(uri, opts)
	}
	// The URI is not repeated: it may be a secret put in the wrong place.
	return nil, errors.New("keys: unknown provider URI: want pkcs11:token=NAME?module-path=/path/to/module.so or file:/directory")
}

func checkLabel(label string) error {
	if label == "" || len(label) > 64 || !utf8.ValidString(label) ||
		strings.ContainsFunc(label, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return fmt.Errorf("keys: bad label %q: want 1 to 64 bytes of printable UTF-8", label)
	}
	return nil
}

func checkSecret(plaintext []byte) error {
	if len(plaintext) > MaxSecret {
		return fmt.Errorf("keys: secret of %d bytes: Seal takes at most %d", len(plaintext), MaxSecret)
	}
	return nil
}

// checkDigest refuses what only some providers would refuse, before it reaches
// one: so that a caller's mistake never looks like a token's failure.
func checkDigest(pub crypto.PublicKey, digest []byte, opts crypto.SignerOpts) error {
	if opts == nil {
		return errors.New("keys: Sign needs options that name the hash")
	}
	if _, ok := pub.(ed25519.PublicKey); ok {
		if o, ok := opts.(*ed25519.Options); ok && o.Context != "" || opts.HashFunc() != 0 {
			return errors.New("keys: an Ed25519 key signs the message itself: pass crypto.Hash(0)")
		}
		return nil
	}
	switch h := opts.HashFunc(); h {
	case crypto.SHA256, crypto.SHA384, crypto.SHA512:
		if len(digest) != h.Size() {
			return fmt.Errorf("keys: digest of %d bytes is no %v digest", len(digest), h)
		}
	default:
		return fmt.Errorf("keys: hash %d is not one that is signed: use SHA-256, SHA-384 or SHA-512", uint(h))
	}
	pss, isPSS := opts.(*rsa.PSSOptions)
	switch pub := pub.(type) {
	case *rsa.PublicKey:
		if isPSS {
			_, err := pssSaltLength(pub, pss)
			return err
		}
	default:
		if isPSS {
			return errors.New("keys: PSS options for a key that is not RSA")
		}
	}
	return nil
}

// pssSaltLength gives the salt length in octets (RFC 8017 §9.1.1).
func pssSaltLength(pub *rsa.PublicKey, opts *rsa.PSSOptions) (int, error) {
	hash := opts.HashFunc().Size()
	longest := (pub.N.BitLen()-1+7)/8 - 2 - hash
	salt := opts.SaltLength
	switch salt {
	case rsa.PSSSaltLengthAuto:
		salt = longest
	case rsa.PSSSaltLengthEqualsHash:
		salt = hash
	}
	if salt < 0 || salt > longest {
		return 0, fmt.Errorf("keys: PSS salt of %d bytes: this key takes 0 to %d", salt, longest)
	}
	return salt, nil
}

func curveOf(spec Spec) elliptic.Curve {
	if spec == ECDSAP384 {
		return elliptic.P384()
	}
	return elliptic.P256()
}

func rsaBits(spec Spec) int {
	if spec == RSA4096 {
		return 4096
	}
	return 3072
}
