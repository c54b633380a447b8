package cmp

import (
	encasn1 "encoding/asn1"
	"slices"
	"time"

	"golang.org/x/crypto/cryptobyte/asn1"

	"github.com/deviceca/deviceca/internal/der"
)

// Info is an InfoTypeAndValue: SEQUENCE { infoType OBJECT IDENTIFIER, infoValue ANY OPTIONAL }.
type Info struct {
	Type  encasn1.ObjectIdentifier
	Value []byte // one element in DER; nil when absent
}

// Infos is a generalInfo, or the content of genm and genp.
type Infos []Info

func idIT(n int) encasn1.ObjectIdentifier {
	return encasn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 4, n}
}

// Types of Info (RFC 9810 §5.1.1, §5.3.19).
var (
	OIDCAProtEncCert     = idIT(1)
	OIDSignKeyPairTypes  = idIT(2)
	OIDEncKeyPairTypes   = idIT(3)
	OIDPreferredSymmAlg  = idIT(4)
	OIDCAKeyUpdateInfo   = idIT(5)
	OIDCurrentCRL        = idIT(6)
	OIDUnsupportedOIDs   = idIT(7)
	OIDKeyPairParamReq   = idIT(10)
	OIDKeyPairParamRep   = idIT(11)
	OIDRevPassphrase     = idIT(12)
	OIDImplicitConfirm   = idIT(13)
	OIDConfirmWaitTime   = idIT(14)
	OIDOrigPKIMessage    = idIT(15)
	OIDSuppLangTags      = idIT(16)
	OIDCACerts           = idIT(17)
	OIDRootCAKeyUpdate   = idIT(18)
	OIDCertReqTemplate   = idIT(19)
	OIDRootCACert        = idIT(20)
	OIDCertProfile       = idIT(21)
	OIDCRLStatusList     = idIT(22)
	OIDCRLs              = idIT(23)
	OIDKEMCiphertextInfo = idIT(24)
)

func readInfo(r *in) Info {
	s := r.seq("InfoTypeAndValue")
	v := Info{Type: s.oid("infoType")}
	if !s.s.Empty() {
		v.Value = s.anyElement("infoValue")
	}
	s.end("InfoTypeAndValue")
	return v
}

func addInfo(b *out, v Info) {
	b.AddASN1(asn1.SEQUENCE, func(b *out) {
		b.AddASN1ObjectIdentifier(v.Type)
		b.AddBytes(v.Value)
	})
}

// Get returns the first info of a type.
func (l Infos) Get(oid encasn1.ObjectIdentifier) (Info, bool) {
	i := slices.IndexFunc(l, func(v Info) bool { return v.Type.Equal(oid) })
	if i < 0 {
		return Info{}, false
	}
	return l[i], true
}

// With returns l without the infos of v's type, and with v.
func (l Infos) With(v Info) Infos { return append(l.Without(v.Type), v) }

// Without returns l without the infos of a type.
func (l Infos) Without(oid encasn1.ObjectIdentifier) Infos {
	return slices.DeleteFunc(slices.Clone(l), func(v Info) bool { return v.Type.Equal(oid) })
}

// infoOf decodes the value of the info of a type, if that is there.
func infoOf[T any](l Infos, oid encasn1.ObjectIdentifier, what string, read func(*in) T) (v T, found bool, err error) {
	info, found := l.Get(oid)
	if !found {
		return v, false, nil
	}
	if info.Value == nil {
		return v, true, refuse(BadDataFormat, generic, "%s has no value", what)
	}
	v, err = parseValue(info.Value, what, read)
	return v, true, err
}

// ImplicitConfirm reports whether the requester asks to leave out certConf, or in
// an answer, whether that was granted. Its value must be NULL (RFC 9483 §3.1);
// anything else is badRequest.
func (l Infos) ImplicitConfirm() (bool, error) {
	info, found := l.Get(OIDImplicitConfirm)
	if found && !slices.Equal(info.Value, derNull) {
		return false, refuse(BadRequest, "RFC 9483 §3.1", "the value of implicitConfirm is not NULL")
	}
	return found, nil
}

