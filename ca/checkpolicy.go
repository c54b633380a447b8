package ca

import (
	"cmp"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/deviceca/deviceca/policy"
)

// CheckPolicy compiles and lints a policy as [NewService] does, under CAs that are made for that alone: what it finds no server
// would start with. What depends on the CA itself, such as a life that is longer than its own, only [Service.Check] finds. The error is policy.Faults, one
// for each profile that is refused, or the context's.
func CheckPolicy(ctx context.Context, p *policy.Policy) error {
	s := &Service{opts: Options{URL: "http://ca.example"}, now: time.Now}
	issuers, err := throwawayCAs(s.opts.URL, s.now())
	if err != nil {
		return err
	}
	_, err = s.compile(ctx, p, issuers)
	if err == nil || ctx.Err() != nil {
		return err
	}
	all, ok := errors.AsType[interface {
		error
		Unwrap() []error
	}](err)
	if !ok {
		return err
	}
	var faults policy.Faults
	for _, err := range flatten(all) {
		profile := ""
		if of, ok := errors.AsType[*profileError](err); ok {
			profile = of.profile
		}
		message := strings.TrimLeft(strings.TrimPrefix(err.Error(), "profile "+profile), ": ")
		faults = append(faults, p.FaultOf(profile, message, "no server issues such certificates: change what the lint names"))
	}
	slices.SortStableFunc(faults, func(a, b policy.Fault) int { return cmp.Or(a.Line-b.Line, strings.Compare(a.Message, b.Message)) })
	return faults
}

// flatten takes joined errors apart.
func flatten(all interface{ Unwrap() []error }) (list []error) {
	for _, err := range all.Unwrap() {
		if more, ok := err.(interface{ Unwrap() []error }); ok {
			list = append(list, flatten(more)...)
		} else if err != nil {
			list = append(list, err)
		}
	}
	return list
}

// profileError is a fault of one profile, whose name its text begins with.
type profileError struct {
	profile string
	error
}

func (e *profileError) Unwrap() error { return e.error }

// throwawayCAs outlive every validity that a policy can give.
func throwawayCAs(url string, now time.Time) (issuers []*Issuer, err error) {
	const life = 200 * year
	h := Hierarchy{Organization: "Check", URL: url, Now: now, RootLife: life, IssuingLife: life}
	key := func() *ecdsa.PrivateKey {
		k, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader) // never fails with rand.Reader
		return k
	}
	rootKey := key()
	root, err := NewRoot(rootKey, 1, h)
	if err != nil {
		return nil, err
	}
	add := func(role string, cert []byte, signer crypto.Signer) error {
		i, err := newIssuer(IssuerRecord{Name: role + "-1", Role: role, Generation: 1, Key: role + "-1", Cert: cert, Created: now}, signer)
		issuers = append(issuers, i)
		return err
	}
	if err := add("root", root, nil); err != nil {
		return nil, err
	}
	for _, role := range []string{"issuing", "quarantine"} {
		signer := key()
		cert, err := NewSubordinate(root, rootKey, role, 1, signer.Public(), h)
		if err != nil {
			return nil, err
		}
		if err := add(role, cert, signer); err != nil {
			return nil, err
		}
	}
	return issuers, nil
}
