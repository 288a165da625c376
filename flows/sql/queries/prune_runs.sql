-- Delete those of the next %(limit)s runs of one shard that ended long enough ago, with all that belongs
-- to them. Tells the last run that was looked at, how many are gone, and whether all that follow are
-- too young: runs that were begun later have not ended earlier. No row if none follow.
-- Locks:  the deleted runs, by FOR UPDATE; locked ones are skipped. Then their memos.
-- Index:  the primary keys.
WITH page AS (
    SELECT p.run_id, p.status, p.created_at, coalesce(p.finished_at, p.updated_at) AS ended_at
    FROM flows.runs AS p
    WHERE p.workflow_name_shard = %(shard)s
      AND p.run_id > %(after)s
    ORDER BY p.run_id
    LIMIT %(limit)s
),
doomed AS (
    SELECT d.run_id
    FROM flows.runs AS d
    WHERE d.workflow_name_shard = %(shard)s
      AND d.run_id = ANY(ARRAY(
          SELECT page.run_id
          FROM page
          WHERE page.status = ANY(%(statuses)s::text[])
            AND page.ended_at
                < statement_timestamp() - %(older_s)s::float8 * interval '1 second'
      ))
      AND CASE WHEN d.status IN ('completed', 'failed', 'cancelled') THEN true END
    ORDER BY d.run_id
    FOR UPDATE OF d SKIP LOCKED
),
gone AS (
    DELETE FROM flows.runs AS g
    WHERE g.workflow_name_shard = %(shard)s
      AND g.run_id = ANY(ARRAY(SELECT run_id FROM doomed))
    RETURNING 1
)
SELECT
    (SELECT page.run_id FROM page ORDER BY page.run_id DESC LIMIT 1),
    (SELECT count(*) FROM gone),
    (
        SELECT bool_and(
            page.created_at >= statement_timestamp() - %(older_s)s::float8 * interval '1 second'
        )
        FROM page
    )
WHERE EXISTS (SELECT 1 FROM page)
