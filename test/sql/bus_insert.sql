-- An event goes straight into its partition; what a statement on the log would have done is done all the same.
SET client_min_messages = warning;
DROP EXTENSION IF EXISTS meal_planner CASCADE;
CREATE EXTENSION meal_planner;
RESET client_min_messages;
\set SHOW_CONTEXT never
CREATE TABLE seen (account text, n int, type text, stream text, version bigint);
CREATE FUNCTION on_seen(e meal_planner.event) RETURNS void LANGUAGE sql AS
$$ INSERT INTO seen VALUES (e.account, (e.detail ->> 'n')::int, e.detail_type, e.stream, e.version) $$;
SELECT mp_subscribe('seen', '{"detail-type": ["Seen"]}', 'on_seen(meal_planner.event)');
SELECT mp_emit_event('Seen', '{"n": 1}', stream => 's') IS NOT NULL AS emitted;
SELECT partition, lower, upper FROM meal_planner.event_partition \gset
SELECT count(*) AS in_partition FROM :partition;

-- A partition whose columns stand in another order, one of them dropped, as a restore may bring it.
BEGIN;
ALTER TABLE meal_planner.event DETACH PARTITION :partition;
CREATE TABLE other (hops smallint NOT NULL, detail jsonb NOT NULL, gone int, version bigint, stream text, id uuid NOT NULL,
                    "time" timestamptz NOT NULL, resources text[] NOT NULL, region text NOT NULL, source text NOT NULL,
                    detail_type text NOT NULL, idempotency_key text, deliver_after timestamptz,
                    position bigint NOT NULL, account text NOT NULL, PRIMARY KEY (account, position));
ALTER TABLE other DROP COLUMN gone;
ALTER TABLE meal_planner.event ATTACH PARTITION other FOR VALUES FROM (:lower) TO (:upper);
SELECT mp_emit_event('Seen', '{"n": 2}', 'here', '{a,b}', 'mine', stream => 's', idempotency_key => 'k') IS NOT NULL AS emitted;
SELECT account, source, detail_type, detail, resources, stream, version, idempotency_key, hops, deliver_after FROM other;
-- The name of the table that was there before is another's now.
ALTER TABLE other RENAME TO another;
CREATE TABLE other (LIKE another);
SELECT mp_emit_event('Seen', '{"n": 3}', account => 'mine', stream => 's') IS NOT NULL AS emitted;
SELECT (SELECT count(*) FROM other) AS other, (SELECT count(*) FROM another) AS another;
SELECT * FROM seen ORDER BY n;
ROLLBACK;
SELECT mp_emit_event('Seen', '{"n": 4}') IS NOT NULL AS emitted;
SELECT array_agg((detail ->> 'n')::int ORDER BY position) AS in_partition FROM :partition;
SELECT * FROM seen ORDER BY n;

-- A column that somebody has added has its default.
ALTER TABLE meal_planner.event ADD COLUMN shard int DEFAULT 7;
SELECT mp_emit_event('Seen', '{"n": 5}') IS NOT NULL AS emitted;
SELECT shard, count(*) FROM meal_planner.event WHERE detail ->> 'n' = '5' GROUP BY shard;
ALTER TABLE meal_planner.event DROP COLUMN shard;
SELECT mp_emit_event('Seen', '{"n": 6}') IS NOT NULL AS emitted;

-- Constraints, and unique indexes.
\set VERBOSITY sqlstate
ALTER TABLE meal_planner.event ADD CONSTRAINT no_seven CHECK (detail ->> 'n' <> '7');
SELECT mp_emit_event('Seen', '{"n": 7}');
CREATE UNIQUE INDEX once ON :partition ((detail ->> 'n'));
SELECT mp_emit_event('Seen', '{"n": 6}');
SELECT mp_emit_event('Seen', '{"n": 8}') IS NOT NULL AS emitted;
SET enable_seqscan = off;
SELECT count(*) AS by_index FROM :partition WHERE detail ->> 'n' = '8';
RESET enable_seqscan;
DROP INDEX meal_planner.once;
ALTER TABLE meal_planner.event DROP CONSTRAINT no_seven;

-- Triggers of others: of the row, before and after, and of the statement.
CREATE TABLE fired (what text, n text);
CREATE FUNCTION fire() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF tg_level = 'ROW' THEN
        INSERT INTO fired VALUES (tg_when || ' row', new.detail ->> 'n');
        new.region := 'changed';
        RETURN new;
    END IF;
    INSERT INTO fired VALUES (tg_when || ' statement');
    RETURN NULL;
