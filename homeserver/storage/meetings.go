// SPDX-License-Identifier: Apache-2.0

package storage

import (
	"context"
	"database/sql"
)

// Meeting is a row of meetings.
type Meeting struct {
	RoomID, Name string
	Password     string // hash; "" for none
	E2EE         bool
	Hushed       string // what only hosts may switch on: kinds with commas between
	CreatedTS    int64
	UsedTS       int64
}

const meetingColumns = `room_id, name, password, e2ee, hushed, created_ts, used_ts`

func (m *Meeting) dest(e2ee *int64) []any {
	return []any{&m.RoomID, &m.Name, &m.Password, e2ee, &m.Hushed, &m.CreatedTS, &m.UsedTS}
}

// MeetingByName finds a meeting; ErrNotFound.
func (s *Store) MeetingByName(ctx context.Context, name string) (m Meeting, err error) {
	var e2ee int64
	err = s.row(ctx, m.dest(&e2ee), `SELECT `+meetingColumns+` FROM meetings WHERE name = $1`, name)
	m.E2EE = e2ee != 0
	return m, err
}

// MeetingOf finds the meeting of a room; ErrNotFound.
func (s *Store) MeetingOf(ctx context.Context, roomID string) (m Meeting, err error) {
	var e2ee int64
	err = s.row(ctx, m.dest(&e2ee), `SELECT `+meetingColumns+` FROM meetings WHERE room_id = $1`, roomID)
	m.E2EE = e2ee != 0
	return m, err
}

// MeetingsUnused lists meetings that nobody has come to since a time, longest first.
func (s *Store) MeetingsUnused(ctx context.Context, since int64, limit int) (out []Meeting, err error) {
	err = s.rows(ctx, func(r *sql.Rows) error {
		var m Meeting
		var e2ee int64
		err := r.Scan(m.dest(&e2ee)...)
		m.E2EE = e2ee != 0
		out = append(out, m)
		return err
	}, `SELECT `+meetingColumns+` FROM meetings WHERE used_ts < $1 ORDER BY used_ts LIMIT $2`, since, limit)
	return out, err
}

// InsertMeeting adds a meeting; ErrExists when its name is taken, or its room has one.
func (tx *Tx) InsertMeeting(m Meeting) error {
	n, err := tx.Exec(`INSERT INTO meetings (`+meetingColumns+`) VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING`,
		m.RoomID, m.Name, m.Password, flag(m.E2EE), m.Hushed, m.CreatedTS, m.UsedTS)
	if err == nil && n == 0 {
		return ErrExists
	}
	return err
}

// SetMeetingPassword changes the hash of a meeting's password.
func (tx *Tx) SetMeetingPassword(roomID, hash string) error {
	_, err := tx.Exec(`UPDATE meetings SET password = $1 WHERE room_id = $2`, hash, roomID)
	return err
}

// SetMeetingHushed changes what only hosts may switch on.
func (tx *Tx) SetMeetingHushed(roomID, kinds string) error {
	_, err := tx.Exec(`UPDATE meetings SET hushed = $1 WHERE room_id = $2`, kinds, roomID)
	return err
}

// MeetingUsed notes that somebody came.
func (tx *Tx) MeetingUsed(roomID string, ts int64) error {
	_, err := tx.Exec(`UPDATE meetings SET used_ts = $1 WHERE room_id = $2 AND used_ts < $1`, ts, roomID)
	return err
}

// DropMeeting forgets a meeting and its sessions; records stay.
func (tx *Tx) DropMeeting(roomID string) error {
	if _, err := tx.Exec(`DELETE FROM meeting_sessions WHERE room_id = $1`, roomID); err != nil {
		return err
	}
	return tx.EndMeeting(roomID)
}

// EndMeeting forgets a meeting, but not who may have come back to it; records stay.
func (tx *Tx) EndMeeting(roomID string) error {
	_, err := tx.Exec(`DELETE FROM meetings WHERE room_id = $1`, roomID)
	return err
}

// Kinds of a MeetingSession: how its holder showed who he is.
const (
	MeetingGuest  = "guest"  // not at all: the account was made for him
	MeetingUser   = "user"   // with an access token
	MeetingOpenID = "openid" // with an OpenID token
)

// MeetingSession is a row of meeting_sessions.
type MeetingSession struct {
	Hash             []byte // SHA-256 of the secret
	RoomID, MemberID string
	UserID, DeviceID string
	Kind             string
	Name, AvatarURL  string
	Waits            bool
	UsedTS           int64
}

const meetingSessionColumns = `hash, room_id, member_id, user_id, device_id, kind, display_name, avatar_url, waits, used_ts`

