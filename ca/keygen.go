package ca

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"fmt"
	"math/big"
	"runtime"
	"slices"
)

// makers make keys, by policy's names. What a profile has beside these the devices make.
var makers = map[string]func() (crypto.Signer, error){
	"ecdsa-p256": func() (crypto.Signer, error) { return ecdsa.GenerateKey(elliptic.P256(), rand.Reader) },
	"ecdsa-p384": func() (crypto.Signer, error) { return ecdsa.GenerateKey(elliptic.P384(), rand.Reader) },
	"rsa-2048":   func() (crypto.Signer, error) { return rsa.GenerateKey(rand.Reader, 2048) },
	"rsa-3072":   func() (crypto.Signer, error) { return rsa.GenerateKey(rand.Reader, 3072) },
	"ed25519": func() (crypto.Signer, error) {
		_, key, err := ed25519.GenerateKey(rand.Reader)
		return key, err
	},
}

// making bounds how many keys are made at a time: an RSA key takes a processor
// for the better part of a second.
var making = make(chan struct{}, runtime.GOMAXPROCS(0))

// MakeKey makes a key for a device that shall not make its own (RFC 7030 §4.4,
// RFC 9483 §4.1.6): of the kind hinted at if it is among kinds, or the first of
// them that is made here. It waits for its turn until ctx ends. Kinds are named as
// policy.KeyAlgorithm does. Denied if none of them is made here. The caller wipes the key.
func MakeKey(ctx context.Context, kinds []string, hint string) (crypto.Signer, error) {
	kind := kindToMake(kinds, hint)
	if kind == "" {
		return nil, Errorf(Denied, "the profile has no kind of key that the server makes: make one on the device")
	}
	select {
	case making <- struct{}{}:
		defer func() { <-making }()
	case <-ctx.Done():
		return nil, Away("the maker of keys", context.Cause(ctx))
	}
	key, err := makers[kind]()
	if err != nil {
		return nil, fmt.Errorf("making a key of kind %s: %w", kind, err)
	}
	return key, nil
}

func kindToMake(kinds []string, hint string) string {
	if slices.Contains(kinds, hint) && makers[hint] != nil {
		return hint
	}
	for _, name := range kinds {
		if makers[name] != nil {
			return name
		}
	}
	return ""
}

// WipeKey overwrites a private key where Go lets us reach it; what the library
// derived from it for its own use goes with the garbage collector.
func WipeKey(key crypto.Signer) {
	number := func(n *big.Int) { clear(n.Bits()) }
	switch k := key.(type) {
	case *ecdsa.PrivateKey:
		number(k.D)
	case *rsa.PrivateKey:
		number(k.D)
		for _, p := range k.Primes {
			number(p)
		}
		number(k.Precomputed.Dp)
		number(k.Precomputed.Dq)
		number(k.Precomputed.Qinv)
	case ed25519.PrivateKey:
		clear(k)
	}
}
