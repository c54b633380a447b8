//go:build interop

package interop

import (
	"encoding/pem"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
)

// A device that was set apart is refused by path validation alone: with the root, no list, and no purpose. What trusts
// the quarantine root takes it.
func TestQuarantineWithoutPurpose(t *testing.T) {
	a, dir := prepareAuthority(t), t.TempDir()
	policy := filepath.Join(a.home, "policy.yaml")
	write(t, policy, strings.Replace(read(t, policy), "outcomes:\n",
		"outcomes:\n\n  - name: strange\n    when: device.id.startsWith(\"strange\")\n    then: quarantine\n    profile: remediation\n", 1))
	a.start()
	for _, id := range []string{"lamp-1", "strange-1"} {
		g := a.addDevice(id)
		a.deviceca("enroll", "--server", "https://"+a.https, "--roots", a.root(), "--id", id, "--dir", filepath.Join(dir, id),
			"--reference", g.Reference, "--secret-file", write(t, filepath.Join(dir, id+".secret"), g.Secret))
	}
	commands := map[string]func(id, root string) []string{
		"openssl": func(id, root string) []string {
			return []string{"openssl", "verify", "-no-CAfile", "-no-CApath", "-CAfile", root, "-untrusted", id + "/chain.pem", id + "/cert.pem"}
		},
		"certtool": func(id, root string) []string {
			return []string{"certtool", "--verify", "--infile", id + "/fullchain.pem", "--load-ca-certificate", root}
		},
		"pki": func(id, root string) []string {
			args := []string{"pki", "--verify", "--in", id + "/cert.pem", "--cacert", root}
			rest := []byte(read(t, filepath.Join(dir, id, "chain.pem")))
			for i := 0; ; i++ {
				var block *pem.Block
				if block, rest = pem.Decode(rest); block == nil {
					return args
				}
				args = append(args, "--cacert", write(t, filepath.Join(dir, fmt.Sprintf("%s-%d.crt", id, i)), string(pem.EncodeToMemory(block))))
			}
		},
	}
	for program, command := range commands {
		for _, c := range []struct {
			id, root string
			accepted bool
		}{
			{"lamp-1", a.root(), true}, {"strange-1", a.root(), false}, {"strange-1", filepath.Join(a.home, "quarantine-root.crt"), true},
			{"lamp-1", filepath.Join(a.home, "quarantine-root.crt"), false},
		} {
			args := command(c.id, c.root)
			if out, errs, err := try(dir, args[0], args[1:]...); (err == nil) != c.accepted {
				t.Errorf("%s, %s below %s: %v, want accepted %v\n%s%s", program, c.id, filepath.Base(c.root), err, c.accepted, out, errs)
			}
		}
	}
}
