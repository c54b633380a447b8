package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/x509"
	"fmt"
	"net"
	"path/filepath"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/internal/attesttest"
)

// acmeLoad is one kind of ACME order, again and again, each for a new device or name.
type acmeLoad struct {
	part, name string
	// prepare makes the nth order of a batch.
	prepare func(batch, n int) (*acmeOrder, error)
	server  measured
	clients []*acmeAccount // one for each connection
}

// The ACME loads, as the report calls them.
const (
	bindingLoad = "ACME, permanent-identifier, account binding"
	attestLoad  = "ACME, permanent-identifier, device-attest-01 by TPM"
	pebbleLoad  = "pebble, RSA-2048, dns, challenge taken as met"
	pebbleP256  = "pebble, P-256, dns, challenge taken as met"
	stepLoad    = "step-ca, badger, ip, http-01"
)

// What an order must cost at least on a quiet machine, the token's signature (leastToken) in it. Evidence
// adds the signatures of its two statements, of two certificates and of the message that brings it.
const (
	leastOrder    = 907e-6
	leastAttested = leastOrder + 5*verifyQuiet
)

// setUpACME starts the servers and registers their clients.
func (b *run) setUpACME(ctx context.Context) error {
	if b.wants("acme") {
		if err := b.ourACME(ctx); err != nil {
			return fmt.Errorf("ACME: %w", err)
		}
	}
	for _, l := range []struct {
		part, name, module string
		start              func(ctx context.Context, program, dir string) (*acmePeer, error)
		order              func(p *acmePeer, batch, n int) (*acmeOrder, error)
	}{
		{"pebble", pebbleLoad, pebbleModule, startPebble, (*acmePeer).dnsOrder},
		{"pebble", pebbleP256, pebbleModule, startPebbleP256, (*acmePeer).dnsOrder},
		{"step-ca", stepLoad, stepModule, startStep, (*acmePeer).ipOrder},
	} {
		if !b.wants(l.part) {
			continue
		}
		program, err := install(ctx, l.module, b.cache)
		if err != nil {
			return err
		}
		progress("starting %s", l.name)
		p, err := l.start(ctx, program, filepath.Join(b.dir, fmt.Sprintf("peer-%d", len(b.acmePeers))))
		if err != nil {
			return err
		}
		b.acmePeers = append(b.acmePeers, p)
		clients, err := p.ready(ctx, b.connections)
		if err != nil {
			return fmt.Errorf("%s: %w", l.name, err)
		}
		b.acme = append(b.acme, acmeLoad{l.part, l.name, func(batch, n int) (*acmeOrder, error) { return l.order(p, batch, n) },
			measured{p.process, p.target, nil}, clients})
	}
	return nil
}

// ourACME registers clients of two groups: one whose binding authorizes, and one that must attest.
func (b *run) ourACME(ctx context.Context) error {
	tpm, err := newSoftTPM()
	if err != nil {
		return err
	}
	anchor := filepath.Join(b.dir, "attestation.pem")
	if err := attesttest.WritePEM(anchor, []*x509.Certificate{tpm.authority.Root}); err != nil {
		return err
	}
	if _, err := b.ours.command(ctx, "manufacturer", "add", "bench", "--home", b.ours.home, "--anchor", anchor, "--level", "tpm", "--format", "tpm"); err != nil {
		return err
	}
	server := measured{b.ours.process, b.ours.target, b.ours.counters}
	for _, l := range []struct {
		level, name string
		order       func(id string) (*acmeOrder, error)
	}{
		{"software", bindingLoad, boundOrder},
		{"tpm", attestLoad, tpm.order},
	} {
		grant, err := b.ours.addGroup(ctx, "acme-"+l.level, l.level)
		if err != nil {
			return err
		}
		s, err := ourServer(b.ours.target, grant.ACME)
		if err != nil {
			return err
		}
		clients, err := s.accounts(ctx, b.connections)
		if err != nil {
			return err
		}
		b.acme = append(b.acme, acmeLoad{"acme", l.name, func(batch, n int) (*acmeOrder, error) {
			return l.order(fmt.Sprintf("acme-%s-%d-%d", l.level, batch, n))
		}, server, clients})
	}
	return nil
}

// ourServer is deviceca, for accounts that are bound to a credential.
func ourServer(t target, grant ca.ACMEGrant) (*acmeServer, error) {
	mac, err := base64url.DecodeString(grant.HMACKey)
	return &acmeServer{target: t, directory: "/acme/directory", reference: grant.KID, mac: mac}, err
}

// deviceOrder is for a device, with the key that it made.
func deviceOrder(id string) (*acmeOrder, *ecdsa.PrivateKey, error) {
	return newAcmeOrder(identifier{"permanent-identifier", id}, &x509.CertificateRequest{})
}

