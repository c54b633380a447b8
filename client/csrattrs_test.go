package client

import (
	"crypto/rsa"
	"encoding/asn1"
	"encoding/base64"
	"testing"
)

func element(t testing.TB, v any) []byte {
	t.Helper()
	out, err := asn1.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// attribute is an Attribute with the given values.
func attribute(t testing.TB, oid asn1.ObjectIdentifier, values ...any) []byte {
	var set []byte
	for _, v := range values {
		set = append(set, element(t, v)...)
	}
	return element(t, struct {
		OID    asn1.ObjectIdentifier
		Values asn1.RawValue
	}{oid, asn1.RawValue{Tag: asn1.TagSet, IsCompound: true, Bytes: set}})
}

func sequence(t testing.TB, parts ...[]byte) []byte {
	var content []byte
	for _, p := range parts {
		content = append(content, p...)
	}
	return element(t, asn1.RawValue{Tag: asn1.TagSequence, IsCompound: true, Bytes: content})
}

// template is a CertificationRequestInfoTemplate that wants a key.
func template(t testing.TB, info ...[]byte) asn1.RawValue {
	var content []byte
	for _, p := range info {
		content = append(content, p...)
	}
	return asn1.RawValue{FullBytes: sequence(t, element(t, 0), sequence(t), // version, empty subject
		element(t, asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 0, IsCompound: true, Bytes: content}),
		element(t, asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 1, IsCompound: true}))}
}

func csrattrsCases(t testing.TB) map[string]struct {
	der  []byte
	key  KeyType
	pass bool
	n    int
} {
	rsa3072, err := GenerateKey(RSA3072)
	if err != nil {
		t.Fatal(err)
	}
	pkcs1 := element(t, *rsa3072.Public().(*rsa.PublicKey))
	rfc7030, err := base64.StdEncoding.DecodeString("MEEGCSqGSIb3DQEJBzASBgcqhkjOPQIBMQcGBSuBBAAiMBYGCSqGSIb3DQEJDjEJBgcrBgEBAQEWBggqhkjOPQQDAw==")
	if err != nil {
		t.Fatal(err)
	}
	unknown := asn1.ObjectIdentifier{1, 2, 3}
	return map[string]struct {
		der  []byte
		key  KeyType
		pass bool
		n    int
	}{
		"empty":                      {sequence(t), "", false, 0},
		"example of RFC 7030 §4.5.2": {rfc7030, ECDSAP384, true, 4},
		"bare OIDs":                  {sequence(t, element(t, unknown), element(t, oidEd25519)), Ed25519, false, 2},
		"bare EC":                    {sequence(t, element(t, oidECPublicKey)), ECDSAP256, false, 1},
		"EC attribute":               {sequence(t, attribute(t, oidECPublicKey, oidP256)), ECDSAP256, false, 1},
		"unknown curve":              {sequence(t, attribute(t, oidECPublicKey, asn1.ObjectIdentifier{1, 3, 132, 0, 35})), "", false, 1},
		"RSA size":                   {sequence(t, attribute(t, oidRSA, 3072)), RSA3072, false, 1},
		"RSA size not made here":     {sequence(t, attribute(t, oidRSA, 4096)), "", false, 1},
		"first understood wins":      {sequence(t, attribute(t, oidRSA, 4096), attribute(t, oidECPublicKey, oidP384), element(t, oidEd25519)), ECDSAP384, false, 3},
		"no values":                  {sequence(t, attribute(t, oidECPublicKey)), ECDSAP256, false, 1},
		"something else in between":  {sequence(t, element(t, 7), sequence(t), element(t, oidEd25519)), Ed25519, false, 1},
		"template, EC":               {sequence(t, element(t, oidEd25519), attribute(t, oidRequestTemplate, template(t, sequence(t, element(t, oidECPublicKey), element(t, oidP384))))), ECDSAP384, false, 2},
		"template, RSA": {sequence(t, attribute(t, oidRequestTemplate, template(t, sequence(t, element(t, oidRSA), asn1.NullBytes),
			element(t, asn1.BitString{Bytes: pkcs1, BitLength: 8 * len(pkcs1)})))), RSA3072, false, 1},
		"template, broken": {sequence(t, attribute(t, oidRequestTemplate, 5)), "", false, 1},
	}
}

func TestParseCSRAttrs(t *testing.T) {
	for name, tt := range csrattrsCases(t) {
		t.Run(name, func(t *testing.T) {
			got, err := ParseCSRAttrs(tt.der)
			if err != nil || got.Key != tt.key || got.ChallengePassword != tt.pass || len(got.OIDs) != tt.n {
				t.Errorf("%+v, %v", got, err)
			}
			for _, body := range [][]byte{tt.der, encodeBody(tt.der)} {
				if back, err := decodeCSRAttrs(body); err != nil || string(back) != string(tt.der) {
					t.Errorf("the body %q: %v", body, err)
				}
			}
		})
	}
	for name, bad := range map[string][]byte{
		"nothing": nil, "no sequence": element(t, 1), "trailing": append(sequence(t), 0), "cut off": {0x30, 0x03, 0x06, 0x05, 0x01},
		"too many": sequence(t, func() (out [][]byte) {
			for range maxCSRAttrs + 1 {
				out = append(out, element(t, oidEd25519))
			}
			return out
		}()...),
	} {
		if got, err := ParseCSRAttrs(bad); err == nil {
			t.Errorf("%s: %+v", name, got)
		}
	}
}
