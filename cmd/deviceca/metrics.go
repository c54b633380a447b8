package main

import (
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/ocsp"
)

// metrics are the server's own figures, at /metrics of the metrics listener.
// Labels are few and bounded: no device, serial or address ever is one.
type metrics struct {
	registry *prometheus.Registry
	requests *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
	refused  *prometheus.CounterVec
	failed   *prometheus.CounterVec
}

func newMetrics(s *system) *metrics {
	m := &metrics{
		registry: prometheus.NewRegistry(),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "deviceca_requests_total",
			Help: "Requests by protocol, operation and outcome."}, []string{"protocol", "operation", "outcome"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "deviceca_request_seconds",
			Help:    "Time to answer a request, in seconds.",
			Buckets: []float64{.0005, .001, .002, .005, .01, .02, .05, .1, .25, .5, 1, 2.5, 5, 10}}, []string{"protocol", "operation"}),
	}
	m.refused = prometheus.NewCounterVec(prometheus.CounterOpts{Name: "deviceca_connections_refused_total",
		Help: "Connections closed without a request, by listener and reason: address (too many of one network address) or full (too many in all)."}, []string{"listener", "reason"})
	m.failed = prometheus.NewCounterVec(prometheus.CounterOpts{Name: "deviceca_tls_handshakes_failed_total",
		Help: "TLS handshakes that failed, by listener and reason: client_certificate (cannot be read), client_chain (too long), client_signature, parameters (nothing in common), alert (the client refused), not_tls, gone, server, other."}, []string{"listener", "reason"})
	m.registry.MustRegister(m.requests, m.seconds, m.refused, m.failed, collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	count := func(name, help string, read func() int64) {
		m.registry.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Name: name, Help: help},
			func() float64 { return float64(read()) }))
	}
	count("deviceca_signatures_total", "Signatures made with CA keys.", func() int64 { return s.service.Stats().Signatures })
	count("deviceca_certificates_total", "Certificates issued.", func() int64 { return s.service.Stats().Issued })
	count("deviceca_certificates_shortened_total", "Certificates cut short since their CA ends before.", func() int64 { return s.service.Stats().Shortened })
	count("deviceca_refusals_total", "Requests of known requesters that were refused.", func() int64 { return s.service.Stats().Refused })
	count("deviceca_lint_findings_total", "Certificates of the linted share that failed a lint: each is a fault of the server.", func() int64 { return s.service.Stats().LintFindings })
	count("deviceca_wrong_secrets_total", "Wrong secrets and unknown references offered.", func() int64 { return s.service.Stats().WrongSecrets })
	count("deviceca_store_commits_total", "Transactions made durable, one fsync each.", func() int64 { return s.store.Stats().Commits })
	count("deviceca_store_changes_total", "Changes committed in them.", func() int64 { return s.store.Stats().Changes })
	count("deviceca_store_failed_batches_total", "Batches that failed whole.", func() int64 { return s.store.Stats().Failed })
	// Of the responder in force: after a rotation it is another, and its counts begin anew.
	answers := func() ocsp.Stats { return s.revocation.current.Load().responder.Stats() }
	count("deviceca_ocsp_presigned_total", "OCSP answers given out from memory.", func() int64 { return int64(answers().Presigned) })
	count("deviceca_ocsp_signed_total", "OCSP answers signed to be kept: first asks, renewals, status changes.", func() int64 { return int64(answers().Filled) })
	count("deviceca_ocsp_live_total", "OCSP answers signed for one asker.", func() int64 { return int64(answers().Live) })
	count("deviceca_ocsp_refused_total", "OCSP questions over a budget.", func() int64 { return int64(answers().Refused) })
	count("deviceca_ocsp_failed_total", "OCSP questions that met an internal error.", func() int64 { return int64(answers().Failed) })
	m.registry.MustRegister(caEnds{s.service})
	m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "deviceca_store_queue",
		Help: "Changes that wait to be committed."}, func() float64 { return float64(s.store.Stats().Queue) }))
	return m
}

// caEnds tells when the CAs end. There are as many series as live generations.
type caEnds struct{ service *ca.Service }

var caEndDesc = prometheus.NewDesc("deviceca_ca_not_after_seconds", "When a CA that is live expires, Unix time.", []string{"ca", "stage"}, nil)

func (c caEnds) Describe(ch chan<- *prometheus.Desc) { ch <- caEndDesc }

func (c caEnds) Collect(ch chan<- prometheus.Metric) {
	for _, g := range c.service.Generations() {
		if g.Stage.Live() {
			ch <- prometheus.MustNewConstMetric(caEndDesc, prometheus.GaugeValue, float64(g.NotAfter.Unix()), g.Name, string(g.Stage))
		}
	}
}

// observe makes the hook of one protocol.
func (m *metrics) observe(protocol string) func(operation, outcome string, took time.Duration) {
	return func(operation, outcome string, took time.Duration) {
		m.requests.WithLabelValues(protocol, operation, outcome).Inc()
		m.seconds.WithLabelValues(protocol, operation).Observe(took.Seconds())
	}
}

// connectionsRefused makes the hook of one listener.
func (m *metrics) connectionsRefused(listener string) func(reason string) {
	return func(reason string) { m.refused.WithLabelValues(listener, reason).Inc() }
}

// handshakesFailed makes the hook of one listener.
func (m *metrics) handshakesFailed(listener string) func(reason string) {
	return func(reason string) { m.failed.WithLabelValues(listener, reason).Inc() }
}

func (m *metrics) handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{}))
	return mux
}
