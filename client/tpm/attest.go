package tpm

import (
	"bytes"
	"context"
	"crypto"
	_ "crypto/sha256" // for crypto.Hash
	_ "crypto/sha512"
	"encoding/asn1"
	"errors"
	"fmt"
	"slices"

	"github.com/fxamacker/cbor/v2"
	"github.com/google/go-tpm/tpm2"
	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/deviceca/deviceca/client"
	"github.com/deviceca/deviceca/internal/der"
)

var _ client.Attester = (*Device)(nil)

// scheme is how an AK signs: by COSE number, and hash.
type scheme struct {
	cose int64
	hash crypto.Hash
}

// schemeOf reads an AK's scheme out of its public area. An attestation key is restricted
// and for signing, and has its scheme fixed.
func schemeOf(public tpm2.TPMTPublic) (scheme, error) {
	if a := public.ObjectAttributes; !a.Restricted || !a.SignEncrypt || a.Decrypt {
		return scheme{}, errors.New("it is not an attestation key, which is restricted and for signing")
	}
	var kind tpm2.TPMAlgID
	var by *tpm2.TPMSSchemeHash
	switch public.Type {
	case tpm2.TPMAlgRSA:
		p, err := public.Parameters.RSADetail()
		if err != nil {
			return scheme{}, err
		}
		kind = p.Scheme.Scheme
		switch kind {
		case tpm2.TPMAlgRSASSA:
			if details, err := p.Scheme.Details.RSASSA(); err == nil {
				by = (*tpm2.TPMSSchemeHash)(details)
			}
		case tpm2.TPMAlgRSAPSS:
			if details, err := p.Scheme.Details.RSAPSS(); err == nil {
				by = (*tpm2.TPMSSchemeHash)(details)
			}
		}
	case tpm2.TPMAlgECC:
		p, err := public.Parameters.ECCDetail()
		if err != nil {
			return scheme{}, err
		}
		kind = p.Scheme.Scheme
		if details, err := p.Scheme.Details.ECDSA(); kind == tpm2.TPMAlgECDSA && err == nil {
			by = (*tpm2.TPMSSchemeHash)(details)
		}
	}
	if by == nil {
		return scheme{}, fmt.Errorf("it signs by scheme %#04x, where RSASSA, RSAPSS or ECDSA is due", uint16(kind))
	}
	hash, err := by.HashAlg.Hash()
	if err != nil {
		return scheme{}, err
	}
	// RFC 9053 §2.1, RFC 8230 §2, RFC 8812 §2: in each row SHA-256, SHA-384, SHA-512.
	cose := map[tpm2.TPMAlgID][3]int64{
		tpm2.TPMAlgECDSA: {-7, -35, -36}, tpm2.TPMAlgRSAPSS: {-37, -38, -39}, tpm2.TPMAlgRSASSA: {-257, -258, -259},
	}
	i := slices.Index([]crypto.Hash{crypto.SHA256, crypto.SHA384, crypto.SHA512}, hash)
	if i < 0 {
		return scheme{}, fmt.Errorf("it signs by %v, which the CA does not take", hash)
	}
	return scheme{cose[kind][i], hash}, nil
}

// canonical is the CBOR that WebAuthn has (CTAP2 canonical form).
var canonical = func() cbor.EncMode {
	mode, err := cbor.CTAP2EncOptions().EncMode()
	if err != nil {
		panic(err) // the options are constants
	}
	return mode
}()

