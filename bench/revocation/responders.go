package main

import (
	"bufio"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"strings"
	"time"

	"github.com/deviceca/deviceca/ocsp"
)

// serve is the responder as `deviceca serve` has it: net/http, answers signed
// ahead by a delegate. It says "ready" on stdout and goes when stdin ends.
func (b *bench) serve(addr string) error {
	debug.SetGCPercent(400)
	a, err := openAuthority(os.Getenv("BENCH_DIR"))
	if err != nil {
		return err
	}
	quiet := slog.New(slog.DiscardHandler)
	r, err := ocsp.New(ocsp.Options{Source: fleet{uint64(b.certs), time.Now().AddDate(1, 0, 0)}, Entries: b.certs*5/4 + 1<<16, Prefix: "/ocsp", Log: quiet, LiveRate: 1e9})
	if err != nil {
		return err
	}
	d := ocsp.NewDelegate(ocsp.DelegateOptions{Issuer: "issuing-1", IssuerCert: a.cert, Certifier: a, Log: quiet})
	if err := r.AddIssuer("issuing-1", a.cert, d); err != nil {
		return err
	}
	begun := time.Now()
	for index := range uint64(b.certs) {
		if err := r.Presign(context.Background(), "issuing-1", serialOf(index)); err != nil {
			return err
		}
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	go http.Serve(l, r)
	fmt.Printf("ready %.1f\n", time.Since(begun).Seconds())
	io.Copy(io.Discard, os.Stdin)
	if s := r.Stats(); s.Filled != uint64(b.certs) || s.Failed > 0 {
		return fmt.Errorf("answers were signed under load: %+v", s)
	}
	return nil
}

// process is a server under test.
type process struct {
	name   string
	addr   string
	pids   []int
	stop   func() error
	bare   bool // takes one connection after the other, and keeps none
	target func(index uint64) []byte
}

func freeAddr() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}

func (b *bench) ours() (*process, error) {
	addr, err := freeAddr()
	if err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(self, "-serve", addr, "-certs", fmt.Sprint(b.certs))
	cmd.Env = append(os.Environ(), "BENCH_DIR="+b.dir)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		return nil, fmt.Errorf("the responder did not start: %w", err)
	}
	fmt.Printf("%d answers signed ahead in %s s; resident %d MB\n\n", b.certs, strings.TrimPrefix(strings.TrimSpace(line), "ready "), resident(cmd.Process.Pid)>>20)
	return &process{name: "deviceca", addr: addr, pids: []int{cmd.Process.Pid}, stop: func() error { in.Close(); return cmd.Wait() }}, nil
}

// nginx serves one file, as large as an answer.
func (b *bench) nginx(answer []byte) (*process, error) {
	addr, err := freeAddr()
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(b.dir, "answer"), answer, 0o644); err != nil {
		return nil, err
	}
	conf := fmt.Sprintf(`daemon off; master_process off; worker_processes 1; pid %[1]s/nginx.pid; error_log %[1]s/error.log;
events { worker_connections 1024; }
http { access_log off; sendfile on; keepalive_requests 100000000; default_type application/ocsp-response; open_file_cache max=100;
client_body_temp_path %[1]s/t1; proxy_temp_path %[1]s/t2; fastcgi_temp_path %[1]s/t3; uwsgi_temp_path %[1]s/t4; scgi_temp_path %[1]s/t5;
server { listen %[2]s; location / { root %[1]s; } } }`, b.dir, addr)
	file := filepath.Join(b.dir, "nginx.conf")
	if err := os.WriteFile(file, []byte(conf), 0o644); err != nil {
		return nil, err
	}
	p, err := start("nginx (file)", addr, exec.Command("nginx", "-p", b.dir, "-c", file))
	if err == nil {
		p.target = func(uint64) []byte { return []byte("GET /answer HTTP/1.1\r\nHost: bench\r\n\r\n") }
	}
	return p, err
}

// openssl signs each answer anew, one connection after the other.
func (b *bench) openssl() (*process, error) {
	addr, err := freeAddr()
	if err != nil {
		return nil, err
	}
	index, err := os.Create(filepath.Join(b.dir, "index.txt"))
	if err != nil {
		return nil, err
	}
	w := bufio.NewWriter(index)
	end := time.Now().AddDate(1, 0, 0).UTC().Format("060102150405Z")
	for i := range uint64(min(b.certs, 10_000)) {
		fmt.Fprintf(w, "V\t%s\t\t%s\tunknown\t/CN=%d\n", end, strings.ToUpper(serialOf(i).String()), i)
	}
	if err := errors.Join(w.Flush(), index.Close()); err != nil {
		return nil, err
	}
	_, port, _ := net.SplitHostPort(addr)
	crt, key := filepath.Join(b.dir, "ca.crt"), filepath.Join(b.dir, "ca.key")
	// A connection without a question would hang it: wait for its word instead.
	cmd := exec.Command("openssl", "ocsp", "-index", index.Name(), "-port", port, "-CA", crt, "-rsigner", crt, "-rkey", key, "-ndays", "1")
	says, err := cmd.StderrPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	lines := bufio.NewScanner(says)
	for lines.Scan() && !strings.Contains(lines.Text(), "waiting for") {
	}
	go io.Copy(io.Discard, says)
	return &process{name: "openssl ocsp", addr: addr, pids: []int{cmd.Process.Pid}, bare: true, stop: func() error { cmd.Process.Kill(); cmd.Wait(); return nil }}, nil
}

// cfsslServe answers from a file of answers, made ahead.
func (b *bench) cfsslServe(answers [][]byte) (*process, error) {
	addr, err := freeAddr()
	if err != nil {
		return nil, err
	}
	file, err := os.Create(filepath.Join(b.dir, "responses"))
	if err != nil {
		return nil, err
	}
	for _, a := range answers {
		fmt.Fprintln(file, base64.StdEncoding.EncodeToString(a))
	}
	if err := file.Close(); err != nil {
		return nil, err
	}
	_, port, _ := net.SplitHostPort(addr)
	return start("cfssl ocspserve", addr, exec.Command(b.cfssl, "ocspserve", "-address", "127.0.0.1", "-port", port, "-path", "/ocsp/", "-responses", file.Name(), "-loglevel", "5"))
}

func start(name, addr string, cmd *exec.Cmd) (*process, error) {
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p := &process{name: name, addr: addr, pids: []int{cmd.Process.Pid}, stop: func() error { cmd.Process.Kill(); cmd.Wait(); return nil }}
	for range 200 {
		if c, err := net.Dial("tcp", addr); err == nil {
			c.Close()
			return p, nil
		}
		time.Sleep(50 * time.Millisecond)
	}
	p.stop()
	return nil, fmt.Errorf("%s does not start", name)
}
