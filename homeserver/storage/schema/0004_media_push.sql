-- Media: what was uploaded, by whom. The bytes are files named by their SHA-256; several rows may name one file.

CREATE TABLE media (
    origin       TEXT NOT NULL,             -- server name in the mxc:// URI
    media_id     TEXT NOT NULL,
    uploader     TEXT NOT NULL,
    created_ts   BIGINT NOT NULL,
    expires_ts   BIGINT NOT NULL DEFAULT 0, -- of an id without content: when it lapses
    sha256       TEXT NOT NULL,             -- hex; '' as long as there is no content
    size         BIGINT NOT NULL DEFAULT 0,
    content_type TEXT NOT NULL DEFAULT '',
    file_name    TEXT NOT NULL DEFAULT '',
    PRIMARY KEY (origin, media_id)
) WITHOUT ROWID; -- only: sqlite
); -- only: postgres
CREATE INDEX media_uploader ON media (uploader, size);
CREATE INDEX media_sha256 ON media (sha256) WHERE sha256 <> '';
CREATE INDEX media_pending ON media (uploader, expires_ts) WHERE sha256 = '';

-- What a user changed about the predefined push rules, and the user's own rules; see homeserver/push. One row a user: rules are
-- always read and written together, and their order matters.
CREATE TABLE push_rules (
    user_id    TEXT NOT NULL PRIMARY KEY,
    rules      BYTEA NOT NULL,
    stream_pos BIGINT NOT NULL
);
CREATE INDEX push_rules_pos ON push_rules (stream_pos);

CREATE TABLE pushers (
    user_id    TEXT NOT NULL,
    app_id     TEXT NOT NULL,
    pushkey    TEXT NOT NULL,
    device_id  TEXT NOT NULL,               -- whose access token set it; it goes with the device
    created_ts BIGINT NOT NULL,
    json       BYTEA NOT NULL,              -- the pusher as the client wrote it
    PRIMARY KEY (user_id, app_id, pushkey)
) WITHOUT ROWID; -- only: sqlite
); -- only: postgres
CREATE INDEX pushers_key ON pushers (app_id, pushkey);
