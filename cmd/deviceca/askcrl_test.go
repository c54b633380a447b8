package main

import (
	"bytes"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/deviceca/deviceca/client"
	"github.com/deviceca/deviceca/cmp"
)

// askCRL asks over CMP for the CRL that a device's certificate names, or, with OLD and
// CERT, for the complete one of that certificate's issuer, if it is newer than the file OLD
// (- is any): askcrl URL DIR OUT [OLD CERT]. OUT is empty if there is nothing newer.
func askCRL(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 && len(args) != 5 {
		ts.Fatalf("usage: askcrl URL DIR OUT [OLD CERT]")
	}
	ts.Check(askForCRL(ts, args[0], args[1], args[2], args[3:]))
}

func askForCRL(ts *testscript.TestScript, url, dir, out string, newer []string) error {
	certs, err := client.ReadCertificates(ts.MkAbs(dir + "/" + client.CertFile))
	if err != nil {
		return err
	}
	key, err := client.ParseKey([]byte(ts.ReadFile(dir + "/" + client.KeyFile)))
	if err != nil {
		return err
	}
	question := cmp.CRLStatus{FullName: []cmp.GeneralName{cmp.URIName(certs[0].CRLDistributionPoints[0])}}
	if len(newer) > 0 {
		issued, err := client.ReadCertificates(ts.MkAbs(newer[1]))
		if err != nil {
			return err
		}
		question = cmp.CRLStatus{Issuer: []cmp.GeneralName{cmp.DirectoryName(issued[0].RawIssuer)}}
		if newer[0] != "-" {
			list, err := x509.ParseRevocationList([]byte(ts.ReadFile(newer[0])))
			if err != nil {
				return err
			}
			question.ThisUpdate.At = list.ThisUpdate
		}
	}
	info, err := cmp.CRLStatusList(question)
	if err != nil {
		return err
	}
	m := cmp.NewRequest(&cmp.General{Infos: cmp.Infos{info}}, cmp.HeaderOptions{Time: time.Now()})
	signer, err := cmp.NewSigner(key, certs[0], cmp.SignerOptions{})
	if err != nil {
		return err
	}
	if err := m.Protect(signer); err != nil {
		return err
	}
	resp, err := http.Post(url+"/.well-known/cmp/getcrls", "application/pkixcmp", bytes.NewReader(m.Raw()))
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	answer, err := cmp.Parse(body)
	if err != nil {
		return err
	}
	general, ok := answer.Body.(*cmp.General)
	if !ok {
		return fmt.Errorf("%s: %v", answer.Body.Type(), answer.Describe(ts.Stdout()))
	}
	crls, _, err := general.Infos.CRLs()
	if err != nil {
		return err
	}
	return os.WriteFile(ts.MkAbs(out), bytes.Join(crls, nil), 0o644)
}
