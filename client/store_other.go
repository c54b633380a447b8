//go:build !unix

package client

import "os"

// There is no lock here: start one writer per directory.
func lockHandle(*os.File) error { return nil }

// A directory cannot be synced here; a rename is as durable as the system makes it.
func syncDir(string) error { return nil }
