// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/tls"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"
)

// discard is for work that is not worth a log.
var discard = slog.New(slog.DiscardHandler)

// How often a certificate's files are looked at: renewals happen weeks ahead, so a minute is soon enough and costs nothing.
const certificateCheck = time.Minute

// reloading is a certificate in files which somebody else renews.
type reloading struct {
	certificate, key string
	log              *slog.Logger

	mu      sync.Mutex
	current *tls.Certificate
	stamp   [2]time.Time
	checked time.Time
}

// certificateFiles reads a certificate and its key, and reads them again when they have changed.
func certificateFiles(certificate, key string, log *slog.Logger) (*reloading, error) {
	f := &reloading{certificate: certificate, key: key, log: log}
	pair, stamp, err := f.read()
	if err != nil {
		return nil, fmt.Errorf("tls.certificate and tls.key: %w", err)
	}
	f.current, f.stamp, f.checked = pair, stamp, time.Now()
	return f, nil
}

func (f *reloading) stamps() (stamp [2]time.Time, err error) {
	for i, name := range []string{f.certificate, f.key} {
		info, err := os.Stat(name)
		if err != nil {
			return stamp, err
		}
		stamp[i] = info.ModTime()
	}
	return stamp, nil
}

func (f *reloading) read() (*tls.Certificate, [2]time.Time, error) {
	stamp, err := f.stamps()
	if err != nil {
		return nil, stamp, err
	}
	pair, err := tls.LoadX509KeyPair(f.certificate, f.key)
	return &pair, stamp, err
}

// GetCertificate is for tls.Config. While the new files are unreadable or do not fit together, the old certificate serves on.
func (f *reloading) GetCertificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if time.Since(f.checked) < certificateCheck {
		return f.current, nil
	}
	f.checked = time.Now()
	stamp, err := f.stamps()
	if err == nil && stamp == f.stamp {
		return f.current, nil
	}
	pair, stamp, err := f.read()
	if err != nil {
		f.log.Error("the new certificate cannot be read; the old one serves on", "err", err)
		return f.current, nil
	}
	f.log.Info("certificate read again", "until", pair.Leaf.NotAfter)
	f.current, f.stamp = pair, stamp
	return f.current, nil
}
