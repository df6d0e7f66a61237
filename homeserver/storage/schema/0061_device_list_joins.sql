-- Users of this server who have joined a room with other servers in it, which have not been told of their devices yet.
CREATE TABLE device_list_joins (
    user_id  TEXT NOT NULL,
    room_nid BIGINT NOT NULL,
    PRIMARY KEY (user_id, room_nid)
) WITHOUT ROWID; -- only: sqlite
); -- only: postgres
