package crl

import (
	"fmt"
	"math/big"

	"github.com/deviceca/deviceca/internal/revlist"
)

// Lists are read by package revlist, which manufacturers' lists go through as well.
type (
	List  = revlist.List
	Line  = revlist.Line
	Scope = revlist.Scope
)

// Errors of Parse, and of Verify and Lookup.
var (
	ErrMalformed  = revlist.ErrMalformed
	ErrNotTrusted = revlist.ErrNotTrusted
)

// Parse reads a list strictly as DER; see [revlist.Parse].
func Parse(in []byte) (*List, error) { return revlist.Parse(in) }

func malformed(what string) error { return fmt.Errorf("%w: %s", ErrMalformed, what) }

// Lookup says whether a serial is revoked; see [revlist.Lookup].
func Lookup(complete, delta *List, serial *big.Int) (*Line, error) {
	return revlist.Lookup(complete, delta, serial)
}
