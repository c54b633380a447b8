package acme

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// Bounds of the JSON that clients send.
const (
	maxDepth   = 8   // arrays and objects within each other
	maxMembers = 64  // of one object
	maxItems   = 256 // of one array
)

// object is a JSON object (RFC 8259) as a client sent it. encoding/json would take the last of
// two members of one name, and names in any case; here the first is an error, and names
// are what they are.
type object struct {
	names  []string
	values []json.RawMessage
}

// parseObject reads one JSON object and nothing after it, within bounds. It looks into all that it holds.
func parseObject(data []byte) (object, error) {
	if !utf8.Valid(data) {
		return object{}, errors.New("it is not UTF-8")
	}
	r := reader{data: data}
	r.space()
	if r.peek() != '{' {
		return object{}, errors.New("it is not a JSON object")
	}
	var o object
	if err := r.object(&o, 1); err != nil {
		return object{}, err
	}
	if r.space(); r.at < len(data) {
		return object{}, errors.New("something follows the JSON object")
	}
	return o, nil
}

// raw is a member as it was sent, nil if it is absent or null.
func (o *object) raw(name string) json.RawMessage {
	i := slices.Index(o.names, name)
	if i < 0 || string(o.values[i]) == "null" {
		return nil
	}
	return o.values[i]
}

func (o *object) has(name string) bool { return slices.Contains(o.names, name) }

// text is a member that is a string; "" and no error if it is absent.
func (o *object) text(name string) (string, error) {
	raw := o.raw(name)
	if raw == nil {
		return "", nil
	}
	s, ok := unquote(raw)
	if !ok {
		return "", fmt.Errorf("%q is not a string", name)
	}
	return s, nil
}

func unquote(raw json.RawMessage) (s string, ok bool) {
	if len(raw) < 2 || raw[0] != '"' {
		return "", false
	}
	if inner := raw[1 : len(raw)-1]; !slices.Contains(inner, '\\') {
		return string(inner), true
	}
	return s, json.Unmarshal(raw, &s) == nil
}

// truth is a member that is true or false; false if it is absent.
func (o *object) truth(name string) (bool, error) {
	switch raw := o.raw(name); string(raw) {
	case "", "false":
		return false, nil
	case "true":
		return true, nil
	}
	return false, fmt.Errorf("%q is neither true nor false", name)
}

// number is a member that is a whole number; 0 if it is absent or null.
func (o *object) number(name string) (int, error) {
	raw := o.raw(name)
	if raw == nil {
		return 0, nil
	}
	n, err := strconv.Atoi(string(raw))
	if err != nil {
		return 0, fmt.Errorf("%q is not a whole number: write it in digits, without quotation marks", name)
	}
	return n, nil
}

// list is a member that is an array; given is false if it is absent.
func (o *object) list(name string) (items []json.RawMessage, given bool, err error) {
	raw := o.raw(name)
	if raw == nil {
		return nil, false, nil
	}
	if raw[0] != '[' || json.Unmarshal(raw, &items) != nil {
		return nil, true, fmt.Errorf("%q is not an array", name)
	}
	return items, true, nil
}

// octets is a member in base64url without padding (RFC 7515 §2), strictly; nil and no error if it is absent.
func (o *object) octets(name string) ([]byte, error) {
	s, err := o.text(name)
	if err != nil || o.raw(name) == nil {
		return nil, err
	}
	b, err := base64url.DecodeString(s)
	if err != nil || strings.ContainsAny(s, "\r\n") { // which the decoder passes over
		return nil, fmt.Errorf("%q is not base64url without padding", name)
	}
	return b, nil
}

// moment is a member in RFC 3339; the zero time if it is absent, or is the zero time of Go,
// which smallstep's client sends for nothing.
func (o *object) moment(name string) (time.Time, error) {
	s, err := o.text(name)
	if err != nil || s == "" {
		return time.Time{}, err
	}
	t, err := time.Parse(time.RFC3339, s)
	if err == nil && t.IsZero() {
		return time.Time{}, nil
	}
	if err != nil || t.Year() < 1950 {
		return time.Time{}, fmt.Errorf("%q is not a time as in RFC 3339", name)
	}
	return t.UTC(), nil
}

