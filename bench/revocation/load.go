package main

import (
	"bufio"
	"bytes"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/deviceca/deviceca/ocsp"
)

// question makes HTTP requests for the answers of certificates. All questions
// differ in the serial alone, so one is patched.
type question struct {
	der   []byte
	at    int // where the serial lies
	nonce []byte
}

func newQuestion(issuer *x509.Certificate, nonce []byte) (*question, error) {
	serial := serialOf(0)
	der, err := ocsp.NewRequest(issuer, ocsp.SHA1, nonce, serial.Big())
	return &question{der: der, at: bytes.Index(der, serial[:]), nonce: nonce}, err
}

func (q *question) of(index uint64) []byte {
	der := slices.Clone(q.der)
	serial := serialOf(index)
	copy(der[q.at:], serial[:])
	return der
}

func (q *question) get(index uint64) []byte {
	return []byte("GET /ocsp/" + base64.StdEncoding.EncodeToString(q.of(index)) + " HTTP/1.1\r\nHost: bench\r\n\r\n")
}

func (q *question) post(index uint64) []byte {
	der := q.of(index)
	return fmt.Appendf(nil, "POST /ocsp/ HTTP/1.1\r\nHost: bench\r\nContent-Type: application/ocsp-request\r\nContent-Length: %d\r\n\r\n%s", len(der), der)
}

// result is one measurement.
type result struct {
	rate     float64 // answers per second
	perCPU   float64 // answers per CPU-second of the server
	p50, p99 time.Duration
}

// load asks as fast as the connections can (one, of a server that takes one after the other), or at rate if it is above 0.
func (b *bench) load(p *process, request func(index uint64) []byte, certs int, rate float64) (result, error) {
	var mu sync.Mutex
	var all []time.Duration
	var failed error
	var wg sync.WaitGroup
	cpuBefore, begun := cpuOf(p.pids), time.Now()
	end := begun.Add(b.span)
	conns := b.conns
	if p.bare {
		conns = 1
	}
	for range conns {
		wg.Go(func() {
			took, err := b.client(p, request, certs, end, rate/float64(conns))
			mu.Lock()
			defer mu.Unlock()
			all = append(all, took...)
			if err != nil {
				failed = err
			}
		})
	}
	wg.Wait()
	spent, cpu := time.Since(begun).Seconds(), cpuOf(p.pids)-cpuBefore
	if failed != nil || len(all) == 0 {
		return result{}, fmt.Errorf("%s: %w", p.name, failed)
	}
	slices.Sort(all)
	n := float64(len(all))
	return result{n / spent, n / cpu, all[len(all)/2], all[len(all)*99/100]}, nil
}

// client is one connection; rate is per second, 0 without pause.
func (b *bench) client(p *process, request func(index uint64) []byte, certs int, end time.Time, rate float64) (took []time.Duration, err error) {
	var conn net.Conn
	var r *bufio.Reader
	defer func() {
		if conn != nil {
			conn.Close()
		}
	}()
	next := time.Now()
	for time.Now().Before(end) {
		if rate > 0 {
			next = next.Add(time.Duration(rand.ExpFloat64() / rate * float64(time.Second)))
			time.Sleep(time.Until(next))
		}
		out := request(rand.Uint64N(uint64(certs)))
		begun := time.Now()
		if rate > 0 {
			begun = next // what waits for its turn has been waiting
		}
		if conn == nil {
			if conn, err = net.Dial("tcp", p.addr); err != nil {
				return took, err
			}
			conn.SetDeadline(end.Add(10 * time.Second))
			r = bufio.NewReader(conn)
		}
		if _, err := conn.Write(out); err != nil {
			return took, err
		}
		resp, err := readAnswer(r)
		if err != nil {
			return took, err
		}
		took = append(took, time.Since(begun))
		if p.bare || resp.close {
			conn.Close()
			conn = nil
		}
	}
	return took, nil
}

type answerHead struct{ close bool }

// readAnswer reads a response with as little work as possible.
func readAnswer(r *bufio.Reader) (h answerHead, err error) {
	length := -1
	for first := true; ; first = false {
		line, err := r.ReadSlice('\n')
		if err != nil {
			return h, err
		}
		if first && !bytes.Contains(line, []byte(" 200 ")) {
			return h, fmt.Errorf("status %s", bytes.TrimSpace(line))
		}
		if len(line) <= 2 {
			break
		}
		name, value, _ := bytes.Cut(line, []byte(":"))
		switch {
		case bytes.EqualFold(name, []byte("content-length")):
			if length, err = strconv.Atoi(string(bytes.TrimSpace(value))); err != nil {
				return h, err
			}
		case bytes.EqualFold(name, []byte("connection")):
			h.close = bytes.EqualFold(bytes.TrimSpace(value), []byte("close"))
		}
	}
	if length < 0 {
		h.close = true
		_, err := io.Copy(io.Discard, r)
		return h, err
	}
	_, err = r.Discard(length)
	return h, err
}

