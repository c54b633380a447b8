package est

import (
	"encoding/asn1"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/deviceca/deviceca/client"
	"github.com/deviceca/deviceca/policy"
)

func TestEncodeCSRAttrs(t *testing.T) {
	cn := []policy.SubjectTemplate{{Attr: "cn", Value: "{device.id}"}}
	whole := []policy.SubjectTemplate{{Attr: "cn", Value: "{device.id}"}, {Attr: "o", Value: "Löwe"}, {Attr: "c", Value: "DE"},
		{Attr: "ou", Value: "{device.group}"}, {Attr: "2.5.4.46", Value: "x-{device.id}"}}
	const plainP256, templateP256 = "1.2.840.10045.2.1{1.2.840.10045.3.1.7}", "key 1.2.840.10045.2.1 1.2.840.10045.3.1.7"
	tests := []struct {
		name    string
		profile policy.Profile
		binding bool
		device  string
		plain   string         // elements before the template
		inside  string         // the template; "" for none
		key     client.KeyType // as our client reads it
	}{
		{"P-256", policy.Profile{Keys: []string{"ecdsa-p256"}}, false, "", plainP256, templateP256, client.ECDSAP256},
		{"the first", policy.Profile{Keys: []string{"ecdsa-p384", "ecdsa-p256"}}, false, "", "1.2.840.10045.2.1{1.3.132.0.34}", "key 1.2.840.10045.2.1 1.3.132.0.34", client.ECDSAP384},
		{"P-521", policy.Profile{Keys: []string{"ecdsa-p521"}}, false, "", "1.2.840.10045.2.1{1.3.132.0.35}", "key 1.2.840.10045.2.1 1.3.132.0.35", ""},
		{"RSA", policy.Profile{Keys: []string{"rsa-2048"}}, false, "", "1.2.840.113549.1.1.1{2048}", "key 1.2.840.113549.1.1.1 size 2048", client.RSA2048},
		{"RSA-3072", policy.Profile{Keys: []string{"rsa-3072"}}, false, "", "1.2.840.113549.1.1.1{3072}", "key 1.2.840.113549.1.1.1 size 3072", client.RSA3072},
		{"RSA-4096", policy.Profile{Keys: []string{"rsa-4096", "ed25519"}}, false, "", "1.2.840.113549.1.1.1{4096}", "key 1.2.840.113549.1.1.1 size 4096", ""},
		{"Ed25519", policy.Profile{Keys: []string{"ed25519", "ecdsa-p256"}}, false, "", "1.3.101.112", "key 1.3.101.112", client.Ed25519},
		{"bound", policy.Profile{Keys: []string{"ecdsa-p256"}}, true, "", "1.2.840.113549.1.9.7 " + plainP256, templateP256, client.ECDSAP256},
		{"bound, no more", policy.Profile{}, true, "", "1.2.840.113549.1.9.7", "", ""},
		{"subject, nobody known", policy.Profile{Keys: []string{"ecdsa-p256"}, Subject: cn}, false, "", plainP256, "2.5.4.3=? " + templateP256, client.ECDSAP256},
		{"subject, device known", policy.Profile{Keys: []string{"ecdsa-p256"}, Subject: cn}, false, "lamp-1", plainP256, "2.5.4.3=lamp-1 " + templateP256, client.ECDSAP256},
		{"subject alone", policy.Profile{Subject: whole}, false, "lamp-1", "", "2.5.4.3=lamp-1 2.5.4.10=Löwe 2.5.4.6=DE 2.5.4.11=? 2.5.4.46=x-lamp-1", ""},
		{"a server's names", policy.Profile{Keys: []string{"ecdsa-p256"}, SAN: []string{"dns"}, EKU: []string{"clientAuth", "serverAuth"}}, false, "", plainP256, templateP256 + " blank 2.5.29.17", client.ECDSAP256},
		{"a client's names", policy.Profile{Keys: []string{"ecdsa-p256"}, SAN: []string{"dns"}, EKU: []string{"clientAuth"}}, false, "", plainP256, templateP256, client.ECDSAP256},
		{"nothing", policy.Profile{}, false, "", "", "", ""},
		{"a key of tomorrow", policy.Profile{Keys: []string{"of tomorrow"}}, false, "", "", "", ""},
		{"an RSA key of no size", policy.Profile{Keys: []string{"rsa-many"}}, false, "", "", "", ""},
		{"unreadable subject", policy.Profile{Keys: []string{"ecdsa-p256"}, Subject: []policy.SubjectTemplate{{Attr: "x", Value: "y"}}}, false, "", "", "", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			der := encodeCSRAttrs(tt.profile, Rules{Binding: tt.binding}, tt.device)
			if tt.plain == "" && tt.inside == "" {
				if der != nil {
					t.Errorf("got %x, want nothing", der)
				}
				return
			}
			plain, inside := read(t, der)
			if plain != tt.plain || inside != tt.inside {
				t.Errorf("got %s and %s,\nwant %s and %s", plain, inside, tt.plain, tt.inside)
			}
			got, err := client.ParseCSRAttrs(der)
			if err != nil || got.Key != tt.key || got.ChallengePassword != tt.binding {
				t.Errorf("our client reads %+v, %v", got, err)
			}
			file := filepath.Join(t.TempDir(), "attrs")
			if err := os.WriteFile(file, der, 0o600); err != nil {
				t.Fatal(err)
			}
			if out, err := exec.CommandContext(t.Context(), "openssl", "asn1parse", "-inform", "DER", "-in", file).CombinedOutput(); err != nil {
				t.Errorf("openssl: %v\n%s", err, out)
			}
		})
	}
}

