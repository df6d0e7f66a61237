// SPDX-License-Identifier: Apache-2.0

// Package media is the content repository: uploads, downloads and thumbnails of a homeserver's mxc:// URIs (client-server API,
// "Content repository"). It knows files and rows; how they travel by HTTP is clientapi's business.
//
// An upload is streamed to a file, hashed on the way, synced, and given a name that is its hash; only then the row that makes the
// mxc:// URI known is committed. So a URI that a client was given always leads to whole content, also after a power cut, and equal
// uploads share one file.
//
//	body ─> incoming/upload-… ─fsync─> content/ab/cd/SHA256 ─> row (origin, id) ─> mxc://origin/id
//	                                        └─> thumbnails/ab/cd/SHA256/320x240-scale.jpg   (made when first asked for)
package media

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"net/http"
	"os"
	"runtime"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/sync/singleflight"

	"github.com/trunkboard/trunkboard/homeserver/storage"
	"github.com/trunkboard/trunkboard/signalling"
)

// Config says where contents are kept and how much may come in. Zero values mean the defaults named on the fields.
type Config struct {
	ServerName string // the authority of our mxc:// URIs
	Dir        string // folder of the files; made when missing
	MaxUpload  int64  // bytes of one upload; default 50 MiB
	Quota      int64  // bytes that one user may upload in all; 0 = no limit
	// MaxPending is how many announced ids without content one user may have; default 50.
	MaxPending int
	// PendingLife is how long an announced id waits for its content; default 24 h, as the spec recommends.
	PendingLife time.Duration
	// MaxDecode is the memory in bytes that decoding an image for a thumbnail may take, judged from its header; default 160 MiB,
	// which is a photo of 40 megapixels.
	MaxDecode int64
	// Workers is how many thumbnails are made at once; default half of the processors, at least one.
	Workers int
}

func (c *Config) fill() error {
	if c.ServerName == "" || c.Dir == "" {
		return errors.New("media: ServerName and Dir must be set")
	}
	def := func(v *int64, d int64) {
		if *v <= 0 {
			*v = d
		}
	}
	def(&c.MaxUpload, 50<<20)
	def(&c.MaxDecode, 160<<20)
	if c.MaxPending <= 0 {
		c.MaxPending = 50
	}
	if c.PendingLife <= 0 {
		c.PendingLife = 24 * time.Hour
	}
	if c.Workers <= 0 {
		c.Workers = max(1, runtime.GOMAXPROCS(0)/2)
	}
	return nil
}

// maxWaiting bounds the downloads that wait for content; beyond it a download of an empty id is answered at once.
const maxWaiting = 1000

// Service is the content repository of one server.
type Service struct {
	cfg   Config
	store *storage.Store
	disk  *disk
	clock signalling.Clock
	log   *slog.Logger

	workers chan struct{} // one token for each thumbnail being made
	making  singleflight.Group

	remote   Remote // nil: other servers cannot be reached
	fetching singleflight.Group
	fetches  chan struct{}

	mu      sync.Mutex
	waiting map[string]*arrival // by media id
	waiters int
	queued  int // thumbnails asked for and not there yet
}

// arrival wakes those who wait for one id's content.
type arrival struct {
	came    chan struct{}
	waiters int
}

// New opens the repository.
func New(cfg Config, store *storage.Store, clock signalling.Clock, log *slog.Logger) (*Service, error) {
	if err := cfg.fill(); err != nil {
		return nil, err
	}
	d, err := openDisk(cfg.Dir)
	if err != nil {
		return nil, err
	}
	return &Service{cfg: cfg, store: store, disk: d, clock: clock, log: log, workers: make(chan struct{}, cfg.Workers), fetches: make(chan struct{}, remoteParallel), waiting: map[string]*arrival{}}, nil
}

// Run tidies up now and every hour until ctx ends.
func (s *Service) Run(ctx context.Context) error {
	tick := make(chan struct{}, 1)
	for {
		if err := s.Sweep(ctx); err != nil && ctx.Err() == nil {
			s.log.Warn("media: tidying up failed; it is tried again in an hour", "err", err)
		}
		stop := s.clock.AfterFunc(time.Hour, func() { tick <- struct{}{} })
		select {
		case <-ctx.Done():
			stop()
			return nil
		case <-tick:
		}
	}
}

// Sweep forgets announced ids whose time is over, and removes files that nothing refers to.
func (s *Service) Sweep(ctx context.Context) error {
	var lapsed int64
	err := s.store.Write(ctx, func(tx *storage.Tx) (err error) {
		if lapsed, err = tx.DropLapsedMedia(s.clock.Now().UnixMilli()); err != nil {
			return err
		}
		return tx.DropRemoteMedia(s.cfg.ServerName, s.clock.Now().Add(-remoteLife).UnixMilli())
	})
	if err != nil {
		return err
	}
	removed, err := s.disk.sweep(ctx, s.clock.Now(), s.store.MediaHashUsed)
	if lapsed > 0 || removed > 0 {
		s.log.Info("media: tidied up", "lapsed_ids", lapsed, "files_removed", removed)
	}
	return err
}

