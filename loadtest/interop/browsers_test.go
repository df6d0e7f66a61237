// SPDX-License-Identifier: Apache-2.0

package interop

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/trunkboard/trunkboard/loadtest/binary"
	"github.com/trunkboard/trunkboard/web"
	"github.com/trunkboard/trunkboard/web/browsertest"
)

// A call between people on two Trunkboards, each in the web client of their own server, with nothing but relayed media.
func TestBrowsersOnTwoTrunkboardsCallEachOther(t *testing.T) {
	needBrowser(t)
	ca := newAuthority(t)
	one, two := newWholeTrunkboard(t, ca, "127.77.0.7"), newWholeTrunkboard(t, ca, "127.77.0.8")
	callBetween(t, one.base, two.base)
}

// TestElementCallMeetsAcrossTwoTrunkboards: two and two people in one group call with Element Call: everybody sends to the SFU of their own server, and listens at both.
func TestElementCallMeetsAcrossTwoTrunkboards(t *testing.T) {
	needBrowser(t)
	const script = "../../web/e2e/across-group.mjs"
	if os.Getenv("TRUNKBOARD_TEST_ELEMENT_CALL") == "" {
		t.Skip("make test-browser sets TRUNKBOARD_TEST_ELEMENT_CALL, when Element Call is there (npm ci in web/e2e/element-call)")
	}
	ca := newAuthority(t)
	withCall := func(data string) {
		if err := os.Mkdir(data, 0o700); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.CommandContext(t.Context(), "node", script, "prepare", data).CombinedOutput(); err != nil {
			t.Fatalf("%v %s", err, out)
		}
	}
	one, two := newPreparedTrunkboard(t, ca, "127.77.0.13", withCall), newPreparedTrunkboard(t, ca, "127.77.0.14", withCall)
	browsersBetween(t, script, one.base, two.base)
}

// Three people on a Synapse whose group calls run on our SFU beside it (serve --only sfu,focus), in place of LiveKit and lk-jwt-service.
func TestElementCallMeetsOnTheSFUBesideASynapse(t *testing.T) {
	interopFolder(t)
	needBrowser(t)
	const script = "../../web/e2e/beside-group.mjs"
	data := t.TempDir()
	if out, err := exec.CommandContext(t.Context(), "node", script, "prepare", data).CombinedOutput(); err != nil {
		t.Fatalf("Element Call is missing (npm ci in web/e2e/element-call): %v %s", err, out)
	}
	const address, besideAddress = "127.77.0.15", "127.77.0.16"
	at := fmt.Sprintf("%s:%d", besideAddress, binary.FreePort(t, besideAddress))
	ca := newAuthority(t)
	synapse := newSynapse(t, ca, address, fmt.Sprintf(`
enable_registration: true
enable_registration_without_verification: true
max_event_delay_duration: 24h
experimental_features: {msc4143_enabled: true, msc4222_enabled: true, msc3266_enabled: true}
matrix_rtc: {transports: [{type: livekit, livekit_service_url: "http://%s/livekit/jwt"}]}
rc_delayed_event_mgmt: {per_second: 1000, burst_count: 1000}
`, at))
	newBeside(t, ca, synapse, at, "token "+synapse.newAccount(t, "admin", true).token)
	browsersBetween(t, script, withWebClient(t, synapse, filepath.Join(data, "element-call")), at)
}

// TestDrillElementCallOverALineThatLosesMuch: two people in Element Call, three of ten datagrams lost in each direction. It needs an unhurried machine.
func TestDrillElementCallOverALineThatLosesMuch(t *testing.T) {
	if os.Getenv("TRUNKBOARD_TEST_LONG") == "" {
		t.Skip("make test-long runs this")
	}
	needBrowser(t)
	browsertest.Run(t, 10*time.Minute, []string{"TRUNKBOARD_BINARY=" + underTest.Path(t)}, "../../web/e2e/loss.mjs", "60")
}

// A call from Trunkboard to Synapse, which hands out a relay of ours and has our web client before it.
func TestBrowsersOnTrunkboardAndSynapseCallEachOther(t *testing.T) {
	interopFolder(t)
	needBrowser(t)
	ca := newAuthority(t)
	relay := newRelay(t, "127.77.0.10")
	one, two := newWholeTrunkboard(t, ca, "127.77.0.9"), newSynapse(t, ca, "127.77.0.10", fmt.Sprintf(`
turn_uris: ["turn:%[1]s?transport=udp", "turn:%[1]s?transport=tcp"]
turn_shared_secret: %[2]q
turn_user_lifetime: 1h
enable_registration: true
enable_registration_without_verification: true
`, relay, secret))
	callBetween(t, one.base, withWebClient(t, two))
}

// The same with Dendrite.
func TestBrowsersOnTrunkboardAndDendriteCallEachOther(t *testing.T) {
	if os.Getenv("TRUNKBOARD_INTEROP_DENDRITE") == "" {
		t.Skip("TRUNKBOARD_INTEROP_DENDRITE names no folder with Dendrite's programs")
	}
	needBrowser(t)
	ca := newAuthority(t)
	relay := newRelay(t, "127.77.0.12")
	one, two := newWholeTrunkboard(t, ca, "127.77.0.11"), newDendrite(t, ca, "127.77.0.12", fmt.Sprintf(`
  turn: {turn_user_lifetime: "1h", turn_uris: ["turn:%[1]s?transport=udp", "turn:%[1]s?transport=tcp"], turn_shared_secret: %[2]q}
`, relay, secret))
	callBetween(t, one.base, withWebClient(t, two))
}

