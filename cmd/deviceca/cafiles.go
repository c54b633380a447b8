package main

import (
	"bytes"
	"errors"
	"os"
)

// caRoles are the roles whose certificates relying parties, or remediation services, hold in files.
var caRoles = []string{"root", "quarantine-root", "issuing", "quarantine"}

// writeCAFiles writes the home's root.crt, issuing.crt and so on: the certificates of a role's CAs that are live, the one that
// issues first. A relying party that holds the file verifies certificates of every generation.
func (s *system) writeCAFiles() error {
	var errs []error
	for _, role := range caRoles {
		if live := s.service.Live(role); len(live) > 0 {
			errs = append(errs, writeChanged(s.home.path(role+".crt"), pemCerts(live)))
		}
	}
	return errors.Join(errs...)
}

func pemCerts(certs [][]byte) []byte {
	var b bytes.Buffer
	for _, der := range certs {
		b.Write(pemCert(der))
	}
	return b.Bytes()
}

// writeChanged writes a file that does not hold data already.
func writeChanged(path string, data []byte) error {
	if old, err := os.ReadFile(path); err == nil && bytes.Equal(old, data) {
		return nil
	}
	return writeFile(path, data, 0o644)
}

// writeRootLists writes root.crl and quarantine-root.crl: the lists of a role's roots, the newest first.
func (v *vault) writeRootLists(lists map[string][]byte) error {
	for _, role := range []string{"root", "quarantine-root"} {
		var b bytes.Buffer
		for generation := len(v.roots); generation > 0; generation-- {
			for _, root := range v.roots {
				if list := lists[root.Name]; root.Role == role && root.Generation == generation {
					b.Write(pemCRL(list))
				}
			}
		}
		if b.Len() == 0 {
			continue
		}
		if err := writeChanged(v.home.path(role+".crl"), b.Bytes()); err != nil {
			return err
		}
	}
	return nil
}
