// SPDX-License-Identifier: Apache-2.0

package event

import (
	"strconv"
	"strings"

	"github.com/trunkboard/trunkboard/signalling"
)

// Version is a room version (Matrix spec, "Room Versions").
type Version string

// DefaultVersion is the version of new rooms, as the spec recommends since v1.16.
const DefaultVersion Version = "12"

const newestVersion = 12

// Versions lists the room versions served, oldest first.
func Versions() []Version {
	out := make([]Version, newestVersion)
	for i := range out {
		out[i] = Version(strconv.Itoa(i + 1))
	}
	return out
}

// The versions of MSC3757, 10 and 11 with state that belongs to users.
const (
	ownedState10 Version = "org.matrix.msc3757.10"
	ownedState11 Version = "org.matrix.msc3757.11"
)

// Unstable lists the versions that are served and in no release of the spec.
func Unstable() []Version { return []Version{ownedState10, ownedState11} }

// number is v as a number; what versions differ in grew with it. Error: 400 M_UNSUPPORTED_ROOM_VERSION.
//
//	3  event ids are hashes            6  strict canonical JSON, no special aliases, notification levels checked
//	4  … in URL-safe Base64            7  knocking           8  restricted joins        9  their redaction fixed
//	2  state resolution v2            10  integer levels    11  new redaction rules    12  state resolution v2.1, room id = create event
func (v Version) number() (int, error) {
	if n := v.n(); n != 0 {
		return n, nil
	}
	return 0, signalling.Refuse(400, "M_UNSUPPORTED_ROOM_VERSION", "room version %q is not served here", string(v))
}

// n is number for a version that was checked; 0 for one that is not served.
func (v Version) n() int {
	switch v {
	case "1", "2", "3", "4", "5", "6", "7", "8", "9":
		return int(v[0] - '0')
	case "10", "11", "12":
		return 10 + int(v[1]-'0')
	case ownedState10:
		return 10
	case ownedState11:
		return 11
	}
	return 0
}

// Known says whether v is served.
func (v Version) Known() bool { return v.n() != 0 }

// CreateIsRoomID says that the room id is the hash of the create event (v12, MSC4291).
func (v Version) CreateIsRoomID() bool { return v.n() >= 12 }

// CreatorsRule says that creators stand above every power level (v12, MSC4289).
func (v Version) CreatorsRule() bool { return v.n() >= 12 }

// CreatorInContent says that the create event carries content.creator (up to v10).
func (v Version) CreatorInContent() bool { return v.Known() && v.n() <= 10 }

// RedactsInContent says that a redaction names its target in content.redacts (v11 and later, MSC2174).
func (v Version) RedactsInContent() bool { return v.n() >= 11 }

// Restricted says whether join rules restricted (v8) and knock_restricted (v10) exist.
func (v Version) Restricted() bool { return v.n() >= 8 }

// Knocking says whether knocking exists (v7 and later).
func (v Version) Knocking() bool { return v.n() >= 7 }

// OwnedState says that a state key which is a user's id, or begins with it and an underscore, belongs to that user and to those with more
// power (MSC3757). In other versions one that begins with @ is its user's alone, and there is one of it.
func (v Version) OwnedState() bool { return v == ownedState10 || v == ownedState11 }

// StateOwner is whose a state key is where OwnedState holds, "" where it is nobody's. Errors: M_BAD_JSON for one that begins with @ and
// names nobody.
func StateOwner(key string) (user string, err error) {
	if key == "" || key[0] != '@' {
		return "", nil
	}
	user = key
	if colon := strings.IndexByte(key, ':'); colon >= 0 {
		if end := strings.IndexByte(key[colon:], '_'); end >= 0 {
			user = key[:colon+end]
		}
	}
	if _, _, err := UserID(user); err != nil {
		return "", signalling.BadJSON("a state_key that begins with @ is a user's id, or begins with one and an underscore")
	}
	return user, nil
}
