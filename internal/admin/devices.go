package admin

import (
	"time"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/device"
)

// MaxHoldings bounds the certificates and credentials shown with a device.
const MaxHoldings = 200

func (c *call) listDevices() (any, error) {
	q, w, after, n, err := c.window("level", "group", "state", "prefix")
	if err != nil {
		return nil, err
	}
	f := device.Filter{Level: q.Get("level"), Group: q.Get("group"), State: device.State(q.Get("state")), Prefix: q.Get("prefix"), Window: w}
	if f.State != "" && !knownState(f.State) {
		return nil, ca.Errorf(ca.Malformed, "%q is not a device state", f.State)
	}
	list, err := c.Reader.Devices(c.r.Context(), f, device.Fold(after), n)
	return page(list, n, err, func(d device.Device) string { return windowKey(w, d.Created, d.ID) })
}

func knownState(s device.State) bool {
	switch s {
	case device.Manufactured, device.Claimed, device.Active, device.Suspended, device.Retired:
		return true
	}
	return false
}

// page makes a page of a list. A full one may be followed by another.
func page[T any](list []T, limit int, err error, key func(T) string) (any, error) {
	if err != nil {
		return nil, err
	}
	p := Page[T]{Items: list}
	if p.Items == nil {
		p.Items = []T{} // "[]" and not "null"
	}
	if len(list) == limit {
		p.Next = key(list[limit-1])
	}
	return p, nil
}

func (c *call) addDevice() (any, error) {
	var in NewDevice
	if err := c.decode(&in); err != nil {
		return nil, err
	}
	if err := device.CheckNewID(in.ID); err != nil {
		return nil, ca.Errorf(ca.Malformed, "%s", err)
	}
	if err := checkGrant(in.Level, in.Uses); err != nil {
		return nil, err
	}
	return c.granted(c.Core.AddDevice(c.r.Context(), device.Device{ID: in.ID, Level: in.Level, Group: in.Group}, in.Uses, time.Duration(in.TTL), c.who.Actor))
}

// granted answers with a new credential, and warns if it can bring nothing.
func (c *call) granted(g *ca.Grant, err error) (any, error) {
	if err != nil {
		return nil, err
	}
	g.Warnings = c.warnings(g.Level)
	return g, nil
}

func checkGrant(level string, uses int) error {
	switch {
	case level == "":
		return ca.Errorf(ca.Malformed, "level is missing: name a trust level of the policy")
	case uses < 0:
		return ca.Errorf(ca.Malformed, "uses cannot be negative")
	}
	return nil
}

// nonNil keeps a nil *T from becoming a body.
func nonNil[T any](v *T, err error) (any, error) {
	if err != nil {
		return nil, err
	}
	return v, nil
}

func (c *call) showDevice() (any, error) {
	id, err := c.deviceID()
	if err != nil {
		return nil, err
	}
	if _, err := c.query(); err != nil {
		return nil, err
	}
	ctx := c.r.Context()
	d, err := c.Reader.Device(ctx, id)
	if err != nil {
		return nil, missing(err, "no device %q in the inventory", id)
	}
	out := DeviceDetail{Device: *d, Certificates: []ca.Certificate{}, Credentials: []device.Credential{}}
	// Certificates come oldest first and the newest matter most: walk to the
	// end and keep the tail.
	for after := int64(0); ; {
		list, err := c.Reader.Certificates(ctx, ca.CertificateFilter{Device: d.ID}, after, MaxPage)
		if err != nil {
			return nil, err
		}
		out.Certificates = append(out.Certificates, list...)
		if over := len(out.Certificates) - MaxHoldings; over > 0 {
			out.Certificates, out.More = out.Certificates[over:], true
		}
		if len(list) < MaxPage {
			break
		}
		after = list[len(list)-1].ID
	}
	list, err := c.Reader.Credentials(ctx, ca.CredentialFilter{Device: d.ID}, "", MaxHoldings+1)
	if err != nil {
		return nil, err
	}
	if len(list) > MaxHoldings {
		list, out.More = list[:MaxHoldings], true
	}
	out.Credentials = append(out.Credentials, list...)
	return out, nil
}

func (c *call) suspendDevice() (any, error) { return c.move(device.Suspended) }

// resumeDevice asks for Active: the core leads it back to where it was.
func (c *call) resumeDevice() (any, error) { return c.move(device.Active) }

// retireDevice takes a Revoke body, since retiring revokes.
func (c *call) retireDevice() (any, error) { return c.move(device.Retired) }

func (c *call) move(to device.State) (any, error) {
	id, err := c.deviceID()
	if err != nil {
		return nil, err
	}
	reason := 0
	if to == device.Retired {
		var in Revoke
		if err := c.decode(&in); err != nil {
			return nil, err
		}
		if in.Reason == "" {
			in.Reason = "cessationOfOperation"
		}
		if in.Invalid != nil {
			return nil, ca.Errorf(ca.Malformed, "retiring takes no invalidity date; revoke the certificates first, one by one")
		}
		if reason, err = ca.ParseReason(in.Reason); err != nil {
			return nil, ca.Errorf(ca.Malformed, "%s", err)
		}
	} else if err := c.decode(&struct{}{}); err != nil {
		return nil, err
	}
	ctx := c.r.Context()
	if _, err := c.Reader.Device(ctx, id); err != nil {
		return nil, missing(err, "no device %q in the inventory", id)
	}
	revoked, err := c.Core.MoveDevice(ctx, id, to, reason, c.who.Actor)
	if err != nil {
		return nil, missing(err, "no device %q in the inventory", id)
	}
	d, err := c.Reader.Device(ctx, id)
	if err != nil {
		return nil, err
	}
	return Moved{Device: d, Revoked: revoked.First, Total: revoked.Count}, nil
}
