-- Move the ends of the sleeps of one shard's runs back in time, with the runs. For tests.
-- Locks:  the waits.
-- Index:  the primary key.
UPDATE flows.waits AS w
SET wake_at = (
    w.wake_at AT TIME ZONE 'UTC' - %(by_s)s::float8 * interval '1 second'
) AT TIME ZONE 'UTC'
WHERE w.workflow_name_shard = %(shard)s
  AND w.wake_at IS NOT NULL
