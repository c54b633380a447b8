package est

import (
	"crypto/subtle"
	"crypto/tls"
	"encoding/base64"

	"github.com/deviceca/deviceca/ca"
)

// exporterLabel and exporterSize are those of tls-exporter (RFC 9266 §2).
const (
	exporterLabel = "EXPORTER-Channel-Binding"
	exporterSize  = 32
)

// bindings are the values that a request over this connection may be bound by, in
// the base64 that goes into challengePassword:
//
//	tls-unique     RFC 7030 §3.5, RFC 5929 §3: TLS 1.2; resumed, only with extended master secret
//	tls-exporter   RFC 9266: TLS 1.3, and TLS 1.2 with extended master secret
func bindings(state *tls.ConnectionState) []string {
	var values []string
	if state.Version == tls.VersionTLS12 && len(state.TLSUnique) > 0 {
		values = append(values, base64.StdEncoding.EncodeToString(state.TLSUnique))
	}
	// An empty context is not the same as none before TLS 1.3.
	if exported, err := state.ExportKeyingMaterial(exporterLabel, []byte{}, exporterSize); err == nil {
		values = append(values, base64.StdEncoding.EncodeToString(exported))
	}
	return values
}

// checkBinding links who asks with who holds the key (RFC 7030 §3.5): a
// challengePassword that is there must be this connection's binding.
func checkBinding(state *tls.ConnectionState, challenge string, demanded bool) error {
	if challenge == "" {
		if demanded {
			return ca.Errorf(ca.Denied, "linking of identity and proof of possession is required (RFC 7030 §3.5): "+
				"put the base64 of the TLS connection's tls-exporter (RFC 9266), or with TLS 1.2 tls-unique, into challengePassword")
		}
		return nil
	}
	known := bindings(state)
	for _, value := range known {
		if subtle.ConstantTimeCompare([]byte(value), []byte(challenge)) == 1 {
			return nil
		}
	}
	if len(known) == 0 {
		return ca.Errorf(ca.BadPOP, "challengePassword cannot be checked: a TLS 1.2 connection resumed without extended master secret has no binding; make a full handshake")
	}
	return ca.Errorf(ca.BadPOP, "challengePassword is not the channel binding of this TLS connection (RFC 7030 §3.5): make a new request for this connection, or leave the attribute out")
}
