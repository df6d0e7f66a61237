-- Users of the relay with passwords of their own, apart from accounts: machines, telephones, whoever coturn knew. key is
-- MD5(name ":" realm ":" password), all that RFC 8489, section 9.2.2, needs.
CREATE TABLE turn_users (
    realm TEXT NOT NULL,
    name  TEXT NOT NULL,
    key   BYTEA NOT NULL,
    PRIMARY KEY (realm, name)
) WITHOUT ROWID; -- only: sqlite
); -- only: postgres
INSERT INTO counters (name, value) VALUES ('turn_users', 0);
