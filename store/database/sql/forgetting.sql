-- Forgetting: what was requested, what was derived from it, and its deletion.

-- name: insert_forgetting
-- Records that something is to be forgotten.
INSERT INTO forgettings BY NAME
SELECT
    $forgetting_id::UUID AS forgetting_id, 'asked' AS state, $actor AS actor, $reason AS reason,
    $at::DOUBLE AS "at", 0 AS traces, 0 AS examples, 0 AS synthetic;

-- name: insert_forgotten
-- The subjects of a forgetting, as hashes. `$rows`: JSON array of store.database.forgetting.Subject.
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
-- The hashes of the subjects of a forgetting, with the salt that they are made with.
SELECT kind, digest, until, salt.value AS salt FROM forgotten CROSS JOIN salt
WHERE forgetting_id = $forgetting_id::UUID;

-- name: unfinished_forgettings
-- The forgettings that were requested and are not done, oldest first.
SELECT forgetting_id, state FROM forgettings WHERE state <> 'done' ORDER BY "at", forgetting_id;

-- name: advance_forgetting
-- Moves a forgetting to its next state, and adds to the counts of what was deleted.
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
-- `roots` of the traces that are deleted already and left examples behind: those of a run that was
-- under way.
CREATE OR REPLACE TEMP TABLE roots AS
SELECT DISTINCT source_trace_id AS trace_id FROM examples
WHERE source_trace_id IS NOT NULL AND source_trace_id NOT IN (SELECT trace_id FROM traces);

-- name: stage_expired
-- `roots` of the oldest traces whose request and import lie before a time.
CREATE OR REPLACE TEMP TABLE roots AS
SELECT trace_id FROM traces
WHERE greatest(start_time, coalesce(imported_at, start_time)) < $before
ORDER BY start_time, trace_id
LIMIT $limit;

-- name: stage_deletions
-- Everything derived from the roots, in any number of steps, and the roots: into the temporary table
-- `deletions`. A policy has the id of its run. One without parents (of an older version) is taken to be
-- derived from every train row of its run.
CREATE OR REPLACE TEMP TABLE deletions AS
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

-- name: deletion_counts
-- How much is staged for deletion.
SELECT
    (SELECT count(*) FROM traces WHERE trace_id IN (SELECT trace_id FROM roots)) AS traces,
    (
        SELECT count(*) FROM examples
        WHERE origin <> 'synthetic' AND example_id::VARCHAR IN (SELECT id FROM deletions)
    ) AS examples,
    (
        SELECT count(*) FROM examples
        WHERE origin = 'synthetic' AND example_id::VARCHAR IN (SELECT id FROM deletions)
    ) AS synthetic,
    (SELECT count(*) FROM policies WHERE run_id::VARCHAR IN (SELECT id FROM deletions)) AS policies,
    (SELECT count(*) FROM feedback WHERE trace_id IN (SELECT trace_id FROM roots)) AS feedback,
    (
        SELECT count(*) FROM comparisons
        WHERE trace_id IN (SELECT trace_id FROM roots)
            AND (teacher_output IS NOT NULL OR student_output IS NOT NULL)
    ) AS comparisons;

-- name: affected_runs
-- The runs whose adapter learned from what is staged for deletion, or from expired traces of the same
-- subjects: from how many real rows and how many synthetic ones. Synthetic rows that the adapter did not
-- learn from do not count. `$forgetting_id`: NULL when nothing is forgotten.
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
    WHERE split = 'train' AND status = 'kept' AND example_id::VARCHAR IN (SELECT id FROM deletions)
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

-- name: forgotten_inputs
-- The hashes of inputs that only the roots have: as they were logged, and as the rows of runs have them,
-- with the values in a template's holes.
WITH gone AS (SELECT * FROM traces WHERE trace_id IN (SELECT trace_id FROM roots)),
others AS (
    SELECT DISTINCT task, fingerprint, input_hash FROM traces
    WHERE trace_id NOT IN (SELECT trace_id FROM roots)
        AND input_hash IN (SELECT input_hash FROM gone)
)
SELECT input_hash FROM gone
WHERE input_hash <> '' AND input_hash NOT IN (SELECT input_hash FROM others)
UNION
SELECT examples.input_hash FROM examples JOIN gone ON gone.trace_id = examples.source_trace_id
WHERE origin <> 'synthetic' AND NOT EXISTS (
    SELECT 1 FROM others
    WHERE others.task = gone.task AND others.fingerprint = gone.fingerprint
        AND others.input_hash = gone.input_hash
);

-- name: insert_marks
-- Marks the adapters that learned from what is forgotten. `$rows`: JSON array.
INSERT INTO marks BY NAME
SELECT unnest(from_json($rows, '[{
    "forgetting_id": "UUID", "run_id": "UUID", "task": "VARCHAR", "traces": "BIGINT",
    "synthetic": "BIGINT", "at": "DOUBLE"
}]'), max_depth := 2);

-- name: insert_learned
-- Records which adapters learned from traces that expire.
INSERT INTO learned BY NAME
SELECT DISTINCT
    examples.run_id,
    examples.task,
    left(sha256(salt.value || ':trace:' || traces.trace_id::VARCHAR), 32) AS trace_digest,
    left(sha256(salt.value || ':user:' || traces.end_user), 32) AS user_digest,
    left(sha256(salt.value || ':input:' || examples.input_hash), 32) AS input_digest,
    traces.start_time
