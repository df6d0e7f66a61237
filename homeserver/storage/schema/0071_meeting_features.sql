-- What a Jitsi token switches on or off was kept for a page that never asked for it.
ALTER TABLE meeting_sessions DROP COLUMN features;
