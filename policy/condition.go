package policy

import (
	"fmt"
	"math"
	"regexp"
	"slices"
	"strings"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/cost"
	"cel.dev/cel-go/common/types"
	"go.yaml.in/yaml/v3"
)

const (
	// maxExpression bounds a condition's text, in characters.
	maxExpression = 2048
	// maxCost bounds a condition's work, in CEL cost units (about one step
	// each); a comparison of two names costs a handful.
	maxCost = 10_000

	// What the estimate assumes of a request. The limit at run time holds
	// also where a request is larger.
	assumedFact = 256 // characters of a text, items of a list
	assumedText = 64
)

// variables are what conditions may read, besides `evidence` and `now`. Each
// is one CEL variable with a dot in its name, so that a misspelt one is caught
// at load and a decision builds no maps.
var variables = func() map[string]*cel.Type {
	v := map[string]*cel.Type{
		"device.id": cel.StringType, "device.level": cel.StringType, "device.group": cel.StringType, "device.state": cel.StringType,
		"request.protocol": cel.StringType, "request.operation": cel.StringType, "request.requester": cel.StringType,
		"request.profile": cel.StringType, "request.key": cel.StringType,
		"verdict.any":              cel.IntType,
		"verdict.missing_required": cel.BoolType, "verdict.required_affirming": cel.BoolType,
	}
	for _, c := range claims {
		v["verdict."+c] = cel.IntType
	}
	return v
}()

// conclusions depend on `require`, so it cannot read them.
var conclusions = []string{"verdict.missing_required", "verdict.required_affirming"}

// dialect is the CEL of one place in the file.
type dialect struct {
	env   *cel.Env
	names []string // of all that may be read, sorted
}

type compiler struct{ require, when *dialect }

func newCompiler() (*compiler, error) {
	when, err := newDialect()
	if err != nil {
		return nil, err
	}
	require, err := newDialect(conclusions...)
	return &compiler{require, when}, err
}

func newDialect(without ...string) (*dialect, error) {
	d := &dialect{names: []string{"now", "evidence"}}
	opts := []cel.EnvOption{
		cel.ParserExpressionSizeLimit(maxExpression),
		cel.ParserRecursionLimit(50),
		cel.RegexProgramSizeLimit(1000),
		cel.ASTValidators(cel.ValidateDurationLiterals(), cel.ValidateTimestampLiterals(), cel.ValidateRegexLiterals(),
			cel.ValidateComprehensionNestingLimit(1)),
		cel.Variable("evidence", cel.MapType(cel.StringType, cel.DynType)),
		cel.Variable("now", cel.TimestampType),
	}
	for t := None; t <= Contraindicated; t++ {
		opts = append(opts, cel.Constant(t.String(), cel.IntType, types.Int(t)))
		d.names = append(d.names, t.String())
	}
	for name, t := range variables {
		if !slices.Contains(without, name) {
			opts = append(opts, cel.Variable(name, t))
			d.names = append(d.names, name)
		}
	}
	slices.Sort(d.names)
	env, err := cel.NewEnv(opts...)
	d.env = env
	return d, err
}

// condition is a compiled `require:` or `when:`.
type condition struct {
	text string
	prog cel.Program
	refs []string // what it reads, for the trace: "verdict.hardware", "evidence.ek_chain"
}

// eval is false with an error where the condition cannot be answered.
func (c *condition) eval(a cel.Activation) (bool, error) {
	out, _, err := c.prog.Eval(a)
	if err != nil {
		return false, err
	}
	b, ok := out.(types.Bool)
	if !ok {
		return false, fmt.Errorf("the answer is of type %s, not true or false", out.Type().TypeName())
	}
	return bool(b), nil
}

// constant says what the condition answers if it reads nothing to do so.
func (c *condition) constant() (answer, known bool) {
	answer, err := c.eval(cel.NoVars())
	return answer, err == nil
}

