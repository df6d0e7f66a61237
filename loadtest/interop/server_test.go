// SPDX-License-Identifier: Apache-2.0

package interop

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/trunkboard/trunkboard/loadtest/binary"
)

const secret = "interop"

// server is a homeserver: client API in plain HTTP at base, federation in TLS at the address that is its name.
type server struct {
	kind, name, base string
	ready            string // URL that answers 200 once the server works; "": /versions of the client API
	cmd              *exec.Cmd
	gone             chan struct{} // the process has ended
	run              func() *exec.Cmd
	log              string
}

// authority signs the certificates of the test's servers.
type authority struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
	pem         []byte
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "interop authority"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour), KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &authority{certificate: c, key: key, pem: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})}
}

// issue writes ca.pem, tls.crt and tls.key for an address into dir.
func (a *authority) issue(t *testing.T, dir, address string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: address}, IPAddresses: []net.IP{net.ParseIP(address)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.certificate, &key.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{
		"ca.pem":  a.pem,
		"tls.crt": append(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), a.pem...),
		"tls.key": pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// underTest is the binary under test, built once for all of them.
var underTest binary.Builder

func TestMain(m *testing.M) { underTest.Main(m) }

// newTrunkboard runs Trunkboard by the adapter of the conformance suite, behind the words of a command that runs another, if any.
func newTrunkboard(t *testing.T, ca *authority, address string, wrapped ...string) *server {
	t.Helper()
	bin := underTest.Path(t)
	dir := t.TempDir()
	ca.issue(t, dir, address)
	client, federation := binary.FreePort(t, address), binary.FreePort(t, address)
	s := &server{kind: "trunkboard", name: fmt.Sprintf("%s:%d", address, federation), base: fmt.Sprintf("http://%s:%d", address, client), log: filepath.Join(dir, "server.log")}
	adapter, err := filepath.Abs("../conformance/adapter.sh")
	if err != nil {
		t.Fatal(err)
	}
	data := filepath.Join(dir, "data")
	if err := os.Mkdir(data, 0o755); err != nil {
		t.Fatal(err)
	}
	s.run = func() *exec.Cmd {
		args := append(slices.Clone(wrapped), adapter, s.name, data, strings.TrimPrefix(s.base, "http://"), s.name,
			filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key"), filepath.Join(dir, "ca.pem"), s.log)
		cmd := exec.Command(args[0], args[1:]...)
		cmd.Env = append(os.Environ(), "TRUNKBOARD_BIN="+bin, "CP_SHARED_SECRET="+secret, "SSL_CERT_FILE="+filepath.Join(dir, "ca.pem"))
		return cmd
	}
	s.start(t)
	return s
}

// newSynapse runs the Synapse that fetch.sh left in the folder, on SQLite. more is YAML that goes behind the test's settings.
func newSynapse(t *testing.T, ca *authority, address, more string) *server {
	t.Helper()
	root := filepath.Join(interopFolder(t), "sid")
	dir, err := os.MkdirTemp(filepath.Join(root, "tmp"), "run")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	ca.issue(t, dir, address)
	inside := "/tmp/" + filepath.Base(dir)
	client, federation := binary.FreePort(t, address), binary.FreePort(t, address)
	s := &server{kind: "synapse", name: fmt.Sprintf("%s:%d", address, federation), base: fmt.Sprintf("http://%s:%d", address, client), log: filepath.Join(dir, "server.log")}
	config := fmt.Sprintf(`
server_name: %q
pid_file: %[4]s/pid
public_baseurl: "http://%[2]s:%[3]d/"
tls_certificate_path: %[4]s/tls.crt
tls_private_key_path: %[4]s/tls.key
federation_custom_ca_list: [%[4]s/ca.pem]
listeners:
  - {port: %[3]d, type: http, bind_addresses: [%[2]q], resources: [{names: [client, openid], compress: false}]}
  - {port: %[5]d, type: http, tls: true, bind_addresses: [%[2]q], resources: [{names: [federation], compress: false}]}
database: {name: sqlite3, args: {database: %[4]s/homeserver.db}}
signing_key_path: %[4]s/signing.key
media_store_path: %[4]s/media
log_config: %[4]s/log.yaml
registration_shared_secret: %[6]q
macaroon_secret_key: %[6]q
report_stats: false
trusted_key_servers: []
suppress_key_server_warning: true
ip_range_blacklist: []
federation_ip_range_blacklist: []
bcrypt_rounds: 4
rc_message: {per_second: 1000, burst_count: 1000}
rc_registration: {per_second: 1000, burst_count: 1000}
rc_login: {address: {per_second: 1000, burst_count: 1000}, account: {per_second: 1000, burst_count: 1000}, failed_attempts: {per_second: 1000, burst_count: 1000}}
rc_joins: {local: {per_second: 1000, burst_count: 1000}, remote: {per_second: 1000, burst_count: 1000}}
rc_joins_per_room: {per_second: 1000, burst_count: 1000}
rc_invites: {per_room: {per_second: 1000, burst_count: 1000}, per_user: {per_second: 1000, burst_count: 1000}, per_issuer: {per_second: 1000, burst_count: 1000}}
rc_federation: {window_size: 1000, sleep_limit: 1000, sleep_delay: 1, reject_limit: 1000, concurrent: 100}
federation_rr_transactions_per_room_per_second: 1000
allow_public_rooms_over_federation: true
room_list_publication_rules: [{action: allow}]
`, s.name, address, client, inside, federation, secret)
	for name, content := range map[string]string{
		"homeserver.yaml": config + more,
		"log.yaml":        "version: 1\ndisable_existing_loggers: false\nhandlers: {console: {class: logging.StreamHandler}}\nroot: {level: WARNING, handlers: [console]}\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	keys := exec.Command("chroot", root, "python3", "-m", "synapse.app.homeserver", "--config-path", inside+"/homeserver.yaml", "--generate-keys")
	if out, err := keys.CombinedOutput(); err != nil {
		t.Fatalf("synapse --generate-keys: %v\n%s", err, out)
	}
	s.run = func() *exec.Cmd {
		return exec.Command("chroot", root, "python3", "-m", "synapse.app.homeserver", "--config-path", inside+"/homeserver.yaml")
	}
	s.start(t)
	return s
}

// newDendrite runs Dendrite on SQLite. clientAPI is YAML that goes into its clientAPIapi.
func newDendrite(t *testing.T, ca *authority, address, clientAPI string) *server {
	t.Helper()
	bin := os.Getenv("TRUNKBOARD_INTEROP_DENDRITE")
	dir := t.TempDir()
	ca.issue(t, dir, address)
	client, federation := binary.FreePort(t, address), binary.FreePort(t, address)
	s := &server{kind: "dendrite", name: fmt.Sprintf("%s:%d", address, federation), base: fmt.Sprintf("http://%s:%d", address, client), log: filepath.Join(dir, "server.log")}
	if out, err := exec.Command(filepath.Join(bin, "generate-keys"), "-private-key", filepath.Join(dir, "matrix_key.pem")).CombinedOutput(); err != nil {
		t.Fatalf("generate-keys: %v\n%s", err, out)
	}
	sqlite := func(name string) string {
		return fmt.Sprintf("{connection_string: \"file:%s/%s.db\"}", dir, name)
	}
	config := fmt.Sprintf(`
version: 2
global:
  server_name: %q
  private_key: %s/matrix_key.pem
  disable_federation: false
  trusted_third_party_id_servers: []
  jetstream: {storage_path: %[2]q, in_memory: false}
client_api:
  registration_shared_secret: %q
  registration_disabled: false
  guests_disabled: true
  rate_limiting: {enabled: false}
%s
federation_api: {database: %s, disable_tls_validation: false, deny_networks: [], allow_networks: ["0.0.0.0/0"], key_perspectives: [], prefer_direct_fetch: true}
key_server: {database: %s}
media_api: {database: %s, base_path: %[2]s/media}
mscs: {mscs: [], database: %[8]s}
relay_api: {database: %s}
room_server: {database: %s}
sync_api: {database: %s}
user_api: {bcrypt_cost: 4, account_database: %s}
logging: [{type: std, level: warn}]
`, s.name, dir, secret, clientAPI, sqlite("federation"), sqlite("keys"), sqlite("media"), sqlite("mscs"), sqlite("relay"), sqlite("rooms"), sqlite("sync"), sqlite("users"))
	if err := os.WriteFile(filepath.Join(dir, "dendrite.yaml"), []byte(config), 0o644); err != nil {
		t.Fatal(err)
	}
	s.run = func() *exec.Cmd {
		cmd := exec.Command(filepath.Join(bin, "dendrite"), "-really-enable-open-registration", "-config", filepath.Join(dir, "dendrite.yaml"),
			"-http-bind-address", strings.TrimPrefix(s.base, "http://"), "-https-bind-address", s.name,
			"-tls-cert", filepath.Join(dir, "tls.crt"), "-tls-key", filepath.Join(dir, "tls.key"))
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "SSL_CERT_FILE="+filepath.Join(dir, "ca.pem"))
		return cmd
	}
	s.start(t)
	return s
}

func interopFolder(t *testing.T) string {
	t.Helper()
	folder := os.Getenv("TRUNKBOARD_INTEROP")
	if folder == "" {
		t.Skip("other homeservers are fetched by `make interop`")
	}
	return folder
}

// start runs the server and waits until it answers; the test's end kills it.
func (s *server) start(t *testing.T) {
	t.Helper()
	s.cmd = s.run()
	log, err := os.OpenFile(s.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	s.cmd.Stdout, s.cmd.Stderr = log, log
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	died, gone := make(chan error, 1), make(chan struct{})
	cmd := s.cmd
	s.gone = gone
	go func() {
		died <- cmd.Wait()
		close(gone)
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		if t.Failed() {
			s.printLog(t)
		}
	})
	ready := s.ready
	if ready == "" {
		ready = s.base + "/_matrix/client/versions"
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for {
		req, err := http.NewRequestWithContext(ctx, "GET", ready, nil)
		if err != nil {
			t.Fatal(err)
		}
		if res, err := http.DefaultClient.Do(req); err == nil {
			_ = res.Body.Close()
			if res.StatusCode == http.StatusOK {
				return
			}
		}
		select {
		case err := <-died:
			s.printLog(t)
			t.Fatalf("%s ended by itself: %v", s.kind, err)
		case <-ctx.Done():
			t.Fatalf("%s did not answer within a minute", s.kind)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (s *server) printLog(t *testing.T) {
	f, err := os.Open(s.log)
	if err != nil {
		return
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && info.Size() > 6000 {
		_, _ = f.Seek(-6000, io.SeekEnd)
	}
	text, _ := io.ReadAll(f)
	t.Logf("end of the log of %s:\n%s", s.kind, text)
}

// stop kills the server; start starts it again.
func (s *server) stop(t *testing.T) {
	t.Helper()
	_ = s.cmd.Process.Kill()
	select {
	case <-s.gone:
	case <-time.After(time.Minute):
		t.Fatalf("%s does not end", s.kind)
	}
}

// awaitLog waits for a line in the server's log.
func (s *server) awaitLog(t *testing.T, line string) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) { // another process: there is nothing to wait on
		if text, err := os.ReadFile(s.log); err == nil && strings.Contains(string(text), line) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s does not log %q", s.kind, line)
		}
	}
}

// freeze stops the server as if its machine hung; thaw lets it go on.
func (s *server) freeze(t *testing.T) {
	t.Helper()
	if err := s.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
}

func (s *server) thaw(t *testing.T) {
	t.Helper()
	if err := s.cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
}
