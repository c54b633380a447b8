package main

// Home is the home directory of a CA.
type Home string

// parts is the composition root's place until it is written.
func parts() house { return house{} }