func scanMeetingSession(out *[]MeetingSession) func(*sql.Rows) error {
	return func(r *sql.Rows) error {
		var m MeetingSession
		var waits int64
		err := r.Scan(&m.Hash, &m.RoomID, &m.MemberID, &m.UserID, &m.DeviceID, &m.Kind, &m.Name, &m.AvatarURL, &waits, &m.UsedTS)
		m.Waits = waits == 1
		*out = append(*out, m)
		return err
	}
}

func (s *Store) meetingSessions(ctx context.Context, query string, args ...any) (out []MeetingSession, err error) {
	err = s.rows(ctx, scanMeetingSession(&out), query, args...)
	return out, err
}

// MeetingSession finds a session by the hash of its secret; ErrNotFound.
func (s *Store) MeetingSession(ctx context.Context, hash []byte) (MeetingSession, error) {
	list, err := s.meetingSessions(ctx, `SELECT `+meetingSessionColumns+` FROM meeting_sessions WHERE hash = $1 AND waits < 2`, hash)
	if err == nil && len(list) == 0 {
		err = ErrNotFound
	}
	if err != nil {
		return MeetingSession{}, err
	}
	return list[0], nil
}

// MeetingSessions lists the sessions of a meeting.
func (s *Store) MeetingSessions(ctx context.Context, roomID string) ([]MeetingSession, error) {
	return s.meetingSessions(ctx, `SELECT `+meetingSessionColumns+` FROM meeting_sessions WHERE room_id = $1 AND waits < 2`, roomID)
}

// MeetingSessionsBefore lists sessions that were last used before a time, longest first; those that are over too.
func (s *Store) MeetingSessionsBefore(ctx context.Context, ts int64, limit int) ([]MeetingSession, error) {
	return s.meetingSessions(ctx, `SELECT `+meetingSessionColumns+` FROM meeting_sessions WHERE used_ts < $1 ORDER BY used_ts LIMIT $2`, ts, limit)
}

// CountMeetingSessions counts the sessions of a meeting that wait, or that do not.
func (s *Store) CountMeetingSessions(ctx context.Context, roomID string, waiting bool) (n int64, err error) {
	err = s.row(ctx, []any{&n}, `SELECT COUNT(*) FROM meeting_sessions WHERE room_id = $1 AND waits = $2`, roomID, flag(waiting))
	return n, err
}

// InsertMeetingSession adds a session.
func (tx *Tx) InsertMeetingSession(m MeetingSession) error {
	_, err := tx.Exec(`INSERT INTO meeting_sessions (`+meetingSessionColumns+`) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)`,
		m.Hash, m.RoomID, m.MemberID, m.UserID, m.DeviceID, m.Kind, m.Name, m.AvatarURL, flag(m.Waits), m.UsedTS)
	return err
}

// UseMeetingSession notes that a session was used, and whether it waits still.
func (tx *Tx) UseMeetingSession(hash []byte, waits bool, ts int64) error {
	_, err := tx.Exec(`UPDATE meeting_sessions SET used_ts = $1, waits = $2 WHERE hash = $3 AND waits < 2`, ts, flag(waits), hash)
	return err
}

// TouchMeetingMember is UseMeetingSession by the member's id, for who is there without asking for anything.
func (tx *Tx) TouchMeetingMember(roomID, userID, memberID string, ts int64) error {
	_, err := tx.Exec(`UPDATE meeting_sessions SET used_ts = $1 WHERE room_id = $2 AND user_id = $3 AND member_id = $4 AND used_ts < $1 AND waits < 2`, ts, roomID, userID, memberID)
	return err
}

// EndMeetingSessions ends the sessions of a user in a meeting; of everybody where userID is "". Their rows stay until they are old, for
// what is left to be done about the accounts of guests.
func (tx *Tx) EndMeetingSessions(roomID, userID string) error {
	_, err := tx.Exec(`UPDATE meeting_sessions SET waits = 2 WHERE room_id = $1 AND (CAST($2 AS TEXT) = '' OR user_id = CAST($2 AS TEXT))`, roomID, userID)
	return err
}

// EndMeetingSession ends one session.
func (tx *Tx) EndMeetingSession(hash []byte) error {
	_, err := tx.Exec(`UPDATE meeting_sessions SET waits = 2 WHERE hash = $1`, hash)
	return err
}

// DropMeetingSession forgets one session.
func (tx *Tx) DropMeetingSession(hash []byte) error {
	_, err := tx.Exec(`DELETE FROM meeting_sessions WHERE hash = $1`, hash)
	return err
}

// MeetingRecord is a row of meeting_records with its visits.
type MeetingRecord struct {
	ID                 int64
	RoomID             string
	Name, Subject      string
	StartedTS, EndedTS int64
	Visits             []MeetingVisit
}

// MeetingVisit is a row of meeting_visits.
type MeetingVisit struct {
	ID, RecordID   int64
	MemberID       string
	UserID, Name   string
	CameTS, WentTS int64
}

