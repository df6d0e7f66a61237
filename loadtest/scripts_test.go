// SPDX-License-Identifier: Apache-2.0

package loadtest_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha1"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/pion/turn/v5"

	"github.com/trunkboard/trunkboard/loadtest/binary"
	"github.com/trunkboard/trunkboard/loadtest/load"
	"github.com/trunkboard/trunkboard/loadtest/matrix"
	"github.com/trunkboard/trunkboard/sfu/livekit"
)

// underTest is the binary under test, built once for all of them.
var underTest binary.Builder

func TestMain(m *testing.M) { underTest.Main(m) }

// script starts one of the scripts and stops it with the test; it must end within the time that its contract gives it.
func script(t *testing.T, env []string, name string, args ...string) (stop func()) {
	t.Helper()
	bin := underTest.Path(t)
	var log bytes.Buffer
	cmd := exec.Command(name, args...)
	cmd.Env = append(append(os.Environ(), "TRUNKBOARD_BIN="+bin), env...)
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	stop = sync.OnceFunc(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		kill := time.AfterFunc(10*time.Second, func() { _ = cmd.Process.Kill() })
		err := cmd.Wait()
		if !kill.Stop() || err != nil {
			t.Errorf("%s did not end well: %v", name, err)
		}
		if t.Failed() {
			t.Logf("%s", log.String())
		}
	})
	t.Cleanup(stop)
	return stop
}

func freePort(t *testing.T) string {
	t.Helper()
	return strconv.Itoa(binary.FreePort(t, "127.0.0.1"))
}

