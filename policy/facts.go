package policy

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"time"
)

// JSON has no durations, instants or bytes, and one kind of number. A stored
// Input must decide as the live one did, so facts of those types are written
// as a map of one entry whose key names the type.
const (
	factDuration = "$duration"
	factTime     = "$time"
	factBytes    = "$bytes"
	factDouble   = "$double"
	factUint     = "$uint"
)

// MarshalJSON writes evidence so that UnmarshalJSON gives facts of the same
// CEL types back.
func (e Evidence) MarshalJSON() ([]byte, error) {
	type plain Evidence
	p := plain(e)
	if e.Facts != nil {
		p.Facts = encodeFact(e.Facts).(map[string]any)
	}
	return json.Marshal(p)
}

// UnmarshalJSON reads what MarshalJSON wrote.
func (e *Evidence) UnmarshalJSON(data []byte) error {
	type plain Evidence
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	var p plain
	if err := dec.Decode(&p); err != nil {
		return err
	}
	for name, v := range p.Facts {
		fact, err := decodeFact(v)
		if err != nil {
			return fmt.Errorf("policy: evidence fact %q: %w", name, err)
		}
		p.Facts[name] = fact
	}
	*e = Evidence(p)
	return nil
}

func encodeFact(v any) any {
	switch v := v.(type) {
	case time.Duration:
		return map[string]string{factDuration: v.String()}
	case time.Time:
		return map[string]string{factTime: v.Format(time.RFC3339Nano)}
	case []byte:
		return map[string]string{factBytes: base64.StdEncoding.EncodeToString(v)}
	case float32:
		return encodeFact(float64(v))
	case float64:
		if v == math.Trunc(v) || math.IsNaN(v) {
			return map[string]string{factDouble: strconv.FormatFloat(v, 'g', -1, 64)}
		}
	case uint, uint8, uint16, uint32, uint64:
		return map[string]string{factUint: fmt.Sprint(v)}
	case map[string]any:
		m := make(map[string]any, len(v))
		for k, item := range v {
			m[k] = encodeFact(item)
		}
		return m
	case []any:
		l := make([]any, len(v))
		for i, item := range v {
			l[i] = encodeFact(item)
		}
		return l
	}
	return v
}

func decodeFact(v any) (any, error) {
	var err error
	switch v := v.(type) {
	case json.Number:
		if i, err := v.Int64(); err == nil {
			return i, nil
		}
		return v.Float64()
	case []any:
		for i := range v {
			if v[i], err = decodeFact(v[i]); err != nil {
				return nil, err
			}
		}
	case map[string]any:
		if len(v) == 1 {
			for tag, text := range v {
				if s, ok := text.(string); ok {
					switch tag {
					case factDuration:
						return time.ParseDuration(s)
					case factTime:
						return time.Parse(time.RFC3339Nano, s)
					case factBytes:
						return base64.StdEncoding.DecodeString(s)
					case factDouble:
						return strconv.ParseFloat(s, 64)
					case factUint:
						return strconv.ParseUint(s, 10, 64)
					}
				}
			}
		}
		for k := range v {
			if v[k], err = decodeFact(v[k]); err != nil {
				return nil, err
			}
		}
	}
	return v, nil
}
