// Package ocsp answers certificate status questions: RFC 6960 in the
// high-volume profile of RFC 5019 and its successor draft-ietf-lamps-rfc5019bis,
// with nonces by RFC 9654.
//
// A [Responder] is an http.Handler. Its steady state signs nothing: a question
// for one certificate without a nonce is parsed, looked up once in memory, and
// written. Answers are signed ahead ([Responder.Presign]) or on first ask,
// signed again before half of their life is over ([Responder.Run]), and dropped
// and signed again at once when the status changes ([Responder.Invalidate]).
// What can only be signed for one asker (a nonce, several certificates in one
// question, a serial that was never issued) goes through a budget of its own,
// so that a flood of it leaves the rest alone.
//
// The key that signs is named by a [Signer] per issuer: a [Delegate], which
// keeps a short-lived responder certificate current by itself.
//
// [ParseResponse] and [Verify] are the relying party's side.
package ocsp
