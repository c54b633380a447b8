package policy

import "crypto"

// Placeholder until the real one is merged.
type Policy struct{}

func Parse(filename string, data []byte) (*Policy, error) { panic("soon") }
func Default() []byte                                     { panic("soon") }
func KeyAlgorithm(pub crypto.PublicKey) (string, error)   { panic("soon") }
func (p *Policy) Version() string                         { panic("soon") }
func (p *Policy) Source() []byte                          { panic("soon") }
func (p *Policy) Decide(in Input) Decision                { panic("soon") }
func (p *Policy) Profile(name string) (Profile, bool)     { panic("soon") }
func (p *Policy) Profiles() []string                      { panic("soon") }
func (p *Policy) Level(name string) (Level, bool)         { panic("soon") }
func (p *Policy) Levels() []string                        { panic("soon") }
