package publisher

// Newest is the full pack of an issuer that was published last; nil if there is none yet.
func (p *Publisher) Newest(issuer string) []byte {
	is := p.issuers[issuer]
	if is == nil {
		return nil
	}
	f := is.newest()
	if f == nil {
		return nil
	}
	return f.bytes
}
