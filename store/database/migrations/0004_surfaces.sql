-- Which API a request came through, and how much of what was said is kept.
-- The rules of 0001 hold.

-- chat_completions, responses, messages, completions or embeddings
ALTER TABLE traces ADD COLUMN api VARCHAR DEFAULT 'chat_completions';
-- full, redacted, or none: the client opted out
ALTER TABLE traces ADD COLUMN content VARCHAR DEFAULT 'full';

-- What has texts that a student could have answered. Over `SELECT *`, as is the next: made again by
-- a migration that changes the table's columns.
CREATE VIEW chats AS
SELECT * FROM traces WHERE operation_name = 'chat' AND content <> 'none';

CREATE OR REPLACE VIEW teacher_traces AS
SELECT * FROM chats
WHERE served_by = 'teacher' AND route = 'teacher' AND outcome = 'complete' AND status_code = 200;

-- What was asked to be forgotten. Its subjects are in `forgotten`; the rest is numbers.
CREATE TABLE forgettings (
    forgetting_id UUID NOT NULL,
    state VARCHAR NOT NULL,  -- asked, deleted (from the tables and the folders), done (written anew)
    actor VARCHAR NOT NULL,
    reason VARCHAR NOT NULL,
    "at" DOUBLE NOT NULL,
    traces BIGINT NOT NULL,
    examples BIGINT NOT NULL,
    synthetic BIGINT NOT NULL
);

-- Whom and what to know again when it comes back: hashes, never names. See store.database.forgetting.
CREATE TABLE forgotten (
    forgetting_id UUID NOT NULL,
    kind VARCHAR NOT NULL,  -- trace, said, user, task
    digest VARCHAR NOT NULL,
    until DOUBLE  -- requests begun before; NULL: whenever
);

-- What the hashes are made with.
CREATE TABLE salt (
    value VARCHAR NOT NULL
);
INSERT INTO salt SELECT uuid()::VARCHAR || uuid()::VARCHAR;

-- How much of what a run's adapter learned was forgotten afterwards.
CREATE TABLE marks (
    forgetting_id UUID NOT NULL,
    run_id UUID NOT NULL,
    task VARCHAR NOT NULL,
    traces BIGINT NOT NULL,
    synthetic BIGINT NOT NULL,
    "at" DOUBLE NOT NULL
);

-- Which adapters learned from traces that are too old to be kept: hashes, as in `forgotten`. So a
-- trace that is forgotten after it has expired still marks them.
CREATE TABLE learned (
    run_id UUID NOT NULL,
    task VARCHAR NOT NULL,
    trace_digest VARCHAR NOT NULL,
    user_digest VARCHAR,
    start_time DOUBLE NOT NULL
);

ALTER TABLE segments ADD COLUMN forgotten BIGINT DEFAULT 0;
ALTER TABLE policies ADD COLUMN parent_ids VARCHAR[];  -- trace ids; NULL: of before this migration