// MaxUpload is the largest upload in bytes ("m.upload.size").
func (s *Service) MaxUpload() int64 { return s.cfg.MaxUpload }

// Incoming is an upload.
type Incoming struct {
	Body        io.Reader
	Length      int64  // bytes as announced; -1 when unknown
	ContentType string // as the client said; empty, or not a media type, means application/octet-stream
	FileName    string // as the client said; may be empty
}

const maxName = 1024 // bytes of a file name, far beyond what any file system takes

// check refuses what could not be stored or given back as it came.
func (in *Incoming) check() error {
	if !ValidName(in.FileName) {
		return signalling.InvalidParam("a file name may have %d bytes and no control characters", maxName)
	}
	if len(in.ContentType) > 255 || !printable(in.ContentType) {
		return signalling.InvalidParam("a Content-Type may have 255 bytes and no control characters")
	}
	if _, _, err := mime.ParseMediaType(in.ContentType); err != nil {
		in.ContentType = "application/octet-stream" // what browsers would make of it themselves is anybody's guess
	}
	return nil
}

// ValidName says that a file name, which may be empty, can be stored and sent back.
func ValidName(name string) bool { return len(name) <= maxName && printable(name) }

func printable(s string) bool {
	return utf8.ValidString(s) && strings.IndexFunc(s, unicode.IsControl) < 0
}

// Upload stores content and gives the mxc:// URI under which it is found.
// Errors: M_TOO_LARGE, M_FORBIDDEN (quota), M_INVALID_PARAM (name or type), 507 M_UNKNOWN (disk full).
func (s *Service) Upload(ctx context.Context, user string, in Incoming) (uri string, err error) {
	m, err := s.receive(ctx, user, in)
	if err != nil {
		return "", err
	}
	m.ID = rand.Text() // 128 bits or more
	err = s.store.Write(ctx, func(tx *storage.Tx) error {
		if err := s.quota(tx, user, m.Size); err != nil {
			return err
		}
		return tx.AddMedia(m)
	})
	if err != nil {
		return "", err
	}
	return s.uri(m.ID), nil
}

func (s *Service) uri(id string) string { return "mxc://" + s.cfg.ServerName + "/" + id }

// receive checks an upload and brings it to disk.
func (s *Service) receive(ctx context.Context, user string, in Incoming) (storage.Media, error) {
	if err := in.check(); err != nil {
		return storage.Media{}, err
	}
	if in.Length > s.cfg.MaxUpload {
		return storage.Media{}, signalling.TooLarge("an upload may have %d bytes", s.cfg.MaxUpload)
	}
	if s.cfg.Quota > 0 { // checked again with the row; here so that a full account does not fill the disk
		used, _, err := s.store.MediaUsage(ctx, user, 0)
		if err != nil {
			return storage.Media{}, err
		}
		if used+max(in.Length, 1) > s.cfg.Quota {
			return storage.Media{}, overQuota()
		}
	}
	sum, size, err := s.disk.receive(in.Body, s.cfg.MaxUpload)
	if err != nil {
		return storage.Media{}, err
	}
	return storage.Media{Origin: s.cfg.ServerName, Uploader: user, CreatedTS: s.clock.Now().UnixMilli(), SHA256: sum, Size: size, ContentType: in.ContentType, FileName: in.FileName}, nil
}

func overQuota() error {
	return signalling.Forbidden("you have uploaded as much as this server lets one user keep")
}

func (s *Service) quota(tx *storage.Tx, user string, size int64) error {
	if s.cfg.Quota <= 0 {
		return nil
	}
	used, _, err := tx.MediaUsage(user, 0)
	if err == nil && used+size > s.cfg.Quota {
		err = overQuota()
	}
	return err
}

// Create announces an mxc:// URI whose content comes later by Fill. Errors: M_LIMIT_EXCEEDED when too many of the user's wait.
func (s *Service) Create(ctx context.Context, user string) (uri string, expires time.Time, err error) {
	now := s.clock.Now()
	m := storage.Media{Origin: s.cfg.ServerName, ID: rand.Text(), Uploader: user, CreatedTS: now.UnixMilli(), ExpiresTS: now.Add(s.cfg.PendingLife).UnixMilli()}
	err = s.store.Write(ctx, func(tx *storage.Tx) error {
		_, pending, err := tx.MediaUsage(user, now.UnixMilli())
		if err != nil {
			return err
		}
		if pending >= int64(s.cfg.MaxPending) {
			return signalling.LimitExceeded(time.Minute)
		}
		return tx.AddMedia(m)
	})
	if err != nil {
		return "", time.Time{}, err
	}
	return s.uri(m.ID), time.UnixMilli(m.ExpiresTS), nil
}

