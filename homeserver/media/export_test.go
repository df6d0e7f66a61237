// SPDX-License-Identifier: Apache-2.0

package media

import (
	"bytes"
	"io"
	"time"
)

// DiskError is diskError for tests.
func DiskError(err error) error { return diskError(err) }

// Shrink is what Thumbnail does with bytes: header first, then, below maxDecode bytes of memory, the picture. It gives the size of
// the upright original.
func Shrink(b []byte, want Thumb, maxDecode int64) (w, h int, out []byte, err error) {
	p, err := peek(b)
	if err != nil || p.weight > maxDecode {
		return 0, 0, nil, errNotPicture
	}
	w, h = p.upright()
	_, out, err = shrink(bytes.NewReader(b), p, want)
	return w, h, out, err
}

// Hurried is a reader that ends with an error after a time.
func Hurried(r io.Reader, until time.Time) io.Reader { return &hurried{r, until} }

// Frames counts the frames of a GIF.
func Frames(r io.Reader, maxPixels int64) (int, error) { return frames(r, maxPixels) }