// boundOrder is for a device whose identifier the account's binding authorizes.
func boundOrder(id string) (*acmeOrder, error) {
	o, _, err := deviceOrder(id)
	return o, err
}

// order is for a device that attests its key by this TPM. Only what depends on the challenge is left to do.
func (t *softTPM) order(id string) (*acmeOrder, error) {
	o, key, err := deviceOrder(id)
	if err != nil {
		return nil, err
	}
	statement, err := t.attest(id, &key.PublicKey)
	if err != nil {
		return nil, err
	}
	o.challenge, o.met = "device-attest-01", func(_, keyAuthorization string) ([]byte, error) { return statement.answer(keyAuthorization) }
	return o, nil
}

// dnsOrder is for a name of its own, whatever challenge is met: nobody looks.
func (p *acmePeer) dnsOrder(batch, n int) (*acmeOrder, error) {
	name := fmt.Sprintf("bench-%d-%d.example.com", batch, n)
	o, _, err := newAcmeOrder(identifier{"dns", name}, &x509.CertificateRequest{DNSNames: []string{name}})
	if err != nil {
		return nil, err
	}
	o.challenge, o.met = "http-01", func(_, _ string) ([]byte, error) { return []byte("{}"), nil }
	return o, nil
}

// ipOrder is for this host, which needs no DNS.
func (p *acmePeer) ipOrder(int, int) (*acmeOrder, error) {
	o, _, err := newAcmeOrder(identifier{"ip", "127.0.0.1"}, &x509.CertificateRequest{IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}})
	if err != nil {
		return nil, err
	}
	o.challenge, o.met = "http-01", func(token, keyAuthorization string) ([]byte, error) {
		p.answers.expect(token, keyAuthorization)
		return []byte("{}"), nil
	}
	return o, nil
}

// members share total new orders among the load's clients.
func (l acmeLoad) members(batch, total int) ([]*member, error) {
	per := total/len(l.clients) + 1
	orders := make([]*acmeOrder, per*len(l.clients))
	members := make([]*member, len(l.clients))
	for i, a := range l.clients {
		members[i] = &member{size: per, perform: func(ctx context.Context, c *client, n int) error {
			return a.order(ctx, c, orders[i*per+n])
		}}
	}
	return members, parallel(len(orders), func(n int) (err error) {
		orders[n], err = l.prepare(batch, n)
		return err
	})
}

// roundACME gives each ACME load its turn.
func (b *run) roundACME(ctx context.Context, n int) error {
	for _, l := range b.acme {
		expected := max(200, 1.5*b.rates[l.name])
		if n == 0 {
			expected = 1500
		}
		b.batch++
		members, err := l.members(b.batch, int(expected*b.duration.Seconds()))
		if err != nil {
			return err
		}
		before := l.trips()
		if err := b.turn(ctx, l.server, l.name, l.name, work{connection: keptAlive, devices: members, limit: b.duration}); err != nil {
			return err
		}
		samples := b.report.Loads[l.name]
		last := &samples[len(samples)-1]
		last.RoundTrips = float64(l.trips()-before) / float64(last.Certificates)
	}
	return nil
}

// trips are the requests that the load's clients have sent.
func (l acmeLoad) trips() (n int) {
	for _, a := range l.clients {
		n += a.trips
	}
	return n
}

// acmeLoads are all, with what an order of ours must cost at least.
var acmeLoads = []struct {
	name  string
	least float64
}{{bindingLoad, leastOrder}, {attestLoad, leastAttested}, {pebbleLoad, 0}, {pebbleP256, 0}, {stepLoad, 0}}

// comparedACME puts the ACME loads beside the bound and the other servers.
func (r *report) comparedACME(number func(string, float64) string) table {
	t := table{title: "ACME, per CPU-second", head: []string{"load", "orders", "round trips", "bound", "÷ bound", "÷ pebble, RSA", "÷ pebble, P-256", "÷ step-ca"}}
	for _, l := range acmeLoads {
		name := l.name
		if len(r.Loads[name]) == 0 {
			continue
		}
		rate := r.of(name, perCPUSecond)
		row := []string{name, number("%.0f", rate), number("%.2f", r.of(name, func(s sample) float64 { return s.RoundTrips })), "–", "–", "–", "–", "–"}
		if l.least > 0 {
			if least := r.least(l.least); least > 0 {
				row[3], row[4] = number("%.0f", 1/least), number("%.2f", rate*least)
			}
			row[5] = number("%.2f", r.ratio(name, pebbleLoad, perCPUSecond))
			row[6] = number("%.2f", r.ratio(name, pebbleP256, perCPUSecond))
			row[7] = number("%.2f", r.ratio(name, stepLoad, perCPUSecond))
		}
		t.rows = append(t.rows, row)
	}
	return t
}
