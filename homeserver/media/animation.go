// SPDX-License-Identifier: Apache-2.0

package media

import (
	"bufio"
	"bytes"
	"errors"
	"image"
	"image/color"
	"image/color/palette"
	"image/gif"
	"io"
	"slices"
	"time"

	"golang.org/x/image/draw"
)

// Animated thumbnails (client-server API, "animated"): a GIF stays a GIF, made of its frames as they look on the screen. The frames of
// an animated PNG or WebP are read by none of the libraries here, so such a picture is given as it is when it is small enough to be its
// own thumbnail, and as its first frame otherwise.

const (
	maxFrames   = 300     // of a GIF that is made smaller; one with more becomes its first frame
	maxAnimated = 1 << 20 // bytes of an animated PNG or WebP that is its own thumbnail
)

var errStill = errors.New("media: no animation, or one that is too long")

// frames counts the frames of a GIF and the pixels in them, without decoding any (GIF89a, sections 17 to 27). It gives up where the
// bounds are passed.
func frames(r io.Reader, maxPixels int64) (n int, err error) {
	b := bufio.NewReader(r)
	head := make([]byte, 13)
	if _, err := io.ReadFull(b, head); err != nil {
		return 0, err
	}
	skipTable := func(flags byte) error {
		if flags&0x80 == 0 {
			return nil
		}
		_, err := b.Discard(3 << (flags&7 + 1))
		return err
	}
	skipBlocks := func() error {
		for {
			size, err := b.ReadByte()
			if err != nil || size == 0 {
				return err
			}
			if _, err := b.Discard(int(size)); err != nil {
				return err
			}
		}
	}
	if err := skipTable(head[10]); err != nil {
		return 0, err
	}
	var pixels int64
	for {
		kind, err := b.ReadByte()
		if err != nil {
			return 0, err
		}
		switch kind {
		case 0x3b:
			return n, nil
		case 0x21:
			if _, err := b.Discard(1); err != nil {
				return 0, err
			}
		case 0x2c:
			frame := make([]byte, 9)
			if _, err := io.ReadFull(b, frame); err != nil {
				return 0, err
			}
			n++
			pixels += int64(uint16(frame[4])|uint16(frame[5])<<8) * int64(uint16(frame[6])|uint16(frame[7])<<8)
			if n > maxFrames || pixels > maxPixels {
				return 0, errStill
			}
			if err := skipTable(frame[8]); err != nil {
				return 0, err
			}
			if _, err := b.Discard(1); err != nil {
				return 0, err
			}
		default:
			return 0, errStill
		}
		if err := skipBlocks(); err != nil {
			return 0, err
		}
	}
}

// shrinkGIF makes every frame of a GIF smaller, up to a time.
func shrinkGIF(r io.Reader, p picture, want Thumb, until time.Time) (out []byte, err error) {
	g, err := gif.DecodeAll(r)
	if err != nil {
		return nil, err
	}
	if len(g.Image) < 2 || g.Config.Width > p.width || g.Config.Height > p.height {
		return nil, errStill
	}
	screen := image.NewRGBA(image.Rect(0, 0, p.width, p.height))
	before := image.NewRGBA(screen.Rect)
	colours := coloursOf(g)
	near := nearest{palette: colours}
	small := &gif.GIF{LoopCount: g.LoopCount, Delay: g.Delay}
	for i, frame := range g.Image {
		if time.Now().After(until) {
			return nil, errors.New("media: the animation takes too long")
		}
		disposal := byte(0)
		if i < len(g.Disposal) {
			disposal = g.Disposal[i]
		}
		if disposal == gif.DisposalPrevious {
			copy(before.Pix, screen.Pix)
		}
		draw.Draw(screen, frame.Rect, frame, frame.Rect.Min, draw.Over)
		small.Image = append(small.Image, near.paint(scale(screen, 1, want)))
		small.Disposal = append(small.Disposal, gif.DisposalBackground)
		switch disposal {
		case gif.DisposalBackground:
			draw.Draw(screen, frame.Rect, image.Transparent, image.Point{}, draw.Src)
		case gif.DisposalPrevious:
			copy(screen.Pix, before.Pix)
		}
	}
	small.Config = image.Config{ColorModel: colours, Width: small.Image[0].Rect.Dx(), Height: small.Image[0].Rect.Dy()}
	var b bytes.Buffer
	err = gif.EncodeAll(&b, small)
	return b.Bytes(), err
}

// coloursOf is the palette of the smaller GIF: that of all frames when they share one, and one for everything otherwise. Its last colour
// is none at all.
func coloursOf(g *gif.GIF) color.Palette {
	shared := g.Image[0].Palette
	for _, f := range g.Image[1:] {
		if !slices.Equal(shared, f.Palette) {
			shared = palette.Plan9
			break
		}
	}
	out := make(color.Palette, 0, 256)
	for _, c := range shared {
		if _, _, _, a := c.RGBA(); a == 0xffff && len(out) < 255 {
			out = append(out, c)
		}
	}
	return append(out, color.RGBA{})
}

// nearest finds the colours of a palette that come nearest to others, and remembers them.
type nearest struct {
	palette color.Palette
	known   [1 << 15]uint16 // by five bits of each colour: index + 1
}

func (n *nearest) paint(src *image.RGBA) *image.Paletted {
	none := uint8(len(n.palette) - 1)
	dst := image.NewPaletted(src.Rect, n.palette)
	opaque := n.palette[:none]
	for i, at := 0, 0; at < len(src.Pix); i, at = i+1, at+4 {
		px := src.Pix[at : at+4 : at+4]
		if px[3] < 0x80 || len(opaque) == 0 {
			dst.Pix[i] = none
			continue
		}
		key := int(px[0]>>3)<<10 | int(px[1]>>3)<<5 | int(px[2]>>3)
		if n.known[key] == 0 {
			n.known[key] = uint16(opaque.Index(color.RGBA{px[0], px[1], px[2], 0xff})) + 1
		}
		dst.Pix[i] = uint8(n.known[key] - 1)
	}
	return dst
}
