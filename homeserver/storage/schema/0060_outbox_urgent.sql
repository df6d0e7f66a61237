-- What must not wait behind a backlog: events of calls, keys for them, memberships of group calls.
ALTER TABLE outbox ADD COLUMN urgent BIGINT NOT NULL DEFAULT 0;
CREATE INDEX outbox_urgent ON outbox (destination, seq) WHERE urgent = 1;
-- Up to where the stream of device list changes was told to other servers.
INSERT INTO counters (name, value) VALUES ('federation_devices', 0);
