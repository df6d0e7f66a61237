-- The ends of call memberships that clients have handed over to this server: the delayed event is sent when its member has left the SFU.
CREATE TABLE rtc_leaves (
    media_room TEXT NOT NULL,              -- name of the room in the SFU
    identity   TEXT NOT NULL,              -- of the member there
    delay_id   TEXT NOT NULL,
    delay_ms   BIGINT NOT NULL,
    PRIMARY KEY (media_room, identity)
) WITHOUT ROWID; -- only: sqlite
); -- only: postgres
CREATE INDEX rtc_leaves_delay ON rtc_leaves (delay_id);
