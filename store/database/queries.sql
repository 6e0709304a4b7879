-- All SQL of the project, apart from the schema in migrations/. Read by store/database/queries.py.
-- `$name` is a parameter. A batch comes as one JSON array: hundreds of times faster than a row at
-- a time. `"at"` is quoted because AT is a keyword. Plain SQL that DuckLake takes too.

-- ---- collecting the journal --------------------------------------------------------------------

-- name: known_segments
-- Which of these segments were collected before.
SELECT name FROM segments WHERE name IN (SELECT unnest($names));

-- name: stage_segments
-- Reads segments into a temporary table: one row a line, every value as text. A line that is not a
-- JSON object becomes a row of NULLs, a name that is not known is skipped. A line with a feedback_id
-- is feedback or nothing, any other one a trace or nothing. `$patterns`: the files' paths with their
-- wildcards escaped. `$bytes`: of the largest.
CREATE OR REPLACE TEMP TABLE staged AS
SELECT
    * REPLACE (parse_filename(filename, true) AS filename),
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
        feedback_id: 'VARCHAR', feedback_at: 'VARCHAR', score: 'VARCHAR', correction: 'VARCHAR',
        feedback_key: 'VARCHAR'
    }
);

-- name: staged_models
-- The model names in the staged segment.
SELECT DISTINCT request_model FROM staged WHERE is_trace AND request_model IS NOT NULL;

-- name: staged_counts
-- How many lines of each staged segment are traces, how many of those come from another log, how many
-- are feedback, and how many are neither.
SELECT
    filename AS name,
    count(*) FILTER (is_trace) AS traces,
    count(*) FILTER (is_trace AND source <> 'proxy') AS imported,
    count(*) FILTER (is_feedback) AS feedback,
    count(*) FILTER (NOT is_trace AND NOT is_feedback) AS damaged
FROM staged GROUP BY filename;

-- name: staged_ids
-- The ids of a staged segment's traces and feedback, as they stand in its lines.
SELECT coalesce(feedback_id, trace_id) AS id FROM staged
WHERE (is_trace OR is_feedback) AND filename = $name;

-- name: drop_repeats
-- Forgets the staged traces of other logs that the store has already, or that stand there twice: their
-- ids are made from what they say. Those of the proxy are never looked up.
DELETE FROM staged
WHERE is_trace AND source <> 'proxy' AND (
    TRY_CAST(trace_id AS UUID) IN (
        SELECT trace_id FROM traces WHERE trace_id IN (
            SELECT TRY_CAST(trace_id AS UUID) FROM staged WHERE is_trace AND source <> 'proxy'
        )
    )
    OR rowid NOT IN (
        SELECT min(rowid) FROM staged WHERE is_trace GROUP BY TRY_CAST(trace_id AS UUID)
    )
);

-- name: insert_traces
-- Inserts the staged traces with their cost: what their log states, else by the prices. `$prices`: JSON
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
    CASE WHEN source LIKE 'import:%' THEN $now::DOUBLE END AS imported_at,
    coalesce(TRY_CAST(schema_version AS INTEGER), 1) AS schema_version
FROM staged LEFT JOIN prices ON prices.name = request_model
WHERE is_trace;

-- name: insert_feedback
-- Inserts the staged feedback: what is there already, or twice among it, once.
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
-- Remembers which of the staged traces were spoken of, and of which traces the staged feedback
-- speaks: whichever of the two comes last says so.
INSERT INTO feedback_news BY NAME
SELECT DISTINCT trace_id FROM feedback
WHERE trace_id IN (
    SELECT TRY_CAST(trace_id AS UUID) FROM staged WHERE is_trace OR is_feedback
);

-- name: drop_corrections
-- Forgets the corrections among the news of answers whose client had opted out: they are content.
UPDATE feedback SET correction = NULL
WHERE correction IS NOT NULL AND trace_id IN (
    SELECT trace_id FROM traces
    WHERE content = 'none' AND trace_id IN (SELECT trace_id FROM feedback_news)
);

-- name: drop_empty_feedback
-- Forgets feedback that said nothing but such a correction.
DELETE FROM feedback
WHERE score IS NULL AND correction IS NULL AND trace_id IN (SELECT trace_id FROM feedback_news);

-- name: staged_routed
-- The staged requests that a student was asked for, or that it may be compared on, without their
-- texts, oldest first.
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
    coalesce(operation_name, 'chat') = 'chat' AND coalesce(content, 'full') <> 'none' AS has_texts
