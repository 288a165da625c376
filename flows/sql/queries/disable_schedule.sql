-- Stop firing a schedule: the text says why, none where a person wants it so.
-- Locks:  its row.
-- Index:  the primary key.
UPDATE flows.schedules
SET
    enabled = false,
    error_text = %(error_text)s,
    updated_at = clock.now
FROM (SELECT coalesce(%(now)s::timestamptz, statement_timestamp()) AS now) AS clock
WHERE schedule_id = %(schedule_id)s
RETURNING true
