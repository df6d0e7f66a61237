// SPDX-License-Identifier: Apache-2.0

package event

import (
	"sort"
	"strconv"

	gmsl "github.com/matrix-org/gomatrixserverlib"

	"github.com/trunkboard/trunkboard/signalling"
)

// Version is a room version (Matrix spec, "Room Versions").
type Version string

// DefaultVersion is the version of new rooms, as the spec recommends since v1.16.
const DefaultVersion Version = "12"

// Versions lists the room versions served, oldest first.
func Versions() []Version {
	var out []Version
	for v := range gmsl.StableRoomVersions() {
		if _, err := strconv.Atoi(string(v)); err == nil {
			out = append(out, Version(v))
		}
	}
	sort.Slice(out, func(i, j int) bool {
		a, _ := strconv.Atoi(string(out[i]))
		b, _ := strconv.Atoi(string(out[j]))
		return a < b
	})
	return out
}

// impl gives the library's rules for v, or 400 M_UNSUPPORTED_ROOM_VERSION.
func (v Version) impl() (gmsl.IRoomVersion, error) {
	if _, err := strconv.Atoi(string(v)); err == nil {
		if i, err := gmsl.GetRoomVersion(gmsl.RoomVersion(v)); err == nil {
			return i, nil
		}
	}
	return nil, signalling.Refuse(400, "M_UNSUPPORTED_ROOM_VERSION", "room version %q is not served here", string(v))
}

// Known says whether v is served.
func (v Version) Known() bool {
	_, err := v.impl()
	return err == nil
}

// CreateIsRoomID says that the room id is the hash of the create event (v12, MSC4291).
func (v Version) CreateIsRoomID() bool {
	i, err := v.impl()
	return err == nil && i.DomainlessRoomIDs()
}

// CreatorsRule says that creators stand above every power level (v12, MSC4289).
func (v Version) CreatorsRule() bool {
	i, err := v.impl()
	return err == nil && i.PrivilegedCreators()
}

// CreatorInContent says that the create event carries content.creator (up to v10).
func (v Version) CreatorInContent() bool {
	i, err := v.impl()
	return err == nil && i.CreatorInCreateEvent()
}

// RedactsInContent says that a redaction names its target in content.redacts (v11 and later, MSC2174).
func (v Version) RedactsInContent() bool {
	n, err := strconv.Atoi(string(v))
	return err == nil && n >= 11
}

// Restricted says whether join rules restricted (v8) and knock_restricted (v10) exist.
func (v Version) Restricted() bool {
	n, err := strconv.Atoi(string(v))
	return err == nil && n >= 8
}

// Knocking says whether knocking exists (v7 and later).
func (v Version) Knocking() bool {
	n, err := strconv.Atoi(string(v))
	return err == nil && n >= 7
}