FROM staged
WHERE is_trace AND task IS NOT NULL
    AND (student_id IS NOT NULL OR reason IN ('shadow', 'not_in_share'))
ORDER BY end_time, trace_id;

-- name: insert_segments
-- Remembers that segments are collected: in one transaction with what they hold. `$rows`: JSON array.
INSERT INTO segments BY NAME
SELECT unnest(from_json($rows, '[{
    "name": "VARCHAR", "traces": "BIGINT", "feedback": "BIGINT", "damaged": "BIGINT",
    "forgotten": "BIGINT", "collected_at": "DOUBLE"
}]'), max_depth := 2);

-- ---- reading traces ----------------------------------------------------------------------------

-- name: tasks
-- Every task tag that was ever seen, with how many requests carried it: 0 where all are forgotten.
SELECT task, sum(traces)::BIGINT AS traces FROM (
    SELECT task, count(*) AS traces FROM traces WHERE task IS NOT NULL GROUP BY task
    UNION ALL
    SELECT DISTINCT task, 0 AS traces FROM run_events
) GROUP BY task ORDER BY task;

-- name: trace
-- One trace by its id.
SELECT * FROM traces WHERE trace_id = $trace_id::UUID;

-- name: traces_of_task
-- The newest whole answers of the teacher to a task's requests, newest first: what a run takes.
SELECT * FROM teacher_traces
WHERE task = $task
ORDER BY start_time DESC, trace_id DESC
LIMIT $limit;

-- name: traces_of_fingerprints
-- The same of these fingerprints alone: for those that other traces push out of the newest.
SELECT * FROM teacher_traces
WHERE task = $task AND fingerprint IN (SELECT unnest($fingerprints))
ORDER BY start_time DESC, trace_id DESC
LIMIT $limit;

-- name: recent_traffic
-- The newest answered requests of a task by fingerprint, whoever answered, those of the `$newest`
-- requests first: how many there are, of those how many among the `$newest` (`recent`), when the
-- first and the last came, and what was asked in the last one. `$requests`: how many are looked at.
WITH newest AS (
    SELECT trace_id, fingerprint, start_time FROM chats
    WHERE task = $task AND served_by IS NOT NULL
    ORDER BY start_time DESC, trace_id DESC
    LIMIT $requests
),
places AS (
    SELECT *, row_number() OVER (ORDER BY start_time DESC, trace_id DESC) AS place FROM newest
),
shapes AS (
    SELECT
        fingerprint,
        count(*) AS requests,
        count(*) FILTER (place <= $newest) AS recent,
        min(start_time) AS first_at,
        max(start_time) AS last_at,
        arg_min(trace_id, place) AS trace_id
    FROM places
    GROUP BY fingerprint
    ORDER BY recent DESC, last_at DESC, fingerprint
    LIMIT $shapes
)
SELECT
    shapes.* EXCLUDE (trace_id),
    traces.input_messages, traces.request_params, traces.tool_definitions
FROM shapes JOIN traces ON traces.trace_id = shapes.trace_id
ORDER BY shapes.recent DESC, shapes.last_at DESC, shapes.fingerprint;

-- name: audited_traces
-- The newest traces of a task that a student answered, with what the teacher answered to an audit.
SELECT chats.*, audits.teacher_output, audits."at" AS answered_at
FROM comparisons audits JOIN chats ON chats.trace_id = audits.trace_id
WHERE audits.task = $task AND audits.kind = 'audit' AND audits.teacher_output IS NOT NULL
    AND chats.served_by = 'student'
ORDER BY chats.start_time DESC, chats.trace_id DESC
LIMIT $limit;

-- name: corrected_traces
-- The newest traces of a task that clients corrected, whoever answered, each with its newest
-- correction.
WITH newest AS (
    SELECT trace_id, correction, feedback_at FROM feedback WHERE trim(correction) <> ''
    QUALIFY row_number() OVER (
        PARTITION BY trace_id ORDER BY feedback_at DESC, feedback_id DESC
    ) = 1
)
SELECT chats.*, newest.correction, newest.feedback_at AS answered_at
FROM newest JOIN chats ON chats.trace_id = newest.trace_id
WHERE chats.task = $task
ORDER BY chats.start_time DESC, chats.trace_id DESC
LIMIT $limit;

