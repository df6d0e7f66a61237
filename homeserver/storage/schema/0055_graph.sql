-- prev_events that we do not have: history goes on there, and other servers are asked for it. event_nid is the event that names them.
CREATE TABLE gaps (
    room_nid   BIGINT NOT NULL,
    missing_id TEXT NOT NULL,
    event_nid  BIGINT NOT NULL,
    PRIMARY KEY (room_nid, missing_id, event_nid)
) WITHOUT ROWID; -- only: sqlite
); -- only: postgres

-- Redactions that came before their target.
CREATE TABLE early_redactions (
    room_nid  BIGINT NOT NULL,
    target_id TEXT NOT NULL,
    event_nid BIGINT NOT NULL,
    PRIMARY KEY (room_nid, target_id, event_nid)
) WITHOUT ROWID; -- only: sqlite
); -- only: postgres

-- Rooms joined with members omitted (MSC3706): the rest of the state is still to be fetched. servers: JSON array, those in the room.
CREATE TABLE partial_rooms (
    room_nid BIGINT NOT NULL PRIMARY KEY,
    join_nid BIGINT NOT NULL,
    via      TEXT NOT NULL,
    servers  TEXT NOT NULL
);
