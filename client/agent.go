package client

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"time"
)

// Agent keeps a device's certificate current for as long as it runs. It holds no
// state but the files of the directory, so a restart goes on where the last one ended.
type Agent struct {
	Config Config
	// Hook is called when the directory holds another certificate than the one
	// it last succeeded for, also when that came to be before a restart or by
	// another process: at least once per certificate, and once at the very
	// first start. After an error it is called again later. Nil for none.
	Hook func(ctx context.Context, r Result) error
	// Open gets what a run needs and should not hold meanwhile, such as a TPM: it sets Config.Signer
	// and Config.Attester, and returns what gives them back. It is called before each run. Nil for none.
	Open func(ctx context.Context, c *Config) (shut func() error, err error)

	warned []string // by the run before
}

// Waiting times of an Agent.
const (
	agentPoll     = time.Hour        // the longest sleep: the clock may be set, or the files replaced by others
	agentMinRetry = 10 * time.Second // after a first failure
	agentMaxRetry = time.Hour
)

// Watch runs until ctx ends, and returns its error; or at once with an error of
// kind Usage, which no waiting cures. All else is logged and tried again: after
// what the server asked (a day at most, and half of what is left of the certificate), or after 10 s, twice that, and so on up to an hour (a twentieth of
// the validity for certificates that live shorter), each with jitter. What a server finally
// refuses is tried again at the longest interval, for an operator may lift it.
func (a *Agent) Watch(ctx context.Context) error {
	log := a.Config.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	now := a.Config.Now
	if now == nil {
		now = time.Now
	}
	failures := 0
	for {
		result, err := a.once(ctx, log)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		var wait time.Duration
		switch {
		case err == nil:
			failures = 0
			wait = max(result.RenewAt.Sub(now()), time.Second)
			if result.Action != Current { // a CA that hands out what is due already must not be asked without pause
				wait = max(wait, result.NotAfter.Sub(result.NotBefore)/20, agentMinRetry)
			}
			wait = min(wait, agentPoll)
			log.Debug("certificate is current", "device", result.Device, "serial", result.Serial, "renew_at", result.RenewAt)
		case KindOf(err) == Usage:
			return err
		default:
			failures++
			wait = a.retryIn(err, failures, now())
			log.Warn("not done, will try again", "err", err, "hint", HintOf(err), "in", wait.Round(time.Second))
		}
		if err := sleep(ctx, wait); err != nil {
			return err
		}
	}
}

// once is one run, and the hook after it.
func (a *Agent) once(ctx context.Context, log *slog.Logger) (Result, error) {
	if a.Open != nil {
		shut, err := a.Open(ctx, &a.Config)
		if err != nil {
			return Result{}, err
		}
		defer func() {
			if err := shut(); err != nil {
				log.Warn("not given back", "err", err)
			}
		}()
	}
	result, err := Run(ctx, a.Config)
	if err != nil {
		return Result{}, err
	}
	// What was forced is done once.
	a.Config.Force, a.Config.Renew = false, false
	// What was warned of is not said again each hour, while nothing changes.
	if result.Action != Current || !slices.Equal(result.Warnings, a.warned) {
		for _, w := range result.Warnings {
			log.Warn(w)
		}
	}
	a.warned = result.Warnings
	return result, a.hook(ctx, result)
}

// retryIn is how long to wait after the n-th failure in a row. What the server asks for counts up to a day, and never beyond half
// of what is left of the certificate: then it is asked again, whatever it said.
func (a *Agent) retryIn(err error, n int, now time.Time) time.Duration {
	longest, end := agentMaxRetry, maxWait
	if r, err := Show(a.Config); err == nil {
		longest = min(longest, max(r.NotAfter.Sub(r.NotBefore)/20, agentMinRetry))
		if left := r.NotAfter.Sub(now); left > 0 {
			end = max(left/2, agentMinRetry)
		}
	}
	d := min(agentMinRetry<<min(n-1, 16), longest)
	if e, ok := errors.AsType[*Error](err); ok {
		switch {
		case e.RetryAfter > 0:
			return min(pause(e.RetryAfter, n), end)
		case e.Final() && e.Kind != Local:
			d = longest
		}
	}
	return d/2 + rand.N(d/2+1)
}

// hook calls the hook if the certificate is another than at its last success.
func (a *Agent) hook(ctx context.Context, r Result) error {
	if a.Hook == nil {
		return nil
	}
	store := &Store{Dir: a.Config.Dir, Signer: a.Config.Signer}
	id, err := store.Load()
	if err != nil {
		return err
	}
	sum := sha256.Sum256(id.Certificate.Raw)
	digest := hex.EncodeToString(sum[:])
	if last, err := store.read(hookedFile); err == nil && strings.TrimSpace(string(last)) == digest {
		return nil
	}
	if err := a.Hook(ctx, r); err != nil {
		return &Error{Kind: Local, Op: "hook", Text: "the hook failed", Err: err, Hint: "it will be called again; the certificate is in place"}
	}
	unlock, err := store.lock()
	if err != nil {
		return err
	}
	defer unlock()
	return store.write(hookedFile, []byte(digest+"\n"), 0o644)
}