-- name: confidences
-- How sure a student was of what it was asked, by trace.
SELECT trace_id, confidence FROM traces WHERE task = $task AND student_id = $student;

-- name: new_teacher_traces
-- How many whole answers of the teacher there are for a task to requests after `$asked_since`, and
-- after `$since` or imported after it: old answers are new to a task when they are imported.
SELECT count(*) AS traces FROM teacher_traces
WHERE task = $task AND start_time > $asked_since
    AND (start_time > $since OR imported_at > $since);

-- name: uncovered_teacher_traces
-- The same at all times, without what a promoted student is certified for and does not get yet.
SELECT count(*) AS traces FROM teacher_traces
WHERE task = $task AND (start_time > $since OR imported_at > $since)
    AND reason NOT IN ('shadow', 'not_in_share');

-- ---- writing runs ------------------------------------------------------------------------------

-- name: delete_examples
-- First half of replacing a run's examples.
DELETE FROM examples WHERE run_id = $run_id::UUID;

-- name: insert_examples
-- Second half. `$rows`: JSON array of store.records.Example.
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
-- Second half. `$rows`: JSON array of store.records.TeacherCall.
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
-- Second half. `$rows`: JSON array of store.records.Evaluation.
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
-- Second half. `$policy`: JSON object. `$parents`: JSON array of the traces that the teacher was shown.
INSERT INTO policies BY NAME
SELECT
    $run_id::UUID AS run_id, $task AS task, $policy AS policy, $at AS "at",
    from_json($parents, '["VARCHAR"]') AS parent_ids;

-- name: delete_run_event
-- First half of appending a run event: an event that was appended already is not there twice.
DELETE FROM run_events WHERE run_id = $run_id::UUID AND seq = $seq;

-- name: insert_run_events
-- Second half. `$rows`: JSON array of store.records.RunEvent; `detail` is kept as JSON.
INSERT INTO run_events BY NAME
SELECT unnest(from_json($rows, '[{
    "run_id": "UUID", "seq": "INTEGER", "task": "VARCHAR", "state": "VARCHAR", "at": "DOUBLE",
    "seconds": "DOUBLE", "reason": "VARCHAR", "detail": "VARCHAR"
}]'), max_depth := 2);

-- name: insert_promotions
-- Appends to the history of routes. `$rows`: JSON array of store.records.Promotion.
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
-- Second half. `$rows`: JSON array of store.records.Comparison.
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

-- name: findings_of_student
-- The newest comparisons of a student after a time, without their texts, newest first. `begun`: when
-- the request was made.
SELECT
    comparisons.trace_id, kind, agrees, servable, fault, "at",
    coalesce(traces.start_time, "at") AS begun, coalesce(traces.input_hash, '') AS input_hash
FROM comparisons LEFT JOIN traces ON traces.trace_id = comparisons.trace_id
WHERE comparisons.student_id = $student_id::UUID AND "at" > $since
ORDER BY "at" DESC, comparisons.trace_id DESC
LIMIT $limit;

-- name: tallies_of_student
-- A student's comparisons between two times by kind; `step_…`: of requests made after `$step_at`.
SELECT
    kind,
    count(*) AS n,
    count(*) FILTER (servable) AS servable,
    count(*) FILTER (servable AND agrees) AS agreed,
    count(*) FILTER (begun > $step_at) AS step_n,
    count(*) FILTER (begun > $step_at AND servable) AS step_servable,
    count(*) FILTER (begun > $step_at AND servable AND agrees) AS step_agreed
FROM (
    SELECT kind, servable, agrees, coalesce(traces.start_time, "at") AS begun
    FROM comparisons LEFT JOIN traces ON traces.trace_id = comparisons.trace_id
    WHERE comparisons.student_id = $student_id::UUID AND "at" > $since AND "at" < $until
)
GROUP BY kind ORDER BY kind;

-- name: requests_of_student
-- The newest requests begun after a time that a student was asked for, newest first.
SELECT
    trace_id, task, student_id, served_by, reason, start_time, end_time,
    outcome = 'complete' AND status_code = 200 AS whole, input_hash,
    operation_name = 'chat' AND content <> 'none' AS has_texts
FROM traces
WHERE student_id = $student_id AND start_time > $since
ORDER BY end_time DESC, trace_id DESC
LIMIT $limit;

