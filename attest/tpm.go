package attest

import (
	"crypto/subtle"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"github.com/fxamacker/cbor/v2"

	"github.com/deviceca/deviceca/policy"
)

// Limits of a statement of format "tpm". A real one takes about 4 kB.
const (
	maxStatement   = 32 << 10 // octets of attStmt
	maxCertificate = 8 << 10  // octets each
	maxChain       = 6        // certificates in x5c
	maxStructure   = 2 << 10  // octets of certInfo, pubArea and sig, each
	maxChallenge   = 1 << 10  // octets
)

// TPM judges statements of the format "tpm" (WebAuthn Level 2 §8.3), which is what
// TPM2_Certify makes: the device's TPM says, by an attestation key (AK) that signs
// nothing else, that the key to certify was made in it and does not leave it. That the
// AK is a TPM's, and whose, is the word of the attestation authority that issued the AK's certificate
// after it had checked the endorsement key (EK): its CA certificates are the anchors.
//
// The evidence is of kind "tpm". Its facts:
//
//	ek_chain            true: the attestation authority vouches for the EK behind the AK
//	key_certified       true: the key was made in the TPM, stays there, and signs what it is given
//	revocation_checked  whether every certificate of the path was looked up in a CRL (see Anchor)
//	manufacturer        whose anchor the AK's certificate leads to
//	tpm_manufacturer    of the TPM, as the AK's certificate has it: "id:" and eight hex digits
//	tpm_model, tpm_version
//	quote_age           with a quote: how old the quote is; 0 now, for the caller to add to
//	pcr_bank            with a quote: "sha256", "sha384" or "sha512"
//	pcr_digest          with a quote: SHA-256 over the quoted PCR values in order, in hex
//	pcrs                with a quote: the numbers of the quoted PCRs
//
// The vector affirms hardware, and instance_identity where the AK's certificate names the
// device. It says nothing of executables: a quote proves what was measured, not that it is
// what should have been.
//
// Safe for concurrent use.
func TPM() Verifier { return tpmVerifier{} }

type tpmVerifier struct{}

func (tpmVerifier) Format() string { return "tpm" }

func (tpmVerifier) Verify(s Statement) (*Result, error) {
	result, err := verifyTPM(s)
	if err != nil {
		return nil, refuse("tpm: %w", err)
	}
	return result, nil
}

// tpmStatement is attStmt of WebAuthn Level 2 §8.3:
//
//	{ "ver": "2.0", "alg": int, "x5c": [ 1*6 bstr ], "sig": bstr, "certInfo": bstr, "pubArea": bstr }
type tpmStatement struct {
	Version  string            `cbor:"ver"`
	Alg      int64             `cbor:"alg"`      // COSE
	X5C      []cbor.ByteString `cbor:"x5c"`      // AK certificate, then its issuers
	Sig      cbor.ByteString   `cbor:"sig"`      // over CertInfo, by the AK
	CertInfo cbor.ByteString   `cbor:"certInfo"` // TPMS_ATTEST
	PubArea  cbor.ByteString   `cbor:"pubArea"`  // TPMT_PUBLIC of the key
}

func parseTPMStatement(raw []byte) (*tpmStatement, error) {
	if len(raw) > maxStatement {
		return nil, fmt.Errorf("attStmt of %d octets, of which at most %d are read", len(raw), maxStatement)
	}
	var st tpmStatement
	if err := decodeCBOR(raw, &st); err != nil {
		return nil, fmt.Errorf("attStmt: %w", err)
	}
	if st.Version != "2.0" {
		return nil, fmt.Errorf("ver is %.10q: only 2.0 is known here", st.Version)
	}
	if len(st.X5C) == 0 || len(st.X5C) > maxChain {
		return nil, fmt.Errorf("x5c has %d certificates: 1 to %d are due, the AK's first", len(st.X5C), maxChain)
	}
	for _, f := range []struct {
		name  string
		value cbor.ByteString
	}{{"sig", st.Sig}, {"certInfo", st.CertInfo}, {"pubArea", st.PubArea}} {
		if len(f.value) == 0 {
			return nil, fmt.Errorf("%s is missing", f.name)
		}
		if len(f.value) > maxStructure {
			return nil, fmt.Errorf("%s has %d octets, of which at most %d are read", f.name, len(f.value), maxStructure)
		}
	}
	return &st, nil
}

