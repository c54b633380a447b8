package client

import (
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"io/fs"
	"slices"
)

// pending is a request on its way: it is on disk before it is sent, so that a lost reply, an approval that takes days or a
// crash is followed by the same request with the same key. A CA that already issued can
// then give that certificate again, and a credential for one use strands nobody.
type pending struct {
	purpose string // digest of all that must not change between the attempts
	key     crypto.Signer
	state   []byte // the Enroller's, see Request.State
}

// purpose ties a kept request to what is asked for: another server, label, name,
// kind of key or act makes another request.
func purpose(parts ...[]byte) string {
	h := sha256.New()
	for _, p := range parts {
		sum := sha256.Sum256(p)
		h.Write(sum[:])
	}
	return hex.EncodeToString(h.Sum(nil))
}

const pendingBlock = "DEVICECA REQUEST"

func (s *Store) savePending(p pending) error {
	spki, err := x509.MarshalPKIXPublicKey(p.key.Public())
	if err != nil {
		return saveError(requestFile, err)
	}
	text := pem.EncodeToMemory(&pem.Block{Type: pendingBlock, Bytes: p.state,
		Headers: map[string]string{"Purpose": p.purpose, "Key": purpose(spki)}})
	if s.Signer == nil {
		key, err := EncodeKey(p.key)
		if err != nil {
			return err
		}
		text = slices.Concat(key, text)
	}
	return s.write(requestFile, text, 0o600)
}

// loadPending is the kept request for this purpose, or nil: one for another
// purpose or key is of no use any more, nor is one that cannot be read.
func (s *Store) loadPending(purposeWanted string) (*pending, error) {
	text, err := s.read(requestFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, &Error{Kind: Local, Op: "load", Text: requestFile + " cannot be read", Err: err}
	}
	for rest := text; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			return nil, nil
		}
		if block.Type != pendingBlock {
			continue
		}
		key := s.Signer
		if key == nil {
			if key, err = ParseKey(text); err != nil {
				return nil, nil
			}
		}
		spki, err := x509.MarshalPKIXPublicKey(key.Public())
		if err != nil || block.Headers["Key"] != purpose(spki) || block.Headers["Purpose"] != purposeWanted {
			return nil, nil
		}
		return &pending{purpose: purposeWanted, key: key, state: block.Bytes}, nil
	}
}
