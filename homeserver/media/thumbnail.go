// SPDX-License-Identifier: Apache-2.0

package media

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"image"
	"image/jpeg"
	"image/png"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/image/draw"

	"github.com/trunkboard/trunkboard/homeserver/storage"
	"github.com/trunkboard/trunkboard/signalling"
)

// Thumb is the thumbnail that a client asks for.
type Thumb struct {
	Width, Height int  // pixels, at least
	Crop          bool // the exact shape of Width x Height; otherwise the shape of the original
	Animated      bool // an animation may stay one
}

// Asked is the query of a request.
type Asked interface {
	Param(name string) string
	IntParam(name string, fallback, low, high int64) (int64, error)
}

// AskedThumb reads the query of a thumbnail: width, height, method and animated. Errors: M_MISSING_PARAM, M_INVALID_PARAM.
func AskedThumb(q Asked) (Thumb, error) {
	want := Thumb{Animated: q.Param("animated") == "true"}
	for _, side := range []struct {
		name string
		to   *int
	}{{"width", &want.Width}, {"height", &want.Height}} {
		if q.Param(side.name) == "" {
			return Thumb{}, signalling.MissingParam("%s is missing", side.name)
		}
		n, err := q.IntParam(side.name, 0, 1, 1<<16)
		if err != nil {
			return Thumb{}, err
		}
		*side.to = int(n)
	}
	switch q.Param("method") {
	case "", "scale":
	case "crop":
		want.Crop = true
	default:
		return Thumb{}, signalling.InvalidParam("method must be scale or crop")
	}
	return want, nil
}

// steps are the widths and heights in which thumbnails are made: a wish is rounded up to the next one, so one picture can fill the
// disk with a small number of files only. The sizes that the spec recommends are among them.
var steps = [...]int{32, 64, 96, 160, 240, 320, 480, 600, 640, 800, 1024, 1600}

func (t Thumb) rounded() Thumb {
	up := func(v int) int {
		for _, s := range steps {
			if v <= s {
				return s
			}
		}
		return steps[len(steps)-1]
	}
	return Thumb{up(t.Width), up(t.Height), t.Crop, t.Animated}
}

func (t Thumb) file() string {
	method := "scale"
	if t.Crop {
		method = "crop"
	}
	if t.Animated {
		method += "-animated"
	}
	return fmt.Sprintf("%dx%d-%s", t.Width, t.Height, method)
}

// maxQueue bounds the thumbnails that wait to be made; beyond it clients are told to come back.
const maxQueue = 64

// Thumbnail gives a smaller copy of a picture, made when it is first asked for. A picture that is smaller than what is asked for
// is given as it is; an animation becomes its first frame, unless want says that it may stay one and that can be done. Errors: those of Open; 400 M_UNKNOWN (not a picture), M_TOO_LARGE (more
// pixels than the server decodes), M_INVALID_PARAM (size), M_LIMIT_EXCEEDED (too many are being made).
func (s *Service) Thumbnail(ctx context.Context, server, id string, want Thumb, wait time.Duration) (*Content, error) {
	if want.Width <= 0 || want.Height <= 0 {
		return nil, signalling.InvalidParam("width and height must be positive")
	}
	m, err := s.await(ctx, server, id, wait)
	if err != nil {
		return nil, err
	}
	want = want.rounded()
	base := filepath.Join(s.disk.thumbnailDir(m.SHA256), want.file())
	if c, err := openThumb(m, base, want); err == nil || !errors.Is(err, fs.ErrNotExist) {
		return c, err
	}
	f, err := os.Open(s.disk.contentPath(m.SHA256))
	if err != nil {
		return nil, fmt.Errorf("content of %s: %w", s.uri(id), err)
	}
	p, err := s.examine(f)
	if err == nil && want.Animated && !s.canMove(f, p, m.Size, want) {
		want.Animated = false
		base = filepath.Join(s.disk.thumbnailDir(m.SHA256), want.file())
		if c, err := openThumb(m, base, want); err == nil || !errors.Is(err, fs.ErrNotExist) {
			return c, errors.Join(err, f.Close())
		}
	}
	if err != nil || (s.asItIs(p, want)) {
		if err != nil {
			return nil, errors.Join(err, f.Close())
		}
		return &Content{File: f, Size: m.Size, Type: "image/" + p.format, Name: m.FileName, Tag: m.SHA256, Modified: time.UnixMilli(m.CreatedTS)}, nil
	}
	defer f.Close()
	err = s.make(f, p, base, want)
	if err != nil && want.Animated { // one of the later frames may be broken
		want.Animated = false
		base = filepath.Join(s.disk.thumbnailDir(m.SHA256), want.file())
		if _, err = f.Seek(0, io.SeekStart); err == nil {
			err = s.make(f, p, base, want)
		}
	}
	if err != nil {
		return nil, err
	}
	return openThumb(m, base, want)
}

