-- Runs: their events, examples, teacher calls, evaluations and policies.

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
    "fault": "VARCHAR", "signals": "VARCHAR", "fingerprint": "VARCHAR",
    "group": "BIGINT"
}]'), max_depth := 2);

-- name: evaluations_of_run
-- The evaluated rows of a run.
SELECT * FROM evaluations WHERE run_id = $run_id::UUID ORDER BY split, input_hash;

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

-- name: events_of_run
-- The history of a run, oldest first.
SELECT * FROM run_events WHERE run_id = $run_id::UUID ORDER BY seq;

-- name: events_of_last_run
-- The history of a task's last run, oldest first. Run ids are UUIDv7: the last is the greatest.
SELECT * FROM run_events
WHERE run_id = (SELECT max(run_id) FROM run_events WHERE task = $task)
ORDER BY seq;

-- name: unfinished_runs
-- The last event of each run that has not ended, oldest run first.
SELECT * FROM runs WHERE state NOT IN ('promoted', 'rejected', 'failed') ORDER BY run_id;

-- name: ended_runs
-- The last event of each ended run of a task, oldest first.
SELECT * FROM runs
WHERE task = $task AND state IN ('promoted', 'rejected', 'failed')
ORDER BY "at", run_id;

-- name: update_run_event
-- Replaces the numbers of a run's event.
UPDATE run_events SET detail = $detail WHERE run_id = $run_id::UUID AND seq = $seq;

-- name: latest_run_id
-- The id of a task's last run; NULL without one.
SELECT max(run_id) AS run_id FROM run_events WHERE task = $task;

-- name: inputs_of_runs
-- The real rows that the students of a task have learned from, and those that this run's held out: by
-- the input's hash and the trace's id. `$judge`: NULL for none.
WITH trained AS (SELECT DISTINCT run_id FROM run_events WHERE task = $task AND state = 'trained')
SELECT DISTINCT split = 'heldout' AS heldout, input_hash, source_trace_id::VARCHAR AS trace_id
FROM examples
WHERE task = $task AND origin <> 'synthetic' AND run_id IN (SELECT run_id FROM trained)
    AND (split <> 'heldout' OR run_id = $judge::UUID);

-- name: expired_inputs
-- What the students of a task have learned from traces that expired since: salted hashes of inputs.
SELECT DISTINCT input_digest, salt.value AS salt FROM learned CROSS JOIN salt
WHERE task = $task AND input_digest IS NOT NULL;
