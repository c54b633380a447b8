package main

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

func noEnv(string) string { return "" }

// TestConfigGolden pins the file that init writes and the table of the docs;
// both are made of the struct's tags. Write them anew with -update.
func TestConfigGolden(t *testing.T) {
	c := DefaultConfig()
	for name, got := range map[string]string{"config.golden.yaml": string(c.YAML()), "config.golden.md": configMarkdown()} {
		path := filepath.Join("testdata", name)
		if *update {
			if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if got != string(want) {
			t.Errorf("%s has changed; see what, then run the test with -update", name)
		}
	}
}

func TestConfigRoundTrip(t *testing.T) {
	changed := DefaultConfig()
	changed.Name = `A "name": with # signs`
	changed.TLS.Names = []string{"ca.example", "2001:db8::1"}
	changed.URL = "http://ca.example:8080"
	changed.DB = "postgres://db.example/" + strings.Repeat("long", 40)
	changed.LintShare = 0.125
	changed.Keys.AllowFile = true
	for name, c := range map[string]Config{"default": DefaultConfig(), "changed": changed} {
		t.Run(name, func(t *testing.T) {
			got, err := ParseConfig("f", c.YAML(), noEnv)
			if err != nil {
				t.Fatalf("%v in:\n%s", err, c.YAML())
			}
			if !reflect.DeepEqual(got, c) {
				t.Errorf("got %+v, want %+v", got, c)
			}
		})
	}
	for _, empty := range []string{"", "\n", "# only comments\n", "listen:\n", "---\n"} {
		if c, err := ParseConfig("f", []byte(empty), noEnv); err != nil || !reflect.DeepEqual(c, DefaultConfig()) {
			t.Errorf("%q: %v", empty, err)
		}
	}
}

// TestConfigKeys: each key is documented, has a variable of its own, and can be
// set from the environment.
func TestConfigKeys(t *testing.T) {
	// Variables of the command line.
	envs := map[string]string{"DEVICECA_HOME": "", "DEVICECA_SERVER": "", "DEVICECA_CERT": "", "DEVICECA_KEY": "", "DEVICECA_KEY_PASSWORD_FILE": "", "DEVICECA_ROOTS": "", "DEVICECA_SECRET": ""}
	c := DefaultConfig()
	for _, k := range c.keys() {
		if other, taken := envs[k.env]; taken {
			t.Errorf("%s and %q share %s", k.path, other, k.env)
		}
		envs[k.env] = k.path
		if !strings.HasSuffix(strings.TrimRight(k.doc, ")"), ".") {
			t.Errorf("%s: its doc is no sentence: %q", k.path, k.doc)
		}
		// Its own default, said by the environment, changes nothing.
		text := strings.Trim(k.yaml(), `[]"`)
		if text == "" {
			continue
		}
		got, err := ParseConfig("f", nil, func(name string) string {
			if name == k.env {
				return text
			}
			return ""
		})
		if err != nil || !reflect.DeepEqual(got, c) {
			t.Errorf("%s=%s: %v", k.env, text, err)
		}
	}
	if got := envName("acme.http01_port"); got != "DEVICECA_ACME_HTTP01_PORT" {
		t.Error(got)
	}
}

func TestConfigFaults(t *testing.T) {
	tests := []struct{ name, yaml, want string }{
		{"not YAML", "listen: [", "f:1"},
		{"tab", "listen:\n\thttps: x", "f:2"},
		{"two documents", "name: a\n---\nname: b\n", "second document"},
		{"a list", "- a\n", "must hold keys"},
		{"group as value", "listen: 8443\n", "f:1: listen: must hold keys, each on its line: http, https, https_nocert, metrics"},
		{"value as group", "name: {a: b}\n", "f:1: name: must be one plain value"},
		{"no value", "name:\n", "f:1: name: has no value"},
		{"alias", "name: &a x\nurl: *a\n", "aliases"},
		{"dotted key", "listen.https: 127.0.0.1:1\n", `"listen.https" is not a key`},
		{"bool", "keys:\n  allow_file: yes please\n", "f:2: keys.allow_file"},
		{"number", "keys:\n  sessions: many\n", "f:2: keys.sessions"},
		{"fraction", "lint_share: .nan\n", "f:1: lint_share"},
		{"list", "tls:\n  names: ca.example\n", "must be a list"},
		{"nested list", "tls:\n  names: [[a]]\n", "list of plain values"},
		{"bad name in a list", "tls:\n  names: [a_b]\n", `"a_b" is neither`},
		{"underscore in a name that asks for no certificate", "tls:\n  no_client_cert_names: [a_b]\n", `"a_b" is not a DNS name`},
		{"address that asks for no certificate", "tls:\n  no_client_cert_names: [192.0.2.1]\n", "use listen.https_nocert"},
		{"name that asks for a certificate and for none", "tls:\n  names: [ca.example]\n  no_client_cert_names: [CA.example]\n", "f:3: tls.no_client_cert_names: \"CA.example\" is one of"},
		{"localhost asks for certificates", "tls:\n  no_client_cert_names: [localhost]\n", "is one of the server's other names"},
		{"listener for no certificates, twice", "listen:\n  https_nocert: 127.0.0.1:8443\n", "is the same address as listen.https"},
		{"listener for no certificates, no address", "listen:\n  https_nocert: maybe\n", "f:2: listen.https_nocert"},
		{"proxy that is no network", "est:\n  proxies: [ca.example]\n", "f:2: est.proxies: \"ca.example\" is not a network"},
		{"proxy network with host bits", "est:\n  proxies: [192.0.2.1/24]\n", "write 192.0.2.0/24"},
		{"proxy certificate without proxies", "est:\n  proxy_cert: proxy.pem\n", "est.proxy_cert: is of no use without"},
		{"address without port", "listen:\n  https: 127.0.0.1\n", "f:2: listen.https"},
		{"port too high", "listen:\n  https: 127.0.0.1:99999\n", `"99999" is not a port`},
		{"address with a slip", "listen:\n  https: 127.0.0.300:1\n", "neither a host name nor"},
		{"answers that outlive their signer", "ocsp:\n  life: 240h\n", "f:2: ocsp.life: 240h is not between 1m and 180h"},
		{"responder key", "ocsp:\n  delegate_key: cloud\n", "ocsp.delegate_key"},
		{"no live answers", "ocsp:\n  live_rate: 0\n", "ocsp.live_rate"},
		{"no overlap", "crl:\n  overlap: 0s\n", "crl.overlap"},
		{"packs that outlive their signer", "pack:\n  overlap: 1000h\n", "pack.overlap"},
		{"no packs kept", "pack:\n  keep: 0\n", "pack.keep"},
		{"https off", "listen:\n  https: off\n", "listen.https"},
		{"one address twice", "listen:\n  http: 127.0.0.1:8443\n", "is the same address as listen.https"},
		{"every interface without url", "listen:\n  http: :8080\n", "url: is missing"},
		{"url without host", "url: http://\n", "is not a base URL"},
		{"url with a query", "url: http://a?b\n", "is not a base URL"},
		{"ftp", "url: ftp://a\n", "is not http"},
		{"TLS 1.1", "tls:\n  min_version: 1.1\n", "f:2: tls.min_version"},
		{"provider", "keys:\n  provider: cloud\n", `"cloud" is not one of`},
		{"pkcs11 without URI", "keys:\n  provider: pkcs11\n", "keys.issuing: is missing"},
		{"URI of another kind", "keys:\n  root: file:/x\n", "must begin with pkcs11:"},
		{"PIN in a URI", "keys:\n  root: pkcs11:token=a?pin-value=1\n", "holds a PIN"},
		{"one token for both", "keys:\n  root: pkcs11:token=a\n  issuing: pkcs11:token=a\n", "live apart"},
		{"sessions", "keys:\n  sessions: 0\n", "between 1 and 256"},
		{"credential path", "keys:\n  pin_root: credential:a/b\n", "keys.pin_root"},
		{"database", "db: mysql://a/b\n", `"mysql" databases`},
		{"no policy", "policy: ''\n", "policy: must name a file"},
		{"no timeout", "limits:\n  read_timeout: 0s\n", "limits.read_timeout"},
		{"no connections", "limits:\n  connections: 0\n", "limits.connections"},
		{"checkpoints", "audit:\n  checkpoint_every: 1ms\n", "audit.checkpoint_every"},
		{"no webhook secret", "webhook:\n  url: https://hooks.example/\n", "webhook.secret: is missing"},
		{"webhook secret itself", "webhook:\n  secret: hunter22hunter22\n", "f:2: webhook.secret: must say where"},
		{"webhook in clear", "webhook:\n  url: http://hooks.example/\n  secret: env:X\n", "f:2: webhook.url: must be https"},
		{"webhook events", "webhook:\n  events: [everything]\n", "f:2: webhook.events"},
		{"webhook without events", "webhook:\n  url: https://hooks.example/\n  secret: env:X\n  events: []\n", "f:4: webhook.events: lists nothing"},
		{"webhook timeout", "webhook:\n  timeout: 1h\n", "f:2: webhook.timeout"},
		{"approval", "approval:\n  retry_after: 0s\n  lifetime: 1s\n  max_waiting: 0\n", "f:4: approval.max_waiting"},
		{"level", "log:\n  level: loud\n", "log.level"},
		{"format", "log:\n  format: xml\n", "log.format"},
		{"no name", "name: ''\n", "name: must be"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := ParseConfig("f", []byte(tt.yaml), noEnv)
			if _, ok := errors.AsType[ConfigFaults](err); !ok || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}

func TestResolve(t *testing.T) {
	home := t.TempDir()
	c := DefaultConfig()
	c.Keys.Issuing = "file:/elsewhere"
	got, err := c.Resolve(home)
	if err != nil {
		t.Fatal(err)
	}
	if got.DB != home+"/ledger.db" || got.Policy != home+"/policy.yaml" || got.Keys.PINRoot != "file:"+home+"/secrets/root.pin" || got.Keys.Issuing != "file:/elsewhere" {
		t.Errorf("got %+v", got)
	}
	c.DB, c.Policy = "postgres://db.example/ledger", "/etc/policy.yaml"
	if got, err := c.Resolve(home); err != nil || got.DB != c.DB || got.Policy != c.Policy {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestTimes(t *testing.T) {
	for d, want := range map[time.Duration]string{0: "in 0s", 90 * time.Second: "in 90s", 5 * time.Minute: "in 5m", 12*time.Hour - time.Second: "in 12h",
		47 * time.Hour: "in 47h", 72 * time.Hour: "in 3d", -3 * time.Hour: "3h ago"} {
		if got := relative(d); got != want {
			t.Errorf("%s: %q, want %q", d, got, want)
		}
	}
	for d, want := range map[time.Duration]string{time.Minute: "1m", time.Hour: "1h", 90 * time.Minute: "1h30m", 5 * time.Second: "5s", 100 * time.Millisecond: "100ms"} {
		if got := durationText(d); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// FuzzConfig: no configuration makes the parser panic, and what it takes it
// writes so that it reads the same.
func FuzzConfig(f *testing.F) {
	c := DefaultConfig()
	f.Add(c.YAML())
	for _, seed := range []string{"", "name: x", "listen: {https: ':1'}", "tls: {names: [a, b]}", "lint_share: 1e-3", "a: &a [*a]", "name: |\n  x\n  y\n",
		"limits:\n  header_timeout: 1m30s\n", "name: \"\\u0085\"", "? a\n: b", "!!binary eA==: x", "name: !!int 7", "url: http://a/b/"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := ParseConfig("f", data, noEnv)
		if err != nil {
			return
		}
		again, err := ParseConfig("f", c.YAML(), noEnv)
		if err != nil || !reflect.DeepEqual(c, again) {
			t.Fatalf("%v: wrote\n%s", err, c.YAML())
		}
	})
}

// The table of every key in docs/operations.md is the one that the program prints.
func TestOperationsDocs(t *testing.T) {
	docs, err := os.ReadFile("../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	golden, err := os.ReadFile("testdata/config.golden.md")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasSuffix(string(docs), string(golden)) {
		t.Error("docs/operations.md does not end with the output of `deviceca config keys`")
	}
}
