-- All SQL of the project, apart from the schema in migrations/. Read by store/queries.py.
-- `$name` is a parameter. A batch comes as one JSON array: hundreds of times faster than a row at
-- a time. `"at"` is quoted because AT is a keyword. Plain SQL that DuckLake takes too.

-- ---- collecting the journal --------------------------------------------------------------------

-- name: known_segments
-- Which of these segments were collected before.
SELECT name FROM segments WHERE name IN (SELECT unnest($names));

-- name: stage_segments
-- Reads segments into a temporary table: one row a line, every value as text. A line that is not a
-- JSON object becomes a row of NULLs, a name that is not known is skipped. `whole`: it is a trace.
-- `$patterns`: the files' paths with their wildcards escaped. `$bytes`: of the largest.
CREATE OR REPLACE TEMP TABLE staged AS
SELECT
    * REPLACE (parse_filename(filename, true) AS filename),
    TRY_CAST(trace_id AS UUID) IS NOT NULL AND TRY_CAST(start_time AS DOUBLE) IS NOT NULL AS whole
FROM read_json(
    $patterns,
    filename = true,
    format = 'newline_delimited',
    auto_detect = false,
    ignore_errors = true,
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
        api_key_hash: 'VARCHAR', end_user: 'VARCHAR', schema_version: 'VARCHAR'
    }
);

-- name: staged_models
-- The model names in the staged segment.
SELECT DISTINCT request_model FROM staged WHERE whole AND request_model IS NOT NULL;

-- name: staged_counts
-- How many lines of each staged segment are traces, and how many are not.
SELECT
    filename AS name,
    count(*) FILTER (whole) AS traces,
    count(*) FILTER (NOT whole) AS damaged
FROM staged GROUP BY filename;

-- name: staged_ids
-- The ids of a staged segment's traces, as they stand in its lines.
SELECT trace_id FROM staged WHERE whole AND filename = $name;

