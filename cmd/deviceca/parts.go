package main

// parts is the composition root's place until it is written.
func parts() house { return house{} }
