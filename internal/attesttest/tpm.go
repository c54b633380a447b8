package attesttest

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/asn1"
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
	"github.com/google/go-tpm/tpm2/transport/linuxudstpm"

	"github.com/deviceca/deviceca/client/tpm"
)

// Where swtpm_setup --ecc leaves the endorsement key and its certificate.
const (
	ekHandle      = tpm2.TPMHandle(0x81010016) // ECC P-384
	ekCertificate = tpm2.TPMHandle(0x01c00016)
)

// TPM is a running swtpm with an endorsement key that its manufacturer certified.
type TPM struct {
	Socket       string              // of its commands: "socket:"+Socket is the Path of a tpm.Config
	Manufacturer []*x509.Certificate // that certified the endorsement key

	transport.TPM // for commands of one's own
	conn          transport.TPMCloser
	swtpm         *exec.Cmd
	ended         chan struct{} // closed when swtpm has
	dir           string
}

// shared is the TPM of Shared.
var shared struct {
	sync.Mutex
	tpm *TPM
}

// Shared starts a TPM at the first call, for making one takes a second or more, and gives the same
// one ever after. A TestMain must call StopShared. Tests that share it must not run in parallel.
func Shared() (*TPM, error) {
	shared.Lock()
	defer shared.Unlock()
	if shared.tpm != nil {
		return shared.tpm, nil
	}
	t, err := Start()
	if err == nil {
		shared.tpm = t
	}
	return t, err
}

// StopShared stops the shared TPM, if it was started.
func StopShared() {
	shared.Lock()
	defer shared.Unlock()
	if shared.tpm != nil {
		shared.tpm.Close()
		shared.tpm = nil
	}
}

// Start makes a TPM in a directory of its own and starts it. It needs swtpm and
// swtpm_setup (Debian: swtpm, swtpm-tools). The caller closes it.
func Start() (_ *TPM, err error) {
	dir, err := os.MkdirTemp("", "tpm") // short: the path of a Unix socket has some 100 octets at most
	if err != nil {
		return nil, err
	}
	t := &TPM{dir: dir, Socket: filepath.Join(dir, "sock")}
	defer func() {
		if err != nil {
			t.Close()
		}
	}()
	if err := t.manufacture(); err != nil {
		return nil, err
	}
	if err := t.power(); err != nil {
		return nil, err
	}
	if t.conn, err = linuxudstpm.Open(t.Socket); err != nil {
		return nil, err
	}
	t.TPM = t.conn
	return t, nil
}

// power starts swtpm, which does TPM2_Startup(CLEAR), and waits until it listens.
func (t *TPM) power() error {
	t.swtpm = exec.Command("swtpm", "socket", "--tpm2", "--tpmstate", "dir="+filepath.Join(t.dir, "state"),
		"--server", "type=unixio,path="+t.Socket, "--ctrl", "type=unixio,path="+t.Socket+".ctrl",
		"--flags", "not-need-init,startup-clear", "--seccomp", "action=none")
	var said bytes.Buffer
	t.swtpm.Stdout, t.swtpm.Stderr = &said, &said
	if err := t.swtpm.Start(); err != nil {
		return err
	}
	ended, swtpm := make(chan struct{}), t.swtpm
	t.ended = ended
	go func() {
		swtpm.Wait()
		close(ended)
	}()
	// Open only looks whether the socket is there; it is, a moment before anybody listens.
	const patience = 20 * time.Second
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		probe, err := net.Dial("unix", t.Socket)
		if err == nil {
			probe.Close()
			return nil
		}
		select {
		case <-ended:
			return fmt.Errorf("swtpm ended: %s", &said)
		default:
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("swtpm does not listen: %w", err)
		}
	}
}

// PowerCut takes the power from the TPM, without TPM2_Shutdown, and gives it back.
func (t *TPM) PowerCut() error {
	t.swtpm.Process.Kill()
	<-t.ended
	for _, socket := range []string{t.Socket, t.Socket + ".ctrl"} {
		if err := os.Remove(socket); err != nil {
			return err
		}
	}
	return t.power()
}

