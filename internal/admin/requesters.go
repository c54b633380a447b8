package admin

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/device"
	"github.com/deviceca/deviceca/internal/der"
)

// RegisterCore changes who may vouch for devices; *ca.Service is one.
type RegisterCore interface {
	AddManufacturerWithLists(ctx context.Context, m ca.Manufacturer, lists []byte, actor string) (*ca.Manufacturer, error)
	ReplaceRevocationLists(ctx context.Context, name, format string, lists []byte, actor string) (*ca.Manufacturer, error)
	WithdrawManufacturer(ctx context.Context, name, format, actor string) error
	AddRA(ctx context.Context, ra ca.RA, actor string) (*ca.RA, error)
	RemoveRA(ctx context.Context, name, actor string) error
}

// RegisterReader reads who may vouch for devices, those that no longer may
// included, in the order of registration.
type RegisterReader interface {
	Manufacturers(ctx context.Context) ([]ca.Manufacturer, error)
	RAs(ctx context.Context) ([]ca.RA, error)
}

// Cert is a certificate that is registered.
type Cert struct {
	Subject  string    `json:"subject"`
	NotAfter time.Time `json:"not_after"`
	SHA256   string    `json:"sha256"` // of the certificate, hex
	PEM      string    `json:"pem,omitempty"`
}

// Manufacturer is one entry of the register with its anchors and revocation lists.
type Manufacturer struct {
	ca.Manufacturer
	Anchors []Cert `json:"anchors"`
	Lists   []List `json:"crls,omitempty"`
	// Warnings are given when it is registered.
	Warnings []string `json:"warnings,omitempty"`
}

// List is a revocation list of a manufacturer's, and the CA that signed it.
type List struct {
	ca.RevocationList
	Issuer string `json:"issuer"`
}

// MaxLists is how many octets a request may have that brings revocation lists: what
// ca.MaxRevocationLists is in PEM, in JSON, and some certificates.
const MaxLists = ca.MaxRevocationLists/3*4 + ca.MaxRevocationLists/16 + MaxBody

// NewManufacturer registers a manufacturer. Anchors are certificates in PEM,
// one after the other; Lists are as in NewLists.
type NewManufacturer struct {
	Name    string    `json:"name"`
	Format  string    `json:"format,omitempty"` // "idevid" if empty
	Level   string    `json:"level"`
	Anchors string    `json:"anchors"`
	Models  []string  `json:"models,omitempty"`
	Serials []string  `json:"serials,omitempty"`
	Until   time.Time `json:"until,omitzero"`
	Lists   string    `json:"crls,omitempty"`
}

// NewLists replaces revocation lists of a manufacturer: CRLs in PEM, and the
// certificates of the CAs that signed them, if those are no anchors and not known yet.
type NewLists struct {
	Format string `json:"format,omitempty"` // may be empty if there is one only
	Lists  string `json:"crls"`
}

// Withdraw says what to withdraw of a manufacturer.
type Withdraw struct {
	Format string `json:"format,omitempty"` // all formats if empty
}

// RA is one registration authority with its certificate.
type RA struct {
	ca.RA
	Cert     Cert     `json:"cert"`
	Warnings []string `json:"warnings,omitempty"` // when it is registered
}

// NewRA registers a registration authority.
type NewRA struct {
	Name   string   `json:"name"`
	Cert   string   `json:"cert"` // PEM
	Names  []string `json:"names"`
	Levels []string `json:"levels"`
}

func viewCert(raw []byte, whole bool) Cert {
	sum := sha256.Sum256(raw)
	c := Cert{SHA256: hex.EncodeToString(sum[:])}
	if cert, err := der.Certificate(raw); err == nil { // it was, when it was registered
		c.Subject, c.NotAfter = cert.Subject.String(), cert.NotAfter
	}
	if whole {
		c.PEM = encodePEM(raw)
	}
	return c
}

func viewManufacturer(m ca.Manufacturer, whole bool) Manufacturer {
	v := Manufacturer{Manufacturer: m}
	for _, der := range m.Anchors {
		v.Anchors = append(v.Anchors, viewCert(der, whole))
	}
	for _, l := range m.Lists {
		v.Lists = append(v.Lists, List{l, viewCert(l.Issuer, false).Subject})
	}
	return v
}

