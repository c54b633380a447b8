package keys

import (
	"bytes"
	"context"
	"crypto"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
)

// wrapFile holds the wrapping key. No label escapes to it: only keys end in ".key.pem".
const wrapFile = "wrapping.pem"

// fileProvider keeps keys in a directory: for each an encrypted PKCS#8 file.
// Keys are decrypted once and then held in memory, so it is for development.
type fileProvider struct {
	dir        string
	passphrase string

	mu     sync.Mutex // guards what follows, and the making of files
	closed bool
	keys   map[string]*fileKey
	wrap   cipher.AEAD
	made   []string // files, for Undo
}

// ParseFileURI gives the directory that a "file:" URI names (RFC 8089, with an
// absolute path and no host).
func ParseFileURI(uri string) (string, error) {
	u, err := url.Parse(uri)
	if err != nil || u.Scheme != "file" || u.Host != "" || u.User != nil || u.RawQuery != "" || u.ForceQuery ||
		u.Fragment != "" || !filepath.IsAbs(u.Path) || strings.ContainsRune(u.Path, 0) {
		return "", errors.New("keys: bad file URI: want file:/absolute/directory")
	}
	return filepath.Clean(u.Path), nil
}

func openFile(uri string, opts Options) (Provider, error) {
	dir, err := ParseFileURI(uri)
	if err != nil {
		return nil, err
	}
	if !opts.AllowFile {
		return nil, errors.New("keys: file keys are for development and off: use a pkcs11: URI, or allow file keys")
	}
	passphrase, err := opts.PIN.Read()
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("keys: %w", err)
	}
	p := &fileProvider{dir: dir, passphrase: passphrase, keys: make(map[string]*fileKey)}
	if err := p.tryPassphrase(); err != nil {
		return nil, err
	}
	opts.Logger.Warn("private keys lie in files: for development only", "dir", dir)
	return p, nil
}

// tryPassphrase opens one file, so that a wrong passphrase is found now and no
// key is ever written under a second one.
func (p *fileProvider) tryPassphrase() error {
	names, err := filepath.Glob(filepath.Join(escapeGlob(p.dir), "*.pem"))
	if err != nil || len(names) == 0 {
		return err
	}
	_, err = p.readFile(filepath.Base(names[0]))
	return err
}

func escapeGlob(s string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(s)
}

// fileName escapes everything that a file system may treat in its own way,
// upper case included: labels "A" and "a" are two keys everywhere.
func fileName(label string) string {
	var b strings.Builder
	escape := func(c byte) { fmt.Fprintf(&b, "%%%02X", c) }
	for i := range len(label) {
		switch c := label[i]; {
		case c >= 'a' && c <= 'z', c >= '0' && c <= '9', c == '-', c == '_', c == '.' && i > 0:
			b.WriteByte(c)
		default:
			escape(c)
		}
	}
	return b.String() + ".key.pem"
}

// maxKeyFile bounds what is read of a key file, in bytes.
const maxKeyFile = 64 << 10

// readFile gives the PrivateKeyInfo of a file.
func (p *fileProvider) readFile(name string) ([]byte, error) {
	path := filepath.Join(p.dir, name)
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		if _, err := os.Stat(p.dir); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
		}
		return nil, fmt.Errorf("%w: no file %s", ErrNotFound, path)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxKeyFile))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	der, err := decryptPKCS8(text, p.passphrase)
	if err == nil {
		// Padding alone lets a wrong passphrase through once in 256 times.
		var info privateKeyInfo
		if rest, bad := asn1.Unmarshal(der, &info); bad != nil || len(rest) > 0 {
			err = ErrPIN
		}
	}
	if err != nil {
		return nil, fmt.Errorf("keys: %s: %w", path, err)
	}
	return der, nil
}

// writeFile makes a file whole or not at all, and never over another.
func (p *fileProvider) writeFile(name string, der []byte) error {
	text, err := encryptPKCS8(der, p.passphrase)
	if err != nil {
		return fmt.Errorf("keys: %w", err)
	}
	f, err := os.CreateTemp(p.dir, ".new-*") // mode 0600
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	defer os.Remove(f.Name())
	_, err = f.Write(text)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		// A link, not a rename: it fails if the name is taken, also by another process.
		err = os.Link(f.Name(), filepath.Join(p.dir, name))
	}
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%w: %s", ErrExists, filepath.Join(p.dir, name))
	}
	if err == nil {
		p.made = append(p.made, name)
		err = syncDir(p.dir)
	}
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return nil
}

