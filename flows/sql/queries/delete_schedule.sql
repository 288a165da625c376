-- Remove a schedule; its runs stay.
-- Locks:  its row.
-- Index:  the primary key.
DELETE FROM flows.schedules WHERE schedule_id = %(schedule_id)s RETURNING true
