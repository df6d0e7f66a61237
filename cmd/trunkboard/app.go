// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/trunkboard/trunkboard/configs"
	"github.com/trunkboard/trunkboard/homeserver/federation"
	"github.com/trunkboard/trunkboard/signalling"
)

// Parts that `serve --only` may name.
var partNames = []string{"homeserver", "turn", "sfu", "focus", "web"}

// For requests in flight, after the drain.
const httpGrace = 5 * time.Second

// App is one running server: everything that the configuration asks for, wired together. New binds its ports and nothing else,
// Run opens the parts and serves until its context ends, Close gives back what New took when Run was never called.
//
// While the parts open, every request but /health is answered 503. When the context of Run ends:
//
//	readiness off -> parts drain, up to shutdown.drain -> long polls end, HTTP stops -> parts stop -> parts close, the database last
type App struct {
	cfg    configs.Config
	parts  []string
	log    *slog.Logger
	meters *meters

	certificate func(*tls.ClientHelloInfo) (*tls.Certificate, error) // nil without TLS
	authority   *authority                                           // nil unless self-signed
	listeners   []*listener
	relay       *relay                       // nil when it does not run here
	conference  *conference                  // the SFU; nil when it does not run here
	focus       http.Handler                 // the token service of the SFU; nil when it does not run here
	meet        http.Handler                 // meetings; nil when they do not run here
	api         atomic.Pointer[http.Handler] // set when ready
	dns         federation.DNS               // nil: the system's
	clock       signalling.Clock             // the system's; a test sets another before Run
	ready       atomic.Bool
	opened      chan struct{} // closed when ready for the first time
	running     []component

	polling context.Context // ends when long polls have to
	endPoll context.CancelFunc
}

// component is one part as the App starts and stops it; what is nil has nothing to do.
type component struct {
	name  string
	run   func(ctx context.Context) error // works until ctx ends
	drain func(ctx context.Context) error // takes no new work, returns when the old is done or ctx ends
	close func() error
}

// listener is one bound port and what is served on it.
type listener struct {
	key     string // the setting it comes from
	tcp     net.Listener
	handler http.Handler
	secure  bool
}

// New checks cfg, makes the data folder and binds the ports. parts names what to run; none means all.
func New(cfg configs.Config, log *slog.Logger, parts ...string) (*App, error) {
	for _, p := range parts {
		if !slices.Contains(partNames, p) {
			return nil, fmt.Errorf("--only: there is no part %q; choose from %s", p, strings.Join(partNames, ", "))
		}
	}
	if err := cfg.Check(); err != nil {
		return nil, err
	}
	if slices.Contains(parts, "focus") && (!slices.Contains(parts, "sfu") || !slices.Contains(parts, "homeserver") && len(cfg.SFU.Homeserver) == 0) {
		return nil, errors.New("--only: focus lets users into the sfu here, and asks a homeserver who they are: name sfu too, and homeserver or the setting sfu.homeserver")
	}
	a := &App{cfg: cfg, parts: parts, log: log, meters: newMeters(), clock: signalling.SystemClock{}, opened: make(chan struct{})}
	a.polling, a.endPoll = context.WithCancel(context.Background())
	if err := os.MkdirAll(cfg.DataDir, 0o700); err != nil {
		return nil, fmt.Errorf("data_dir: %w", err)
	}
	if err := a.bindAll(); err != nil {
		return nil, errors.Join(err, a.Close())
	}
	return a, nil
}

