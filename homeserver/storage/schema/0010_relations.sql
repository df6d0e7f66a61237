-- What relates to an event, with what is asked of it, so that counting and paging read one index. Rows of events that are redacted,
-- rejected or soft-failed are not there.
ALTER TABLE relations ADD COLUMN sender TEXT NOT NULL DEFAULT '';
ALTER TABLE relations ADD COLUMN type TEXT NOT NULL DEFAULT '';
ALTER TABLE relations ADD COLUMN stream_pos BIGINT NOT NULL DEFAULT 0;
ALTER TABLE relations ADD COLUMN origin_ts BIGINT NOT NULL DEFAULT 0;
UPDATE relations SET
    sender = (SELECT e.sender FROM events e WHERE e.event_nid = relations.event_nid),
    type = (SELECT e.type FROM events e WHERE e.event_nid = relations.event_nid),
    stream_pos = (SELECT e.stream_pos FROM events e WHERE e.event_nid = relations.event_nid),
    origin_ts = (SELECT e.origin_ts FROM events e WHERE e.event_nid = relations.event_nid);
DELETE FROM relations WHERE event_nid IN (SELECT event_nid FROM events WHERE status <> 0 OR redacted_by <> '');
CREATE INDEX relations_kind ON relations (relates_to, rel_type, stream_pos, sender);
CREATE INDEX relations_room ON relations (room_nid, rel_type, relates_to, stream_pos);
CREATE INDEX relations_event ON relations (event_nid);
