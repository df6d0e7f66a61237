// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// BenchmarkStart is the time from exec to the first 200 of /_matrix/client/versions, all parts served: with an empty folder, where keys
// and the database are made first, and with one that a server has left behind.
func BenchmarkStart(b *testing.B) {
	self, err := os.Executable()
	if err != nil {
		b.Fatal(err)
	}
	bin := filepath.Join(b.TempDir(), "trunkboard") // by this name the test binary is the command: see TestMain
	if err := os.Symlink(self, bin); err != nil {
		b.Fatal(err)
	}
	b.Run("fresh", func(b *testing.B) {
		for b.Loop() {
			b.StopTimer()
			data := b.TempDir()
			b.StartTimer()
			startOnce(b, bin, data)
		}
	})
	b.Run("existing", func(b *testing.B) {
		data := b.TempDir()
		startOnce(b, bin, data)
		for b.Loop() {
			startOnce(b, bin, data)
		}
	})
}

// startOnce starts a server and stops it again; the timer runs until its first answer.
func startOnce(b *testing.B, bin, data string) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	address := l.Addr().String()
	_ = l.Close()
	args := []string{"serve"}
	for _, s := range []string{
		"data_dir=" + data, "listen.client=" + address, "listen.https=", "listen.federation=", "listen.metrics=", "turn.listen=127.0.0.1:0", "turn.tls_listen=",
		"sfu.listen_udp=127.0.0.1:0", "sfu.listen_tcp=127.0.0.1:0", "log.level=error", "shutdown.drain=1s",
	} {
		args = append(args, "--set", s)
	}
	cmd := exec.Command(bin, args...)
	var said bytes.Buffer
	cmd.Stderr = &said
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	end := time.Now().Add(30 * time.Second)
	for !answers(address) {
		if time.Now().After(end) {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
			b.Fatalf("no answer; it said %s", said.String())
		}
		time.Sleep(time.Millisecond)
	}
	b.StopTimer()
	_ = cmd.Process.Signal(syscall.SIGTERM)
	if err := cmd.Wait(); err != nil {
		b.Fatalf("%v: %s", err, said.String())
	}
	b.StartTimer()
}

// answers asks once; net/http would keep connections and time of its own.
func answers(address string) bool {
	c, err := net.DialTimeout("tcp", address, time.Second)
	if err != nil {
		return false
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(time.Second))
	_, _ = c.Write([]byte("GET /_matrix/client/versions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"))
	head := make([]byte, len("HTTP/1.1 200"))
	_, err = c.Read(head)
	return err == nil && string(head) == "HTTP/1.1 200"
}
