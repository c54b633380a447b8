package der

import (
	"testing"

	"golang.org/x/crypto/cryptobyte"
)

func TestOID(t *testing.T) {
	for _, dotted := range []string{"1.2.840.113549", "2.25.329800735698586629295641978511506172918", "2.999.3", "0.0"} {
		var b cryptobyte.Builder
		AddOID(&b, dotted)
		in := cryptobyte.String(b.BytesOrPanic())
		if got, ok := OID(&in); !ok || got != dotted || !in.Empty() {
			t.Errorf("%s comes back as %q, %v", dotted, got, ok)
		}
	}
	for _, bad := range []string{"\x06\x00", "\x06\x02\x80\x01", "\x06\x01\x88", "\x04\x01\x2a", "\x06\x03\x2a"} {
		in := cryptobyte.String(bad)
		if got, ok := OID(&in); ok {
			t.Errorf("%x is read as %q", bad, got)
		}
	}
	long := append([]byte{6, 0x81, 0x82, 0x2a}, make([]byte, 0x81)...)
	for i := 4; i < len(long)-1; i++ {
		long[i] = 0xff
	}
	in := cryptobyte.String(long)
	if _, ok := OID(&in); ok {
		t.Error("an identifier of 130 octets is read")
	}
}
