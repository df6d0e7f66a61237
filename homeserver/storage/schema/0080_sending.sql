-- Of several nodes, which one sends to another server: see homeserver/storage/sending.go. (PostgreSQL only; a server on SQLite is one node.)
CREATE TABLE sending_nodes (
    node     TEXT NOT NULL PRIMARY KEY,
    until_ts BIGINT NOT NULL -- it is gone when this has passed by the clock of the database
);
CREATE TABLE sending_leases (
    destination TEXT NOT NULL PRIMARY KEY,
    node        TEXT NOT NULL,
    away        BIGINT NOT NULL DEFAULT 0 -- 1: that server does not answer
);
CREATE INDEX sending_leases_node ON sending_leases (node);
