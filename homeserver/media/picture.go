// SPDX-License-Identifier: Apache-2.0

package media

import (
	"bytes"
	"encoding/binary"
	"errors"
	"image"
	"image/gif"
	"image/jpeg"
	"image/png"
	"io"

	"golang.org/x/image/webp"
)

// headSize is how much of a file is read to learn what picture it holds: the frame header of a JPEG comes after its EXIF and
// colour profile, each at most 64 KiB (profiles may take several).
const headSize = 512 << 10

var errNotPicture = errors.New("media: not a picture that can be made smaller")

// picture is what the first bytes of a file say, before anything is decoded. Which decoder runs is decided by these bytes and
// never by the type that the uploader named.
type picture struct {
	format        string // jpeg, png, gif, webp
	width, height int
	weight        int64 // bytes of memory that decoding takes, at most
	moves         bool  // may be an animation
	orientation   int   // EXIF 2.32, tag 0x0112: 1 upright … 8; 1 when not said
}

// peek reads the header of a picture.
func peek(head []byte) (p picture, err error) {
	p.orientation = 1
	// Bytes of memory for a pixel while decoding, the picture itself included.
	perPixel := int64(4)
	var c image.Config
	switch {
	case bytes.HasPrefix(head, []byte("\xff\xd8\xff")):
		p.format = "jpeg"
		progressive, orientation := walkJPEG(head)
		if p.orientation = orientation; progressive {
			perPixel = 16 // all coefficients, four bytes each, are kept until the last scan
		}
		c, err = jpeg.DecodeConfig(bytes.NewReader(head))
	case bytes.HasPrefix(head, []byte("\x89PNG\r\n\x1a\n")):
		p.format = "png"
		if len(head) > 24 && head[24] == 16 {
			perPixel = 8
		}
		if i := bytes.Index(head, []byte("acTL")); i >= 0 && i < len(head) {
			p.moves = true
		}
		c, err = png.DecodeConfig(bytes.NewReader(head))
	case bytes.HasPrefix(head, []byte("GIF87a")), bytes.HasPrefix(head, []byte("GIF89a")):
		p.format, p.moves = "gif", true
		c, err = gif.DecodeConfig(bytes.NewReader(head))
	case len(head) >= 12 && string(head[:4]) == "RIFF" && string(head[8:12]) == "WEBP":
		p.format, p.moves = "webp", bytes.Contains(head[:min(len(head), 64)], []byte("ANIM"))
		perPixel = 8 // lossless: the picture and what it refers back to
		c, err = webp.DecodeConfig(bytes.NewReader(head))
	default:
		return p, errNotPicture
	}
	if err != nil || c.Width <= 0 || c.Height <= 0 {
		return p, errors.Join(errNotPicture, err)
	}
	p.width, p.height = c.Width, c.Height
	p.weight = int64(p.width) * int64(p.height) * perPixel // each factor is below 2^31, 2^31 and 2^5 …
	if p.width > 1<<24 || p.height > 1<<24 {               // … which these bounds keep from overflowing
		p.weight = 1 << 62
	}
	return p, nil
}

// decode reads the (first) picture. It may panic on hostile input; the caller guards it.
func (p picture) decode(r io.Reader) (image.Image, error) {
	switch p.format {
	case "jpeg":
		return jpeg.Decode(r)
	case "png":
		return png.Decode(r)
	case "gif":
		return gif.Decode(r)
	case "webp":
		return webp.Decode(r)
	}
	return nil, errNotPicture
}

// upright gives width and height as seen after the orientation is applied.
func (p picture) upright() (w, h int) {
	if p.orientation >= 5 {
		return p.height, p.width
	}
	return p.width, p.height
}

// walkJPEG goes through the marker segments before the first scan (ITU-T T.81, annex B).
func walkJPEG(b []byte) (progressive bool, orientation int) {
	orientation = 1
	for i := 2; i+4 <= len(b) && b[i] == 0xff; {
		marker := b[i+1]
		if marker == 0xff { // fill byte
			i++
			continue
		}
		if marker == 0xd9 || marker == 0xda { // end, start of scan
			return progressive, orientation
		}
		if marker == 0x01 || (marker >= 0xd0 && marker <= 0xd8) { // no length
			i += 2
			continue
		}
		n := int(binary.BigEndian.Uint16(b[i+2:]))
		if n < 2 || i+2+n > len(b) {
			return progressive, orientation
		}
		seg := b[i+4 : i+2+n]
		switch marker {
		case 0xc2:
			progressive = true
		case 0xe1:
			if rest, ok := bytes.CutPrefix(seg, []byte("Exif\x00\x00")); ok {
				orientation = exifOrientation(rest)
			}
		}
		i += 2 + n
	}
	return progressive, orientation
}

// exifOrientation finds tag 0x0112 in the first directory of a TIFF structure; 1 when it is not there or makes no sense.
func exifOrientation(t []byte) int {
	var order binary.ByteOrder
	switch {
	case bytes.HasPrefix(t, []byte("II*\x00")):
		order = binary.LittleEndian
	case bytes.HasPrefix(t, []byte("MM\x00*")):
		order = binary.BigEndian
	default:
		return 1
	}
	if len(t) < 8 {
		return 1
	}
	at := uint64(order.Uint32(t[4:]))
	if at+2 > uint64(len(t)) {
		return 1
	}
	n := uint64(order.Uint16(t[at:]))
	for e := at + 2; n > 0 && e+12 <= uint64(len(t)); e, n = e+12, n-1 {
		if order.Uint16(t[e:]) == 0x0112 && order.Uint16(t[e+2:]) == 3 { // SHORT
			if v := int(order.Uint16(t[e+8:])); v >= 1 && v <= 8 {
				return v
			}
			return 1
		}
	}
	return 1
}
