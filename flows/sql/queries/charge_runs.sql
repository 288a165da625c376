-- Charge runs of one shard that were executed when their process died: each goes back to the
-- queue, to be executed alone, or fails if that was its last chance. Attempts do not count.
-- Locks:  the runs, NO KEY; one that its attempt's open transaction holds is skipped and keeps it.
-- Index:  the primary key, by ANY of an array; CASE keeps the planner from walking runs_running_idx,
--         and the thousand rows of generate_series from joining each row with each.
WITH held AS (
    SELECT run_id
    FROM flows.runs
    WHERE workflow_name_shard = %(shard)s
      AND run_id = ANY(%(run_ids)s::uuid[])
      AND CASE WHEN status = 'running' THEN worker_id END = %(worker_id)s
    ORDER BY run_id
    FOR NO KEY UPDATE SKIP LOCKED
)
UPDATE flows.runs AS r
SET status = CASE WHEN r.crashes + 1 < %(max_crashes)s THEN 'queued' ELSE 'failed' END,
    crashes = r.crashes + 1,
    is_suspect = true,
    error_text = CASE WHEN r.crashes + 1 < %(max_crashes)s THEN r.error_text ELSE
        'ProcessCrash: the process died during each of ' || (r.crashes + 1)::text
        || ' executions of this run, the last time by ' || u.cause
    END,
    worker_id = NULL,
    updated_at = statement_timestamp(),
    finished_at = (
        statement_timestamp() AT TIME ZONE 'UTC'
        + CASE WHEN r.crashes + 1 >= %(max_crashes)s THEN interval '0' END
    ) AT TIME ZONE 'UTC'
FROM ROWS FROM (
    unnest(%(run_ids)s::uuid[], %(claims)s::bigint[], %(causes)s::text[]),
    generate_series(1, cardinality(%(run_ids)s::uuid[]))
) AS u (run_id, claim, cause, number)
WHERE r.workflow_name_shard = %(shard)s
  AND r.run_id = ANY(ARRAY(SELECT run_id FROM held))
  AND r.run_id = u.run_id
  AND r.claim = u.claim
RETURNING r.run_id::text, r.status
