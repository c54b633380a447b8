package cms

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/rsa"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"testing"
)

var everyCipher = map[string]Cipher{"aes-128-cbc": AES128CBC, "aes-256-cbc": AES256CBC, "aes-128-gcm": AES128GCM, "aes-256-gcm": AES256GCM}

// recipient is how to encrypt to the holder, and how it opens.
func (h holder) recipient(t testing.TB, id ID) (Recipient, Key) {
	t.Helper()
	switch key := h.key.(type) {
	case *rsa.PrivateKey:
		return ToRSA(id, &key.PublicKey), FromRSA(id, key)
	case *ecdsa.PrivateKey:
		agreement, err := key.ECDH()
		if err != nil {
			t.Fatal(err)
		}
		return ToECDH(id, &key.PublicKey), FromECDH(id, agreement)
	}
	t.Fatalf("%T", h.key)
	return nil, nil
}

var (
	testKEK      = []byte("thirty-two octets of a secret...")
	testPassword = []byte("correct horse battery staple")
)

func TestSeal(t *testing.T) {
	for _, kind := range []string{"rsa-2048", "ecdsa-p256", "ecdsa-p384", "kek", "kek-128", "password", "password, AES wrap"} {
		for cipherName, cipher := range everyCipher {
			for _, byKeyID := range []bool{false, true} {
				secret := strings.HasPrefix(kind, "kek") || strings.HasPrefix(kind, "password")
				if secret && byKeyID {
					continue
				}
				t.Run(fmt.Sprint(kind, " ", cipherName, " ", byKeyID), func(t *testing.T) {
					content := Content{TypeData, []byte("a secret of fourteen or so octets")}
					dir, decrypt := t.TempDir(), []string{"cms", "-decrypt", "-inform", "DER", "-binary"}
					var to Recipient
					var key Key
					switch kind {
					case "kek", "kek-128":
						kek := testKEK
						if kind == "kek-128" {
							kek = testKEK[:16]
						}
						to, key = ToKEK([]byte("id"), kek), FromKEK([]byte("id"), kek)
						decrypt = append(decrypt, "-secretkey", hex.EncodeToString(kek), "-secretkeyid", hex.EncodeToString([]byte("id")))
					case "password":
						to, key = ToPassword(testPassword, MinIterations), FromPassword(testPassword)
						decrypt = append(decrypt, "-pwri_password", string(testPassword))
					case "password, AES wrap":
						to, key, decrypt = ToPasswordAESWrap(testPassword, MinIterations), FromPassword(testPassword), nil
					default:
						h := newHolder(t, kind)
						dir = h.dir
						id := IDOf(h.cert)
						if byKeyID {
							id = ID{KeyID: h.cert.SubjectKeyId}
						}
						to, key = h.recipient(t, id)
						decrypt = append(decrypt, "-recip", "cert.pem", "-inkey", "key.pem")
					}
					sealed, err := Seal(content, cipher, to)
					if err != nil {
						t.Fatal(err)
					}
					if bytes.Contains(sealed.Bytes, content.Bytes) {
						t.Fatal("the message holds the content in clear")
					}
					opened, err := Open(mustInfo(t, sealed.Info()), key)
					if err != nil || !opened.Type.Equal(content.Type) || !bytes.Equal(opened.Bytes, content.Bytes) {
						t.Errorf("opened %v, %v", opened, err)
					}
					if _, err := Open(sealed, FromPassword([]byte("wrong"))); err == nil {
						t.Error("opened with a wrong password")
					}
					if decrypt == nil {
						return // OpenSSL knows RFC 3211's wrap alone
					}
					if out := openssl(t, dir, sealed.Info(), decrypt...); !bytes.Equal(out, content.Bytes) {
						t.Errorf("openssl reads %q", out)
					}
				})
			}
		}
	}
}