FROM examples
JOIN traces ON traces.trace_id = examples.source_trace_id
CROSS JOIN salt
WHERE examples.split = 'train' AND examples.status = 'kept'
    AND traces.trace_id IN (SELECT trace_id FROM roots)
    AND examples.run_id IN (SELECT run_id FROM run_events WHERE state = 'trained');

-- name: blank_learned_inputs
-- Clears the hashes of the inputs of forgotten subjects that expired before; that they were learned from
-- stays known.
UPDATE learned SET input_digest = NULL
FROM forgotten
WHERE forgotten.forgetting_id = $forgetting_id::UUID
    AND (
        (kind = 'trace' AND digest = trace_digest)
        OR (kind = 'user' AND digest = user_digest AND start_time < until)
        OR (
            kind = 'task' AND start_time < until
            AND digest = left(sha256((SELECT value FROM salt) || ':task:' || learned.task), 32)
        )
    );

-- name: insert_forgotten_roots
-- The hashes of the roots: of their ids, and of request and answer, to recognise them when an import
-- brings them back.
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

-- name: targets_of_run
-- The targets of the real rows of a run, from which its forms come, and whether each is staged for
-- deletion.
SELECT target, example_id::VARCHAR IN (SELECT id FROM deletions) AS deleted FROM examples
WHERE run_id = $run_id::UUID AND origin <> 'synthetic';

-- name: runs_with_deletions
-- The runs with real rows that are staged for deletion.
SELECT DISTINCT run_id FROM examples
WHERE origin <> 'synthetic' AND example_id::VARCHAR IN (SELECT id FROM deletions)
ORDER BY run_id;

-- name: blank_evaluations
-- Clears the texts of evaluations of the staged rows; their numbers stay.
UPDATE evaluations SET teacher_output = '', student_output = NULL, input_hash = ''
WHERE (run_id, input_hash) IN (
    SELECT (run_id, input_hash) FROM examples
    WHERE origin <> 'synthetic' AND example_id::VARCHAR IN (SELECT id FROM deletions)
);

-- name: blank_comparisons
-- Clears the texts of live comparisons on the roots; their numbers stay.
UPDATE comparisons SET teacher_output = NULL, student_output = NULL
WHERE trace_id IN (SELECT trace_id FROM roots)
    AND (teacher_output IS NOT NULL OR student_output IS NOT NULL);

-- name: blank_comparisons_of_deleted
-- Clears the texts of comparisons on those of these traces that are deleted.
UPDATE comparisons SET teacher_output = NULL, student_output = NULL
WHERE trace_id IN (
    SELECT id FROM (SELECT unnest($ids)::UUID AS id) WHERE id NOT IN (SELECT trace_id FROM traces)
);

-- name: delete_feedback_of_roots
-- The feedback on the roots.
DELETE FROM feedback WHERE trace_id IN (SELECT trace_id FROM roots);

-- name: delete_news_of_roots
-- The note that there is new feedback on the roots.
DELETE FROM feedback_news WHERE trace_id IN (SELECT trace_id FROM roots);

-- name: delete_staged_examples
-- The staged examples, real and synthetic.
DELETE FROM examples WHERE example_id::VARCHAR IN (SELECT id FROM deletions);

-- name: delete_staged_policies
-- The staged policies.
DELETE FROM policies WHERE run_id::VARCHAR IN (SELECT id FROM deletions);

-- name: delete_roots
-- The traces themselves.
DELETE FROM traces WHERE trace_id IN (SELECT trace_id FROM roots);

-- name: marked_runs
-- How much of what each marked run learned was forgotten, and when the last of it was.
SELECT
    run_id, sum(traces)::BIGINT AS traces, sum(synthetic)::BIGINT AS synthetic, max("at") AS "at"
FROM marks GROUP BY run_id ORDER BY run_id;

-- name: missing_traces
-- Which of these traces the store does not have.
SELECT id FROM (SELECT unnest($ids)::UUID AS id)
WHERE id NOT IN (SELECT trace_id FROM traces) ORDER BY id;

-- name: any_forgotten
-- Whether anything was ever forgotten.
SELECT kind FROM forgotten LIMIT 1;

-- name: stage_dropped
-- The staged lines of forgotten subjects: into the temporary table `dropped`. Request and answer are
-- compared for imports only: by themselves they identify nobody.
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
-- Adds the ids of the dropped traces, to recognise feedback that comes after them.
INSERT INTO forgotten BY NAME
SELECT DISTINCT forgetting_id, 'trace' AS kind, trace AS digest, NULL::DOUBLE AS until FROM dropped
WHERE trace NOT IN (SELECT digest FROM forgotten WHERE kind = 'trace');

-- name: delete_dropped_feedback
-- Feedback that came before the dropped traces.
DELETE FROM feedback WHERE trace_id IN (SELECT TRY_CAST(trace_id AS UUID) FROM dropped);

-- name: delete_dropped
-- Removes the dropped lines from the staged ones.
DELETE FROM staged WHERE rowid IN (SELECT place FROM dropped);
