-- Live comparisons of a student's answers with the teacher's: shadow, audits, feedback.

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
    "student_output": "VARCHAR", "at": "DOUBLE", "group_key": "UUID"
}]'), max_depth := 2);

-- name: outcomes_of_student
-- The newest comparisons of a student after a time, newest first. `begun`: when the request was made.
-- `group`: its group's key, or the trace. `$texts`: with both answers.
SELECT
    comparisons.trace_id, kind, agrees, servable, fault, "at",
    coalesce(traces.start_time, "at") AS begun,
    coalesce(group_key, comparisons.trace_id) AS "group",
    CASE WHEN $texts THEN teacher_output END AS teacher_output,
    CASE WHEN $texts THEN student_output END AS student_output
FROM comparisons LEFT JOIN traces ON traces.trace_id = comparisons.trace_id
WHERE comparisons.student_id = $student_id::UUID AND "at" > $since
ORDER BY "at" DESC, comparisons.trace_id DESC
LIMIT $limit;

-- name: inputs_that_differ
-- The inputs that are `$share` of a task's newest `$requests` answered requests, and `$least` of them or
-- more, and on which servable comparisons of a student after a time disagree, with the last request.
WITH newest AS (
    SELECT trace_id, fingerprint, input_hash, start_time FROM chats
    WHERE task = $task AND served_by IS NOT NULL
    ORDER BY start_time DESC, trace_id DESC
    LIMIT $requests
),
often AS (
    SELECT fingerprint, input_hash, arg_max(trace_id, start_time) AS trace_id FROM newest
    WHERE input_hash <> ''
    GROUP BY fingerprint, input_hash
    HAVING count(*) >= greatest($least, $share * (SELECT count(*) FROM newest))
),
compared AS (
    SELECT
        chats.fingerprint, chats.input_hash,
        count(*) AS compared, count(*) FILTER (comparisons.agrees) AS agreed
    FROM comparisons JOIN chats ON chats.trace_id = comparisons.trace_id
    WHERE comparisons.student_id = $student_id::UUID AND comparisons."at" > $since
        AND comparisons.servable AND comparisons.kind <> 'feedback'
    GROUP BY chats.fingerprint, chats.input_hash
    HAVING count(*) FILTER (NOT comparisons.agrees) > 0
)
SELECT
    often.fingerprint, compared.compared, compared.agreed,
    traces.input_messages, traces.request_params, traces.tool_definitions
FROM often
JOIN compared
    ON compared.fingerprint = often.fingerprint AND compared.input_hash = often.input_hash
JOIN traces ON traces.trace_id = often.trace_id
ORDER BY often.fingerprint, often.input_hash;

-- name: counts_of_student
-- A student's comparisons between two times by kind.
SELECT
    kind,
    count(*) AS n,
    count(*) FILTER (servable) AS servable,
    count(*) FILTER (servable AND agrees) AS agreed
FROM comparisons
WHERE student_id = $student_id::UUID AND "at" > $since AND "at" < $until
GROUP BY kind ORDER BY kind;

-- name: groups_of_student
-- A student's servable comparisons from fair samples between two times, by group: the newest `$limit`
-- groups one by one, and all others in one row without a key. `step_…`: of requests made after
-- `$step_at`. `firsts`: groups whose first comparison agrees. `missed`: sum of the shares that disagree.
-- `audited`: groups with an audit.
WITH fair AS (
    SELECT
        coalesce(group_key, comparisons.trace_id) AS key, kind, agrees, "at",
        coalesce(traces.start_time, "at") > $step_at AS in_step
    FROM comparisons LEFT JOIN traces ON traces.trace_id = comparisons.trace_id
    WHERE comparisons.student_id = $student_id::UUID AND "at" > $since AND "at" < $until
        AND servable AND kind <> 'feedback'
),
groups AS (
    SELECT
        key,
        count(*) AS n,
        count(*) FILTER (agrees) AS agreed,
        arg_min(agrees, "at") AS first_agrees,
        count(*) FILTER (in_step) AS step_n,
        count(*) FILTER (in_step AND agrees) AS step_agreed,
        arg_min(agrees, "at") FILTER (in_step) AS step_first_agrees,
        bool_or(kind = 'audit') AS audited,
        max("at") AS last_at
    FROM fair GROUP BY key
),
placed AS (
    SELECT *, row_number() OVER (ORDER BY last_at DESC, key) <= $limit AS apart FROM groups
)
SELECT
    CASE WHEN apart THEN key END AS key,
    max(last_at) AS last_at,
    count(*) AS groups,
    sum(n)::BIGINT AS n,
    sum(agreed)::BIGINT AS agreed,
    count(*) FILTER (first_agrees) AS firsts,
    sum((n - agreed) / n) AS missed,
    count(*) FILTER (step_n > 0) AS step_groups,
    sum(step_n)::BIGINT AS step_n,
    sum(step_agreed)::BIGINT AS step_agreed,
    count(*) FILTER (step_first_agrees) AS step_firsts,
    coalesce(sum((step_n - step_agreed) / step_n) FILTER (step_n > 0), 0) AS step_missed,
    count(*) FILTER (audited) AS audited
FROM placed GROUP BY CASE WHEN apart THEN key END ORDER BY last_at;

-- name: compared_inputs
-- The newest comparisons of a student with the messages of their requests, newest first, as long as
-- these have no more than `$most_bytes` together; with `$ungrouped` only those without a group.
SELECT
    comparisons.trace_id, kind, group_key, "at", traces.input_messages
FROM comparisons JOIN traces ON traces.trace_id = comparisons.trace_id
WHERE comparisons.student_id = $student_id::UUID AND "at" > $since
    AND (group_key IS NULL OR NOT $ungrouped)
QUALIFY sum(strlen(traces.input_messages)) OVER (
    ORDER BY "at" DESC, comparisons.trace_id DESC ROWS UNBOUNDED PRECEDING
) <= $most_bytes
ORDER BY "at" DESC, comparisons.trace_id DESC
LIMIT $limit;

-- name: set_group_keys
-- Gives comparisons the groups that they belong to. `$rows`: JSON array.
UPDATE comparisons SET group_key = new.group_key
FROM (
    SELECT unnest(
        from_json($rows, '[{"trace_id": "UUID", "kind": "VARCHAR", "group_key": "UUID"}]'),
        max_depth := 2
    )
) AS new
WHERE comparisons.trace_id = new.trace_id AND comparisons.kind = new.kind;

-- name: audits_since
-- How many audits of a task were made after a time.
SELECT count(*) AS audits FROM comparisons
WHERE task = $task AND kind = 'audit' AND "at" > $since;
