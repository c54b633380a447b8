package server

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/cmp"
)

// Every kind of error has its bit, and says nothing of our insides.
func TestFailInfos(t *testing.T) {
	for _, kind := range ca.Kinds() {
		bit, ok := failInfos[kind]
		if !ok {
			t.Errorf("%s is not mapped", kind)
		}
		err := fmt.Errorf("around it: %w", &ca.Error{Kind: kind, Reason: "the reason", Rule: "a.rule", Err: errors.New("the inside")})
		got := status(err, false)
		says := strings.Join(got.Text, " ")
		if got.Status != cmp.Rejection || got.FailInfo != bit || strings.Contains(says, "inside") {
			t.Errorf("%s: %v", kind, got)
		}
		if internal := kind == ca.Internal; internal == strings.Contains(says, "the reason (rule a.rule)") {
			t.Errorf("%s says %q", kind, says)
		}
		want := bit
		if kind == ca.Unauthenticated {
			want = cmp.SignerNotTrusted
		}
		if got := status(err, true).FailInfo; got != want {
			t.Errorf("%s, signed: %s, want %s", kind, got, want)
		}
	}
	for name, c := range map[string]struct {
		err  error
		want cmp.FailInfo
	}{
		"no error of ours":   {errors.New("a secret path"), cmp.SystemFailure},
		"of the CMP library": {fmt.Errorf("x: %w", &cmp.Error{Info: cmp.BadPOP, Reason: "why"}), cmp.BadPOP},
	} {
		if got := status(c.err, true); got.FailInfo != c.want || strings.Contains(got.String(), "secret path") {
			t.Errorf("%s: %v", name, got)
		}
	}
	if got := status(ca.Errorf(ca.Denied, "%s", strings.Repeat("a\nb", 10_000)), false).Text[0]; len(got) > maxText || strings.Contains(got, "\n") {
		t.Errorf("%d octets of text", len(got))
	}
}
