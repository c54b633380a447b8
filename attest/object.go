package attest

import (
	"errors"
	"fmt"

	"github.com/fxamacker/cbor/v2"
)

// MaxObject is the longest attestation object that is looked at, in octets.
const MaxObject = 64 << 10

// Object is a WebAuthn attestation object (Level 2 §6.5.4) taken apart:
//
//	object = { "fmt": tstr, "attStmt": { * tstr => any }, ? "authData": bstr }
//
// authData is optional, for ACME would rather not have it (draft-ietf-acme-device-attest §5).
type Object struct {
	Format    string // WebAuthn attestation statement format identifier
	Statement []byte // attStmt, CBOR: Statement.Raw
	AuthData  []byte // nil if absent
}

// ParseObject reads an attestation object. The statement in it is well-formed CBOR
// and a map, and is otherwise not looked at. Errors wrap ErrEvidence.
func ParseObject(raw []byte) (*Object, error) {
	if len(raw) > MaxObject {
		return nil, refuse("attestation object: %d octets, of which at most %d are read", len(raw), MaxObject)
	}
	var o struct {
		Format    string           `cbor:"fmt"`
		Statement cbor.RawMessage  `cbor:"attStmt"`
		AuthData  *cbor.ByteString `cbor:"authData"`
	}
	err := decodeCBOR(raw, &o)
	switch {
	case err != nil:
	case o.Format == "":
		err = errors.New("fmt is missing")
	case len(o.Statement) == 0:
		err = errors.New("attStmt is missing")
	case o.Statement[0]>>5 != 5: // major type 5
		err = errors.New("attStmt is not a map")
	}
	if err != nil {
		return nil, refuse("attestation object: %w", err)
	}
	out := &Object{Format: o.Format, Statement: o.Statement}
	if o.AuthData != nil {
		out.AuthData = o.AuthData.Bytes()
	}
	return out, nil
}

// strict reads what RFC 8949 calls valid and nothing looser: no key twice, no key that is
// unknown or in another case, no tags, no indefinite lengths, UTF-8 that is UTF-8, and all of it shallow and short.
var strict = func() cbor.DecMode {
	mode, err := cbor.DecOptions{
		DupMapKey:         cbor.DupMapKeyEnforcedAPF,
		ExtraReturnErrors: cbor.ExtraDecErrorUnknownField,
		FieldNameMatching: cbor.FieldNameMatchingCaseSensitive,
		IndefLength:       cbor.IndefLengthForbidden,
		TagsMd:            cbor.TagsForbidden,
		UTF8:              cbor.UTF8RejectInvalid,
		MaxNestedLevels:   4, // object, attStmt, x5c, and one to spare: the least that the library takes
		MaxArrayElements:  16,
		MaxMapPairs:       32,
	}.DecMode()
	if err != nil {
		panic(err) // the options above are constants
	}
	return mode
}()

// decodeCBOR reads one CBOR item into v. Byte strings are of type cbor.ByteString in
// v: into []byte the library would read arrays of numbers as well.
func decodeCBOR(in []byte, v any) error {
	if err := strict.Unmarshal(in, v); err != nil {
		return fmt.Errorf("not the CBOR that is due: %w", err)
	}
	return nil
}
