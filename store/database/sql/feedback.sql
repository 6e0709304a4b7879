-- Clients' feedback on answers.

-- name: has_new_feedback
-- Whether there is feedback that was not compared yet.
SELECT trace_id FROM feedback_news LIMIT 1;

-- name: delete_feedback_news
-- In the transaction that writes the comparisons.
DELETE FROM feedback_news;

-- name: feedback_to_compare
-- The newest feedback on each answer of a student with new feedback: what may be a complaint, that is
-- has no score of `$good_from` or more, and what follows on a complaint that is among the comparisons
-- (`complained`). Oldest first. `scorer`: of the student's route, NULL when it never had one. Where the
-- answer's text is not kept, only a score counts.
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

-- name: judged_answers
-- The audits of a task that the judge scored and that have feedback on the answer too, with the newest
-- feedback: the first of each group. Oldest first.
WITH newest AS (
    SELECT * FROM feedback
    QUALIFY row_number() OVER (
        PARTITION BY trace_id ORDER BY feedback_at DESC, feedback_id DESC
    ) = 1
)
SELECT comparisons.agrees, comparisons.student_output, newest.score, newest.correction
FROM comparisons JOIN newest ON newest.trace_id = comparisons.trace_id
WHERE comparisons.task = $task AND comparisons.kind = 'audit' AND comparisons.scorer = 'judge'
QUALIFY row_number() OVER (
    PARTITION BY student_id, coalesce(group_key, comparisons.trace_id)
    ORDER BY comparisons."at", comparisons.trace_id
) = 1
ORDER BY comparisons."at", comparisons.trace_id;
