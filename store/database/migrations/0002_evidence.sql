-- What is found out about students while they serve, what clients say, and what is done by hand.
-- The rules of 0001 hold.

CREATE TABLE comparisons (
    trace_id UUID NOT NULL,
    task VARCHAR NOT NULL,
    student_id UUID NOT NULL,
    kind VARCHAR NOT NULL,
    scorer VARCHAR NOT NULL,
    score DOUBLE NOT NULL,
    agrees BOOLEAN NOT NULL,
    servable BOOLEAN NOT NULL,
    fault VARCHAR,
    confidence DOUBLE,
    teacher_output VARCHAR USING COMPRESSION zstd,
    student_output VARCHAR USING COMPRESSION zstd,
    "at" DOUBLE NOT NULL
);

CREATE TABLE feedback (
    feedback_id UUID NOT NULL,
    trace_id UUID NOT NULL,
    feedback_at DOUBLE NOT NULL,
    score DOUBLE,
    correction VARCHAR USING COMPRESSION zstd,
    feedback_key VARCHAR
);

-- Traces that were spoken of, until it is worked out what that means for the student that answered:
-- written when the feedback is collected, and once more when its trace comes after it.
CREATE TABLE feedback_news (
    trace_id UUID NOT NULL
);

CREATE TABLE actions (
    action_id UUID NOT NULL,
    task VARCHAR NOT NULL,
    command VARCHAR NOT NULL,
    actor VARCHAR NOT NULL,
    reason VARCHAR NOT NULL,
    "at" DOUBLE NOT NULL,
    forced BOOLEAN NOT NULL
);

ALTER TABLE evaluations ADD COLUMN signals VARCHAR;  -- JSON object
ALTER TABLE evaluations ADD COLUMN fingerprint VARCHAR DEFAULT '';
ALTER TABLE segments ADD COLUMN feedback BIGINT DEFAULT 0;
ALTER TABLE promotions ADD COLUMN forced BOOLEAN DEFAULT false;
ALTER TABLE promotions ADD COLUMN suspect_since DOUBLE;

-- Over `SELECT *`, and so made again.
CREATE OR REPLACE VIEW routes AS
SELECT * FROM promotions
QUALIFY row_number() OVER (PARTITION BY task ORDER BY "at" DESC, promotion_id DESC) = 1;