// CheckSyntax checks the values that a request's generalInfo may have and that RFC 9483 §3.1 knows, whether or not
// they matter in that message (RFC 9483 §3.5). Errors are those of the single values.
func (l Infos) CheckSyntax() error {
	if _, err := l.ImplicitConfirm(); err != nil {
		return err
	}
	if _, _, err := l.ConfirmWaitTime(); err != nil {
		return err
	}
	_, _, err := l.CertProfile()
	return err
}

var derNull = []byte{5, 0}

// ImplicitConfirm makes the generalInfo that asks for, or grants, implicit confirmation.
func ImplicitConfirm() Info { return Info{OIDImplicitConfirm, slices.Clone(derNull)} }

// ConfirmWaitTime returns until when the CA waits for certConf (RFC 9810 §5.1.1.2).
// UTCTime is badDataFormat (RFC 9483 §3.1).
func (l Infos) ConfirmWaitTime() (until time.Time, found bool, err error) {
	return infoOf(l, OIDConfirmWaitTime, "confirmWaitTime", func(r *in) time.Time { return r.time("confirmWaitTime") })
}

// ConfirmWaitTime makes the generalInfo that says until when certConf is waited
// for, at most until the end of the year 9999, when GeneralizedTime ends.
func ConfirmWaitTime(until time.Time) Info {
	if end := time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC); until.After(end) {
		until = end
	}
	return Info{OIDConfirmWaitTime, mustEncode(func(b *out) { addTime(b, until.Truncate(time.Second)) })}
}

// CertProfile returns the names of certificate profiles asked for (RFC 9810
// §5.1.1.4); RFC 9483 §3.1 allows one.
func (l Infos) CertProfile() (names []string, found bool, err error) {
	return infoOf(l, OIDCertProfile, "certProfile", readFreeText)
}

// CertProfile makes the generalInfo that asks for a certificate profile.
func CertProfile(name string) Info {
	return Info{OIDCertProfile, mustEncode(func(b *out) { addFreeText(b, []string{name}) })}
}

// SupportedLangTags returns the languages that the sender reads, best first (RFC 9810 §5.3.19.13).
func (l Infos) SupportedLangTags() (tags []string, found bool, err error) {
	return infoOf(l, OIDSuppLangTags, "suppLangTags", readFreeText)
}

// SupportedLangTags makes the info that lists languages (RFC 5646), best first.
func SupportedLangTags(tags ...string) Info {
	return Info{OIDSuppLangTags, mustEncode(func(b *out) { addFreeText(b, tags) })}
}

// OrigPKIMessage returns the messages that an RA replaced the protection of
// (RFC 9810 §5.1.1.3, RFC 9483 §5.2.3), parsed within the limits.
func (l Infos) OrigPKIMessage(limits Limits) (messages []*Message, found bool, err error) {
	info, found := l.Get(OIDOrigPKIMessage)
	if !found {
		return nil, false, nil
	}
	if err := der.Check(info.Value, maxDepth); err != nil {
		return nil, true, malformed("origPKIMessage", err)
	}
	d := &decoder{limits: limits.withDefaults()}
	r := in{info.Value, d}
	messages = oneOrMore(&r, "origPKIMessage", readMessage)
	r.end("origPKIMessage")
	if d.err != nil {
		return nil, true, d.err
	}
	return messages, true, nil
}

// OrigPKIMessage makes the generalInfo in which an RA hands on the message as it
// got it. m must have been parsed or protected.
func OrigPKIMessage(m *Message) Info {
	return Info{OIDOrigPKIMessage, mustEncode(func(b *out) {
		b.AddASN1(asn1.SEQUENCE, func(b *out) { b.AddBytes(m.raw) })
	})}
}
