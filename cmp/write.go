package cmp

import (
	"errors"
	"fmt"
	"math/big"
	"time"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"
)

type out = cryptobyte.Builder

// context returns a constructed context-specific tag: [n] EXPLICIT, or IMPLICIT
// of a constructed type.
func context(n uint8) asn1.Tag { return asn1.Tag(n).ContextSpecific().Constructed() }

// primitive returns the tag of [n] IMPLICIT of a primitive type.
func primitive(n uint8) asn1.Tag { return asn1.Tag(n).ContextSpecific() }

func fault(b *out, format string, args ...any) { b.SetError(fmt.Errorf(format, args...)) }

// addRaw adds an element that was made elsewhere; what names it in the error
// for a forgotten one.
func addRaw(b *out, raw []byte, what string) {
	if len(raw) < 2 {
		fault(b, "%s is missing", what)
		return
	}
	b.AddBytes(raw)
}

// addImplicit adds an element under another tag.
func addImplicit(b *out, tag asn1.Tag, raw []byte, what string) {
	if len(raw) < 2 {
		fault(b, "%s is missing", what)
		return
	}
	b.AddUint8(uint8(tag))
	b.AddBytes(raw[1:])
}

func addBits(b *out, v []byte) { b.AddASN1BitString(v) }

func addExplicit(b *out, n uint8, f cryptobyte.BuilderContinuation) { b.AddASN1(context(n), f) }

// addOctets adds [n] EXPLICIT OCTET STRING, or nothing for nil.
func addOctets(b *out, n uint8, v []byte) {
	if v != nil {
		addExplicit(b, n, func(b *out) { b.AddASN1OctetString(v) })
	}
}

func addUTF8(b *out, s string) {
	b.AddASN1(asn1.UTF8String, func(b *out) { b.AddBytes([]byte(s)) })
}

// addTime adds a GeneralizedTime, with the fraction of a second if there is one.
func addTime(b *out, t time.Time) {
	if y := t.UTC().Year(); y < 0 || y > 9999 {
		fault(b, "the year %d does not fit into a GeneralizedTime", y)
		return
	}
	b.AddASN1(asn1.GeneralizedTime, func(b *out) { b.AddBytes([]byte(t.UTC().Format(generalizedTime))) })
}

func addBigInt(b *out, v *big.Int, what string) {
	if v == nil {
		fault(b, "%s is missing", what)
		return
	}
	b.AddASN1BigInt(v)
}

// addList adds a SEQUENCE OF.
func addList[T any](b *out, list []T, add func(*out, T)) {
	b.AddASN1(asn1.SEQUENCE, func(b *out) {
		for _, v := range list {
			add(b, v)
		}
	})
}

func addCerts(b *out, certs [][]byte) {
	addList(b, certs, func(b *out, c []byte) { addRaw(b, c, "certificate") })
}

// encode runs one writer. size is a guess that saves growing.
func encode(size int, f func(*out)) ([]byte, error) {
	b := cryptobyte.NewBuilder(make([]byte, 0, size))
	f(b)
	raw, err := b.Bytes()
	if err != nil {
		return nil, fmt.Errorf("encode CMP: %w", err)
	}
	return raw, nil
}

// mustEncode is for what cannot fail: no times, no elements from outside.
func mustEncode(f func(*out)) []byte {
	raw, err := encode(64, f)
	if err != nil {
		panic(err)
	}
	return raw
}

var errNoBody = errors.New("the message has no body")
