-- The device of a user that receives keys while he is nowhere logged in (MSC3814). It is a row of devices too, without tokens.
CREATE TABLE dehydrated_devices (
    user_id   TEXT NOT NULL PRIMARY KEY,
    device_id TEXT NOT NULL,
    data      TEXT NOT NULL              -- JSON object, sealed by the client
);
