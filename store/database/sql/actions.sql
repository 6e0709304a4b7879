-- Commands given by hand.

-- name: insert_actions
-- Appends a command given by hand. `$rows`: JSON array of store.records.Action.
INSERT INTO actions BY NAME
SELECT unnest(from_json($rows, '[{
    "action_id": "UUID", "task": "VARCHAR", "command": "VARCHAR", "actor": "VARCHAR",
    "reason": "VARCHAR", "at": "DOUBLE", "forced": "BOOLEAN"
}]'), max_depth := 2);

-- name: actions_of_task
-- The commands given to a task by hand, newest first.
SELECT * FROM actions WHERE task = $task ORDER BY "at" DESC, action_id DESC LIMIT $limit;

-- name: retrain_requested
-- Whether a run was requested by hand after the last one began. Both ids are UUIDv7: the later is
-- the greater.
SELECT coalesce(max(action_id) > (SELECT max(run_id) FROM run_events WHERE task = $task), true)
    AND count(*) > 0 AS requested
FROM actions WHERE task = $task AND command = 'retrain';

-- name: paused_tasks
-- The tasks that are paused by hand: those whose last pause or resume is a pause.
SELECT task FROM actions
WHERE command IN ('pause', 'resume')
QUALIFY row_number() OVER (PARTITION BY task ORDER BY "at" DESC, action_id DESC) = 1
    AND command = 'pause'
ORDER BY task;
