//go:build !unix

package client

import (
	"io/fs"
	"os"
)

// There is no lock here: start one writer per directory.
func lockHandle(*os.File) error { return nil }

// A directory cannot be synced here; a rename is as durable as the system makes it.
func (d *directory) sync(string) error { return nil }

// Owners and rights are not numbers here: the directory's access list is its owner's to set.
func foreignOwner(fs.FileInfo) (user uint32, foreign bool) { return 0, false }

func rights(fs.FileInfo) fs.FileMode { return 0 }

// To make symbolic links takes a privilege here.
func linkless(err error) bool { return err != nil }
