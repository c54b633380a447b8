package keys

import (
	"reflect"
	"strings"
	"testing"
)

func TestParseURI(t *testing.T) {
	pin := PINSource{"file", "/etc/pin"}
	for _, c := range []struct {
		name, in string
		want     URI
	}{
		{"empty path", "pkcs11:", URI{}},
		{"scheme in capitals", "PKCS11:token=a", URI{Token: "a"}},
		{"token and module", "pkcs11:token=deviceca-issuing?module-path=/usr/lib/softhsm/libsofthsm2.so",
			URI{Token: "deviceca-issuing", ModulePath: "/usr/lib/softhsm/libsofthsm2.so"}},
		{"query alone", "pkcs11:?module-name=softhsm2", URI{ModuleName: "softhsm2"}},
		{"escapes", "pkcs11:token=The%20Software%20PKCS%2311%20Softtoken;object=a%3Bb%2Fc", URI{Token: "The Software PKCS#11 Softtoken", Object: "a;b/c"}},
		{"characters that need no escape", "pkcs11:token=a:[]@!$'()*+,=&b", URI{Token: "a:[]@!$'()*+,=&b"}},
		{"binary id", "pkcs11:id=%00%fF%3dk", URI{ID: []byte{0, 0xff, '=', 'k'}}},
		{"everything", "pkcs11:token=t;manufacturer=m;serial=s;model=o;object=k;id=%01;type=private;slot-manufacturer=sm;slot-description=sd;slot-id=7;" +
			"library-manufacturer=lm;library-description=ld;library-version=3.0?module-path=/m.so&module-name=m&pin-source=file:/etc/pin",
			URI{Token: "t", Manufacturer: "m", Serial: "s", Model: "o", Object: "k", ID: []byte{1}, Type: "private",
				SlotManufacturer: "sm", SlotDescription: "sd", SlotID: "7",
				LibraryManufacturer: "lm", LibraryDescription: "ld", LibraryVersion: "3.0",
				ModulePath: "/m.so", ModuleName: "m", PINSource: pin}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := ParseURI(c.in)
			if err != nil || !reflect.DeepEqual(got, c.want) {
				t.Fatalf("got %+v, %v", got, err)
			}
			again, err := ParseURI(got.String())
			if err != nil || !reflect.DeepEqual(again, got) {
				t.Errorf("%s reads back as %+v, %v", got, again, err)
			}
		})
	}
}

func TestParseURIRefuses(t *testing.T) {
	for _, c := range []struct{ name, in, hint string }{
		{"other scheme", "http://x", "pkcs11:"},
		{"no scheme", "token=a", "pkcs11:"},
		{"unknown attribute", "pkcs11:tokn=a", "unknown attribute"},
		{"path attribute in the query", "pkcs11:?token=a", "unknown attribute"},
		{"query attribute in the path", "pkcs11:module-path=%2Fm", "unknown attribute"},
		{"pin-source in the path", "pkcs11:pin-source=file:", "unknown attribute"},
		{"twice", "pkcs11:token=a;token=b", "twice"},
		{"twice, and the same", "pkcs11:id=a;id=a", "twice"},
		{"empty value", "pkcs11:token=", "empty"},
		{"empty id", "pkcs11:id=", "empty"},
		{"no value", "pkcs11:token", "name=value"},
		{"empty attribute", "pkcs11:token=a;", "name=value"},
		{"empty query", "pkcs11:token=a?", "name=value"},
		{"second question mark in the path", "pkcs11:token=a?b?c", "name=value"},
		{"cut escape", "pkcs11:token=%4", "cut off"},
		{"bad escape", "pkcs11:token=%zz", "bad %"},
		{"signed escape", "pkcs11:token=%+1", "bad %"},
		{"space", "pkcs11:token=a b", "%20"},
		{"bare slash in the path", "pkcs11:token=a/b", "%2F"},
		{"not UTF-8", "pkcs11:token=%FF", "UTF-8"},
		{"NUL", "pkcs11:token=a%00", "UTF-8"},
		{"token too long", "pkcs11:token=" + strings.Repeat("a", 33), "longer"},
		{"unknown type", "pkcs11:type=key", "type"},
		{"slot-id not a number", "pkcs11:slot-id=-1", "slot-id"},
		{"library-version not a version", "pkcs11:library-version=1.", "library-version"},
		{"relative module path", "pkcs11:?module-path=m.so", "absolute"},
		{"path as module name", "pkcs11:?module-name=/m", "module-path"},
		{"pin-value", "pkcs11:token=a?pin-value=hunter2", "pin-source"},
		{"pin-value in the path", "pkcs11:pin-value=hunter2", "pin-source"},
		{"pin from a command", "pkcs11:?pin-source=|hunter2", "file:"},
		{"pin from the environment", "pkcs11:?pin-source=env:hunter2", "file:"},
		{"huge", "pkcs11:id=" + strings.Repeat("a", maxURI), "longer"},
	} {
		t.Run(c.name, func(t *testing.T) {
			u, err := ParseURI(c.in)
			if err == nil {
				t.Fatalf("read as %+v", u)
			}
			if !strings.Contains(err.Error(), c.hint) {
				t.Errorf("%q does not mention %q", err, c.hint)
			}
			if strings.Contains(err.Error(), "hunter2") {
				t.Errorf("the error shows the PIN: %v", err)
			}
		})
	}
}

func FuzzParseURI(f *testing.F) {
	for _, s := range []string{
		"pkcs11:", "pkcs11:token=a;serial=1?module-path=/m.so&pin-source=file:/p", "pkcs11:id=%00%ff;type=cert",
		"pkcs11:object=%D0%BA;slot-id=4?module-name=x", "pkcs11:library-version=2.40;model=x", "pkcs11:token=a?pin-value=1",
		"PKCS11:slot-manufacturer=a;slot-description=%20%20;library-description=c;library-manufacturer=d;manufacturer=e",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		u, err := ParseURI(s)
		if err != nil {
			return
		}
		text := u.String()
		again, err := ParseURI(text)
		if err != nil || !reflect.DeepEqual(u, again) || again.String() != text {
			t.Fatalf("%q: %+v, %v; %q: %+v", s, u, err, text, again)
		}
	})
}