// cpuOf is the CPU time that processes have used, in seconds.
func cpuOf(pids []int) (seconds float64) {
	for _, pid := range pids {
		raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			continue
		}
		fields := strings.Fields(string(raw[bytes.LastIndexByte(raw, ')')+1:]))
		for _, f := range fields[11:13] { // utime, stime
			ticks, _ := strconv.ParseFloat(f, 64)
			seconds += ticks / 100
		}
	}
	return seconds
}

func resident(pid int) int64 {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		return 0
	}
	pages, _ := strconv.ParseInt(strings.Fields(string(raw))[1], 10, 64)
	return pages * int64(os.Getpagesize())
}

// contender is one line of the table.
type contender struct {
	name    string
	p       *process
	request func(uint64) []byte
	certs   int
	results []result
}

// ocsp lets the servers take turns, so that what the machine does otherwise falls on all.
func (b *bench) ocsp() error {
	a, err := openAuthority(b.dir)
	if err != nil {
		return err
	}
	plain, err := newQuestion(a.cert, nil)
	if err != nil {
		return err
	}
	fresh, err := newQuestion(a.cert, bytes.Repeat([]byte{7}, 32))
	if err != nil {
		return err
	}
	fmt.Printf("### OCSP, %d certificates\n\n", b.certs)
	ours, err := b.ours()
	if err != nil {
		return err
	}
	defer ours.stop()
	var answers [][]byte
	for index := range uint64(min(b.certs, 10_000)) {
		resp, err := http.Post("http://"+ours.addr+"/ocsp", "application/ocsp-request", bytes.NewReader(plain.of(index)))
		if err != nil {
			return err
		}
		raw, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil {
			return err
		}
		answers = append(answers, raw)
	}
	nginx, err := b.nginx(answers[0])
	if err != nil {
		return err
	}
	defer nginx.stop()
	openssl, err := b.openssl()
	if err != nil {
		return err
	}
	defer openssl.stop()
	lines := []*contender{
		{name: fmt.Sprintf("nginx, a file of %d octets", len(answers[0])), p: nginx, request: nginx.target, certs: 1},
		{name: "deviceca, GET", p: ours, request: plain.get, certs: b.certs},
		{name: "deviceca, POST", p: ours, request: plain.post, certs: b.certs},
		{name: "deviceca, POST with nonce (signed live)", p: ours, request: fresh.post, certs: b.certs},
		{name: "openssl ocsp, POST", p: openssl, request: plain.post, certs: len(answers)},
	}
	if b.cfssl != "" {
		cfssl, err := b.cfsslServe(answers)
		if err != nil {
			return err
		}
		defer cfssl.stop()
		lines = append(lines, &contender{name: fmt.Sprintf("cfssl ocspserve, POST, %d certificates", len(answers)), p: cfssl, request: plain.post, certs: len(answers)})
	}
	for range b.rounds {
		for _, c := range lines {
			r, err := b.load(c.p, c.request, c.certs, 0)
			if err != nil {
				return err
			}
			c.results = append(c.results, r)
		}
	}
	head("server", "answers/s", "answers per CPU-second", "of nginx", "p50 ms", "p99 ms", "p99 ms at half load")
	base := 0.0
	for _, c := range lines {
		slices.SortFunc(c.results, func(x, y result) int { return int(x.perCPU - y.perCPU) })
		m := c.results[len(c.results)/2]
		if base == 0 {
			base = m.perCPU
		}
		half, err := b.load(c.p, c.request, c.certs, m.rate/2)
		if err != nil {
			return err
		}
		ms := func(d time.Duration) string { return fmt.Sprintf("%.2f", d.Seconds()*1000) }
		row(c.name, fmt.Sprintf("%.0f", m.rate), fmt.Sprintf("%.0f", m.perCPU), fmt.Sprintf("%.2f", m.perCPU/base), ms(m.p50), ms(m.p99), ms(half.p99))
	}
	return nil
}
