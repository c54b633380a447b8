package acme

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/internal/limit"
)

// specialRanges are not for validation unless the operator lists them: whoever asks for a name
// chooses where it points, and so what this server would contact (RFC 8555 §10.4).
var specialRanges = prefixes(
	"0.0.0.0/8",       // this network; the unspecified address reaches the host itself
	"127.0.0.0/8",     // loopback
	"169.254.0.0/16",  // link-local, with most clouds' metadata services
	"192.0.0.0/24",    // IETF protocol assignments, and a metadata service
	"192.88.99.0/24",  // 6to4 relays
	"100.100.100.200", // metadata services outside of link-local
	"168.63.129.16",
	"fd00:ec2::/32",
	"fd20:ce::/32",
	"224.0.0.0/4",     // multicast
	"240.0.0.0/4",     // reserved, and broadcast
	"::/96",           // unspecified, loopback, and the IPv4-compatible addresses of old
	"::ffff:0:0:0/96", // IPv4-translated
	"64:ff9b:1::/48",  // NAT64 of local use: where it holds the IPv4 address is the network's secret
	"100::/64",        // discard
	"2001::/32",       // Teredo
	"fe80::/10",       // link-local
	"fec0::/10",       // site-local of old
	"ff00::/8",        // multicast
)

func prefixes(list ...string) (out []netip.Prefix) {
	for _, s := range list {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			a := netip.MustParseAddr(s)
			p = netip.PrefixFrom(a, a.BitLen())
		}
		out = append(out, p)
	}
	return out
}

var (
	nat64   = netip.MustParsePrefix("64:ff9b::/96") // RFC 6052
	sixToIV = netip.MustParsePrefix("2002::/16")    // RFC 3056
)

// guard says which addresses may be contacted.
type guard struct{ allow []netip.Prefix }

func newGuard(allow []netip.Prefix) (*guard, error) {
	if allow == nil {
		allow = prefixes("0.0.0.0/0", "::/0")
	}
	g := new(guard)
	for _, p := range allow {
		if !p.IsValid() || p.Addr().Is4In6() {
			return nil, fmt.Errorf("%v is not a network that can be allowed: write 192.0.2.0/24 or 2001:db8::/32", p)
		}
		g.allow = append(g.allow, p.Masked())
	}
	return g, nil
}

// allows reports whether an address may be contacted. An IPv6 address that stands for an IPv4
// address is judged as both.
func (g *guard) allows(a netip.Addr) bool {
	a = a.Unmap().WithZone("")
	if !a.IsValid() || !g.listed(a) {
		return false
	}
	switch b := a.As16(); {
	case nat64.Contains(a):
		return g.allows(netip.AddrFrom4([4]byte(b[12:16])))
	case sixToIV.Contains(a):
		return g.allows(netip.AddrFrom4([4]byte(b[2:6])))
	}
	return true
}

func (g *guard) listed(a netip.Addr) bool {
	within := func(outer netip.Prefix) bool {
		return slices.ContainsFunc(g.allow, func(p netip.Prefix) bool {
			return p.Contains(a) && p.Bits() >= outer.Bits() && outer.Contains(p.Addr())
		})
	}
	for _, special := range specialRanges {
		if special.Contains(a) && !within(special) {
			return false
		}
	}
	return slices.ContainsFunc(g.allow, func(p netip.Prefix) bool { return p.Contains(a) })
}

// newResolver asks the DNS server at address, or those of the system. It is Go's own in any case, so
// that no module of the C library's finds names elsewhere.
func newResolver(address string) (*net.Resolver, error) {
	r := &net.Resolver{PreferGo: true}
	if address == "" {
		return r, nil
	}
	if host, port, err := net.SplitHostPort(address); err != nil || host == "" || port == "" {
		return nil, fmt.Errorf("the resolver %q is no host:port", address)
	}
	r.Dial = func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, address)
	}
	return r, nil
}

// network reaches hosts, and only those that the guard allows.
type network struct {
	guard    *guard
	resolver *net.Resolver
	gate     *limit.Gate // by address: whoever asks for names chooses whom this server calls on, with all accounts that it has
}

// Connections to one address, or IPv6 /64, at once; more wait. The gate itself has room for all validations.
const connectionsPerAddress = 8

func newNetwork(g *guard, r *net.Resolver) *network {
	return &network{g, r, limit.NewGate(limit.GateOptions{Inside: validating, InsidePerKey: connectionsPerAddress, Queue: validating, QueuePerKey: validating})}
}

