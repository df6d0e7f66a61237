// SPDX-License-Identifier: Apache-2.0

package media_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/binary"
	"hash/crc32"
	"image"
	"image/color"
	"image/gif"
	"image/jpeg"
	"image/png"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/trunkboard/trunkboard/homeserver/media"
	"github.com/trunkboard/trunkboard/homeserver/storage/storagetest"
	"github.com/trunkboard/trunkboard/signalling/clocktest"
)

// quarters is a picture whose corners are red (top left), green (top right), blue (bottom left) and white.
func quarters(w, h int) *image.RGBA {
	m := image.NewRGBA(image.Rect(0, 0, w, h))
	for y := range h {
		for x := range w {
			c := color.RGBA{255, 0, 0, 255}
			switch {
			case x >= w/2 && y >= h/2:
				c = color.RGBA{255, 255, 255, 255}
			case x >= w/2:
				c = color.RGBA{0, 255, 0, 255}
			case y >= h/2:
				c = color.RGBA{0, 0, 255, 255}
			}
			m.SetRGBA(x, y, c)
		}
	}
	return m
}

func asPNG(t testing.TB, m image.Image) string {
	t.Helper()
	var b bytes.Buffer
	if err := png.Encode(&b, m); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// asJPEG writes a JPEG with an EXIF orientation; 0 writes none.
func asJPEG(t testing.TB, m image.Image, orientation byte) string {
	t.Helper()
	var b bytes.Buffer
	if err := jpeg.Encode(&b, m, &jpeg.Options{Quality: 95}); err != nil {
		t.Fatal(err)
	}
	if orientation == 0 {
		return b.String()
	}
	tiff := "MM\x00*\x00\x00\x00\x08\x00\x01\x01\x12\x00\x03\x00\x00\x00\x01\x00" + string(rune(orientation)) + "\x00\x00\x00\x00\x00\x00"
	seg := "Exif\x00\x00" + tiff
	size := len(seg) + 2
	return b.String()[:2] + "\xff\xe1" + string([]byte{byte(size >> 8), byte(size)}) + seg + b.String()[2:]
}

func asGIF(t testing.TB, m image.Image) string {
	t.Helper()
	var b bytes.Buffer
	frame := image.NewPaletted(m.Bounds(), color.Palette{color.White, color.Black, color.RGBA{255, 0, 0, 255}})
	if err := gif.EncodeAll(&b, &gif.GIF{Image: []*image.Paletted{frame, frame}, Delay: []int{10, 10}}); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// aWebP is one pixel, lossless.
var aWebP = func() string {
	b, _ := base64.StdEncoding.DecodeString("UklGRhoAAABXRUJQVlA4TA0AAAAvAAAAEAcQERGIiP4HAA==")
	return string(b)
}()

type thumbs struct {
	t *testing.T
	m *media.Service
}

func (h thumbs) upload(content string) string {
	h.t.Helper()
	uri, err := h.m.Upload(context.Background(), alice, media.Incoming{Body: strings.NewReader(content), Length: int64(len(content)), ContentType: "text/html", FileName: "x"})
	if err != nil {
		h.t.Fatal(err)
	}
	return idOf(h.t, uri)
}

func (h thumbs) thumb(id string, want media.Thumb) (string, string, image.Image) {
	h.t.Helper()
	c, err := h.m.Thumbnail(context.Background(), "test", id, want, 0)
	if err != nil {
		h.t.Fatalf("%+v: %v", want, err)
	}
	b := read(h.t, c)
	m, format, err := image.Decode(strings.NewReader(b))
	if err != nil {
		h.t.Fatalf("%+v: %v", want, err)
	}
	if c.Type != "image/"+format {
		h.t.Errorf("%+v: type %s of a %s", want, c.Type, format)
	}
	return format, b, m
}

func TestThumbnailsCoverWhatIsAskedForAndNeverEnlarge(t *testing.T) {
	h := thumbs{t, open(t, storagetest.Open(t, storagetest.SQLiteURL(t)), clocktest.New(), media.Config{})}
	wide := h.upload(asPNG(t, quarters(800, 400)))
	small := asPNG(t, quarters(20, 20))
	smallID := h.upload(small)
	for _, c := range []struct {
		id     string
		want   media.Thumb
		ow, oh int
	}{
		{wide, media.Thumb{Width: 32, Height: 32, Crop: true}, 32, 32},
		{wide, media.Thumb{Width: 96, Height: 96, Crop: true}, 96, 96},
		{wide, media.Thumb{Width: 90, Height: 33, Crop: true}, 96, 64},
		{wide, media.Thumb{Width: 320, Height: 240}, 480, 240},
		{wide, media.Thumb{Width: 32, Height: 32}, 64, 32},
		{wide, media.Thumb{Width: 640, Height: 480}, 800, 400},   // would have to be enlarged
		{wide, media.Thumb{Width: 9999, Height: 9999}, 800, 400}, // likewise
		{smallID, media.Thumb{Width: 32, Height: 32, Crop: true}, 20, 20},
	} {
		format, body, m := h.thumb(c.id, c.want)
		if b := m.Bounds(); b.Dx() != c.ow || b.Dy() != c.oh {
			t.Errorf("%+v: %dx%d, want %dx%d", c.want, b.Dx(), b.Dy(), c.ow, c.oh)
		}
		if c.id == smallID && body != small {
			t.Errorf("a small picture came back as another %s", format)
		}
	}
}

func TestThumbnailsKeepTransparencyAndStandUpright(t *testing.T) {
	h := thumbs{t, open(t, storagetest.Open(t, storagetest.SQLiteURL(t)), clocktest.New(), media.Config{})}
	clear := quarters(200, 200)
	for i := range clear.Pix {
		clear.Pix[i] /= 2
	}
	if format, _, _ := h.thumb(h.upload(asPNG(t, clear)), media.Thumb{Width: 32, Height: 32}); format != "png" {
		t.Errorf("a transparent picture became %s", format)
	}
	// Where the stored red, green, blue and white corners belong: top left, top right, bottom left, bottom right.
	for orientation, corners := range map[byte]string{0: "rgbw", 1: "rgbw", 2: "grwb", 3: "wbgr", 4: "bwrg", 5: "rbgw", 6: "brwg", 7: "wgbr", 8: "gwrb", 9: "rgbw"} {
		_, _, m := h.thumb(h.upload(asJPEG(t, quarters(320, 160), orientation)), media.Thumb{Width: 64, Height: 64})
		b := m.Bounds()
		got := ""
		for _, p := range []image.Point{{b.Min.X + 8, b.Min.Y + 8}, {b.Max.X - 8, b.Min.Y + 8}, {b.Min.X + 8, b.Max.Y - 8}, {b.Max.X - 8, b.Max.Y - 8}} {
			r, g, bl, _ := m.At(p.X, p.Y).RGBA()
			switch {
			case r > 0xc000 && g > 0xc000 && bl > 0xc000:
				got += "w"
			case r > 0xc000:
				got += "r"
			case g > 0xc000:
				got += "g"
			case bl > 0xc000:
				got += "b"
			}
		}
		if got != corners || (orientation >= 5 && orientation <= 8) != (b.Dy() > b.Dx()) {
			t.Errorf("orientation %d: corners %s in %v, want %s", orientation, got, b, corners)
		}
	}
}

func TestADrawingStaysAPNGAndAPhotographDoesNotBecomeALargeOne(t *testing.T) {
	h := thumbs{t, open(t, storagetest.Open(t, storagetest.SQLiteURL(t)), clocktest.New(), media.Config{})}
	drawing, photo := quarters(1000, 1000), quarters(1000, 1000)
	noise := rand.New(rand.NewPCG(1, 2))
	for i := range photo.Pix {
		if i%4 != 3 { // alpha
			photo.Pix[i] = byte(noise.Uint32())
		}
	}
	for name, c := range map[string]struct {
		content, want string
		size          int
	}{
		"a drawing":              {asPNG(t, drawing), "png", 640},
		"a small photograph":     {asPNG(t, photo), "png", 96},
		"a photograph":           {asPNG(t, photo), "jpeg", 640},
		"a photograph as a JPEG": {asJPEG(t, photo, 0), "jpeg", 96},
	} {
		if format, b, _ := h.thumb(h.upload(c.content), media.Thumb{Width: c.size, Height: c.size}); format != c.want {
			t.Errorf("%s of %d pixels: a %s of %d bytes", name, c.size, format, len(b))
		}
	}
}

func TestAnimationsBecomeTheirFirstFrame(t *testing.T) {
	h := thumbs{t, open(t, storagetest.Open(t, storagetest.SQLiteURL(t)), clocktest.New(), media.Config{})}
	for name, content := range map[string]string{"large gif": asGIF(t, quarters(300, 300)), "small gif": asGIF(t, quarters(10, 10)), "webp": aWebP} {
		if format, _, _ := h.thumb(h.upload(content), media.Thumb{Width: 96, Height: 96}); format != "jpeg" && format != "png" {
			t.Errorf("%s: became %s", name, format)
		}
	}
}

// hugePNG says it has w x h pixels.
func hugePNG(w, h uint32) string {
	head := []byte("IHDR\x00\x00\x00\x00\x00\x00\x00\x00\x08\x06\x00\x00\x00")
	binary.BigEndian.PutUint32(head[4:], w)
	binary.BigEndian.PutUint32(head[8:], h)
	return "\x89PNG\r\n\x1a\n\x00\x00\x00\x0d" + string(head) + string(binary.BigEndian.AppendUint32(nil, crc32.ChecksumIEEE(head)))
}

func TestBombsAreRefusedFromTheirHeaders(t *testing.T) {
	h := thumbs{t, open(t, storagetest.Open(t, storagetest.SQLiteURL(t)), clocktest.New(), media.Config{MaxDecode: 4 << 20})}
	hugeGIF := asGIF(t, quarters(10, 10))
	hugeGIF = hugeGIF[:6] + "\xff\xff\xff\xff" + hugeGIF[10:]
	for name, c := range map[string]struct{ content, code string }{
		"65,000 x 65,000 png": {hugePNG(65000, 65000), "M_TOO_LARGE"},
		"png of 2^31 pixels":  {hugePNG(1<<31-1, 1), "M_TOO_LARGE"},
		"65,535 x 65,535 gif": {hugeGIF, "M_TOO_LARGE"},
		"2,000 x 2,000 png":   {asPNG(t, image.NewRGBA(image.Rect(0, 0, 2000, 2000))), "M_TOO_LARGE"},
		"gif in a lying frame": {func() string { // a frame of 200x200 in a picture of 10x10
			g := asGIF(t, quarters(200, 200))
			return g[:6] + "\x0a\x00\x0a\x00" + g[10:]
		}(), "M_UNKNOWN"},
		"cut png":  {asPNG(t, quarters(300, 300))[:200], "M_UNKNOWN"},
		"text":     {"hello", "M_UNKNOWN"},
		"nothing":  {"", "M_UNKNOWN"},
		"svg":      {`<svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)"/>`, "M_UNKNOWN"},
		"tiff":     {"II*\x00\x08\x00\x00\x00", "M_UNKNOWN"},
		"bmp":      {"BM\x00\x00\x00\x00", "M_UNKNOWN"},
		"only EOI": {"\xff\xd8\xff\xd9", "M_UNKNOWN"},
	} {
		_, err := h.m.Thumbnail(context.Background(), "test", h.upload(c.content), media.Thumb{Width: 32, Height: 32}, 0)
		wantCode(t, name, err, c.code)
	}
	_, err := h.m.Thumbnail(context.Background(), "test", h.upload("x"), media.Thumb{Width: 0, Height: 32}, 0)
	wantCode(t, "no width", err, "M_INVALID_PARAM")
}

// scans is a progressive JPEG whose scans never end, as a file: each is a few bytes long and goes over the whole picture.
type scans struct {
	head, scan []byte
	read       int
}

func (s *scans) Read(p []byte) (n int, err error) {
	for n < len(p) {
		if s.read < len(s.head) {
			p[n] = s.head[s.read]
		} else {
			p[n] = s.scan[(s.read-len(s.head))%len(s.scan)]
		}
		s.read++
		n++
	}
	return n, nil
}

func TestAPictureThatTakesForeverIsGivenUp(t *testing.T) {
	head := []byte("\xff\xd8\xff\xdb\x00\x43\x00" + strings.Repeat("\x01", 64) + // one quantisation table
		"\xff\xc2\x00\x0b\x08\x08\x00\x08\x00\x01\x01\x11\x00" + // progressive, 2048 x 2048, grey
		"\xff\xc4\x00\x14\x10\x01" + strings.Repeat("\x00", 15) + "\xe0" + // AC table: the one code 0 means: the next 2^14 blocks hold nothing
		"\xff\xc4\x00\x14\x00\x01" + strings.Repeat("\x00", 15) + "\x00") // DC table: the one code 0 means: no difference
	dc := "\xff\xda\x00\x08\x01\x01\x00\x00\x00\x00" + strings.Repeat("\x00", 8192)
	ac := "\xff\xda\x00\x08\x01\x01\x00\x01\x3f\x00" + strings.Repeat("\x00", 40)
	bomb := &scans{head: append(head, dc...), scan: []byte(ac)}
	started := time.Now()
	_, err := jpeg.Decode(media.Hurried(bomb, started.Add(300*time.Millisecond)))
	if err == nil || !strings.Contains(err.Error(), "too long") {
		t.Errorf("decoded to %v", err)
	}
	if took := time.Since(started); took < 300*time.Millisecond || took > 20*time.Second || bomb.read <= len(bomb.head) {
		t.Errorf("given up after %v and %d bytes", took, bomb.read)
	}
}

func TestManyWhoWantOneThumbnailShareTheWork(t *testing.T) {
	dir := t.TempDir()
	h := thumbs{t, open(t, storagetest.Open(t, storagetest.SQLiteURL(t)), clocktest.New(), media.Config{Dir: dir, Workers: 1})}
	id := h.upload(asPNG(t, quarters(600, 600)))
	var wg sync.WaitGroup
	for range 40 {
		wg.Go(func() {
			c, err := h.m.Thumbnail(context.Background(), "test", id, media.Thumb{Width: 96, Height: 96, Crop: true}, 0)
			if err != nil {
				t.Error(err)
				return
			}
			_ = c.File.Close()
		})
	}
	wg.Wait()
	if n := files(t, dir, "thumbnails"); len(n) != 1 || !strings.HasSuffix(n[0], "96x96-crop.png") {
		t.Errorf("thumbnails: %q", n)
	}
	if n := files(t, dir, "incoming"); len(n) != 0 {
		t.Errorf("left behind: %q", n)
	}
}

func FuzzThumbnail(f *testing.F) {
	f.Add([]byte(asPNG(f, quarters(9, 7))))
	f.Add([]byte(asJPEG(f, quarters(33, 17), 6)))
	f.Add([]byte(asGIF(f, quarters(5, 5))))
	f.Add([]byte(aWebP))
	f.Add([]byte(hugePNG(1<<30, 1<<30)))
	f.Fuzz(func(t *testing.T, b []byte) {
		w, h, out, err := media.Shrink(b, media.Thumb{Width: 32, Height: 32, Crop: len(b)%2 == 0}, 1<<20)
		if err != nil {
			return
		}
		c, _, err := image.DecodeConfig(bytes.NewReader(out))
		if err != nil {
			t.Fatalf("the thumbnail cannot be read: %v", err)
		}
		if c.Width > w || c.Height > h || c.Width < min(w, 32) || c.Height < min(h, 32) {
			t.Fatalf("a thumbnail of %dx%d from %dx%d", c.Width, c.Height, w, h)
		}
	})
}

// BenchmarkThumbnailOfAPhoto makes the 800x600 thumbnail of a 12-megapixel photo.
func BenchmarkThumbnailOfAPhoto(b *testing.B) {
	photo := []byte(asJPEG(b, quarters(4000, 3000), 6))
	b.ReportAllocs()
	for b.Loop() {
		if _, _, _, err := media.Shrink(photo, media.Thumb{Width: 800, Height: 600}, 160<<20); err != nil {
			b.Fatal(err)
		}
	}
}
