-- Collecting the journal: staging segments, and inserting their traces and feedback.

-- name: known_segments
-- Which of these segments were collected before.
SELECT name FROM segments WHERE name IN (SELECT unnest($names));

-- name: stage_segments
-- Reads segments into a temporary table: one row a line, every value as text. A line that is not a
-- JSON object becomes a row of NULLs, an unknown key is skipped. A line with a feedback_id is
-- feedback or damaged, any other one a trace or damaged. `$patterns`: the files' paths with their
-- wildcards escaped. `$bytes`: of the largest.
CREATE OR REPLACE TEMP TABLE staged AS
SELECT
    * REPLACE (parse_filename(filename, true, 'forward_slash') AS filename),
    feedback_id IS NULL
        AND TRY_CAST(trace_id AS UUID) IS NOT NULL
        AND TRY_CAST(start_time AS DOUBLE) IS NOT NULL AS is_trace,
    TRY_CAST(feedback_id AS UUID) IS NOT NULL
        AND TRY_CAST(trace_id AS UUID) IS NOT NULL
        AND coalesce(isfinite(TRY_CAST(feedback_at AS DOUBLE)), false)
        AND (score IS NOT NULL OR correction IS NOT NULL)
        AND (score IS NULL OR coalesce(TRY_CAST(score AS DOUBLE) BETWEEN 0 AND 1, false))
        AS is_feedback
FROM read_json(
    $patterns,
    filename = true,
    format = 'newline_delimited',
    auto_detect = false,
    ignore_errors = true,
    hive_partitioning = false,
    maximum_object_size = $bytes,
    columns = {
        trace_id: 'VARCHAR', start_time: 'VARCHAR', end_time: 'VARCHAR', task: 'VARCHAR',
        operation_name: 'VARCHAR', served_by: 'VARCHAR', route: 'VARCHAR', reason: 'VARCHAR',
        outcome: 'VARCHAR', status_code: 'VARCHAR', error_type: 'VARCHAR', stream: 'VARCHAR',
        provider_name: 'VARCHAR', request_model: 'VARCHAR', response_model: 'VARCHAR',
        response_id: 'VARCHAR', student_id: 'VARCHAR', finish_reasons: 'VARCHAR',
        duration_ms: 'VARCHAR', time_to_first_chunk_ms: 'VARCHAR', student_ms: 'VARCHAR',
        input_tokens: 'VARCHAR', output_tokens: 'VARCHAR', cached_tokens: 'VARCHAR',
        reasoning_tokens: 'VARCHAR', request_params: 'VARCHAR', tool_definitions: 'VARCHAR',
        input_messages: 'VARCHAR', output_messages: 'VARCHAR', input_hash: 'VARCHAR',
        fingerprint: 'VARCHAR', confidence: 'VARCHAR', content_bytes: 'VARCHAR',
        api_key_hash: 'VARCHAR', end_user: 'VARCHAR', source: 'VARCHAR', cost_usd: 'VARCHAR',
        schema_version: 'VARCHAR', api: 'VARCHAR', content: 'VARCHAR',
        tokens_estimated: 'VARCHAR',
        feedback_id: 'VARCHAR', feedback_at: 'VARCHAR', score: 'VARCHAR', correction: 'VARCHAR',
        feedback_key: 'VARCHAR'
    }
);

-- name: staged_models
-- The model names in the staged segment.
SELECT DISTINCT request_model FROM staged WHERE is_trace AND request_model IS NOT NULL;

-- name: staged_counts
-- How many lines of each staged segment are traces, how many are feedback, and how many are neither.
SELECT
    filename AS name,
    count(*) FILTER (is_trace) AS traces,
    count(*) FILTER (is_feedback) AS feedback,
    count(*) FILTER (NOT is_trace AND NOT is_feedback) AS damaged
FROM staged GROUP BY filename;

-- name: staged_ids
-- The ids of a staged segment's traces and feedback, as they stand in its lines.
SELECT coalesce(feedback_id, trace_id) AS id FROM staged
WHERE (is_trace OR is_feedback) AND filename = $name;

-- name: any_repeats
-- Whether a staged trace is staged twice, or is in the store already. Ids are UUIDv7, so row groups of
-- older traces are skipped by their least and greatest id.
SELECT
    count(*) > count(DISTINCT TRY_CAST(trace_id AS UUID)) OR EXISTS (
        SELECT 1 FROM traces
        WHERE trace_id >= (SELECT min(TRY_CAST(trace_id AS UUID)) FROM staged WHERE is_trace)
            AND trace_id IN (SELECT TRY_CAST(trace_id AS UUID) FROM staged WHERE is_trace)
    ) AS repeats
