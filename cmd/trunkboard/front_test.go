// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

func TestHTTPSAndTURNShareAPort(t *testing.T) {
	leavesNothing(t)
	ca, err := selfSigned(t.TempDir(), []string{"127.0.0.1"}, testLog(t))
	if err != nil {
		t.Fatal(err)
	}
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	relayed := make(chan net.Conn, 2)
	f := newFront(tcp, ca.GetCertificate, func(c net.Conn) { relayed <- c }, nil, testLog(t))
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "web "+r.Proto) })}
	served := make(chan error)
	go func() { served <- server.Serve(f) }()

	dial := func(protocols ...string) *tls.Conn {
		t.Helper()
		c, err := tls.Dial("tcp", tcp.Addr().String(), &tls.Config{InsecureSkipVerify: true, NextProtos: protocols})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		c.SetDeadline(time.Now().Add(10 * time.Second))
		return c
	}
	for _, protocols := range [][]string{{"http/1.1"}, nil} { // with ALPN and without
		c := dial(protocols...)
		io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
		if b, err := io.ReadAll(c); err != nil || !strings.Contains(string(b), "web HTTP/1.1") {
			t.Errorf("ALPN %v: %q %v", protocols, b, err)
		}
	}
	for _, protocols := range [][]string{{"stun.turn"}, nil} {
		c := dial(protocols...)
		request := "\x00\x01\x00\x00\x21\x12\xa4\x42transaction1" // a Binding request, RFC 8489 section 5
		io.WriteString(c, request)
		at := <-relayed
		got := make([]byte, len(request))
		if _, err := io.ReadFull(at, got); err != nil || string(got) != request {
			t.Errorf("ALPN %v: the relay read %q, %v", protocols, got, err)
		}
		io.WriteString(at, "answer")
		at.Close()
		if b, err := io.ReadAll(c); err != nil || string(b) != "answer" {
			t.Errorf("ALPN %v: %q %v", protocols, b, err)
		}
	}

	// Neither somebody who says nothing nor one who does not even speak TLS holds up Close.
	silent := dial()
	raw, err := net.Dial("tcp", tcp.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	server.Close()
	if err := <-served; err != http.ErrServerClosed {
		t.Error(err)
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
	if _, err := silent.Read(make([]byte, 1)); err == nil {
		t.Error("a connection outlived its listener")
	}
}
