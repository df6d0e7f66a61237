// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/big"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/renameio/v2"
)

const (
	authorityLife = 10 * 365 * 24 * time.Hour
	leafLife      = 397 * 24 * time.Hour // the longest that browsers took from public authorities, and they tend to measure others by it
	leafRenewal   = 30 * 24 * time.Hour  // before its end
)

// The authority may speak for addresses that mean something else in every network, and for the names it was made with: whoever
// trusts it for a try-out, and whoever steals its key, cannot use it against the rest of the web (RFC 5280 section 4.2.1.10).
var authorityNetworks = []string{
	"127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16", "100.64.0.0/10", "::1/128", "fc00::/7", "fe80::/10",
}

// authority is the certificate authority of one data folder, and the leaf it made for the names this machine has.
type authority struct {
	folder string
	names  []string // DNS names and IP addresses of the leaf
	log    *slog.Logger

	mu   sync.Mutex
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	leaf *tls.Certificate
}

// selfSigned opens the authority kept in dataDir, or makes one, with a leaf for names. A kept authority that may not speak for one
// of the names is replaced, and devices have to be told to trust the new one.
func selfSigned(dataDir string, names []string, log *slog.Logger) (*authority, error) {
	a := &authority{folder: filepath.Join(dataDir, "ca"), names: names, log: log}
	if err := os.MkdirAll(a.folder, 0o700); err != nil {
		return nil, err
	}
	err := a.read()
	if err == nil {
		_, err = a.renew()
		if err == nil {
			return a, nil
		}
	}
	if !errors.Is(err, fs.ErrNotExist) {
		log.Warn("the kept certificate authority cannot serve this machine's names and is replaced; devices must trust the new one", "err", err)
	}
	if err := a.create(); err != nil {
		return nil, err
	}
	_, err = a.renew()
	return a, err
}

// File is where the authority's certificate lies, for people to copy to their devices.
func (a *authority) File() string { return filepath.Join(a.folder, "trunkboard-ca.pem") }

func (a *authority) keyFile() string { return filepath.Join(a.folder, "key.pem") }

// Certificate is the same in memory, as PEM.
func (a *authority) Certificate() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw})
}

// Fingerprint is what devices show before they trust the authority: SHA-256, in pairs of digits.
func (a *authority) Fingerprint() string {
	sum := sha256.Sum256(a.cert.Raw)
	return strings.ReplaceAll(fmt.Sprintf("% X", sum[:]), " ", ":")
}

func (a *authority) read() error {
	pair, err := tls.LoadX509KeyPair(a.File(), a.keyFile())
	if err != nil {
		return err
	}
	key, ok := pair.PrivateKey.(*ecdsa.PrivateKey)
	if !ok || time.Until(pair.Leaf.NotAfter) < leafLife {
		return errors.New("it is too old")
	}
	a.cert, a.key = pair.Leaf, key
	return nil
}

func (a *authority) create() error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	template := &x509.Certificate{
		SerialNumber:                serial(),
		Subject:                     pkix.Name{CommonName: "Trunkboard on " + hostName(), Organization: []string{"Trunkboard local authority"}},
		NotBefore:                   time.Now().Add(-time.Hour), // clocks of phones differ
		NotAfter:                    time.Now().Add(authorityLife),
		KeyUsage:                    x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid:       true,
		IsCA:                        true,
		MaxPathLenZero:              true,
		PermittedDNSDomainsCritical: true,
	}
	for _, n := range authorityNetworks {
		_, network, err := net.ParseCIDR(n)
		if err != nil {
			return err
		}
		template.PermittedIPRanges = append(template.PermittedIPRanges, network)
	}
	for _, name := range a.names {
		ip := net.ParseIP(name)
		if ip == nil {
			template.PermittedDNSDomains = append(template.PermittedDNSDomains, name)
		} else if !slices.ContainsFunc(template.PermittedIPRanges, func(n *net.IPNet) bool { return n.Contains(ip) }) {
			bits := 8 * len(ip)
			if four := ip.To4(); four != nil {
				ip, bits = four, 32
			}
			template.PermittedIPRanges = append(template.PermittedIPRanges, &net.IPNet{IP: ip, Mask: net.CIDRMask(bits, bits)})
		}
	}
	raw, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return err
	}
	if a.cert, err = x509.ParseCertificate(raw); err != nil {
		return err
	}
	a.key = key
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	// The key first: a certificate without its key would be found broken and replaced after people trusted it.
	if err := renameio.WriteFile(a.keyFile(), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}), 0o600); err != nil {
		return err
	}
	return renameio.WriteFile(a.File(), a.Certificate(), 0o644)
}

// renew makes a leaf with a key of its own, in memory only, and checks it as a browser would.
func (a *authority) renew() (*tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: serial(),
		Subject:      pkix.Name{CommonName: "Trunkboard"},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(leafLife - time.Hour),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	for _, name := range a.names {
		if ip := net.ParseIP(name); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, name)
		}
	}
	raw, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	if err != nil {
		return nil, err
	}
	leaf, err := x509.ParseCertificate(raw)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	roots.AddCert(a.cert)
	if _, err := leaf.Verify(x509.VerifyOptions{Roots: roots}); err != nil {
		return nil, err
	}
	a.leaf = &tls.Certificate{Certificate: [][]byte{raw, a.cert.Raw}, PrivateKey: key, Leaf: leaf}
	return a.leaf, nil
}

// GetCertificate is for tls.Config; a server that runs for a year gets a new leaf in time.
func (a *authority) GetCertificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if time.Until(a.leaf.Leaf.NotAfter) < leafRenewal {
		a.log.Info("making a new certificate; the authority stays")
		return a.renew()
	}
	return a.leaf, nil
}

func serial() *big.Int {
	b := make([]byte, 16)
	rand.Read(b)
	b[0] &= 0x7f // positive, RFC 5280 section 4.1.2.2
	return new(big.Int).SetBytes(bytes.TrimLeft(b, "\x00"))
}

func hostName() string {
	if h, err := os.Hostname(); err == nil && h != "" {
		return h
	}
	return "this machine"
}

// localNames lists the names and addresses by which devices nearby may reach this machine, then more, each once.
func localNames(more ...string) []string {
	names := []string{"localhost", "127.0.0.1", "::1"}
	if h, err := os.Hostname(); err == nil && h != "" && net.ParseIP(h) == nil {
		names = append(names, strings.ToLower(h), strings.ToLower(strings.TrimSuffix(h, ".local"))+".local") // .local: mDNS, RFC 6762
	}
	for _, a := range lanAddresses() {
		names = append(names, a.String())
	}
	names = append(names, more...)
	var once []string
	for _, n := range names {
		if n != "" && !slices.Contains(once, n) {
			once = append(once, n)
		}
	}
	return once
}

// lanAddresses lists the addresses of interfaces that are up, IPv4 first, without loopback and link-local ones.
func lanAddresses() (out []netip.Addr) {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return nil
	}
	for _, a := range addrs {
		n, ok := a.(*net.IPNet)
		if !ok {
			continue
		}
		if ip, ok := netip.AddrFromSlice(n.IP); ok {
			if ip = ip.Unmap(); ip.IsGlobalUnicast() { // private ones are global unicast in this sense
				out = append(out, ip)
			}
		}
	}
	slices.SortStableFunc(out, func(x, y netip.Addr) int { return x.BitLen() - y.BitLen() })
	return out
}
