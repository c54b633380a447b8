package main

import (
	"context"
	"path/filepath"

	"github.com/deviceca/deviceca/client"
	"github.com/deviceca/deviceca/client/tpm"
	"github.com/spf13/pflag"
)

// tpmKeyFile is the device's key in its directory, as its TPM alone can use it.
const tpmKeyFile = "key.tss2.pem"

// tpmFlags say how enroll reaches a key in a TPM.
type tpmFlags struct{ path, ak, chain string }

func (t *tpmFlags) add(f *pflag.FlagSet) {
	f.StringVar(&t.path, "tpm", "", "keep the key in this TPM and attest it: a device as /dev/tpmrm0, or socket:PATH (acme)")
	f.StringVar(&t.ak, "tpm-ak", "", "the TPM's attestation key: a persistent handle as 0x81010002, or a file")
	f.StringVar(&t.chain, "tpm-ak-chain", "", "the attestation key's certificate and its issuers, PEM")
}

func (t *tpmFlags) check(protocol string) error {
	switch {
	case t.path == "" && (t.ak != "" || t.chain != ""):
		return usagef("--tpm is missing beside --tpm-ak and --tpm-ak-chain")
	case t.path != "" && protocol != "acme":
		return usagef("--tpm is for --protocol acme")
	case t.path != "" && (t.ak == "" || t.chain == ""):
		return usagef("--tpm-ak and --tpm-ak-chain are missing beside --tpm")
	}
	return nil
}

// open gives the client the key in the TPM; without --tpm it does nothing. What
// it returns closes the TPM.
func (t *tpmFlags) open(ctx context.Context, c *client.Config) (shut func() error, err error) {
	if t.path == "" {
		return func() error { return nil }, nil
	}
	if err := (&client.Store{Dir: c.Dir}).Prepare(); err != nil {
		return nil, err
	}
	device, err := tpm.Open(tpm.Config{Context: ctx, Path: t.path, KeyFile: filepath.Join(c.Dir, tpmKeyFile), Key: c.Key, AK: t.ak, AKChain: t.chain})
	if err != nil {
		return nil, err
	}
	c.Signer, c.Attester = device.Signer(), device
	return device.Close, nil
}

// files names the key's file in a result: the client knows only that it is not in key.pem.
func (t *tpmFlags) files(r client.Result, dir string) client.Result {
	if t.path != "" {
		r.Files.Key = filepath.Join(dir, tpmKeyFile)
	}
	return r
}
