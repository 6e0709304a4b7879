-- Clients' feedback on answers. Read by store/database/queries.py.

-- name: has_feedback_news
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

-- name: judged_answers
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
