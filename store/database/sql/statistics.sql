-- Statistics of a task. `$task` is NULL for untagged requests.

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
    coalesce(
        sum(coalesce(input_tokens, 0) + coalesce(output_tokens, 0)) FILTER (tokens_estimated), 0
    )::BIGINT AS estimated,
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