-- name: insert_traces
-- Inserts the staged traces with their cost. `$prices`: JSON array of {name, input, output}, US
-- dollars a token, by model name. A key that an older writer left out gets the record's default.
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
    CASE WHEN served_by = 'student' THEN 0::DECIMAL(18, 9) ELSE TRY_CAST(
        TRY_CAST(input_tokens AS BIGINT) * prices.input
        + TRY_CAST(output_tokens AS BIGINT) * prices.output AS DECIMAL(18, 9)
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
    coalesce(TRY_CAST(schema_version AS INTEGER), 1) AS schema_version
FROM staged LEFT JOIN prices ON prices.name = request_model
WHERE whole;

-- name: insert_segments
-- Remembers that segments are collected: in one transaction with their traces. `$rows`: JSON array.
INSERT INTO segments BY NAME
SELECT unnest(from_json($rows, '[{
    "name": "VARCHAR", "traces": "BIGINT", "damaged": "BIGINT", "collected_at": "DOUBLE"
}]'), max_depth := 2);

-- ---- reading traces ----------------------------------------------------------------------------

-- name: tasks
-- Every task tag that was ever seen, with how many requests carried it.
SELECT task, count(*) AS traces FROM traces WHERE task IS NOT NULL GROUP BY task ORDER BY task;

-- name: trace
-- One trace by its id.
SELECT * FROM traces WHERE trace_id = $trace_id::UUID;

-- name: traces_of_task
-- The newest whole answers of the teacher to a task's requests, newest first: what a run takes.
SELECT * FROM teacher_traces
WHERE task = $task
ORDER BY start_time DESC, trace_id DESC
LIMIT $limit;

-- name: new_teacher_traces
-- How many whole answers of the teacher to requests since a time there are for a task.
SELECT count(*) AS traces FROM teacher_traces WHERE task = $task AND start_time > $since;

-- ---- writing runs ------------------------------------------------------------------------------

-- name: delete_examples
-- First half of replacing a run's examples.
DELETE FROM examples WHERE run_id = $run_id::UUID;

-- name: insert_examples
-- Second half. `$rows`: JSON array of store.models.Example.
INSERT INTO examples BY NAME
SELECT unnest(from_json($rows, '[{
    "example_id": "UUID", "task": "VARCHAR", "run_id": "UUID", "origin": "VARCHAR",
    "split": "VARCHAR", "status": "VARCHAR", "reason": "VARCHAR", "input_messages": "VARCHAR",
    "target": "VARCHAR", "input_hash": "VARCHAR", "source_trace_id": "UUID",
    "parent_ids": "VARCHAR[]", "generator_model": "VARCHAR", "created_at": "DOUBLE"
}]'), max_depth := 2);

-- name: delete_teacher_calls
-- First half of replacing a run's teacher calls.
DELETE FROM teacher_calls WHERE run_id = $run_id::UUID;

-- name: insert_teacher_calls
-- Second half. `$rows`: JSON array of store.models.TeacherCall.
INSERT INTO teacher_calls BY NAME
SELECT unnest(from_json($rows, '[{
    "call_id": "UUID", "run_id": "UUID", "task": "VARCHAR", "purpose": "VARCHAR",
    "model": "VARCHAR", "input_tokens": "BIGINT", "output_tokens": "BIGINT", "at": "DOUBLE",
    "duration_ms": "DOUBLE"
}]'), max_depth := 2);

-- name: delete_evaluations
-- First half of replacing a run's evaluations.
DELETE FROM evaluations WHERE run_id = $run_id::UUID;

-- name: insert_evaluations
-- Second half. `$rows`: JSON array of store.models.Evaluation.
INSERT INTO evaluations BY NAME
SELECT unnest(from_json($rows, '[{
    "run_id": "UUID", "input_hash": "VARCHAR", "split": "VARCHAR", "scorer": "VARCHAR",
    "score": "DOUBLE", "agrees": "BOOLEAN", "teacher_output": "VARCHAR",
    "student_output": "VARCHAR", "confidence": "DOUBLE", "latency_ms": "DOUBLE",
    "fault": "VARCHAR", "signals": "VARCHAR", "fingerprint": "VARCHAR"
}]'), max_depth := 2);

-- name: delete_policy
-- First half of replacing a run's policy.
DELETE FROM policies WHERE run_id = $run_id::UUID;

-- name: insert_policy
-- Second half. `$policy`: JSON object.
INSERT INTO policies BY NAME
SELECT $run_id::UUID AS run_id, $task AS task, $policy AS policy, $at AS "at";

-- name: delete_run_event
-- First half of appending a run event: an event that was appended already is not there twice.
DELETE FROM run_events WHERE run_id = $run_id::UUID AND seq = $seq;

-- name: insert_run_events
-- Second half. `$rows`: JSON array of store.models.RunEvent; `detail` is kept as JSON.
INSERT INTO run_events BY NAME
SELECT unnest(from_json($rows, '[{
    "run_id": "UUID", "seq": "INTEGER", "task": "VARCHAR", "state": "VARCHAR", "at": "DOUBLE",
    "seconds": "DOUBLE", "reason": "VARCHAR", "detail": "VARCHAR"
}]'), max_depth := 2);

-- name: insert_promotions
-- Appends to the history of routes. `$rows`: JSON array of store.models.Promotion.
INSERT INTO promotions BY NAME
SELECT unnest(from_json($rows, '[{
    "promotion_id": "UUID", "task": "VARCHAR", "target": "VARCHAR", "state": "VARCHAR",
    "reason": "VARCHAR", "actor": "VARCHAR", "at": "DOUBLE", "run_id": "UUID",
    "certificate": "VARCHAR", "route": "VARCHAR", "forced": "BOOLEAN", "suspect_since": "DOUBLE"
}]'), max_depth := 2);

-- ---- reading runs ------------------------------------------------------------------------------

-- name: examples_of_run
-- The examples of a run, kept and rejected, in the order of their making.
SELECT * FROM examples WHERE run_id = $run_id::UUID ORDER BY created_at, example_id;

-- name: teacher_calls_of_run
-- What a run asked of the teacher, oldest first.
SELECT * FROM teacher_calls WHERE run_id = $run_id::UUID ORDER BY "at", call_id;

-- name: evaluations_of_run
-- The evaluated rows of a run.
SELECT * FROM evaluations WHERE run_id = $run_id::UUID ORDER BY split, input_hash;

-- name: policy_of_run
-- The policy that a run worked by.
SELECT policy FROM policies WHERE run_id = $run_id::UUID;

-- name: events_of_run
-- The history of a run, oldest first.
SELECT * FROM run_events WHERE run_id = $run_id::UUID ORDER BY seq;

-- name: events_of_last_run
-- The history of a task's last run, oldest first. Run ids are UUIDv7: the last is the greatest.
SELECT * FROM run_events
WHERE run_id = (SELECT max(run_id) FROM run_events WHERE task = $task)
ORDER BY seq;

-- name: last_run_events
-- Where the last run of each task stands.
SELECT * FROM runs QUALIFY row_number() OVER (PARTITION BY task ORDER BY run_id DESC) = 1;

-- name: unfinished_runs
-- Where each run stands that did not come to its end, oldest first.
SELECT * FROM runs WHERE state NOT IN ('promoted', 'rejected', 'failed') ORDER BY run_id;

-- name: ended_runs
-- How each run of a task ended, oldest first.
SELECT * FROM runs
WHERE task = $task AND state IN ('promoted', 'rejected', 'failed')
ORDER BY "at", run_id;

-- name: run_history
-- Where the runs of a task stand, newest first.
SELECT * FROM runs WHERE task = $task ORDER BY run_id DESC LIMIT $limit;

-- name: latest_promotions
-- The last promotion of each task: what its route follows from.
SELECT * FROM routes ORDER BY task;

-- name: promotions_of_task
-- The history of a task's route, newest first.
SELECT * FROM promotions WHERE task = $task ORDER BY "at" DESC, promotion_id DESC LIMIT $limit;

-- ---- evidence about students that serve --------------------------------------------------------

-- name: delete_comparisons
-- First half of writing comparisons: one that is there already is replaced. `$ids`: trace ids.
DELETE FROM comparisons WHERE kind = $kind AND trace_id IN (SELECT unnest($ids)::UUID);

-- name: insert_comparisons
-- Second half. `$rows`: JSON array of store.models.Comparison.
INSERT INTO comparisons BY NAME
SELECT unnest(from_json($rows, '[{
    "trace_id": "UUID", "task": "VARCHAR", "student_id": "UUID", "kind": "VARCHAR",
    "scorer": "VARCHAR", "score": "DOUBLE", "agrees": "BOOLEAN", "servable": "BOOLEAN",
    "fault": "VARCHAR", "confidence": "DOUBLE", "teacher_output": "VARCHAR",
    "student_output": "VARCHAR", "at": "DOUBLE"
}]'), max_depth := 2);

-- name: comparisons_of_student
-- What was found out about a student live, oldest first.
SELECT * FROM comparisons WHERE student_id = $student_id::UUID ORDER BY "at", trace_id;

-- name: insert_actions
-- Appends what was done by hand. `$rows`: JSON array of store.models.Action.
INSERT INTO actions BY NAME
SELECT unnest(from_json($rows, '[{
    "action_id": "UUID", "task": "VARCHAR", "command": "VARCHAR", "actor": "VARCHAR",
    "reason": "VARCHAR", "at": "DOUBLE", "forced": "BOOLEAN"
}]'), max_depth := 2);

-- name: actions_of_task
-- What was done to a task by hand, newest first.
SELECT * FROM actions WHERE task = $task ORDER BY "at" DESC, action_id DESC LIMIT $limit;

-- name: paused_tasks
-- The tasks that are paused by hand: those whose last pause or resume is a pause.
SELECT task FROM actions
WHERE command IN ('pause', 'resume')
QUALIFY row_number() OVER (PARTITION BY task ORDER BY "at" DESC, action_id DESC) = 1
    AND command = 'pause'
ORDER BY task;

-- ---- statistics of a task; `$task` is NULL for untagged requests --------------------------------

-- name: served
-- Requests by route, with milliseconds until the whole answer: of all, and of those since `$since`.
SELECT
    route,
    count(*) AS requests,
    count(*) FILTER (outcome IN ('error', 'teacher_broke')) AS errors,
    quantile_cont(duration_ms, 0.5) FILTER (outcome = 'complete') AS p50_ms,
    quantile_cont(duration_ms, 0.95) FILTER (outcome = 'complete') AS p95_ms,
    count(*) FILTER (start_time >= $since) AS recent_requests,
    quantile_cont(duration_ms, 0.5) FILTER (outcome = 'complete' AND start_time >= $since)
        AS recent_p50_ms,
    quantile_cont(duration_ms, 0.95) FILTER (outcome = 'complete' AND start_time >= $since)
        AS recent_p95_ms
FROM traces WHERE task IS NOT DISTINCT FROM $task::VARCHAR
GROUP BY route ORDER BY route;

-- name: reasons
-- Requests by route and reason, the most common first.
SELECT route, reason, count(*) AS requests
FROM traces WHERE task IS NOT DISTINCT FROM $task::VARCHAR
GROUP BY route, reason ORDER BY requests DESC, route, reason;

-- name: errors
-- What went wrong, the most common first.
SELECT
    status_code, coalesce(error_type, CASE outcome WHEN 'error' THEN '' ELSE outcome END) AS type,
    count(*) AS requests
FROM traces
WHERE task IS NOT DISTINCT FROM $task::VARCHAR AND outcome IN ('error', 'teacher_broke')
GROUP BY ALL ORDER BY requests DESC, status_code, type;

-- name: usage
-- Tokens and money of traffic by who answered. `cost` is NULL when no request has a known price.
SELECT
    served_by,
    count(*) AS calls,
    coalesce(sum(input_tokens), 0)::BIGINT AS input,
    coalesce(sum(output_tokens), 0)::BIGINT AS output,
    sum(cost_usd)::DOUBLE AS cost,
    avg(cost_usd)::DOUBLE AS mean_cost
FROM traces
WHERE task IS NOT DISTINCT FROM $task::VARCHAR AND served_by IS NOT NULL
GROUP BY served_by;

-- name: distilling
-- Tokens of a task's runs by purpose and teacher model.
SELECT
    purpose, model, count(*) AS calls,
    sum(input_tokens)::BIGINT AS input, sum(output_tokens)::BIGINT AS output
FROM teacher_calls WHERE task = $task::VARCHAR
GROUP BY purpose, model ORDER BY purpose, model;

-- name: example_counts
-- Examples of a task's last run that has some, by origin, status and reason.
SELECT origin, status, reason, count(*) AS examples
FROM examples
WHERE run_id = (SELECT max(run_id) FROM examples WHERE task = $task::VARCHAR)
GROUP BY origin, status, reason ORDER BY examples DESC, origin, status, reason;
