package policy

import (
	"fmt"
	"slices"
	"strings"
)

// Check reports a hypothetical Input that no request could be: a decision on it would blame a rule that is not
// at fault.
func (in *Input) Check() error {
	for _, f := range []struct {
		name, value string
		known       []string
	}{
		{"protocol", in.Protocol, protocols},
		{"requester", string(in.Requester), requesters},
		{"operation", in.Operation, []string{"enroll", "renew"}},
	} {
		if !slices.Contains(f.known, f.value) {
			return fmt.Errorf("there is no %s %q: use %s", f.name, short(f.value), strings.Join(f.known, ", "))
		}
	}
	return nil
}
