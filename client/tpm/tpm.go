// Package tpm lets a device keep its key in a TPM 2.0 and prove it: it makes the
// key, signs with it, and attests it for ACME's device-attest-01 challenge, with a quote of what was
// measured at boot.
//
//	device, err := tpm.Open(tpm.Config{
//		Path:    "/dev/tpmrm0",
//		KeyFile: "/var/lib/device/tls/key.tss2.pem",
//		AK:      "0x81010002",
//		AKChain: "/etc/device/ak.pem",
//	})
//	defer device.Close()
//	result, err := client.Run(ctx, client.Config{Protocol: "acme", Signer: device.Signer(), Attester: device, …})
//
// The attestation key (AK) and its certificate are there already: whoever readies the device
// gets them from an attestation authority. docs/attestation.md says what that takes.
//
// It is a package of its own so that the small program for devices goes without it. It needs no cgo.
package tpm

import (
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"github.com/deviceca/deviceca/client"
)

// Config says where the TPM is and which keys of it to use. Keys have no authorization value, and the
// owner hierarchy has none either.
type Config struct {
	// Context ends the use of the TPM, also while it does not answer; nil is never.
	Context context.Context
	// Path is the TPM: a device such as /dev/tpmrm0 (with the kernel's resource manager, which is
	// the one to take), or "socket:" and the path of a Unix socket, as swtpm has it.
	Path string
	// KeyFile holds the device's key, as only this TPM can use it: PEM of type TSS2 PRIVATE KEY, which
	// other programs with a TPM provider read too. It is made, with mode 0600, where it is missing.
	KeyFile string
	// Key is the kind of key to make: ecdsa-p256 (which "" is), ecdsa-p384, rsa-2048 or rsa-3072.
	Key client.KeyType
	// AK is the attestation key: a persistent handle, such as 0x81010002, or a file as KeyFile is.
	AK string
	// AKChain is a PEM file: the AK's certificate, then its issuers, without the root.
	AKChain string
	// PCRs are what to quote, of the TPM's SHA-256 bank, else SHA-384, else SHA-512; nil is 0 to 7, which must be among them.
	PCRs []int
}

// Device is a device's key and AK in an open TPM. It is safe for concurrent use.
type Device struct {
	tpm   transport.TPMCloser
	pcrs  []int
	chain []*x509.Certificate // of the AK

	mu   sync.Mutex // one command at a time: a TPM has few slots, and a socket one conversation
	key  *loaded
	ak   *loaded
	akBy scheme
}

// Open opens the TPM, loads the device's key, or makes it, and finds the AK. Errors are *client.Error.
func Open(c Config) (*Device, error) {
	pcrs := slices.Clone(c.PCRs)
	if len(pcrs) == 0 {
		pcrs = []int{0, 1, 2, 3, 4, 5, 6, 7}
	}
	for _, i := range pcrs {
		if i < 0 || i > 23 {
			return nil, usage(fmt.Sprintf("there is no PCR %d", i), "name PCRs of 0 to 23")
		}
	}
	slices.Sort(pcrs)
	chain, err := client.ReadCertificates(c.AKChain)
	if err != nil {
		return nil, err
	}
	t, err := openTPM(c.Path)
	if err != nil {
		return nil, local("the TPM cannot be opened", err, "name a device such as /dev/tpmrm0, or socket:PATH; reading and writing it takes the right (group tss)")
	}
	t = newPatient(c.Context, t)
	d := &Device{tpm: t, pcrs: slices.Compact(pcrs), chain: chain}
	if err := d.load(c); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return d, nil
}

// load finds the AK, then the device's key.
func (d *Device) load(c Config) error {
	var err error
	if handle, isNumber := persistentHandle(c.AK); isNumber {
		d.ak, err = readPersistent(d.tpm, handle)
	} else {
		d.ak, err = loadFile(d.tpm, c.AK)
	}
	if err != nil {
		hint := ""
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, tpm2.TPMRCHandle) {
			hint = "name its persistent handle, such as 0x81010002 (tpm2_getcap handles-persistent lists them), or its file"
		}
		return local("the attestation key cannot be used", err, hint)
	}
	if d.akBy, err = schemeOf(d.ak.public); err != nil {
		return local("the attestation key cannot be used", err, "make one with SHA-256")
	}
	if !samePublic(d.ak.key, d.chain[0].PublicKey) {
		return local(fmt.Sprintf("the first certificate in %s is not the attestation key's", c.AKChain), nil, "put the AK's certificate first, and its issuers after it")
	}
	d.key, err = loadFile(d.tpm, c.KeyFile)
	if errors.Is(err, fs.ErrNotExist) {
		d.key, err = makeKey(d.tpm, c.Key, c.KeyFile)
	}
	if err != nil {
		hint := ""
		if errors.Is(err, tpm2.TPMRCIntegrity) {
			hint = c.KeyFile + " was made by another TPM, or this one was cleared since: remove it, and the device gets a new key"
		}
		return local("the device's key cannot be used", err, hint)
	}
	return nil
}

