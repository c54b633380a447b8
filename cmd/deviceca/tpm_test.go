package main

import (
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"os"
	"slices"

	"github.com/google/go-tpm/tpm2"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/deviceca/deviceca/internal/attesttest"
)

// startTPM starts a TPM for the script whose attestation key, at 0x81000100, is certified for a
// device: tpm DEVICE [hardware] [sha1]. With hardware, the certificate names the device by a
// HardwareModuleName alone; with sha1, the TPM has no other PCR bank. It writes ak.pem, the key's chain, and authority.pem, the attestation
// authority's root, clean.crl and revoked.crl, lists of the authority's CAs (PEM, with the
// certificate of the one below the root) of which the second has the key on it, and puts the
// TPM's path into the environment.
func startTPM(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: tpm DEVICE [hardware] [sha1]")
	}
	hardware, err := attesttest.Start()
	ts.Check(err)
	ts.Defer(func() { hardware.Close() })
	authority, err := attesttest.NewAuthority("Acme")
	ts.Check(err)
	name, odd := args[0], args[1:]
	if slices.Contains(odd, "sha1") {
		ts.Check(hardware.Banks(tpm2.TPMAlgSHA1))
	}
	var edit []func(*x509.Certificate)
	if slices.Contains(odd, "hardware") {
		edit = append(edit, func(c *x509.Certificate) {
			c.ExtraExtensions[0] = attesttest.SANOf(true, attesttest.HardwareModule(name, asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 55555, 2}))
		})
	}
	ak, err := hardware.MakeAK(attesttest.ECCAK(tpm2.TPMECCNistP256, tpm2.TPMAlgSHA256), 0x81000100)
	ts.Check(err)
	chain, err := authority.Certify(hardware, ak, name, edit...)
	ts.Check(err)
	ts.Check(attesttest.WritePEM(ts.MkAbs("ak.pem"), chain))
	ts.Check(attesttest.WritePEM(ts.MkAbs("authority.pem"), []*x509.Certificate{authority.Root}))
	// In this order: the second must not be older.
	for i, name := range []string{"clean.crl", "revoked.crl"} {
		lists := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: authority.Issuing.Raw})
		for by, certs := range map[*x509.Certificate][]*x509.Certificate{authority.Root: nil, authority.Issuing: chain[:i]} {
			list, err := authority.Revoke(by, certs...)
			ts.Check(err)
			lists = append(lists, pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: list.Raw})...)
		}
		ts.Check(os.WriteFile(ts.MkAbs(name), lists, 0o644))
	}
	ts.Setenv("TPM", "socket:"+hardware.Socket)
}
