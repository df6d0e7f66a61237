-- Delayed events (MSC4140): what a user asked to be sent later, unless it is put off or taken back. state: 0 waits, 1 sent,
-- 2 taken back, 3 refused by the room. Rows that do not wait any more are kept for a while, for repeated requests.
CREATE TABLE delayed_events (
    delay_id   TEXT NOT NULL PRIMARY KEY,
    user_id    TEXT NOT NULL,
    device_id  TEXT NOT NULL,
    room_id    TEXT NOT NULL,
    txn_id     TEXT NOT NULL,              -- '' for state events, which have none
    type       TEXT NOT NULL,
    state_key  TEXT,
    content    BYTEA NOT NULL,
    delay_ms   BIGINT NOT NULL,
    since_ts   BIGINT NOT NULL,            -- when the delay last began
    due_ts     BIGINT NOT NULL,            -- when the event is to be sent
    lease_ts   BIGINT NOT NULL DEFAULT 0,  -- until then a node is sending it
    state      BIGINT NOT NULL DEFAULT 0,
    done_ts    BIGINT NOT NULL DEFAULT 0,
    event_id   TEXT NOT NULL DEFAULT ''
);
CREATE INDEX delayed_events_due ON delayed_events (state, due_ts);
CREATE INDEX delayed_events_user ON delayed_events (user_id, state, since_ts);
CREATE UNIQUE INDEX delayed_events_txn ON delayed_events (user_id, device_id, room_id, txn_id) WHERE txn_id <> '';
