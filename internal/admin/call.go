package admin

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/device"
	"github.com/go-chi/chi/v5"
)

// Limits of the API.
const (
	MaxBody     = 2 << 20  // octets of a request body; policies are the largest, but for revocation lists (MaxLists)
	MaxLine     = 16 << 10 // octets of one line of an import
	MaxPage     = 1000     // lines of a page
	defaultPage = 100
)

// call is one request under way.
type call struct {
	*API
	w         http.ResponseWriter
	r         *http.Request
	who       identity
	streaming bool // the handler writes the answer itself
}

// wantType refuses bodies of another media type. It also keeps web pages from
// sending requests with a browser's admin certificate: a cross-site form cannot
// send these types.
func (c *call) wantType(want string) error {
	got, _, _ := mime.ParseMediaType(c.r.Header.Get("Content-Type"))
	if got != want {
		return failure(http.StatusUnsupportedMediaType, ca.Malformed, "the body must be "+want)
	}
	return nil
}

// decode reads the body, one JSON value and nothing else, into v.
func (c *call) decode(v any) error { return c.decodeWithin(MaxBody, v) }

// decodeWithin is decode for a body of so many octets.
func (c *call) decodeWithin(most int64, v any) error {
	if err := c.wantType("application/json"); err != nil {
		return err
	}
	body, err := io.ReadAll(http.MaxBytesReader(c.w, c.r.Body, most))
	if _, over := errors.AsType[*http.MaxBytesError](err); over {
		return failure(http.StatusRequestEntityTooLarge, ca.Malformed, fmt.Sprintf("the body is larger than %d octets", most))
	}
	if err != nil {
		return ca.Errorf(ca.Malformed, "the body broke off: %w", err)
	}
	return strictJSON(body, v)
}

// strictJSON decodes one value, without unknown fields and without anything after it.
func strictJSON(body []byte, v any) error {
	dec := json.NewDecoder(bytes.NewReader(body))
	dec.DisallowUnknownFields()
	if err := dec.Decode(v); err != nil {
		return ca.Errorf(ca.Malformed, "%s", jsonReason(err))
	}
	if _, err := dec.Token(); err != io.EOF {
		return ca.Errorf(ca.Malformed, "there is more after the JSON value")
	}
	return nil
}

// jsonReason says what is wrong without naming Go types.
func jsonReason(err error) string {
	if e, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		return fmt.Sprintf("field %q cannot be a %s", e.Field, e.Value)
	}
	if err == io.EOF {
		return "the body is empty"
	}
	return strings.TrimPrefix(err.Error(), "json: ")
}

// query reads the parameters allowed and refuses others.
func (c *call) query(allowed ...string) (url.Values, error) {
	q, err := url.ParseQuery(c.r.URL.RawQuery)
	if err != nil {
		return nil, ca.Errorf(ca.Malformed, "the query cannot be read")
	}
	for name, values := range q {
		if !slices.Contains(allowed, name) {
			return nil, ca.Errorf(ca.Malformed, "unknown parameter %q; known here: %s", name, strings.Join(allowed, ", "))
		}
		if len(values) != 1 {
			return nil, ca.Errorf(ca.Malformed, "parameter %q is given more than once", name)
		}
	}
	return q, nil
}

// pageSize reads the size of a page.
func pageSize(q url.Values) (int, error) {
	if q.Get("limit") == "" {
		return defaultPage, nil
	}
	n, err := strconv.Atoi(q.Get("limit"))
	if err != nil || n < 1 || n > MaxPage {
		return 0, ca.Errorf(ca.Malformed, "limit must be 1 to %d", MaxPage)
	}
	return n, nil
}

// numberedPage reads a query for a list that pages by number: where to begin,
// how many, and the rest by the names given.
func (c *call) numberedPage(names ...string) (q url.Values, after int64, n int, err error) {
	if q, err = c.query(append([]string{"after", "limit"}, names...)...); err != nil {
		return nil, 0, 0, err
	}
	if n, err = pageSize(q); err != nil {
		return nil, 0, 0, err
	}
	after, err = afterNumber(q)
	return q, after, n, err
}

// afterNumber reads a numeric paging key.
func afterNumber(q url.Values) (int64, error) {
	if q.Get("after") == "" {
		return 0, nil
	}
	n, err := strconv.ParseInt(q.Get("after"), 10, 64)
	if err != nil || n < 0 {
		return 0, ca.Errorf(ca.Malformed, "after must be the next key of the page before")
	}
	return n, nil
}

func timeParam(q url.Values, name string) (time.Time, error) {
	if q.Get(name) == "" {
		return time.Time{}, nil
	}
	t, err := time.Parse(time.RFC3339, q.Get(name))
	if err != nil {
		return t, ca.Errorf(ca.Malformed, "%s must be a time such as 2030-01-31T12:00:00Z", name)
	}
	return t, nil
}

func (c *call) param(name string) string { return chi.URLParam(c.r, name) }

// deviceID reads the device of the path.
func (c *call) deviceID() (string, error) {
	id := c.param("id")
	if err := device.CheckID(id); err != nil {
		return "", ca.Errorf(ca.Malformed, "%s", err)
	}
	return id, nil
}

// serial reads the serial of the path.
func (c *call) serial() (ca.Serial, error) {
	s, err := ca.ParseSerial(c.param("serial"))
	if err != nil {
		return s, ca.Errorf(ca.Malformed, "%s", err)
	}
	return s, nil
}

func writeJSON(w http.ResponseWriter, status int, mediaType string, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		panic(err) // every type here marshals
	}
	w.Header().Set("Content-Type", mediaType)
	w.Header().Set("Cache-Control", "no-store") // grants hold secrets
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	w.Write(append(body, '\n'))
}
