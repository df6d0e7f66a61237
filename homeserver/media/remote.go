// SPDX-License-Identifier: Apache-2.0

package media

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/trunkboard/trunkboard/homeserver/storage"
	"github.com/trunkboard/trunkboard/signalling"
)

const (
	remoteLife     = 30 * 24 * time.Hour // how long content of other servers is kept before it is fetched anew
	remoteTime     = 5 * time.Minute     // for one fetch
	remoteParallel = 16                  // fetches at a time; beyond it they wait
)

// Remote fetches content of other servers; the federation part implements it. take gets the content as it comes in, at most limit
// bytes of it are read; its error is Fetch's. Errors: M_NOT_FOUND, M_TOO_LARGE, 504 M_NOT_YET_UPLOADED, 502 M_UNKNOWN.
type Remote interface {
	FetchMedia(ctx context.Context, server, id string, limit int64, wait time.Duration, take func(Incoming) error) error
}

// UseRemote says how content of other servers is fetched. Call it before the first request.
func (s *Service) UseRemote(r Remote) { s.remote = r }

// fetched finds content of another server here, or fetches it: once, for everybody who asks meanwhile.
func (s *Service) fetched(ctx context.Context, server, id string, wait time.Duration) (storage.Media, error) {
	m, err := s.store.Media(ctx, server, id)
	if err == nil || !errors.Is(err, storage.ErrNotFound) {
		return m, err
	}
	if s.remote == nil {
		return m, signalling.NotFound("this server does not have that media")
	}
	c := s.fetching.DoChan(server+"/"+id, func() (any, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), remoteTime)
		defer cancel()
		select {
		case s.fetches <- struct{}{}:
			defer func() { <-s.fetches }()
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		return nil, s.fetch(ctx, server, id, wait)
	})
	select {
	case r := <-c:
		if r.Err != nil {
			return m, remoteRefusal(r.Err)
		}
	case <-ctx.Done():
		return m, ctx.Err()
	}
	m, err = s.store.Media(ctx, server, id)
	if errors.Is(err, storage.ErrNotFound) {
		err = signalling.NotFound("there is no such media")
	}
	return m, err
}

func (s *Service) fetch(ctx context.Context, server, id string, wait time.Duration) error {
	return s.remote.FetchMedia(ctx, server, id, s.cfg.MaxUpload, wait, func(in Incoming) error {
		if in.check() != nil { // what it is called must not keep anybody from it
			in.FileName, in.ContentType = "", "application/octet-stream"
		}
		if in.Length > s.cfg.MaxUpload {
			return signalling.TooLarge("that media is larger than the %d bytes that this server fetches", s.cfg.MaxUpload)
		}
		sum, size, err := s.disk.receive(in.Body, s.cfg.MaxUpload)
		if err != nil {
			return err
		}
		m := storage.Media{Origin: server, ID: id, CreatedTS: s.clock.Now().UnixMilli(), SHA256: sum, Size: size, ContentType: in.ContentType, FileName: in.FileName}
		return s.store.Write(ctx, func(tx *storage.Tx) error { return tx.AddRemoteMedia(m) })
	})
}

// remoteRefusal is what a client is told of a fetch that failed.
func remoteRefusal(err error) error {
	e := signalling.AsError(err)
	switch {
	case e.Code == "M_NOT_FOUND", e.Code == "M_UNRECOGNIZED":
		return signalling.NotFound("the other server does not have that media").Because(err)
	case e.Code == "M_NOT_YET_UPLOADED", e.Code == "M_TOO_LARGE", e.Code == "M_LIMIT_EXCEEDED":
		return err
	case e.Status < 500:
		return signalling.NotFound("the other server does not give that media").Because(err)
	}
	return signalling.Refuse(http.StatusBadGateway, "M_UNKNOWN", "that media cannot be fetched from its server").Because(err)
}
