package tpm_test

import (
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"

	"github.com/deviceca/deviceca/attest"
	"github.com/deviceca/deviceca/client"
	"github.com/deviceca/deviceca/client/tpm"
	"github.com/deviceca/deviceca/internal/attesttest"
)

// inField is a TPM of the test's own, to be treated badly, with an AK and the Config for it.
func inField(t *testing.T, ak tpm2.TPMTPublic, edit ...func(*x509.Certificate)) (*attesttest.TPM, *attesttest.Authority, tpm.Config) {
	t.Helper()
	hardware := must(attesttest.Start())(t)
	t.Cleanup(func() { hardware.Close() })
	authority := must(attesttest.NewAuthority("Acme"))(t)
	const handle = 0x81000100
	made := must(hardware.MakeAK(ak, handle))(t)
	dir := t.TempDir()
	c := tpm.Config{Path: "socket:" + hardware.Socket, KeyFile: filepath.Join(dir, "key.tss2.pem"), AK: fmt.Sprintf("%#x", handle), AKChain: filepath.Join(dir, "ak.pem")}
	if err := attesttest.WritePEM(c.AKChain, must(authority.Certify(hardware, made, "sensor-17", edit...))(t)); err != nil {
		t.Fatal(err)
	}
	return hardware, authority, c
}

// attestOnce opens the TPM, attests and closes it, as each renewal does.
func attestOnce(t *testing.T, c tpm.Config) (*client.Attestation, error) {
	t.Helper()
	device, err := tpm.Open(c)
	if err != nil {
		return nil, err
	}
	made, err := device.Attest(t.Context(), keyAuthorization)
	if shut := device.Close(); shut != nil {
		t.Error(shut)
	}
	return made, err
}

const keyAuthorization = "token.thumbprint"

// TestPowerCuts: a key with noDA is none of the dictionary attack protection's business.
func TestPowerCuts(t *testing.T) {
	hardware, _, c := inField(t, attesttest.ECCAK(tpm2.TPMECCNistP256, tpm2.TPMAlgSHA256))
	for range 10 {
		if made := must(attestOnce(t, c))(t); len(made.Warnings) > 0 {
			t.Fatalf("warnings %q", made.Warnings)
		}
		if err := hardware.PowerCut(); err != nil {
			t.Fatal(err)
		}
	}
	must(attestOnce(t, c))(t)
}

// TestPowerCutsLock: a key without noDA works, is warned of, and when it is locked the error says what to do.
func TestPowerCutsLock(t *testing.T) {
	protected := attesttest.ECCAK(tpm2.TPMECCNistP256, tpm2.TPMAlgSHA256)
	protected.ObjectAttributes.NoDA = false
	hardware, _, c := inField(t, protected)
	if made := must(attestOnce(t, c))(t); len(made.Warnings) != 1 || !strings.Contains(made.Warnings[0], "attestation key has no noDA") {
		t.Errorf("warnings %q", made.Warnings)
	}
	var err error
	for cuts := 0; err == nil; cuts++ {
		if cuts == 10 {
			t.Fatal("ten power cuts lock nothing: this TPM is no test")
		}
		if err := hardware.PowerCut(); err != nil {
			t.Fatal(err)
		}
		_, err = attestOnce(t, c)
	}
	if !errors.Is(err, tpm2.TPMRCLockout) || !strings.Contains(err.Error(), "power cuts") || !strings.Contains(err.Error(), "tpm2_dictionarylockout -c") ||
		!strings.Contains(err.Error(), "without noDA") {
		t.Errorf("%v", err)
	}
	if err := hardware.ResetLockout(); err != nil {
		t.Fatal(err)
	}
	must(attestOnce(t, c))(t)
}

