package keys

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// URI is a PKCS#11 URI (RFC 7512 §2.3). An empty field is not given. A URI
// never holds a PIN: pin-value does not parse.
type URI struct {
	Token, Manufacturer, Serial, Model string
	Object                             string
	ID                                 []byte
	Type                               string // "public", "private", "cert", "secret-key", "data"

	SlotManufacturer, SlotDescription string
	SlotID                            string // decimal, as written

	LibraryManufacturer, LibraryDescription string
	LibraryVersion                          string // "MAJOR" or "MAJOR.MINOR"

	ModulePath string // absolute
	ModuleName string // without directory, "lib" and suffix
	PINSource  PINSource
}

// attribute ties a name of RFC 7512 to its field.
type attribute struct {
	name  string
	field *string
	max   int // longest value in bytes: what the PKCS#11 structure holds
}

func (u *URI) path() []attribute {
	return []attribute{
		{"token", &u.Token, 32},
		{"manufacturer", &u.Manufacturer, 32},
		{"serial", &u.Serial, 16},
		{"model", &u.Model, 16},
		{"slot-manufacturer", &u.SlotManufacturer, 32},
		{"slot-description", &u.SlotDescription, 64},
		{"slot-id", &u.SlotID, 20},
		{"library-manufacturer", &u.LibraryManufacturer, 32},
		{"library-description", &u.LibraryDescription, 32},
		{"library-version", &u.LibraryVersion, 7},
		{"object", &u.Object, 255},
		{"type", &u.Type, 10},
	}
}

func (u *URI) query() []attribute {
	return []attribute{
		{"module-path", &u.ModulePath, 4096},
		{"module-name", &u.ModuleName, 255},
	}
}

// maxURI is the longest URI that ParseURI reads, in bytes.
const maxURI = 8192

// ParseURI reads a PKCS#11 URI strictly: every attribute at most once, none
// empty, none unknown (a misspelt one would otherwise match every token).
func ParseURI(s string) (URI, error) {
	var u URI
	if len(s) > maxURI {
		return u, fmt.Errorf("keys: PKCS#11 URI longer than %d bytes", maxURI)
	}
	scheme, rest, ok := strings.Cut(s, ":")
	if !ok || !strings.EqualFold(scheme, "pkcs11") {
		return u, errors.New(`keys: not a PKCS#11 URI: it must begin with "pkcs11:"`)
	}
	path, query, hasQuery := strings.Cut(rest, "?")
	if path != "" {
		if err := u.parse(path, ";", "&", u.path()); err != nil {
			return URI{}, err
		}
	}
	if hasQuery {
		if err := u.parse(query, "&", "/?|", u.query()); err != nil {
			return URI{}, err
		}
	}
	if err := u.check(); err != nil {
		return URI{}, err
	}
	return u, nil
}

func (u *URI) parse(s, sep, extra string, known []attribute) error {
	seen := make(map[string]bool)
	for part := range strings.SplitSeq(s, sep) {
		name, raw, ok := strings.Cut(part, "=")
		switch {
		case name == "pin-value":
			return errors.New("keys: PKCS#11 URI with pin-value: a PIN does not belong in a URI: put it in a file with mode 0600 and say pin-source=file:/path")
		case !ok || name == "":
			return errors.New("keys: PKCS#11 URI: an attribute without name=value")
		case seen[name]:
			return fmt.Errorf("keys: PKCS#11 URI: %q is given twice", name)
		}
		seen[name] = true
		value, err := unescape(raw, extra)
		if err != nil {
			return fmt.Errorf("keys: PKCS#11 URI: %q: %w", name, err)
		}
		if value == "" {
			return fmt.Errorf("keys: PKCS#11 URI: %q is empty", name)
		}
		switch {
		case name == "id" && sep == ";":
			u.ID = []byte(value)
			continue
		case name == "pin-source" && sep == "&":
			if u.PINSource, err = ParsePINSource(value); err != nil || u.PINSource.kind != "file" {
				return errors.New("keys: PKCS#11 URI: pin-source must be file:/path (absolute)")
			}
			continue
		}
		i := slices.IndexFunc(known, func(a attribute) bool { return a.name == name })
		if i < 0 {
			return fmt.Errorf("keys: PKCS#11 URI: unknown attribute %q (path attributes stand before the ?, module-path, module-name and pin-source after it)", name)
		}
		if a := known[i]; len(value) > a.max {
			return fmt.Errorf("keys: PKCS#11 URI: %q is longer than %d bytes", name, a.max)
		}
		if !utf8.ValidString(value) || strings.ContainsRune(value, 0) {
			return fmt.Errorf("keys: PKCS#11 URI: %q is not UTF-8 text", name)
		}
		*known[i].field = value
	}
	return nil
}