// Banks leaves the TPM with the PCR banks of these hashes alone (TPM2_PCR_Allocate), for which it starts anew.
func (t *TPM) Banks(hashes ...tpm2.TPMIAlgHash) error {
	all := []tpm2.TPMIAlgHash{tpm2.TPMAlgSHA1, tpm2.TPMAlgSHA256, tpm2.TPMAlgSHA384, tpm2.TPMAlgSHA512}
	banks := binary.BigEndian.AppendUint32(nil, uint32(len(all)))
	for _, hash := range all {
		bitmap := []byte{3, 0, 0, 0}
		if slices.Contains(hashes, hash) {
			bitmap = []byte{3, 0xff, 0xff, 0xff}
		}
		banks = append(binary.BigEndian.AppendUint16(banks, uint16(hash)), bitmap...)
	}
	answer, err := t.byPassword(0x0000012B, tpm2.TPMRHPlatform, banks)
	if err != nil {
		return err
	}
	if len(answer) < 5 || answer[4] != 1 { // parameterSize, allocationSuccess
		return fmt.Errorf("TPM2_PCR_Allocate answers %x", answer)
	}
	return t.PowerCut()
}

// ResetLockout is TPM2_DictionaryAttackLockReset.
func (t *TPM) ResetLockout() error {
	_, err := t.byPassword(tpm2.TPMCCDictionaryAttackLockReset, tpm2.TPMRHLockout, nil)
	return err
}

// byPassword sends a command that go-tpm does not have, with an empty password for its one handle, and gives
// the parameters of the answer, their size first.
func (t *TPM) byPassword(command tpm2.TPMCC, handle tpm2.TPMHandle, parameters []byte) ([]byte, error) {
	const header, session = 10, 9 // octets
	out := []byte{0x80, 0x02}     // TPM_ST_SESSIONS
	out = binary.BigEndian.AppendUint32(out, uint32(header+4+4+session+len(parameters)))
	out = binary.BigEndian.AppendUint32(out, uint32(command))
	out = binary.BigEndian.AppendUint32(out, uint32(handle))
	out = binary.BigEndian.AppendUint32(out, session)
	out = binary.BigEndian.AppendUint32(out, uint32(tpm2.TPMRSPW))
	out = append(out, 0, 0, 0, 0, 0) // no nonce, no attributes, no password
	answer, err := t.Send(append(out, parameters...))
	if err != nil {
		return nil, err
	}
	if len(answer) < header || !bytes.Equal(answer[6:header], make([]byte, 4)) {
		return nil, fmt.Errorf("command %#x is answered by %x", uint32(command), answer)
	}
	return answer[header:], nil
}

