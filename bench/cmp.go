package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/deviceca/deviceca/cmp"
)

// Where messages go: ours, and the one path that openssl's mock has beside "/".
const (
	cmpPath  = "/.well-known/cmp"
	mockPath = "/pkix/"
)

// cmpLoad is one CMP transaction, again and again, over kept-alive HTTP.
type cmpLoad struct {
	name    string
	of      cmp.BodyType
	signed  bool // protected by the device's certificate, else by the group's secret
	confirm bool // with certConf, else with implicitConfirm
	mock    bool // asked of openssl's mock server
}

// cmpLoads are all, each of openssl's next to ours of the same kind.
var cmpLoads = []cmpLoad{
	{"CMP ir, MAC, implicitConfirm", cmp.IR, false, false, false},
	{"openssl mock, ir, MAC, implicitConfirm", cmp.IR, false, false, true},
	{"CMP ir, MAC, certConf", cmp.IR, false, true, false},
	{"openssl mock, ir, MAC, certConf", cmp.IR, false, true, true},
	{"CMP ir, signature, implicitConfirm", cmp.IR, true, false, false},
	{"openssl mock, ir, signature, implicitConfirm", cmp.IR, true, false, true},
	{"CMP ir, signature, certConf", cmp.IR, true, true, false},
	{"CMP kur, signature, implicitConfirm", cmp.KUR, true, false, false},
}

// peer is the mock's load of the same kind; false if there is none.
func (l cmpLoad) peer() (cmpLoad, bool) {
	i := slices.IndexFunc(cmpLoads, func(o cmpLoad) bool {
		return o.mock && o.of == l.of && o.signed == l.signed && o.confirm == l.confirm
	})
	if l.mock || i < 0 {
		return cmpLoad{}, false
	}
	return cmpLoads[i], true
}

// What a CMP transaction costs at least on a quiet machine: the record's share of
// a group commit, and a signature by a key in memory. A verification is verifyQuiet, the token's signature leastToken.
const (
	leastCommit = 25e-6
	leastSign   = 27e-6
)

// least is the bound of a load in seconds of processor time: what its signatures,
// verifications, key derivations and commits cost, with the token's signature and
// the derivation as measured and the rest by the speed of verification. Neither HTTP nor DER is in it.
func (l cmpLoad) least(token, verify, derive float64) float64 {
	scale := 1 / verify / verifyQuiet
	messages := 1.0
	if l.confirm {
		messages = 2
	}
	cost := 1/token + scale*(2*verifyQuiet+messages*leastCommit) // the certificate, checked; the proof of possession
	if l.signed {
		return cost + messages*scale*(verifyQuiet+leastSign)
	}
	return cost + messages/derive
}

// macIterations is what openssl's client takes.
const macIterations = 500

func newMAC(reference, secret string) (*cmp.MAC, error) {
	return cmp.NewMAC([]byte(reference), []byte(secret), cmp.MACParams{Iterations: macIterations})
}

// deriveRate is how many keys PBM derives per CPU-second.
func deriveRate(limit time.Duration) (float64, error) {
	var all effort
	for deadline := time.Now().Add(limit); time.Now().Before(deadline); {
		e, err := spend(turn, []func() error{func() error { _, err := newMAC("bench", "a secret"); return err }})
		if err != nil {
			return 0, err
		}
		all = all.plus(e)
	}
	_, rate := all.rates()
	return rate, nil
}

// cmpMembers are the devices of the fleet with requests for a new key each. Of a
// server that serves one connection at a time there is one.
func (b *run) cmpMembers(l cmpLoad, t target, total int) ([]*member, error) {
	n := len(b.fleet.ids)
	if l.mock {
		n = 1
	}
	members := make([]*member, n)
	per := total/n + 1
	for i := range members {
		p, err := b.cmpProtector(l, i)
		if err != nil {
			return nil, err
		}
		members[i] = &member{requests: make([][]byte, per), follow: l.follow(t, p)}
	}
	return members, parallel(per*n, func(k int) error {
		i := k / per
		p, err := b.cmpProtector(l, i)
		if err == nil {
			members[i].requests[k%per], err = l.request(t, b.fleet.ids[i], p)
		}
		return err
	})
}

func (b *run) cmpProtector(l cmpLoad, i int) (cmp.Protector, error) {
	if !l.signed {
		if b.macs[i] == nil {
			var err error
			if b.macs[i], err = newMAC(b.ours.reference, b.ours.secret); err != nil {
				return nil, err
			}
		}
		return b.macs[i], nil
	}
	if l.mock {
		return b.mocks[1].device, nil
	}
	own := b.fleet.certs[i]
	leaf, err := x509.ParseCertificate(own.Certificate[0])
	if err != nil {
		return nil, err
	}
	return cmp.NewSigner(own.PrivateKey.(*ecdsa.PrivateKey), leaf, cmp.SignerOptions{})
}