-- name: unaudited
-- What a student served after a time and no audit has looked at, oldest first.
SELECT trace_id, end_time FROM chats
WHERE student_id = $student_id AND served_by = 'student' AND end_time > $since
    AND trace_id NOT IN (
        SELECT trace_id FROM comparisons
        WHERE student_id = $student_id::UUID AND kind = 'audit' AND "at" > $since
    )
ORDER BY end_time, trace_id;

-- name: audits_since
-- How many audits of a task were made after a time.
SELECT count(*) AS audits FROM comparisons
WHERE task = $task AND kind = 'audit' AND "at" > $since;

-- name: feedback_news
-- Whether there is feedback to work on.
SELECT trace_id FROM feedback_news LIMIT 1;

-- name: delete_feedback_news
-- In the transaction in which it was worked on.
DELETE FROM feedback_news;

-- name: feedback_to_compare
-- The newest feedback on each student's answer that is spoken of in the news: what may be a
-- complaint, that is has no score from `$good_from` on, and what follows on one that is among the
-- comparisons. Oldest first. `scorer`: of the student's route, NULL when it never had one. Of an
-- answer that is not kept only a score says something.
WITH newest AS (
    SELECT * FROM feedback WHERE trace_id IN (SELECT trace_id FROM feedback_news)
    QUALIFY row_number() OVER (
        PARTITION BY trace_id ORDER BY feedback_at DESC, feedback_id DESC
    ) = 1
),
scorers AS (
    SELECT run_id, arg_max(route ->> '$.scorer', "at") AS scorer
    FROM promotions WHERE run_id IS NOT NULL AND route IS NOT NULL
    GROUP BY run_id
)
SELECT
    newest.trace_id, newest.feedback_at, newest.score,
    CASE WHEN traces.content <> 'none' THEN newest.correction END AS correction,
    traces.task, traces.student_id, traces.confidence, traces.output_messages,
    scorers.scorer, known.trace_id IS NOT NULL AS complained
FROM newest
JOIN traces ON traces.trace_id = newest.trace_id
LEFT JOIN comparisons known ON known.trace_id = newest.trace_id AND known.kind = 'feedback'
LEFT JOIN scorers ON scorers.run_id = TRY_CAST(traces.student_id AS UUID)
WHERE traces.served_by = 'student'
    AND traces.task IS NOT NULL
    AND TRY_CAST(traces.student_id AS UUID) IS NOT NULL
    AND (known.trace_id IS NOT NULL OR coalesce(newest.score, 0) < $good_from)
    AND (traces.content <> 'none' OR newest.score IS NOT NULL)
ORDER BY newest.feedback_at, newest.trace_id;

-- name: judged_pairs
-- The audits of a task that a judge scored and of whose answers people said something too, with the
-- newest that they said. Oldest first.
SELECT comparisons.agrees, comparisons.student_output, feedback.score, feedback.correction
FROM comparisons JOIN feedback ON feedback.trace_id = comparisons.trace_id
WHERE comparisons.task = $task AND comparisons.kind = 'audit' AND comparisons.scorer = 'judge'
QUALIFY row_number() OVER (
    PARTITION BY comparisons.trace_id
    ORDER BY feedback.feedback_at DESC, feedback.feedback_id DESC
) = 1
ORDER BY comparisons."at", comparisons.trace_id;

-- name: insert_actions
-- Appends what was done by hand. `$rows`: JSON array of store.records.Action.
INSERT INTO actions BY NAME
SELECT unnest(from_json($rows, '[{
    "action_id": "UUID", "task": "VARCHAR", "command": "VARCHAR", "actor": "VARCHAR",
    "reason": "VARCHAR", "at": "DOUBLE", "forced": "BOOLEAN"
}]'), max_depth := 2);

-- name: actions_of_task
-- What was done to a task by hand, newest first.
SELECT * FROM actions WHERE task = $task ORDER BY "at" DESC, action_id DESC LIMIT $limit;

-- name: retrain_asked
-- Whether a run was asked for by hand after the last one began. Both ids are UUIDv7: the later is
-- the greater.
SELECT coalesce(max(action_id) > (SELECT max(run_id) FROM run_events WHERE task = $task), true)
    AND count(*) > 0 AS asked
FROM actions WHERE task = $task AND command = 'retrain';

-- name: paused_tasks
-- The tasks that are paused by hand: those whose last pause or resume is a pause.
SELECT task FROM actions
WHERE command IN ('pause', 'resume')
QUALIFY row_number() OVER (PARTITION BY task ORDER BY "at" DESC, action_id DESC) = 1
    AND command = 'pause'
