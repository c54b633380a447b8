package est

import (
	"encoding/asn1"
	"fmt"
	"testing"

	"github.com/deviceca/deviceca/policy"
)

func TestEncodeCSRAttrs(t *testing.T) {
	tests := []struct {
		keys []string
		want string // as read back by encoding/asn1, "" for nothing
	}{
		{[]string{"ecdsa-p256"}, "1.2.840.10045.2.1 {1.2.840.10045.3.1.7}"},
		{[]string{"ecdsa-p384", "ecdsa-p256"}, "1.2.840.10045.2.1 {1.3.132.0.34}"},
		{[]string{"ecdsa-p521"}, "1.2.840.10045.2.1 {1.3.132.0.35}"},
		{[]string{"rsa-2048"}, "1.2.840.113549.1.1.1 {2048}"},
		{[]string{"rsa-4096", "ed25519"}, "1.2.840.113549.1.1.1 {4096}"},
		{[]string{"ed25519", "ecdsa-p256"}, "1.3.101.112"},
		{nil, ""},
		{[]string{"of tomorrow"}, ""},
		{[]string{"rsa-many"}, ""},
	}
	for _, tt := range tests {
		t.Run(fmt.Sprint(tt.keys), func(t *testing.T) {
			der := encodeCSRAttrs(policy.Profile{Keys: tt.keys})
			if tt.want == "" {
				if der != nil {
					t.Errorf("got %x, want nothing", der)
				}
				return
			}
			if got := read(t, der); got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
		})
	}
}

// read prints a CsrAttrs of one element, as RFC 8951 §4 has it.
func read(t *testing.T, der []byte) string {
	t.Helper()
	var list []asn1.RawValue
	if rest, err := asn1.Unmarshal(der, &list); err != nil || len(rest) != 0 || len(list) != 1 {
		t.Fatalf("%x: %v", der, err)
	}
	var oid asn1.ObjectIdentifier
	if _, err := asn1.Unmarshal(list[0].FullBytes, &oid); err == nil {
		return oid.String()
	}
	var attribute struct {
		Type   asn1.ObjectIdentifier
		Values []asn1.RawValue `asn1:"set"`
	}
	if rest, err := asn1.Unmarshal(list[0].FullBytes, &attribute); err != nil || len(rest) != 0 || len(attribute.Values) != 1 {
		t.Fatalf("%x: %v", der, err)
	}
	var size int
	if _, err := asn1.Unmarshal(attribute.Values[0].FullBytes, &size); err == nil {
		return fmt.Sprintf("%s {%d}", attribute.Type, size)
	}
	if _, err := asn1.Unmarshal(attribute.Values[0].FullBytes, &oid); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%s {%s}", attribute.Type, oid)
}
