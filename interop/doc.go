// Package interop drives real third-party clients against the built program:
// nothing in it is ours but the server. Its tests carry the build tag interop
// and are run by `make test`; a client that is missing is a failure. Relying parties carry the tag long as well, and
// are run by `make test-long`. Those of
// smallstep's step carry the tag step as well, and are run by `make interop-step`.
package interop