ORDER BY task;

-- ---- forgetting: what is asked, what hangs on it, and what goes ----------------------------------

-- name: insert_forgetting
-- Notes that something is to be forgotten.
INSERT INTO forgettings BY NAME
SELECT
    $forgetting_id::UUID AS forgetting_id, 'asked' AS state, $actor AS actor, $reason AS reason,
    $at::DOUBLE AS "at", 0 AS traces, 0 AS examples, 0 AS synthetic;

-- name: insert_forgotten
-- Its subjects, as hashes. `$rows`: JSON array of store.database.forgetting.Subject.
INSERT INTO forgotten BY NAME
SELECT
    $forgetting_id::UUID AS forgetting_id,
    kind,
    left(sha256(salt.value || ':' || kind || ':' || subject), 32) AS digest,
    until
FROM (
    SELECT unnest(
        from_json($rows, '[{"kind": "VARCHAR", "subject": "VARCHAR", "until": "DOUBLE"}]'),
        max_depth := 2
    )
)
CROSS JOIN salt;

-- name: subjects_of_forgetting
-- The hashes of the subjects of a forgetting, with what they are made with.
SELECT kind, digest, until, salt.value AS salt FROM forgotten CROSS JOIN salt
WHERE forgetting_id = $forgetting_id::UUID;

-- name: unfinished_forgettings
-- What was asked for and did not come to its end, oldest first.
SELECT forgetting_id, state FROM forgettings WHERE state <> 'done' ORDER BY "at", forgetting_id;

-- name: forgetting
-- One of them.
SELECT * FROM forgettings WHERE forgetting_id = $forgetting_id::UUID;

-- name: advance_forgetting
-- A forgetting has come to its next state, with what has gone so far.
UPDATE forgettings SET
    state = $state,
    traces = traces + $traces,
    examples = examples + $examples,
    synthetic = synthetic + $synthetic
WHERE forgetting_id = $forgetting_id::UUID;

-- name: stage_subjects
-- The traces that a forgetting names or describes, and those that were collected under other names
-- of the same record: into the temporary table `roots`.
CREATE OR REPLACE TEMP TABLE roots AS
WITH asked AS (SELECT * FROM forgotten WHERE forgetting_id = $forgetting_id::UUID),
keyed AS (
    SELECT
        trace_id,
        start_time,
        left(sha256(salt.value || ':trace:' || trace_id::VARCHAR), 32) AS trace,
        left(sha256(salt.value || ':user:' || end_user), 32) AS named,
        left(sha256(salt.value || ':task:' || task), 32) AS tagged
    FROM traces CROSS JOIN salt
)
SELECT trace_id FROM keyed
WHERE trace IN (SELECT digest FROM asked WHERE kind = 'trace')
UNION
SELECT trace_id FROM keyed JOIN asked ON asked.digest = keyed.named
WHERE asked.kind = 'user' AND keyed.start_time < asked.until
UNION
SELECT trace_id FROM keyed JOIN asked ON asked.digest = keyed.tagged
WHERE asked.kind = 'task' AND keyed.start_time < asked.until;

-- name: stage_orphans
-- The same table of the traces that are gone already and left examples behind: those of a run that
-- was under way.
CREATE OR REPLACE TEMP TABLE roots AS
SELECT DISTINCT source_trace_id AS trace_id FROM examples
WHERE source_trace_id IS NOT NULL AND source_trace_id NOT IN (SELECT trace_id FROM traces);

-- name: stage_expired
-- The same table of the oldest traces that came before a time, by their request or their import.
CREATE OR REPLACE TEMP TABLE roots AS
SELECT trace_id FROM traces
WHERE greatest(start_time, coalesce(imported_at, start_time)) < $before
ORDER BY start_time, trace_id
LIMIT $limit;

