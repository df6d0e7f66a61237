-- End-to-end encryption keys, send-to-device messages, room key backup. The table devices is in the accounts part of the schema.

-- json: canonical JSON of the device keys without signatures and unsigned; the signatures are rows of key_signatures.
CREATE TABLE device_keys (
    user_id    TEXT NOT NULL,
    device_id  TEXT NOT NULL,
    stream_pos BIGINT NOT NULL,
    json       TEXT NOT NULL,
    PRIMARY KEY (user_id, device_id)
) WITHOUT ROWID; -- only: sqlite
); -- only: postgres

-- stream_pos: of the upload; keys are handed out in that order.
CREATE TABLE one_time_keys (
    user_id    TEXT NOT NULL,
    device_id  TEXT NOT NULL,
    algorithm  TEXT NOT NULL,
    stream_pos BIGINT NOT NULL,
    key_id     TEXT NOT NULL,
    json       TEXT NOT NULL,
    PRIMARY KEY (user_id, device_id, algorithm, stream_pos, key_id)
) WITHOUT ROWID; -- only: sqlite
); -- only: postgres

-- used: 1 once the key was handed out.
CREATE TABLE fallback_keys (
    user_id   TEXT NOT NULL,
    device_id TEXT NOT NULL,
    algorithm TEXT NOT NULL,
    key_id    TEXT NOT NULL,
    json      TEXT NOT NULL,
    used      BIGINT NOT NULL,
    PRIMARY KEY (user_id, device_id, algorithm)
) WITHOUT ROWID; -- only: sqlite
); -- only: postgres

-- usage: master, self_signing, user_signing. json: canonical, without signatures and unsigned.
CREATE TABLE cross_signing_keys (
    user_id    TEXT NOT NULL,
    usage      TEXT NOT NULL,
    public_key TEXT NOT NULL,
    stream_pos BIGINT NOT NULL,
    json       TEXT NOT NULL,
    PRIMARY KEY (user_id, usage)
) WITHOUT ROWID; -- only: sqlite
); -- only: postgres

-- target_key: a device id, or the public key of a cross-signing key. signer_key: "ed25519:DEVICE" or "ed25519:PUBLIC_KEY".
CREATE TABLE key_signatures (
    target_user TEXT NOT NULL,
    target_key  TEXT NOT NULL,
    signer_user TEXT NOT NULL,
    signer_key  TEXT NOT NULL,
    signature   TEXT NOT NULL,
    PRIMARY KEY (target_user, target_key, signer_user, signer_key)
) WITHOUT ROWID; -- only: sqlite
); -- only: postgres
CREATE INDEX key_signatures_signer ON key_signatures (signer_user, signer_key);

-- The newest change of each user's devices and keys. viewer: the only user who can see the change, '' when everybody can.
CREATE TABLE device_list_changes (
    user_id    TEXT NOT NULL,
    viewer     TEXT NOT NULL,
    stream_pos BIGINT NOT NULL,
    PRIMARY KEY (user_id, viewer)
) WITHOUT ROWID; -- only: sqlite
); -- only: postgres
CREATE INDEX device_list_changes_pos ON device_list_changes (stream_pos, viewer);

-- Messages that wait for a device. event: {"content":…,"sender":…,"type":…}. Rows are in the order they were written, not by device:
-- what is sent to many devices at once lands on few pages.
CREATE TABLE to_device (
    user_id    TEXT NOT NULL,
    device_id  TEXT NOT NULL,
    stream_pos BIGINT NOT NULL,
    event      TEXT NOT NULL,
    PRIMARY KEY (user_id, device_id, stream_pos)
);

-- Transactions of sendToDevice that were carried out.
CREATE TABLE to_device_txns (
    user_id   TEXT NOT NULL,
    device_id TEXT NOT NULL,
    type      TEXT NOT NULL,
    txn_id    TEXT NOT NULL,
    ts        BIGINT NOT NULL,
    PRIMARY KEY (user_id, device_id, txn_id, type)
) WITHOUT ROWID; -- only: sqlite
); -- only: postgres
CREATE INDEX to_device_txns_ts ON to_device_txns (ts);

-- A deleted version stays as a row, so that its number is not used again.
CREATE TABLE backup_versions (
    user_id   TEXT NOT NULL,
    version   BIGINT NOT NULL,
    algorithm TEXT NOT NULL,
    auth_data TEXT NOT NULL,
    etag      BIGINT NOT NULL,
    sessions  BIGINT NOT NULL,               -- rows of backup_sessions
    deleted   BIGINT NOT NULL DEFAULT 0,
    PRIMARY KEY (user_id, version)
) WITHOUT ROWID; -- only: sqlite
); -- only: postgres

CREATE TABLE backup_sessions (
    user_id       TEXT NOT NULL,
    version       BIGINT NOT NULL,
    room_id       TEXT NOT NULL,
    session_id    TEXT NOT NULL,
    first_index   BIGINT NOT NULL,
    forwarded     BIGINT NOT NULL,
    verified      BIGINT NOT NULL,
    session_data  TEXT NOT NULL,
    PRIMARY KEY (user_id, version, room_id, session_id)
);
