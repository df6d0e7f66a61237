-- What each commit put into the stream, for the other nodes of a server that has several: see homeserver/storage/share.go. Kept for
-- minutes. (PostgreSQL only; a server on SQLite is one node.)
CREATE TABLE stream_log (
    stream_pos BIGINT NOT NULL PRIMARY KEY, -- the newest of the commit
    node       TEXT NOT NULL,
    ts         BIGINT NOT NULL,
    notes      BYTEA NOT NULL               -- JSON array
);
CREATE INDEX stream_log_ts ON stream_log (ts);
-- The newest position that was dropped from stream_log.
INSERT INTO counters (name, value) VALUES ('stream_log', 0);
