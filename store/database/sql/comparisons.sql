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
    "student_output": "VARCHAR", "at": "DOUBLE"
}]'), max_depth := 2);

-- name: outcomes_of_student
-- The newest comparisons of a student after a time, newest first. `begun`: when the request was made.
-- `$texts`: with both answers.
SELECT
    comparisons.trace_id, kind, agrees, servable, fault, "at",
    coalesce(traces.start_time, "at") AS begun, coalesce(traces.input_hash, '') AS input_hash,
    CASE WHEN $texts THEN teacher_output END AS teacher_output,
    CASE WHEN $texts THEN student_output END AS student_output
FROM comparisons LEFT JOIN traces ON traces.trace_id = comparisons.trace_id
WHERE comparisons.student_id = $student_id::UUID AND "at" > $since
ORDER BY "at" DESC, comparisons.trace_id DESC
LIMIT $limit;

-- name: counts_of_student
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

-- name: audits_since
-- How many audits of a task were made after a time.
SELECT count(*) AS audits FROM comparisons
WHERE task = $task AND kind = 'audit' AND "at" > $since;
