-- Accounts that may look but not act (client-server API, "Account suspension"), and tokens that log a second device in once.
ALTER TABLE users ADD COLUMN suspended BIGINT NOT NULL DEFAULT 0;

CREATE TABLE login_tokens (
    token_hash BYTEA NOT NULL PRIMARY KEY,
    user_id    TEXT NOT NULL,
    expires_ts BIGINT NOT NULL
);
CREATE INDEX login_tokens_user ON login_tokens (user_id);
