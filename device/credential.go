package device

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"path"
	"strings"
	"time"
)

// Credential lets devices enrol: one device, or a group whose device IDs match
// one of Names. EST Basic and the CMP MAC use the ASCII of its secret; ACME's
// external account binding uses the HMAC key derived from it.
type Credential struct {
	Reference string     `json:"reference"`        // public; EST user, CMP reference, ACME kid
	Device    string     `json:"device,omitempty"` // of one device, or
	Group     string     `json:"group,omitempty"`  // of a group,
	Names     []string   `json:"names,omitempty"`  // with globs over device IDs (path.Match syntax)
	Level     string     `json:"level"`
	Uses      int        `json:"uses"` // durable issuances allowed
	Used      int        `json:"used"`
	Created   time.Time  `json:"created"`
	Expires   time.Time  `json:"expires"`
	Revoked   *time.Time `json:"revoked,omitempty"`
	Sealed    []byte     `json:"-"` // the secret under the data key, see Sealer
}

// ErrNotUsable is wrapped by Usable's errors.
var ErrNotUsable = errors.New("credential not usable")

// Usable reports why the credential may not be used at now, apart from its uses.
func (c *Credential) Usable(now time.Time) error {
	switch {
	case c.Revoked != nil:
		return fmt.Errorf("%w: it was revoked; ask for a new one", ErrNotUsable)
	case !now.Before(c.Expires):
		return fmt.Errorf("%w: it expired at %s; ask for a new one", ErrNotUsable, c.Expires.UTC().Format(time.RFC3339))
	}
	return nil
}

// Spent reports whether every use is gone.
func (c *Credential) Spent() bool { return c.Used >= c.Uses }

// Covers reports whether the credential may enrol the device id.
func (c *Credential) Covers(id string) bool {
	if c.Device != "" {
		return SameID(c.Device, id)
	}
	for _, glob := range c.Names {
		if ok, _ := path.Match(Fold(glob), Fold(id)); ok {
			return true
		}
	}
	return false
}

// CheckGlob reports whether glob can select device IDs.
func CheckGlob(glob string) error {
	if _, err := path.Match(glob, "x"); err != nil || glob == "" {
		return fmt.Errorf("%q is not a name pattern: use a device ID with * and ?, for example lamp-*", glob)
	}
	return nil
}

// Secret is an enrolment secret: 32 random bytes, as 43 characters of base64url.
type Secret string

// NewSecret makes a secret from the system's random source.
func NewSecret() Secret {
	var raw [32]byte
	rand.Read(raw[:]) // never fails (crypto/rand)
	return Secret(base64.RawURLEncoding.EncodeToString(raw[:]))
}

// NewReference makes a credential's public name: 80 random bits in 16 characters of base32.
func NewReference() string { return strings.ToLower(rand.Text()[:16]) }

// Equal compares in a time that does not depend on the secret, nor on where it differs.
func (s Secret) Equal(offered string) bool {
	a, b := sha256.Sum256([]byte(s)), sha256.Sum256([]byte(offered))
	return hmac.Equal(a[:], b[:])
}

// HMACKey derives the key of ACME's external account binding (RFC 8555 §7.3.4).
// It is HKDF-SHA256 (RFC 5869) with no salt, so that whoever holds the secret
// can compute it.
func (s Secret) HMACKey() []byte {
	key, err := hkdf.Key(sha256.New, []byte(s), nil, "deviceca acme eab", 32)
	if err != nil {
		panic(err) // lengths are constants
	}
	return key
}

// String keeps secrets out of logs.
func (s Secret) String() string { return "[secret]" }

// Sealer keeps secrets at rest: AES-256-GCM under the data key, bound to the
// credential's reference.
type Sealer struct{ aead cipher.AEAD }

// NewSealer takes the 32-byte data key.
func NewSealer(dataKey []byte) (*Sealer, error) {
	block, err := aes.NewCipher(dataKey)
	if err != nil || len(dataKey) != 32 {
		return nil, errors.New("the data key is not 32 bytes")
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return nil, err
	}
	return &Sealer{aead}, nil
}

// Seal encrypts the secret of the credential called reference.
func (s *Sealer) Seal(reference string, secret Secret) []byte {
	return s.aead.Seal(nil, nil, []byte(secret), []byte(reference))
}

// Open is the reverse; it fails if the ciphertext or the reference was changed.
func (s *Sealer) Open(reference string, sealed []byte) (Secret, error) {
	raw, err := s.aead.Open(nil, nil, sealed, []byte(reference))
	if err != nil {
		return "", fmt.Errorf("the secret of credential %s does not open under this data key: %w", reference, err)
	}
	return Secret(raw), nil
}
