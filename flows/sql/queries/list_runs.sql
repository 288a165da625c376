-- Read a page of the runs of one shard that a filter lets through, the last begun first.
-- Locks:  nothing.
-- Index:  the primary key, from its end; or that of the status, where few runs have it.
SELECT
    run_id, workflow_name, status, attempts, crashes, priority, created_at, updated_at, finished_at,
    coalesce(tags, '{}') AS tags,
    left(split_part(error_text, E'\n', 1), 1000) AS error
FROM flows.runs
WHERE workflow_name_shard = %(shard)s
  AND run_id BETWEEN %(least)s::uuid AND %(greatest)s::uuid
  AND run_id IS DISTINCT FROM %(excluded)s::uuid
  AND (%(statuses)s::text[] IS NULL OR status = ANY(%(statuses)s::text[]))
  AND (NOT %(is_held)s::boolean OR worker_id IS NOT NULL)
  AND (
      %(older_s)s::float8 IS NULL
      OR created_at <= statement_timestamp() - %(older_s)s::float8 * interval '1 second'
  )
  AND (
      %(newer_s)s::float8 IS NULL
      OR created_at >= statement_timestamp() - %(newer_s)s::float8 * interval '1 second'
  )
  AND (%(tags)s::text[] IS NULL OR tags @> %(tags)s::text[])
  AND (
      %(error)s::text IS NULL
      OR strpos(lower(error_text), lower(%(error)s::text)) > 0
  )
ORDER BY run_id DESC
LIMIT %(limit)s