func (a *App) bindAll() error {
	for _, step := range []func() error{a.openCertificate, a.listen, a.openSFU, a.openRelay} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// has reports whether part runs here.
func (a *App) has(part string) bool { return len(a.parts) == 0 || slices.Contains(a.parts, part) }

func (a *App) openCertificate() error {
	switch a.cfg.TLS.Mode {
	case configs.TLSFiles:
		f, err := certificateFiles(a.cfg.TLS.Certificate, a.cfg.TLS.Key, a.log)
		if err != nil {
			return err
		}
		a.certificate = f.GetCertificate
	case configs.TLSSelfSigned:
		name, _, _ := strings.Cut(a.cfg.ServerName, ":")
		ca, err := selfSigned(a.cfg.DataDir, localNames(append(a.cfg.TLS.Names, name)...), a.log)
		if err != nil {
			return fmt.Errorf("tls.mode self-signed: %w", err)
		}
		a.authority, a.certificate = ca, ca.GetCertificate
	}
	return nil
}

// listen binds the HTTP ports.
func (a *App) listen() error {
	public, private := a.public(), a.private()
	l := a.cfg.Listen
	if err := a.bind("listen.metrics", l.Metrics, private, false); err != nil {
		return err
	}
	if !a.has("homeserver") && !a.has("web") && !a.has("sfu") {
		return nil
	}
	if err := a.bind("listen.client", l.Client, public, false); err != nil {
		return err
	}
	if a.certificate == nil {
		return nil
	}
	if a.cfg.TLS.Mode == configs.TLSFiles {
		public = withoutPlain(public)
	}
	err := a.bind("listen.https", l.HTTPS, public, true)
	if host, port, _ := net.SplitHostPort(l.HTTPS); err != nil && a.authority != nil && port == "443" && errors.Is(err, syscall.EACCES) {
		a.log.Info("port 443 is for root; serving HTTPS on 8443")
		err = a.bind("listen.https", net.JoinHostPort(host, "8443"), public, true)
	}
	if err != nil {
		return err
	}
	if a.has("homeserver") {
		return a.bind("listen.federation", l.Federation, public, true)
	}
	return nil
}

func (a *App) bind(key, address string, h http.Handler, secure bool) error {
	if address == "" {
		return nil
	}
	tcp, err := net.Listen("tcp", address)
	if err != nil {
		return cannotBind(key, err)
	}
	a.listeners = append(a.listeners, &listener{key: key, tcp: tcp, handler: h, secure: secure})
	return nil
}

// cannotBind says what to do about the port of a setting that could not be opened.
func cannotBind(key string, err error) error {
	address := "the address"
	if op := (*net.OpError)(nil); errors.As(err, &op) && op.Addr != nil {
		address = op.Addr.String() + " (" + op.Net + ")"
	}
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Errorf("%s: %s is taken by another program; stop it or choose another port with --set %s=… (%w)", key, address, key, err)
	case errors.Is(err, syscall.EACCES):
		return fmt.Errorf("%s: only root may open %s; choose a port above 1023, or give the binary the right with setcap cap_net_bind_service=+ep (%w)", key, address, err)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return fmt.Errorf("%s: %s is no address of this machine; leave the host out for all that it has (%w)", key, address, err)
	}
	return fmt.Errorf("%s: %w", key, err)
}

// overTCP says whether err comes from opening a TCP port.
func overTCP(err error) bool {
	op := (*net.OpError)(nil)
	return errors.As(err, &op) && strings.HasPrefix(op.Net, "tcp")
}

// Addr is the address bound for a setting such as listen.client, with the port that the system chose where it was 0; "" when it
// is closed.
func (a *App) Addr(key string) string { return a.Addrs()[key] }

// Addrs lists the bound addresses by the setting that they come from; of several addresses for one setting, the first. The TCP side
// of turn.listen is turn.listen/tcp, which differs from UDP's where the port was 0.
func (a *App) Addrs() map[string]string {
	out := map[string]string{}
	for _, l := range a.listeners {
		out[l.key] = l.tcp.Addr().String()
	}
	if a.relay != nil {
		at := a.relay.server.Addrs()
		for key, list := range map[string][]netip.AddrPort{"turn.listen": at.UDP, "turn.listen/tcp": at.TCP, "turn.tls_listen": at.TLS} {
			if len(list) > 0 {
				out[key] = list[0].String()
			}
		}
	}
	if a.conference != nil {
		out["sfu.listen_udp"] = a.conference.transport.Candidates()[len(a.cfg.SFU.PublicAddresses)].String()
	}
	return out
}

