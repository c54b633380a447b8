package policy

import (
	"encoding/json"
	"time"
	"unicode/utf8"
)

// AppendJSON appends what json.Marshal would give, octet for octet, at a tenth of
// the cost: the ledger keeps an Input and a Decision with each certificate.
func (in Input) AppendJSON(b []byte) ([]byte, error) {
	b, err := AppendTime(append(b, `{"now":`...), in.Now)
	if err != nil {
		return nil, err
	}
	b = AppendString(append(b, `,"protocol":`...), in.Protocol)
	b = AppendString(append(b, `,"operation":`...), in.Operation)
	b = AppendString(append(b, `,"requester":`...), string(in.Requester))
	b = appendField(b, "profile", in.Profile)
	b = AppendString(append(b, `,"device":{"id":`...), in.Device.ID)
	b = AppendString(append(b, `,"level":`...), in.Device.Level)
	b = appendField(b, "group", in.Device.Group)
	b = appendField(b, "state", in.Device.State)
	b = AppendString(append(b, `},"key":`...), in.Key)
	if len(in.Names) > 0 {
		b = append(b, `,"names":`...)
		for i, n := range in.Names {
			b = AppendString(append(append(b, comma(i)), `{"form":`...), n.Form)
			b = append(AppendString(append(b, `,"value":`...), n.Value), '}')
		}
		b = append(b, ']')
	}
	if len(in.Evidence) > 0 {
		evidence, err := json.Marshal(in.Evidence) // facts may be anything
		if err != nil {
			return nil, err
		}
		b = append(append(b, `,"evidence":`...), evidence...)
	}
	return append(appendList(b, "verifiable", in.Verifiable), '}'), nil
}

// AppendJSON appends what json.Marshal would give.
func (d Decision) AppendJSON(b []byte) []byte {
	b = AppendString(append(b, `{"outcome":`...), string(d.Outcome))
	b = AppendString(append(b, `,"rule":`...), d.Rule)
	b = appendField(b, "profile", d.Profile)
	b = AppendString(append(b, `,"level":`...), d.Level)
	if d.Validity != 0 {
		b = AppendString(append(b, `,"validity":`...), d.Validity.String())
	}
	if d.Revoke {
		b = append(b, `,"revoke":true`...)
	}
	b = appendList(b, "reasons", d.Reasons)
	return append(AppendString(append(b, `,"policy":`...), d.Version), '}')
}

// appendField appends a member that is left out when it is empty.
func appendField(b []byte, name, value string) []byte {
	if value == "" {
		return b
	}
	return AppendString(append(append(append(b, `,"`...), name...), `":`...), value)
}

func appendList(b []byte, name string, values []string) []byte {
	if len(values) == 0 {
		return b
	}
	b = append(append(append(b, `,"`...), name...), `":`...)
	for i, v := range values {
		b = AppendString(append(b, comma(i)), v)
	}
	return append(b, ']')
}

// comma is what stands before item i of a list.
func comma(i int) byte {
	if i == 0 {
		return '['
	}
	return ','
}

// AppendString appends a string as json.Marshal would.
func AppendString(b []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c >= utf8.RuneSelf || c == '"' || c == '\\' || c == '<' || c == '>' || c == '&' {
			escaped, _ := json.Marshal(s) // a string always can be
			return append(b, escaped...)
		}
	}
	return append(append(append(b, '"'), s...), '"')
}

// AppendTime appends a time as json.Marshal would; years beyond 9999 are an error.
func AppendTime(b []byte, t time.Time) ([]byte, error) {
	b, err := t.AppendText(append(b, '"'))
	return append(b, '"'), err
}