func TestOpenOpenSSL(t *testing.T) {
	tests := []struct {
		kind string // "" for a secret
		args []string
		says error
	}{
		{"rsa-2048", []string{"-aes128", "-recip", "cert.pem"}, nil}, // PKCS#1 v1.5
		{"rsa-2048", []string{"-aes256", "-recip", "cert.pem", "-keyopt", "rsa_padding_mode:oaep", "-keyopt", "rsa_oaep_md:sha256", "-keyopt", "rsa_mgf1_md:sha256"}, nil},
		{"rsa-2048", []string{"-aes256", "-keyid", "-recip", "cert.pem", "-keyopt", "rsa_padding_mode:oaep", "-keyopt", "rsa_oaep_md:sha512", "-keyopt", "rsa_mgf1_md:sha512"}, nil},
		{"rsa-2048", []string{"-aes-256-gcm", "-recip", "cert.pem", "-keyopt", "rsa_padding_mode:oaep", "-keyopt", "rsa_oaep_md:sha256", "-keyopt", "rsa_mgf1_md:sha256"}, nil},
		{"rsa-2048", []string{"-aes256", "-recip", "cert.pem", "-keyopt", "rsa_padding_mode:oaep"}, ErrAlgorithm}, // SHA-1
		{"ecdsa-p256", []string{"-aes128", "-recip", "cert.pem", "-keyopt", "ecdh_kdf_md:sha256"}, nil},
		{"ecdsa-p256", []string{"-aes256", "-recip", "cert.pem", "-keyopt", "ecdh_kdf_md:sha384"}, nil},
		{"ecdsa-p384", []string{"-aes-256-cbc", "-keyid", "-recip", "cert.pem", "-keyopt", "ecdh_kdf_md:sha512"}, nil},
		{"ecdsa-p384", []string{"-aes-128-gcm", "-recip", "cert.pem", "-keyopt", "ecdh_kdf_md:sha256", "-keyopt", "ecdh_cofactor_mode:1"}, nil},
		{"ecdsa-p256", []string{"-aes128", "-recip", "cert.pem"}, ErrAlgorithm}, // SHA-1
		{"rsa-2048", []string{"-des3", "-recip", "cert.pem"}, ErrAlgorithm},
		{"", []string{"-aes256", "-secretkey", hex.EncodeToString(testKEK), "-secretkeyid", "6964"}, nil},
		{"", []string{"-aes-128-gcm", "-secretkey", hex.EncodeToString(testKEK), "-secretkeyid", "6964"}, nil},
		{"", []string{"-aes256", "-secretkey", hex.EncodeToString(testKEK[:16]), "-secretkeyid", "6964"}, ErrDecrypt}, // another key of that name
		{"", []string{"-aes256", "-secretkey", hex.EncodeToString(testKEK), "-secretkeyid", "6965"}, ErrRecipient},
		{"password", []string{"-aes256", "-pwri_password", string(testPassword)}, nil},
		{"password", []string{"-aes128", "-pwri_password", string(testPassword)}, nil},
		{"password", []string{"-aes128", "-pwri_password", "wrong"}, ErrDecrypt},
	}
	for i, tt := range tests {
		t.Run(fmt.Sprint(i, tt.kind, tt.args[0]), func(t *testing.T) {
			dir := t.TempDir()
			key := FromKEK([]byte("id"), testKEK)
			switch tt.kind {
			case "":
			case "password":
				key = FromPassword(testPassword)
			default:
				h := newHolder(t, tt.kind)
				dir = h.dir
				_, key = h.recipient(t, ID{})
			}
			msg := openssl(t, dir, []byte("a secret"), append([]string{"cms", "-encrypt", "-binary", "-outform", "DER"}, tt.args...)...)
			opened, err := Open(mustInfo(t, msg), key)
			if tt.says != nil {
				if !errors.Is(err, tt.says) {
					t.Errorf("got %v, want %v", err, tt.says)
				}
				return
			}
			if err != nil || string(opened.Bytes) != "a secret" || !opened.Type.Equal(TypeData) {
				t.Errorf("opened %v, %v", opened, err)
			}
		})
	}
}

