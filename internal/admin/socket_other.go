//go:build !linux

package admin

import (
	"net"
	"os"
)

// peerUID trusts the socket's mode: who got through is the owner.
func peerUID(*net.UnixConn) (int, error) { return os.Geteuid(), nil }