-- name: stage_going
-- All that was made from the roots, in however many steps: into the temporary table `going`, with the
-- roots. A policy goes by the id of its run. Of one that does not say what it was made from, each
-- train row of its run may be it.
CREATE OR REPLACE TEMP TABLE going AS
WITH RECURSIVE edges AS MATERIALIZED (
    SELECT source_trace_id::VARCHAR AS parent, example_id::VARCHAR AS child
    FROM examples WHERE source_trace_id IS NOT NULL
    UNION ALL
    SELECT unnest(parent_ids) AS parent, example_id::VARCHAR AS child FROM examples
    UNION ALL
    SELECT unnest(parent_ids) AS parent, run_id::VARCHAR AS child FROM policies
    UNION ALL
    SELECT examples.source_trace_id::VARCHAR AS parent, policies.run_id::VARCHAR AS child
    FROM policies JOIN examples ON examples.run_id = policies.run_id
    WHERE policies.parent_ids IS NULL
        AND examples.source_trace_id IS NOT NULL
        AND examples.split = 'train'
),
reached AS (
    SELECT trace_id::VARCHAR AS id FROM roots
    UNION
    SELECT edges.child AS id FROM reached JOIN edges ON edges.parent = reached.id
)
SELECT DISTINCT id FROM reached;

-- name: going_counts
-- How much goes.
SELECT
    (SELECT count(*) FROM traces WHERE trace_id IN (SELECT trace_id FROM roots)) AS traces,
    (
        SELECT count(*) FROM examples
        WHERE origin <> 'synthetic' AND example_id::VARCHAR IN (SELECT id FROM going)
    ) AS examples,
    (
        SELECT count(*) FROM examples
        WHERE origin = 'synthetic' AND example_id::VARCHAR IN (SELECT id FROM going)
    ) AS synthetic,
    (SELECT count(*) FROM policies WHERE run_id::VARCHAR IN (SELECT id FROM going)) AS policies,
    (SELECT count(*) FROM feedback WHERE trace_id IN (SELECT trace_id FROM roots)) AS feedback,
    (
        SELECT count(*) FROM comparisons
        WHERE trace_id IN (SELECT trace_id FROM roots)
            AND (teacher_output IS NOT NULL OR student_output IS NOT NULL)
    ) AS comparisons;

-- name: going_learned
-- The runs with an adapter that learned from what goes, or from traces of the same subjects that have
-- expired: how many real rows and how many synthetic ones. What was made and not learned from does
-- not count. `$forgetting_id`: NULL when nothing is forgotten.
WITH trained AS (
    SELECT run_id, max(detail ->> '$.chosen') AS chosen FROM run_events
    WHERE state = 'trained' GROUP BY run_id
),
rows AS (
    SELECT
        examples.run_id, examples.task,
        count(*) FILTER (origin <> 'synthetic') AS traces,
        count(*) FILTER (origin = 'synthetic' AND coalesce(chosen, '') <> 'real') AS synthetic
    FROM examples JOIN trained ON trained.run_id = examples.run_id
    WHERE split = 'train' AND status = 'kept' AND example_id::VARCHAR IN (SELECT id FROM going)
    GROUP BY examples.run_id, examples.task
    UNION ALL
    SELECT learned.run_id, learned.task, count(DISTINCT trace_digest) AS traces, 0 AS synthetic
    FROM learned JOIN forgotten ON
        forgotten.forgetting_id = $forgetting_id::UUID
        AND (
            (kind = 'trace' AND digest = trace_digest)
            OR (kind = 'user' AND digest = user_digest AND start_time < until)
            OR (
                kind = 'task' AND start_time < until
                AND digest = left(
                    sha256((SELECT value FROM salt) || ':task:' || learned.task), 32
                )
            )
        )
    GROUP BY learned.run_id, learned.task
)
SELECT run_id, task, sum(traces)::BIGINT AS traces, sum(synthetic)::BIGINT AS synthetic
FROM rows GROUP BY run_id, task HAVING sum(traces) + sum(synthetic) > 0 ORDER BY run_id;

-- name: insert_marks
-- Marks the adapters that learned from what is forgotten. `$rows`: JSON array.
INSERT INTO marks BY NAME
SELECT unnest(from_json($rows, '[{
    "forgetting_id": "UUID", "run_id": "UUID", "task": "VARCHAR", "traces": "BIGINT",
    "synthetic": "BIGINT", "at": "DOUBLE"
}]'), max_depth := 2);

-- name: insert_learned
-- Remembers which adapters learned from traces that expire.
INSERT INTO learned BY NAME
SELECT DISTINCT
    examples.run_id,
    examples.task,
    left(sha256(salt.value || ':trace:' || traces.trace_id::VARCHAR), 32) AS trace_digest,
    left(sha256(salt.value || ':user:' || traces.end_user), 32) AS user_digest,
    traces.start_time
