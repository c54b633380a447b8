package keys

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestPINSource(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil { // past the umask
			t.Fatal(err)
		}
		return path
	}
	t.Setenv("CREDENTIALS_DIRECTORY", dir)
	t.Setenv("TEST_PIN", "from env")
	t.Setenv("EMPTY_PIN", "")
	for _, c := range []struct{ name, source, want, err string }{
		{"file", "file:" + file("good", "1234\n", 0o600), "1234", ""},
		{"file without line break", "file:" + file("bare", "1234", 0o400), "1234", ""},
		{"file with CRLF", "file:" + file("crlf", "1234\r\n", 0o600), "1234", ""},
		{"spaces belong to the PIN", "file:" + file("spaces", " 12 34 \n", 0o600), " 12 34 ", ""},
		{"group may read", "file:" + file("group", "1234", 0o640), "", "chmod 600"},
		{"world may read", "file:" + file("world", "1234", 0o604), "", "chmod 600"},
		{"group may write", "file:" + file("groupw", "1234", 0o620), "", "chmod 600"},
		{"empty file", "file:" + file("empty", "", 0o600), "", "one line"},
		{"two lines", "file:" + file("two", "1\n2\n", 0o600), "", "one line"},
		{"huge", "file:" + file("huge", strings.Repeat("1", 5000), 0o600), "", "one line"},
		{"directory", "file:" + dir, "", "regular"},
		{"missing", "file:" + filepath.Join(dir, "none"), "", "no such file"},
		{"env", "env:TEST_PIN", "from env", ""},
		{"empty env", "env:EMPTY_PIN", "", "one line"},
		{"unset env", "env:UNSET_PIN", "", "not set"},
		{"credential", "credential:" + filepath.Base(file("cred", "5678", 0o440)), "5678", ""},
		{"no such credential", "credential:none", "", "no such file"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, err := ParsePINSource(c.source)
			if err != nil {
				t.Fatal(err)
			}
			if p.String() != c.source {
				t.Errorf("%q is written %q", c.source, p)
			}
			got, err := p.Read()
			if got != c.want || (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
				t.Errorf("got %q, %v; want %q, %q", got, err, c.want, c.err)
			}
			if err != nil && strings.Contains(err.Error(), "1234") {
				t.Errorf("the error shows the PIN: %v", err)
			}
		})
	}
	for _, bad := range []string{"", "hunter2", "file:", "file:relative", "env:", "env:a=b", "credential:a/b", "credential:..", "flag:hunter2", "file:/a\x00b"} {
		if p, err := ParsePINSource(bad); err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%q: %v, %v", bad, p, err)
		}
	}
	if _, err := (PINSource{}).Read(); err == nil {
		t.Error("the zero source gave a PIN")
	}
	t.Setenv("CREDENTIALS_DIRECTORY", "")
	if _, err := (PINSource{"credential", "cred"}).Read(); err == nil || !strings.Contains(err.Error(), "LoadCredential") {
		t.Errorf("without CREDENTIALS_DIRECTORY: %v", err)
	}
}
