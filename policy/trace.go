package policy

import (
	"fmt"
	"strings"
	"time"

	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
)

// tracer gathers the steps of a decision; a nil one does nothing.
type tracer struct{ steps []Step }

// pass notes a built-in check that let the request through. The rule comes in
// parts, so that nothing is put together for a nil tracer.
func (t *tracer) pass(note string, rule ...string) {
	if t != nil {
		t.steps = append(t.steps, Step{Rule: strings.Join(rule, ""), Matched: true, Note: note})
	}
}

// fail notes the built-in check that refused the request.
func (t *tracer) fail(rule, note string) {
	if t != nil {
		t.steps = append(t.steps, Step{Rule: rule, Note: note})
	}
}

func (t *tracer) require(c *condition, e *evaluation, met bool, err error) {
	t.condition("levels."+e.level.Name+".require", c, e, met, err, "cannot be answered, so it is not met")
}

func (t *tracer) rule(r *rule, e *evaluation, matched bool, err error) {
	if t == nil {
		return
	}
	note := map[Outcome]string{Issue: "cannot be answered, so it grants nothing", Restricted: "cannot be answered, so the request is denied"}[r.Then]
	if note == "" {
		note = "cannot be answered, so it takes effect, without revoking"
	}
	t.condition(r.Name, r.when, e, matched, err, note)
}

func (t *tracer) condition(name string, c *condition, e *evaluation, matched bool, err error, note string) {
	if t == nil {
		return
	}
	s := Step{Rule: name, Expr: c.text, Matched: matched, Values: make(map[string]string, len(c.refs))}
	for _, ref := range c.refs {
		s.Values[ref] = e.show(ref)
	}
	if err != nil {
		s.Note = fmt.Sprintf("%s: %v", note, err)
	}
	t.steps = append(t.steps, s)
}

// show writes what a condition read.
func (e *evaluation) show(ref string) string {
	if name, ok := strings.CutPrefix(ref, "evidence."); ok {
		fact, ok := e.evidence()[name]
		if !ok {
			return "(absent)"
		}
		return short(showFact(fact))
	}
	v, _ := e.ResolveName(ref)
	if tier, ok := v.(types.Int); ok {
		return Tier(tier).String()
	}
	return short(showFact(v))
}

func showFact(v any) string {
	switch v := v.(type) {
	case *types.Err:
		return "(" + v.Error() + ")"
	case types.Timestamp:
		return v.Format(time.RFC3339)
	case ref.Val:
		return fmt.Sprint(v.Value())
	case []byte:
		return fmt.Sprintf("%x", v)
	}
	return fmt.Sprint(v)
}
