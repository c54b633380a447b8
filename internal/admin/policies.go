package admin

import (
	"encoding/json"
	"errors"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/device"
	"github.com/deviceca/deviceca/policy"
)

func (c *call) showPolicy() (any, error) {
	if _, err := c.query(); err != nil {
		return nil, err
	}
	p := c.Core.Policy()
	return PolicyView{c.summary(p), string(p.Source())}, nil
}

func (c *call) summary(p *policy.Policy) PolicySummary {
	return PolicySummary{Version: p.Version(), Levels: p.Levels(), Profiles: p.Profiles(), Warnings: p.Unverifiable(c.Verifiable)}
}

// parsePolicy reads a policy out of the body.
func (c *call) parsePolicy() (*policy.Policy, error) {
	var in Policy
	if err := c.decode(&in); err != nil {
		return nil, err
	}
	if in.File == "" {
		in.File = "policy.yaml"
	}
	p, err := policy.Parse(in.File, []byte(in.Source))
	if err != nil {
		return nil, &ca.Error{Kind: ca.Malformed, Reason: err.Error(), Err: err}
	}
	return p, nil
}

// checkPolicy also lints: it finds what the file alone does not show.
func (c *call) checkPolicy() (any, error) {
	p, err := c.parsePolicy()
	if err != nil {
		return nil, err
	}
	if err := c.Core.Check(c.r.Context(), p); err != nil {
		return nil, err
	}
	return c.summary(p), nil
}

// applyPolicy puts a policy in force, and then in the home: a policy that the
// core refuses (its profiles may fail the lint) leaves the file as it was.
func (c *call) applyPolicy() (any, error) {
	p, err := c.parsePolicy()
	if err != nil {
		return nil, err
	}
	if err := c.Core.Apply(c.r.Context(), p, c.who.Actor); err != nil {
		return nil, err
	}
	if c.SavePolicy != nil {
		if err := c.SavePolicy(p.Source()); err != nil {
			return nil, &ca.Error{Kind: ca.Unavailable, Err: err,
				Reason: "the policy is in force but its file could not be written, so that a restart would undo it; make room and apply it again"}
		}
	}
	return c.summary(p), nil
}

// explain decides a hypothetical request. What the inventory and the clock
// know and the request leaves out is filled in.
func (c *call) explain() (any, error) {
	var in policy.Input
	if err := c.decode(&in); err != nil {
		return nil, err
	}
	if in.Now.IsZero() {
		in.Now = c.Now()
	}
	if in.Operation == "" {
		in.Operation = "enroll"
	}
	if in.Device.ID != "" {
		if err := device.CheckID(in.Device.ID); err != nil {
			return nil, ca.Errorf(ca.Malformed, "%s", err)
		}
		d, err := c.Reader.Device(c.r.Context(), in.Device.ID)
		if err != nil && !errors.Is(err, ca.ErrNoRecord) {
			return nil, err
		}
		if err == nil {
			in.Device.Level = or(in.Device.Level, d.Level)
			in.Device.Group = or(in.Device.Group, d.Group)
			in.Device.State = or(in.Device.State, string(d.State))
		}
	}
	if in.Device.Level == "" {
		return nil, ca.Errorf(ca.Malformed, "level is missing: name one, or a device of the inventory")
	}
	d := c.Core.Explain(in)
	return Explanation{Input: in, Decision: d, Trace: d.Trace}, nil
}

func or(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// replay decides again what an issued certificate was decided on, under the
// policy in force now.
func (c *call) replay() (any, error) {
	if _, err := c.query(); err != nil {
		return nil, err
	}
	cert, err := c.certificate()
	if err != nil {
		return nil, err
	}
	var in policy.Input
	if len(cert.Input) == 0 {
		return nil, ca.Errorf(ca.NotFound, "certificate %s was made without a policy decision (protocol %q)", cert.Serial, cert.Protocol)
	}
	if err := json.Unmarshal(cert.Input, &in); err != nil {
		return nil, err
	}
	d := c.Core.Explain(in)
	return Explanation{Input: in, Decision: d, Trace: d.Trace, Serial: cert.Serial, Stored: &cert.Decision}, nil
}
