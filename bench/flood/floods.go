package main

import (
	"bytes"
	"context"
	"crypto"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"time"

	"github.com/deviceca/deviceca/cmp"
	"github.com/deviceca/deviceca/policy"
)

// flood is one way to make the server work. prepare makes ready what it needs (devices, credentials,
// requests signed beforehand), so that the attack itself costs this program little.
type flood struct {
	name    string
	prepare func(*home) (attack, error)
}

// attack is a flood that is ready: each worker does once again and again.
type attack struct {
	workers int
	once    func(ctx context.Context, worker int) (ok bool) // false: the server refused it, or did not answer
	done    func()                                          // clears up; nil: there is nothing to
}

// floods is the table. To add one, write its prepare, in a file of its own unless it is short, and a line here.
var floods = []flood{
	{"pbmac", pbmac},
	{"connections", connections},
	{"policycheck", policyCheck},
	{"renewals", renewals},
	{"refusals", refusals},
	{"newcomers", newcomers},
	{"nonces", nonces},
}

// pbmac sends CMP messages whose MAC costs as much to check as the server allows. The
// sender computes one key for all.
func pbmac(h *home) (attack, error) {
	params := cmp.MACParams{Kind: cmp.PBMAC1, OWF: crypto.SHA512, MAC: crypto.SHA512}
	params.Iterations = cmp.DefaultMaxWork / 6
	mac, err := cmp.NewMAC([]byte("nobody"), []byte("wrong"), params)
	if err != nil {
		return attack{}, err
	}
	client := h.client(64)
	return attack{workers: 64, done: client.CloseIdleConnections, once: func(ctx context.Context, _ int) bool {
		m := cmp.NewRequest(&cmp.General{}, cmp.HeaderOptions{Time: time.Now()})
		if err := m.Protect(mac); err != nil {
			return false
		}
		status, _ := send(ctx, client, "http://"+h.http+"/.well-known/cmp", "application/pkixcmp", m.Raw())
		return status == http.StatusOK
	}}, nil
}

// connections opens connections, and keeps them without a word: 2,000 at a time.
func connections(h *home) (attack, error) {
	const each = 50
	return attack{workers: 40, once: func(ctx context.Context, _ int) bool {
		var open []net.Conn
		refused := false
		for range each {
			c, err := flooder.DialContext(ctx, "tcp", h.https)
			if err != nil {
				refused = true
				break
			}
			open = append(open, c)
		}
		select {
		case <-ctx.Done():
		case <-time.After(250 * time.Millisecond): // so that the flood itself is not all of the load
		}
		for _, c := range open {
			c.SetReadDeadline(time.Now().Add(time.Millisecond))
			if _, err := c.Read(make([]byte, 1)); err == io.EOF || strings.Contains(fmt.Sprint(err), "reset") {
				refused = true
			}
			c.Close()
		}
		return !refused
	}}, nil
}

// policyCheck has an operator ask for the check of the largest policy that there may be.
func policyCheck(h *home) (attack, error) {
	if _, err := h.command("admin", "add", "flooder", "--role", "operator", "--out", h.parent); err != nil {
		return attack{}, err
	}
	pair, err := tls.LoadX509KeyPair(filepath.Join(h.parent, "flooder.crt"), filepath.Join(h.parent, "flooder.key"))
	if err != nil {
		return attack{}, err
	}
	body, err := json.Marshal(map[string]string{"source": largePolicy()})
	if err != nil {
		return attack{}, err
	}
	client := h.client(8, pair)
	return attack{workers: 8, done: client.CloseIdleConnections, once: func(ctx context.Context, _ int) bool {
		status, err := send(ctx, client, "https://"+h.https+"/admin/v1/policy/check", "application/json", body)
		if err == nil && status != http.StatusOK {
			time.Sleep(10 * time.Millisecond)
		}
		return status == http.StatusOK
	}}, nil
}

// largePolicy is the default with as many profiles and conditions as may be.
func largePolicy() string {
	text := string(policy.Default())
	add := func(section, format string, n int) {
		var lines strings.Builder
		for i := range n {
			fmt.Fprintf(&lines, format, i, i)
		}
		text = strings.Replace(text, "\n"+section+":\n", "\n"+section+":\n"+lines.String(), 1)
	}
	add("profiles", "  p%d: {extends: gateway, validity: %dh}\n", 90)
	text = strings.ReplaceAll(text, "validity: 0h", "validity: 100h")
	add("outcomes", "  - {name: r%d, when: verdict.hardware >= CONTRAINDICATED && device.id == \"x%d\" && verdict.any >= WARNING, then: deny}\n", 290)
	return text
}

// send posts and reads the answer whole.
func send(ctx context.Context, client *http.Client, url, contentType string, body []byte) (status int, err error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return 0, err
	}
	r.Header.Set("Content-Type", contentType)
	resp, err := client.Do(r)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode, err
}