END $$;
CREATE TRIGGER a AFTER INSERT ON meal_planner.event FOR EACH ROW EXECUTE FUNCTION fire();
SELECT mp_emit_event('Seen', '{"n": 9}') IS NOT NULL AS emitted;
CREATE TRIGGER b BEFORE INSERT ON meal_planner.event FOR EACH ROW EXECUTE FUNCTION fire();
SELECT mp_emit_event('Seen', '{"n": 10}') IS NOT NULL AS emitted;
CREATE TRIGGER s AFTER INSERT ON meal_planner.event FOR EACH STATEMENT EXECUTE FUNCTION fire();
SELECT mp_emit_event('Seen', '{"n": 11}') IS NOT NULL AS emitted;
SELECT * FROM fired ORDER BY n::int NULLS LAST, what;
SELECT detail -> 'n' AS n, region FROM meal_planner.event WHERE (detail ->> 'n')::int >= 9 ORDER BY position;
DROP TRIGGER a ON meal_planner.event;
DROP TRIGGER b ON meal_planner.event;
DROP TRIGGER s ON meal_planner.event;
CREATE RULE r AS ON INSERT TO meal_planner.event DO ALSO INSERT INTO fired VALUES ('rule', 'x');
TRUNCATE fired;
SELECT mp_emit_event('Seen', '{"n": 12}') IS NOT NULL AS emitted;
SELECT what FROM fired;
DROP RULE r ON meal_planner.event;

-- A deferred one fires at the end.
CREATE CONSTRAINT TRIGGER d AFTER INSERT ON :partition DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION fire();
TRUNCATE fired;
BEGIN;
SELECT mp_emit_event('Seen', '{"n": 13}') IS NOT NULL AS emitted;
SELECT count(*) AS before_the_end FROM fired;
COMMIT;
SELECT * FROM fired;
DROP TRIGGER d ON :partition;

-- Rights: the owner of the log may take his own away.
CREATE ROLE regress_log_owner;
SELECT rolname AS owner FROM pg_roles WHERE oid = (SELECT relowner FROM pg_class WHERE oid = 'meal_planner.event'::regclass) \gset
ALTER FUNCTION mp_emit_event OWNER TO regress_log_owner;
GRANT USAGE ON SCHEMA meal_planner TO regress_log_owner;
SELECT mp_emit_event('Seen', '{"n": 14}');
GRANT SELECT ON meal_planner.subscription, meal_planner.event_partition TO regress_log_owner;
GRANT INSERT ON meal_planner.event TO regress_log_owner;
SELECT mp_emit_event('Quiet', '{"n": 15}') IS NOT NULL AS emitted;
REVOKE INSERT ON meal_planner.event FROM regress_log_owner;
SELECT mp_emit_event('Quiet', '{"n": 16}');
ALTER FUNCTION mp_emit_event OWNER TO :owner;
DROP OWNED BY regress_log_owner;
DROP ROLE regress_log_owner;

-- Not in a read-only transaction.
BEGIN READ ONLY;
SELECT mp_emit_event('Seen', '{"n": 17}');
ROLLBACK;

-- What an emit leaves in a subtransaction goes with it.
BEGIN;
SAVEPOINT a;
SELECT mp_emit_event('Seen', '{"n": 18}') IS NOT NULL AS emitted;
ROLLBACK TO a;
SELECT mp_emit_event('Seen', '{"n": 19}') IS NOT NULL AS emitted;
COMMIT;
SELECT array_agg((detail ->> 'n')::int ORDER BY position) AS events FROM meal_planner.event;
SELECT array_agg(n ORDER BY n) AS seen FROM seen;

-- A detail of 2 KB stays in its row as it is.
SELECT mp_emit_event('Large', jsonb_build_object('text', string_agg(md5(n::text), '')), account => 'large') IS NOT NULL AS emitted
  FROM generate_series(1, 80) n;
SELECT pg_column_size(detail) > 2560 AS not_compressed, pg_relation_size(c.reltoastrelid) AS moved_out
  FROM meal_planner.event e JOIN pg_class c ON c.oid = e.tableoid WHERE e.account = 'large';

SELECT mp_unsubscribe('seen');
DROP FUNCTION on_seen;
DROP TABLE seen, fired;
DROP FUNCTION fire;