// needBrowser ends the test where the web client is not built or there is no Chromium.
func needBrowser(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("a browser test")
	}
	skip := t.Skip
	if os.Getenv("TRUNKBOARD_TEST_REQUIRED") != "" {
		skip = t.Fatal
	}
	for _, file := range []string{"../../web/dist/index.html", "../../web/app/node_modules/playwright-core"} {
		if _, err := os.Stat(file); err != nil {
			skip("the web client is not built: make build")
		}
	}
	if _, err := exec.LookPath("chromium"); err != nil && os.Getenv("CHROMIUM") == "" {
		skip("there is no Chromium here; make deps installs it")
	}
}

// newWholeTrunkboard runs all of Trunkboard, with a relay on its address.
func newWholeTrunkboard(t *testing.T, ca *authority, address string) *server {
	t.Helper()
	return newPreparedTrunkboard(t, ca, address, func(string) {})
}

// newPreparedTrunkboard is newWholeTrunkboard with something in its data folder.
func newPreparedTrunkboard(t *testing.T, ca *authority, address string, prepare func(data string)) *server {
	t.Helper()
	dir := t.TempDir()
	prepare(filepath.Join(dir, "data"))
	ca.issue(t, dir, address)
	client, federation := binary.FreePort(t, address), binary.FreePort(t, address)
	s := &server{kind: "trunkboard", name: fmt.Sprintf("%s:%d", address, federation), base: fmt.Sprintf("http://%s:%d", address, client), log: filepath.Join(dir, "server.log")}
	s.run = trunkboard(t, "", append(relaySettings(address),
		"server_name="+s.name, "data_dir="+filepath.Join(dir, "data"), "public_url="+s.base,
		fmt.Sprintf("listen.client=%s:%d", address, client), "listen.federation="+s.name, "listen.https=", "listen.metrics=",
		"tls.mode=files", "tls.certificate="+filepath.Join(dir, "tls.crt"), "tls.key="+filepath.Join(dir, "tls.key"),
		"turn.listen="+address+":0", "turn.tls_listen=", "sfu.listen_udp="+address+":0", "sfu.listen_tcp=",
		"registration.mode=open", "accounts.password_cost=minimum",
		"federation.allow_private=127.0.0.0/8", "federation.trusted_ca="+filepath.Join(dir, "ca.pem")))
	s.start(t)
	return s
}

// newRelay runs Trunkboard's relay alone, as it stands beside the homeserver of somebody else, and gives its address.
func newRelay(t *testing.T, address string) string {
	t.Helper()
	dir := t.TempDir()
	metrics, listen := fmt.Sprintf("%s:%d", address, binary.FreePort(t, address)), fmt.Sprintf("%s:%d", address, binary.FreePort(t, address))
	s := &server{kind: "relay", name: listen, ready: "http://" + metrics + "/ready", log: filepath.Join(dir, "server.log")}
	s.run = trunkboard(t, "turn", append(relaySettings(address),
		"data_dir="+filepath.Join(dir, "data"), "listen.metrics="+metrics, "turn.listen="+listen, "turn.secret="+secret))
	s.start(t)
	return listen
}

// relaySettings are for a relay whose peers are on this machine.
func relaySettings(address string) []string {
	return []string{"turn.relay.addresses=" + address, "turn.relay.allow=127.0.0.0/8", "limits.enabled=false", "shutdown.drain=1s"}
}

func trunkboard(t *testing.T, only string, settings []string) func() *exec.Cmd {
	t.Helper()
	bin := underTest.Path(t)
	args := []string{"serve"}
	if only != "" {
		args = append(args, "--only", only)
	}
	for _, s := range settings {
		args = append(args, "--set", s)
	}
	return func() *exec.Cmd { return exec.Command(bin, args...) }
}

// withWebClient puts a front before a homeserver that serves Trunkboard's web client, and Element Call from a folder if one is named, and gives its URL.
func withWebClient(t *testing.T, s *server, elementCall ...string) string {
	t.Helper()
	base, err := url.Parse(s.base)
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	var options web.Options
	for _, folder := range elementCall {
		options.ElementCall = web.ElementCallPath
		mux.Handle(web.ElementCallPath, http.StripPrefix(strings.TrimSuffix(web.ElementCallPath, "/"), web.Folder(os.DirFS(folder))))
	}
	client, err := web.Handler(options)
	if err != nil {
		t.Fatal(err)
	}
	mux.Handle("/_matrix/", &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(base) }})
	mux.Handle("/", client)
	front := httptest.NewServer(mux)
	t.Cleanup(func() {
		front.CloseClientConnections()
		front.Close()
	})
	return front.URL
}

// callBetween runs the cases of web/e2e/across.mjs as subtests.
func callBetween(t *testing.T, one, two string) {
	t.Helper()
	browsersBetween(t, "../../web/e2e/across.mjs", one, two)
}

// browsersBetween runs the cases of a script as subtests.
func browsersBetween(t *testing.T, script, one, two string) {
	t.Helper()
	browsertest.Run(t, 8*time.Minute, []string{"TRUNKBOARD_TEST_PATIENCE=60000"}, script, one, two)
}
