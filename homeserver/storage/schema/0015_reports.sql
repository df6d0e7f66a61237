-- What users report to the administrators: an event, a room (event_id '') or a user (room_id '').
CREATE TABLE reports (
    report_nid INTEGER NOT NULL PRIMARY KEY, -- only: sqlite
    report_nid BIGINT NOT NULL PRIMARY KEY, -- only: postgres
    created_ts BIGINT NOT NULL,
    reporter   TEXT NOT NULL,
    room_id    TEXT NOT NULL,
    event_id   TEXT NOT NULL,
    user_id    TEXT NOT NULL,
    reason     TEXT NOT NULL
);