// asItIs says that the original itself is the answer.
func (s *Service) asItIs(p picture, want Thumb) bool {
	w, h := p.upright()
	if want.Animated && p.format != "gif" {
		return true // see canMove
	}
	return (w <= want.Width || h <= want.Height) && !p.moves && p.orientation == 1 && p.format != "webp"
}

// canMove says that an animated thumbnail of the picture can be had: made of a GIF whose frames are not too many, or the picture itself.
// It leaves f at its beginning.
func (s *Service) canMove(f *os.File, p picture, size int64, want Thumb) bool {
	if !p.moves {
		return false
	}
	if p.format != "gif" {
		return size <= maxAnimated && p.width <= 2*want.Width && p.height <= 2*want.Height
	}
	n, err := frames(&hurried{f, time.Now().Add(decodeTime)}, s.cfg.MaxDecode)
	_, back := f.Seek(0, io.SeekStart)
	// Every frame is drawn on the whole screen.
	return err == nil && back == nil && n > 1 && int64(n)*int64(p.width)*int64(p.height) <= s.cfg.MaxDecode
}

func (s *Service) examine(f *os.File) (picture, error) {
	head := make([]byte, headSize)
	n, err := io.ReadFull(f, head)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
		return picture{}, err
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return picture{}, err
	}
	p, err := peek(head[:n])
	if err != nil {
		return p, cannotThumbnail(err)
	}
	if p.weight > s.cfg.MaxDecode {
		return p, signalling.TooLarge("the picture has too many pixels for a thumbnail (%d x %d)", p.width, p.height)
	}
	return p, nil
}

func cannotThumbnail(cause error) error {
	return signalling.Refuse(400, "M_UNKNOWN", "cannot make a thumbnail of this content").Because(cause)
}

func openThumb(m storage.Media, base string, want Thumb) (*Content, error) {
	for _, kind := range [...]struct{ ext, typ string }{{".jpg", "image/jpeg"}, {".png", "image/png"}, {".gif", "image/gif"}} {
		f, err := os.Open(base + kind.ext)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		i, err := f.Stat()
		if err != nil {
			return nil, errors.Join(err, f.Close())
		}
		return &Content{File: f, Size: i.Size(), Type: kind.typ, Name: "thumbnail" + kind.ext, Tag: m.SHA256 + "-" + want.file(), Modified: i.ModTime()}, nil
	}
	return nil, fs.ErrNotExist
}

// make brings one thumbnail to disk. Those who want the same one share the work; it goes on when they stop waiting.
func (s *Service) make(f *os.File, p picture, base string, want Thumb) error {
	s.mu.Lock()
	if s.queued >= maxQueue {
		s.mu.Unlock()
		return signalling.LimitExceeded(2 * time.Second)
	}
	s.queued++
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		s.queued--
		s.mu.Unlock()
	}()
	_, err, _ := s.making.Do(base, func() (any, error) {
		s.workers <- struct{}{}
		defer func() { <-s.workers }()
		if fits, err := filepath.Glob(base + ".*"); err == nil && len(fits) > 0 {
			return nil, nil // made while we waited
		}
		ext, small, err := shrink(&hurried{f, time.Now().Add(decodeTime)}, p, want)
		if err != nil {
			return nil, cannotThumbnail(err)
		}
		return nil, s.disk.keepThumbnail(base+ext, small)
	})
	return err
}

// keepThumbnail writes a thumbnail under its name, whole or not at all.
func (d *disk) keepThumbnail(name string, b []byte) error {
	f, err := os.CreateTemp(filepath.Join(d.dir, "incoming"), "thumbnail-*")
	if err != nil {
		return diskError(err)
	}
	_, err = f.Write(b)
	err = errors.Join(err, f.Sync(), f.Close()) // synced: a rename that outlives its bytes would be an empty picture for ever
	if err == nil {
		err = os.MkdirAll(filepath.Dir(name), 0o700)
	}
	if err == nil {
		err = os.Rename(f.Name(), name)
	}
	if err != nil {
		_ = os.Remove(f.Name())
		return diskError(err)
	}
	return nil
}