// Check is part of Provider.
func (p *fileProvider) Check(ctx context.Context, want map[string]Spec, _ bool) error {
	if err := p.enter(ctx); err != nil {
		return err
	}
	defer p.mu.Unlock()
	for label, spec := range want {
		if _, err := spec.normal(); err != nil {
			return err
		}
		if err := checkLabel(label); err != nil {
			return err
		}
		if _, err := os.Lstat(filepath.Join(p.dir, fileName(label))); err == nil {
			return fmt.Errorf("%w: %q", ErrExists, label)
		}
	}
	return nil
}

// Undo is part of Provider.
func (p *fileProvider) Undo(ctx context.Context) error {
	if err := p.enter(ctx); err != nil {
		return err
	}
	defer p.mu.Unlock()
	var errs []error
	for _, name := range p.made {
		if err := os.Remove(filepath.Join(p.dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	if err := errors.Join(append(errs, syncDir(p.dir))...); err != nil {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	p.made, p.wrap = nil, nil
	clear(p.keys)
	return nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// enter locks the provider, or says why it cannot be used.
func (p *fileProvider) enter(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return errClosed
	}
	return nil
}

func (p *fileProvider) Generate(ctx context.Context, label string, spec Spec) (Key, error) {
	if err := checkLabel(label); err != nil {
		return nil, err
	}
	spec, err := spec.normal()
	if err != nil {
		return nil, err
	}
	if err := p.enter(ctx); err != nil {
		return nil, err
	}
	defer p.mu.Unlock()
	if _, err := os.Lstat(filepath.Join(p.dir, fileName(label))); err == nil {
		return nil, fmt.Errorf("%w: %q", ErrExists, label)
	}
	signer, err := generateInMemory(spec)
	if err != nil {
		return nil, fmt.Errorf("keys: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(signer)
	if err != nil {
		return nil, fmt.Errorf("keys: %w", err)
	}
	if err := p.writeFile(fileName(label), der); err != nil {
		return nil, err
	}
	return p.remember(label, signer), nil
}

func generateInMemory(spec Spec) (crypto.Signer, error) {
	switch spec {
	case RSA3072, RSA4096:
		return rsa.GenerateKey(rand.Reader, rsaBits(spec))
	case Ed25519:
		_, key, err := ed25519.GenerateKey(rand.Reader)
		return key, err
	}
	return ecdsa.GenerateKey(curveOf(spec), rand.Reader)
}

func (p *fileProvider) Key(ctx context.Context, label string) (Key, error) {
	if err := checkLabel(label); err != nil {
		return nil, err
	}
	if err := p.enter(ctx); err != nil {
		return nil, err
	}
	defer p.mu.Unlock()
	if k := p.keys[label]; k != nil {
		return k, nil
	}
	der, err := p.readFile(fileName(label))
	if err != nil {
		return nil, err
	}
	key, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, fmt.Errorf("keys: %s: %w", fileName(label), err)
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("keys: %s: a %T cannot sign", fileName(label), key)
	}
	return p.remember(label, signer), nil
}

func (p *fileProvider) remember(label string, signer crypto.Signer) *fileKey {
	k := &fileKey{provider: p, label: label, signer: signer}
	p.keys[label] = k
	return k
}

// privateKeyInfo is the frame of RFC 5958 §2. The wrapping key uses it with the
// OID of AES-256-GCM.
type privateKeyInfo struct {
	Version   int
	Algorithm asn1.RawValue
	Key       []byte
}

var oidAES256GCM = asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 1, 46}

// wrapping gives the wrapping key, and makes it if create is set. p.mu is held.
func (p *fileProvider) wrapping(create bool) (cipher.AEAD, error) {
	if p.wrap != nil {
		return p.wrap, nil
	}
	oid, err := asn1.Marshal(struct{ OID asn1.ObjectIdentifier }{oidAES256GCM})
	if err != nil {
		return nil, fmt.Errorf("keys: %w", err)
	}
	der, err := p.readFile(wrapFile)
	if errors.Is(err, ErrNotFound) && create {
		info := privateKeyInfo{Algorithm: asn1.RawValue{FullBytes: oid}, Key: random(32)}
		if der, err = asn1.Marshal(info); err == nil {
			err = p.writeFile(wrapFile, der)
		}
		if errors.Is(err, ErrExists) {
			der, err = p.readFile(wrapFile) // another process was first
		}
	}
	if err != nil {
		return nil, err
	}
	var info privateKeyInfo
	if _, err := asn1.Unmarshal(der, &info); err != nil || !bytes.Equal(info.Algorithm.FullBytes, oid) || len(info.Key) != 32 {
		return nil, fmt.Errorf("keys: %s holds no AES-256 key", wrapFile)
	}
	block, err := aes.NewCipher(info.Key)
	if err != nil {
		return nil, fmt.Errorf("keys: %w", err)
	}
	p.wrap, err = cipher.NewGCM(block)
	return p.wrap, err
}

func (p *fileProvider) Seal(ctx context.Context, plaintext, aad []byte) ([]byte, error) {
	if err := checkSecret(plaintext); err != nil {
		return nil, err
	}
	if err := p.enter(ctx); err != nil {
		return nil, err
	}
	defer p.mu.Unlock()
	wrap, err := p.wrapping(true)
	if err != nil {
		return nil, err
	}
	nonce := random(nonceSize)
	return joinSealed(sealGCM, nonce, wrap.Seal(nil, nonce, plaintext, sealAAD(wrapLabel, aad))), nil
}

func (p *fileProvider) Unseal(ctx context.Context, sealed, aad []byte) ([]byte, error) {
	how, body, err := splitSealed(sealed)
	if err == nil && how != sealGCM {
		err = fmt.Errorf("%w: a token sealed it, by %s", ErrSealed, SealedBy(sealed))
	}
	if err != nil {
		return nil, err
	}
	nonce, ciphertext, err := splitGCM(body)
	if err != nil {
		return nil, err
	}
	if err := p.enter(ctx); err != nil {
		return nil, err
	}
	defer p.mu.Unlock()
	wrap, err := p.wrapping(false)
	if errors.Is(err, ErrNotFound) {
		return nil, fmt.Errorf("%w: this provider has sealed nothing yet", ErrSealed)
	}
	if err != nil {
		return nil, err
	}
	plaintext, err := wrap.Open(nil, nonce, ciphertext, sealAAD(wrapLabel, aad))
	if err != nil {
		return nil, ErrSealed
	}
	return plaintext, nil
}

// Ping asks whether the directory is there.
func (p *fileProvider) Ping(ctx context.Context) error {
	if err := p.enter(ctx); err != nil {
		return err
	}
	defer p.mu.Unlock()
	if _, err := os.ReadDir(p.dir); err != nil {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return nil
}

func (p *fileProvider) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed, p.passphrase, p.wrap = true, "", nil
	clear(p.keys)
	return nil
}

type fileKey struct {
	provider *fileProvider
	label    string
	signer   crypto.Signer
}

func (k *fileKey) Public() crypto.PublicKey { return k.signer.Public() }
func (k *fileKey) Label() string            { return k.label }

func (k *fileKey) URI() string {
	u := url.URL{Scheme: "file", OmitHost: true, Path: filepath.Join(k.provider.dir, fileName(k.label))}
	return u.String()
}

func (k *fileKey) Sign(_ io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	if err := checkDigest(k.Public(), digest, opts); err != nil {
		return nil, err
	}
	k.provider.mu.Lock()
	closed := k.provider.closed
	k.provider.mu.Unlock()
	if closed {
		return nil, errClosed
	}
	signature, err := k.signer.Sign(rand.Reader, digest, opts)
	if err != nil {
		return nil, err
	}
	if !verifies(k.Public(), digest, signature, opts) {
		return nil, fmt.Errorf("%w: the key %q: %w", ErrUnavailable, k.label, errWrongSignature)
	}
	return signature, nil
}
