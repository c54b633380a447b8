//go:build !windows

package tpm

import (
	"github.com/google/go-tpm/tpm2/transport"
	"github.com/google/go-tpm/tpm2/transport/linuxtpm"
	"github.com/google/go-tpm/tpm2/transport/linuxudstpm"
)

func openTPM(path string) (transport.TPMCloser, error) {
	if socket, ok := isSocket(path); ok {
		return linuxudstpm.Open(socket)
	}
	return linuxtpm.Open(path)
}