// Attest makes what answers ACME's device-attest-01 challenge for a key authorization
// (draft-ietf-acme-device-attest §5): a WebAuthn attestation object of format "tpm", and a quote to ride
// along with it, whose form docs/attestation.md has. It implements client.Attester. Errors are
// *client.Error, or ctx's.
func (d *Device) Attest(ctx context.Context, keyAuthorization string) (*client.Attestation, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	object, err := d.certify([]byte(keyAuthorization))
	if err != nil {
		return nil, local("the TPM did not certify the key", err, "")
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	made := &client.Attestation{Key: d.Signer(), Object: object, Warnings: d.unprotected()}
	made.Quote, err = d.quote([]byte(keyAuthorization))
	if errors.Is(err, errNoBank) {
		made.Warnings = append(made.Warnings, fmt.Sprintf("there is no quote: %v; a policy that asks for evidence.quote_age is not met (tpm2_pcrallocate sha256:all, and a restart, give the TPM such a bank)", err))
	} else if err != nil {
		return nil, local("the TPM did not quote its PCRs", err, "")
	}
	return made, nil
}

// Identifiers are what the AK's certificate calls the device: its otherNames that name devices, as they
// stand in evidence. It implements client.Attester.
func (d *Device) Identifiers() (named []client.Identifier) {
	var names cryptobyte.String
	for _, e := range d.chain[0].Extensions {
		if in := cryptobyte.String(e.Value); e.Id.Equal(oidSubjectAltName) && !in.ReadASN1(&names, cbasn1.SEQUENCE) {
			return nil
		}
	}
	for !names.Empty() {
		var name cryptobyte.String
		var tag cbasn1.Tag
		if !names.ReadAnyASN1(&name, &tag) {
			return nil
		}
		if tag != cbasn1.Tag(0).ContextSpecific().Constructed() { // otherName
			continue
		}
		if form, value, err := der.DeviceName(name); err == nil && form != "other" {
			named = append(named, client.Identifier{Type: form, Value: value})
		}
	}
	return named
}

var oidSubjectAltName = asn1.ObjectIdentifier{2, 5, 29, 17}

func digest(h crypto.Hash, data ...[]byte) []byte {
	d := h.New()
	for _, part := range data {
		d.Write(part)
	}
	return d.Sum(nil)
}

// certify has the AK say where the device's key lives (WebAuthn Level 2 §8.3).
func (d *Device) certify(challenge []byte) ([]byte, error) {
	r, err := tpm2.Certify{
		ObjectHandle:   d.key.auth(),
		SignHandle:     d.ak.auth(),
		QualifyingData: tpm2.TPM2BData{Buffer: digest(d.akBy.hash, challenge)},
		InScheme:       tpm2.TPMTSigScheme{Scheme: tpm2.TPMAlgNull},
	}.Execute(d.tpm)
	if err != nil {
		return nil, err
	}
	x5c := make([][]byte, len(d.chain))
	for i, c := range d.chain {
		x5c[i] = c.Raw
	}
	return canonical.Marshal(map[string]any{
		"fmt": "tpm",
		"attStmt": map[string]any{
			"ver": "2.0", "alg": d.akBy.cose, "x5c": x5c, "sig": tpm2.Marshal(r.Signature),
			"certInfo": r.CertifyInfo.Bytes(), "pubArea": tpm2.Marshal(d.key.public),
		},
	})
}

// quote has the AK say what the PCRs are, in the first of the CA's banks that the TPM has.
func (d *Device) quote(challenge []byte) ([]byte, error) {
	bank, err := d.bank()
	if err != nil {
		return nil, err
	}
	// A PCR may be extended between reading and quoting: then do both again.
	const tries = 5
	for range tries {
		values, err := d.readPCRs(bank)
		if err != nil {
			return nil, err
		}
		r, err := tpm2.Quote{
			SignHandle:     d.ak.auth(),
			QualifyingData: tpm2.TPM2BData{Buffer: digest(crypto.SHA256, challenge)},
			InScheme:       tpm2.TPMTSigScheme{Scheme: tpm2.TPMAlgNull},
			PCRSelect:      selection(bank, d.pcrs),
		}.Execute(d.tpm)
		if err != nil {
			return nil, err
		}
		info, err := r.Quoted.Contents()
		if err != nil {
			return nil, err
		}
		quoted, err := info.Attested.Quote()
		if err != nil {
			return nil, err
		}
		var inOrder [][]byte
		for _, i := range d.pcrs {
			inOrder = append(inOrder, values[uint64(i)])
		}
		if !bytes.Equal(quoted.PCRDigest.Buffer, digest(d.akBy.hash, inOrder...)) {
			continue
		}
		return canonical.Marshal(map[string]any{
			"ver": 1, "alg": d.akBy.cose, "quoted": r.Quoted.Bytes(), "sig": tpm2.Marshal(r.Signature), "pcrs": values,
		})
	}
	return nil, fmt.Errorf("its PCRs changed %d times while they were quoted", tries)
}

// errNoBank: the TPM has nothing to quote.
var errNoBank = errors.New("the TPM has no bank of SHA-256, SHA-384 or SHA-512 with the PCRs to quote")

// bank is the first of the banks that the CA takes in which the TPM has the PCRs to quote.
func (d *Device) bank() (tpm2.TPMIAlgHash, error) {
	const several = 64 // more than there are hashes
	r, err := tpm2.GetCapability{Capability: tpm2.TPMCapPCRs, PropertyCount: several}.Execute(d.tpm)
	if err != nil {
		return 0, err
	}
	banks, err := r.CapabilityData.Data.AssignedPCR()
	if err != nil {
		return 0, err
	}
	for _, hash := range []tpm2.TPMIAlgHash{tpm2.TPMAlgSHA256, tpm2.TPMAlgSHA384, tpm2.TPMAlgSHA512} {
		for _, b := range banks.PCRSelections {
			lacks := func(pcr int) bool { return pcr/8 >= len(b.PCRSelect) || b.PCRSelect[pcr/8]>>(pcr%8)&1 == 0 }
			if b.Hash == hash && !slices.ContainsFunc(d.pcrs, lacks) {
				return hash, nil
			}
		}
	}
	return 0, errNoBank
}

func selection(bank tpm2.TPMIAlgHash, pcrs []int) tpm2.TPMLPCRSelection {
	numbers := make([]uint, len(pcrs))
	for i, n := range pcrs {
		numbers[i] = uint(n)
	}
	return tpm2.TPMLPCRSelection{PCRSelections: []tpm2.TPMSPCRSelection{{Hash: bank, PCRSelect: tpm2.PCClientCompatible.PCRs(numbers...)}}}
}

// readPCRs reads the values of a bank one by one: a TPM gives as many at once as it likes.
func (d *Device) readPCRs(bank tpm2.TPMIAlgHash) (map[uint64][]byte, error) {
	hash, err := bank.Hash()
	if err != nil {
		return nil, err
	}
	values := map[uint64][]byte{}
	for _, i := range d.pcrs {
		r, err := tpm2.PCRRead{PCRSelectionIn: selection(bank, []int{i})}.Execute(d.tpm)
		if err != nil {
			return nil, err
		}
		if len(r.PCRValues.Digests) != 1 || len(r.PCRValues.Digests[0].Buffer) != hash.Size() {
			return nil, fmt.Errorf("PCR %d has no %v value", i, hash)
		}
		values[uint64(i)] = r.PCRValues.Digests[0].Buffer
	}
	return values, nil
}
