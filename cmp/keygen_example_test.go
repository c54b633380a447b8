package cmp_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"log"
	"math/big"
	"time"

	"github.com/deviceca/deviceca/cmp"
)

// A device without a good source of random numbers has the CA make its key (RFC
// 9483 §4.1.6). It has a secret in common with the CA, which protects the messages
// and encrypts the key.
func ExampleKGA() {
	secret := []byte("a secret of at least 128 bits of entropy")

	// The device asks without a public key, and without a proof of possession.
	request := &cmp.CertReqMsg{Template: cmp.CertTemplate{Subject: must(cmp.CommonName("sensor-3").Directory())}}
	ir := cmp.NewRequest(&cmp.CertRequests{Of: cmp.IR, Requests: []*cmp.CertReqMsg{request}}, cmp.HeaderOptions{Time: time.Now()})

	// The CA makes it, has it certified, and seals it.
	_, asked := request.Template.KeyGeneration()
	kga, roots := keyAuthority()
	made, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		log.Fatal(err)
	}
	sealed, err := kga.SealKey(made, cmp.ToSecret(secret), time.Now())
	if err != nil {
		log.Fatal(err)
	}
	pair := &cmp.KeyPair{Certificate: []byte{0x30, 0}, PrivateKey: sealed} // and the certificate
	ip := cmp.Reply(ir, &cmp.CertResponses{Of: cmp.IP, Responses: []cmp.CertResponse{{KeyPair: pair}}}, time.Now())

	// The device opens it, and sees who has made it.
	got := ip.Body.(*cmp.CertResponses).Responses[0].KeyPair.PrivateKey
	key, err := got.OpenKey(cmp.WithSecret(secret), cmp.TrustKGA(roots, time.Now))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("pvno", ir.Header.Version, asked, made.Public().(*ecdsa.PublicKey).Equal(key.Public()))
	// Output: pvno 3 true true
}

// keyAuthority is a root, and below it who may make keys.
func keyAuthority() (*cmp.KGA, *x509.CertPool) {
	certify := func(c, parent *x509.Certificate, pub crypto.PublicKey, by crypto.Signer) *x509.Certificate {
		c.SerialNumber, c.NotBefore, c.NotAfter = big.NewInt(1), time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
		raw, err := x509.CreateCertificate(rand.Reader, c, parent, pub, by)
		if err != nil {
			log.Fatal(err)
		}
		cert, err := x509.ParseCertificate(raw)
		if err != nil {
			log.Fatal(err)
		}
		return cert
	}
	rootKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		log.Fatal(err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		log.Fatal(err)
	}
	template := &x509.Certificate{Subject: pkix.Name{CommonName: "Root"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	root := certify(template, template, rootKey.Public(), rootKey)
	cert := certify(&x509.Certificate{Subject: pkix.Name{CommonName: "KGA"}, SubjectKeyId: []byte("kga"), KeyUsage: x509.KeyUsageDigitalSignature,
		UnknownExtKeyUsage: []asn1.ObjectIdentifier{{1, 3, 6, 1, 5, 5, 7, 3, 32}}}, root, key.Public(), rootKey)
	kga, err := cmp.NewKGA(key, cert)
	if err != nil {
		log.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(root)
	return kga, roots
}

// Possession of a key that does not sign is proven by decrypting a challenge (RFC
// 9810 §5.2.8.3.3).
func ExampleChallenge() {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		log.Fatal(err)
	}
	// The CA, with the public key of the request; it keeps the challenge.
	to, err := cmp.ToKey(key.Public(), 0)
	if err != nil {
		log.Fatal(err)
	}
	challenge, err := cmp.NewChallenge(cmp.CommonName("CA"), to)
	if err != nil {
		log.Fatal(err)
	}
	// The device, with the sender of the popdecc that brought it.
	with, err := cmp.WithKey(key)
	if err != nil {
		log.Fatal(err)
	}
	number, err := challenge.Open(with, cmp.CommonName("CA"))
	if err != nil {
		log.Fatal(err)
	}
	// The CA again, with the popdecr.
	fmt.Println(challenge.Answered(number), challenge.Answered(big.NewInt(42)))
	// Output: true false
}
