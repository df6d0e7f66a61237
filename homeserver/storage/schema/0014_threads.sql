-- Thread subscriptions (MSC4306). state: 1 subscribed by the user, 2 subscribed by his client on its own, 0 unsubscribed.
CREATE TABLE thread_subscriptions (
    user_id    TEXT NOT NULL,
    room_id    TEXT NOT NULL,
    root_id    TEXT NOT NULL,
    state      BIGINT NOT NULL,
    stream_pos BIGINT NOT NULL,            -- of the last change: what is in the thread after it may subscribe again
    PRIMARY KEY (user_id, room_id, root_id)
) WITHOUT ROWID; -- only: sqlite
); -- only: postgres
CREATE INDEX thread_subscriptions_pos ON thread_subscriptions (user_id, stream_pos);