// TestParentLocks: an AK below a storage key without noDA is warned of, as loading it uses that key.
func TestParentLocks(t *testing.T) {
	hardware, c := ready(t)
	protected := tpm2.ECCSRKTemplate
	protected.ObjectAttributes.NoDA = false
	parent := must(hardware.MakeAK(protected, 0x81000103))(t)
	made := must(tpm2.Create{ParentHandle: tpm2.AuthHandle{Handle: parent.Handle, Name: parent.Name, Auth: tpm2.PasswordAuth(nil)},
		InPublic: tpm2.New2B(attesttest.ECCAK(tpm2.TPMECCNistP256, tpm2.TPMAlgSHA256))}.Execute(hardware))(t)
	file := tpm.KeyFile{Parent: uint32(parent.Handle), Public: made.OutPublic.Bytes(), Private: made.OutPrivate.Buffer}
	c.AK = filepath.Join(t.TempDir(), "ak.tss2.pem")
	if err := os.WriteFile(c.AK, file.Marshal(), 0o600); err != nil {
		t.Fatal(err)
	}
	authority := must(attesttest.NewAuthority("Acme"))(t)
	area := must(made.OutPublic.Contents())(t)
	if err := attesttest.WritePEM(c.AKChain, must(authority.Issue(must(tpm2.Pub(*area))(t), "sensor-17"))(t)); err != nil {
		t.Fatal(err)
	}
	if made := must(attestOnce(t, c))(t); len(made.Warnings) != 1 || !strings.Contains(made.Warnings[0], "attestation key's parent has no noDA") {
		t.Errorf("warnings %q", made.Warnings)
	}
}

// TestBanks: what the TPM has is quoted; where it has nothing, the key is attested without.
func TestBanks(t *testing.T) {
	hardware, authority, c := inField(t, attesttest.ECCAK(tpm2.TPMECCNistP256, tpm2.TPMAlgSHA256))
	for _, tt := range []struct {
		banks []tpm2.TPMIAlgHash
		want  any
	}{
		{[]tpm2.TPMIAlgHash{tpm2.TPMAlgSHA1, tpm2.TPMAlgSHA256, tpm2.TPMAlgSHA384, tpm2.TPMAlgSHA512}, "sha256"},
		{[]tpm2.TPMIAlgHash{tpm2.TPMAlgSHA1, tpm2.TPMAlgSHA384, tpm2.TPMAlgSHA512}, "sha384"},
		{[]tpm2.TPMIAlgHash{tpm2.TPMAlgSHA512}, "sha512"},
		{[]tpm2.TPMIAlgHash{tpm2.TPMAlgSHA1}, nil},
	} {
		if err := hardware.Banks(tt.banks...); err != nil {
			t.Fatal(err)
		}
		made := must(attestOnce(t, c))(t)
		object := must(attest.ParseObject(made.Object))(t)
		result := must(attest.TPM().Verify(attest.Statement{Raw: object.Statement, Quote: made.Quote, Challenge: []byte(keyAuthorization), Now: time.Now(),
			Anchors: []attest.Anchor{{Manufacturer: "acme", Certificates: []*x509.Certificate{authority.Root}}}}))(t)
		if got := result.Evidence.Facts["pcr_bank"]; got != tt.want {
			t.Errorf("%v: bank %v, not %v", tt.banks, got, tt.want)
		}
		if _, quoted := result.Evidence.Facts["quote_age"]; quoted != (tt.want != nil) {
			t.Errorf("%v: quoted: %t", tt.banks, quoted)
		}
		if warned := slices.ContainsFunc(made.Warnings, func(w string) bool { return strings.Contains(w, "no quote") }); warned != (tt.want == nil) {
			t.Errorf("%v: warnings %q", tt.banks, made.Warnings)
		}
	}
}

// TestIdentifiers: those of the AK's certificate, and only what can be written.
func TestIdentifiers(t *testing.T) {
	hardware, c := ready(t)
	authority := must(attesttest.NewAuthority("Acme"))(t)
	ak := must(hardware.MakeAK(attesttest.ECCAK(tpm2.TPMECCNistP256, tpm2.TPMAlgSHA256), 0x81000100))(t)
	chain := must(authority.Certify(hardware, ak, "", func(cert *x509.Certificate) {
		cert.ExtraExtensions[0] = attesttest.SANOf(true, attesttest.HardwareModule("\x00\xff", asn1.ObjectIdentifier{1, 2, 3}),
			attesttest.HardwareModule("SN7", asn1.ObjectIdentifier{1, 2, 3}), attesttest.PermanentIdentifier("sensor-17", asn1.ObjectIdentifier{1, 2, 4}))
	}))(t)
	if err := attesttest.WritePEM(c.AKChain, chain); err != nil {
		t.Fatal(err)
	}
	device := must(tpm.Open(c))(t)
	defer device.Close()
	if got, want := device.Identifiers(), []client.Identifier{{Type: "hardware-module", Value: "SN7/1.2.3"}, {Type: "permanent-identifier", Value: "sensor-17/1.2.4"}}; !slices.Equal(got, want) {
		t.Errorf("%v", got)
	}
}
