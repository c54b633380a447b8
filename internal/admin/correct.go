package admin

import (
	"context"
	"errors"
	"net/http"
	"net/url"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/device"
)

// ChangedDevice answers a correction.
type ChangedDevice struct {
	device.Device
	Warnings []string `json:"warnings,omitempty"`
}

// warnings are about levels that are named: see policy.Policy.Unverifiable.
func (c *call) warnings(levels ...string) []string {
	return c.Core.Policy().Unverifiable(c.Verifiable, levels...)
}

func (c *call) setDevice() (any, error) {
	id, err := c.deviceID()
	if err != nil {
		return nil, err
	}
	var in device.Change
	if err := c.decode(&in); err != nil {
		return nil, err
	}
	d, err := c.Core.SetDevice(c.r.Context(), id, in, c.who.Actor)
	if err != nil {
		return nil, err
	}
	out := ChangedDevice{Device: *d}
	if in.Level != nil {
		out.Warnings = c.warnings(d.Level)
	}
	return out, nil
}

func (c *call) removeDevice() (any, error) {
	id, err := c.deviceID()
	if err != nil {
		return nil, err
	}
	return nil, c.Core.RemoveDevice(c.r.Context(), id, c.who.Actor)
}

// there counts a device that is in the inventory already, and says so where the
// inventory has another level or group. The state is its own affair: it may have moved on.
func (im *importer) there(at int) error {
	im.counts.There++
	want := im.batch[at]
	is, err := im.Reader.Device(im.r.Context(), want.ID)
	if errors.Is(err, ca.ErrNoRecord) { // removed this moment
		return nil
	}
	if err != nil {
		return err
	}
	if want.Group == "" {
		want.Group = is.Group // the file does not say
	}
	if text := is.Differences(want); text != "" {
		im.counts.Differ++
		return im.out.Encode(ImportReport{Difference: &ImportFailure{Line: im.lines[at], ID: is.ID, Error: text}})
	}
	return nil
}

// SetDevice corrects the level or the group of a device.
func (c *Client) SetDevice(ctx context.Context, id string, change device.Change) (*ChangedDevice, error) {
	return post[ChangedDevice](ctx, c, "/devices/"+url.PathEscape(id), change)
}

// RemoveDevice takes a device that never had a certificate out of the inventory.
func (c *Client) RemoveDevice(ctx context.Context, id string) error {
	return c.do(ctx, http.MethodDelete, "/devices/"+url.PathEscape(id), nil, nil, nil)
}
