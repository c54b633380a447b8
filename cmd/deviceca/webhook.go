package main

import (
	"context"
	"fmt"
	"regexp"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/deviceca/deviceca/internal/audit"
	"github.com/deviceca/deviceca/internal/keys"
	"github.com/deviceca/deviceca/internal/store"
	"github.com/deviceca/deviceca/internal/webhook"
)

// WebhookConfig says who is told what happens.
type WebhookConfig struct {
	URL     string        `yaml:"url" doc:"Where events are posted, https (or http to this host). Empty: nowhere."`
	Secret  string        `yaml:"secret" doc:"Where the secret is that posts are signed with, 16 octets or more: file:PATH (relative to the home), env:NAME, or credential:NAME of systemd. Never the secret."`
	Roots   string        `yaml:"roots" doc:"Certificates (PEM, relative to the home) that the receiver's must chain to. Empty: the system's."`
	Events  []string      `yaml:"events" doc:"Kinds of audit events that are posted."`
	Timeout time.Duration `yaml:"timeout" doc:"Time for the receiver to take a post."`
}

var eventKind = regexp.MustCompile(`^[a-z]+\.[a-z]+(-[a-z]+)*$`)

func (w WebhookConfig) check(fault func(key, format string, args ...any)) {
	if w.URL != "" {
		if err := webhook.CheckURL(w.URL); err != nil {
			fault("webhook.url", "%s", err)
		}
		if w.Secret == "" {
			fault("webhook.secret", "is missing: a receiver must be able to tell our posts from others'")
		}
		if len(w.Events) == 0 {
			fault("webhook.events", "lists nothing: leave it out for its default")
		}
	}
	if w.Secret != "" && !isPINSource(w.Secret) {
		fault("webhook.secret", "must say where the secret is: file:PATH, env:NAME or credential:NAME") // it may be the secret itself
	}
	for _, kind := range w.Events {
		if !eventKind.MatchString(kind) {
			fault("webhook.events", "%q is not a kind of event such as certificate.issued", kind)
		}
	}
	if w.Timeout < time.Second || w.Timeout > time.Minute {
		fault("webhook.timeout", "%s is not between 1s and 1m", w.Timeout)
	}
}

// newWebhook is the follower that the configuration asks for; nil for none.
func newWebhook(s *system) (*webhook.Follower, error) {
	c := s.cfg.Webhook
	if c.URL == "" {
		return nil, nil
	}
	source, err := keys.ParsePINSource(c.Secret)
	if err != nil {
		return nil, fmt.Errorf("webhook.secret: %w", err)
	}
	secret, err := source.Read()
	if err != nil {
		return nil, hinted(fmt.Errorf("the webhook's secret: %w", err), "make one with: (umask 077; openssl rand -hex 32 > FILE)")
	}
	o := webhook.Options{Log: eventLog{s}, URL: c.URL, Secret: secret, Events: c.Events, Timeout: c.Timeout, Logger: s.log}
	if c.Roots != "" {
		certs, err := readCerts(c.Roots)
		if err != nil {
			return nil, fmt.Errorf("webhook.roots: %w", err)
		}
		o.Roots = certPool(certs)
	}
	return webhook.New(o)
}

// startWebhook lets the webhook follow the log, if there is one.
func (s *server) startWebhook(ctx context.Context, f *webhook.Follower) {
	if f == nil {
		return
	}
	m := s.metrics.registry
	m.MustRegister(
		prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "deviceca_webhook_events_total", Help: "Events that the webhook's receiver took."},
			func() float64 { return float64(f.Stats().Delivered) }),
		prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "deviceca_webhook_failures_total", Help: "Posts that the webhook's receiver did not take."},
			func() float64 { return float64(f.Stats().Failures) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "deviceca_webhook_lag_seconds", Help: "Age of the oldest event that waits for the webhook's receiver; 0 if none does."},
			func() float64 { return f.Stats().Lag.Seconds() }))
	s.background(ctx, f.Run)
}

// eventLog shows the audit log to the webhook, and keeps its cursor.
type eventLog struct{ *system }

// Head is part of webhook.Log.
func (l eventLog) Head(context.Context) (*audit.Checkpoint, error) { return l.heads.newest.Load(), nil }

const webhookCursor = "webhook.cursor"

// Events is part of webhook.Log.
func (l eventLog) Events(ctx context.Context, after int64, limit int) ([]webhook.Event, error) {
	logged, err := l.store.EventLog(ctx, store.EventFilter{}, after, limit)
	events := make([]webhook.Event, len(logged))
	for i, e := range logged {
		events[i] = webhook.Event{ID: e.ID, Event: e.Event}
	}
	return events, err
}

// Instances is part of webhook.Log.
func (l eventLog) Instances(ctx context.Context) ([]webhook.Instance, error) {
	all, err := l.store.Instances(ctx)
	instances := make([]webhook.Instance, len(all))
	for i, instance := range all {
		instances[i] = webhook.Instance{ID: instance.ID, FirstEvent: instance.FirstEvent}
	}
	return instances, err
}

// Newest is part of webhook.Log.
func (l eventLog) Newest(ctx context.Context) (int64, error) { return l.store.NewestEvent(ctx) }

// Cursor is part of webhook.Log.
func (l eventLog) Cursor(ctx context.Context) (int64, error) {
	raw, err := l.store.Setting(ctx, webhookCursor)
	if err != nil {
		return 0, err
	}
	return strconv.ParseInt(string(raw), 10, 64)
}

// SetCursor is part of webhook.Log.
func (l eventLog) SetCursor(ctx context.Context, id int64) error {
	return l.store.PutSetting(ctx, webhookCursor, strconv.AppendInt(nil, id, 10))
}