// decodeTime bounds the decoding of one picture. Few bytes can make a decoder go over all pixels again (the scans of a progressive
// JPEG), so neither the size of the file nor that of the picture bounds the work.
const decodeTime = 20 * time.Second

// hurried is a file that cannot be read after a time.
type hurried struct {
	io.Reader
	until time.Time
}

func (h *hurried) Read(p []byte) (int, error) {
	if time.Now().After(h.until) {
		return 0, errors.New("media: the picture takes too long to decode")
	}
	return h.Reader.Read(p)
}

// shrink decodes a picture and makes the thumbnail of it.
func shrink(r io.Reader, p picture, want Thumb) (ext string, out []byte, err error) {
	defer func() {
		if x := recover(); x != nil { // decoders have panicked on hostile input before
			err = fmt.Errorf("media: decoder: %v", x)
		}
	}()
	if want.Animated {
		out, err := shrinkGIF(r, p, want, time.Now().Add(decodeTime))
		return ".gif", out, err
	}
	src, err := p.decode(r)
	if err != nil {
		return "", nil, err
	}
	if b := src.Bounds(); b.Dx() > p.width || b.Dy() > p.height {
		return "", nil, errNotPicture // a frame larger than the header said
	}
	small := scale(src, p.orientation, want)
	var b bytes.Buffer
	if opaque := small.Opaque(); p.format == "png" || !opaque {
		// A PNG is a drawing or a picture of a screen mostly, whose edges JPEG blurs: it stays one where that costs little.
		if err := png.Encode(&b, small); err != nil || !opaque || b.Len() <= smallPNG {
			return ".png", b.Bytes(), err
		}
		b.Reset()
	}
	err = jpeg.Encode(&b, small, &jpeg.Options{Quality: 85})
	return ".jpg", b.Bytes(), err
}

// smallPNG is the size in bytes up to which the thumbnail of an opaque PNG is a PNG.
const smallPNG = 64 << 10

// scale fits src, turned upright, over want: neither side is smaller than wanted, nothing is enlarged. Crop takes the middle.
func scale(src image.Image, orientation int, want Thumb) *image.RGBA {
	if orientation >= 5 { // lies on its side: the wish is turned, and the result turned back
		want.Width, want.Height = want.Height, want.Width
	}
	from := src.Bounds()
	w, h := float64(from.Dx()), float64(from.Dy())
	factor := min(1, max(float64(want.Width)/w, float64(want.Height)/h))
	ow, oh := max(1, int(w*factor+0.5)), max(1, int(h*factor+0.5))
	if want.Crop {
		ow, oh = min(ow, want.Width), min(oh, want.Height)
		// The part of the source that fills ow x oh, in its middle.
		cw, ch := min(from.Dx(), int(float64(ow)/factor+0.5)), min(from.Dy(), int(float64(oh)/factor+0.5))
		from.Min.X += (from.Dx() - cw) / 2
		from.Min.Y += (from.Dy() - ch) / 2
		from.Max = from.Min.Add(image.Pt(cw, ch))
	}
	dst := image.NewRGBA(image.Rect(0, 0, ow, oh))
	draw.CatmullRom.Scale(dst, dst.Bounds(), src, from, draw.Src, nil)
	return turn(dst, orientation)
}

// turn sets a picture upright (EXIF 2.32, tag 0x0112: where the stored picture's first row and first column belong).
func turn(src *image.RGBA, orientation int) *image.RGBA {
	if orientation <= 1 || orientation > 8 {
		return src
	}
	w, h := src.Rect.Dx(), src.Rect.Dy()
	size := image.Rect(0, 0, w, h)
	if orientation >= 5 {
		size = image.Rect(0, 0, h, w)
	}
	dst := image.NewRGBA(size)
	for y := range h {
		for x := range w {
			tx, ty := x, y
			switch orientation {
			case 2:
				tx = w - 1 - x
			case 3:
				tx, ty = w-1-x, h-1-y
			case 4:
				ty = h - 1 - y
			case 5:
				tx, ty = y, x
			case 6:
				tx, ty = h-1-y, x
			case 7:
				tx, ty = h-1-y, w-1-x
			case 8:
				tx, ty = y, w-1-x
			}
			copy(dst.Pix[dst.PixOffset(tx, ty):][:4], src.Pix[src.PixOffset(x, y):][:4])
		}
	}
	return dst
}
