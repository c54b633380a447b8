//go:build interop

package interop

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/deviceca/deviceca/internal/attesttest"
)

// recipe is what docs/attestation.md tells device, authority and CA to type, by tpm2-tools and OpenSSL.
type recipe struct {
	t         *testing.T
	ca        *authority
	hardware  *attesttest.TPM
	steps     map[string]string // the blocks of the page, by what stands in bold before them
	device    string            // the directories of the three
	authority string
	operator  string
}

// The steps, as the page calls them.
const (
	makeAK      = "1. The device makes the AK."
	check       = "2. The authority checks what it got"
	activate    = "3. The device decrypts the nonce"
	activateLow = "3, with an EK of RSA-2048 or P-256"
	certify     = "4. The authority certifies the AK"
	register    = "5. The CA registers authority and device"
	enrol       = "6. The device enrols"
	akInFile    = "An AK in a file"
)

func newRecipe(t *testing.T, ca *authority) *recipe {
	t.Helper()
	hardware, err := attesttest.Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { hardware.Close() })
	dir := t.TempDir()
	r := &recipe{t: t, ca: ca, hardware: hardware, steps: map[string]string{},
		device: filepath.Join(dir, "device"), authority: filepath.Join(dir, "authority"), operator: filepath.Join(dir, "operator")}
	for _, d := range []string{r.device, r.authority, r.operator} {
		if err := os.Mkdir(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	texts := strings.Split(read(t, "../docs/attestation.md"), "\n```bash\n")
	for i, text := range texts[1:] {
		before := texts[i][strings.LastIndex(texts[i], "\n\n**")+4:]
		step, _, _ := strings.Cut(before, "**")
		r.steps[step], _, _ = strings.Cut(text, "```\n")
	}
	if got, want := slices.Sorted(maps.Keys(r.steps)), []string{makeAK, check, activateLow, activate, certify, register, enrol, akInFile}; !slices.Equal(got, want) {
		t.Fatalf("docs/attestation.md has blocks for %q, not %q", got, want)
	}
	return r
}

// run types the block of a step in a directory, with the names of the page's machines made those of the test.
func (r *recipe) run(step, dir string) (string, error) {
	r.t.Helper()
	block := strings.ReplaceAll(r.steps[step], "/dev/tpmrm0", "socket:"+r.hardware.Socket)
	if r.ca != nil {
		block = strings.NewReplacer("https://127.0.0.1:8443", "https://"+r.ca.https, "deviceca-data", r.ca.home).Replace(block)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "bash", "-exo", "pipefail", "-c", block)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "TPM2TOOLS_TCTI=swtpm:path="+r.hardware.Socket)
	if r.ca != nil {
		cmd.Env = append(cmd.Env, "PATH="+filepath.Dir(r.ca.program)+":"+os.Getenv("PATH"))
	}
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func (r *recipe) must(step, dir string) {
	r.t.Helper()
	if out, err := r.run(step, dir); err != nil {
		r.t.Fatalf("%s: %v\n%s", step, err, out)
	}
}

// carry takes files from one machine to another: no others are there.
func (r *recipe) carry(from, to string, names ...string) {
	r.t.Helper()
	for _, name := range names {
		write(r.t, filepath.Join(to, name), read(r.t, filepath.Join(from, name)))
	}
}

// toCheck goes as far as the authority's checks, which come next.
func (r *recipe) toCheck() {
	r.t.Helper()
	r.must(makeAK, r.device)
	if err := attesttest.WritePEM(filepath.Join(r.authority, "makers.pem"), r.hardware.Manufacturer); err != nil {
		r.t.Fatal(err)
	}
	r.carry(r.device, r.authority, "ek.der", "ek.pub", "ak.pub")
}

// TestTPMRecipe types all that the page has, and then cuts the power ten times.
func TestTPMRecipe(t *testing.T) {
	ca := newAuthority(t)
	r := newRecipe(t, ca)
	r.toCheck()
	r.must(check, r.authority)
	r.carry(r.authority, r.device, "blob")
	r.must(activate, r.device)
	r.carry(r.device, r.authority, "nonce.back")
	r.must(certify, r.authority)
	r.carry(r.authority, r.operator, "ca.crt")
	r.must(register, r.operator)
	r.carry(r.authority, r.device, "ak.pem")
	r.carry(r.operator, r.device, "grant.json")
	r.carry(ca.home, r.device, "root.crt")
	if out, err := r.run(enrol, r.device); err != nil || !strings.Contains(out, "outcome      issue") || strings.Contains(out, "warning") {
		t.Fatalf("%v\n%s", err, out)
	}

	renew := func(ak string) {
		t.Helper()
		out, errs, err := try(r.device, ca.program, "enroll", "--protocol", "acme", "--server", "https://"+ca.https, "--id", "sensor-17", "--dir", "sensor-17",
			"--tpm", "socket:"+r.hardware.Socket, "--tpm-ak", ak, "--tpm-ak-chain", "ak.pem", "--renew")
		if err != nil || !strings.Contains(out, "renewed") || errs != "" {
			t.Fatalf("renewal with AK %s: %v\n%s%s", ak, err, out, errs)
		}
	}
	r.must(akInFile, r.device)
	for cut := range 10 {
		if err := r.hardware.PowerCut(); err != nil {
			t.Fatal(err)
		}
		renew([]string{"0x81010002", "ak.tss2.pem"}[cut%2])
	}
}

// TestTPMRecipeLowEK: the RSA EK that most TPMs have, to the AK's certificate.
func TestTPMRecipeLowEK(t *testing.T) {
	r := newRecipe(t, nil)
	r.steps[makeAK] = strings.NewReplacer("0x81010016", "0x81010001", "0x01c00016", "0x01c00002").Replace(r.steps[makeAK])
	r.toCheck()
	r.must(check, r.authority)
	r.carry(r.authority, r.device, "blob")
	r.must(activateLow, r.device)
	r.carry(r.device, r.authority, "nonce.back")
	r.must(certify, r.authority)
	if got := run(t, r.authority, "openssl", "x509", "-in", "ak.pem", "-noout", "-pubkey"); got != publicPEM(t, read(t, filepath.Join(r.device, "ak.pub"))) {
		t.Errorf("certified is\n%s", got)
	}
}

// TestTPMRecipeRefuses: what the page's checks are there for.
func TestTPMRecipeRefuses(t *testing.T) {
	r := newRecipe(t, nil)
	r.toCheck()
	at := func(name string) string { return filepath.Join(r.authority, name) }
	genuine := read(t, at("ak.pub"))
	software := softwareAK(t, genuine)
	tpm2 := func(args ...string) {
		t.Helper()
		t.Setenv("TPM2TOOLS_TCTI", "swtpm:path="+r.hardware.Socket)
		run(t, r.device, args[0], append([]string{"-Q"}, args[1:]...)...)
	}
	another := func(attributes, algorithm string) string {
		t.Helper()
		tpm2("tpm2_create", "-C", "0x81000001", "-G", algorithm, "-a", attributes, "-u", "other.pub", "-r", "other.priv")
		return read(t, filepath.Join(r.device, "other.pub"))
	}
	const good = "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|noda|restricted|sign"
	tpm2("tpm2_create", "-C", "0x81000001", "-G", "ecc256", "-a", good[:len(good)-len("restricted|sign")]+"sign", "-u", "plain.pub", "-r", "plain.priv")
	for name, c := range map[string]struct{ file, content, stopsAt string }{
		"a key in software as PEM":        {"ak.pub", publicPEM(t, software), "grep -Ex"},
		"a key of any use":                {"ak.pub", read(t, filepath.Join(r.device, "plain.pub")), "grep -Ex"},
		"an AK that can be moved":         {"ak.pub", another("sensitivedataorigin|userwithauth|noda|restricted|sign", "ecc256:ecdsa-sha256:null"), "grep -Ex"},
		"an AK that power cuts lock":      {"ak.pub", another("fixedtpm|fixedparent|sensitivedataorigin|userwithauth|restricted|sign", "ecc256:ecdsa-sha256:null"), "grep -Ex"},
		"an AK that signs SHA-1":          {"ak.pub", another(good, "ecc256:ecdsa-sha1:null"), "grep -Ex"},
		"an AK with more after it":        {"ak.pub", genuine + "\n", "grep -Ex"},
		"an AK with another before it":    {"ak.pub", genuine + genuine, "grep -Ex"},
		"another EK than that certified":  {"ek.pub", genuine, "cmp ek.certified.pem ek.pem"},
		"an EK that nobody certified":     {"makers.pem", selfSigned(t), "openssl verify"},
		"a certificate of something else": {"ek.der", derOf(t, read(t, at("makers.pem"))), "grep -E "},
	} {
		t.Run(name, func(t *testing.T) {
			kept := read(t, at(c.file))
			defer write(t, at(c.file), kept)
			write(t, at(c.file), c.content)
			os.Remove(at("blob"))
			out, err := r.run(check, r.authority)
			lines := slices.DeleteFunc(strings.Split(out, "\n"), func(l string) bool { return !strings.HasPrefix(l, "+ ") })
			if err == nil || !strings.Contains(strings.Join(lines[max(0, len(lines)-3):], "\n"), c.stopsAt) {
				t.Errorf("%v, not by %q\n%s", err, c.stopsAt, out)
			}
			if _, err := os.Stat(at("blob")); err == nil {
				t.Error("a nonce was encrypted")
			}
		})
	}

	// A key in software that looks like an AK passes for one until its TPM is asked, whatever stands beside it.
	t.Run("a key in software beside the AK's name", func(t *testing.T) {
		write(t, at("ak.pub"), software)
		defer write(t, at("ak.pub"), genuine)
		name := run(t, r.device, "tpm2_readpublic", "-c", "0x81010002", "-n", "ak.name")
		write(t, at("ak.name"), name)
		r.must(check, r.authority)
		r.carry(r.authority, r.device, "blob")
		if out, err := r.run(activate, r.device); err == nil {
			t.Fatalf("the TPM activated a name that none of its keys has\n%s", out)
		}
		write(t, at("nonce.back"), read(t, at("blob"))) // anything
		if out, err := r.run(certify, r.authority); err == nil || !strings.Contains(out, "differ") {
			t.Errorf("%v\n%s", err, out)
		}
		if _, err := os.Stat(at("ak.pem")); err == nil {
			t.Error("the key in software is certified")
		}
	})

	// And what the device puts beside a true AK does not count: the certificate is for the key of the TPM.
	t.Run("a PEM of a key in software beside the AK", func(t *testing.T) {
		write(t, at("ak.pub.pem"), publicPEM(t, software))
		r.must(check, r.authority)
		r.carry(r.authority, r.device, "blob")
		r.must(activate, r.device)
		r.carry(r.device, r.authority, "nonce.back")
		r.must(certify, r.authority)
		got := run(t, r.authority, "openssl", "x509", "-in", "ak.pem", "-noout", "-pubkey")
		if got != publicPEM(t, genuine) {
			t.Errorf("certified is\n%s", got)
		}
	})
}

// point is where the coordinates are in a TPM2B_PUBLIC of the recipe: two fields of 32 octets with their lengths.
func point(area string) (x, y string) { return area[len(area)-66 : len(area)-34], area[len(area)-32:] }

// softwareAK is a TPM2B_PUBLIC as that of a true AK, of a key that no TPM has.
func softwareAK(t *testing.T, like string) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := key.PublicKey.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	return like[:len(like)-66] + string(raw[1:33]) + "\x00\x20" + string(raw[33:])
}

func publicPEM(t *testing.T, area string) string {
	t.Helper()
	x, y := point(area)
	key, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), []byte("\x04"+x+y))
	if err != nil {
		t.Fatal(err)
	}
	spki, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: spki}))
}

// selfSigned is a CA that certified no EK.
func selfSigned(t *testing.T) string {
	t.Helper()
	other, err := attesttest.NewAuthority("Other")
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: other.Root.Raw}))
}

func derOf(t *testing.T, text string) string {
	t.Helper()
	block, _ := pem.Decode([]byte(text))
	if block == nil {
		t.Fatal("no PEM")
	}
	return string(block.Bytes)
}
