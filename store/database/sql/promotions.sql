-- The history of each task's route.

-- name: insert_promotions
-- Appends to the history of routes. `$rows`: JSON array of store.records.Promotion.
INSERT INTO promotions BY NAME
SELECT unnest(from_json($rows, '[{
    "promotion_id": "UUID", "task": "VARCHAR", "target": "VARCHAR", "state": "VARCHAR",
    "reason": "VARCHAR", "actor": "VARCHAR", "at": "DOUBLE", "run_id": "UUID",
    "certificate": "VARCHAR", "route": "VARCHAR", "forced": "BOOLEAN", "suspect_since": "DOUBLE"
}]'), max_depth := 2);

-- name: latest_promotions
-- The last promotion of each task: what its route follows from.
SELECT * FROM routes ORDER BY task;

-- name: promotions_of_task
-- The history of a task's route, newest first.
SELECT * FROM promotions WHERE task = $task ORDER BY "at" DESC, promotion_id DESC LIMIT $limit;

-- name: promotions_of_run
-- The promotions of a run's student.
SELECT * FROM promotions WHERE run_id = $run_id::UUID;

-- name: promotions_with_inputs
-- The promotions whose route lists inputs that the teacher answers.
SELECT * FROM promotions WHERE len(route ->> '$.teacher_inputs[*]') > 0;

-- name: update_promotion
-- Replaces the route and the certificate of a promotion.
UPDATE promotions SET certificate = $certificate, route = $route
WHERE promotion_id = $promotion_id::UUID;