// manufacture makes the TPM's state, its endorsement keys, and a CA that certifies them.
func (t *TPM) manufacture() error {
	at := func(name string) string { return filepath.Join(t.dir, name) }
	for _, name := range []string{"state", "ca"} {
		if err := os.Mkdir(at(name), 0o700); err != nil {
			return err
		}
	}
	localca, err := exec.LookPath("swtpm_localca")
	if err != nil {
		return fmt.Errorf("install swtpm-tools: %w", err)
	}
	for name, lines := range map[string][]string{
		"ca.conf": {"statedir = " + at("ca"), "signingkey = " + at("ca/key.pem"), "issuercert = " + at("ca/issuer.pem"), "certserial = " + at("ca/serial")},
		"options": {"--platform-manufacturer Test", "--platform-model Test", "--platform-version 1"},
		"setup.conf": {"create_certs_tool = " + localca, "create_certs_tool_config = " + at("ca.conf"),
			"create_certs_tool_options = " + at("options"), "active_pcr_banks = sha256"},
	} {
		if err := os.WriteFile(at(name), []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, "swtpm_setup", "--tpm2", "--tpmstate", at("state"), "--config", at("setup.conf"),
		"--createek", "--ecc", "--create-ek-cert", "--lock-nvram", "--overwrite").CombinedOutput()
	if err != nil {
		return fmt.Errorf("swtpm_setup: %w\n%s", err, out)
	}
	for _, name := range []string{"ca/issuer.pem", "ca/swtpm-localca-rootca-cert.pem"} {
		certs, err := readPEM(at(name))
		if err != nil {
			return err
		}
		t.Manufacturer = append(t.Manufacturer, certs...)
	}
	return nil
}

// Close stops the TPM and forgets it.
func (t *TPM) Close() error {
	if t.conn != nil {
		t.conn.Close()
	}
	if t.swtpm != nil && t.swtpm.Process != nil {
		t.swtpm.Process.Kill()
		<-t.ended
	}
	return os.RemoveAll(t.dir)
}

type endorsementKey struct {
	certificate *x509.Certificate
	public      tpm2.TPMTPublic
	key         *ecdsa.PublicKey
	name        tpm2.TPM2BName
}

func (t *TPM) endorsementKey() (*endorsementKey, error) {
	r, err := tpm2.ReadPublic{ObjectHandle: ekHandle}.Execute(t)
	if err != nil {
		return nil, fmt.Errorf("EK: %w", err)
	}
	area, err := r.OutPublic.Contents()
	if err != nil {
		return nil, err
	}
	key, err := tpm2.Pub(*area)
	if err != nil {
		return nil, err
	}
	ec, ok := key.(*ecdsa.PublicKey)
	if !ok {
		return nil, fmt.Errorf("the EK is a %T", key)
	}
	raw, err := t.readNV(ekCertificate)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(raw)
	if err != nil {
		return nil, fmt.Errorf("EK certificate: %w", err)
	}
	return &endorsementKey{cert, *area, ec, r.Name}, nil
}

func (t *TPM) readNV(index tpm2.TPMHandle) ([]byte, error) {
	pub, err := tpm2.NVReadPublic{NVIndex: index}.Execute(t)
	if err != nil {
		return nil, fmt.Errorf("NV %#x: %w", uint32(index), err)
	}
	area, err := pub.NVPublic.Contents()
	if err != nil {
		return nil, err
	}
	var out []byte
	const step = 512
	for len(out) < int(area.DataSize) {
		r, err := tpm2.NVRead{
			AuthHandle: tpm2.AuthHandle{Handle: tpm2.TPMRHOwner, Auth: tpm2.PasswordAuth(nil)},
			NVIndex:    tpm2.NamedHandle{Handle: index, Name: pub.NVName},
			Size:       uint16(min(step, int(area.DataSize)-len(out))), Offset: uint16(len(out)),
		}.Execute(t)
		if err != nil {
			return nil, fmt.Errorf("NV %#x: %w", uint32(index), err)
		}
		out = append(out, r.Data.Buffer...)
	}
	var first asn1.RawValue // what stands behind it is padding
	if _, err := asn1.Unmarshal(out, &first); err != nil {
		return nil, err
	}
	return first.FullBytes, nil
}

// activate has the TPM decrypt what is meant for its EK, which it does for the AK named in it alone.
func (t *TPM) activate(ak *AK, ek *endorsementKey, blob, secret []byte) ([]byte, error) {
	r, err := tpm2.ActivateCredential{
		ActivateHandle: ak.auth(),
		KeyHandle:      tpm2.AuthHandle{Handle: ekHandle, Name: ek.name, Auth: tpm2.PasswordAuth(nil)},
		CredentialBlob: tpm2.TPM2BIDObject{Buffer: blob},
		Secret:         tpm2.TPM2BEncryptedSecret{Buffer: secret},
	}.Execute(t)
	if err != nil {
		return nil, err
	}
	return r.CertInfo.Buffer, nil
}

// AK is an attestation key, made persistent.
type AK struct {
	Handle tpm2.TPMHandle
	Name   tpm2.TPM2BName
	Public tpm2.TPMTPublic
	Key    crypto.PublicKey
}

func (ak *AK) auth() tpm2.AuthHandle {
	return tpm2.AuthHandle{Handle: ak.Handle, Name: ak.Name, Auth: tpm2.PasswordAuth(nil)}
}

// AKAttributes are those of an attestation key.
var AKAttributes = tpm2.TPMAObject{FixedTPM: true, FixedParent: true, SensitiveDataOrigin: true, UserWithAuth: true,
	NoDA: true, Restricted: true, SignEncrypt: true}

// ECCAK is a P-256 or P-384 attestation key that signs by ECDSA.
func ECCAK(curve tpm2.TPMECCCurve, hash tpm2.TPMIAlgHash) tpm2.TPMTPublic {
	return tpm2.TPMTPublic{Type: tpm2.TPMAlgECC, NameAlg: tpm2.TPMAlgSHA256, ObjectAttributes: AKAttributes,
		Parameters: tpm2.NewTPMUPublicParms(tpm2.TPMAlgECC, &tpm2.TPMSECCParms{CurveID: curve,
			Scheme: tpm2.TPMTECCScheme{Scheme: tpm2.TPMAlgECDSA, Details: tpm2.NewTPMUAsymScheme(tpm2.TPMAlgECDSA, &tpm2.TPMSSigSchemeECDSA{HashAlg: hash})}})}
}

// RSAAK is an RSA-2048 attestation key that signs by RSASSA or RSAPSS.
func RSAAK(scheme tpm2.TPMAlgID, hash tpm2.TPMIAlgHash) tpm2.TPMTPublic {
	details := tpm2.NewTPMUAsymScheme(tpm2.TPMAlgRSASSA, &tpm2.TPMSSigSchemeRSASSA{HashAlg: hash})
	if scheme == tpm2.TPMAlgRSAPSS {
		details = tpm2.NewTPMUAsymScheme(tpm2.TPMAlgRSAPSS, &tpm2.TPMSSigSchemeRSAPSS{HashAlg: hash})
	}
	return tpm2.TPMTPublic{Type: tpm2.TPMAlgRSA, NameAlg: tpm2.TPMAlgSHA256, ObjectAttributes: AKAttributes,
		Parameters: tpm2.NewTPMUPublicParms(tpm2.TPMAlgRSA, &tpm2.TPMSRSAParms{KeyBits: 2048,
			Scheme: tpm2.TPMTRSAScheme{Scheme: scheme, Details: details}})}
}

// MakeAK makes an attestation key under the owner's storage key, at a persistent handle
// (0x81000000 to 0x817fffff), instead of the one that was there.
func (t *TPM) MakeAK(template tpm2.TPMTPublic, handle tpm2.TPMHandle) (*AK, error) {
	owner := tpm2.AuthHandle{Handle: tpm2.TPMRHOwner, Auth: tpm2.PasswordAuth(nil)}
	if old, err := (tpm2.ReadPublic{ObjectHandle: handle}).Execute(t); err == nil {
		if _, err := (tpm2.EvictControl{Auth: owner, ObjectHandle: tpm2.NamedHandle{Handle: handle, Name: old.Name}, PersistentHandle: handle}).Execute(t); err != nil {
			return nil, err
		}
	}
	key, err := t.MakeKey(template)
	if err != nil {
		return nil, err
	}
	defer key.Flush()
	if _, err := (tpm2.EvictControl{Auth: owner, ObjectHandle: tpm2.NamedHandle{Handle: key.Handle, Name: key.Name}, PersistentHandle: handle}).Execute(t); err != nil {
		return nil, err
	}
	return &AK{handle, key.Name, key.Public, key.Key}, nil
}

// Key is a key of whatever kind in the TPM's memory. Flush it: there are three places.
type Key struct {
	AK
	tpm *TPM
}

// Flush takes the key out of the TPM's memory.
func (k *Key) Flush() error {
	_, err := tpm2.FlushContext{FlushHandle: k.Handle}.Execute(k.tpm)
	return err
}

// MakeKey makes a key by a template, under the owner's storage key.
func (t *TPM) MakeKey(template tpm2.TPMTPublic) (*Key, error) {
	primary, err := tpm2.CreatePrimary{PrimaryHandle: tpm2.TPMRHOwner, InPublic: tpm2.New2B(tpm2.ECCSRKTemplate)}.Execute(t)
	if err != nil {
		return nil, err
	}
	defer tpm2.FlushContext{FlushHandle: primary.ObjectHandle}.Execute(t)
	parent := tpm2.AuthHandle{Handle: primary.ObjectHandle, Name: primary.Name, Auth: tpm2.PasswordAuth(nil)}
	made, err := tpm2.Create{ParentHandle: parent, InPublic: tpm2.New2B(template)}.Execute(t)
	if err != nil {
		return nil, err
	}
	r, err := tpm2.Load{ParentHandle: parent, InPublic: made.OutPublic, InPrivate: made.OutPrivate}.Execute(t)
	if err != nil {
		return nil, err
	}
	return t.newKey(r.ObjectHandle, r.Name, made.OutPublic)
}

// LoadExternal loads a key that was made elsewhere: it is not fixed to the TPM.
func (t *TPM) LoadExternal(public tpm2.TPMTPublic, private tpm2.TPMTSensitive) (*Key, error) {
	r, err := tpm2.LoadExternal{InPrivate: tpm2.New2B(private), InPublic: tpm2.New2B(public), Hierarchy: tpm2.TPMRHNull}.Execute(t)
	if err != nil {
		return nil, err
	}
	return t.newKey(r.ObjectHandle, r.Name, tpm2.New2B(public))
}

// LoadPublic loads a public key alone.
func (t *TPM) LoadPublic(public tpm2.TPMTPublic) (*Key, error) {
	r, err := tpm2.LoadExternal{InPublic: tpm2.New2B(public), Hierarchy: tpm2.TPMRHNull}.Execute(t)
	if err != nil {
		return nil, err
	}
	return t.newKey(r.ObjectHandle, r.Name, tpm2.New2B(public))
}

func (t *TPM) newKey(handle tpm2.TPMHandle, name tpm2.TPM2BName, public tpm2.TPM2BPublic) (*Key, error) {
	area, err := public.Contents()
	if err != nil {
		return nil, err
	}
	key, err := tpm2.Pub(*area)
	if err != nil {
		return nil, err
	}
	return &Key{AK{handle, name, *area, key}, t}, nil
}

// Certify has an AK certify a key, over extraData, and gives the statement.
func (t *TPM) Certify(ak *AK, chain []*x509.Certificate, alg int64, key *Key, extraData []byte) (*Attestation, error) {
	r, err := tpm2.Certify{
		ObjectHandle: key.auth(), SignHandle: ak.auth(),
		QualifyingData: tpm2.TPM2BData{Buffer: extraData}, InScheme: tpm2.TPMTSigScheme{Scheme: tpm2.TPMAlgNull},
	}.Execute(t)
	if err != nil {
		return nil, err
	}
	return &Attestation{Version: "2.0", Alg: alg, X5C: raws(chain), Sig: tpm2.Marshal(r.Signature),
		CertInfo: r.CertifyInfo.Bytes(), PubArea: tpm2.Marshal(key.Public)}, nil
}

// Device is a ready device: its AK is certified for the device named, and its own key is made. dir
// is for its files. The caller closes it.
func (t *TPM) Device(a *Authority, name string, template tpm2.TPMTPublic, dir string, config tpm.Config) (*tpm.Device, error) {
	const handle = 0x81000100 // persistent, of the owner
	ak, err := t.MakeAK(template, handle)
	if err != nil {
		return nil, fmt.Errorf("AK: %w", err)
	}
	chain, err := a.Certify(t, ak, name)
	if err != nil {
		return nil, err
	}
	config.Path, config.AK = "socket:"+t.Socket, fmt.Sprintf("%#x", handle)
	config.AKChain, config.KeyFile = filepath.Join(dir, "ak.pem"), filepath.Join(dir, "key.tss2.pem")
	if err := WritePEM(config.AKChain, chain); err != nil {
		return nil, err
	}
	return tpm.Open(config)
}