func (u *URI) check() error {
	if u.Type != "" && !slices.Contains([]string{"public", "private", "cert", "secret-key", "data"}, u.Type) {
		return errors.New("keys: PKCS#11 URI: type must be public, private, cert, secret-key or data")
	}
	if u.SlotID != "" && !digits(u.SlotID) {
		return errors.New("keys: PKCS#11 URI: slot-id must be a decimal number")
	}
	if u.LibraryVersion != "" {
		major, minor, dot := strings.Cut(u.LibraryVersion, ".")
		if !digits(major) || dot && !digits(minor) {
			return errors.New("keys: PKCS#11 URI: library-version must be MAJOR or MAJOR.MINOR")
		}
	}
	if u.ModulePath != "" && u.ModulePath[0] != '/' {
		return errors.New("keys: PKCS#11 URI: module-path must be absolute")
	}
	if strings.Contains(u.ModuleName, "/") {
		return errors.New("keys: PKCS#11 URI: module-name is a bare name: use module-path for a path")
	}
	return nil
}

func digits(s string) bool {
	_, err := strconv.ParseUint(s, 10, 64)
	return err == nil
}

const (
	unreserved = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~"
	// resAvail is pk11-res-avail of RFC 7512 §2.3.
	resAvail = ":[]@!$'()*+,="
)

func unescape(s, extra string) (string, error) {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case c == '%':
			if i+2 >= len(s) {
				return "", errors.New("cut off in a % escape")
			}
			v, err := strconv.ParseUint(s[i+1:i+3], 16, 8)
			if err != nil {
				return "", errors.New("bad % escape")
			}
			b.WriteByte(byte(v))
			i += 2
		case strings.IndexByte(unreserved, c) >= 0, strings.IndexByte(resAvail, c) >= 0, strings.IndexByte(extra, c) >= 0:
			b.WriteByte(c)
		default:
			return "", fmt.Errorf("character %q must be written as %%%02X", c, c)
		}
	}
	return b.String(), nil
}

func escape(b *strings.Builder, s, keep string) {
	for i := range len(s) {
		if c := s[i]; strings.IndexByte(unreserved, c) >= 0 || strings.IndexByte(keep, c) >= 0 {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(b, "%%%02X", c)
		}
	}
}

// String writes the URI in one canonical form: attributes in a fixed order, id
// always escaped. ParseURI gives the same URI back.
func (u URI) String() string {
	var b strings.Builder
	b.WriteString("pkcs11:")
	sep := ""
	put := func(name, value, keep, next string) {
		if value == "" {
			return
		}
		b.WriteString(sep + name + "=")
		escape(&b, value, keep)
		sep = next
	}
	for _, a := range u.path() {
		put(a.name, *a.field, ":@+,", ";")
	}
	if len(u.ID) > 0 {
		b.WriteString(sep + "id=")
		for _, c := range u.ID {
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	sep = "?"
	for _, a := range u.query() {
		put(a.name, *a.field, "/:@+,", "&")
	}
	put("pin-source", u.PINSource.String(), "/:@+,", "&")
	return b.String()
}