// base64url is the encoding of JOSE, without padding and without bits that say nothing.
var base64url = base64.RawURLEncoding.Strict()

// reader walks over JSON text and checks it.
type reader struct {
	data []byte
	at   int
}

func (r *reader) peek() byte {
	if r.at < len(r.data) {
		return r.data[r.at]
	}
	return 0
}

func (r *reader) space() {
	for r.at < len(r.data) {
		switch r.data[r.at] {
		case ' ', '\t', '\n', '\r':
			r.at++
		default:
			return
		}
	}
}

// take moves past c, if it stands here.
func (r *reader) take(c byte) bool {
	if r.peek() != c {
		return false
	}
	r.at++
	return true
}

func (r *reader) bad() error { return fmt.Errorf("it is not JSON at octet %d", r.at) }

// value checks one value.
func (r *reader) value(depth int) error {
	r.space()
	switch c := r.peek(); {
	case c == '{':
		return r.object(nil, depth+1)
	case c == '[':
		return r.array(depth + 1)
	case c == '"':
		return r.string()
	case c == '-' || '0' <= c && c <= '9':
		return r.number()
	}
	for _, word := range []string{"true", "false", "null"} {
		if len(r.data)-r.at >= len(word) && string(r.data[r.at:r.at+len(word)]) == word {
			r.at += len(word)
			return nil
		}
	}
	return r.bad()
}

// object checks an object, and puts its members into o unless that is nil.
func (r *reader) object(o *object, depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("it is nested deeper than %d", maxDepth)
	}
	r.at++ // {
	var names []string
	for r.space(); !r.take('}'); r.space() {
		if len(names) > 0 {
			if !r.take(',') {
				return r.bad()
			}
			r.space()
		}
		from := r.at
		if err := r.string(); err != nil {
			return err
		}
		name, ok := unquote(r.data[from:r.at])
		if !ok {
			return r.bad()
		}
		if slices.Contains(names, name) {
			return fmt.Errorf("it has the member %.40q twice", name)
		}
		if names = append(names, name); len(names) > maxMembers {
			return fmt.Errorf("an object has more than %d members", maxMembers)
		}
		if r.space(); !r.take(':') {
			return r.bad()
		}
		r.space()
		from = r.at
		if err := r.value(depth); err != nil {
			return err
		}
		if o != nil {
			o.names, o.values = append(o.names, name), append(o.values, r.data[from:r.at])
		}
	}
	return nil
}

func (r *reader) array(depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("it is nested deeper than %d", maxDepth)
	}
	r.at++ // [
	n := 0
	for r.space(); !r.take(']'); r.space() {
		if n > 0 && !r.take(',') {
			return r.bad()
		}
		if n++; n > maxItems {
			return fmt.Errorf("an array has more than %d items", maxItems)
		}
		if err := r.value(depth); err != nil {
			return err
		}
	}
	return nil
}

func (r *reader) string() error {
	if !r.take('"') {
		return r.bad()
	}
	for r.at < len(r.data) {
		switch c := r.data[r.at]; {
		case c == '"':
			r.at++
			return nil
		case c < 0x20:
			return r.bad()
		case c == '\\':
			if err := r.escape(); err != nil {
				return err
			}
		default:
			r.at++
		}
	}
	return r.bad()
}

func (r *reader) escape() error {
	r.at++ // \
	switch r.peek() {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		r.at++
		return nil
	case 'u':
		r.at++
		for range 4 {
			c := r.peek()
			if !('0' <= c && c <= '9' || 'a' <= c|0x20 && c|0x20 <= 'f') {
				return r.bad()
			}
			r.at++
		}
		return nil
	}
	return r.bad()
}

// number checks number = [ "-" ] int [ frac ] [ exp ] (RFC 8259 §6).
func (r *reader) number() error {
	r.take('-')
	if !r.take('0') && !r.digits() {
		return r.bad()
	}
	if r.take('.') && !r.digits() {
		return r.bad()
	}
	if r.take('e') || r.take('E') {
		if !r.take('+') {
			r.take('-')
		}
		if !r.digits() {
			return r.bad()
		}
	}
	return nil
}

func (r *reader) digits() bool {
	from := r.at
	for c := r.peek(); '0' <= c && c <= '9'; c = r.peek() {
		r.at++
	}
	return r.at > from
}
