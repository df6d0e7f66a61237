-- Accounts whose user asked at the end that his messages be hidden from those who come later: where the stream was then, 0 for others.
ALTER TABLE users ADD COLUMN erased_pos BIGINT NOT NULL DEFAULT 0;
CREATE INDEX users_erased ON users (erased_pos) WHERE erased_pos > 0;
