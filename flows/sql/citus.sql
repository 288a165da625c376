-- Distribute the tables over the nodes of a Citus cluster, once the migrations are applied. What is
-- distributed already is left alone, so this may be run again after every migration.
--
-- The tables of runs go by shard, each shard's rows of all of them on one node. The others are whole
-- on one node, so that a row which another session holds is skipped there as on plain Postgres:
-- reference tables would make every writer wait. Rows that were there before move to the nodes.

DO $distribute$
DECLARE
    runs      text       := 'flows.runs'::regclass;
    schedules text       := 'flows.schedules'::regclass;
    moved     regclass[] := '{}';
    one       regclass;
BEGIN
    IF NOT EXISTS (SELECT FROM pg_extension WHERE extname = 'citus') THEN
        RAISE EXCEPTION 'this database has no Citus'
            USING HINT = 'Run CREATE EXTENSION citus, and add the worker nodes.';
    END IF;
    FOREACH one IN ARRAY ARRAY[
        'flows.runs'::regclass, 'flows.steps'::regclass, 'flows.waits'::regclass,
        'flows.events'::regclass, 'flows.random'::regclass, 'flows.crashes'::regclass,
        'flows.cancellations'::regclass
    ] LOOP
        IF NOT EXISTS (SELECT FROM pg_dist_partition WHERE logicalrelid = one) THEN
            PERFORM create_distributed_table(
                one, 'workflow_name_shard',
                colocate_with => CASE WHEN one::text = runs THEN 'none' ELSE runs END
            );
            moved := moved || one;
        END IF;
    END LOOP;
    FOREACH one IN ARRAY ARRAY[
        'flows.schedules'::regclass, 'flows.workers'::regclass, 'flows.migrations'::regclass
    ] LOOP
        IF NOT EXISTS (SELECT FROM pg_dist_partition WHERE logicalrelid = one) THEN
            PERFORM create_distributed_table(
                one, NULL,
                colocate_with => CASE WHEN one::text = schedules THEN 'none' ELSE schedules END
            );
            moved := moved || one;
        END IF;
    END LOOP;
    -- The copies that were left behind, which nothing reads any more.
    FOREACH one IN ARRAY moved LOOP
        PERFORM truncate_local_data_after_distributing_table(one);
    END LOOP;
END
$distribute$;
