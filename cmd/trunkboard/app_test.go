// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/trunkboard/trunkboard/configs"
)

// testConfig is a server of its own in a fresh folder, with ports that the system picks.
func testConfig(t *testing.T, set ...string) configs.Config {
	t.Helper()
	c, warnings, err := configs.Load(nil, nil, append([]string{
		"data_dir=" + t.TempDir(), "listen.client=127.0.0.1:0", "listen.https=127.0.0.1:0", "listen.federation=127.0.0.1:0",
		"listen.metrics=127.0.0.1:0", "turn.listen=127.0.0.1:0", "turn.tls_listen=127.0.0.1:0", "sfu.listen_udp=127.0.0.1:0", "sfu.listen_tcp=127.0.0.1:0", "accounts.password_cost=minimum", "shutdown.drain=1s",
	}, set...))
	if err != nil || len(warnings) != 0 {
		t.Fatal(err, warnings)
	}
	return c
}

// testLog goes to t, which shows it when the test fails.
func testLog(t *testing.T) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), nil))
}

// leavesNothing fails the test when goroutines that it started outlive everything it cleans up; call it first.
func leavesNothing(t *testing.T) {
	t.Helper()
	before := goleak.IgnoreCurrent()
	t.Cleanup(func() { goleak.VerifyNone(t, before) })
}

// start runs an App until the test ends, or until stop is called, which gives Run's error.
func start(t *testing.T, c configs.Config, parts ...string) (a *App, stop func() error) {
	t.Helper()
	return startWith(t, c, nil, parts...)
}

// startWith is start with something to be done between New and Run.
func startWith(t *testing.T, c configs.Config, prepare func(*App), parts ...string) (a *App, stop func() error) {
	t.Helper()
	a, err := New(c, testLog(t), parts...)
	if err != nil {
		t.Fatal(err)
	}
	if prepare != nil {
		prepare(a)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	var runErr error
	go func() {
		defer close(ended)
		runErr = a.Run(ctx)
	}()
	stop = func() error {
		cancel()
		<-ended
		return runErr
	}
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	select {
	case <-a.Ready():
	case <-ended:
		t.Fatalf("Run ended before it was ready: %v", runErr)
	}
	return a, stop
}

func fetch(t *testing.T, client *http.Client, url string) (status int, body string) {
	t.Helper()
	r, err := client.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return r.StatusCode, string(b)
}

func TestTwoAppsRunInOneProcessAndLeaveNothingBehind(t *testing.T) {
	leavesNothing(t)
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	one, stopOne := start(t, testConfig(t))
	two, stopTwo := start(t, testConfig(t))
	for _, a := range []*App{one, two} {
		for url, want := range map[string]string{
			a.Addr("listen.client") + "/health":            `{"status":"ok"}`,
			a.Addr("listen.client") + "/ready":             `{"status":"ready"}`,
			a.Addr("listen.metrics") + "/health":           `{"status":"ok"}`,
			a.Addr("listen.metrics") + "/ready":            `{"status":"ready"}`,
			a.Addr("listen.metrics") + "/metrics":          "trunkboard_build_info{",
			a.Addr("listen.metrics") + "/debug/pprof/":     "goroutine",
			a.Addr("listen.client") + "/debug/pprof/":      "Trunkboard", // the web client's page: nothing of ours
			a.Addr("listen.client") + "/":                  "Trunkboard",
			a.Addr("listen.client") + "/_matrix/nonesuch":  `"M_UNRECOGNIZED"`,
			a.Addr("listen.client") + "/_matrix/a//b%2F..": `"M_UNRECOGNIZED"`,
		} {
			if _, body := fetch(t, client, "http://"+url); !strings.Contains(body, want) {
				t.Errorf("%s answered %q, want %s", url, body, want)
			}
		}
	}
	address := one.Addr("listen.client")
	if err := stopOne(); err != nil {
		t.Fatal(err)
	}
	if c, err := net.Dial("tcp", address); err == nil {
		c.Close()
		t.Error("a stopped App still answers")
	}
	if status, _ := fetch(t, client, "http://"+two.Addr("listen.client")+"/ready"); status != 200 {
		t.Error("stopping one App hurt the other")
	}
	if err := stopTwo(); err != nil {
		t.Fatal(err)
	}
}

func TestEverythingButHealthIsRefusedUntilReady(t *testing.T) {
	a, err := New(testConfig(t), testLog(t))
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	for path, want := range map[string]int{"/health": 200, "/ready": 503, "/": 503, "/_matrix/client/versions": 503} {
		w := newRecorder()
		r, _ := http.NewRequest("GET", path, nil)
		a.public().ServeHTTP(w, r)
		if w.status != want {
			t.Errorf("%s: %d, want %d", path, w.status, want)
		}
		if want == 503 && path != "/ready" && (w.Header().Get("Retry-After") == "" || w.Header().Get("Access-Control-Allow-Origin") != "*") {
			t.Errorf("%s: %v", path, w.Header())
		}
	}
}

func TestLongPollsDoNotHoldUpTheEnd(t *testing.T) {
	leavesNothing(t)
	a, stop := start(t, testConfig(t))
	waiting := make(chan struct{})
	poll := a.endPolls(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		close(waiting)
		<-r.Context().Done()
		w.WriteHeader(http.StatusServiceUnavailable)
	}))
	a.api.Store(&poll)
	answered := make(chan int, 1)
	go func() {
		client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
		r, err := client.Get("http://" + a.Addr("listen.client") + "/_matrix/client/v3/sync?timeout=30000")
		if err != nil {
			t.Error(err)
			answered <- 0
			return
		}
		r.Body.Close()
		answered <- r.StatusCode
	}()
	<-waiting
	began := time.Now()
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took > httpGrace/2 {
		t.Errorf("stopping took %s", took)
	}
	if status := <-answered; status != http.StatusServiceUnavailable {
		t.Errorf("the poll was cut off instead of answered: %d", status)
	}
}