// Every octet of a message matters, or is not looked at: nobody is shown another content.
func TestTamperedEnvelope(t *testing.T) {
	h := newHolder(t, "ecdsa-p256")
	to, key := h.recipient(t, IDOf(h.cert))
	content := Content{TypeKeyPackage, []byte("a secret")}
	for name, cipher := range everyCipher {
		good, err := Seal(content, cipher, to)
		if err != nil {
			t.Fatal(err)
		}
		for i := range good.Bytes {
			bad := Content{good.Type, bytes.Clone(good.Bytes)}
			bad.Bytes[i] ^= 0x41
			opened, err := Open(bad, key)
			if err == nil && cipher.gcm() && !bytes.Equal(opened.Bytes, content.Bytes) {
				t.Errorf("%s: octet %d of %d changed, and it opens to %q", name, i, len(good.Bytes), opened.Bytes)
			}
			if err != nil && !errors.Is(err, ErrMalformed) && !errors.Is(err, ErrAlgorithm) && !errors.Is(err, ErrRecipient) && !errors.Is(err, ErrDecrypt) {
				t.Errorf("%s: octet %d: %v", name, i, err)
			}
			if _, err := Open(Content{good.Type, good.Bytes[:i]}, key); !errors.Is(err, ErrMalformed) {
				t.Errorf("%s: cut to %d octets: %v", name, i, err)
			}
		}
	}
}

func TestSealTo(t *testing.T) {
	h := newHolder(t, "ecdsa-p256")
	to, key := h.recipient(t, IDOf(h.cert))
	content := Content{TypeData, []byte("a secret")}
	t.Run("several", func(t *testing.T) {
		sealed, err := Seal(content, AES128GCM, ToPassword(testPassword, MinIterations), ToKEK([]byte("x"), testKEK), to)
		if err != nil {
			t.Fatal(err)
		}
		for _, k := range []Key{key, FromPassword(testPassword), FromKEK(nil, testKEK)} {
			if opened, err := Open(sealed, k); err != nil || !bytes.Equal(opened.Bytes, content.Bytes) {
				t.Errorf("%T: %v, %v", k, opened, err)
			}
		}
	})
	t.Run("not for us", func(t *testing.T) {
		sealed, err := Seal(content, AES256CBC, to)
		if err != nil {
			t.Fatal(err)
		}
		_, rsaKey := newHolder(t, "rsa-2048").recipient(t, ID{})
		_, otherID := h.recipient(t, ID{KeyID: []byte("other")})
		for _, k := range []Key{FromKEK(nil, testKEK), FromPassword(testPassword), rsaKey, otherID} {
			if _, err := Open(sealed, k); !errors.Is(err, ErrRecipient) {
				t.Errorf("%T: %v", k, err)
			}
		}
		_, other := newHolder(t, "ecdsa-p256").recipient(t, ID{})
		if _, err := Open(sealed, other); !errors.Is(err, ErrDecrypt) {
			t.Errorf("another key: %v", err)
		}
	})
	p521 := testKey(t, "ecdsa-p521").(*ecdsa.PrivateKey)
	for name, bad := range map[string]Recipient{
		"P-521": ToECDH(IDOf(h.cert), &p521.PublicKey), "odd KEK": ToKEK([]byte("x"), testKEK[:17]), "KEK without name": ToKEK(nil, testKEK),
		"few iterations": ToPassword(testPassword, 1), "many iterations": ToPassword(testPassword, MaxIterations+1), "no password": ToPassword(nil, MinIterations),
		"no identifier": ToECDH(ID{}, h.key.Public().(*ecdsa.PublicKey)),
	} {
		if _, err := Seal(content, AES256CBC, bad); err == nil {
			t.Errorf("%s: sealed", name)
		}
	}
	if _, err := Seal(content, AES256CBC); err == nil {
		t.Error("sealed to nobody")
	}
	if _, err := Seal(content, Cipher(9), to); err == nil {
		t.Error("sealed with no cipher")
	}
}

// The structure of RFC 7030 §4.4.2 and RFC 9483 §4.1.6.
func TestSealedKey(t *testing.T) {
	h := newHolder(t, "ecdsa-p256")
	to, from := h.recipient(t, IDOf(h.cert))
	key := testKey(t, "ecdsa-p256")
	one, err := OneAsymmetricKey(key)
	if err != nil {
		t.Fatal(err)
	}
	pkg, err := KeyPackage(one)
	if err != nil {
		t.Fatal(err)
	}
	signed, err := Sign(pkg, h.signer())
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := Seal(signed, AES256CBC, to)
	if err != nil {
		t.Fatal(err)
	}
	opened, err := Open(sealed, from)
	if err != nil {
		t.Fatal(err)
	}
	inner, err := ParseSigned(opened)
	if err != nil {
		t.Fatal(err)
	}
	if err := inner.Verify(h.key.Public()); err != nil {
		t.Fatal(err)
	}
	again, err := ParseKeyPackage(inner.Content)
	if err != nil || !key.Public().(*ecdsa.PublicKey).Equal(again.Public()) {
		t.Errorf("%v", err)
	}
}

