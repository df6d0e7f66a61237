// SPDX-License-Identifier: Apache-2.0

package clientapi

import (
	"net/http"

	"github.com/trunkboard/trunkboard/signalling"
	"github.com/trunkboard/trunkboard/signalling/focus"
)

// routesRTC: where group calls meet (MSC4143, "transports"), and the way into our own SFU (MSC4195). Both are drafts that clients use
// under their unstable names; older ones find the SFU in /.well-known/matrix/client.
func (a *API) routesRTC() {
	if a.Focus == nil {
		return
	}
	a.advertise("org.matrix.msc4143")
	const unstable = "/_matrix/client/unstable/"
	a.route("GET /_matrix/client/v1/rtc/transports", AnyUser, "requests", a.transports)
	a.route("GET "+unstable+"org.matrix.msc4143/rtc/transports", AnyUser, "requests", a.transports)
	for _, base := range []string{"/_matrix/client/v1", unstable + "io.element.msc4195"} {
		a.route("POST "+base+"/rtc/livekit/get_token", AnyUser, "requests", a.mediaToken)
		a.route("POST "+base+"/rtc/livekit/delegate_delayed_leave", AnyUser, "requests", a.delegateLeave)
	}
}

// transport is one place where calls meet. Type m.livekit is the draft's name, livekit with livekit_service_url what Element Call and
// Element X look for today.
type transport struct {
	Type       string `json:"type"`
	URL        string `json:"url,omitempty"`
	ServiceURL string `json:"livekit_service_url,omitempty"`
}

// transports answers with our SFU under the key of the draft and under that of today's clients, who take the first one they know.
func (a *API) transports(r *Request) (any, error) {
	base := a.Focus.Base(r.Request)
	media := focus.MediaURL(base)
	today := transport{Type: "livekit", ServiceURL: focus.ServiceURL(base), URL: media}
	return map[string][]transport{
		"transports":     {{Type: "m.livekit", URL: media}, today},
		"rtc_transports": {today},
	}, nil
}

// mediaMember is how requests name a member: by member_id, or in the form of drafts until July 2026.
type mediaMember struct {
	URL      string `json:"url"`
	RoomID   string `json:"room_id"`
	SlotID   string `json:"slot_id"`
	MemberID string `json:"member_id"`
	Member   *struct {
		ID       string `json:"id"`
		DeviceID string `json:"claimed_device_id"`
	} `json:"member"`
}

// of is the member that r's user claims to be. Errors: M_INVALID_PARAM, M_MISSING_PARAM, M_FORBIDDEN.
func (q *mediaMember) of(r *Request) (focus.Member, error) {
	m := focus.Member{RoomID: q.RoomID, SlotID: q.SlotID, UserID: r.UserID, DeviceID: r.DeviceID, MemberID: q.MemberID}
	if q.Member != nil && q.MemberID == "" {
		m.MemberID, m.Form = q.Member.ID, focus.DeviceHashed
		if q.Member.DeviceID != "" && q.Member.DeviceID != r.DeviceID {
			return m, signalling.Forbidden("claimed_device_id is not the device that asks")
		}
	}
	if m.RoomID == "" || m.SlotID == "" || m.MemberID == "" {
		return m, signalling.MissingParam("room_id, slot_id and member_id are needed")
	}
	return m, nil
}

// ours checks that the request is about our own SFU. Requests of older drafts do not say.
func (a *API) ours(r *Request, url string) error {
	if url != "" && !a.Focus.Ours(url, r.Request) {
		return signalling.InvalidParam("url is of no SFU of this server; see /rtc/transports")
	}
	return nil
}

// mediaToken gives a token for our SFU, or asks another server for one for its own.
func (a *API) mediaToken(r *Request) (any, error) {
	var in struct {
		mediaMember
		ServerName string `json:"server_name"`
	}
	if err := r.Decode(&in); err != nil {
		return nil, err
	}
	m, err := in.of(r)
	if err != nil {
		return nil, err
	}
	if in.ServerName != "" && in.ServerName != a.Config.ServerName {
		return a.remoteToken(r, m, in.ServerName, in.URL)
	}
	if err := a.ours(r, in.URL); err != nil {
		return nil, err
	}
	jwt, err := a.Focus.Grant(r.Context(), m, false)
	if err != nil {
		return nil, err
	}
	return map[string]string{"jwt": jwt, "url": focus.MediaURL(a.Focus.Base(r.Request))}, nil
}

func (a *API) remoteToken(r *Request, m focus.Member, server, url string) (any, error) {
	if err := a.Focus.Homeserver.Present(r.Context(), m.RoomID, m.UserID, m.DeviceID); err != nil {
		return nil, err
	}
	unreachable := signalling.Refuse(http.StatusBadGateway, "M_UNKNOWN", "the other server gave no token")
	if a.Focus.Remote == nil {
		return nil, unreachable
	}
	jwt, err := a.Focus.Remote.GetToken(r.Context(), server, focus.RemoteRequest{
		UserID: m.UserID, URL: url, RoomID: m.RoomID, SlotID: m.SlotID, MemberID: m.MemberID,
	})
	if err != nil {
		if e := signalling.AsError(err); e.Code == "M_FORBIDDEN" || e.Code == "M_INVALID_PARAM" {
			return nil, e
		}
		return nil, unreachable.Because(err)
	}
	return map[string]string{"jwt": jwt, "url": url}, nil
}

// delegateLeave takes over the delayed end of a membership.
func (a *API) delegateLeave(r *Request) (any, error) {
	var in struct {
		mediaMember
		DelayID string `json:"delay_id"`
	}
	if err := r.Decode(&in); err != nil {
		return nil, err
	}
	m, err := in.of(r)
	if err != nil {
		return nil, err
	}
	if in.DelayID == "" {
		return nil, signalling.MissingParam("delay_id is needed")
	}
	if err := a.ours(r, in.URL); err != nil {
		return nil, err
	}
	return nil, a.Focus.Delegate(r.Context(), m, in.DelayID, 0)
}