// Fill uploads the content of an announced URI. Errors: those of Upload; M_NOT_FOUND (no such id, or lapsed), M_FORBIDDEN (another
// user's), M_CANNOT_OVERWRITE_MEDIA (it has content).
func (s *Service) Fill(ctx context.Context, user, server, id string, in Incoming) error {
	old, err := s.lookup(ctx, server, id)
	if err != nil {
		return err
	}
	if old.Uploader != user {
		return signalling.Forbidden("this media id was announced by another user")
	}
	if old.SHA256 != "" {
		return cannotOverwrite()
	}
	m, err := s.receive(ctx, user, in)
	if err != nil {
		return err
	}
	m.ID = id
	err = s.store.Write(ctx, func(tx *storage.Tx) error {
		if err := s.quota(tx, user, m.Size); err != nil {
			return err
		}
		filled, err := tx.FillMedia(m)
		if err == nil && !filled {
			err = cannotOverwrite()
		}
		return err
	})
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if a := s.waiting[id]; a != nil {
		close(a.came)
		delete(s.waiting, id)
	}
	return nil
}

func cannotOverwrite() error {
	return signalling.Refuse(http.StatusConflict, "M_CANNOT_OVERWRITE_MEDIA", "this media id has its content already")
}

// lookup finds the row of a URI and refuses what is not one.
func (s *Service) lookup(ctx context.Context, server, id string) (storage.Media, error) {
	if !validID(id) || !validServer(server) {
		return storage.Media{}, signalling.InvalidParam("not an mxc:// URI")
	}
	if server != s.cfg.ServerName {
		return storage.Media{}, signalling.NotFound("this server does not have that media")
	}
	m, err := s.store.Media(ctx, server, id)
	if errors.Is(err, storage.ErrNotFound) || (err == nil && m.SHA256 == "" && m.ExpiresTS <= s.clock.Now().UnixMilli()) {
		return storage.Media{}, signalling.NotFound("there is no such media")
	}
	return m, err
}

// validID says that id fits the grammar of media ids ("Matrix Content (mxc://) URIs").
func validID(id string) bool {
	if id == "" || len(id) > 255 {
		return false
	}
	for i := range len(id) {
		switch c := id[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '_', c == '-':
		default:
			return false
		}
	}
	return true
}

// validServer says that name has only the characters of a server name (appendices, "Server Name").
func validServer(name string) bool {
	if name == "" || len(name) > 230 {
		return false
	}
	for i := range len(name) {
		switch c := name[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '.', c == '-', c == ':', c == '[', c == ']':
		default:
			return false
		}
	}
	return true
}

// Content is an open file and what is known of it. Whoever gets one closes File.
type Content struct {
	File     *os.File
	Size     int64
	Type     string // media type, as the uploader said; of a thumbnail, what it is
	Name     string // may be empty
	Tag      string // changes with the bytes; fit for an ETag
	Modified time.Time
}

// Open opens the content of a URI. When it was announced but has not come, Open waits for it up to wait.
// Errors: M_INVALID_PARAM, M_NOT_FOUND, 504 M_NOT_YET_UPLOADED.
func (s *Service) Open(ctx context.Context, server, id string, wait time.Duration) (*Content, error) {
	m, err := s.await(ctx, server, id, wait)
	if err != nil {
		return nil, err
	}
	f, err := os.Open(s.disk.contentPath(m.SHA256))
	if err != nil {
		return nil, fmt.Errorf("content of %s: %w", s.uri(id), err)
	}
	return &Content{File: f, Size: m.Size, Type: m.ContentType, Name: m.FileName, Tag: m.SHA256, Modified: time.UnixMilli(m.CreatedTS)}, nil
}

// await is lookup for content: an announced id is waited for.
func (s *Service) await(ctx context.Context, server, id string, wait time.Duration) (storage.Media, error) {
	if server != s.cfg.ServerName && validID(id) && validServer(server) {
		return s.fetched(ctx, server, id, wait)
	}
	m, err := s.lookup(ctx, server, id)
	if err != nil || m.SHA256 != "" {
		return m, err
	}
	notYet := signalling.Refuse(http.StatusGatewayTimeout, "M_NOT_YET_UPLOADED", "the content has not been uploaded yet")
	if wait <= 0 {
		return m, notYet
	}
	a := s.join(id)
	if a == nil {
		return m, notYet
	}
	defer s.leave(id, a)
	over := make(chan struct{})
	defer s.clock.AfterFunc(wait, func() { close(over) })()
	for {
		// The content may have come between the look-up and join, or by way of another node.
		if m, err = s.lookup(ctx, server, id); err != nil || m.SHA256 != "" {
			return m, err
		}
		again := make(chan struct{})
		stop := s.clock.AfterFunc(time.Second, func() { close(again) })
		select {
		case <-a.came:
		case <-again:
		case <-over:
			stop()
			return m, notYet
		case <-ctx.Done():
			stop()
			return m, ctx.Err()
		}
		stop()
	}
}

func (s *Service) join(id string) *arrival {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.waiters >= maxWaiting {
		return nil
	}
	s.waiters++
	a := s.waiting[id]
	if a == nil {
		a = &arrival{came: make(chan struct{})}
		s.waiting[id] = a
	}
	a.waiters++
	return a
}

func (s *Service) leave(id string, a *arrival) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.waiters--
	if a.waiters--; a.waiters == 0 && s.waiting[id] == a {
		delete(s.waiting, id)
	}
}
