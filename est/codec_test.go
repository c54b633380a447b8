package est

import (
	"bytes"
	"encoding/base64"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/deviceca/deviceca/ca"
)

func vectors(t testing.TB) map[string][]byte {
	t.Helper()
	files, err := filepath.Glob("testdata/csr/*.csr")
	if err != nil || len(files) != 10 {
		t.Fatalf("%d vectors, want 10: %v", len(files), err)
	}
	all := map[string][]byte{}
	for _, f := range files {
		if all[filepath.Base(f)], err = os.ReadFile(f); err != nil {
			t.Fatal(err)
		}
	}
	return all
}

// The codec is done where ca.ParseCSR begins: see testdata/csr/README.md.
func TestVectors(t *testing.T) {
	for name, body := range vectors(t) {
		t.Run(name, func(t *testing.T) {
			want := body
			if block, _ := pem.Decode(body); block != nil {
				want = block.Bytes
			}
			got, err := decodeRequest(body)
			if name == "bad.csr" {
				if ca.KindOf(err) != ca.Malformed {
					t.Errorf("got %v, want malformed", err)
				}
				return
			}
			if err != nil || !bytes.Equal(got, want) {
				t.Errorf("got %d octets, %v", len(got), err)
			}
		})
	}
}

// A body that decodes, decodes to the same in each form that we say we take; one
// that does not is the client's fault; neither is larger than the limit.
func FuzzDecodeRequest(f *testing.F) {
	for _, v := range vectors(f) {
		f.Add(v)
		f.Add([]byte(base64.StdEncoding.EncodeToString(v)))
	}
	f.Add([]byte(""))
	f.Add([]byte("-----BEGIN CERTIFICATE REQUEST----------END CERTIFICATE REQUEST-----"))
	f.Add([]byte(" M I\t I\r\n= "))
	f.Fuzz(func(t *testing.T, body []byte) {
		given := bytes.Clone(body)
		der, err := decodeRequest(body)
		if !bytes.Equal(body, given) {
			t.Fatal("the body was changed")
		}
		if err != nil {
			if s := refuse(err).status; s != 400 && s != 413 {
				t.Fatalf("status %d: %v", s, err)
			}
			return
		}
		if len(der) > ca.MaxCSR {
			t.Fatalf("%d octets", len(der))
		}
		line := encodeBody(der)
		forms := []string{
			string(line),
			strings.Join(strings.Split(string(line), ""), "\r\n \t"),
			"-----BEGIN CERTIFICATE REQUEST-----\n" + string(line) + "-----END CERTIFICATE REQUEST-----\n",
		}
		if len(der) > 0 && der[0] == 0x30 {
			forms = append(forms, string(der))
		}
		for _, form := range forms {
			if len(der) == 0 {
				break // an empty body is refused, empty PEM is ParseCSR's to refuse
			}
			if again, err := decodeRequest([]byte(form)); err != nil || !bytes.Equal(again, der) {
				t.Fatalf("%q decodes to %x, %v, want %x", form, again, err, der)
			}
		}
	})
}
