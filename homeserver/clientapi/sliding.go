// SPDX-License-Identifier: Apache-2.0

package clientapi

import (
	"time"

	"github.com/trunkboard/trunkboard/homeserver/syncapi"
)

// routesSliding: simplified sliding sync (MSC4186), as clients of today speak it and as it was accepted.
func (a *API) routesSliding() {
	if a.Sync == nil {
		return
	}
	a.route("POST /_matrix/client/unstable/org.matrix.simplified_msc3575/sync", AnyUser, "", a.slidingUnstable)
	a.route("POST /_matrix/client/v4/sync", AnyUser, "", a.slidingStable)
	a.advertise("org.matrix.simplified_msc3575")
}

func (a *API) slidingUnstable(r *Request) (any, error) {
	ms, err := r.IntParam("timeout", 0, 0, maxSyncWait)
	if err != nil {
		return nil, err
	}
	body, err := r.Object(MaxBody)
	if err != nil {
		return nil, err
	}
	q, err := syncapi.DecodeSlidingUnstable(body, r.UserID, r.DeviceID, r.Param("pos"), ms)
	if err != nil {
		return nil, err
	}
	answer, err := a.slide(r, q, r.Param("set_presence"))
	if err != nil {
		return nil, err
	}
	return Raw(answer.Unstable()), nil
}

func (a *API) slidingStable(r *Request) (any, error) {
	body, err := r.Object(MaxBody)
	if err != nil {
		return nil, err
	}
	q, presence, err := syncapi.DecodeSlidingStable(body, r.UserID, r.DeviceID)
	if err != nil {
		return nil, err
	}
	answer, err := a.slide(r, q, presence)
	if err != nil {
		return nil, err
	}
	return Raw(answer.Stable()), nil
}

func (a *API) slide(r *Request, q *syncapi.SlidingRequest, presence string) (*syncapi.SlidingAnswer, error) {
	if err := a.setPresence(r, presence); err != nil {
		return nil, err
	}
	if q.Timeout > 0 {
		// The wait must not count against the time that the server gives an answer to be written.
		_ = r.Controller().SetWriteDeadline(time.Now().Add(q.Timeout + time.Minute))
	}
	return a.Sync.Sliding(r.Context(), q)
}