// target is the host that an identifier names, in lower case, and its address if it is one.
func (n *network) target(id Identifier) (string, netip.Addr, error) {
	refuse := func(format string, args ...any) (string, netip.Addr, error) {
		return "", netip.Addr{}, failed("rejectedIdentifier", format, args...)
	}
	switch id.Type {
	case "dns":
		host := strings.ToLower(id.Value)
		if !isHostName(host) {
			return refuse("%q is not a host name", printable(id.Value))
		}
		return host, netip.Addr{}, nil
	case "ip":
		a, err := netip.ParseAddr(id.Value)
		if err != nil || a.Zone() != "" || a.Is4In6() || a.String() != id.Value {
			return refuse("%q is not an IP address in its canonical form (RFC 8738 §3)", printable(id.Value))
		}
		if !n.guard.allows(a) {
			return refuse("%v is in no network that this CA contacts", a)
		}
		return id.Value, a, nil
	}
	return refuse("identifiers of type %q are not validated on a network", printable(id.Type))
}

func isAddress(s string) bool {
	_, err := netip.ParseAddr(s)
	return err == nil
}

// maxAddresses is how many of a name's addresses are tried, of each family.
const maxAddresses = 4

// dial connects to a name or an address. The addresses are looked up once, judged, and then
// dialled as they are: no second look-up could give others. Errors are *ValidationError.
func (n *network) dial(ctx context.Context, host string, port uint16) (net.Conn, error) {
	addresses, err := n.addresses(ctx, host)
	if err != nil {
		return nil, err
	}
	var faults []string
	for i, a := range addresses {
		conn, err := n.dialAddress(ctx, netip.AddrPortFrom(a, port), len(addresses)-i)
		if err == nil {
			return conn, nil
		}
		faults = append(faults, fmt.Sprintf("%v: %s", netip.AddrPortFrom(a, port), cause(err)))
	}
	return nil, failed("connection", "%s cannot be reached: %s", host, strings.Join(faults, "; "))
}

// dialAddress connects to one of several addresses, within its share of the time that is left.
func (n *network) dialAddress(ctx context.Context, to netip.AddrPort, shares int) (net.Conn, error) {
	if deadline, ok := ctx.Deadline(); ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Until(deadline)/time.Duration(shares))
		defer cancel()
	}
	leave, err := n.gate.Enter(ctx, ca.Network(to.Addr()))
	if err != nil {
		return nil, fmt.Errorf("%d other validations are at this address (%w)", connectionsPerAddress, err)
	}
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", to.String())
	if err != nil {
		leave()
		return nil, err
	}
	return &counted{conn, leave}, nil
}

// counted is a connection that gives its place to the next when it is closed.
type counted struct {
	net.Conn
	leave func()
}

func (c *counted) Close() error {
	defer c.leave()
	return c.Conn.Close()
}

// addresses are those of host that may be contacted, IPv6 first.
func (n *network) addresses(ctx context.Context, host string) ([]netip.Addr, error) {
	if a, err := netip.ParseAddr(host); err == nil {
		if !n.guard.allows(a) {
			return nil, failed("connection", "%v is in no network that this CA contacts", a)
		}
		return []netip.Addr{a}, nil
	}
	name := host
	if strings.Contains(name, ".") {
		name += "." // itself, in no search domain; a name of one label is what the system says it is
	}
	found, err := n.resolver.LookupNetIP(ctx, "ip", name)
	if err != nil {
		return nil, failed("dns", "%s does not resolve: %s", host, cause(err))
	}
	var six, four, refused []netip.Addr
	for _, a := range found {
		switch a = a.Unmap(); {
		case !n.guard.allows(a):
			refused = append(refused, a)
		case a.Is4():
			four = append(four, a)
		default:
			six = append(six, a)
		}
	}
	out := slices.Concat(six[:min(len(six), maxAddresses)], four[:min(len(four), maxAddresses)])
	if len(out) == 0 {
		return nil, failed("connection", "%s is at %v, which is in no network that this CA contacts", host, refused[:min(len(refused), maxAddresses)])
	}
	return out, nil
}

// cause is what went wrong in a network operation, without the addresses that the message names already.
func cause(err error) string {
	if e, ok := errors.AsType[*net.DNSError](err); ok {
		return e.Err
	}
	if e, ok := errors.AsType[*net.OpError](err); ok && e.Err != nil {
		err = e.Err
	}
	if e, ok := errors.AsType[*os.SyscallError](err); ok {
		err = e.Err
	}
	return err.Error()
}

// tlsFault is what TLS said, if err comes from it.
func tlsFault(err error) (string, bool) {
	if e, ok := errors.AsType[tls.AlertError](err); ok {
		return e.Error(), true
	}
	if e, ok := errors.AsType[tls.RecordHeaderError](err); ok {
		return e.Msg, true
	}
	if e, ok := errors.AsType[*net.OpError](err); ok && (e.Op == "remote error" || e.Op == "local error") {
		return e.Err.Error(), true
	}
	for ; err != nil; err = errors.Unwrap(err) {
		if text := err.Error(); strings.HasPrefix(text, "tls: ") {
			return printable(text), true
		}
	}
	return "", false
}