// Close takes the keys out of the TPM's memory, and closes it. The key's file stays.
func (d *Device) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return errors.Join(d.key.flush(d.tpm), d.ak.flush(d.tpm), d.tpm.Close())
}

func persistentHandle(s string) (tpm2.TPMHandle, bool) {
	n, err := strconv.ParseUint(s, 0, 32)
	return tpm2.TPMHandle(n), err == nil
}

// loaded is a key that the TPM can use now.
type loaded struct {
	handle         tpm2.NamedHandle
	public         tpm2.TPMTPublic
	key            crypto.PublicKey
	transient      bool
	lockableParent bool // it was loaded below one without noDA
}

func newLoaded(handle tpm2.TPMHandle, name tpm2.TPM2BName, public tpm2.TPM2BPublic, transient bool) (*loaded, error) {
	area, err := public.Contents()
	if err != nil {
		return nil, err
	}
	key, err := tpm2.Pub(*area)
	if err != nil {
		return nil, err
	}
	return &loaded{handle: tpm2.NamedHandle{Handle: handle, Name: name}, public: *area, key: key, transient: transient}, nil
}

// auth is the key's handle with its empty authorization value.
func (l *loaded) auth() tpm2.AuthHandle {
	return tpm2.AuthHandle{Handle: l.handle.Handle, Name: l.handle.Name, Auth: tpm2.PasswordAuth(nil)}
}

func (l *loaded) flush(t transport.TPM) error {
	if l == nil || !l.transient {
		return nil
	}
	_, err := tpm2.FlushContext{FlushHandle: l.handle.Handle}.Execute(t)
	return err
}

func readPersistent(t transport.TPM, handle tpm2.TPMHandle) (*loaded, error) {
	r, err := tpm2.ReadPublic{ObjectHandle: handle}.Execute(t)
	if err != nil {
		return nil, err
	}
	return newLoaded(handle, r.Name, r.OutPublic, false)
}

// storageTemplate is the storage primary key of the owner: ECC P-256 as the TCG's
// provisioning guidance has it, unique left empty, as other programs make it for TSS2 PRIVATE KEY files.
func storageTemplate() tpm2.TPMTPublic {
	t := tpm2.ECCSRKTemplate
	t.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, &tpm2.TPMSECCPoint{})
	return t
}

var errOwner = errors.New("the owner hierarchy has a password, and this program uses it without (tpm2_changeauth -c owner -p OLD removes it; or name a key below a persistent parent)")

// withStorage runs do with the owner's storage primary key loaded.
func withStorage(t transport.TPM, do func(parent tpm2.AuthHandle) error) error {
	r, err := tpm2.CreatePrimary{
		PrimaryHandle: tpm2.TPMRHOwner,
		InPublic:      tpm2.New2B(storageTemplate()),
	}.Execute(t)
	if err != nil {
		if errors.Is(err, tpm2.TPMRCBadAuth) || errors.Is(err, tpm2.TPMRCAuthFail) {
			return fmt.Errorf("%w: %w", errOwner, err)
		}
		return fmt.Errorf("the owner's storage key: %w", err)
	}
	primary := &loaded{handle: tpm2.NamedHandle{Handle: r.ObjectHandle, Name: r.Name}, transient: true}
	err = do(primary.auth())
	return errors.Join(err, primary.flush(t))
}

