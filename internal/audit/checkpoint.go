package audit

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"time"
)

// Checkpoint is a signed statement that the log, at some moment, ended with
// the entry Sequence whose hash is Head. As JSON it is a head, see [HeadKind].
type Checkpoint struct {
	Sequence  uint64
	Head      [32]byte
	Time      time.Time // when it was signed, in microseconds
	Key       string    // name of the signing key, for Keys
	Signature []byte
	// Dropped, if it is not 0, states besides that the events of the entries up to
	// this one may be gone. Only the act of dropping them signs it: a number in the database states nothing.
	Dropped uint64
}

// ErrSignature is returned by Verify when a checkpoint was not signed by the key.
var ErrSignature = errors.New("the signature of the checkpoint is wrong")

// Keys finds the public key that goes by the name in a checkpoint.
type Keys func(name string) (crypto.PublicKey, error)

// OneKey is Keys for a log that one key signs; the name is not looked at.
func OneKey(pub crypto.PublicKey) Keys {
	return func(string) (crypto.PublicKey, error) { return pub, nil }
}

// message is what a checkpoint's signature covers:
//
//	"deviceca audit checkpoint v1" 0x00   29 octets
//	Sequence                              uint64, big endian
//	Head                                  32 octets
//	Time                                  int64, big endian, microseconds since 1970 UTC
//	Key                                   the rest
//
// With Dropped it begins with "deviceca audit dropped v1" 0x00 (26 octets) and
// Dropped (uint64, big endian) instead.
func (c Checkpoint) message() []byte {
	b := []byte("deviceca audit checkpoint v1\x00")
	if c.Dropped != 0 {
		b = binary.BigEndian.AppendUint64([]byte("deviceca audit dropped v1\x00"), c.Dropped)
	}
	b = binary.BigEndian.AppendUint64(b, c.Sequence)
	b = append(b, c.Head[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(c.Time.UnixMicro()))
	return append(b, c.Key...)
}

// Sign makes the checkpoint of e. ECDSA and RSA (PKCS #1 v1.5) sign the
// message's SHA-256, Ed25519 the message itself.
func Sign(signer crypto.Signer, key string, e Entry, now time.Time) (Checkpoint, error) {
	return sign(signer, Checkpoint{Sequence: e.Sequence, Head: e.Hash(), Key: key}, now)
}

// SignDropped is Sign that states besides that the events of the entries up to e
// are dropped.
func SignDropped(signer crypto.Signer, key string, e Entry, now time.Time) (Checkpoint, error) {
	return sign(signer, Checkpoint{Sequence: e.Sequence, Head: e.Hash(), Key: key, Dropped: e.Sequence}, now)
}

func sign(signer crypto.Signer, c Checkpoint, now time.Time) (Checkpoint, error) {
	c.Time = now.UTC().Truncate(time.Microsecond)
	input, hash := c.message(), crypto.Hash(0)
	if _, pure := signer.Public().(ed25519.PublicKey); !pure {
		digest := sha256.Sum256(input)
		input, hash = digest[:], crypto.SHA256
	}
	var err error
	if c.Signature, err = signer.Sign(rand.Reader, input, hash); err != nil {
		return Checkpoint{}, fmt.Errorf("audit checkpoint %d: %w", c.Sequence, err)
	}
	return c, nil
}

// Verify checks the signature. It fails with ErrSignature, or because the kind
// of key is none that Sign knows.
func (c Checkpoint) Verify(pub crypto.PublicKey) error {
	digest := sha256.Sum256(c.message())
	var good bool
	switch pub := pub.(type) {
	case *ecdsa.PublicKey:
		good = ecdsa.VerifyASN1(pub, digest[:], c.Signature)
	case *rsa.PublicKey:
		good = rsa.VerifyPKCS1v15(pub, crypto.SHA256, digest[:], c.Signature) == nil
	case ed25519.PublicKey:
		good = ed25519.Verify(pub, c.message(), c.Signature)
	default:
		return fmt.Errorf("a key of type %T signs no checkpoints", pub)
	}
	if !good {
		return ErrSignature
	}
	return nil
}
