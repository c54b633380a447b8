package main

import (
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"slices"

	"github.com/google/go-tpm/tpm2"

	"github.com/deviceca/deviceca/internal/attesttest"
)

// softTPM says of keys what a TPM says of those that it made, by an attestation key (AK) in
// software that an authority of ours certified. Its PCRs are always the same.
type softTPM struct {
	authority *attesttest.Authority
	ak        *ecdsa.PrivateKey
}

// coseES256 is ECDSA with SHA-256 in COSE.
const coseES256 = -7

func newSoftTPM() (*softTPM, error) {
	authority, err := attesttest.NewAuthority("Bench")
	if err != nil {
		return nil, err
	}
	ak, err := newKey()
	return &softTPM{authority, ak}, err
}

// attested is a key that a statement can be made of.
type attested struct {
	*softTPM
	chain         []*x509.Certificate // of the AK, in which the device is named
	pubArea, name []byte
}

// attest certifies the AK for a device, and describes the device's key as the TPM's own.
func (t *softTPM) attest(device string, key *ecdsa.PublicKey) (*attested, error) {
	chain, err := t.authority.Issue(t.ak.Public(), device)
	if err != nil {
		return nil, err
	}
	point, err := key.Bytes()
	if err != nil {
		return nil, err
	}
	pubArea := tpm2.Marshal(tpm2.TPMTPublic{Type: tpm2.TPMAlgECC, NameAlg: tpm2.TPMAlgSHA256,
		ObjectAttributes: tpm2.TPMAObject{FixedTPM: true, FixedParent: true, SensitiveDataOrigin: true, UserWithAuth: true, SignEncrypt: true},
		Parameters:       tpm2.NewTPMUPublicParms(tpm2.TPMAlgECC, &tpm2.TPMSECCParms{CurveID: tpm2.TPMECCNistP256}),
		Unique: tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, &tpm2.TPMSECCPoint{
			X: tpm2.TPM2BECCParameter{Buffer: point[1:33]}, Y: tpm2.TPM2BECCParameter{Buffer: point[33:]}})})
	digest := sha256.Sum256(pubArea)
	return &attested{t, chain, pubArea, append([]byte{0, 0x0b}, digest[:]...)}, nil
}

// answer is the payload for device-attest-01: the statement over a key authorization, and a quote of the PCRs 0 to 7.
func (a *attested) answer(keyAuthorization string) ([]byte, error) {
	const (
		magic          = 0xff544347
		certify, quote = 0x8017, 0x8018
	)
	fresh := sha256.Sum256([]byte(keyAuthorization))
	name := attesttest.Sized(a.name)
	st := attesttest.Attestation{Version: "2.0", Alg: coseES256, PubArea: a.pubArea,
		CertInfo: attesttest.TPMSAttest(magic, certify, fresh[:], slices.Concat(name, name))}
	for _, c := range a.chain {
		st.X5C = append(st.X5C, c.Raw)
	}
	var err error
	if st.Sig, err = attesttest.SignBy(a.ak, coseES256, 0, st.CertInfo); err != nil {
		return nil, err
	}
	q := attesttest.Quote{Version: 1, Alg: coseES256, PCRs: map[uint64][]byte{}}
	var values []byte
	for i := range uint64(8) {
		q.PCRs[i] = make([]byte, sha256.Size)
		values = append(values, q.PCRs[i]...)
	}
	digest := sha256.Sum256(values)
	q.Quoted = attesttest.TPMSAttest(magic, quote, fresh[:], slices.Concat(attesttest.PCRSelection(0x0b, 0xff), attesttest.Sized(digest[:])))
	if q.Sig, err = attesttest.SignBy(a.ak, coseES256, 0, q.Quoted); err != nil {
		return nil, err
	}
	object := attesttest.Object("tpm", st.Encode())
	return fmt.Appendf(nil, `{"attObj":%q,"quote":%q}`, base64url.EncodeToString(object), base64url.EncodeToString(q.Encode())), nil
}
