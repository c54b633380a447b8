package ca

import (
	"crypto"
	"crypto/x509"
	"strconv"
	"time"

	"github.com/deviceca/deviceca/device"
	"github.com/deviceca/deviceca/policy"
)

// Request is one request for one certificate, whatever the protocol: what a
// protocol server makes of a message once it has decoded it, authenticated the
// requester, and checked proof of possession.
type Request struct {
	Protocol  string // "est", "acme", "cmp"
	Requester Requester
	Renew     bool // subject and SANs must be those of the certificate replaced (EST simplereenroll, CMP kur)

	PublicKey crypto.PublicKey
	SPKI      []byte // SubjectPublicKeyInfo, DER
	Names     Names
	Profile   string    // asked for; "" is the level's default, or on renewal the old certificate's
	NotAfter  time.Time // asked for; zero is the policy's. Earlier is granted, later is not.
	NotBefore time.Time // asked for; zero is the policy's. The protocol has seen that it lies within the backdating.
	Evidence  []policy.Evidence
	Address   string // of the peer, for the log
	// ServerKey says that the key was made by us for the device; Bound, that the
	// request is bound to the TLS connection it came over. Profiles forbid the one and demand the other.
	ServerKey, Bound bool
	// Possession says how far it was proven that the device has the private key.
	Possession Possession
	// Replaces is the certificate that an ACME order says it renews.
	Replaces Serial
	// With, if set, is called with what is about to be handed out, before it is
	// recorded; what it returns becomes Issuance.With. So what a protocol must remember with the
	// certificate (the answer to repeat, the order that is fulfilled) is durable together with it, or neither is. It may be
	// called more than once, and is not for what was issued before (Issued.Again). Its error refuses the request.
	With func(*Issued) (any, error)
	// Approvers are registration authorities that approve of what the requester asks
	// for itself (CMP's nested messages, RFC 9483 §5.2.2.1). They add nothing to what
	// it may have; each must be free to act for the device.
	Approvers []*RA
	// Forwarded is the device whose own message the requester, a registration
	// authority, hands on: the certificate must be for that. "" where nothing shows it.
	Forwarded string
}

// Possession is how far it was proven to us that a device has the private key of a certificate. Only
// a proven certificate owns its key: no other device may then have one for it.
type Possession int

const (
	Proven  Possession = iota // by a signature, or by the answer to a challenge; or the key was made here
	Vouched                   // a registration authority says that it has verified it (RFC 4211 §4, raVerified)
	Later                     // the certificate goes out encrypted, and its certConf will be the proof (RFC 9810 §5.2.8.3.2)
)

// Requester is who asks, and how that was proven. Make it with
// Service.AuthenticateSecret, Service.AuthenticateCertificate or
// Service.AccountRequester; the zero value earns nothing.
type Requester struct {
	Kind       policy.RequesterKind
	Device     string             // the one device it may act for; "" where Credential or RA decides
	Credential *device.Credential // with ByCredential
	// Certificate is the ledger's record of the certificate shown (as
	// Ledger.Presented reads it), with ByCertificate and ByQuarantine. Lapsed is how long ago it expired.
	Certificate  *Certificate
	Lapsed       time.Duration
	Manufacturer *Manufacturer // with ByIDevID: who issued the certificate that names Device
	RA           *RA           // with ByRA
	Account      int64         // the ACME account that stands for Credential, or for nobody with ByAccount

	standing *device.Device    // the device's line, read together with Certificate
	leaf     *x509.Certificate // Certificate, parsed
}

// Actor names the requester in the audit log.
func (r Requester) Actor() string {
	if r.Account != 0 {
		return AccountActor(r.Account)
	}
	if r.Credential != nil {
		return "credential:" + r.Credential.Reference
	}
	if r.Manufacturer != nil {
		return "manufacturer:" + r.Manufacturer.Name
	}
	if r.RA != nil {
		return "ra:" + r.RA.Name
	}
	return "device:" + r.Device
}

// mark is Actor, but tells a manufacturer or a registration authority from another that had its name before.
func (r Requester) mark() string {
	switch {
	case r.Manufacturer != nil:
		return r.Manufacturer.Mark()
	case r.RA != nil:
		return r.RA.Mark()
	}
	return r.Actor()
}

// mark names an entry of the register. What was marked with it is no other entry's of the same name, unless that
// continues its line: see [Register].
func mark(kind, name string, lineage int64) string {
	if lineage == 0 {
		return kind + ":" + name
	}
	return kind + ":" + name + "#" + strconv.FormatInt(lineage, 10) // # is in no name
}

// Names is what a request asks the certificate to say.
type Names struct {
	Subject []Attribute // in the order asked, RDNs flattened
	SANs    []SAN
}

// Attribute is one attribute of a subject. Attr is "cn", "o", "ou", "c", "l",
// "st", "serialnumber", or a dotted OID.
type Attribute struct{ Attr, Value string }

// SAN is one subject alternative name. Form is "dns", "uri", "ip", "email",
// "permanent-identifier" (RFC 4043), "hardware-module" (RFC 4108), or "other"
// with Value saying what it was.
type SAN struct{ Form, Value string }

// Issued is what Enroll hands out. Its record is durable.
type Issued struct {
	Certificate *Certificate
	Chain       [][]byte // the issuing CA's certificates up to but without the root, DER
	Outcome     policy.Outcome
	Reasons     []string
	Again       bool // the same certificate as before, for a reply that was lost
}
