-- Signing keys of other servers. valid_until_ts: as the server promised, at most a week ahead of the day it was asked; expired_ts: when
-- it stopped using the key, 0 while it does.
CREATE TABLE remote_keys (
    server         TEXT NOT NULL,
    key_id         TEXT NOT NULL,
    public_key     BYTEA NOT NULL,
    valid_until_ts BIGINT NOT NULL,
    expired_ts     BIGINT NOT NULL,
    PRIMARY KEY (server, key_id)
) WITHOUT ROWID; -- only: sqlite
); -- only: postgres

-- What a server said of its keys last, as it was signed: for those who ask us about it.
CREATE TABLE remote_key_documents (
    server         TEXT NOT NULL PRIMARY KEY,
    json           BYTEA NOT NULL,
    fetched_ts     BIGINT NOT NULL,
    valid_until_ts BIGINT NOT NULL
);

-- Transactions of other servers that were worked through, with the answer they got.
CREATE TABLE federation_txns (
    origin TEXT NOT NULL,
    txn_id TEXT NOT NULL,
    ts     BIGINT NOT NULL,
    answer BYTEA NOT NULL,
    PRIMARY KEY (origin, txn_id)
);
CREATE INDEX federation_txns_ts ON federation_txns (ts);
