package admin

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"
)

// maxAnswer bounds one answer, in octets. Pages of 1000 certificates with
// their decisions stay well below.
const maxAnswer = 64 << 20

// Client speaks the API. Its errors are *Problem where the API answered, and
// others where it could not be reached.
type Client struct {
	http *http.Client
	base string // without Prefix
	// Where says what the client talks to, for messages.
	Where string
}

// NewSocketClient talks to the server whose socket is at path.
func NewSocketClient(path string) *Client {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", path)
	}
	return &Client{http: &http.Client{Transport: &http.Transport{DialContext: dial}}, base: "http://deviceca", Where: path}
}

// NewServerClient talks to the server at an https URL without a path. conf
// holds the admin's certificate, and the roots to expect.
func NewServerClient(server string, conf *tls.Config) (*Client, error) {
	u, err := url.Parse(server)
	if err != nil || u.Scheme != "https" || u.Host == "" || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.User != nil {
		return nil, fmt.Errorf("%q is not the URL of a server: write it as https://HOST:PORT", server)
	}
	transport := &http.Transport{
		TLSClientConfig:     conf,
		ForceAttemptHTTP2:   true,
		Proxy:               http.ProxyFromEnvironment,
		TLSHandshakeTimeout: 10 * time.Second,
	}
	return &Client{http: &http.Client{Transport: transport}, base: "https://" + u.Host, Where: "https://" + u.Host}, nil
}

// NewLocalClient calls the API's handler in-process, as the user that runs it.
func NewLocalClient(h http.Handler) *Client {
	return &Client{http: &http.Client{Transport: &handlerTransport{h, os.Getuid()}}, base: "http://deviceca", Where: "the home itself"}
}

// Close drops idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// send makes one request; the caller closes the body of the answer. Answers
// other than 2xx become errors.
func (c *Client) send(ctx context.Context, method, path string, query url.Values, mediaType string, body io.Reader) (*http.Response, error) {
	target := c.base + Prefix + path
	if len(query) > 0 {
		target += "?" + query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, method, target, body)
	if err != nil {
		return nil, err
	}
	if mediaType != "" {
		req.Header.Set("Content-Type", mediaType)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		if e, ok := errors.AsType[*url.Error](err); ok {
			err = e.Err // it would repeat method and URL
		}
		return nil, fmt.Errorf("%s does not answer: %w", c.Where, err)
	}
	if resp.StatusCode/100 == 2 {
		return resp, nil
	}
	defer resp.Body.Close()
	return nil, readProblem(resp)
}

func readProblem(resp *http.Response) *Problem {
	p := new(Problem)
	body, err := io.ReadAll(io.LimitReader(resp.Body, MaxBody))
	if err != nil || json.Unmarshal(body, p) != nil {
		// Something between us and the API answered.
		p = &Problem{Title: "the answer is not from the admin API"}
	}
	p.Status = resp.StatusCode
	return p
}

// do sends in as JSON, if not nil, and reads the answer into out, if not nil.
func (c *Client) do(ctx context.Context, method, path string, query url.Values, in, out any) error {
	var body io.Reader
	mediaType := ""
	if in != nil {
		raw, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body, mediaType = bytes.NewReader(raw), "application/json"
	}
	resp, err := c.send(ctx, method, path, query, mediaType, body)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if out == nil {
		return nil
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxAnswer)).Decode(out); err != nil {
		return fmt.Errorf("the answer of %s cannot be read (is it a newer version?): %w", c.Where, err)
	}
	return nil
}

// get and post are do for one type.
func get[T any](ctx context.Context, c *Client, path string, query url.Values) (*T, error) {
	out := new(T)
	if err := c.do(ctx, http.MethodGet, path, query, nil, out); err != nil {
		return nil, err
	}
	return out, nil
}

func post[T any](ctx context.Context, c *Client, path string, in any) (*T, error) {
	out := new(T)
	if err := c.do(ctx, http.MethodPost, path, nil, in, out); err != nil {
		return nil, err
	}
	return out, nil
}

// pages walks a list, one page in memory at a time. limit 0 is all of it.
func pages[T any](ctx context.Context, c *Client, path string, query url.Values, limit int) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		var zero T
		for given := 0; ; {
			size := MaxPage
			if limit > 0 {
				size = min(size, limit-given)
			}
			query.Set("limit", strconv.Itoa(size))
			p, err := get[Page[T]](ctx, c, path, query)
			if err != nil {
				yield(zero, err)
				return
			}
			for _, item := range p.Items {
				if !yield(item, nil) {
					return
				}
			}
			given += len(p.Items)
			if p.Next == "" || limit > 0 && given >= limit {
				return
			}
			query.Set("after", p.Next)
		}
	}
}

// values makes a query of the pairs that are not empty.
func values(pairs ...string) url.Values {
	q := url.Values{}
	for i := 0; i < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			q.Set(pairs[i], pairs[i+1])
		}
	}
	return q
}

func stamp(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}
