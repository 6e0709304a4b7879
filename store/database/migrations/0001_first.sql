-- The first schema: everything that one machine keeps.
--
-- Only what DuckLake takes too: no keys, indexes, checks, enums, sequences. Uniqueness is kept by
-- how rows are written: segments and their traces in one transaction, run records by replacing.
-- Times are DOUBLE seconds since the epoch, as in the records: a trace reads back as it was
-- written, and no time zone, of a session or a library, has a say. `to_timestamp(start_time)` shows one.
-- JSON is kept as text. Row groups are small (see store/database/database.py); payloads compress with zstd.

CREATE TABLE segments (
    name VARCHAR NOT NULL,  -- of the journal segment, without its suffix
    traces BIGINT NOT NULL,
    damaged BIGINT NOT NULL,  -- lines set aside
    collected_at DOUBLE NOT NULL
);

CREATE TABLE traces (
    trace_id UUID NOT NULL,
    start_time DOUBLE NOT NULL,
    end_time DOUBLE NOT NULL,
    task VARCHAR,
    operation_name VARCHAR NOT NULL,
    served_by VARCHAR,
    route VARCHAR NOT NULL,
    reason VARCHAR NOT NULL,
    outcome VARCHAR NOT NULL,
    status_code INTEGER NOT NULL,
    error_type VARCHAR,
    stream BOOLEAN NOT NULL,
    provider_name VARCHAR,
    request_model VARCHAR,
    response_model VARCHAR,
    response_id VARCHAR,
    student_id VARCHAR,
    finish_reasons VARCHAR[] NOT NULL,
    duration_ms DOUBLE NOT NULL,
    time_to_first_chunk_ms DOUBLE,
    student_ms DOUBLE,
    input_tokens BIGINT,
    output_tokens BIGINT,
    cached_tokens BIGINT,
    reasoning_tokens BIGINT,
    cost_usd DECIMAL(18, 9),  -- NULL: price or tokens unknown; 0: a student answered
    request_params VARCHAR USING COMPRESSION zstd,
    tool_definitions VARCHAR USING COMPRESSION zstd,
    input_messages VARCHAR USING COMPRESSION zstd,
    output_messages VARCHAR USING COMPRESSION zstd,
    input_hash VARCHAR NOT NULL,
    fingerprint VARCHAR NOT NULL,
    confidence DOUBLE,
    content_bytes BIGINT NOT NULL,
    api_key_hash VARCHAR,
    end_user VARCHAR,
    schema_version INTEGER NOT NULL
);

CREATE TABLE examples (
    example_id UUID NOT NULL,
    task VARCHAR NOT NULL,
    run_id UUID NOT NULL,
    origin VARCHAR NOT NULL,
    split VARCHAR NOT NULL,
    status VARCHAR NOT NULL,
    reason VARCHAR NOT NULL,
    input_messages VARCHAR USING COMPRESSION zstd,
    target VARCHAR USING COMPRESSION zstd,
    input_hash VARCHAR NOT NULL,
    source_trace_id UUID,  -- with parent_ids: how far the forgetting of a trace has to reach
    parent_ids VARCHAR[] NOT NULL,
    generator_model VARCHAR,
    created_at DOUBLE NOT NULL
);

CREATE TABLE teacher_calls (
    call_id UUID NOT NULL,
    run_id UUID NOT NULL,
    task VARCHAR NOT NULL,
    purpose VARCHAR NOT NULL,
    model VARCHAR NOT NULL,
    input_tokens BIGINT NOT NULL,
    output_tokens BIGINT NOT NULL,
    "at" DOUBLE NOT NULL,
    duration_ms DOUBLE NOT NULL
);

CREATE TABLE policies (
    run_id UUID NOT NULL,
    task VARCHAR NOT NULL,
    policy VARCHAR USING COMPRESSION zstd,  -- JSON object
    "at" DOUBLE NOT NULL
);

CREATE TABLE run_events (
    run_id UUID NOT NULL,
    seq INTEGER NOT NULL,
    task VARCHAR NOT NULL,
    state VARCHAR NOT NULL,
    "at" DOUBLE NOT NULL,
    seconds DOUBLE NOT NULL,
    reason VARCHAR NOT NULL,
    detail VARCHAR NOT NULL  -- JSON object
);

CREATE TABLE evaluations (
    run_id UUID NOT NULL,
    input_hash VARCHAR NOT NULL,
    split VARCHAR NOT NULL,
    scorer VARCHAR NOT NULL,
    score DOUBLE NOT NULL,
    agrees BOOLEAN NOT NULL,
    teacher_output VARCHAR USING COMPRESSION zstd,
    student_output VARCHAR USING COMPRESSION zstd,
    confidence DOUBLE,
    latency_ms DOUBLE NOT NULL,
    fault VARCHAR
);

CREATE TABLE promotions (
    promotion_id UUID NOT NULL,
    task VARCHAR NOT NULL,
    target VARCHAR NOT NULL,
    state VARCHAR NOT NULL,
    reason VARCHAR NOT NULL,
    actor VARCHAR NOT NULL,
    "at" DOUBLE NOT NULL,
    run_id UUID,
    certificate VARCHAR,  -- JSON object
    route VARCHAR  -- JSON object
);

-- What may be learned from: whole answers of the teacher, never those of a student. Without
-- fallbacks: what a student was unsure of is no fair sample of a task.
CREATE VIEW teacher_traces AS
SELECT * FROM traces
WHERE served_by = 'teacher' AND route = 'teacher' AND outcome = 'complete' AND status_code = 200;

-- Where each run stands: its last event.
CREATE VIEW runs AS
SELECT * FROM run_events
QUALIFY row_number() OVER (PARTITION BY run_id ORDER BY seq DESC) = 1;

-- What each task's route is now: its last promotion.
CREATE VIEW routes AS
SELECT * FROM promotions
QUALIFY row_number() OVER (PARTITION BY task ORDER BY "at" DESC, promotion_id DESC) = 1;
