-- Count the schedules that could not be fired.
-- Locks:  nothing.
-- Index:  none: there are few.
SELECT count(*)
FROM flows.schedules
WHERE error_text IS NOT NULL
