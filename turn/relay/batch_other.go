// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package relay

import (
	"errors"
	"net/netip"
	"syscall"
)

const best = Portable

// batchSys is empty: the portable engine needs no working memory.
type batchSys struct{}

func (*batchSys) init(*Batch) {}

// loops are none: sockets of the portable engine serve themselves.
type loops struct{}

var errPortable = errors.New("relay: this system has the portable engine only")

func (*loops) start(int) error                                { return errPortable }
func (*loops) stop()                                          {}
func (*loops) open(netip.AddrPort, bool, int) (Socket, error) { return nil, errPortable }

// Workers is how many sockets should share a UDP port that clients send to.
func Workers(Engine) int { return 1 }

// reusePort leaves the socket alone: one socket per listener.
func reusePort(string, string, syscall.RawConn) error { return nil }

// CanSendWhole tells whether this system can set the Don't Fragment bit of single packets.
const CanSendWhole = false

func setWhole(int, bool, bool) {}

// SharePort is a net.ListenConfig's or net.Dialer's Control that lets several sockets be bound to one port where the system can.
func SharePort(string, string, syscall.RawConn) error { return nil }
