// Package acme is the ACME server: RFC 8555 whole, with IP identifiers (RFC 8738), tls-alpn-01 (RFC
// 8737), renewal information (RFC 9773), profiles (draft-ietf-acme-profiles) and attested devices
// (draft-ietf-acme-device-attest), in front of the certificate authority:
//
//	GET  /acme/directory                    where everything is
//	HEAD /acme/new-nonce                    a number to use once; GET too
//	POST /acme/new-account                  by a new key, with an external account binding
//	POST /acme/account/N                    update, deactivate; /orders lists its orders
//	POST /acme/key-change                   another key for the account
//	POST /acme/new-order                    what is wanted
//	POST /acme/order/N                      how far it is; /finalize hands in the CSR
//	POST /acme/authorization/N              what must be proven; deactivate
//	POST /acme/challenge/N/TYPE             it is proven now
//	POST /acme/certificate/SERIAL           the chain, in PEM; /K is alternate chain K
//	POST /acme/revoke-cert
//	GET  /acme/renewal-info/ID              when to renew
//
// One request goes a straight line: a JWS is decoded and verified (jws.go, nonce.go), the account behind it
// found (request.go), and one thing done to one resource (order.go, authorization.go, challenge.go,
// finalize.go, …). What changes goes through [Ledger]; certificates are made by the core's Enroll alone, in whose
// transaction an order becomes valid. Names that are served on a network are
// looked at by a [Validator], evidence is judged by an [attest.Verifier]. What a client
// is told is decided in errors.go.
package acme
