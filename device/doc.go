// Package device holds what the CA knows of devices before it looks at any
// message: their identifiers, their states, and the enrolment credentials that
// let them in. It has no storage and no protocol of its own; package ca
// applies it, internal/store keeps it.
package device
