-- Sticky events (MSC4354): those that have not ceased to stick, or did so a short while ago. stream_pos is where clients hear of them:
-- that of the event, or for one that was soft-failed (1) the place where it was let in after all.
CREATE TABLE sticky_events (
    event_nid  BIGINT NOT NULL PRIMARY KEY,
    room_nid   BIGINT NOT NULL,
    sender     TEXT NOT NULL,
    stream_pos BIGINT NOT NULL,
    until_ts   BIGINT NOT NULL,
    soft       BIGINT NOT NULL
);
CREATE INDEX sticky_events_room ON sticky_events (room_nid, stream_pos);
CREATE INDEX sticky_events_until ON sticky_events (until_ts);

ALTER TABLE delayed_events ADD COLUMN sticky_ms BIGINT NOT NULL DEFAULT 0;
