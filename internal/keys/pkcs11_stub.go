//go:build !cgo

package keys

import (
	"context"
	"errors"
)

var errNoCgo = errors.New("keys: this build has file keys only: PKCS#11 needs one made with CGO_ENABLED=1")

func openToken(context.Context, URI, Options) (Provider, error) { return nil, errNoCgo }

// InitToken needs a build with cgo.
func InitToken(modulePath, label, soPIN, userPIN string) error { return errNoCgo }