FROM staged WHERE is_trace;

-- name: drop_repeats
-- Removes the staged traces that the store has already, or that are staged twice: a segment that was
-- copied, or an imported log, whose ids are derived from its content.
DELETE FROM staged
WHERE is_trace AND (
    TRY_CAST(trace_id AS UUID) IN (
        SELECT trace_id FROM traces WHERE trace_id IN (
            SELECT TRY_CAST(trace_id AS UUID) FROM staged WHERE is_trace
        )
    )
    OR rowid NOT IN (
        SELECT min(rowid) FROM staged WHERE is_trace GROUP BY TRY_CAST(trace_id AS UUID)
    )
);

-- name: count_traces
-- How many traces there are.
SELECT count(*) AS rows FROM traces;

-- name: count_feedback
-- How much feedback there is.
SELECT count(*) AS rows FROM feedback;

-- name: lacks_records
-- Whether the store lacks one of these traces or of this feedback. What is no id is not looked for.
SELECT
    EXISTS (
        SELECT id FROM (SELECT TRY_CAST(unnest($trace_ids) AS UUID) AS id)
        WHERE id NOT IN (
            SELECT trace_id FROM traces
            WHERE trace_id >= (
                SELECT min(id) FROM (SELECT TRY_CAST(unnest($trace_ids) AS UUID) AS id)
            )
        )
    ) OR EXISTS (
        SELECT id FROM (SELECT TRY_CAST(unnest($feedback_ids) AS UUID) AS id)
        WHERE id NOT IN (SELECT feedback_id FROM feedback)
    ) AS lacks;

-- name: insert_traces
-- Inserts the staged traces with their cost: as their log states it, else by the prices. `$prices`: JSON
-- array of {name, input, output}, US dollars a token, by model name. `$now`: seconds since the epoch. A
-- key that an older writer left out gets the record's default.
INSERT INTO traces BY NAME
WITH prices AS (
    SELECT unnest(
        from_json($prices, '[{"name": "VARCHAR", "input": "DOUBLE", "output": "DOUBLE"}]'),
        max_depth := 2
    )
)
SELECT
    TRY_CAST(trace_id AS UUID) AS trace_id,
    TRY_CAST(start_time AS DOUBLE) AS start_time,
    coalesce(TRY_CAST(end_time AS DOUBLE), TRY_CAST(start_time AS DOUBLE)) AS end_time,
    task,
    coalesce(operation_name, 'chat') AS operation_name,
    served_by,
    coalesce(route, 'teacher') AS route,
    coalesce(reason, '') AS reason,
    coalesce(outcome, '') AS outcome,
    coalesce(TRY_CAST(status_code AS INTEGER), 0) AS status_code,
    error_type,
    coalesce(TRY_CAST(stream AS BOOLEAN), false) AS stream,
    provider_name,
    request_model,
    response_model,
    response_id,
    student_id,
    coalesce(TRY_CAST(TRY_CAST(finish_reasons AS JSON) AS VARCHAR[]), []) AS finish_reasons,
    coalesce(TRY_CAST(duration_ms AS DOUBLE), 0) AS duration_ms,
    TRY_CAST(time_to_first_chunk_ms AS DOUBLE) AS time_to_first_chunk_ms,
    TRY_CAST(student_ms AS DOUBLE) AS student_ms,
    TRY_CAST(input_tokens AS BIGINT) AS input_tokens,
    TRY_CAST(output_tokens AS BIGINT) AS output_tokens,
    TRY_CAST(cached_tokens AS BIGINT) AS cached_tokens,
    TRY_CAST(reasoning_tokens AS BIGINT) AS reasoning_tokens,
    CASE WHEN served_by = 'student' THEN 0::DECIMAL(18, 9) ELSE coalesce(
        TRY_CAST(TRY_CAST(cost_usd AS DOUBLE) AS DECIMAL(18, 9)),
        TRY_CAST(
            TRY_CAST(input_tokens AS BIGINT) * prices.input
            + coalesce(
                TRY_CAST(output_tokens AS BIGINT),
                CASE operation_name WHEN 'embeddings' THEN 0 END  -- which say nothing of any output
            ) * prices.output AS DECIMAL(18, 9)
        )
    ) END AS cost_usd,
    coalesce(request_params, '{}') AS request_params,
    tool_definitions,
    coalesce(input_messages, '[]') AS input_messages,
    output_messages,
    coalesce(input_hash, '') AS input_hash,
    coalesce(fingerprint, '') AS fingerprint,
    TRY_CAST(confidence AS DOUBLE) AS confidence,
    coalesce(TRY_CAST(content_bytes AS BIGINT), 0) AS content_bytes,
    api_key_hash,
    end_user,
    coalesce(source, 'proxy') AS source,
    coalesce(api, 'chat_completions') AS api,
    coalesce(content, 'full') AS content,
    coalesce(TRY_CAST(tokens_estimated AS BOOLEAN), false) AS tokens_estimated,
    CASE WHEN source LIKE 'import:%' THEN $now::DOUBLE END AS imported_at,
    coalesce(TRY_CAST(schema_version AS INTEGER), 1) AS schema_version