func ready(t *testing.T, url string) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); ; {
		res, err := http.Get(url + "/_matrix/client/versions")
		if err == nil {
			_ = res.Body.Close()
			if res.StatusCode == http.StatusOK {
				return
			}
		}
		if time.Now().After(end) {
			t.Fatalf("no answer: %v", err)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func TestTheHomeserverScriptServesTheLoadClients(t *testing.T) {
	port := freePort(t)
	script(t, []string{"LISTEN=127.0.0.1", "PORT=" + port, "SECRET=a secret, with a comma", "DATA=" + t.TempDir()}, "./serve.sh", "homeserver", "turn.listen=127.0.0.1:0", "sfu.listen_udp=127.0.0.1:0", "sfu.listen_tcp=127.0.0.1:0", "turn.relay.addresses=127.0.0.1")
	url := "http://127.0.0.1:" + port
	ready(t, url)
	s, err := matrix.Open(url, "a secret, with a comma")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	u, err := s.Register(t.Context(), "alice")
	if err != nil {
		t.Fatal(err)
	}
	var ice struct {
		URIs []string `json:"uris"`
	}
	if err := u.Do(t.Context(), "GET", "/_matrix/client/v3/voip/turnServer", u.Token, nil, &ice); err != nil || len(ice.URIs) == 0 {
		t.Errorf("turnServer: %v %v", ice, err)
	}
	open, err := matrix.Open(url, "")
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()
	if _, err := open.Register(t.Context(), "bob"); err != nil {
		t.Errorf("open registration: %v", err)
	}
	second := load.Config{Label: "test", Duration: time.Second}
	for name, scenario := range map[string]load.Scenario{"calls": load.Calls{Config: second, Pairs: 2}, "messages": load.Messages{Config: second, Rooms: 2, Members: 3, Senders: 2}} {
		r, err := scenario.Run(t.Context(), s)
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%s\n%s", r.Rows, strings.Join(r.Notes, "\n"))
		if r.Done == 0 || len(r.Errors) > 0 || strings.Count(r.Rows, "\n") < 2 {
			t.Errorf("%s: %d done, errors %v", name, r.Done, r.Errors)
		}
	}
	second.Rate = 20
	r, err := load.Calls{Config: second, Pairs: 4}.Run(t.Context(), s)
	if err != nil || r.Done < 10 || r.Done > 20 || len(r.Errors) > 0 {
		t.Errorf("20 calls offered in a second: %d done, errors %v %v", r.Done, r.Errors, err)
	}
}

func TestTheTurnScriptRelaysOnLoopback(t *testing.T) {
	port := freePort(t)
	script(t, []string{"LISTEN=127.0.0.1", "PORT=" + port, "RELAY=127.0.0.1", "SECRET=s", "REALM=r"}, "./serve.sh", "turn")
	user := fmt.Sprintf("%d:bench", time.Now().Add(time.Hour).Unix())
	mac := hmac.New(sha1.New, []byte("s"))
	mac.Write([]byte(user))
	for end := time.Now().Add(20 * time.Second); ; {
		conn, err := net.ListenPacket("udp4", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		c, err := turn.NewClient(&turn.ClientConfig{TURNServerAddr: "127.0.0.1:" + port, Conn: conn, Username: user, Password: base64.StdEncoding.EncodeToString(mac.Sum(nil)), Realm: "r", RTO: 100 * time.Millisecond})
		if err != nil {
			t.Fatal(err)
		}
		err = c.Listen()
		var relayed net.PacketConn
		if err == nil {
			relayed, err = c.Allocate()
		}
		if err != nil { // not up yet
			c.Close()
			_ = conn.Close()
			if time.Now().After(end) {
				t.Fatal(err)
			}
			continue
		}
		defer conn.Close()
		defer c.Close()
		peer, err := net.ListenPacket("udp4", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer peer.Close()
		if _, err := relayed.WriteTo([]byte("over"), peer.LocalAddr()); err != nil {
			t.Fatal(err)
		}
		_ = peer.SetReadDeadline(time.Now().Add(5 * time.Second))
		b := make([]byte, 10)
		n, from, err := peer.ReadFrom(b)
		if err != nil || string(b[:n]) != "over" || from.String() != relayed.LocalAddr().String() {
			t.Errorf("relayed: %q from %v, %v", b[:n], from, err)
		}
		_ = relayed.Close()
		return
	}
}

func TestTheSFUScriptLetsTheLoadClientIn(t *testing.T) {
	port := freePort(t)
	script(t, []string{"LISTEN=127.0.0.1", "PORT=" + port, "MEDIA=0", "KEY=devkey", "KEY_SECRET=a secret of thirty-two characters"}, "./serve.sh", "sfu")
	token, err := livekit.Keys{"devkey": "a secret of thirty-two characters"}.Sign("devkey", livekit.Claims{
		RegisteredClaims: jwt.RegisteredClaims{Subject: "p0"}, Video: &livekit.Grant{RoomJoin: true, Room: "made on joining"},
	}, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(30 * time.Second); ; {
		res, err := http.Get("http://127.0.0.1:" + port + "/rtc/validate?access_token=" + token)
		if err == nil {
			_ = res.Body.Close()
			if res.StatusCode == http.StatusOK {
				return
			}
			err = errors.New(res.Status)
		}
		if time.Now().After(end) {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// certificate makes a certificate for a name, signed by itself.
func certificate(t *testing.T, dir, name string) (cert, key string) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, k.Public(), k)
	if err != nil {
		t.Fatal(err)
	}
	kder, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for name, block := range map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: der}, key: {Type: "PRIVATE KEY", Bytes: kder}} {
		if err := os.WriteFile(name, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return cert, key
}

func TestTheConformanceAdapterServesAndRestartsOnItsData(t *testing.T) {
	dir, data := t.TempDir(), t.TempDir()
	cert, key := certificate(t, dir, "hs1")
	client, federation := "127.0.0.1:"+freePort(t), "127.0.0.1:"+freePort(t)
	start := func() func() {
		stop := script(t, []string{"CP_SHARED_SECRET=complement"}, "./conformance/adapter.sh", "hs1", data, client, federation, cert, key, cert, filepath.Join(dir, "log"))
		ready(t, "http://"+client)
		return stop
	}
	stop := start()
	s, err := matrix.Open("http://"+client, "complement")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	u, err := s.Register(t.Context(), "alice")
	if err != nil || !strings.HasSuffix(u.ID, ":hs1") {
		t.Fatalf("%v %v", u, err)
	}
	roots := x509.NewCertPool()
	pemBytes, err := os.ReadFile(cert)
	if err != nil || !roots.AppendCertsFromPEM(pemBytes) {
		t.Fatal(err)
	}
	conn, err := (&tls.Dialer{Config: &tls.Config{RootCAs: roots, ServerName: "hs1"}}).DialContext(context.Background(), "tcp", federation)
	if err != nil {
		t.Errorf("the federation port: %v", err)
	} else {
		_ = conn.Close()
	}
	stop()
	start()
	if _, _, err := u.Sync(t.Context(), "", "", 0); err != nil {
		t.Errorf("after the restart: %v", err)
	}
}
