package acme

import (
	"context"
	"crypto/subtle"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

const (
	maxRedirects = 5
	// maxSpace is how much white space may follow a key authorization.
	maxSpace = 128
	// maxHeader bounds the header of one response, octets.
	maxHeader = 16 << 10
	// userAgent says who looks, for the logs of whoever is looked at.
	userAgent = "deviceca-acme-validation"
)

// httpValidator validates http-01 (RFC 8555 §8.3).
type httpValidator struct {
	network *network
	port    uint16
	allowed []uint16 // ports, after a redirection
	client  *http.Client
}

func newHTTPValidator(n *network, port, tlsPort uint16) *httpValidator {
	v := &httpValidator{network: n, port: port, allowed: []uint16{80, 443, port, tlsPort}}
	v.client = &http.Client{
		CheckRedirect: v.checkRedirect,
		Transport: &http.Transport{ // no Proxy: the environment's would look in our place, without the guard
			DialContext:            v.dial,
			DisableKeepAlives:      true, // each look is judged anew
			DisableCompression:     true,
			MaxResponseHeaderBytes: maxHeader,
			// A redirection may lead to https on a host that waits for this very certificate; what
			// counts is the key authorization, which http would have served as well.
			TLSClientConfig: &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS12},
		},
	}
	return v
}

func (v *httpValidator) Validate(ctx context.Context, r ValidationRequest) error {
	host, address, err := v.network.target(r.Identifier)
	if err != nil {
		return err
	}
	if !isToken(r.Token) {
		return failed("incorrectResponse", "the challenge's token is not base64url")
	}
	if address.Is6() {
		host = "[" + host + "]"
	}
	if v.port != 80 {
		host += ":" + strconv.Itoa(int(v.port))
	}
	u := &url.URL{Scheme: "http", Host: host, Path: "/.well-known/acme-challenge/" + r.Token}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return failed("rejectedIdentifier", "%q makes no URL", printable(host))
	}
	request.Header.Set("User-Agent", userAgent)
	request.Header.Set("Accept", "*/*")
	response, err := v.client.Do(request)
	if err != nil {
		return httpFault(u, err)
	}
	defer response.Body.Close()
	from := where(response.Request.URL)
	if response.StatusCode != http.StatusOK {
		return failed("unauthorized", "%s answers with status %d instead of 200", from, response.StatusCode)
	}
	body, err := io.ReadAll(io.LimitReader(response.Body, int64(len(r.KeyAuthorization)+maxSpace+1)))
	if err != nil {
		return failed("connection", "the answer of %s broke off: %s", from, cause(err))
	}
	if len(body) > len(r.KeyAuthorization)+maxSpace {
		return failed("incorrectResponse", "%s answers with more than the key authorization", from)
	}
	got := strings.TrimRight(string(body), " \t\r\n")
	if subtle.ConstantTimeCompare([]byte(got), []byte(r.KeyAuthorization)) == 1 {
		return nil
	}
	if response.Request.URL.Path != u.Path {
		// Where a redirection led, the requester chose the path: what stands there is not for it to read (§10.4).
		return failed("incorrectResponse", "%s answers with something other than the key authorization", from)
	}
	return failed("incorrectResponse", "%s answers with %q instead of the key authorization", from, printable(got))
}

// checkRedirect judges a redirection before it is followed; the address behind it is judged by dial.
func (v *httpValidator) checkRedirect(next *http.Request, via []*http.Request) error {
	u := next.URL
	refuse := func(format string, args ...any) error {
		return failed("unauthorized", "%s redirects %s", where(via[len(via)-1].URL), fmt.Sprintf(format, args...))
	}
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	n, err := strconv.ParseUint(port, 10, 16)
	switch {
	case len(via) > maxRedirects:
		return refuse("once more after %d times", maxRedirects)
	case u.Scheme != "http" && u.Scheme != "https":
		return refuse("to %q: only http and https are followed", printable(u.Scheme))
	case u.User != nil:
		return refuse("to a URL with a password")
	case err != nil || !slices.Contains(v.allowed, uint16(n)):
		return refuse("to port %q: only %v are followed", printable(port), v.allowed)
	case !isHostName(strings.ToLower(u.Hostname())) && !isAddress(u.Hostname()):
		return refuse("to %q, which is no host", printable(u.Hostname()))
	}
	next.Header.Del("Referer")
	return nil
}

// dial is the transport's way to the network.
func (v *httpValidator) dial(ctx context.Context, _, address string) (net.Conn, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, failed("connection", "%q is no address", printable(address))
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return nil, failed("connection", "%q is no port", printable(port))
	}
	return v.network.dial(ctx, strings.ToLower(host), uint16(n))
}

// httpFault is the error of an exchange that gave no response. What net/http says of a
// response that it cannot read quotes it, so that is not passed on.
func httpFault(u *url.URL, err error) error {
	if e, ok := errors.AsType[*ValidationError](err); ok {
		return e
	}
	if e, ok := errors.AsType[*url.Error](err); ok {
		if last, err := url.Parse(e.URL); err == nil {
			u = last // where redirections had led
		}
	}
	if text, ok := tlsFault(err); ok {
		return failed("tls", "%s: %s", where(u), text)
	}
	if e, ok := errors.AsType[*net.OpError](err); ok {
		return failed("connection", "%s gives no answer: %s", where(u), cause(e))
	}
	return failed("connection", "%s gives no answer that is HTTP", where(u))
}

// where names a URL without its path, which may hold what is not ours to show.
func where(u *url.URL) string { return u.Scheme + "://" + u.Host }