type anAttribute struct {
	Type   asn1.ObjectIdentifier
	Values []asn1.RawValue `asn1:"set"`
}

func unmarshal(t *testing.T, der []byte, into any, params string) {
	t.Helper()
	if rest, err := asn1.UnmarshalWithParams(der, into, params); err != nil || len(rest) != 0 {
		t.Fatalf("%x as %T: %v, %d left", der, into, err, len(rest))
	}
}

// read prints a CsrAttrs, with encoding/asn1 alone: what stands before the
// template, and what is in it.
func read(t *testing.T, der []byte) (plain, template string) {
	t.Helper()
	var list []asn1.RawValue
	unmarshal(t, der, &list, "")
	var words []string
	for i, element := range list {
		var oid asn1.ObjectIdentifier
		if element.Tag == asn1.TagOID {
			unmarshal(t, element.FullBytes, &oid, "")
			words = append(words, oid.String())
			continue
		}
		var attribute anAttribute
		unmarshal(t, element.FullBytes, &attribute, "")
		if len(attribute.Values) != 1 {
			t.Fatalf("%s has %d values", attribute.Type, len(attribute.Values))
		}
		value := attribute.Values[0]
		switch {
		case attribute.Type.Equal(oidRequestTemplate):
			if i != len(list)-1 {
				t.Error("the template is not the last")
			}
			template = readTemplate(t, value.FullBytes)
		case value.Tag == asn1.TagOID:
			unmarshal(t, value.FullBytes, &oid, "")
			words = append(words, fmt.Sprintf("%s{%s}", attribute.Type, oid))
		default:
			var size int
			unmarshal(t, value.FullBytes, &size, "")
			words = append(words, fmt.Sprintf("%s{%d}", attribute.Type, size))
		}
	}
	return strings.Join(words, " "), template
}

func readTemplate(t *testing.T, der []byte) string {
	t.Helper()
	var parts []asn1.RawValue
	unmarshal(t, der, &parts, "")
	var words []string
	if string(parts[0].FullBytes) != "\x02\x01\x00" {
		t.Errorf("version %x", parts[0].FullBytes)
	}
	for _, part := range parts[1:] {
		switch {
		case part.Tag == asn1.TagSequence && part.Class == asn1.ClassUniversal:
			var rdns []asn1.RawValue
			unmarshal(t, part.FullBytes, &rdns, "")
			for _, rdn := range rdns {
				var pair []asn1.RawValue
				unmarshal(t, rdn.Bytes, &pair, "")
				var oid asn1.ObjectIdentifier
				unmarshal(t, pair[0].FullBytes, &oid, "")
				value := "?"
				if len(pair) == 2 {
					unmarshal(t, pair[1].FullBytes, &value, "")
				}
				words = append(words, oid.String()+"="+value)
			}
		case part.Tag == 0:
			var key struct {
				Algorithm []asn1.RawValue
				Public    asn1.BitString `asn1:"optional"`
			}
			unmarshal(t, part.FullBytes, &key, "tag:0")
			words = append(words, "key")
			for _, p := range key.Algorithm {
				var oid asn1.ObjectIdentifier
				if p.Tag == asn1.TagOID {
					unmarshal(t, p.FullBytes, &oid, "")
					words = append(words, oid.String())
				}
			}
			if key.Public.BitLength > 0 {
				var public []asn1.RawValue
				unmarshal(t, key.Public.Bytes, &public, "")
				words = append(words, fmt.Sprintf("size %d", 8*(len(public[0].Bytes)-1)))
			}
		case part.Tag == 1:
			for rest := part.Bytes; len(rest) > 0; {
				var attribute anAttribute
				var err error
				if rest, err = asn1.Unmarshal(rest, &attribute); err != nil || !attribute.Type.Equal(oidExtensionTemplate) {
					t.Fatalf("%s, %v", attribute.Type, err)
				}
				var extensions []struct{ ID asn1.ObjectIdentifier }
				unmarshal(t, attribute.Values[0].FullBytes, &extensions, "")
				for _, e := range extensions {
					words = append(words, "blank "+e.ID.String())
				}
			}
		}
	}
	if !slices.ContainsFunc(parts, func(p asn1.RawValue) bool { return p.Class == asn1.ClassContextSpecific && p.Tag == 1 }) {
		t.Error("the template lacks its attributes, which are not optional")
	}
	return strings.Join(words, " ")
}
