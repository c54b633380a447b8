package cmp

import (
	"bytes"
	"io"
	"testing"
)

// cutAndFlip hands a checker every seventh-octet cut of raw, and raw with one bit
// of each octet flipped.
func cutAndFlip(raw []byte, cut func([]byte), flip func(raw []byte, at int)) {
	for n := 0; n < len(raw); n += 7 {
		cut(raw[:n])
	}
	for i := range raw {
		bad := bytes.Clone(raw)
		bad[i] ^= 1 << (i % 8)
		flip(bad, i)
	}
}

// TestCutAndFlip: no vector and no sample, damaged in any way, makes Parse or
// Describe panic, and what still parses encodes to what it was.
func TestCutAndFlip(t *testing.T) {
	all := messageVectors(t)
	for name, m := range sampleMessages(t) {
		all["sample "+name] = m.Raw()
	}
	if len(all) < 50 {
		t.Fatalf("only %d messages", len(all))
	}
	for name, raw := range all {
		t.Run(name, func(t *testing.T) {
			cutAndFlip(raw, func(cut []byte) {
				_, err := Parse(cut)
				checkInfo(t, err, BadDataFormat)
			}, func(bad []byte, at int) {
				m, err := Parse(bad)
				if err != nil {
					checkInfo(t, err, BadDataFormat)
					return
				}
				again, err := m.Marshal()
				if err != nil || !bytes.Equal(again, bad) {
					t.Errorf("octet %d flipped: parsed, and encoded anew as\n%x\nwas\n%x, %v", at, again, bad, err)
				}
				if at%7 != 0 {
					return
				}
				if err := m.Describe(io.Discard); err != nil {
					t.Error(err)
				}
				if r, ok := m.Body.(*CertRequests); ok {
					for _, q := range r.Requests {
						_ = q.VerifyPOP(POPRules{}) // must not panic; whether it holds depends on the bit
					}
				}
			})
		})
	}
}

// TestFlippedBitIsRefused: a bit of a protected message flipped in what is
// protected, or in the protection, is never accepted. (extraCerts are outside of
// it, RFC 9483 §3.2.)
func TestFlippedBitIsRefused(t *testing.T) {
	h := hierarchy()
	samples := sampleMessages(t)
	server := certificate(t, "openssl-vfy/server.crt")
	for _, c := range []struct {
		name   string
		raw    []byte
		verify func(*Message) error
	}{
		{"MAC, vector", vector(t, "go-pkicmp/ir_golden.der"), byMAC("pass")},
		{"MAC, with extraCerts", vector(t, "openssl-protect/IP_PBM.der"), byMAC("insta")},
		{"PBMAC1", samples["genp"].Raw(), byMAC("secret")},
		{"ECDSA", samples["ip"].Raw(), func(m *Message) error { return m.VerifyCertificate(h.ec.cert) }},
		{"RSA", vector(t, "openssl-vfy/IR_protected.der"), func(m *Message) error { return m.VerifyKey(server.PublicKey) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			whole := must[*Message](t)(Parse(c.raw))
			if err := c.verify(whole); err != nil {
				t.Fatal(err)
			}
			refused := 0
			cutAndFlip(c.raw, func([]byte) {}, func(bad []byte, at int) {
				m, err := Parse(bad)
				if err != nil {
					refused++
					return
				}
				same := bytes.Equal(m.protected, whole.protected) && bytes.Equal(m.Protection, whole.Protection)
				if err := c.verify(m); (err == nil) != same {
					t.Errorf("octet %d flipped: %v, protected part unchanged: %t", at, err, same)
				}
				if !same {
					refused++
				}
			})
			if refused < len(whole.protected) {
				t.Errorf("only %d flips refused", refused)
			}
		})
	}
}

func byMAC(secret string) func(*Message) error {
	return func(m *Message) error {
		// No more work for the flipped count than for the right one.
		_, err := m.VerifyMAC([]byte(secret), MACPolicy{MaxWork: 2000})
		return err
	}
}