FROM examples
JOIN traces ON traces.trace_id = examples.source_trace_id
CROSS JOIN salt
WHERE examples.split = 'train' AND examples.status = 'kept'
    AND traces.trace_id IN (SELECT trace_id FROM roots)
    AND examples.run_id IN (SELECT run_id FROM run_events WHERE state = 'trained');

-- name: insert_forgotten_roots
-- The roots by their ids, and by what was asked and answered, to know an import of the same again.
INSERT INTO forgotten BY NAME
WITH known AS (SELECT digest FROM forgotten WHERE forgetting_id = $forgetting_id::UUID),
hashes AS (
    SELECT
        left(sha256(salt.value || ':trace:' || trace_id::VARCHAR), 32) AS trace,
        CASE WHEN input_hash <> '' AND content <> 'none' THEN left(sha256(
            salt.value || ':said:' || input_hash || ':'
            || (TRY_CAST(output_messages AS JSON) ->> '$[0].content')
        ), 32) END AS said
    FROM traces CROSS JOIN salt
    WHERE trace_id IN (SELECT trace_id FROM roots)
),
found AS (
    SELECT 'trace' AS kind, trace AS digest FROM hashes
    UNION
    SELECT 'said' AS kind, said AS digest FROM hashes WHERE said IS NOT NULL
)
SELECT $forgetting_id::UUID AS forgetting_id, kind, digest, NULL::DOUBLE AS until FROM found
WHERE digest NOT IN (SELECT digest FROM known);

-- name: going_targets
-- What the real rows of a run that its forms come from are to be answered, and which of them go.
SELECT target, example_id::VARCHAR IN (SELECT id FROM going) AS goes FROM examples
WHERE run_id = $run_id::UUID AND origin <> 'synthetic';

-- name: runs_of_going
-- The runs whose real rows go.
SELECT DISTINCT run_id FROM examples
WHERE origin <> 'synthetic' AND example_id::VARCHAR IN (SELECT id FROM going)
ORDER BY run_id;

-- name: promotions_of_run
-- The turns of a route that a run's student took, as they are written.
SELECT promotion_id, certificate, route FROM promotions WHERE run_id = $run_id::UUID;

-- name: change_promotion
-- Writes the route and the certificate of a turn anew.
UPDATE promotions SET certificate = $certificate, route = $route
WHERE promotion_id = $promotion_id::UUID;

-- name: change_run_event
-- Writes the numbers of a run's event anew.
UPDATE run_events SET detail = $detail WHERE run_id = $run_id::UUID AND seq = $seq;

-- name: blank_evaluations
-- Takes the texts of the rows that go out of the evaluations; their numbers stay.
UPDATE evaluations SET teacher_output = '', student_output = NULL, input_hash = ''
WHERE (run_id, input_hash) IN (
    SELECT (run_id, input_hash) FROM examples
    WHERE origin <> 'synthetic' AND example_id::VARCHAR IN (SELECT id FROM going)
);

-- name: blank_comparisons
-- The same of what was found out about students live.
UPDATE comparisons SET teacher_output = NULL, student_output = NULL
WHERE trace_id IN (SELECT trace_id FROM roots)
    AND (teacher_output IS NOT NULL OR student_output IS NOT NULL);

-- name: blank_comparisons_of_gone
-- The same of these traces, as far as they are gone.
UPDATE comparisons SET teacher_output = NULL, student_output = NULL
WHERE trace_id IN (
    SELECT id FROM (SELECT unnest($ids)::UUID AS id) WHERE id NOT IN (SELECT trace_id FROM traces)
);

-- name: delete_going_feedback
-- What clients said of the traces that go.
DELETE FROM feedback WHERE trace_id IN (SELECT trace_id FROM roots);

-- name: delete_going_news
-- And that it was to be worked on.
DELETE FROM feedback_news WHERE trace_id IN (SELECT trace_id FROM roots);

-- name: delete_going_examples
-- The examples, real and synthetic.
DELETE FROM examples WHERE example_id::VARCHAR IN (SELECT id FROM going);

-- name: delete_going_policies
-- The policies.
DELETE FROM policies WHERE run_id::VARCHAR IN (SELECT id FROM going);

-- name: delete_going_traces
-- The traces themselves.
DELETE FROM traces WHERE trace_id IN (SELECT trace_id FROM roots);

-- name: marks
-- How much of what each marked run learned was forgotten, and when the last of it.
SELECT
    run_id, sum(traces)::BIGINT AS traces, sum(synthetic)::BIGINT AS synthetic, max("at") AS "at"
