package main

import (
	"context"
	"log/slog"
	"net/netip"
	"strings"
	"sync/atomic"
	"time"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/internal/limit"
)

// Lines about handshakes that failed: of one address, or IPv6 /64, and of all, per minute.
const (
	handshakeLines    = 6
	allHandshakeLines = 60
	maxHandshakeText  = 300 // octets
)

// handshakeLog reads what net/http says of a listener, and makes of a TLS handshake that failed
// a line with the reason and what to do, and a count. crypto/tls has no other way to tell: it
// parses the client's certificates before anybody is asked. Everything else stays at debug.
type handshakeLog struct {
	log   *slog.Logger
	count func(reason string)
	lines *limit.Buckets
	left  atomic.Int64
}

func newHandshakeLog(log *slog.Logger, count func(reason string)) *handshakeLog {
	return &handshakeLog{log: log, count: count, lines: limit.NewBuckets(10_000)}
}

const handshakePrefix = "http: TLS handshake error from "

// Write is part of io.Writer, for a log.Logger without flags: each call is a line.
func (l *handshakeLog) Write(line []byte) (int, error) {
	text := strings.TrimSuffix(string(line[:min(len(line), 4096)]), "\n")
	rest, failed := strings.CutPrefix(text, handshakePrefix)
	address, fault, ok := strings.Cut(rest, ": ")
	if !failed || !ok {
		l.log.Debug(text)
		return len(line), nil
	}
	kind := classifyHandshake(fault)
	l.count(kind.reason)
	level := slog.LevelDebug
	if kind.hint != "" {
		level = slog.LevelWarn
	}
	if level == slog.LevelWarn && !l.mayLog(address) {
		l.left.Add(1)
		return len(line), nil
	}
	if !l.log.Enabled(context.Background(), level) {
		return len(line), nil
	}
	attrs := []slog.Attr{slog.String("address", address), slog.String("reason", kind.reason), slog.String("err", fault[:min(len(fault), maxHandshakeText)])}
	if level == slog.LevelWarn {
		attrs = append(attrs, slog.String("hint", kind.hint))
		if n := l.left.Swap(0); n > 0 {
			attrs = append(attrs, slog.Int64("left_out", n))
		}
	}
	l.log.LogAttrs(context.Background(), level, "a TLS handshake failed", attrs...)
	return len(line), nil
}

func (l *handshakeLog) mayLog(address string) bool {
	network := address
	if peer, err := netip.ParseAddrPort(address); err == nil {
		network = ca.Network(peer.Addr())
	}
	now := time.Now()
	return l.lines.Take(network, limit.PerMinute(handshakeLines), now) == 0 && l.lines.Take("", limit.PerMinute(allHandshakeLines), now) == 0
}

// handshakeKind is a way in which handshakes fail, by a part of what crypto/tls or net/http says of it.
type handshakeKind struct {
	part   string
	reason string // a label of the metric
	hint   string // what to do; "" is nobody's fault here, and not worth a line
}

const (
	hintCertificate = "Go's TLS cannot read a certificate that the client sent, so that no credential is looked at: let such devices call the server by a name in tls.no_client_cert_names, or at listen.https_nocert, with a credential, or come through a proxy (docs/onboarding.md)"
	hintParameters  = "compare what the client offers with tls.min_version and docs/operations.md, TLS"
)

var handshakeKinds = []handshakeKind{
	{"failed to parse client certificate", "client_certificate", hintCertificate},
	{"client sent certificate containing RSA key", "client_certificate", hintCertificate},
	{"client certificate contains an unsupported public key", "client_certificate", hintCertificate},
	{"the client's chain has", "client_chain", "send the certificates that lead to the manufacturer's anchor, and no others"},
	{"invalid signature by the client certificate", "client_signature", "the client has not the key of the certificate that it sends"},
	{"client certificate used with invalid signature algorithm", "client_signature", "the client signs with an algorithm that was not offered"},
	{"client offered only unsupported versions", "parameters", hintParameters},
	{"no cipher suite supported by both", "parameters", hintParameters},
	{"no key exchanges supported by both", "parameters", hintParameters},
	{"no ECDHE curve supported by both", "parameters", hintParameters},
	{"peer doesn't support any of the certificate's signature algorithms", "parameters", hintParameters},
	{"client offered TLS version older", "parameters", hintParameters},
	{"client requested unsupported application protocols", "parameters", hintParameters},
	{"failed to sign handshake", "server", "a fault of this server's own certificate: see deviceca status, or start it anew"},
	{"tls: internal error", "server", "a fault of this server's own certificate: see deviceca status, or start it anew"},
	{"remote error", "alert", "the client refused the server, and its own log says why; unknown CA: it does not trust root.crt; bad certificate: it may call the server by a name that is not in tls.names, or its clock is wrong"},
	{"an HTTP request to an HTTPS server", "not_tls", ""},
	{"does not look like a TLS handshake", "not_tls", ""},
	{"unsupported SSLv2 handshake", "not_tls", ""},
	{"EOF", "gone", ""},
	{"timeout", "gone", ""},
	{"deadline exceeded", "gone", ""},
	{"reset by peer", "gone", ""},
	{"broken pipe", "gone", ""},
	{"use of closed network connection", "gone", ""},
}

func classifyHandshake(fault string) handshakeKind {
	for _, k := range handshakeKinds {
		if strings.Contains(fault, k.part) {
			return k
		}
	}
	return handshakeKind{reason: "other"}
}
