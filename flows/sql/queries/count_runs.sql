-- Count the runs of one shard that a filter lets through.
-- Locks:  nothing.
-- Index:  that of the status, where few runs have it; or the primary key, all of the shard.
SELECT count(*)
FROM flows.runs
WHERE workflow_name_shard = %(shard)s
  AND run_id BETWEEN %(least)s::uuid AND %(greatest)s::uuid
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