func (c *call) listManufacturers() (any, error) {
	if _, err := c.query(); err != nil {
		return nil, err
	}
	list, err := c.Reader.Manufacturers(c.r.Context())
	out := Page[Manufacturer]{Items: make([]Manufacturer, 0, len(list))}
	for _, m := range list {
		out.Items = append(out.Items, viewManufacturer(m, false))
	}
	return out, err
}

// showManufacturer answers with every entry of a name, anchors in PEM.
func (c *call) showManufacturer() (any, error) {
	if _, err := c.query(); err != nil {
		return nil, err
	}
	list, err := c.Reader.Manufacturers(c.r.Context())
	if err != nil {
		return nil, err
	}
	var out Page[Manufacturer]
	for _, m := range list {
		if m.Name == c.param("name") {
			out.Items = append(out.Items, viewManufacturer(m, true))
		}
	}
	if len(out.Items) == 0 {
		return nil, ca.Errorf(ca.NotFound, "no manufacturer %q", c.param("name"))
	}
	return out, nil
}

func (c *call) addManufacturer() (any, error) {
	var in NewManufacturer
	if err := c.decodeLists(&in); err != nil {
		return nil, err
	}
	anchors, err := certificates(in.Anchors)
	if err != nil {
		return nil, err
	}
	var lists []byte
	if in.Lists != "" {
		lists = []byte(in.Lists)
	}
	m, err := c.Core.AddManufacturerWithLists(c.r.Context(), ca.Manufacturer{Name: in.Name, Format: in.Format, Level: in.Level, Anchors: anchors,
		Constraints: ca.Constraints{Models: in.Models, Serials: in.Serials, NotAfter: in.Until}}, lists, c.who.Actor)
	if err != nil {
		return nil, err
	}
	v := viewManufacturer(*m, false)
	v.Warnings = c.warnings(m.Level)
	return v, nil
}

func (c *call) replaceLists() (any, error) {
	var in NewLists
	if err := c.decodeLists(&in); err != nil {
		return nil, err
	}
	m, err := c.Core.ReplaceRevocationLists(c.r.Context(), c.param("name"), in.Format, []byte(in.Lists), c.who.Actor)
	if err != nil {
		return nil, err
	}
	return viewManufacturer(*m, false), nil
}

// decodeLists is decode for a body that may hold lists: it may be large, and take
// longer than the listener's timeouts, which are meant for small requests.
func (c *call) decodeLists(v any) error {
	until := time.Now().Add(importPatience) // the deadline of a socket: real time
	ctl := http.NewResponseController(c.w)
	ctl.SetReadDeadline(until)
	ctl.SetWriteDeadline(until)
	return c.decodeWithin(MaxLists, v)
}

func (c *call) withdrawManufacturer() (any, error) {
	var in Withdraw
	if err := c.decode(&in); err != nil {
		return nil, err
	}
	return nil, c.Core.WithdrawManufacturer(c.r.Context(), c.param("name"), in.Format, c.who.Actor)
}

func (c *call) listRAs() (any, error) {
	if _, err := c.query(); err != nil {
		return nil, err
	}
	list, err := c.Reader.RAs(c.r.Context())
	out := Page[RA]{Items: make([]RA, 0, len(list))}
	for _, ra := range list {
		out.Items = append(out.Items, RA{RA: ra, Cert: viewCert(ra.Cert, false)})
	}
	return out, err
}

func (c *call) addRA() (any, error) {
	var in NewRA
	if err := c.decode(&in); err != nil {
		return nil, err
	}
	certs, err := certificates(in.Cert)
	if err != nil {
		return nil, err
	}
	if len(certs) != 1 {
		return nil, ca.Errorf(ca.Malformed, "cert must be one certificate: a registration authority is known by its own, not by who issued it")
	}
	ra, err := c.Core.AddRA(c.r.Context(), ca.RA{Name: in.Name, Cert: certs[0], Names: in.Names, Levels: in.Levels}, c.who.Actor)
	if err != nil {
		return nil, err
	}
	return RA{*ra, viewCert(ra.Cert, false), c.warnings(ra.Levels...)}, nil
}

