-- Logged requests.

-- name: task_counts
-- Every task tag that was ever seen, with its number of requests: 0 when all are forgotten.
SELECT task, sum(traces)::BIGINT AS traces FROM (
    SELECT task, count(*) AS traces FROM traces WHERE task IS NOT NULL GROUP BY task
    UNION ALL
    SELECT DISTINCT task, 0 AS traces FROM run_events
) GROUP BY task ORDER BY task;

-- name: exchange_by_id
-- One trace by its id.
SELECT * FROM traces WHERE trace_id = $trace_id::UUID;

-- name: teacher_answers
-- The newest whole answers of the teacher to a task's requests, newest first: the rows of a run.
SELECT * FROM teacher_traces
WHERE task = $task
ORDER BY start_time DESC, trace_id DESC
LIMIT $limit;

-- name: teacher_answers_before
-- The same of requests made before a time, each input once, as long as their messages have no more than
-- `$most_bytes` together.
SELECT * EXCLUDE (bytes) FROM (
    SELECT
        *,
        sum(strlen(input_messages)) OVER (
            ORDER BY start_time DESC, trace_id DESC ROWS UNBOUNDED PRECEDING
        ) AS bytes
    FROM teacher_traces
    WHERE task = $task AND start_time < $before
    ORDER BY start_time DESC, trace_id DESC
    LIMIT $limit
)
WHERE bytes <= $most_bytes
QUALIFY row_number() OVER (PARTITION BY input_hash ORDER BY start_time DESC, trace_id DESC) = 1
ORDER BY start_time DESC, trace_id DESC;

-- name: teacher_answers_to
-- The newest of these fingerprints only: for those that other traces crowd out of the newest.
SELECT * FROM teacher_traces
WHERE task = $task AND fingerprint IN (SELECT unnest($fingerprints))
ORDER BY start_time DESC, trace_id DESC
LIMIT $limit;

-- name: traffic_by_fingerprint
-- The newest `$requests` answered requests of a task, whoever answered, by fingerprint: how many there
-- are, how many of them are among the `$newest` (`recent`, the order), when the first and the last came,
-- and the texts of the last request.
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

-- name: recent_requests
-- How many of the newest `$requests` answered requests of a task there are, whoever answered.
SELECT least(count(*), $requests)::BIGINT AS total FROM chats
WHERE task = $task AND served_by IS NOT NULL;

-- name: recent_inputs
-- The inputs that were asked at least `$least` times under one prompt, and are this share of its
-- requests, among those requests: the commonest, each with the texts of its last request. An input without
-- a hash is none.
WITH newest AS (
    SELECT trace_id, fingerprint, input_hash, start_time FROM chats
    WHERE task = $task AND served_by IS NOT NULL
    ORDER BY start_time DESC, trace_id DESC
    LIMIT $requests
),
often AS (
    SELECT
        fingerprint, input_hash, count(*) AS requests, arg_max(trace_id, start_time) AS trace_id
    FROM newest
    WHERE input_hash <> ''
    GROUP BY fingerprint, input_hash
    HAVING count(*) >= $least
),
prompts AS (SELECT fingerprint, count(*) AS requests FROM newest GROUP BY fingerprint)
SELECT
    often.fingerprint, often.input_hash, often.requests,
    traces.input_messages, traces.request_params, traces.tool_definitions
FROM often
JOIN prompts ON prompts.fingerprint = often.fingerprint
JOIN traces ON traces.trace_id = often.trace_id
WHERE often.requests >= $share * prompts.requests
ORDER BY often.requests DESC, often.fingerprint, often.input_hash
LIMIT $limit;

-- name: audited_exchanges
-- The newest traces of a task that a student answered, with what the teacher answered to an audit.
SELECT chats.*, audits.teacher_output, audits."at" AS answered_at
FROM comparisons audits JOIN chats ON chats.trace_id = audits.trace_id
WHERE audits.task = $task AND audits.kind = 'audit' AND audits.teacher_output IS NOT NULL
    AND chats.served_by = 'student'
ORDER BY chats.start_time DESC, chats.trace_id DESC
LIMIT $limit;

-- name: corrected_exchanges
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

-- name: new_teacher_traces
-- How many whole answers of the teacher there are for a task to requests after `$asked_since`, and
-- after `$since` or imported after it: old answers are new to a task when they are imported.
SELECT count(*) AS traces FROM teacher_traces
WHERE task = $task AND start_time > $asked_since
    AND (start_time > $since OR imported_at > $since);

-- name: uncovered_teacher_traces
-- The same at all times, without what a promoted student is certified for and does not get yet, and
-- without the inputs that it is known to answer otherwise.
SELECT count(*) AS traces FROM teacher_traces
WHERE task = $task AND (start_time > $since OR imported_at > $since)
    AND reason NOT IN ('shadow', 'not_in_share', 'teacher_input');

-- name: requests_of_student
-- The newest requests begun after a time that a student was asked for, newest first; with their
-- messages as long as these have no more than `$most_bytes` together.
SELECT
    trace_id, task, student_id, served_by, reason, start_time, end_time,
    outcome = 'complete' AND status_code = 200 AS whole, input_hash,
    operation_name = 'chat' AND content <> 'none' AS has_texts,
    CASE WHEN sum(strlen(input_messages)) OVER (
        ORDER BY end_time DESC, trace_id DESC ROWS UNBOUNDED PRECEDING
    ) <= $most_bytes THEN input_messages END AS input_messages
FROM traces
WHERE student_id = $student_id AND start_time > $since
ORDER BY end_time DESC, trace_id DESC
LIMIT $limit;

-- name: unaudited_traces
-- The requests that a student served after a time and that have no audit, oldest first.
SELECT trace_id, end_time FROM chats
WHERE student_id = $student_id AND served_by = 'student' AND end_time > $since
    AND trace_id NOT IN (
        SELECT trace_id FROM comparisons
        WHERE student_id = $student_id::UUID AND kind = 'audit' AND "at" > $since
    )
ORDER BY end_time, trace_id;

-- name: confidences_of_student
-- The confidence of each of a student's answers.
SELECT trace_id, confidence FROM traces WHERE task = $task AND student_id = $student;
