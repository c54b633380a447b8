// Package client is the device side of deviceca: it gets a certificate for a
// device, keeps it in a directory, and renews it before it lapses.
//
// Run does the one thing that is due (enrol, renew, or nothing) and returns a
// Result; Agent does so for ever and calls a hook when the certificate changed:
//
//	roots, err := client.ReadCertificates("roots.pem")
//	result, err := client.Run(ctx, client.Config{
//		Dir:        "/var/lib/device/tls",
//		Server:     "https://ca.example:8443",
//		Device:     "sensor-17",
//		Credential: &client.Credential{Reference: ref, Secret: secret},
//		Trust:      client.Trust{Roots: roots},
//	})
//
// The parts beneath are open as well. A Store keeps an Identity (key,
// certificate, chain) in files so that a crash never leaves a key without its
// certificate. An Enroller speaks one protocol; EST, ACME and CMP implement it: a Request
// holds a key, names and a proof of who asks, never a message of a protocol.
//
// Nothing is ever trusted by default: the first contact needs the CA's root, or
// its SHA-256 (Trust). What a server sends is bounded, parsed strictly, and checked
// against the key, the names and the trust anchors before a file is touched.
//
// The package prints nothing and needs neither cgo nor any server part of
// deviceca.
package client