// verifyTPM goes from what is trusted to what follows from it; nothing is read for
// its meaning before the signature over it has been verified:
//
//  1. the statement's form, within its limits
//  2. the AK's certificate: what it may be used for, whose it is, and a path from it to an anchor
//  3. the AK's signature over certInfo, by an algorithm that fits the key
//  4. certInfo: made by a TPM, of type certify, for this challenge and this pubArea
//  5. pubArea: a key that was born in the TPM, cannot leave it, and signs
//  6. the quote, if there is one, by the same AK and for the same challenge
//
// authData is not looked at: in ACME it has no meaning, and nothing is signed over it.
func verifyTPM(s Statement) (*Result, error) {
	switch {
	case len(s.Challenge) == 0 || len(s.Challenge) > maxChallenge:
		return nil, fmt.Errorf("a challenge of 1 to %d octets is due, and has %d", maxChallenge, len(s.Challenge))
	case s.Now.IsZero():
		return nil, errors.New("the time of judgement was not given")
	case len(s.Anchors) == 0:
		return nil, errors.New("no manufacturer's anchors are registered for this format")
	}
	st, err := parseTPMStatement(s.Raw)
	if err != nil {
		return nil, err
	}
	chain, err := parseX5C(st.X5C)
	if err != nil {
		return nil, err
	}
	ak, err := inspectAK(chain[0])
	if err != nil {
		return nil, fmt.Errorf("AK certificate: %w", err)
	}
	path, err := findPath(chain, s.Anchors, s.Now)
	if err != nil {
		return nil, err
	}
	alg, err := algorithmFor(st.Alg, chain[0].PublicKey)
	if err != nil {
		return nil, err
	}
	if err := alg.verify(chain[0].PublicKey, []byte(st.CertInfo), []byte(st.Sig)); err != nil {
		return nil, fmt.Errorf("sig over certInfo: %w", err)
	}
	key, err := checkCertified([]byte(st.CertInfo), []byte(st.PubArea), alg.sum(s.Challenge))
	if err != nil {
		return nil, err
	}
	spki, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return nil, fmt.Errorf("pubArea: %w", err)
	}
	facts := map[string]any{
		"ek_chain": true, "key_certified": true, "revocation_checked": path.revocationChecked,
		"manufacturer": path.manufacturer, "tpm_manufacturer": ak.manufacturer, "tpm_model": ak.model, "tpm_version": ak.version,
	}
	vector := policy.Vector{"hardware": affirmed}
	if len(ak.identifiers) > 0 {
		vector["instance_identity"] = affirmed
	}
	if s.Quote != nil {
		q, err := verifyQuote(s.Quote, chain[0].PublicKey, s.Challenge)
		if err != nil {
			return nil, fmt.Errorf("quote: %w", err)
		}
		facts["quote_age"], facts["pcr_bank"], facts["pcr_digest"], facts["pcrs"] = time.Duration(0), q.bank, q.digest, q.pcrs
	}
	return &Result{
		Manufacturer: path.manufacturer, Attester: chain[0], PublicKey: key, SPKI: spki, Identifiers: ak.identifiers,
		Evidence: policy.Evidence{Kind: "tpm", Facts: facts, Vector: vector},
	}, nil
}

// affirmed is the AR4SI value for hardware that is genuine and for an instance that is recognized
// and not known to be compromised (draft-ietf-rats-ar4si §2.3.4).
const affirmed = 2

// checkCertified is steps 4 and 5: the key that certInfo, whose signature has been
// verified, certifies. extraData is what the challenge comes to.
func checkCertified(certInfo, pubArea, extraData []byte) (any, error) {
	info, err := parseAttest(certInfo)
	if err != nil {
		return nil, fmt.Errorf("certInfo: %w", err)
	}
	if info.kind != attestCertify {
		return nil, fmt.Errorf("certInfo: type %#04x, where TPM_ST_ATTEST_CERTIFY (0x8017) is due", info.kind)
	}
	if subtle.ConstantTimeCompare(info.extraData, extraData) != 1 {
		return nil, errors.New("certInfo: extraData is not the hash of this challenge's key authorization: certify the key anew, for this challenge and account")
	}
	public, err := parsePublic(pubArea)
	if err != nil {
		return nil, fmt.Errorf("pubArea: %w", err)
	}
	if subtle.ConstantTimeCompare(info.name, public.name) != 1 {
		return nil, errors.New("certInfo certifies another key than that of pubArea: the names differ")
	}
	if err := public.mayIdentify(); err != nil {
		return nil, fmt.Errorf("pubArea: %w", err)
	}
	key, err := public.key()
	if err != nil {
		return nil, fmt.Errorf("pubArea: %w", err)
	}
	return key, nil
}
