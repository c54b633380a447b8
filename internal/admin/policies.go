package admin

import (
	"context"
	"encoding/json"
	"errors"
	"iter"
	"net/http"
	"net/url"
	"strconv"

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

// InForce names the policy in force where a version is asked for.
const InForce = "in-force"

// AnyDevice is the ID by which a request without one is decided.
const AnyDevice = "any-device"

// explain decides a hypothetical request. What the inventory and the clock
// know and the request leaves out is filled in.
func (c *call) explain() (any, error) {
	q, err := c.query("policy")
	if err != nil {
		return nil, err
	}
	var in policy.Input
	if err := c.decode(&in); err != nil {
		return nil, err
	}
	notes, err := c.complete(&in)
	if err != nil {
		return nil, err
	}
	if err := in.Check(); err != nil {
		return nil, ca.Errorf(ca.Malformed, "%s", err)
	}
	d, err := c.Core.Explain(c.r.Context(), c.version(q.Get("policy")), in)
	if err != nil {
		return nil, err
	}
	return Explanation{Input: in, Decision: d, Trace: d.Trace, Notes: notes}, nil
}

// version is the policy that is asked for.
func (c *call) version(asked string) string {
	if asked == "" || asked == InForce {
		return c.Core.Policy().Version()
	}
	return asked
}

// complete fills in what the request leaves out, and says so where that is a guess.
func (c *call) complete(in *policy.Input) (notes []string, err error) {
	if in.Now.IsZero() {
		in.Now = c.Now()
	}
	if in.Operation == "" {
		in.Operation = "enroll"
		if in.Requester == policy.ByCertificate || in.Requester == policy.ByQuarantine {
			in.Operation = "renew" // what these ask for is always that
		}
	}
	if in.Device.ID == "" {
		if len(in.Names) > 0 {
			return nil, ca.Errorf(ca.Malformed, "the ID of the device is missing: names are held against it")
		}
		// Subjects are made of the ID: without one, each profile would refuse.
		in.Device.ID = AnyDevice
		notes = append(notes, "no device is named: decided for one called "+AnyDevice)
	} else if notes, err = c.fromInventory(&in.Device); err != nil {
		return nil, err
	}
	if in.Device.Level == "" {
		return nil, ca.Errorf(ca.Malformed, "level is missing: name one, or a device of the inventory")
	}
	if in.Device.State == "" {
		in.Device.State = string(device.Claimed)
		if in.Operation == "renew" {
			in.Device.State = string(device.Active)
		}
	}
	return notes, nil
}

// fromInventory completes what the inventory knows of a device.
func (c *call) fromInventory(in *policy.Device) (notes []string, err error) {
	if err := device.CheckID(in.ID); err != nil {
		return nil, ca.Errorf(ca.Malformed, "%s", err)
	}
	d, err := c.Reader.Device(c.r.Context(), in.ID)
	if errors.Is(err, ca.ErrNoRecord) {
		return []string{"device " + in.ID + " is not in the inventory: only a manufacturer, a registration authority or a group's credential brings it in"}, nil
	}
	if err != nil {
		return nil, err
	}
	in.ID, in.Level, in.Group, in.State = d.ID, or(in.Level, d.Level), or(in.Group, d.Group), or(in.State, string(d.State))
	if !device.State(in.State).MayEnrol() {
		notes = append(notes, "device "+d.ID+" is "+in.State+": its requests are refused before policy is asked")
	}
	if in.Level != d.Level {
		notes = append(notes, "device "+d.ID+" is of level "+d.Level+" in the inventory")
	}
	return notes, nil
}

func or(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// replay decides again what an issued certificate was decided on, by the policy that decided then, or another.
func (c *call) replay() (any, error) {
	q, err := c.query("policy")
	if err != nil {
		return nil, err
	}
	cert, err := c.certificate()
	if err != nil {
		return nil, err
	}
	x := Explanation{Serial: cert.Serial, Stored: &cert.Decision}
	if len(cert.Input) == 0 {
		return nil, ca.Errorf(ca.NotFound, "certificate %s was made without a policy decision (protocol %q)", cert.Serial, cert.Protocol)
	}
	if ca.IsBuiltin(cert.Profile) {
		return nil, ca.Errorf(ca.NotFound, "certificate %s is one of the CA's own: its profile %s is built in, and no policy decides on it", cert.Serial, cert.Profile)
	}
	if err := json.Unmarshal(cert.Input, &x.Input); err != nil {
		return nil, err
	}
	in := x.Input
	if in.Verifiable == nil {
		in.Verifiable = []string{} // none then, whatever is verified today
	}
	ctx, version := c.r.Context(), q.Get("policy")
	if version == "" {
		x.Decision, err = c.Core.Explain(ctx, cert.Decision.Version, in)
		if kind := ca.KindOf(err); err != nil && (kind == ca.NotFound || kind == ca.Conflict) {
			x.Notes = append(x.Notes, ca.AsError(err).Reason+": decided again by "+c.Core.Policy().Version()+", which is in force now")
			version = InForce
		}
	}
	if version != "" {
		x.Decision, err = c.Core.Explain(ctx, c.version(version), in)
	}
	if err != nil {
		return nil, err
	}
	x.Trace = x.Decision.Trace
	return x, nil
}

func (c *call) listPolicies() (any, error) {
	_, after, n, err := c.numberedPage()
	if err != nil {
		return nil, err
	}
	list, err := c.Reader.Policies(c.r.Context(), after, n)
	return page(list, n, err, func(v ca.PolicyVersion) string { return strconv.FormatInt(v.ID, 10) })
}

func (c *call) showPolicyVersion() (any, error) {
	if _, err := c.query(); err != nil {
		return nil, err
	}
	v, err := c.Reader.PolicyVersion(c.r.Context(), c.version(c.param("version")))
	if err != nil {
		return nil, missing(err, "no policy %s was in force here; list them with: deviceca policy list", c.param("version"))
	}
	return PolicyVersionView{*v, string(v.Source)}, nil
}

// Policies lists the policies that are or were in force, in the order in which they first were.
func (c *Client) Policies(ctx context.Context, after string, limit int) iter.Seq2[ca.PolicyVersion, error] {
	return pages[ca.PolicyVersion](ctx, c, "/policies", values("after", after), limit)
}

// PolicyVersion shows one.
func (c *Client) PolicyVersion(ctx context.Context, version string) (*PolicyVersionView, error) {
	return get[PolicyVersionView](ctx, c, "/policies/"+url.PathEscape(version), nil)
}

// Explain decides a hypothetical request, by the policy in force if version is "".
func (c *Client) Explain(ctx context.Context, in policy.Input, version string) (*Explanation, error) {
	out := new(Explanation)
	return out, c.do(ctx, http.MethodPost, "/policy/explain", values("policy", version), in, out)
}

// Replay decides again what a certificate was issued on, by the policy that decided then if version is "".
func (c *Client) Replay(ctx context.Context, serial ca.Serial, version string) (*Explanation, error) {
	return get[Explanation](ctx, c, "/policy/explain/"+serial.String(), values("policy", version))
}
