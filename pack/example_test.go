package pack_test

import (
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/deviceca/deviceca/pack"
)

func Example() {
	read := func(name string) []byte {
		data, err := os.ReadFile(filepath.Join("testdata", name))
		if err != nil {
			panic(err)
		}
		return data
	}
	issuer, err := x509.ParseCertificate(read("issuer.der"))
	if err != nil {
		panic(err)
	}
	floor := pack.Floor{Epoch: 1, Sequence: 1} // as persisted the last time
	p, err := pack.Verify(read("small.cbor"), pack.Options{Issuer: issuer, Floor: floor}, read("growth.cbor"))
	if err != nil {
		panic(err)
	}
	fmt.Println(p.Revoked(), "revoked, floor", p.Floor())

	serial, _ := hex.DecodeString("01" + "000000000005" + "000102030405060708090a0b")
	fmt.Println(p.Status(serial, time.Date(2026, 3, 2, 0, 0, 0, 0, time.UTC)))
	fmt.Println(p.Status(serial, time.Date(2026, 3, 10, 0, 0, 0, 0, time.UTC)))
	// Output:
	// 12 revoked, floor {1 2}
	// revoked <nil>
	// revoked pack: stale since 2026-03-08T02:00:00Z (46h0m0s); fetch a newer pack or delta
}