func TestHugeHeadersAreRefused(t *testing.T) {
	a, _ := start(t, testConfig(t))
	r, err := http.NewRequest("GET", "http://"+a.Addr("listen.client")+"/health", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("X-Huge", strings.Repeat("x", 2*maxHeader))
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	answer.Body.Close()
	if answer.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
		t.Error(answer.Status)
	}
	for _, s := range []time.Duration{a.server(nil).ReadHeaderTimeout, a.server(nil).ReadTimeout, a.server(nil).WriteTimeout, a.server(nil).IdleTimeout} {
		if s <= 0 {
			t.Error("a time that a stranger may stretch for ever")
		}
	}
}

type recorder struct {
	bytes.Buffer
	header http.Header
	status int
}

func newRecorder() *recorder               { return &recorder{header: http.Header{}, status: 200} }
func (r *recorder) Header() http.Header    { return r.header }
func (r *recorder) WriteHeader(status int) { r.status = status }

func TestAPortThatCannotBeOpenedNamesItsSettingAndWhatToDo(t *testing.T) {
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer tcp.Close()
	udp, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	for key, at := range map[string]net.Addr{
		"listen.client": tcp.Addr(), "listen.metrics": tcp.Addr(), "listen.https": tcp.Addr(), "sfu.listen_udp": udp.LocalAddr(), "sfu.listen_tcp": tcp.Addr(),
		"turn.listen": tcp.Addr(), "turn.tls_listen": tcp.Addr(),
	} {
		_, err := New(testConfig(t, "tls.mode=self-signed", key+"="+at.String()), testLog(t))
		if err == nil || !strings.HasPrefix(err.Error(), key+": "+at.String()+" ("+at.Network()+") is taken by another program") || !strings.Contains(err.Error(), "--set "+key+"=") {
			t.Errorf("%s: %v", key, err)
		}
	}
	// An address of the documentation, which no machine has.
	for _, key := range []string{"listen.client", "sfu.listen_udp", "turn.listen"} {
		if _, err := New(testConfig(t, key+"=203.0.113.77:0"), testLog(t)); err == nil || !strings.HasPrefix(err.Error(), key+": ") || !strings.Contains(err.Error(), "203.0.113.77") || !strings.Contains(err.Error(), "is no address of this machine") {
			t.Errorf("%s: %v", key, err)
		}
	}
}

func TestSelfSignedServesHTTPSThatItsAuthorityVouchesFor(t *testing.T) {
	leavesNothing(t)
	c := testConfig(t, "tls.mode=self-signed", "tls.names=phone.test")
	a, stop := start(t, c)
	roots := x509.NewCertPool()
	_, ca := fetch(t, &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}, "http://"+a.Addr("listen.client")+authorityPath)
	if !roots.AppendCertsFromPEM([]byte(ca)) {
		t.Fatalf("no certificate: %q", ca)
	}
	for _, name := range []string{"127.0.0.1", "localhost", "phone.test"} {
		for key, h2 := range map[string]bool{"listen.https": true, "listen.federation": false} {
			transport := &http.Transport{DisableKeepAlives: true, ForceAttemptHTTP2: h2, TLSClientConfig: &tls.Config{RootCAs: roots, ServerName: name}}
			r, err := (&http.Client{Transport: transport}).Get("https://" + a.Addr(key) + "/health")
			if err != nil {
				t.Fatalf("%s as %s: %v", key, name, err)
			}
			r.Body.Close()
			if r.StatusCode != 200 || (r.ProtoMajor == 2) != h2 {
				t.Errorf("%s as %s: %s %s", key, name, r.Proto, r.Status)
			}
		}
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}

	// The authority stays; names it may not speak for replace it.
	again, _ := start(t, c)
	if again.authority.Fingerprint() != a.authority.Fingerprint() {
		t.Error("a restart made a new authority: every device would have to trust it again")
	}
	c.TLS.Names = []string{"other.test"}
	other, _ := start(t, c)
	if other.authority.Fingerprint() == a.authority.Fingerprint() {
		t.Error("the authority speaks for a name it was not made with")
	}
	info, err := os.Stat(other.authority.keyFile())
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Error(info.Mode(), err)
	}
}

