// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package relay

import (
	"errors"
	"syscall"
)

const best = Portable

// batchSys is empty: the portable engine needs no working memory.
type batchSys struct{}

func (*batchSys) init(*Batch) {}

func newBatched(*base, *batches) (Socket, error) {
	return nil, errors.New("relay: this system has the portable engine only")
}

// reusePort leaves the socket alone: one socket per listener.
func reusePort(string, string, syscall.RawConn) error { return nil }
