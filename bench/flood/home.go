package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// home is a CA that this program made, and its server.
type home struct {
	program, parent, dir string
	https, http          string // addresses
	roots                *x509.CertPool
	server               *exec.Cmd
}

// grant is a credential, as the program prints it.
type grant struct{ Reference, Secret string }

func startHome(ctx context.Context, program, keys string) (h *home, err error) {
	h = &home{roots: x509.NewCertPool()}
	if h.program, err = filepath.Abs(program); err != nil {
		return nil, err
	}
	if h.parent, err = os.MkdirTemp("", "flood"); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			h.close()
		}
	}()
	h.dir = filepath.Join(h.parent, "ca")
	if h.https, err = freeAddr(); err != nil {
		return nil, err
	}
	if h.http, err = freeAddr(); err != nil {
		return nil, err
	}
	if _, err := h.command("init", "--keys", keys, "--url", "http://ca.example:8080"); err != nil {
		return nil, err
	}
	root, err := os.ReadFile(filepath.Join(h.dir, "root.crt"))
	if err != nil {
		return nil, err
	}
	h.roots.AppendCertsFromPEM(root)
	log, err := os.Create(filepath.Join(h.parent, "log")) // a pipe would have this program run for each line
	if err != nil {
		return nil, err
	}
	defer log.Close()
	h.server = exec.Command(h.program, "serve", "--home", h.dir, "--https", h.https, "--http", h.http, "--metrics", "off")
	h.server.Stderr = log
	h.server.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} // it must not outlive us
	if err := h.server.Start(); err != nil {
		return nil, err
	}
	for range 3000 {
		if resp, err := http.Get("http://" + h.http + "/readyz"); err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return h, nil
			}
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(10 * time.Millisecond):
		}
	}
	text, _ := os.ReadFile(log.Name())
	return nil, fmt.Errorf("the server does not get ready:\n%s", text)
}

func (h *home) close() error {
	if h.server != nil && h.server.Process != nil {
		h.server.Process.Kill()
		h.server.Wait()
	}
	return os.RemoveAll(h.parent)
}

// command runs a subcommand on the home and returns what it prints.
func (h *home) command(args ...string) ([]byte, error) {
	cmd := exec.Command(h.program, append(args, "--home", h.dir)...)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("deviceca %v: %w\n%s", args, err, errs.String())
	}
	return out, nil
}

// group makes a credential for the devices that glob names.
func (h *home) group(name, glob string) (g grant, err error) {
	out, err := h.command("credential", "add", "--group", name, "--names", glob, "--level", "software", "--uses", "1000000", "--json")
	if err != nil {
		return g, err
	}
	return g, json.Unmarshal(out, &g)
}

// tls is the client's side of the https listener.
func (h *home) tls(certs ...tls.Certificate) *tls.Config {
	return &tls.Config{RootCAs: h.roots, ServerName: "localhost", Certificates: certs}
}

// flooder dials from the floods' address.
var flooder = net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}, Timeout: 10 * time.Second}

// client is an HTTP client of the floods.
func (h *home) client(connections int, certs ...tls.Certificate) *http.Client {
	return &http.Client{Timeout: 30 * time.Second,
		Transport: &http.Transport{TLSClientConfig: h.tls(certs...), DialContext: flooder.DialContext, MaxIdleConnsPerHost: connections, MaxConnsPerHost: connections}}
}

// cost is CPUs in use: 1.00 is one of them all the time.
type cost struct{ server, client float64 }

// counts is what a flood did.
type counts struct{ sent, refused atomic.Int64 }

// besides measures the honest device while an attack goes on, which has a second to build up.
func (h *home) besides(ctx context.Context, honest *honest, a attack, duration time.Duration) (latencies, cost, *counts, error) {
	flooding, end := context.WithCancel(ctx)
	defer end()
	var count counts
	var workers sync.WaitGroup
	for i := range a.workers {
		workers.Go(func() {
			for flooding.Err() == nil {
				count.sent.Add(1)
				if ok := a.once(flooding, i); !ok {
					count.refused.Add(1)
				}
			}
		})
	}
	time.Sleep(time.Second)
	began, server, client := time.Now(), cpuTime(h.server.Process.Pid), cpuTime(os.Getpid())
	got, err := honest.measure(ctx, duration)
	took := time.Since(began).Seconds()
	c := cost{(cpuTime(h.server.Process.Pid) - server) / took, (cpuTime(os.Getpid()) - client) / took}
	end()
	workers.Wait()
	if a.done != nil {
		a.done()
	}
	return got, c, &count, err
}

// cpuTime is the CPU time of a process so far, in seconds; 0 if it is not known.
func cpuTime(pid int) float64 {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	fields := bytes.Fields(raw[bytes.LastIndexByte(raw, ')')+1:])
	var user, system float64
	fmt.Sscan(string(fields[11]), &user)
	fmt.Sscan(string(fields[12]), &system)
	return (user + system) / 100 // USER_HZ, which Linux fixes
}

func freeAddr() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}
