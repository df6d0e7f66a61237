// SPDX-License-Identifier: Apache-2.0

package e2ee

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"time"

	"github.com/trunkboard/trunkboard/signalling"
)

const (
	remoteTime    = 10 * time.Second // for all servers of one request ("10 seconds is the recommended default")
	remoteServers = 16               // asked at the same time
)

// Failure says why the users of a server are missing from an answer.
type Failure struct {
	Status  int    `json:"status"`
	Code    string `json:"errcode"`
	Message string `json:"error"`
}

func (s *Service) failure(server string, err error) Failure {
	var e *signalling.Error
	if !errors.As(err, &e) {
		s.log.Debug("a server did not answer for its users' keys", "server", server, "err", err)
		e = signalling.Refuse(http.StatusServiceUnavailable, "M_UNAVAILABLE", "this server cannot be reached")
	}
	return Failure{e.Status, e.Code, e.Message}
}

type answered[A any] struct {
	answer A
	err    error
}

// askAll asks each server what it is to be asked, a few at a time, and waits for all of them. Without federation each answer is
// that there is none.
func askAll[Q, A any](ctx context.Context, questions map[string]Q, federated bool, ask func(ctx context.Context, server string, q Q) (A, error)) map[string]answered[A] {
	out := make(map[string]answered[A], len(questions))
	if !federated {
		for server := range questions {
			out[server] = answered[A]{err: signalling.Refuse(http.StatusServiceUnavailable, "M_UNAVAILABLE", "federation is not available")}
		}
		return out
	}
	ctx, cancel := context.WithTimeout(ctx, remoteTime)
	defer cancel()
	var wg sync.WaitGroup
	var mu sync.Mutex
	slots := make(chan struct{}, remoteServers)
	for server, q := range questions {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			a, err := ask(ctx, server, q)
			mu.Lock()
			defer mu.Unlock()
			out[server] = answered[A]{a, err}
		})
	}
	wg.Wait()
	return out
}