func (c *call) removeRA() (any, error) {
	return nil, c.Core.RemoveRA(c.r.Context(), c.param("name"), c.who.Actor)
}

// claimDevice lets a device that was known as manufactured enrol.
func (c *call) claimDevice() (any, error) { return c.move(device.Claimed) }

// certificates reads the certificates of a PEM text. Other objects are refused, a key above all.
func certificates(text string) ([][]byte, error) {
	blocks, err := der.PEM([]byte(text))
	if err != nil {
		return nil, ca.Errorf(ca.Malformed, "give certificates in PEM: %w", err)
	}
	var all [][]byte
	for _, block := range blocks {
		if block.Type != "CERTIFICATE" {
			return nil, ca.Errorf(ca.Malformed, "give certificates in PEM, and no keys or other objects beside them")
		}
		all = append(all, block.Bytes)
	}
	if len(all) == 0 && strings.TrimSpace(text) != "" {
		return nil, ca.Errorf(ca.Malformed, "give certificates in PEM: there is none in it")
	}
	return all, nil
}

// oneCertificate reads a PEM text that holds a single certificate.
func oneCertificate(text string) ([]byte, error) {
	certs, err := certificates(text)
	if err == nil && len(certs) != 1 {
		err = ca.Errorf(ca.Malformed, "cert must be one certificate in PEM")
	}
	if err != nil {
		return nil, err
	}
	return certs[0], nil
}

// Claim lets a device that was known as manufactured enrol.
func (c *Client) Claim(ctx context.Context, id string) (*Moved, error) {
	return post[Moved](ctx, c, "/devices/"+url.PathEscape(id)+"/claim", struct{}{})
}

// Manufacturers lists manufacturers, withdrawn ones included.
func (c *Client) Manufacturers(ctx context.Context) ([]Manufacturer, error) {
	p, err := get[Page[Manufacturer]](ctx, c, "/manufacturers", nil)
	if err != nil {
		return nil, err
	}
	return p.Items, nil
}

// Manufacturer shows every entry of a name, with the anchors in PEM.
func (c *Client) Manufacturer(ctx context.Context, name string) ([]Manufacturer, error) {
	p, err := get[Page[Manufacturer]](ctx, c, "/manufacturers/"+url.PathEscape(name), nil)
	if err != nil {
		return nil, err
	}
	return p.Items, nil
}

// AddManufacturer registers a manufacturer.
func (c *Client) AddManufacturer(ctx context.Context, n NewManufacturer) (*Manufacturer, error) {
	return post[Manufacturer](ctx, c, "/manufacturers", n)
}

// ReplaceRevocationLists takes effect with the next request, and shows the entry.
func (c *Client) ReplaceRevocationLists(ctx context.Context, name string, n NewLists) (*Manufacturer, error) {
	return post[Manufacturer](ctx, c, "/manufacturers/"+url.PathEscape(name)+"/crls", n)
}

// WithdrawManufacturer takes effect with the next request; format "" is all of its formats.
func (c *Client) WithdrawManufacturer(ctx context.Context, name, format string) error {
	return c.do(ctx, http.MethodPost, "/manufacturers/"+url.PathEscape(name)+"/withdraw", nil, Withdraw{format}, nil)
}

// RAs lists registration authorities, removed ones included.
func (c *Client) RAs(ctx context.Context) ([]RA, error) {
	p, err := get[Page[RA]](ctx, c, "/ras", nil)
	if err != nil {
		return nil, err
	}
	return p.Items, nil
}

// AddRA registers a registration authority.
func (c *Client) AddRA(ctx context.Context, n NewRA) (*RA, error) {
	return post[RA](ctx, c, "/ras", n)
}

// RemoveRA takes effect with the next request.
func (c *Client) RemoveRA(ctx context.Context, name string) error {
	return c.do(ctx, http.MethodDelete, "/ras/"+url.PathEscape(name), nil, nil, nil)
}
