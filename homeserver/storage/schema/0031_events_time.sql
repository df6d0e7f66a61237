-- For /timestamp_to_event: what a room's timeline holds next to a time.
CREATE INDEX events_room_time ON events (room_nid, origin_ts, stream_pos) WHERE stream_pos <> 0 AND status = 0;
