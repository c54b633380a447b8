package ca

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math/big"
	"strings"
)

// Serial is a certificate serial number: 19 octets, of which
//
//	octet 0      0x01, so that the number is positive and its length fixed
//	octets 1–6   issuance index, dense per issuer, big endian
//	octets 7–18  from a CSPRNG: 96 bits, above the 64 that RFC 5280 practice asks for
//
// The leading index keeps inserts append-only and lets OCSP and the revocation
// pack address a certificate by one bit. It shows the issuance volume to
// whoever holds a certificate. Status answers compare the whole serial.
type Serial [19]byte

// MaxIndex is the largest issuance index.
const MaxIndex = 1<<48 - 1

// NewSerial puts index (at most MaxIndex) and twelve random octets together.
func NewSerial(index uint64, random [12]byte) Serial {
	var s Serial
	var be [8]byte
	binary.BigEndian.PutUint64(be[:], index)
	s[0] = 1
	copy(s[1:7], be[2:])
	copy(s[7:], random[:])
	return s
}

// Index is the issuance index in the serial.
func (s Serial) Index() uint64 {
	var be [8]byte
	copy(be[2:], s[1:7])
	return binary.BigEndian.Uint64(be[:])
}

// IsZero reports whether s is no serial at all.
func (s Serial) IsZero() bool { return s == Serial{} }

// Big is the serial as certificates carry it.
func (s Serial) Big() *big.Int { return new(big.Int).SetBytes(s[:]) }

// String is 38 lower-case hex digits.
func (s Serial) String() string { return hex.EncodeToString(s[:]) }

// MarshalText makes serials hex in JSON.
func (s Serial) MarshalText() ([]byte, error) {
	if s.IsZero() {
		return nil, nil
	}
	return []byte(s.String()), nil
}

// UnmarshalText is the reverse of MarshalText.
func (s *Serial) UnmarshalText(text []byte) (err error) {
	if len(text) == 0 {
		*s = Serial{}
		return nil
	}
	*s, err = ParseSerial(string(text))
	return err
}

// ParseSerial reads hex of any case, with or without colons and a 0x.
func ParseSerial(text string) (Serial, error) {
	clean := strings.TrimPrefix(strings.ToLower(strings.NewReplacer(":", "", " ", "").Replace(text)), "0x")
	if len(clean)%2 == 1 {
		clean = "0" + clean // openssl and others print no leading zero
	}
	raw, err := hex.DecodeString(clean)
	var s Serial
	if err != nil || len(raw) != len(s) || raw[0] != 1 {
		return s, fmt.Errorf("%q is not a serial of this CA: 38 hex digits that begin with 01", text)
	}
	return Serial(raw), nil
}

// SerialFromBig reads a certificate's serial; false if it is not of this form.
func SerialFromBig(n *big.Int) (Serial, bool) {
	var s Serial
	if n.Sign() <= 0 || n.BitLen() > 8*len(s) {
		return s, false
	}
	n.FillBytes(s[:])
	return s, s[0] == 1
}
