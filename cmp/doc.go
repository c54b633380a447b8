// Package cmp reads, checks, makes and shows messages of the Certificate
// Management Protocol, for a client, an RA or a CA: RFC 9810 in the Lightweight
// Profile of RFC 9483, with the algorithms of RFC 9481 and the request format of
// RFC 4211. It knows no transport and keeps no state.
//
// # Reading
//
// [Parse] decodes one message: DER only, bounded by [Limits], every list, every
// string and every bit of it checked against the grammar. What it accepts,
// [Message.Marshal] gives back octet for octet. The [Body] is told apart by a type
// switch; octets of certificates, names and EnvelopedData stay as they are, in DER.
//
// A parsed message is not to be believed before [Message.Verify], which does the
// generic validation of RFC 9483 §3.5 and says by what the message was protected:
// a shared secret or a certificate. It speaks of the octets that were received,
// so call it before changing any field.
//
//	m, err := cmp.Parse(body)
//	if err != nil { … }
//	by, err := m.Verify(cmp.VerifyOptions{
//		Header: cmp.HeaderRules{First: true, TimeWindow: 5 * time.Minute},
//		Secret: secretOf,                        // reference to secret
//		Trust:  cmp.TrustRoots(roots, time.Now), // or a function of your own
//	})
//	if err != nil { … }
//	switch b := m.Body.(type) {
//	case *cmp.CertRequests: …
//	}
//
// # Answering
//
// [Reply] fills a header that answers a message: transactionID, nonces, recipient,
// version. [Message.Protect] adds what depends on the protection: the sender, the
// senderKID, the algorithm and the extraCerts. A [MAC] that has verified a request
// protects the answer with the same parameters, without deriving its key again;
// [NewSigner] makes a protector of a key and its certificate. [Message.Raw] is
// what to send.
//
// Every refusal of this package is an [Error] that carries the PKIFailureInfo bit
// to answer with and the section of the RFC that was broken; [ReplyError] and
// [StatusOf] turn any error into an answer, without telling strangers about
// faults of our own.
//
// # Asking
//
// [NewRequest] starts a transaction. Certificate requests prove possession of their
// key by [CertReqMsg.SignPOP] and are checked by [CertReqMsg.VerifyPOP]; a
// certificate received is confirmed by [Confirmation]. The infos of genm and genp,
// and of the header, have a function that makes each and a method of [Infos] that
// reads it.
//
// A request without public key and proof asks the CA to make the key: [KeyToGenerate]
// says of which kind, a [KGA] seals it, and [EncryptedKey.OpenKey] opens it. Keys
// that do not sign are proven by what follows ([CertReqMsg.LaterPOP]): a certificate
// that comes encrypted ([SealCertificate], [EncryptedKey.OpenCertificate]), or a [Challenge].
//
// # Forwarding
//
// A registration authority approves of a message by [NewNested] around it, or
// hands on several; both are signed by [Message.Protect] with its own [Signer], and
// what is within keeps its octets and its protection. Where it replaces the protection
// instead, [OrigPKIMessage] shows what it got. A receiver verifies the outer message
// as any other, then each of [NestedMessages] by itself.
//
// # What is left out
//
// KEM-based and Diffie-Hellman-based protection, SHAKE and Ed448; SHA-1 in
// signatures. EncryptedValue, which EnvelopedData has replaced, is carried, not opened.
// The announcements and key recovery answers that RFC 9483 does not use are kept
// as [OpaqueBody].
package cmp
