package main

import (
	"archive/zip"
	"encoding/json"
	"io"
	"strings"
	"testing"
)

// NIST's PKITS through the command line: certificates and CRLs (RFC 5280 §6.1, §6.3). Nothing that is
// invalid may pass. Valid, and refused: DSA; CRLs that are indirect, for some reasons, by another key than the
// certificate's, or at a name relative to the CRL's issuer.
func TestVerifyPKITS(t *testing.T) {
	archive, err := zip.OpenReader("../../internal/path/testdata/pkits.zip")
	if err != nil {
		t.Fatal(err)
	}
	defer archive.Close()
	l := newLab(t)
	files := map[string]string{}
	var cases []struct {
		Name              string
		CertPath, CRLPath []string
		ShouldValidate    bool
	}
	for _, f := range archive.File {
		r, err := f.Open()
		l.must(err)
		raw, err := io.ReadAll(r)
		l.must(err)
		if f.Name == "vectors.json" {
			l.must(json.Unmarshal(raw, &cases))
			continue
		}
		files[f.Name] = l.write(strings.ReplaceAll(f.Name, "/", "-"), raw)
	}
	if len(cases) < 150 {
		t.Fatalf("only %d cases", len(cases))
	}
	refused := map[string]string{}
	for _, line := range strings.Split(strings.TrimSpace(validAndRefused), "\n") {
		id, why, _ := strings.Cut(line, " ")
		refused[id] = why
	}
	for _, tt := range cases {
		t.Run(tt.Name, func(t *testing.T) {
			last := len(tt.CertPath) - 1
			args := []string{"verify", "--purpose", "any", "--require-status", "all", "--at", "2015-01-01T00:00:00Z",
				"--roots", files["certs/"+tt.CertPath[0]], "--cert", files["certs/"+tt.CertPath[last]]}
			for _, name := range tt.CertPath[1:last] {
				args = append(args, "--chain", files["certs/"+name])
			}
			for _, name := range tt.CRLPath {
				args = append(args, "--crl", files["crls/"+name])
			}
			code, out, errs := l.run(args...)
			id, _, _ := strings.Cut(tt.Name, " ")
			why, listed := refused[id]
			if want := tt.ShouldValidate && !listed; want != (code == exitDone) {
				t.Errorf("exit %d, want good: %t; %s%s", code, want, out, errs)
			}
			if listed && (!tt.ShouldValidate || !strings.Contains(out+errs, why)) {
				t.Errorf("want it refused because of %q: %s%s", why, out, errs)
			}
		})
	}
}

// By number: what the answer must say.
const validAndRefused = `
4.1.4 RSA, ECDSA or Ed25519 is due
4.1.5 invalid DSA parameters
4.4.19 another CA or key of it
4.5.1 another CA or key of it
4.5.4 another CA or key of it
4.5.6 another CA or key of it
4.6.15 another CA or key of it
4.6.17 another CA or key of it
4.13.19 another CA or key of it
4.14.4 invalid CRL distribution point
4.14.5 invalid CRL distribution point
4.14.7 its scope holds no certificate of the path
4.14.18 for some reasons only
4.14.19 for some reasons only
4.14.22 it is indirect
4.14.24 another CA or key of it
4.14.25 another CA or key of it
4.14.28 its scope holds no certificate of the path
4.14.29 invalid CRL distribution point
4.14.30 another CA or key of it
4.14.33 another CA or key of it
`