FROM marks GROUP BY run_id ORDER BY run_id;

-- name: missing_traces
-- Which of these traces the store does not have.
SELECT id FROM (SELECT unnest($ids)::UUID AS id)
WHERE id NOT IN (SELECT trace_id FROM traces) ORDER BY id;

-- name: any_forgotten
-- Whether anything is to be known again.
SELECT kind FROM forgotten LIMIT 1;

-- name: stage_dropped
-- Which staged lines are of what was forgotten: into the temporary table `dropped`. What was said is
-- compared only where it comes from an import: by itself it names nobody.
CREATE OR REPLACE TEMP TABLE dropped AS
WITH keyed AS (
    SELECT
        staged.rowid AS place,
        filename,
        trace_id,
        is_trace,
        TRY_CAST(start_time AS DOUBLE) AS begun,
        left(
            sha256(salt.value || ':trace:' || TRY_CAST(trace_id AS UUID)::VARCHAR), 32
        ) AS trace,
        CASE WHEN is_trace THEN left(sha256(salt.value || ':user:' || end_user), 32) END AS named,
        CASE WHEN is_trace THEN left(sha256(salt.value || ':task:' || task), 32) END AS tagged,
        CASE WHEN is_trace AND source LIKE 'import:%' AND input_hash <> '' THEN left(sha256(
            salt.value || ':said:' || input_hash || ':'
            || (TRY_CAST(output_messages AS JSON) ->> '$[0].content')
        ), 32) END AS said
    FROM staged CROSS JOIN salt
    WHERE is_trace OR is_feedback
)
SELECT place, filename, is_trace, trace_id, trace, min(forgetting_id) AS forgetting_id
FROM keyed JOIN forgotten ON
    (kind = 'trace' AND digest = trace)
    OR (kind = 'said' AND digest = said)
    OR (kind = 'user' AND digest = named AND begun < until)
    OR (kind = 'task' AND digest = tagged AND begun < until)
GROUP BY place, filename, is_trace, trace_id, trace;

-- name: dropped_counts
-- How many traces and how much feedback of each staged segment is dropped.
SELECT filename AS name, count(*) AS dropped FROM dropped GROUP BY filename;

-- name: remember_dropped
-- Knows the dropped traces again by their ids, for the feedback that comes after them.
INSERT INTO forgotten BY NAME
SELECT DISTINCT forgetting_id, 'trace' AS kind, trace AS digest, NULL::DOUBLE AS until FROM dropped
WHERE trace NOT IN (SELECT digest FROM forgotten WHERE kind = 'trace');

-- name: delete_dropped_feedback
-- The feedback that came before them.
DELETE FROM feedback WHERE trace_id IN (SELECT TRY_CAST(trace_id AS UUID) FROM dropped);

-- name: delete_dropped
-- Takes the dropped lines out of what is staged.
DELETE FROM staged WHERE rowid IN (SELECT place FROM dropped);

-- ---- statistics of a task; `$task` is NULL for untagged requests --------------------------------

-- name: served
-- Requests by route, with milliseconds until the whole answer: of all, and of those since `$since`.
-- Not every imported log knows how long an answer took: it says 0.
SELECT
    route,
    count(*) AS requests,
    count(*) FILTER (outcome IN ('error', 'teacher_broke')) AS errors,
    quantile_cont(nullif(duration_ms, 0), 0.5) FILTER (outcome = 'complete') AS p50_ms,
    quantile_cont(nullif(duration_ms, 0), 0.95) FILTER (outcome = 'complete') AS p95_ms,
    count(*) FILTER (start_time >= $since) AS recent_requests,
    quantile_cont(nullif(duration_ms, 0), 0.5) FILTER (outcome = 'complete' AND start_time >= $since)
        AS recent_p50_ms,
    quantile_cont(nullif(duration_ms, 0), 0.95) FILTER (outcome = 'complete' AND start_time >= $since)
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
-- Tokens and money of traffic by who answered. `cost` is NULL when no request has a known price;
-- `mean_cost` is of chats alone, since only in their place a student could answer.
SELECT
    served_by,
    count(*) AS calls,
    coalesce(sum(input_tokens), 0)::BIGINT AS input,
    coalesce(sum(output_tokens), 0)::BIGINT AS output,
    sum(cost_usd)::DOUBLE AS cost,
    (avg(cost_usd) FILTER (operation_name = 'chat'))::DOUBLE AS mean_cost
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
