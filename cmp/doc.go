// Package cmp reads, checks, makes and shows messages of the Certificate
// Management Protocol, for a client, an RA or a CA: RFC 9810 in the Lightweight
// Profile of RFC 9483, with the algorithms of RFC 9481 and the request format of
// RFC 4211. It knows no transport and keeps no state.
package cmp
