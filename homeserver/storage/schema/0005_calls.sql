-- Call records: what remains of each m.call.* call that the server could read; see homeserver/calls.

CREATE TABLE call_records (
    id INTEGER NOT NULL PRIMARY KEY, -- only: sqlite
    id BIGINT NOT NULL PRIMARY KEY, -- only: postgres
    room_nid    BIGINT NOT NULL,
    call_id     TEXT NOT NULL,
    caller      TEXT NOT NULL,
    callee      TEXT NOT NULL,             -- who took the call, else who declined it; '' for nobody
    invitee     TEXT NOT NULL,             -- as the invite names it; '' for whoever is in the room
    invite_id   TEXT NOT NULL,             -- event id of the invite
    kind        TEXT NOT NULL,             -- audio, video
    outcome     TEXT NOT NULL,
    missed      BIGINT NOT NULL,           -- 1: it rang, and nobody took or declined it
    reason      TEXT NOT NULL,
    started_ts  BIGINT NOT NULL,
    answered_ts BIGINT NOT NULL,           -- 0: never
    ended_ts    BIGINT NOT NULL,
    UNIQUE (room_nid, call_id, caller)     -- a call is recorded once, by whichever node comes first
);
CREATE INDEX call_records_room ON call_records (room_nid, started_ts, id);
CREATE INDEX call_records_started ON call_records (started_ts);

-- The local users who find a call in their own history, whatever becomes of the room.
CREATE TABLE call_parties (
    user_id    TEXT NOT NULL,
    started_ts BIGINT NOT NULL,
    id         BIGINT NOT NULL,            -- of call_records
    PRIMARY KEY (user_id, started_ts, id)
) WITHOUT ROWID; -- only: sqlite
); -- only: postgres
CREATE INDEX call_parties_started ON call_parties (started_ts);

-- Calls that have gone on for long: after a restart their events are read again from start_pos.
CREATE TABLE calls_in_progress (
    room_nid  BIGINT NOT NULL,
    call_id   TEXT NOT NULL,
    start_pos BIGINT NOT NULL,             -- stream position of the invite
    PRIMARY KEY (room_nid, call_id)
) WITHOUT ROWID; -- only: sqlite
); -- only: postgres
