package client

import (
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"testing"

	"github.com/deviceca/deviceca/internal/cms"
)

// replySeeds are the forms in which servers send one certs-only message.
func replySeeds(t testing.TB) (forms map[string][]byte, certs []*x509.Certificate) {
	ca := newTestCA(t, "good")
	certs = []*x509.Certificate{ca.root, ca.issuing}
	raw := cms.CertsOnly(ca.root.Raw, ca.issuing.Raw)
	line := base64.StdEncoding.EncodeToString(raw)
	var broken, crlf, spaced []byte
	for i := 0; i < len(line); i += 64 {
		part := line[i:min(i+64, len(line))]
		broken = append(append(broken, part...), '\n')
		crlf = append(append(crlf, part...), '\r', '\n')
		spaced = append(append(spaced, part...), ' ', '\t')
	}
	return map[string][]byte{
		"one line":    []byte(line),
		"newline":     encodeBody(raw),
		"broken":      broken,
		"CRLF":        crlf,
		"spaces":      spaced,
		"no padding":  []byte(base64.RawStdEncoding.EncodeToString(raw)),
		"PEM":         pem.EncodeToMemory(&pem.Block{Type: "PKCS7", Bytes: raw}),
		"DER":         raw,
		"blank ahead": append([]byte("\r\n"), line...),
	}, certs
}

func TestParseCertsOnly(t *testing.T) {
	forms, want := replySeeds(t)
	for name, body := range forms {
		got, err := parseCertsOnly(body, maxCACertCount)
		if err != nil || len(got) != len(want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	line := forms["one line"]
	for name, body := range map[string][]byte{
		"empty": nil, "blank": []byte(" \n"), "two messages": append(append([]byte{}, line...), line...), "cut off": line[:len(line)-9],
		"garbage in it": append([]byte("%%%%"), line...), "URL alphabet": []byte("_-_-"), "one certificate bare": encodeBody(want[0].Raw),
		"trailing DER": append(append([]byte{}, forms["DER"]...), 0), "no certificate": encodeBody(cms.CertsOnly()), "not a certificate": encodeBody(cms.CertsOnly([]byte{0x30, 0})),
	} {
		if got, err := parseCertsOnly(body, maxCACertCount); err == nil {
			t.Errorf("%s: %d certificates", name, len(got))
		}
	}
}

func FuzzParseCertsOnly(f *testing.F) {
	forms, _ := replySeeds(f)
	for _, body := range forms {
		f.Add(body)
		f.Add(body[:len(body)/2])
	}
	for _, raw := range [][]byte{hugeRoot(f, 16384, 65537), hugeRoot(f, 2048, 1<<31-1), hugeRoot(f, 1<<18, 65537)} {
		f.Add(encodeBody(cms.CertsOnly(raw)))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		certs, err := parseCertsOnly(body, maxCACertCount)
		if err != nil {
			return
		}
		// What was read can be written and is read the same.
		again, err := parseCertsOnly([]byte(certsOnlyText(certs...)), maxCACertCount)
		if err != nil || len(again) != len(certs) || len(certs) == 0 {
			t.Errorf("%d certificates, then %d: %v", len(certs), len(again), err)
		}
		if err := checkKeys(certs); err != nil {
			t.Error(err)
		}
	})
}

func FuzzParseCSRAttrs(f *testing.F) {
	for _, tt := range csrattrsCases(f) {
		f.Add(tt.der)
	}
	f.Fuzz(func(t *testing.T, der []byte) {
		attrs, err := ParseCSRAttrs(der)
		if err != nil || attrs.Key == "" {
			return
		}
		if _, err := ParseKeyType(string(attrs.Key)); err != nil {
			t.Errorf("a hint that cannot be followed: %v", err)
		}
	})
}