func TestCertificateFilesAreReadAgainWhenTheyChange(t *testing.T) {
	dir := t.TempDir()
	one := pairFile(t, dir, "one.test")
	f, err := certificateFiles(filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"), testLog(t))
	if err != nil {
		t.Fatal(err)
	}
	if got, _ := f.GetCertificate(nil); !bytes.Equal(got.Certificate[0], one) {
		t.Error("not the certificate of the file")
	}
	if err := os.WriteFile(filepath.Join(dir, "cert.pem"), []byte("half a fi"), 0o600); err != nil {
		t.Fatal(err)
	}
	f.checked = time.Time{}
	if got, err := f.GetCertificate(nil); err != nil || !bytes.Equal(got.Certificate[0], one) {
		t.Error("a broken file took the good certificate away:", err)
	}
	two := pairFile(t, dir, "two.test")
	f.checked = time.Time{}
	if got, _ := f.GetCertificate(nil); !bytes.Equal(got.Certificate[0], two) {
		t.Error("the renewed certificate is not served")
	}
}

// pairFile writes a certificate for name and its key into dir.
func pairFile(t *testing.T, dir, name string) (raw []byte) {
	t.Helper()
	a, err := selfSigned(t.TempDir(), []string{name}, testLog(t))
	if err != nil {
		t.Fatal(err)
	}
	for from, to := range map[string]string{a.File(): "cert.pem", a.keyFile(): "key.pem"} {
		b, err := os.ReadFile(from)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, to), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return a.cert.Raw
}

func TestCertificatesFromFilesServeHTTPSForGood(t *testing.T) {
	leavesNothing(t)
	dir := t.TempDir()
	roots := x509.NewCertPool()
	ca, err := x509.ParseCertificate(pairFile(t, dir, "matrix.test"))
	if err != nil {
		t.Fatal(err)
	}
	roots.AddCert(ca)
	a, _ := start(t, testConfig(t, "tls.mode=files", "tls.certificate="+filepath.Join(dir, "cert.pem"), "tls.key="+filepath.Join(dir, "key.pem")))
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{
		// pairFile's certificate is an authority that names no host: check the chain, not the name.
		InsecureSkipVerify: true, VerifyConnection: func(s tls.ConnectionState) error {
			_, err := s.PeerCertificates[0].Verify(x509.VerifyOptions{Roots: roots})
			return err
		},
	}}}
	for _, key := range []string{"listen.https", "listen.federation"} {
		r, err := client.Get("https://" + a.Addr(key) + "/health")
		if err != nil {
			t.Fatal(err)
		}
		r.Body.Close()
		if r.StatusCode != 200 || r.Header.Get("Strict-Transport-Security") == "" {
			t.Errorf("%s: %s %v", key, r.Status, r.Header)
		}
	}
	c := a.cfg
	c.TLS.Key = filepath.Join(dir, "nowhere.pem")
	if _, err := New(c, testLog(t)); err == nil || !strings.Contains(err.Error(), "tls.key") {
		t.Error("a certificate without its key:", err)
	}
}

func TestSecretsAreMadeOnceAndReadableByTheirOwnerOnly(t *testing.T) {
	dir := t.TempDir()
	made := make(chan string)
	for range 8 {
		go func() {
			s, err := keptSecret(dir, "turn")
			if err != nil {
				t.Error(err)
			}
			made <- s
		}()
	}
	first := <-made
	for range 7 {
		if s := <-made; s != first {
			t.Errorf("%q and %q: two secrets", s, first)
		}
	}
	if len(first) != 43 {
		t.Errorf("%q has not 32 bytes", first)
	}
	info, err := os.Stat(filepath.Join(dir, "secrets", "turn"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Error(info.Mode(), err)
	}
	left, err := os.ReadDir(filepath.Join(dir, "secrets"))
	if err != nil || len(left) != 1 {
		t.Error("temporary files left:", left)
	}
	if err := os.WriteFile(filepath.Join(dir, "secrets", "turn"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := keptSecret(dir, "turn"); err == nil {
		t.Error("an empty secret was taken")
	}
}

func TestTheAnnouncementHoldsTheAddressesInUse(t *testing.T) {
	a, _ := start(t, testConfig(t))
	file := filepath.Join(t.TempDir(), "addresses.json")
	if err := announce(file, a); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	if err := json.Unmarshal(text, &got); err != nil || got["listen.client"] != a.Addr("listen.client") || strings.HasSuffix(got["listen.client"], ":0") {
		t.Errorf("%s %v", text, err)
	}
}