const meetingRecordColumns = `id, room_id, name, subject, started_ts, ended_ts`

func (s *Store) meetingRecords(ctx context.Context, query string, args ...any) (out []MeetingRecord, err error) {
	err = s.rows(ctx, func(r *sql.Rows) error {
		var m MeetingRecord
		err := r.Scan(&m.ID, &m.RoomID, &m.Name, &m.Subject, &m.StartedTS, &m.EndedTS)
		out = append(out, m)
		return err
	}, query, args...)
	return out, err
}

// MeetingRecords lists what took place in a room, newest first, with who was there: at most visits of them for each.
func (s *Store) MeetingRecords(ctx context.Context, roomID string, limit, visits int) ([]MeetingRecord, error) {
	out, err := s.meetingRecords(ctx, `SELECT `+meetingRecordColumns+` FROM meeting_records WHERE room_id = $1 ORDER BY started_ts DESC, id DESC LIMIT $2`, roomID, limit)
	for i := range out {
		if err != nil {
			return nil, err
		}
		out[i].Visits, err = s.meetingVisits(ctx, out[i].ID, visits)
	}
	return out, err
}

// MeetingRecordsOpen lists the records of meetings that were not ended, with who was there.
func (s *Store) MeetingRecordsOpen(ctx context.Context, limit, visits int) ([]MeetingRecord, error) {
	out, err := s.meetingRecords(ctx, `SELECT `+meetingRecordColumns+` FROM meeting_records WHERE ended_ts = 0 ORDER BY started_ts LIMIT $1`, limit)
	for i := range out {
		if err != nil {
			return nil, err
		}
		out[i].Visits, err = s.meetingVisits(ctx, out[i].ID, visits)
	}
	return out, err
}

func (s *Store) meetingVisits(ctx context.Context, record int64, limit int) (out []MeetingVisit, err error) {
	err = s.rows(ctx, func(r *sql.Rows) error {
		v := MeetingVisit{RecordID: record}
		err := r.Scan(&v.ID, &v.MemberID, &v.UserID, &v.Name, &v.CameTS, &v.WentTS)
		out = append(out, v)
		return err
	}, `SELECT id, member_id, user_id, display_name, came_ts, went_ts FROM meeting_visits WHERE record_id = $1 ORDER BY came_ts, id LIMIT $2`, record, limit)
	return out, err
}

// PutMeetingRecord writes a record, without its visits; one that is there gets its subject and end.
func (tx *Tx) PutMeetingRecord(m MeetingRecord) error {
	_, err := tx.Exec(`INSERT INTO meeting_records (`+meetingRecordColumns+`) VALUES ($1, $2, $3, $4, $5, $6)
		ON CONFLICT (id) DO UPDATE SET subject = excluded.subject, ended_ts = excluded.ended_ts`, m.ID, m.RoomID, m.Name, m.Subject, m.StartedTS, m.EndedTS)
	return err
}

// PutMeetingVisit writes a visit; one that is there gets its name and end.
func (tx *Tx) PutMeetingVisit(v MeetingVisit) error {
	_, err := tx.Exec(`INSERT INTO meeting_visits (id, record_id, member_id, user_id, display_name, came_ts, went_ts) VALUES ($1, $2, $3, $4, $5, $6, $7)
		ON CONFLICT (id) DO UPDATE SET display_name = excluded.display_name, went_ts = excluded.went_ts`, v.ID, v.RecordID, v.MemberID, v.UserID, v.Name, v.CameTS, v.WentTS)
	return err
}

// PruneMeetingRecords deletes records of meetings that began before ts, at most limit, and gives their number.
func (tx *Tx) PruneMeetingRecords(ts int64, limit int) (int64, error) {
	if _, err := tx.Exec(`DELETE FROM meeting_visits WHERE record_id IN (SELECT id FROM meeting_records WHERE started_ts < $1 AND ended_ts <> 0 ORDER BY started_ts LIMIT $2)`, ts, limit); err != nil {
		return 0, err
	}
	return tx.Exec(`DELETE FROM meeting_records WHERE id IN (SELECT id FROM meeting_records WHERE started_ts < $1 AND ended_ts <> 0 ORDER BY started_ts LIMIT $2)`, ts, limit)
}

// MeetingSessionsSince lists sessions that were last used at a time or later, newest first.
func (s *Store) MeetingSessionsSince(ctx context.Context, ts int64, limit int) ([]MeetingSession, error) {
	return s.meetingSessions(ctx, `SELECT `+meetingSessionColumns+` FROM meeting_sessions WHERE used_ts >= $1 AND waits < 2 ORDER BY used_ts DESC LIMIT $2`, ts, limit)
}
