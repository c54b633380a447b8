//go:build peers

// Package peers pins globalsign/est, whose client and server are independent
// peers in the interop tests and the benchmark. It is a module of its own, since
// it compiles only beside an old go-tpm.
package peers

import (
	_ "github.com/globalsign/est/cmd/estclient"
	_ "github.com/globalsign/est/cmd/estserver"
)
