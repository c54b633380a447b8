package server

import (
	"context"
	"crypto/x509"
	"encoding/asn1"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/cmp"
	"github.com/deviceca/deviceca/policy"
)

// askKey reads the request for a key made here (RFC 9483 §4.1.6), and refuses it
// where the profile does. The core looks once more, at the profile that is issued.
func (x *exchange) askKey(w *wanted, r *cmp.CertReqMsg, kind cmp.Algorithm) error {
	switch {
	case r.POP != nil:
		return refuse(cmp.BadPOP, "RFC 9483 §4.1.6", "a request for a key to be made has no proof of possession")
	case x.requester.RA != nil:
		return refuse(cmp.NotAuthorized, "RFC 9483 §4.1.6", "the key would be encrypted to the registration authority: let the device ask, and add protection")
	}
	if err := x.wantsVersion3("RFC 9483 §4.1.6", "a key that is made here comes in EnvelopedData"); err != nil {
		return err
	}
	profile, err := x.profileWanted()
	if err != nil {
		return err
	}
	if !profile.ServerKeygen.Allow {
		return refuse(cmp.BadCertTemplate, "RFC 9483 §4.1.6", "the template has no public key, and profile %s does not allow that keys are made here: make the key on the device", profile.Name)
	}
	w.make, w.kinds = true, profile.Keys
	if w.kind, err = keyKind(kind, profile.Keys); err != nil {
		return err
	}
	_, err = x.keyHolder()
	return err
}

// profileWanted is the profile of a certificate request. One that is not there is
// refused as the core does.
func (x *exchange) profileWanted() (policy.Profile, error) {
	p, err := x.profileFor()
	if err != nil && ca.KindOf(err) == ca.NotFound {
		err = ca.Errorf(ca.Denied, "%s", ca.AsError(err).Reason)
	}
	return p, err
}

// wantsVersion3: who is to get EnvelopedData says so from the first message on (RFC 9483 §4.1.6).
func (x *exchange) wantsVersion3(section, why string) error {
	if x.asked.Header.Version < cmp.CMP2021 {
		return refuse(cmp.BadRequest, section, "%s: begin with pvno 3", why)
	}
	return nil
}

// keyKind is the kind of key, by policy's name, that a template prefers; "" if it
// says nothing. For RSA it is the profile's first.
func keyKind(a cmp.Algorithm, kinds []string) (string, error) {
	switch {
	case !a.Present():
		return "", nil
	case a.OID.Equal(oidEd25519):
		return "ed25519", nil
	case a.OID.Equal(oidRSA):
		if i := slices.IndexFunc(kinds, func(k string) bool { return strings.HasPrefix(k, "rsa-") }); i >= 0 {
			return kinds[i], nil
		}
		return "rsa", nil
	case a.OID.Equal(oidEC):
		var curve asn1.ObjectIdentifier
		if rest, err := asn1.Unmarshal(a.Params, &curve); err != nil || len(rest) > 0 {
			return "", refuse(cmp.BadCertTemplate, "RFC 9483 §4.1.6", "the EC key to be made has no named curve")
		}
		for name, known := range curves {
			if known.Equal(curve) {
				return name, nil
			}
		}
	}
	return a.OID.String(), nil
}

// keyHolder is whom the key is encrypted to: the credential that protects the
// request, in the way that RFC 9483 §4.1.6 prescribes for its kind.
func (x *exchange) keyHolder() (cmp.Recipient, error) {
	if x.by.MAC != nil {
		return cmp.ToSecret([]byte(x.secret)), nil
	}
	if _, err := policy.KeyAlgorithm(x.by.Certificate.PublicKey); err != nil {
		return cmp.Recipient{}, &cmp.Error{Info: cmp.BadAlg, Section: "RFC 9483 §4.1.6", Reason: "the key of the protection certificate is too weak to encrypt to: " + err.Error(), Err: err}
	}
	return cmp.ToCertificate(x.by.Certificate)
}

// makeKey makes and seals the key, or takes the one that was made for the same
// transaction. In clear it is here alone, and is wiped before makeKey returns.
// What cannot be delivered is not certified: so it is sealed before anything is issued.
func (x *exchange) makeKey(ctx context.Context, w *wanted, t *Transaction) (err error) {
	if t.MadeKey != nil {
		w.spki, w.sealedKey = t.MadeKey, t.SealedKey
		w.publicKey, err = x509.ParsePKIXPublicKey(w.spki)
		return err
	}
	to, err := x.keyHolder()
	if err != nil {
		return err
	}
	kga, err := x.kga.get(ctx, x.Server)
	if err != nil {
		return err
	}
	// It costs more than a certificate does, whatever comes of the request.
	if err := x.spend(x.requester.Device); err != nil {
		return err
	}
	key, err := ca.MakeKey(ctx, w.kinds, w.kind)
	if err != nil {
		return err
	}
	defer ca.WipeKey(key)
	w.publicKey = key.Public()
	if w.spki, err = x509.MarshalPKIXPublicKey(w.publicKey); err != nil {
		return err
	}
	sealed, err := kga.SealKey(key, to, x.now)
	if err != nil {
		return err
	}
	w.sealedKey = sealed.EnvelopedData
	t.MadeKey, t.SealedKey = w.spki, w.sealedKey
	return nil
}

// otherKind says that a key is not of the kind that was preferred; "" if it is.
func (w *wanted) otherKind() string {
	made, err := policy.KeyAlgorithm(w.publicKey)
	if !w.make || w.kind == "" || w.kind == made || err != nil {
		return ""
	}
	return "the key is " + made + ": the profile has none of the kind asked for that is made here"
}

// keyAuthority signs the keys that are made here, by a certificate with
// id-kp-cmKGA. It is issued when it is first needed, and anew at half of its life
// or when the CAs have changed. Its key is in memory alone.
type keyAuthority struct {
	mu      sync.Mutex
	current *cmp.KGA
	cert    *x509.Certificate
}

// forget has the next key signed by a new certificate, whose chain is that of now.
func (k *keyAuthority) forget() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.current = nil
}

func (k *keyAuthority) get(ctx context.Context, s *Server) (*cmp.KGA, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.current != nil && !s.due(k.cert) {
		return k.current, nil
	}
	key, certs, err := s.issueDelegate(ctx, ca.BuiltinKGA)
	if err != nil {
		return nil, fmt.Errorf("the certificate of the key generation authority: %w", err)
	}
	kga, err := cmp.NewKGA(key, certs[0], certs[1:]...)
	if err != nil {
		return nil, err
	}
	k.current, k.cert = kga, certs[0]
	return kga, nil
}