// loadFile loads the key in a file. Its parent is the owner's storage key or a persistent one.
func loadFile(t transport.TPM, path string) (*loaded, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	file, err := ParseKeyFile(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	var key *loaded
	load := func(parent tpm2.AuthHandle) error {
		r, err := tpm2.Load{ParentHandle: parent, InPublic: tpm2.BytesAs2B[tpm2.TPMTPublic](file.Public),
			InPrivate: tpm2.TPM2BPrivate{Buffer: file.Private}}.Execute(t)
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		key, err = newLoaded(r.ObjectHandle, r.Name, tpm2.BytesAs2B[tpm2.TPMTPublic](file.Public), true)
		return err
	}
	if file.Parent == uint32(tpm2.TPMRHOwner) {
		err := withStorage(t, load)
		return key, err
	}
	parent, err := readPersistent(t, tpm2.TPMHandle(file.Parent))
	if err != nil {
		return nil, fmt.Errorf("its parent %#x: %w", file.Parent, err)
	}
	if err := load(parent.auth()); err != nil {
		return nil, err
	}
	key.lockableParent = !parent.public.ObjectAttributes.NoDA
	return key, nil
}

// makeKey makes the device's key under the owner's storage key and keeps it in a file.
func makeKey(t transport.TPM, kind client.KeyType, path string) (*loaded, error) {
	template, err := deviceTemplate(kind)
	if err != nil {
		return nil, err
	}
	if err := CreateKeyFile(t, template, path); err != nil {
		return nil, err
	}
	return loadFile(t, path)
}

// CreateKeyFile makes a key by template under the owner's storage key, and keeps it in a new
// file of mode 0600. It is on disk before it returns.
func CreateKeyFile(t transport.TPM, template tpm2.TPMTPublic, path string) error {
	var file KeyFile
	err := withStorage(t, func(parent tpm2.AuthHandle) error {
		r, err := tpm2.Create{ParentHandle: parent, InPublic: tpm2.New2B(template)}.Execute(t)
		if err != nil {
			return err
		}
		file = KeyFile{Parent: uint32(tpm2.TPMRHOwner), Public: r.OutPublic.Bytes(), Private: r.OutPrivate.Buffer}
		return nil
	})
	if err != nil {
		return err
	}
	return writeNew(path, file.Marshal())
}

// writeNew writes a file that is not there yet, whole or not at all.
func writeNew(path string, content []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".tpm-*.tmp") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(content)
	if err == nil {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := os.Link(f.Name(), path); err != nil { // unlike a rename, this replaces no key that another process has just made
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

func local(text string, err error, hint string) error {
	return &client.Error{Kind: client.Local, Op: "tpm", Text: text, Err: explain(err), Hint: hint}
}

func usage(text, hint string) error {
	return &client.Error{Kind: client.Usage, Op: "tpm", Text: text, Hint: hint}
}

// explain adds to a TPM's answer what it does not say by itself.
func explain(err error) error {
	switch {
	case errors.Is(err, errOwner): // said already
	case errors.Is(err, tpm2.TPMRCObjectMemory):
		return fmt.Errorf("%w: other programs have left keys in its memory; use the resource manager's device (/dev/tpmrm0), or flush them (tpm2_flushcontext -t)", err)
	case errors.Is(err, tpm2.TPMRCIntegrity):
		return fmt.Errorf("%w: the key was made by another TPM, or this one was cleared since", err)
	case errors.Is(err, tpm2.TPMRCBadAuth), errors.Is(err, tpm2.TPMRCAuthFail):
		return fmt.Errorf("%w: the key has an authorization value, and this program uses keys without", err)
	case errors.Is(err, tpm2.TPMRCLockout):
		return fmt.Errorf("%w: the TPM's dictionary-attack protection has locked the keys that it covers, those without noDA, after wrong passwords or "+
			"power cuts; "+
			"it unlocks after a time (TPM2_PT_LOCKOUT_INTERVAL of tpm2_getcap properties-variable, in seconds), or at once by tpm2_dictionarylockout -c "+
			"(TPM2_DictionaryAttackLockReset), with the lockout password if it has one; keys with noDA are never locked (docs/attestation.md)", err)
	}
	return err
}

// unprotected warns of keys that power cuts lock: a TPM counts each cut after a use of them as a wrong password. To load a key
// is to use its parent.
func (d *Device) unprotected() (warnings []string) {
	for _, k := range []struct {
		name     string
		lockable bool
	}{
		{"attestation key", !d.ak.public.ObjectAttributes.NoDA}, {"attestation key's parent", d.ak.lockableParent},
		{"device's key", !d.key.public.ObjectAttributes.NoDA}, {"device's key's parent", d.key.lockableParent},
	} {
		if k.lockable {
			warnings = append(warnings, "the "+k.name+" has no noDA attribute: after some power cuts the TPM locks it for a while (TPM_RC_LOCKOUT); make one with noda (docs/attestation.md)")
		}
	}
	return warnings
}

func samePublic(a, b crypto.PublicKey) bool {
	k, ok := a.(interface{ Equal(crypto.PublicKey) bool })
	return ok && k.Equal(b)
}

func isSocket(path string) (string, bool) { return strings.CutPrefix(path, "socket:") }
