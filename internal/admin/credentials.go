package admin

import (
	"time"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/device"
)

func (c *call) listCredentials() (any, error) {
	q, w, after, n, err := c.window("device", "group")
	if err != nil {
		return nil, err
	}
	f := ca.CredentialFilter{Device: q.Get("device"), Group: q.Get("group"), Window: w}
	list, err := c.Reader.Credentials(c.r.Context(), f, after, n)
	return page(list, n, err, func(d device.Credential) string { return windowKey(w, d.Created, d.Reference) })
}

func (c *call) addCredential() (any, error) {
	var in NewCredential
	if err := c.decode(&in); err != nil {
		return nil, err
	}
	cred := device.Credential{Device: in.Device, Group: in.Group, Names: in.Names, Level: in.Level, Uses: in.Uses}
	switch {
	case (in.Device == "") == (in.Group == ""):
		return nil, ca.Errorf(ca.Malformed, "name one device or one group")
	case in.Device != "":
		if len(in.Names) > 0 {
			return nil, ca.Errorf(ca.Malformed, "names are for groups: a device's credential covers that device")
		}
		if err := device.CheckID(in.Device); err != nil {
			return nil, ca.Errorf(ca.Malformed, "%s", err)
		}
		d, err := c.Reader.Device(c.r.Context(), in.Device)
		if err != nil {
			return nil, missing(err, "no device %q in the inventory; add it first", in.Device)
		}
		if in.Level != "" && in.Level != d.Level {
			return nil, ca.Errorf(ca.Conflict, "device %s is of level %s; leave the level out", d.ID, d.Level)
		}
		cred.Device, cred.Level = d.ID, d.Level
	default:
		if len(in.Names) == 0 {
			return nil, ca.Errorf(ca.Malformed, "names are missing: say which device IDs the group may have, for example lamp-*")
		}
		for _, glob := range in.Names {
			if err := device.CheckGlob(glob); err != nil {
				return nil, ca.Errorf(ca.Malformed, "%s", err)
			}
		}
	}
	if err := checkGrant(cred.Level, in.Uses); err != nil {
		return nil, err
	}
	return c.granted(c.Core.AddCredential(c.r.Context(), cred, time.Duration(in.TTL), c.who.Actor))
}

func (c *call) revokeCredential() (any, error) {
	if err := c.decode(&struct{}{}); err != nil {
		return nil, err
	}
	ref := c.param("reference")
	err := c.Core.RevokeCredential(c.r.Context(), ref, c.who.Actor)
	return nil, missing(err, "no credential %q", ref)
}
