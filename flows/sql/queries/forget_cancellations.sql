-- Forget that some runs of one shard were asked to be cancelled; they are tried again.
-- Locks:  the requests.
-- Index:  the primary key.
DELETE FROM flows.cancellations
WHERE workflow_name_shard = %(shard)s
  AND run_id = ANY(ARRAY(SELECT unnest(%(run_ids)s::uuid[])))