// condition reads and compiles a condition.
func (d *document) condition(v value, in *dialect) (string, *condition) {
	// `when: true` is a boolean in YAML.
	if !d.scalar(v, "a condition", "put it in quotes", "!!str", "!!bool") {
		return "", nil
	}
	text := strings.TrimSpace(v.node.Value)
	if n := len([]rune(text)); n > maxExpression {
		d.fault(v, "split it into several rules", "the condition has %d characters, more than %d", n, maxExpression)
		return text, nil
	}
	checked, issues := in.env.Compile(text)
	if issues.Err() != nil {
		for _, e := range issues.Errors() {
			d.celFault(v, in, text, e)
		}
		return text, nil
	}
	if t := checked.OutputType(); !t.IsExactType(cel.BoolType) && !t.IsExactType(cel.DynType) {
		d.fault(v, "compare it with something, like verdict.any >= WARNING", "the condition yields %s, not true or false", t)
		return text, nil
	}
	estimate, err := in.env.EstimateCost(checked, sizes{fact: assumedFact, text: assumedText})
	if err != nil || estimate.Max > maxCost {
		d.fault(v, "compare single facts; let the verifier go through lists", "the condition may cost %d units, more than %d", estimate.Max, maxCost)
		return text, nil
	}
	opts := []cel.ProgramOption{cel.EvalOptions(cel.OptOptimize)}
	// Counting costs time, and is needed only where the cost depends on what the request holds.
	if worst, err := in.env.EstimateCost(checked, sizes{fact: math.MaxUint64, text: math.MaxUint64}); err != nil || worst.Max > maxCost {
		opts = append(opts, cel.CostLimit(maxCost))
	}
	prog, err := in.env.Program(checked, opts...)
	if err != nil {
		d.fault(v, "simplify it", "the condition cannot be planned: %v", err)
		return text, nil
	}
	return text, &condition{text: text, prog: prog, refs: references(checked)}
}

var (
	undeclared = regexp.MustCompile(`^undeclared reference to '([^']+)'`)
	dotted     = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_.]*`)
)

// celFault places what CEL says at the right line of the file.
func (d *document) celFault(v value, in *dialect, text string, e *cel.Error) {
	line, column := max(e.Location.Line(), 1), max(e.Location.Column(), 0)
	at := *v.node
	switch {
	case v.node.Style&(yaml.LiteralStyle|yaml.FoldedStyle) != 0:
		at.Line, at.Column = v.node.Line+line, column+1
	case line == 1:
		at.Column += column
		if v.node.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle) != 0 {
			at.Column++
		}
	}
	v.node = &at
	message, hint := e.Message, "the language is CEL; what it may read is listed in docs/policy.md"
	if m := undeclared.FindStringSubmatch(message); m != nil {
		name := m[1]
		// CEL reports the root of "verdict.hardwear" only.
		if lines := strings.Split(text, "\n"); line <= len(lines) {
			if r := []rune(lines[line-1]); column < len(r) {
				if whole := dotted.FindString(string(r[column:])); strings.HasPrefix(whole, name+".") {
					name = whole
				}
			}
		}
		message, hint = fmt.Sprintf("unknown name %q", short(name)), didYouMean(name, in.names)
		if slices.Contains(conclusions, name) {
			message, hint = fmt.Sprintf("require cannot read %q, because that depends on require", name), "use it in `when`"
		}
	} else if strings.HasPrefix(message, "Syntax error") || strings.Contains(message, "no matching overload") {
		hint = "tiers compare with tiers (verdict.any >= WARNING), texts with quoted texts, spans with duration(\"5m\")"
	}
	d.fault(v, hint, "%s", message)
}

// references lists what a condition reads.
func references(checked *cel.Ast) []string {
	var refs []string
	known := checked.NativeRep().ReferenceMap()
	ast.PreOrderVisit(checked.NativeRep().Expr(), ast.NewExprVisitor(func(e ast.Expr) {
		name := ""
		if ref := known[e.ID()]; ref != nil && ref.Name != "" {
			name = ref.Name
		}
		if e.Kind() == ast.SelectKind {
			if s := e.AsSelect(); s.Operand().Kind() == ast.IdentKind && s.Operand().AsIdent() == "evidence" {
				name = "evidence." + s.FieldName()
			}
		}
		_, ok := variables[name]
		if (ok || name == "now" || strings.HasPrefix(name, "evidence.")) && !slices.Contains(refs, name) {
			refs = append(refs, name)
		}
	}))
	return refs
}

// sizes is what an estimate assumes of a request: at most so many characters
// of a text or items of a list.
type sizes struct{ fact, text uint64 }

// EstimateCallCost leaves the cost of functions to CEL.
func (sizes) EstimateCallCost(string, string, *cost.AstNode, []cost.AstNode) *cost.CallEstimate {
	return nil
}

// EstimateSize implements cost.Estimator.
func (s sizes) EstimateSize(n cost.AstNode) *cost.SizeEstimate {
	if n.Expr() != nil && n.Expr().Kind() == ast.LiteralKind {
		return nil
	}
	most, nested, path := s.fact, 0, n.Path()
	for _, p := range path {
		if strings.HasPrefix(p, "@") {
			nested++
		}
	}
	// CEL asks for the items of items of a fact as long as it gets an answer,
	// three ways at each of 32 depths. One depth is what a fact may have.
	if nested > 1 {
		return nil
	}
	if len(path) > 0 && path[0] != "evidence" {
		most = s.text
	}
	return &cost.SizeEstimate{Min: 0, Max: most}
}
