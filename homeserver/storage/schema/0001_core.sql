-- Rooms, events, state. Numbers: *_nid are internal ids, *_ts milliseconds since 1970, *_pos positions in the one stream that
-- every client sync token counts in.

CREATE TABLE counters (
    name  TEXT NOT NULL PRIMARY KEY,
    value BIGINT NOT NULL
);
INSERT INTO counters (name, value) VALUES ('stream', 0);
INSERT INTO counters (name, value) VALUES ('nid', 0);

CREATE TABLE server_keys (
    key_id     TEXT NOT NULL PRIMARY KEY,
    seed       BYTEA NOT NULL,
    created_ts BIGINT NOT NULL,
    expired_ts BIGINT NOT NULL DEFAULT 0
);

CREATE TABLE rooms (
    room_nid INTEGER NOT NULL PRIMARY KEY, -- only: sqlite
    room_nid BIGINT NOT NULL PRIMARY KEY, -- only: postgres
    room_id     TEXT NOT NULL UNIQUE,
    version     TEXT NOT NULL,
    extremities TEXT NOT NULL,             -- JSON array of event_nid: the forward extremities
    state_group BIGINT NOT NULL,           -- the current state
    last_pos    BIGINT NOT NULL,           -- stream position of the newest event
    is_public   BIGINT NOT NULL DEFAULT 0  -- listed in the room directory
);
CREATE INDEX rooms_public ON rooms (is_public);

-- status: 0 in the timeline, 1 soft-failed, 2 rejected, 3 outlier (no state known)
CREATE TABLE events (
    event_nid INTEGER NOT NULL PRIMARY KEY, -- only: sqlite
    event_nid BIGINT NOT NULL PRIMARY KEY, -- only: postgres
    room_nid     BIGINT NOT NULL,
    event_id     TEXT NOT NULL UNIQUE,
    type         TEXT NOT NULL,
    state_key    TEXT,
    sender       TEXT NOT NULL,
    depth        BIGINT NOT NULL,
    origin_ts    BIGINT NOT NULL,
    stream_pos   BIGINT NOT NULL,          -- 0: not in the live stream; negative: backfilled
    status       BIGINT NOT NULL,
    state_before BIGINT NOT NULL,          -- state group before the event
    state_after  BIGINT NOT NULL,
    redacted_by  TEXT NOT NULL DEFAULT '', -- event id of the redaction; json is then already the redacted form
    sender_device TEXT NOT NULL DEFAULT '',
    txn_id       TEXT NOT NULL DEFAULT '',
    json         BYTEA NOT NULL
);
CREATE INDEX events_room_pos ON events (room_nid, stream_pos);
CREATE INDEX events_pos ON events (stream_pos) WHERE stream_pos > 0;
CREATE UNIQUE INDEX events_txn ON events (sender, sender_device, txn_id, room_nid) WHERE txn_id <> '';

CREATE TABLE event_edges (
    prev_id   TEXT NOT NULL,
    event_nid BIGINT NOT NULL,
    PRIMARY KEY (prev_id, event_nid)
) WITHOUT ROWID; -- only: sqlite
); -- only: postgres

-- relates_to: m.relates_to of the content (client-server API, "Forming relationships between events")
CREATE TABLE relations (
    relates_to TEXT NOT NULL,
    event_nid  BIGINT NOT NULL,
    room_nid   BIGINT NOT NULL,
    rel_type   TEXT NOT NULL,
    PRIMARY KEY (relates_to, event_nid)
) WITHOUT ROWID; -- only: sqlite
); -- only: postgres

-- A state group is one state of a room: the state of base plus the events in delta. height counts the changes since the
-- beginning; base is the group whose height has the lowest set bit of height cleared, so a state is found in log2(height) steps.
CREATE TABLE state_groups (
    group_id INTEGER NOT NULL PRIMARY KEY, -- only: sqlite
    group_id BIGINT NOT NULL PRIMARY KEY, -- only: postgres
    room_nid BIGINT NOT NULL,
    base     BIGINT NOT NULL,
    height   BIGINT NOT NULL,
    delta    BYTEA NOT NULL                -- varints: event_nid of each changed piece of state; negative: the event whose piece of state is gone
);

CREATE TABLE current_state (
    room_nid  BIGINT NOT NULL,
    type      TEXT NOT NULL,
    state_key TEXT NOT NULL,
    event_nid BIGINT NOT NULL,
    PRIMARY KEY (room_nid, type, state_key)
) WITHOUT ROWID; -- only: sqlite
); -- only: postgres

-- Every change of a room's current state, in the order clients see it. event_nid 0: the piece of state was removed.
CREATE TABLE state_stream (
    stream_pos BIGINT NOT NULL,
    room_nid   BIGINT NOT NULL,
    type       TEXT NOT NULL,
    state_key  TEXT NOT NULL,
    event_nid  BIGINT NOT NULL,
    prev_nid   BIGINT NOT NULL,
    PRIMARY KEY (room_nid, stream_pos, type, state_key)
) WITHOUT ROWID; -- only: sqlite
); -- only: postgres

-- Current membership of local and remote users. membership: join, invite, knock, leave, ban.
CREATE TABLE memberships (
    user_id    TEXT NOT NULL,
    room_nid   BIGINT NOT NULL,
    membership TEXT NOT NULL,
    event_nid  BIGINT NOT NULL,
    stream_pos BIGINT NOT NULL,
    forgotten  BIGINT NOT NULL DEFAULT 0,
    PRIMARY KEY (user_id, room_nid)
) WITHOUT ROWID; -- only: sqlite
); -- only: postgres
CREATE INDEX memberships_room ON memberships (room_nid, membership);

-- An invite from a server whose room we do not have: the stripped state it came with.
CREATE TABLE invites (
    user_id    TEXT NOT NULL,
    room_nid   BIGINT NOT NULL,
    event_json BYTEA NOT NULL,
    state_json BYTEA NOT NULL,
    PRIMARY KEY (user_id, room_nid)
);

CREATE TABLE room_aliases (
    alias    TEXT NOT NULL PRIMARY KEY,
    room_nid BIGINT NOT NULL,
    creator  TEXT NOT NULL
);
CREATE INDEX room_aliases_room ON room_aliases (room_nid);

CREATE TABLE receipts (
    room_nid   BIGINT NOT NULL,
    user_id    TEXT NOT NULL,
    type       TEXT NOT NULL,
    thread_id  TEXT NOT NULL,
    event_id   TEXT NOT NULL,
    event_pos  BIGINT NOT NULL,
    ts         BIGINT NOT NULL,
    stream_pos BIGINT NOT NULL,
    PRIMARY KEY (room_nid, user_id, type, thread_id)
);
CREATE INDEX receipts_pos ON receipts (stream_pos);

-- What must reach another server, in order (filled from the first day, drained by federation).
CREATE TABLE outbox (
    destination TEXT NOT NULL,
    seq         BIGINT NOT NULL,            -- stream position it was queued at
    kind        TEXT NOT NULL,              -- pdu, edu
    event_nid   BIGINT NOT NULL,            -- 0 for an edu
    payload     BYTEA NOT NULL,
    PRIMARY KEY (destination, seq)
) WITHOUT ROWID; -- only: sqlite
); -- only: postgres
