-- Meetings: Matrix rooms that people come to by a link.
CREATE TABLE meetings (
    room_id    TEXT NOT NULL PRIMARY KEY,
    name       TEXT NOT NULL,             -- as in its link; for the meeting of a room that is there anyway, the room's id
    password   TEXT NOT NULL,             -- argon2id; '' for none
    e2ee       BIGINT NOT NULL,
    hushed     TEXT NOT NULL,             -- what only hosts may switch on: '', 'audio', 'video', 'audio,video'
    created_ts BIGINT NOT NULL,
    used_ts    BIGINT NOT NULL            -- when somebody came last
);
CREATE UNIQUE INDEX meetings_name ON meetings (name);

-- Who may come back into a meeting, for a day: the page holds the secret.
CREATE TABLE meeting_sessions (
    hash         BYTEA NOT NULL PRIMARY KEY,
    room_id      TEXT NOT NULL,
    member_id    TEXT NOT NULL,           -- makes the identity in the SFU
    user_id      TEXT NOT NULL,
    device_id    TEXT NOT NULL,           -- '' for who proved who he is with an OpenID token
    kind         TEXT NOT NULL,           -- guest, user, openid
    display_name TEXT NOT NULL,
    avatar_url   TEXT NOT NULL,
    features     TEXT NOT NULL,           -- JSON, of a Jitsi token
    waits        BIGINT NOT NULL,         -- 1: knocked, not let in yet; 2: over
    used_ts      BIGINT NOT NULL
);
CREATE INDEX meeting_sessions_room ON meeting_sessions (room_id, user_id);
CREATE INDEX meeting_sessions_used ON meeting_sessions (used_ts);

-- What took place: who, when, how long.
CREATE TABLE meeting_records (
    id         BIGINT NOT NULL PRIMARY KEY,
    room_id    TEXT NOT NULL,
    name       TEXT NOT NULL,
    subject    TEXT NOT NULL,
    started_ts BIGINT NOT NULL,
    ended_ts   BIGINT NOT NULL            -- 0: it goes on
);
CREATE INDEX meeting_records_room ON meeting_records (room_id, started_ts);
CREATE INDEX meeting_records_started ON meeting_records (started_ts);
CREATE TABLE meeting_visits (
    id           BIGINT NOT NULL PRIMARY KEY,
    record_id    BIGINT NOT NULL,
    member_id    TEXT NOT NULL,
    user_id      TEXT NOT NULL,
    display_name TEXT NOT NULL,
    came_ts      BIGINT NOT NULL,
    went_ts      BIGINT NOT NULL          -- 0: still there
);
CREATE INDEX meeting_visits_record ON meeting_visits (record_id, came_ts);
