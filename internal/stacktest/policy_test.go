package stacktest

import (
	"net/http"
	"os"
	"strings"
	"testing"
	"time"
)

type policyShown struct{ Version, Source string }

func TestPolicyReload(t *testing.T) {
	t.Parallel()
	h := newHome(t)
	lamp := h.device(h.addDevice("lamp-1", "--uses", "20"))
	life := func(t *testing.T) time.Duration {
		t.Helper()
		cert, _ := lamp.mustEnroll(t, "lamp-1")
		return time.Until(cert.NotAfter).Round(time.Hour)
	}
	raw, err := os.ReadFile(h.path("policy.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	first := string(raw)
	const day = "validity: 24h\n    renew_at: 0.5\n    status_unknown: allow"
	hours := func(n string) string { return replace(t, first, day, strings.Replace(day, "24h", n, 1)) }
	version := func() string { return read[policyShown](h, "policy", "show").Version }
	if got := life(t); got != 24*time.Hour {
		t.Fatalf("a life of %s to begin with", got)
	}
	began := version()

	bad := map[string]string{
		"no YAML":               "{{{",
		"empty":                 "",
		"unknown field":         first + "\nnosuch: 1\n",
		"condition":             replace(t, first, "when: verdict.required_affirming", "when: verdict.nosuch"),
		"unknown CA":            replace(t, first, "issuer: quarantine", "issuer: nosuch"),
		"nothing that can lint": replace(t, first, "key_usage: [digitalSignature]", "key_usage: [keyCertSign]"),
	}
	for name, source := range bad {
		t.Run("SIGHUP, bad: "+name, func(t *testing.T) {
			seen := strings.Count(h.log.String(), "the policy was not reloaded")
			write(t, h.path("policy.yaml"), source)
			h.hup()
			eventually(t, 10*time.Second, "the log tells", func() bool { return strings.Count(h.log.String(), "the policy was not reloaded") > seen })
			if version() != began || life(t) != 24*time.Hour {
				t.Error("the bad policy is in force")
			}
		})
		t.Run("apply, bad: "+name, func(t *testing.T) {
			file := h.path("candidate.yaml")
			write(t, file, source)
			write(t, h.path("policy.yaml"), first)
			_, errs, err := h.try(nil, "policy", "apply", file, "--home", h.dir)
			if err == nil || len(errs) < 20 {
				t.Errorf("%v %q", err, errs)
			}
			kept, err := os.ReadFile(h.path("policy.yaml"))
			if err != nil || string(kept) != first || version() != began {
				t.Errorf("the bad policy replaced the good one: %v", err)
			}
		})
	}
	t.Run("SIGHUP, file gone", func(t *testing.T) {
		seen := strings.Count(h.log.String(), "the policy was not reloaded")
		rename(t, h.path("policy.yaml"), h.path("p"))
		h.hup()
		eventually(t, 10*time.Second, "the log tells", func() bool { return strings.Count(h.log.String(), "the policy was not reloaded") > seen })
		rename(t, h.path("p"), h.path("policy.yaml"))
	})
	t.Run("SIGHUP, good", func(t *testing.T) {
		write(t, h.path("policy.yaml"), hours("12h"))
		h.hup()
		eventually(t, 10*time.Second, "another policy", func() bool { return version() != began })
		if got := life(t); got != 12*time.Hour {
			t.Errorf("a life of %s", got)
		}
	})
	t.Run("apply, good", func(t *testing.T) {
		write(t, h.path("candidate.yaml"), hours("6h"))
		h.run("policy", "apply", h.path("candidate.yaml"), "--home", h.dir)
		if got := life(t); got != 6*time.Hour {
			t.Errorf("a life of %s", got)
		}
		h.kill()
		h.start()
		if got := life(t); got != 6*time.Hour {
			t.Errorf("after a restart a life of %s", got)
		}
	})
	t.Run("the level is gone", func(t *testing.T) {
		write(t, h.path("candidate.yaml"), replace(t, first, "\n  software: ", "\n  soft: "))
		h.run("policy", "apply", h.path("candidate.yaml"), "--home", h.dir)
		before := h.ledger()
		a, err := lamp.enroll(newCSR(t, newKey(t), "lamp-1"))
		refused(t, h, before, a, err, http.StatusForbidden, "software")
	})
	h.auditHolds()
	t.Run("a server does not start with a bad policy", func(t *testing.T) {
		h.stop()
		write(t, h.path("policy.yaml"), bad["unknown field"])
		_, errs, err := h.try(nil, "serve", "--home", h.dir)
		if err == nil || !strings.Contains(errs, "policy.yaml:") || !strings.Contains(errs, "nosuch") {
			t.Errorf("%v\n%s", err, errs)
		}
	})
}
