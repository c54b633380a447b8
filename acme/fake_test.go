package acme_test

import (
	"context"
	"sync"

	"github.com/deviceca/deviceca/acme"
)

// met finds every challenge met.
type met struct{}

func (met) Validate(context.Context, acme.ValidationRequest) error { return nil }

// validator does as it is told.
type validator struct {
	mu    sync.Mutex
	asked []acme.ValidationRequest
	say   func(ctx context.Context, r acme.ValidationRequest) error
}

func (v *validator) Validate(ctx context.Context, r acme.ValidationRequest) error {
	v.mu.Lock()
	v.asked = append(v.asked, r)
	say := v.say
	v.mu.Unlock()
	if say == nil {
		return nil
	}
	return say(ctx, r)
}

func (v *validator) times() int {
	v.mu.Lock()
	defer v.mu.Unlock()
	return len(v.asked)
}

// refuseAll finds no challenge met.
func refuseAll(context.Context, acme.ValidationRequest) error {
	return &acme.ValidationError{Problem: "connection", Detail: "nobody answers"}
}
