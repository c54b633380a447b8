//go:build windows

package tpm

import (
	"errors"

	"github.com/google/go-tpm/tpm2/transport"
)

func openTPM(string) (transport.TPMCloser, error) {
	return nil, errors.New("TPMs are reached through device files and Unix sockets, which this system does not have")
}
