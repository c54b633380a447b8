package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/tls"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
)

// fleet is devices that hold a certificate, one for each connection.
type fleet struct {
	target
	ids   []string
	certs []*tls.Certificate
}

// enrolFleet brings n devices into the inventory of a server by its credential.
func enrolFleet(ctx context.Context, t target, n int, authorization string) (*fleet, error) {
	f := &fleet{target: t, certs: make([]*tls.Certificate, n)}
	for i := range n {
		f.ids = append(f.ids, fmt.Sprintf("bench-fleet-%d", i))
	}
	return f, each(f.ids, func(i int, id string) (err error) {
		f.certs[i], err = firstCertificate(ctx, t, id, authorization)
		return err
	})
}

// newKeys are renewals with a new key each: the same one would get the same certificate.
func (f *fleet) newKeys(path string, total int) ([]*member, error) {
	per := total/len(f.ids) + 1
	members := make([]*member, len(f.ids))
	for i := range members {
		members[i] = &member{cert: f.certs[i], requests: make([][]byte, per)}
	}
	return members, parallel(per*len(members), func(n int) (err error) {
		i := n / per
		members[i].requests[n%per], err = signedRequest(f.target, path, f.ids[i], nil, "")
		return err
	})
}

// sameKey are requests that the server makes the key for, signed with the key that the device has, again and again.
func (f *fleet) sameKey(path string) ([]*member, error) {
	members := make([]*member, len(f.ids))
	return members, parallel(len(members), func(i int) error {
		request, err := signedRequest(f.target, path, f.ids[i], f.certs[i].PrivateKey.(*ecdsa.PrivateKey), "")
		members[i] = &member{cert: f.certs[i], requests: [][]byte{request}, again: true}
		return err
	})
}

// newDevices are first enrolments: each request is for a device that nobody knows yet.
// batch keeps the names of several calls apart.
func newDevices(t target, path string, connections, total, batch int, authorization string) ([]*member, error) {
	per := total/connections + 1
	members := make([]*member, connections)
	for i := range members {
		members[i] = &member{requests: make([][]byte, per)}
	}
	return members, parallel(per*connections, func(n int) (err error) {
		members[n/per].requests[n%per], err = signedRequest(t, path, fmt.Sprintf("bench-%d-%d", batch, n), nil, authorization)
		return err
	})
}

// signedRequest makes a CSR, with a new key if there is none, and the request around it.
func signedRequest(t target, path, id string, key *ecdsa.PrivateKey, authorization string) ([]byte, error) {
	var err error
	if key == nil {
		if key, err = newKey(); err != nil {
			return nil, err
		}
	}
	csr, err := newCSR(id, key)
	if err != nil {
		return nil, err
	}
	return encodeRequest(t.addr, path, csr, authorization), nil
}

// parallel runs f for 0 to n-1 on all processors, up to the first error.
func parallel(n int, f func(int) error) error {
	var next atomic.Int64
	var once sync.Once
	var fault error
	var wg sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for i := next.Add(1) - 1; i < int64(n); i = next.Add(1) - 1 {
				if err := f(int(i)); err != nil {
					once.Do(func() { fault = err })
					next.Store(int64(n))
				}
			}
		})
	}
	wg.Wait()
	return fault
}
