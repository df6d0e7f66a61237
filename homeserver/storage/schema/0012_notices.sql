-- The room in which the server tells a user something ("Server Notices").
CREATE TABLE notice_rooms (
    user_id TEXT NOT NULL PRIMARY KEY,
    room_id TEXT NOT NULL
);
