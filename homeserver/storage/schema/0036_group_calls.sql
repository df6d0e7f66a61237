-- Group calls: a record of many people has them in participants (a JSON list of user ids, '' for a call of two).
ALTER TABLE call_records ADD COLUMN participants TEXT NOT NULL DEFAULT '';

-- Group calls that go on, so that a restart ends none and begins none twice.
CREATE TABLE group_calls (
    room_nid    BIGINT NOT NULL,
    slot_id     TEXT NOT NULL,
    call_id     TEXT NOT NULL,
    event_id    TEXT NOT NULL,             -- of the first membership; '' for a call that only the SFU saw
    starter     TEXT NOT NULL,
    audio       BIGINT NOT NULL,           -- 1: everybody means to speak only
    started_ts  BIGINT NOT NULL,
    answered_ts BIGINT NOT NULL,           -- when a second user came; 0: never
    seen_ts     BIGINT NOT NULL,           -- when this row was written
    people      TEXT NOT NULL,             -- JSON list of user ids
    PRIMARY KEY (room_nid, slot_id)
) WITHOUT ROWID; -- only: sqlite
); -- only: postgres
