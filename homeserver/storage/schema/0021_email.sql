-- E-mail addresses of accounts, and addresses that somebody is proving to be his. Addresses are in small letters.
CREATE TABLE emails (
    address      TEXT NOT NULL PRIMARY KEY,
    user_id      TEXT NOT NULL,
    validated_ts BIGINT NOT NULL,
    added_ts     BIGINT NOT NULL
);
CREATE INDEX emails_user ON emails (user_id);

-- A session of POST …/email/requestToken. The token in the mail is made from salt and a key of the server, and is not stored.
CREATE TABLE email_sessions (
    sid          TEXT NOT NULL PRIMARY KEY,
    address      TEXT NOT NULL,
    purpose      TEXT NOT NULL,              -- register, add, reset: a proof is good for that alone
    secret_hash  BYTEA NOT NULL,             -- SHA-256 of the client's secret
    salt         BYTEA NOT NULL,
    attempt      BIGINT NOT NULL,            -- the newest send_attempt that was answered with a mail
    next_link    TEXT NOT NULL,
    validated_ts BIGINT NOT NULL DEFAULT 0,
    expires_ts   BIGINT NOT NULL
);
CREATE UNIQUE INDEX email_sessions_request ON email_sessions (address, purpose, secret_hash);
CREATE INDEX email_sessions_expires ON email_sessions (expires_ts);

-- What a finished stage has proven and a later one needs: the session of an e-mail address, a registration token.
ALTER TABLE uia_stages ADD COLUMN detail TEXT NOT NULL DEFAULT '';
