-- Users, devices, tokens, profiles, filters, account data. Secrets are stored as SHA-256 only; passwords as PHC strings.

-- Random values that all nodes share, e.g. the key that interactive-authentication sessions are signed with.
CREATE TABLE secrets (
    name  TEXT NOT NULL PRIMARY KEY,
    value BYTEA NOT NULL
);

CREATE TABLE users (
    user_id       TEXT NOT NULL PRIMARY KEY,
    password_hash TEXT NOT NULL,             -- argon2id or, imported, bcrypt; '' where nobody can log in with a password
    created_ts    BIGINT NOT NULL,
    is_guest      BIGINT NOT NULL DEFAULT 0,
    is_admin      BIGINT NOT NULL DEFAULT 0,
    deactivated   BIGINT NOT NULL DEFAULT 0,
    locked        BIGINT NOT NULL DEFAULT 0,
    user_type     TEXT NOT NULL DEFAULT '',  -- '', bot, support
    display_name  TEXT NOT NULL DEFAULT '',
    avatar_url    TEXT NOT NULL DEFAULT '',
    profile       BYTEA                      -- JSON object: the other fields of the profile
);

CREATE TABLE devices (
    user_id      TEXT NOT NULL,
    device_id    TEXT NOT NULL,
    display_name TEXT NOT NULL,
    created_ts   BIGINT NOT NULL,
    seen_ts      BIGINT NOT NULL,
    seen_ip      TEXT NOT NULL DEFAULT '',
    PRIMARY KEY (user_id, device_id)
) WITHOUT ROWID; -- only: sqlite
); -- only: postgres

CREATE TABLE access_tokens (
    token_hash BYTEA NOT NULL PRIMARY KEY,
    user_id    TEXT NOT NULL,
    device_id  TEXT NOT NULL,
    expires_ts BIGINT NOT NULL,              -- 0: never
    parent     BYTEA                         -- the refresh token it was given for, until the first use shows that it arrived
);
CREATE INDEX access_tokens_device ON access_tokens (user_id, device_id);
CREATE INDEX access_tokens_expires ON access_tokens (expires_ts) WHERE expires_ts > 0;

-- One family of refresh tokens per device. spent: a successor has been used, so this one can only be used by a thief.
CREATE TABLE refresh_tokens (
    token_hash BYTEA NOT NULL PRIMARY KEY,
    user_id    TEXT NOT NULL,
    device_id  TEXT NOT NULL,
    created_ts BIGINT NOT NULL,
    parent     BYTEA,
    spent      BIGINT NOT NULL DEFAULT 0
);
CREATE INDEX refresh_tokens_device ON refresh_tokens (user_id, device_id);

CREATE TABLE registration_tokens (
    token      TEXT NOT NULL PRIMARY KEY,
    uses       BIGINT NOT NULL,              -- how often it may still be used; -1: any number of times
    expires_ts BIGINT NOT NULL,              -- 0: never
    created_ts BIGINT NOT NULL
);

-- Things that may happen once: nonces that were used, kept until they would have expired.
CREATE TABLE used_nonces (
    nonce      TEXT NOT NULL PRIMARY KEY,
    expires_ts BIGINT NOT NULL
);

-- Stages that an unfinished interactive authentication has behind it. Nothing secret is kept.
CREATE TABLE uia_stages (
    session    TEXT NOT NULL,
    stage      TEXT NOT NULL,
    expires_ts BIGINT NOT NULL,
    PRIMARY KEY (session, stage)
);

CREATE TABLE filters (
    user_id   TEXT NOT NULL,
    filter_id BIGINT NOT NULL,
    hash      BYTEA NOT NULL,
    json      BYTEA NOT NULL,
    PRIMARY KEY (user_id, filter_id)
);
CREATE UNIQUE INDEX filters_hash ON filters (user_id, hash);

-- room_id '' is global account data.
CREATE TABLE account_data (
    user_id    TEXT NOT NULL,
    room_id    TEXT NOT NULL,
    type       TEXT NOT NULL,
    content    BYTEA NOT NULL,
    stream_pos BIGINT NOT NULL,
    PRIMARY KEY (user_id, room_id, type)
);
CREATE INDEX account_data_pos ON account_data (user_id, stream_pos);
