// SPDX-License-Identifier: Apache-2.0

package federation

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"slices"

	"github.com/tidwall/gjson"

	"github.com/trunkboard/trunkboard/homeserver/event"
	"github.com/trunkboard/trunkboard/homeserver/rooms"
	"github.com/trunkboard/trunkboard/signalling"
)

const (
	policyKeyID  = "ed25519:policy_server"
	policyAnswer = 1 << 16 // bytes
)

// askPolicy asks the policy server of a room to sign an event (POST /_matrix/policy/v1/sign). Its refusal is told as it is, since it ends
// at the client; but for codes that would mean something else there, such as the end of the client's session.
func (s *Service) askPolicy(ctx context.Context, server string, e *event.Event) ([]byte, error) {
	var answer map[string]map[string]string
	err := s.Client.ask(ctx, Ask{Server: server, Method: http.MethodPost, Path: "/_matrix/policy/v1/sign", Body: e.JSON(), Limit: policyAnswer}, &answer)
	if err != nil {
		var u *Unreachable
		codes := []string{"M_FORBIDDEN", "M_LIMIT_EXCEEDED", "M_BAD_JSON", "M_NOT_JSON", "M_NOT_FOUND", "M_TOO_LARGE"}
		if x := signalling.AsError(err); !errors.As(err, &u) && !slices.Contains(codes, x.Code) {
			err = signalling.Forbidden("the room's policy server refuses this: %s", x.Message).Because(err)
		}
		return nil, err
	}
	sig, err := base64.RawStdEncoding.DecodeString(answer[server][policyKeyID])
	if err != nil || len(sig) == 0 {
		return nil, signalling.Forbidden("the room's policy server %s has not signed this", server)
	}
	return sig, nil
}

// PolicyEvent reads an event that another server wants to have signed by us as the policy server of its room, and checks its other
// signatures. Errors: M_NOT_FOUND (not such a room), M_FORBIDDEN, M_BAD_JSON, M_NOT_JSON.
func (s *Service) PolicyEvent(ctx context.Context, origin string, raw json.RawMessage) (*rooms.Room, *event.Event, error) {
	if err := event.CheckJSON(raw); err != nil {
		return nil, nil, err
	}
	r, err := s.Rooms.PolicyRoom(ctx, origin, gjson.GetBytes(raw, "room_id").Str)
	if err != nil {
		return nil, nil, err
	}
	e, err := event.Parse(r.Version, raw)
	if err != nil {
		return nil, nil, err
	}
	if e.RoomID() != r.ID || e.Redacted() {
		return nil, nil, signalling.BadJSON("the content of the event is not what its hash says")
	}
	if err := s.VerifyEvent(ctx, e); err != nil {
		return nil, nil, signalling.Refuse(http.StatusBadRequest, "M_FORBIDDEN", "the event is not signed as it should be").Because(err)
	}
	return r, e, nil
}
