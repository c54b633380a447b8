package admin

import (
	"context"
	"iter"
	"slices"
	"strconv"

	"github.com/deviceca/deviceca/ca"
)

// Decision approves or denies a request. The reason of a denial is shown to the device.
type Decision struct {
	Reason string `json:"reason,omitempty"`
}

func (c *call) listRequests() (any, error) {
	q, w, after, n, err := c.numberedWindow("state", "device")
	if err != nil {
		return nil, err
	}
	f := ca.PendingFilter{State: ca.PendingState(q.Get("state")), Device: q.Get("device"), Window: w}
	if f.State != "" && !slices.Contains(ca.PendingStates(), f.State) {
		return nil, ca.Errorf(ca.Malformed, "%q is not a state of requests", f.State)
	}
	list, err := c.Reader.Pendings(c.r.Context(), f, after, n)
	return page(list, n, err, func(p ca.PendingRequest) string { return windowKey(w, p.Created, strconv.FormatInt(p.ID, 10)) })
}

// requestID reads the request of the path.
func (c *call) requestID() (int64, error) {
	id, err := strconv.ParseInt(c.param("id"), 10, 64)
	if err != nil || id < 1 {
		return 0, ca.Errorf(ca.Malformed, "a request is named by its number")
	}
	return id, nil
}

func (c *call) showRequest() (any, error) {
	if _, err := c.query(); err != nil {
		return nil, err
	}
	id, err := c.requestID()
	if err != nil {
		return nil, err
	}
	p, err := c.Reader.PendingByID(c.r.Context(), id)
	return nonNil(p, missing(err, "there is no request %d; list them with: deviceca request list", id))
}

func (c *call) approveRequest() (any, error) { return c.decideRequest(true) }
func (c *call) denyRequest() (any, error)    { return c.decideRequest(false) }

func (c *call) decideRequest(approve bool) (any, error) {
	id, err := c.requestID()
	if err != nil {
		return nil, err
	}
	var in Decision
	if err := c.decode(&in); err != nil {
		return nil, err
	}
	return nonNil(c.Core.DecideRequest(c.r.Context(), id, approve, in.Reason, c.who.Actor))
}

// Requests lists the requests that administrators must approve, oldest first.
func (c *Client) Requests(ctx context.Context, f ca.PendingFilter, after string, limit int) iter.Seq2[ca.PendingRequest, error] {
	return pages[ca.PendingRequest](ctx, c, "/requests", inWindow(values("state", string(f.State), "device", f.Device, "after", after), f.Window), limit)
}

// Request shows one.
func (c *Client) Request(ctx context.Context, id int64) (*ca.PendingRequest, error) {
	return get[ca.PendingRequest](ctx, c, "/requests/"+strconv.FormatInt(id, 10), nil)
}

// DecideRequest approves or denies one; a denial needs a reason.
func (c *Client) DecideRequest(ctx context.Context, id int64, approve bool, reason string) (*ca.PendingRequest, error) {
	act := "/deny"
	if approve {
		act = "/approve"
	}
	return post[ca.PendingRequest](ctx, c, "/requests/"+strconv.FormatInt(id, 10)+act, Decision{reason})
}
