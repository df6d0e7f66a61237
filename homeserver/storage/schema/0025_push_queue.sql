-- Pushers: whether they are switched on (MSC3881), what the application was last told, and how its gateway has been answering.
ALTER TABLE pushers ADD COLUMN enabled BIGINT NOT NULL DEFAULT 1;
ALTER TABLE pushers ADD COLUMN unread BIGINT NOT NULL DEFAULT 0;    -- counts that were pushed last
ALTER TABLE pushers ADD COLUMN missed BIGINT NOT NULL DEFAULT 0;
ALTER TABLE pushers ADD COLUMN failures BIGINT NOT NULL DEFAULT 0;  -- in a row
ALTER TABLE pushers ADD COLUMN retry_ts BIGINT NOT NULL DEFAULT 0;  -- not before this
ALTER TABLE pushers ADD COLUMN lease_ts BIGINT NOT NULL DEFAULT 0;  -- until then a node is delivering

-- What pushers have to deliver, and calls that ring on devices that were told of them; see homeserver/push/deliver.
-- kind: 0 an event, 1 an event that rings, 2 new counts, 3 a ring that is over. state: 0 waits, 1 the gateway has taken the ring.
CREATE TABLE push_queue (
    id INTEGER NOT NULL PRIMARY KEY, -- only: sqlite
    id BIGINT NOT NULL PRIMARY KEY, -- only: postgres
    user_id    TEXT NOT NULL,
    app_id     TEXT NOT NULL,
    pushkey    TEXT NOT NULL,
    kind       BIGINT NOT NULL,
    state      BIGINT NOT NULL DEFAULT 0,
    room_id    TEXT NOT NULL,
    event_id   TEXT NOT NULL,
    event_nid  BIGINT NOT NULL,
    stream_pos BIGINT NOT NULL,            -- of the event
    ring       TEXT NOT NULL,              -- call_id, or event id of the notification that rings; '' for what does not ring
    sender     TEXT NOT NULL,              -- who rings
    tweaks     BYTEA NOT NULL,             -- JSON object
    high       BIGINT NOT NULL,            -- 1: priority high
    created_ts BIGINT NOT NULL,
    expires_ts BIGINT NOT NULL             -- delivered no later; a ring is over then
);
CREATE UNIQUE INDEX push_queue_once ON push_queue (user_id, app_id, pushkey, event_id, kind);
CREATE INDEX push_queue_next ON push_queue (user_id, app_id, pushkey, state, stream_pos, id);
CREATE INDEX push_queue_ring ON push_queue (room_id, ring) WHERE ring <> '';

-- Every event up to this position was looked at for pushes; -1: none ever was.
INSERT INTO counters (name, value) VALUES ('push', -1);