// request is a first message, in HTTP.
func (l cmpLoad) request(t target, id string, p cmp.Protector) ([]byte, error) {
	key, err := newKey()
	if err != nil {
		return nil, err
	}
	subject, err := asn1.Marshal(pkix.Name{CommonName: id}.ToRDNSequence())
	if err != nil {
		return nil, err
	}
	r := &cmp.CertReqMsg{Template: cmp.CertTemplate{Subject: subject}}
	if err := r.SignPOP(key, cmp.POPAuth{}); err != nil {
		return nil, err
	}
	o := cmp.HeaderOptions{Time: time.Now()}
	if !l.confirm {
		o.Infos = cmp.Infos{cmp.ImplicitConfirm()}
	}
	m := cmp.NewRequest(&cmp.CertRequests{Of: l.of, Requests: []*cmp.CertReqMsg{r}}, o)
	if err := m.Protect(p); err != nil {
		return nil, err
	}
	return l.encode(t, m.Raw()), nil
}

func (l cmpLoad) encode(t target, message []byte) []byte {
	path := cmpPath
	if l.mock {
		path = mockPath
	}
	head := fmt.Sprintf("POST %s HTTP/1.1\r\nHost: %s\r\nConnection: keep-alive\r\nContent-Type: application/pkixcmp\r\nContent-Length: %d\r\n\r\n", path, t.addr, len(message))
	return append([]byte(head), message...)
}

// follow looks at an answer, and makes the certConf where one is due.
func (l cmpLoad) follow(t target, p cmp.Protector) func([]byte) ([]byte, error) {
	return func(answer []byte) ([]byte, error) {
		m, err := cmp.Parse(answer)
		if err != nil {
			return nil, err
		}
		b, ok := m.Body.(*cmp.CertResponses)
		switch {
		case m.Body.Type() == cmp.PKIConf && l.confirm:
			return nil, nil
		case !ok || len(b.Responses) != 1 || !b.Responses[0].Status.Status.Granted() || b.Responses[0].KeyPair == nil:
			return nil, refused(m)
		case !l.confirm:
			if granted, err := m.Header.GeneralInfo.ImplicitConfirm(); err != nil || !granted {
				return nil, errors.Join(err, errors.New("implicitConfirm was not granted"))
			}
			return nil, nil
		}
		status, err := cmp.Confirmation(b.Responses[0].KeyPair.Certificate, 0, nil)
		if err != nil {
			return nil, err
		}
		conf := cmp.Reply(m, &cmp.Confirmations{List: []cmp.CertStatus{status}}, time.Now())
		conf.Header.Sender = nil // that of the protection
		if err := conf.Protect(p); err != nil {
			return nil, err
		}
		return l.encode(t, conf.Raw()), nil
	}
}

func refused(m *cmp.Message) error {
	switch b := m.Body.(type) {
	case *cmp.ErrorBody:
		return fmt.Errorf("the server answered an error: %s", b.Status)
	case *cmp.CertResponses:
		if len(b.Responses) > 0 {
			return fmt.Errorf("the server answered %s: %s", b.Of, b.Responses[0].Status)
		}
	}
	return fmt.Errorf("the server answered %s", m.Body.Type())
}

// roundCMP gives every CMP load one turn.
func (b *run) roundCMP(ctx context.Context, n int) error {
	derive, err := deriveRate(min(b.duration, 300*time.Millisecond))
	if err != nil {
		return err
	}
	b.report.Derive = append(b.report.Derive, derive)
	for _, l := range cmpLoads {
		server := b.server(l)
		expected := max(1000, 1.5*b.rates[l.name])
		if n == 0 {
			expected = 3000
		}
		members, err := b.cmpMembers(l, server.target, int(expected*b.duration.Seconds()))
		if err != nil {
			return err
		}
		connection := keptAlive
		if l.mock { // it hangs up after each transaction
			connection = fresh
		}
		if err := b.turn(ctx, server, l.name, l.name, work{connection: connection, devices: members, limit: b.duration}); err != nil {
			return err
		}
	}
	return nil
}

// server is who answers a CMP load.
func (b *run) server(l cmpLoad) measured {
	switch {
	case !l.mock:
		return measured{b.ours.process, b.ours.plain, b.ours.counters}
	case l.signed:
		return measured{b.mocks[1].process, b.mocks[1].target, nil}
	}
	return measured{b.mocks[0].process, b.mocks[0].target, nil}
}