FROM staged LEFT JOIN prices ON prices.name = request_model
WHERE is_trace;

-- name: insert_feedback
-- Inserts the staged feedback; idempotent: feedback that the store has, or that is staged twice, is kept
-- once.
INSERT INTO feedback BY NAME
SELECT
    TRY_CAST(feedback_id AS UUID) AS feedback_id,
    TRY_CAST(trace_id AS UUID) AS trace_id,
    TRY_CAST(feedback_at AS DOUBLE) AS feedback_at,
    TRY_CAST(score AS DOUBLE) AS score,
    correction,
    feedback_key
FROM staged
WHERE is_feedback AND TRY_CAST(feedback_id AS UUID) NOT IN (SELECT feedback_id FROM feedback)
QUALIFY row_number() OVER (
    PARTITION BY TRY_CAST(staged.feedback_id AS UUID) ORDER BY TRY_CAST(feedback_at AS DOUBLE)
) = 1;

-- name: insert_feedback_news
-- Notes the traces with new feedback: whichever of a trace and its feedback is collected last.
INSERT INTO feedback_news BY NAME
SELECT DISTINCT trace_id FROM feedback
WHERE trace_id IN (
    SELECT TRY_CAST(trace_id AS UUID) FROM staged WHERE is_trace OR is_feedback
);

-- name: drop_corrections
-- Clears corrections of answers whose client had opted out: they are content.
UPDATE feedback SET correction = NULL
WHERE correction IS NOT NULL AND trace_id IN (
    SELECT trace_id FROM traces
    WHERE content = 'none' AND trace_id IN (SELECT trace_id FROM feedback_news)
);

-- name: drop_empty_feedback
-- Deletes feedback that had nothing but such a correction.
DELETE FROM feedback
WHERE score IS NULL AND correction IS NULL AND trace_id IN (SELECT trace_id FROM feedback_news);

-- name: staged_requests
-- The staged requests that a student was asked for, with their messages, or that it may be compared
-- on, oldest first.
SELECT
    TRY_CAST(trace_id AS UUID) AS trace_id,
    task,
    student_id,
    served_by,
    coalesce(reason, '') AS reason,
    TRY_CAST(start_time AS DOUBLE) AS start_time,
    coalesce(TRY_CAST(end_time AS DOUBLE), TRY_CAST(start_time AS DOUBLE)) AS end_time,
    coalesce(outcome = 'complete' AND TRY_CAST(status_code AS INTEGER) = 200, false) AS whole,
    coalesce(input_hash, '') AS input_hash,
    coalesce(operation_name, 'chat') = 'chat' AND coalesce(content, 'full') <> 'none' AS has_texts,
    CASE WHEN student_id IS NOT NULL THEN input_messages END AS input_messages
FROM staged
WHERE is_trace AND task IS NOT NULL
    AND (student_id IS NOT NULL OR reason IN ('shadow', 'not_in_share'))
ORDER BY end_time, trace_id;

-- name: insert_segments
-- Records that segments are collected, in one transaction with their content. `$rows`: JSON array.
INSERT INTO segments BY NAME
SELECT unnest(from_json($rows, '[{
    "name": "VARCHAR", "traces": "BIGINT", "feedback": "BIGINT", "damaged": "BIGINT",
    "forgotten": "BIGINT", "collected_at": "DOUBLE"
}]'), max_depth := 2);
