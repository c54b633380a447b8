package est

import (
	"bytes"
	"encoding/base64"
	"encoding/pem"
	"os"
	"strings"
	"testing"
)

func example(t testing.TB, file string) string {
	t.Helper()
	raw, err := os.ReadFile("testdata/rfc9440/" + file)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSuffix(string(raw), "\n")
}

// The example of RFC 9440 gives the chain that it was made of.
func TestClientCertExample(t *testing.T) {
	certs, err := parseClientCert([]string{example(t, "client-cert")}, []string{example(t, "client-cert-chain")})
	if err != nil || len(certs) != 3 {
		t.Fatalf("%d certificates, %v", len(certs), err)
	}
	rest := []byte(example(t, "chain.pem"))
	for i, c := range certs {
		var block *pem.Block
		block, rest = pem.Decode(rest)
		if !bytes.Equal(c.Raw, block.Bytes) {
			t.Errorf("certificate %d is not that of figure 1", i)
		}
	}
}

func TestParseClientCert(t *testing.T) {
	leaf := example(t, "client-cert")
	one, two, _ := strings.Cut(example(t, "client-cert-chain"), ", ")
	huge := ":" + base64.StdEncoding.EncodeToString(make([]byte, maxProxiedCert+3)) + ":"
	for _, c := range []struct {
		name        string
		leaf, chain []string
		certs       int    // or
		wrong       string // part of the error
	}{
		{name: "none"},
		{name: "alone", leaf: []string{leaf}, certs: 1},
		{name: "spaces around", leaf: []string{"  " + leaf + " "}, certs: 1},
		{name: "chain in one line", leaf: []string{leaf}, chain: []string{one + "\t,  " + two}, certs: 3},
		{name: "chain in two lines", leaf: []string{leaf}, chain: []string{one, two}, certs: 3},
		{name: "longest chain", leaf: []string{leaf}, chain: []string{strings.Repeat(one+",", 7) + two}, certs: 9},
		{name: "longer chain", leaf: []string{leaf}, chain: []string{strings.Repeat(one+",", 8) + two}, wrong: "more than 8"},
		{name: "longer chain in lines", leaf: []string{leaf}, chain: strings.Split(strings.Repeat(one+",", 8)+two, ","), wrong: "more than 8"},
		{name: "chain alone", chain: []string{one}, wrong: "without"},
		{name: "two certificates", leaf: []string{leaf, leaf}, wrong: "more than one"},
		{name: "two in a line", leaf: []string{leaf + ", " + leaf}, wrong: "illegal base64"},
		{name: "empty", leaf: []string{""}, wrong: "byte sequence"},
		{name: "one colon", leaf: []string{":"}, wrong: "byte sequence"},
		{name: "empty byte sequence", leaf: []string{"::"}, wrong: "x509"},
		{name: "no colons", leaf: []string{strings.Trim(leaf, ":")}, wrong: "byte sequence"},
		{name: "a parameter", leaf: []string{leaf + ";v=1"}, wrong: "byte sequence"},
		{name: "a string", leaf: []string{`"` + leaf + `"`}, wrong: "byte sequence"},
		{name: "padding left out", leaf: []string{strings.Replace(leaf, "=:", ":", 1)}, wrong: "illegal base64"},
		{name: "bits beyond the end", leaf: []string{strings.Replace(leaf, "hk=:", "hl=:", 1)}, wrong: "illegal base64"},
		{name: "base64url", leaf: []string{strings.ReplaceAll(leaf, "+", "-")}, wrong: "illegal base64"},
		{name: "a line break", leaf: []string{leaf[:40] + "\n" + leaf[40:]}, wrong: "line break"},
		{name: "a space within", leaf: []string{leaf[:40] + " " + leaf[40:]}, wrong: "illegal base64"},
		{name: "URL-encoded PEM, as others send it", leaf: []string{"-----BEGIN%20CERTIFICATE-----%0AMIIB"}, wrong: "byte sequence"},
		{name: "too large", leaf: []string{huge}, wrong: "more than 16384"},
		{name: "not a certificate", leaf: []string{":AAAA:"}, wrong: "x509"},
		{name: "a certificate and more", leaf: []string{":" + base64.StdEncoding.EncodeToString(append(decoded(t, leaf), 0)) + ":"}, wrong: "trailing"},
		{name: "empty list", leaf: []string{leaf}, chain: []string{""}, wrong: "byte sequence"},
		{name: "comma at the end", leaf: []string{leaf}, chain: []string{one + ","}, wrong: "byte sequence"},
		{name: "an inner list", leaf: []string{leaf}, chain: []string{"(" + one + " " + two + ")"}, wrong: "byte sequence"},
	} {
		t.Run(c.name, func(t *testing.T) {
			certs, err := parseClientCert(c.leaf, c.chain)
			if c.wrong != "" && (err == nil || !strings.Contains(err.Error(), c.wrong)) {
				t.Errorf("error %v, want %q", err, c.wrong)
			}
			if c.wrong == "" && err != nil || len(certs) != c.certs {
				t.Errorf("%d certificates, %v; want %d", len(certs), err, c.certs)
			}
		})
	}
}

func decoded(t testing.TB, item string) []byte {
	t.Helper()
	der, err := parseByteSequence(item)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// What parses is written back as it was, but for white space.
func FuzzClientCert(f *testing.F) {
	leaf, chain := example(f, "client-cert"), example(f, "client-cert-chain")
	f.Add(leaf, chain)
	f.Add(leaf, "")
	f.Add(":AAAA:", leaf)
	f.Add(strings.Replace(leaf, "=:", ":", 1), ",")
	f.Fuzz(func(t *testing.T, leaf, chain string) {
		certs, err := parseClientCert([]string{leaf}, []string{chain})
		if err != nil {
			if certs != nil {
				t.Fatal("certificates with an error")
			}
			return
		}
		var again []string
		for _, c := range certs {
			again = append(again, ":"+base64.StdEncoding.EncodeToString(c.Raw)+":")
		}
		squeeze := strings.NewReplacer(" ", "", "\t", "").Replace
		if got := strings.Join(again, ","); got != squeeze(leaf)+","+squeeze(chain) {
			t.Fatalf("%q, %q was read as %q", leaf, chain, got)
		}
	})
}