// RFC 3394 §4.
func TestWrapVectors(t *testing.T) {
	const key = "00112233445566778899AABBCCDDEEFF000102030405060708090A0B0C0D0E0F"
	tests := []struct{ kek, key, wrapped string }{
		{"000102030405060708090A0B0C0D0E0F", key[:32], "1FA68B0A8112B447AEF34BD8FB5A7B829D3E862371D2CFE5"},
		{"000102030405060708090A0B0C0D0E0F1011121314151617", key[:32], "96778B25AE6CA435F92B5B97C050AED2468AB8A17AD84E5D"},
		{"000102030405060708090A0B0C0D0E0F101112131415161718191A1B1C1D1E1F", key[:32], "64E8C3F9CE0F5BA263E9777905818A2A93C8191E7D6E8AE7"},
		{"000102030405060708090A0B0C0D0E0F101112131415161718191A1B1C1D1E1F", key, "28C9F404C4B810F4CBCCB35CFB87F8263F5786E2D80ED326CBC7F0E71A99F43BFB988B9B7A02DD21"},
	}
	for _, tt := range tests {
		bytesOf := func(s string) []byte {
			b, err := hex.DecodeString(s)
			if err != nil {
				t.Fatal(err)
			}
			return b
		}
		wrapped, err := wrap(bytesOf(tt.kek), bytesOf(tt.key))
		if err != nil || !bytes.Equal(wrapped, bytesOf(tt.wrapped)) {
			t.Errorf("wrapped to %X, %v", wrapped, err)
		}
		out, err := unwrap(bytesOf(tt.kek), wrapped)
		if err != nil || !bytes.Equal(out, bytesOf(tt.key)) {
			t.Errorf("unwrapped to %X, %v", out, err)
		}
		wrapped[3] ^= 1
		if _, err := unwrap(bytesOf(tt.kek), wrapped); err != ErrDecrypt {
			t.Errorf("changed: %v", err)
		}
	}
}

func FuzzOpen(f *testing.F) {
	ec, rsaHolder := newHolder(f, "ecdsa-p256"), newHolder(f, "rsa-2048")
	_, fromEC := ec.recipient(f, ID{})
	_, fromRSA := rsaHolder.recipient(f, ID{})
	keys := []Key{fromEC, fromRSA, FromKEK(nil, testKEK)}
	for _, cipher := range everyCipher {
		for _, to := range []Recipient{ToECDH(IDOf(ec.cert), ec.key.Public().(*ecdsa.PublicKey)),
			ToRSA(ID{KeyID: []byte("x")}, rsaHolder.key.Public().(*rsa.PublicKey)), ToKEK([]byte("x"), testKEK)} {
			c, err := Seal(Content{TypeData, []byte("a secret")}, cipher, to)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(c.Info())
		}
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		info, err := ParseInfo(in)
		if err != nil {
			return
		}
		for _, k := range keys {
			_, err := Open(info, k)
			if err != nil && !errors.Is(err, ErrMalformed) && !errors.Is(err, ErrAlgorithm) && !errors.Is(err, ErrRecipient) && !errors.Is(err, ErrDecrypt) {
				t.Fatal(err)
			}
		}
	})
}

// PBKDF2 is the only part of opening that a stranger's message can make slow.
func FuzzPasswordInfo(f *testing.F) {
	for _, to := range []Recipient{ToPassword(testPassword, MinIterations), ToPasswordAESWrap(testPassword, MinIterations)} {
		info, err := to.info(testKEK)
		if err != nil {
			f.Fatal(err)
		}
		f.Add([]byte(info.body))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		cek, mine, err := FromPassword([]byte("another")).unwrap(recipientInfo{tag: tagPWRI, body: in, keySize: 32})
		if !mine || err == nil && len(cek) < 16 {
			t.Fatalf("%x %t %v", cek, mine, err)
		}
	})
}
