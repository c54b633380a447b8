package admin

import (
	"io"
	"net/http"
	"strconv"
	"sync"
)

// handlerTransport calls a handler as if over the socket, streaming both ways.
type handlerTransport struct {
	handler http.Handler
	uid     int
}

// RoundTrip implements http.RoundTripper: it returns with the handler's first
// byte or status, and the body is what the handler writes from then on.
func (t *handlerTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	if err := req.Context().Err(); err != nil { // else a quick handler might answer all the same
		if req.Body != nil {
			req.Body.Close()
		}
		return nil, err
	}
	in := req.Clone(req.Context())
	in.RemoteAddr = uidPrefix + strconv.Itoa(t.uid)
	in.RequestURI = req.URL.RequestURI()
	if in.Body == nil {
		in.Body = http.NoBody
	}
	body, pipe := io.Pipe()
	w := &pipeWriter{header: http.Header{}, pipe: pipe, started: make(chan struct{})}
	go func() {
		defer in.Body.Close()
		defer func() {
			if p := recover(); p != nil && p != http.ErrAbortHandler {
				panic(p)
			} else if p != nil {
				w.WriteHeader(http.StatusInternalServerError)
				pipe.CloseWithError(io.ErrUnexpectedEOF)
			}
		}()
		t.handler.ServeHTTP(w, in)
		w.WriteHeader(http.StatusOK) // for a handler that wrote nothing
		pipe.Close()
	}()
	select {
	case <-w.started:
	case <-req.Context().Done():
		pipe.CloseWithError(req.Context().Err())
		return nil, req.Context().Err()
	}
	return &http.Response{
		Status: http.StatusText(w.status), StatusCode: w.status,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: w.sent, Body: body, ContentLength: -1, Request: req,
	}, nil
}

// pipeWriter is the response as the handler sees it.
type pipeWriter struct {
	header, sent http.Header
	status       int
	pipe         *io.PipeWriter
	once         sync.Once
	started      chan struct{}
}

func (w *pipeWriter) Header() http.Header { return w.header }

func (w *pipeWriter) WriteHeader(status int) {
	w.once.Do(func() {
		w.status, w.sent = status, w.header.Clone()
		close(w.started)
	})
}

func (w *pipeWriter) Write(b []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	return w.pipe.Write(b)
}

// FlushError and EnableFullDuplex are for http.ResponseController: nothing is
// buffered here, and both directions always flow.
func (w *pipeWriter) FlushError() error       { w.WriteHeader(http.StatusOK); return nil }
func (w *pipeWriter) EnableFullDuplex() error { return nil }
