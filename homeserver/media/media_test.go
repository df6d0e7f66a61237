// SPDX-License-Identifier: Apache-2.0

package media_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/trunkboard/trunkboard/homeserver/media"
	"github.com/trunkboard/trunkboard/homeserver/storage"
	"github.com/trunkboard/trunkboard/homeserver/storage/storagetest"
	"github.com/trunkboard/trunkboard/signalling"
	"github.com/trunkboard/trunkboard/signalling/clocktest"
)

const alice, bob = "@alice:test", "@bob:test"

func open(t *testing.T, s *storage.Store, clock signalling.Clock, cfg media.Config) *media.Service {
	t.Helper()
	if cfg.Dir == "" {
		cfg.Dir = t.TempDir()
	}
	cfg.ServerName = "test"
	m, err := media.New(cfg, s, clock, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func text(s string) media.Incoming {
	return media.Incoming{Body: strings.NewReader(s), Length: int64(len(s)), ContentType: "text/plain", FileName: "a.txt"}
}

func idOf(t *testing.T, uri string) string {
	t.Helper()
	id, ok := strings.CutPrefix(uri, "mxc://test/")
	if !ok {
		t.Fatalf("URI %q", uri)
	}
	return id
}

func read(t *testing.T, c *media.Content) string {
	t.Helper()
	defer c.File.Close()
	b, err := io.ReadAll(c.File)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func wantCode(t *testing.T, what string, err error, code string) {
	t.Helper()
	var e *signalling.Error
	if !errors.As(err, &e) || e.Code != code {
		t.Errorf("%s: %v, want %s", what, err, code)
	}
}

// files lists what lies under a folder of the repository.
func files(t *testing.T, dir, sub string) (names []string) {
	t.Helper()
	err := filepath.WalkDir(filepath.Join(dir, sub), func(p string, e fs.DirEntry, err error) error {
		if err == nil && !e.IsDir() {
			names = append(names, p)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

func TestAnUploadComesBackAsItWent(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, s *storage.Store) {
		ctx, dir := context.Background(), t.TempDir()
		m := open(t, s, clocktest.New(), media.Config{Dir: dir})
		uri, err := m.Upload(ctx, alice, text("hello"))
		if err != nil {
			t.Fatal(err)
		}
		again, err := m.Upload(ctx, bob, media.Incoming{Body: strings.NewReader("hello"), Length: -1})
		if err != nil {
			t.Fatal(err)
		}
		if uri == again {
			t.Fatal("two uploads share a URI")
		}
		c, err := m.Open(ctx, "test", idOf(t, uri), 0)
		if err != nil {
			t.Fatal(err)
		}
		if got := read(t, c); got != "hello" || c.Type != "text/plain" || c.Name != "a.txt" || c.Size != 5 {
			t.Errorf("got %q %+v", got, c)
		}
		if c, err = m.Open(ctx, "test", idOf(t, again), 0); err != nil || c.Type != "application/octet-stream" || c.Name != "" || read(t, c) != "hello" {
			t.Errorf("second upload: %+v %v", c, err)
		}
		if n := files(t, dir, "content"); len(n) != 1 {
			t.Errorf("equal uploads are kept as %q", n)
		}
		if n := files(t, dir, "incoming"); len(n) != 0 {
			t.Errorf("left behind: %q", n)
		}
	})
}

// failing is a body that breaks off.
type failing struct{ after io.Reader }

func (f failing) Read(p []byte) (int, error) {
	n, err := f.after.Read(p)
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

func TestARefusedUploadLeavesNothing(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, s *storage.Store) {
		ctx, dir := context.Background(), t.TempDir()
		m := open(t, s, clocktest.New(), media.Config{Dir: dir, MaxUpload: 100, Quota: 150})
		for what, c := range map[string]struct {
			in   media.Incoming
			code string
		}{
			"announced too large": {media.Incoming{Body: strings.NewReader(""), Length: 101}, "M_TOO_LARGE"},
			"too large":           {media.Incoming{Body: strings.NewReader(strings.Repeat("x", 101)), Length: -1}, "M_TOO_LARGE"},
			"broken off":          {media.Incoming{Body: failing{strings.NewReader("half")}, Length: 8}, "M_UNKNOWN"},
			"NUL in the name":     {media.Incoming{Body: strings.NewReader("x"), FileName: "a\x00b"}, "M_INVALID_PARAM"},
			"not UTF-8":           {media.Incoming{Body: strings.NewReader("x"), FileName: "\xff"}, "M_INVALID_PARAM"},
			"endless name":        {media.Incoming{Body: strings.NewReader("x"), FileName: strings.Repeat("x", 1025)}, "M_INVALID_PARAM"},
			"header in the type":  {media.Incoming{Body: strings.NewReader("x"), ContentType: "text/plain\r\nSet-Cookie: a=b"}, "M_INVALID_PARAM"},
			"endless type":        {media.Incoming{Body: strings.NewReader("x"), ContentType: "text/" + strings.Repeat("x", 255)}, "M_INVALID_PARAM"},
		} {
			_, err := m.Upload(ctx, alice, c.in)
			wantCode(t, what, err, c.code)
		}
		if n := append(files(t, dir, "content"), files(t, dir, "incoming")...); len(n) != 0 {
			t.Fatalf("left behind: %q", n)
		}
		if _, err := m.Upload(ctx, alice, text(strings.Repeat("a", 100))); err != nil {
			t.Fatal(err)
		}
		_, err := m.Upload(ctx, alice, text(strings.Repeat("b", 51)))
		wantCode(t, "over quota", err, "M_FORBIDDEN")
		if _, err := m.Upload(ctx, bob, text(strings.Repeat("b", 51))); err != nil {
			t.Errorf("another user's quota: %v", err)
		}
		bytes, _, err := s.MediaUsage(ctx, alice, 0)
		if err != nil || bytes != 100 {
			t.Errorf("usage %d %v", bytes, err)
		}
	})
}

func TestConcurrentUploadsCannotPassTheQuota(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, s *storage.Store) {
		m := open(t, s, clocktest.New(), media.Config{Quota: 1000})
		var wg sync.WaitGroup
		var mu sync.Mutex
		stored := 0
		for range 30 {
			wg.Go(func() {
				if _, err := m.Upload(context.Background(), alice, text(strings.Repeat("x", 100))); err == nil {
					mu.Lock()
					stored++
					mu.Unlock()
				}
			})
		}
		wg.Wait()
		if stored != 10 {
			t.Errorf("%d uploads of 100 bytes fit in 1000", stored)
		}
	})
}

func TestNoRequestNamesAPath(t *testing.T) {
	s := storagetest.Open(t, storagetest.SQLiteURL(t))
	dir := t.TempDir()
	secret := filepath.Join(dir, "secret")
	if err := os.WriteFile(secret, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	m := open(t, s, clocktest.New(), media.Config{Dir: filepath.Join(dir, "media")})
	for _, id := range []string{"", "..", "../secret", "..%2fsecret", "a/b", "a\x00", "é", "a.b", secret, strings.Repeat("a", 256)} {
		_, err := m.Open(context.Background(), "test", id, 0)
		wantCode(t, "id "+id, err, "M_INVALID_PARAM")
		_, err = m.Thumbnail(context.Background(), "test", id, media.Thumb{Width: 32, Height: 32}, 0)
		wantCode(t, "thumbnail of "+id, err, "M_INVALID_PARAM")
	}
	for _, server := range []string{"", "../test", "te st", "te\x00st", "test/..", strings.Repeat("a", 300)} {
		_, err := m.Open(context.Background(), server, "abc", 0)
		wantCode(t, "server "+server, err, "M_INVALID_PARAM")
	}
	_, err := m.Open(context.Background(), "test", "abc", 0)
	wantCode(t, "unknown id", err, "M_NOT_FOUND")
	_, err = m.Open(context.Background(), "elsewhere:8448", "abc", 0)
	wantCode(t, "remote media", err, "M_NOT_FOUND")
}

func TestAnAnnouncedIdTakesItsContentOnce(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, s *storage.Store) {
		ctx, clock := context.Background(), clocktest.New()
		m := open(t, s, clock, media.Config{MaxPending: 2, PendingLife: time.Hour})
		uri, expires, err := m.Create(ctx, alice)
		if err != nil || !expires.Equal(clock.Now().Add(time.Hour)) {
			t.Fatalf("expires %v %v", expires, err)
		}
		id := idOf(t, uri)
		_, err = m.Open(ctx, "test", id, 0)
		wantCode(t, "before the upload", err, "M_NOT_YET_UPLOADED")
		wantCode(t, "by another user", m.Fill(ctx, bob, "test", id, text("x")), "M_FORBIDDEN")
		wantCode(t, "unknown id", m.Fill(ctx, alice, "test", "abc", text("x")), "M_NOT_FOUND")
		if err := m.Fill(ctx, alice, "test", id, text("late")); err != nil {
			t.Fatal(err)
		}
		wantCode(t, "again", m.Fill(ctx, alice, "test", id, text("other")), "M_CANNOT_OVERWRITE_MEDIA")
		if c, err := m.Open(ctx, "test", id, 0); err != nil || read(t, c) != "late" {
			t.Errorf("content: %v", err)
		}
		lapsing, _, err := m.Create(ctx, alice)
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := m.Create(ctx, alice); err != nil {
			t.Fatal(err)
		}
		_, _, err = m.Create(ctx, alice)
		wantCode(t, "a third that waits", err, "M_LIMIT_EXCEEDED")
		clock.Advance(time.Hour)
		wantCode(t, "lapsed", m.Fill(ctx, alice, "test", idOf(t, lapsing), text("x")), "M_NOT_FOUND")
		if err := m.Sweep(ctx); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Media(ctx, "test", idOf(t, lapsing)); !errors.Is(err, storage.ErrNotFound) {
			t.Errorf("lapsed row: %v", err)
		}
		if c, err := m.Open(ctx, "test", id, 0); err != nil || read(t, c) != "late" {
			t.Errorf("content after the sweep: %v", err)
		}
	})
}

func TestADownloadWaitsForItsUpload(t *testing.T) {
	s := storagetest.Open(t, storagetest.SQLiteURL(t))
	ctx, clock := context.Background(), clocktest.New()
	m := open(t, s, clock, media.Config{})
	uri, _, err := m.Create(ctx, alice)
	if err != nil {
		t.Fatal(err)
	}
	id := idOf(t, uri)
	got := make(chan string, 1)
	go func() {
		c, err := m.Open(ctx, "test", id, 20*time.Second)
		if err != nil {
			got <- err.Error()
			return
		}
		defer c.File.Close()
		b, _ := io.ReadAll(c.File)
		got <- string(b)
	}()
	for clock.Waiting() < 2 { // the limit and the next look
		runtime.Gosched()
	}
	if err := m.Fill(ctx, alice, "test", id, text("here")); err != nil {
		t.Fatal(err)
	}
	if g := <-got; g != "here" {
		t.Errorf("got %q", g)
	}

	// One that never comes ends with the time it was given.
	uri, _, err = m.Create(ctx, alice)
	if err != nil {
		t.Fatal(err)
	}
	fail := make(chan error, 1)
	go func() { _, err := m.Open(ctx, "test", idOf(t, uri), 20*time.Second); fail <- err }()
	for clock.Waiting() < 2 {
		runtime.Gosched()
	}
	clock.Advance(20 * time.Second)
	wantCode(t, "never uploaded", <-fail, "M_NOT_YET_UPLOADED")
}

func TestTheSweepKeepsWhatIsUsed(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, s *storage.Store) {
		ctx, dir := context.Background(), t.TempDir()
		clock := clocktest.At(time.Now())
		m := open(t, s, clock, media.Config{Dir: dir})
		uri, err := m.Upload(ctx, alice, text("kept"))
		if err != nil {
			t.Fatal(err)
		}
		// What a crash between the file and the row leaves, and an upload that never ended.
		orphan := filepath.Join(dir, "content", "ab", "cd", "abcd"+strings.Repeat("0", 60))
		if err := os.MkdirAll(filepath.Dir(orphan), 0o700); err != nil {
			t.Fatal(err)
		}
		half := filepath.Join(dir, "incoming", "upload-1")
		for _, f := range []string{orphan, half} {
			if err := os.WriteFile(f, []byte("x"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if err := m.Sweep(ctx); err != nil {
			t.Fatal(err)
		}
		if n := len(files(t, dir, "content")) + len(files(t, dir, "incoming")); n != 3 {
			t.Fatalf("young files were removed: %d left", n)
		}
		clock.Advance(25 * time.Hour)
		if err := m.Sweep(ctx); err != nil {
			t.Fatal(err)
		}
		if n := append(files(t, dir, "content"), files(t, dir, "incoming")...); len(n) != 1 {
			t.Errorf("left: %q", n)
		}
		if c, err := m.Open(ctx, "test", idOf(t, uri), 0); err != nil || read(t, c) != "kept" {
			t.Errorf("used content: %v", err)
		}
	})
}

func TestAFullDiskIsSaidAndNothingIsKept(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Skip("no /dev/full here")
	}
	defer full.Close()
	s := storagetest.Open(t, storagetest.SQLiteURL(t))
	m := open(t, s, clocktest.New(), media.Config{})
	_, werr := full.Write(bytes.Repeat([]byte("x"), 8192))
	var e *signalling.Error
	if !errors.As(media.DiskError(werr), &e) || e.Status != 507 {
		t.Errorf("a write to a full disk: %v", media.DiskError(werr))
	}
	if _, err := m.Upload(context.Background(), alice, text("x")); err != nil {
		t.Errorf("and with room: %v", err)
	}
}
