-- Words of messages, for /search. The text itself stays in events: the index holds words only. It follows the stream by itself, up to
-- the position in counters; ids are event_nid.
INSERT INTO counters (name, value) VALUES ('search', 0);
CREATE VIRTUAL TABLE search_words USING fts5(body, name, topic, room, content='', contentless_delete=1, tokenize='unicode61 remove_diacritics 2'); -- only: sqlite
CREATE TABLE search_words ( -- only: postgres
    event_nid BIGINT NOT NULL PRIMARY KEY, -- only: postgres
    room_nid  BIGINT NOT NULL, -- only: postgres
    words     TSVECTOR NOT NULL -- only: postgres
); -- only: postgres
CREATE INDEX search_words_words ON search_words USING GIN (words); -- only: postgres
CREATE INDEX search_words_room ON search_words (room_nid); -- only: postgres