// publicURL is where browsers on this machine, or the world, find this server. On localhost it follows the port in use.
func (a *App) publicURL() string {
	if _, port, err := net.SplitHostPort(a.Addr("listen.client")); err == nil && a.cfg.ServerName == "localhost" && a.cfg.PublicURL == "" {
		return "http://localhost:" + port
	}
	return a.cfg.Public()
}

// Ready is closed when every part is open and requests are answered.
func (a *App) Ready() <-chan struct{} { return a.opened }

// Run serves until ctx ends or a part fails, then stops everything in order and waits for it.
func (a *App) Run(ctx context.Context) error {
	servers := make([]*http.Server, 0, len(a.listeners))
	work, working := errgroup.WithContext(context.WithoutCancel(ctx))
	stopParts, stopped := context.WithCancel(working)
	defer stopped()
	for _, l := range a.listeners {
		s := a.server(l.handler)
		servers = append(servers, s)
		var from net.Listener = l.tcp
		if l.secure {
			from = newFront(l.tcp, a.certificate, a.takeRelayed(), a.newCrowd(handshakesEach), a.log)
		}
		work.Go(func() error {
			if err := s.Serve(from); !errors.Is(err, http.ErrServerClosed) {
				return fmt.Errorf("%s: %w", l.key, err)
			}
			return nil
		})
	}

	failed := a.open(ctx)
	if failed == nil {
		for _, c := range a.running {
			if c.run != nil {
				work.Go(func() error {
					if err := c.run(stopParts); err != nil && !errors.Is(err, context.Canceled) {
						return fmt.Errorf("%s: %w", c.name, err)
					}
					return nil
				})
			}
		}
		a.ready.Store(true)
		close(a.opened)
		version, commit, _ := build()
		a.log.Info("ready", "server_name", a.cfg.ServerName, "parts", strings.Join(a.partsHere(), ","), "addresses", a.Addrs(), "version", version, "commit", commit)
		select {
		case <-ctx.Done():
		case <-working.Done(): // its error comes from Wait
		}
		a.drain()
	}

	a.endPoll()
	grace, cancel := context.WithTimeout(context.Background(), httpGrace)
	defer cancel()
	stopHTTP, _ := errgroup.WithContext(grace)
	for _, s := range servers {
		stopHTTP.Go(func() error {
			if s.Shutdown(grace) != nil {
				s.Close() // who still has a request open has had its time
			}
			return nil
		})
	}
	stopHTTP.Wait()
	stopped()
	err := errors.Join(failed, work.Wait(), a.Close())
	if err == nil {
		a.log.Info("stopped")
	}
	return err
}

// drain turns readiness off and lets the parts finish what they do.
func (a *App) drain() {
	a.ready.Store(false)
	ctx, cancel := context.WithTimeout(context.Background(), a.cfg.Shutdown.Drain)
	defer cancel()
	a.log.Info("stopping: no new work from now on", "drain", a.cfg.Shutdown.Drain)
	var drains errgroup.Group
	for _, c := range a.running {
		if c.drain != nil {
			drains.Go(func() error {
				if err := c.drain(ctx); err != nil {
					a.log.Warn("still at work when the time to drain was over", "part", c.name, "err", err)
				}
				return nil
			})
		}
	}
	drains.Wait()
}

// Close gives back ports, files and connections, the last opened first. Run calls it; after that it does nothing.
func (a *App) Close() error {
	a.endPoll()
	var errs []error
	for _, c := range slices.Backward(a.running) {
		if c.close != nil {
			if err := c.close(); err != nil {
				errs = append(errs, fmt.Errorf("%s: %w", c.name, err))
			}
		}
	}
	a.running = nil
	for _, l := range a.listeners {
		if err := l.tcp.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func (a *App) partsHere() []string {
	if len(a.parts) == 0 {
		return partNames
	}
	return a.parts
}
