// SPDX-License-Identifier: Apache-2.0

package media_test

import (
	"bytes"
	"context"
	"image"
	"image/color"
	"image/gif"
	"io"
	"strings"
	"testing"

	"github.com/trunkboard/trunkboard/homeserver/media"
	"github.com/trunkboard/trunkboard/homeserver/storage/storagetest"
	"github.com/trunkboard/trunkboard/signalling/clocktest"
)

// film is a GIF whose first frame is red; each further one paints a green square over a part of it, and takes it away again.
func film(t testing.TB, w, h, n int) string {
	t.Helper()
	colours := color.Palette{color.RGBA{255, 0, 0, 255}, color.RGBA{0, 255, 0, 255}}
	g := &gif.GIF{LoopCount: 3}
	for i := range n {
		r := image.Rect(0, 0, w, h)
		if i > 0 {
			r = image.Rect(w/4, h/4, w/2, h/2)
		}
		f := image.NewPaletted(r, colours)
		if i > 0 {
			for k := range f.Pix {
				f.Pix[k] = 1
			}
		}
		g.Image, g.Delay = append(g.Image, f), append(g.Delay, 10+i)
		disposal := byte(gif.DisposalNone)
		if i > 0 {
			disposal = gif.DisposalPrevious
		}
		g.Disposal = append(g.Disposal, disposal)
	}
	var b bytes.Buffer
	if err := gif.EncodeAll(&b, g); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestAnAnimationStaysOneWhereItIsAskedFor(t *testing.T) {
	h := thumbs{t, open(t, storagetest.Open(t, storagetest.SQLiteURL(t)), clocktest.New(), media.Config{})}
	get := func(id string, animated bool) (string, []byte) {
		t.Helper()
		c, err := h.m.Thumbnail(context.Background(), "test", id, media.Thumb{Width: 32, Height: 32, Animated: animated}, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer c.File.Close()
		b, err := io.ReadAll(c.File)
		if err != nil {
			t.Fatal(err)
		}
		return c.Type, b
	}
	id := h.upload(film(t, 200, 100, 5))
	for range 2 { // made, and found
		typ, b := get(id, true)
		g, err := gif.DecodeAll(bytes.NewReader(b))
		if err != nil || typ != "image/gif" {
			t.Fatalf("%s %v", typ, err)
		}
		if len(g.Image) != 5 || g.LoopCount != 3 || g.Delay[4] != 14 || g.Config.Width != 64 || g.Config.Height != 32 {
			t.Errorf("%d frames, %d loops, delays %v, %d x %d", len(g.Image), g.LoopCount, g.Delay, g.Config.Width, g.Config.Height)
		}
		for i, f := range g.Image {
			want := color.RGBA{255, 0, 0, 255}
			if f.At(60, 30) != want {
				t.Errorf("frame %d: the ground is %v", i, f.At(60, 30))
			}
			if i > 0 {
				want = color.RGBA{0, 255, 0, 255}
			}
			if f.At(24, 12) != want {
				t.Errorf("frame %d: the square is %v, want %v", i, f.At(24, 12), want)
			}
		}
	}
	if typ, _ := get(id, false); typ != "image/jpeg" {
		t.Errorf("an animation that was not asked for: %s", typ)
	}
	if typ, _ := get(h.upload(asPNG(t, quarters(200, 100))), true); typ != "image/png" {
		t.Errorf("a picture that does not move: %s", typ)
	}
	if typ, _ := get(h.upload(film(t, 200, 100, 1)), true); typ != "image/jpeg" {
		t.Errorf("a film of one frame: %s", typ)
	}
	if typ, _ := get(h.upload(film(t, 200, 100, 301)), true); typ != "image/jpeg" {
		t.Errorf("a film of too many frames: %s", typ)
	}
	whole := film(t, 200, 100, 5)
	if typ, _ := get(h.upload(whole[:len(whole)-40]), true); typ != "image/jpeg" {
		t.Errorf("a film that is torn: %s", typ)
	}
}

func TestAnAnimationThatWouldTakeTooMuchMemoryStandsStill(t *testing.T) {
	h := thumbs{t, open(t, storagetest.Open(t, storagetest.SQLiteURL(t)), clocktest.New(), media.Config{MaxDecode: 1 << 20})}
	id := h.upload(film(t, 400, 400, 20)) // 3.2 million pixels, most of them never painted
	c, err := h.m.Thumbnail(context.Background(), "test", id, media.Thumb{Width: 32, Height: 32, Animated: true}, 0)
	if err != nil {
		t.Fatal(err)
	}
	c.File.Close()
	if c.Type == "image/gif" {
		t.Error("it was made")
	}
}

func FuzzFrames(f *testing.F) {
	f.Add([]byte(film(f, 8, 8, 3)))
	f.Add([]byte("GIF89a" + strings.Repeat("\xff", 40)))
	f.Fuzz(func(t *testing.T, b []byte) {
		n, err := media.Frames(bytes.NewReader(b), 1<<20)
		if err != nil {
			return // decoding it may take any amount of memory
		}
		if g, bad := gif.DecodeAll(bytes.NewReader(b)); bad == nil && n != len(g.Image) {
			t.Errorf("%d frames were counted, %d decoded", n, len(g.Image))
		}
	})
}
