package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/deviceca/deviceca/internal/webhook"
)

// receive is a webhook's receiver that writes a line "ID KIND DEVICE REQUEST" for
// each event to a file, and the bodies that have a head to FILE.bodies: receive ADDR
// SECRETFILE FILE. It takes each post from the second on; the first it answers with 500.
func receive(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: receive ADDR SECRETFILE FILE")
	}
	l, err := net.Listen("tcp", args[0])
	ts.Check(err)
	secret, path := strings.TrimSpace(ts.ReadFile(args[1])), ts.MkAbs(args[2])
	var mu sync.Mutex
	posts := 0
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		body, err := io.ReadAll(r.Body)
		if err == nil {
			err = webhook.Verify(secret, r.Header, body, time.Now(), time.Minute)
		}
		var post struct {
			Events []webhook.Event
			Head   json.RawMessage
		}
		if err == nil {
			err = json.Unmarshal(body, &post)
		}
		file, openErr := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if openErr != nil {
			panic(openErr)
		}
		defer file.Close()
		if err != nil {
			fmt.Fprintf(file, "FORGED %v\n", err)
		}
		if posts++; posts == 1 {
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		if post.Head != nil {
			bodies, err := os.OpenFile(path+".bodies", os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
			if err != nil {
				panic(err)
			}
			bodies.Write(append(body, '\n'))
			bodies.Close()
		}
		for _, e := range post.Events {
			fmt.Fprintf(file, "%d %s %s %d\n", e.ID, e.Kind, e.Device, e.Request)
		}
	})}
	go srv.Serve(l)
	ts.Defer(func() { srv.Close() })
}

// until repeats a command until it succeeds and its output has a text: until TEXT COMMAND ARGS…
func until(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: until TEXT COMMAND ARGS…")
	}
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		err := ts.Exec(args[1], args[2:]...)
		if err == nil && strings.Contains(ts.ReadFile("stdout"), args[0]) {
			return
		}
		if time.Now().After(end) {
			ts.Fatalf("%q does not come (%v)", args[0], err)
		}
	}
}
