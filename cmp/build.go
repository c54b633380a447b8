package cmp

import (
	"crypto/rand"
	"time"
)

// HeaderOptions fill the header of a first message. The zero value is usable.
type HeaderOptions struct {
	Recipient GeneralName // the CA; nil, not known, becomes the NULL-DN
	Time      time.Time   // messageTime; left out when zero
	Infos     Infos       // generalInfo: ImplicitConfirm, CertProfile, …
}

// NewRequest makes the first message of a transaction, with a fresh 128-bit
// transactionID and senderNonce (RFC 9483 §3.1). Protect it, then send Raw.
func NewRequest(body Body, o HeaderOptions) *Message {
	h := Header{
		Version:       versionFor(body),
		Recipient:     o.Recipient,
		Time:          o.Time.Truncate(time.Second),
		TransactionID: nonce(),
		SenderNonce:   nonce(),
		GeneralInfo:   o.Infos,
	}
	return &Message{Header: h, Body: body}
}

// Reply makes the message that answers to, which may itself be an answer: a CA
// replies to an ir, and the requester to the ip with its certConf or pollReq. It
// echoes transactionID and version, returns the senderNonce as recipNonce,
// addresses the sender, and has a fresh senderNonce. A version that we do not
// speak becomes the nearest that we do (RFC 9810 §7). now becomes messageTime;
// zero leaves it out. Body nil is for the caller to fill in.
func Reply(to *Message, body Body, now time.Time) *Message {
	h := Header{
		// A peer that speaks 3 only where it must may get an EnvelopedData back,
		// and then so must the version (RFC 9483 §3.1).
		Version:       max(min(to.Header.Version, CMP2021), versionFor(body)),
		Recipient:     to.Header.Sender,
		Time:          now.Truncate(time.Second),
		TransactionID: to.Header.TransactionID,
		SenderNonce:   nonce(),
		RecipNonce:    to.Header.SenderNonce,
	}
	return &Message{Header: h, Body: body}
}

// ReplyError answers any message with an error body that says why (RFC 9483 §3.6.4).
func ReplyError(to *Message, err error, now time.Time) *Message {
	return Reply(to, &ErrorBody{Status: StatusOf(err)}, now)
}

// NewNested wraps messages for the next hop (RFC 9483 §5.2.2): one message keeps its
// transactionID and senderNonce, by which the receiver knows that the RA approves
// of it; of several none is approved, and they get fresh ones. Each message must
// have been parsed or protected.
func NewNested(o HeaderOptions, messages ...*Message) *Message {
	m := NewRequest(&NestedMessages{Messages: messages}, o)
	if len(messages) == 1 {
		m.Header.TransactionID = messages[0].Header.TransactionID
		m.Header.SenderNonce = messages[0].Header.SenderNonce
	}
	return m
}

func nonce() []byte {
	n := make([]byte, minNonce)
	rand.Read(n)
	return n
}

// versionFor is 3 where EnvelopedData or hashAlg demands it, else 2 (RFC 9483 §3.1).
func versionFor(body Body) int {
	needs := false
	switch b := body.(type) {
	case *CertRequests:
		for _, r := range b.Requests {
			// No proof of possession: the CA is to make the key, and to send it in EnvelopedData.
			p := r.POP
			needs = needs || p == nil || p.Key != nil && (p.Key.Method == AgreeMAC || p.Key.Method == EncryptedKeyPOP ||
				p.Key.Method == SubsequentMessage)
		}
	case *CertResponses:
		for _, r := range b.Responses {
			if k := r.KeyPair; k != nil {
				needs = needs || k.EncryptedCert != nil && k.EncryptedCert.EnvelopedData != nil ||
					k.PrivateKey != nil && k.PrivateKey.EnvelopedData != nil
			}
		}
	case *Confirmations:
		for _, c := range b.List {
			needs = needs || c.HashAlg.Present()
		}
	case *Challenges:
		for _, c := range b.List {
			needs = needs || c.EncryptedRand != nil
		}
	}
	if needs {
		return CMP2021
	}
	return CMP2000
}
