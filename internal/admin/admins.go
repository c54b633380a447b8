package admin

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"slices"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/device"
)

func (c *call) listAdmins() (any, error) {
	if _, err := c.query(); err != nil {
		return nil, err
	}
	list, err := c.Reader.Admins(c.r.Context())
	if err != nil {
		return nil, err
	}
	out := Page[Admin]{Items: make([]Admin, 0, len(list))}
	for _, a := range list {
		out.Items = append(out.Items, view(a))
	}
	return out, nil
}

func view(a ca.Admin) Admin {
	v := Admin{Admin: a, KeySHA256: hex.EncodeToString(a.KeyID[:])}
	if !a.ByKey() {
		v.CertSHA256 = hex.EncodeToString(a.CertID[:])
	}
	return v
}

func (c *call) addAdmin() (any, error) {
	var in NewAdmin
	if err := c.decode(&in); err != nil {
		return nil, err
	}
	if err := checkName(in.Name); err != nil {
		return nil, err
	}
	if !slices.Contains(Roles(), in.Role) {
		return nil, ca.Errorf(ca.Malformed, "role %q is unknown; use %s", in.Role, oneOf(Roles()))
	}
	raw, err := oneCertificate(in.Cert)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(raw)
	if err != nil {
		return nil, ca.Errorf(ca.Malformed, "the certificate cannot be read: %s", err)
	}
	now := c.Now()
	if now.After(cert.NotAfter) {
		return nil, ca.Errorf(ca.Malformed, "the certificate has expired")
	}
	a := ca.Admin{Name: in.Name, Role: string(in.Role), KeyID: sha256.Sum256(cert.RawSubjectPublicKeyInfo), Created: now.UTC(),
		CertID: sha256.Sum256(cert.Raw), NotAfter: cert.NotAfter.UTC()}
	e := ca.Event{Time: a.Created, Kind: ca.EventAdminAdded, Actor: c.who.Actor, Digest: hex.EncodeToString(a.KeyID[:]), Reason: a.Name + " as " + a.Role}
	err = c.Reader.AddAdmin(c.r.Context(), a, e)
	if errors.Is(err, ca.ErrRecorded) {
		return nil, ca.Errorf(ca.Conflict, "an administrator with this name or this key is there already: remove it first, to register another certificate")
	}
	return view(a), err
}

func (c *call) removeAdmin() (any, error) {
	name := c.param("name") // whatever it is: earlier versions took names that checkName refuses
	e := ca.Event{Time: c.Now().UTC(), Kind: ca.EventAdminRemoved, Actor: c.who.Actor, Reason: name}
	return nil, missing(c.Reader.RemoveAdmin(c.r.Context(), name, e), "no administrator %q", name)
}

// checkName holds admin names to the characters of device IDs: they stand in
// URLs, in file names and in the audit log.
func checkName(name string) error {
	if device.CheckNewID(name) != nil {
		return ca.Errorf(ca.Malformed, "%q cannot be the name of an administrator: use 1 to %d of A-Z a-z 0-9 . _ : -, without . or - at its beginning and . at its end", name, device.MaxIDLength)
	}
	return nil
}
