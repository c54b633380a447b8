package admin

import (
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/device"
)

// windowNames are the parameters of every list of what has a time: since is a time, order is oldest or newest. With
// either the list is in the order of time, and a page's key holds the time as well.
var windowNames = []string{"since", "order"}

// window reads them, and the key that a page begins after.
func (c *call) window(names ...string) (q url.Values, w device.Window, after string, n int, err error) {
	if q, err = c.query(append(append([]string{"after", "limit"}, windowNames...), names...)...); err != nil {
		return
	}
	if n, err = pageSize(q); err != nil {
		return
	}
	if w.Since, err = timeParam(q, "since"); err != nil {
		return
	}
	switch q.Get("order") {
	case "", "oldest":
	case "newest":
		w.Newest = true
	default:
		err = ca.Errorf(ca.Malformed, "order must be oldest or newest")
		return
	}
	after = q.Get("after")
	if after == "" || !w.Ordered() {
		return
	}
	at, key, ok := strings.Cut(after, "~")
	micros, parseErr := strconv.ParseInt(at, 10, 64)
	if !ok || parseErr != nil || key == "" {
		err = ca.Errorf(ca.Malformed, "after must be the next key of the page before")
		return
	}
	w.Passed, after = time.UnixMicro(micros), key
	return
}

// numberedWindow is window for lists whose keys are numbers.
func (c *call) numberedWindow(names ...string) (q url.Values, w device.Window, after int64, n int, err error) {
	q, w, key, n, err := c.window(names...)
	if err == nil && key != "" {
		if after, err = strconv.ParseInt(key, 10, 64); err != nil || after < 0 {
			err = ca.Errorf(ca.Malformed, "after must be the next key of the page before")
		}
	}
	return q, w, after, n, err
}

// windowKey is the key of a page that ends with something of that time and key.
func windowKey(w device.Window, at time.Time, key string) string {
	if !w.Ordered() {
		return key
	}
	return strconv.FormatInt(at.UnixMicro(), 10) + "~" + key
}

// inWindow adds a window to a list's query.
func inWindow(q url.Values, w device.Window) url.Values {
	if !w.Since.IsZero() {
		q.Set("since", w.Since.UTC().Format(time.RFC3339Nano))
	}
	if w.Newest {
		q.Set("order", "newest")
	}
	return q
}
