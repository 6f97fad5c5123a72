-- Semantic locks: a saga holds names such as meal_plan:17, all from its start
-- until it has ended.  Another saga that wants one of them waits, and so do
-- events that have such a name as their order key, of whatever subscription.
--
-- A saga takes its names in the order of their bytes and waits for the first
-- that it does not get, so that none wait for each other.  The end of a saga
-- marks its rows; a sweep lets those go on who have waited.  It does so in a
-- transaction that holds nothing else, for it takes locks of others.

CREATE TABLE meal_planner.saga_lock (
    account text   NOT NULL,
    name    text   NOT NULL,
    saga_id uuid   NOT NULL,
    state   text   NOT NULL CHECK (state IN ('held', 'waiting', 'released', 'passed')),
    since   bigint NOT NULL,
    PRIMARY KEY (account, name, saga_id)
);
COMMENT ON TABLE meal_planner.saga_lock IS
'names that sagas hold or wait for; released: the saga has ended, and a sweep is to see which saga has waited; passed: that is done, and events that have waited are to go on';
COMMENT ON COLUMN meal_planner.saga_lock.since IS 'when it was asked for: events after this position wait';
CREATE UNIQUE INDEX saga_lock_held ON meal_planner.saga_lock (account, name) WHERE state = 'held';
CREATE INDEX saga_lock_released ON meal_planner.saga_lock (account, name) WHERE state = 'released';
CREATE INDEX saga_lock_passed ON meal_planner.saga_lock (account, name) WHERE state = 'passed';
CREATE INDEX saga_lock_saga ON meal_planner.saga_lock (account, saga_id);
SELECT pg_extension_config_dump('meal_planner.saga_lock', '');

CREATE FUNCTION meal_planner.try_saga_name_lock(account text, name text) RETURNS boolean
LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'mp_sql_try_saga_name_lock';
COMMENT ON FUNCTION meal_planner.try_saga_name_lock(text, text) IS
'the lock of a name that sagas can hold, to the end of the transaction: who has it decides who gets the name; false when somebody else is deciding';

CREATE FUNCTION meal_planner.pass_saga_name(account text, name text) RETURNS boolean
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
SET enable_bitmapscan = off SET enable_seqscan = off SET jit = off -- by the index
AS $$
#variable_conflict use_column
DECLARE
    next   uuid;
    wanted text;
BEGIN
    IF EXISTS (SELECT FROM meal_planner.saga_lock k WHERE k.account = $1 AND k.name = $2 AND k.state = 'held') THEN
        RETURN true;
    END IF;
    SELECT k.saga_id INTO next
      FROM meal_planner.saga_lock k
     WHERE k.account = $1 AND k.name = $2 AND k.state = 'waiting'
       AND NOT EXISTS (SELECT FROM meal_planner.saga_lock o
                        WHERE o.account = $1 AND o.saga_id = k.saga_id AND o.state <> 'held'
                          AND o.name COLLATE "C" < k.name COLLATE "C")
     ORDER BY k.since
     LIMIT 1;
    IF NOT FOUND THEN
        RETURN true;
    END IF;
    -- All that it may get with this name is decided here, or nothing is.
    PERFORM FROM meal_planner.saga s WHERE s.account = $1 AND s.id = next FOR UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    FOR wanted IN
        SELECT k.name FROM meal_planner.saga_lock k
         WHERE k.account = $1 AND k.saga_id = next AND k.state = 'waiting' AND k.name <> $2
    LOOP
        IF NOT meal_planner.try_saga_name_lock($1, wanted) THEN
            RETURN false;
        END IF;
    END LOOP;
    FOR wanted IN
        SELECT k.name FROM meal_planner.saga_lock k
         WHERE k.account = $1 AND k.saga_id = next AND k.state = 'waiting'
         ORDER BY k.name COLLATE "C"
    LOOP
        IF EXISTS (SELECT FROM meal_planner.saga_lock k
                    WHERE k.account = $1 AND k.name = wanted AND k.state = 'held') THEN
            RETURN true;
        END IF;
        UPDATE meal_planner.saga_lock k SET state = 'held'
         WHERE k.account = $1 AND k.name = wanted AND k.saga_id = next AND k.state = 'waiting';
    END LOOP;
    UPDATE meal_planner.saga s SET blocked = false, due_at = meal_planner.clock()
     WHERE s.account = $1 AND s.id = next AND s.ended_at IS NULL;
    RETURN true;
END
$$;
COMMENT ON FUNCTION meal_planner.pass_saga_name(text, text) IS
'gives a name that nobody holds to the saga that has waited longest, and with it what else that waits for as far as it is free; under try_saga_name_lock. False: it could not be decided now';

CREATE FUNCTION meal_planner.release_saga_locks() RETURNS boolean
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
SET enable_sort = off SET enable_bitmapscan = off SET enable_seqscan = off SET jit = off -- by the index
AS $$
DECLARE
    gone    meal_planner.saga_lock;
    source  text := '';
    queue   text;
    names   text[];
    sagas   uuid[];
    settled boolean;
    passed  int := 0;
    moved   boolean := false;
BEGIN
    -- A hundred of those about which nobody else is deciding; what cannot be
    -- decided is tried again at the next look.
    FOR gone IN
        SELECT * FROM meal_planner.saga_lock k
         WHERE k.state = 'released' AND meal_planner.try_saga_name_lock(k.account, k.name)
         ORDER BY k.account, k.name LIMIT 100 FOR UPDATE SKIP LOCKED
    LOOP
        CONTINUE WHEN NOT meal_planner.pass_saga_name(gone.account, gone.name);
        UPDATE meal_planner.saga_lock k SET state = 'passed'
         WHERE k.account = gone.account AND k.name = gone.name AND k.saga_id = gone.saga_id;
        moved := true;
    END LOOP;
    -- Apart from that, and account by account, since whoever has an order lock and
    -- takes its time holds up the events of many names, but no saga, nor the events
    -- of another account.
    WHILE passed < 100 LOOP
        SELECT k.account INTO source FROM meal_planner.saga_lock k
         WHERE k.state = 'passed' AND k.account > source ORDER BY k.account LIMIT 1;
        EXIT WHEN NOT FOUND;
        SELECT array_agg(p.name), array_agg(p.saga_id) INTO names, sagas
          FROM (SELECT k.name, k.saga_id FROM meal_planner.saga_lock k
                 WHERE k.account = source AND k.state = 'passed'
                 ORDER BY k.account, k.name LIMIT 100 FOR UPDATE SKIP LOCKED) p;
        CONTINUE WHEN names IS NULL; -- another sweep is at it
        settled := true;
        FOR queue IN SELECT s.name FROM meal_planner.subscription s WHERE s.options ? 'order_key' LOOP
            IF meal_planner.try_order_lock(source, queue) THEN
                PERFORM meal_planner.release_keys(source, queue, names);
            ELSE
                settled := false;
            END IF;
        END LOOP;
        IF settled THEN
            DELETE FROM meal_planner.saga_lock k
             USING unnest(names, sagas) u (name, saga_id)
             WHERE k.account = source AND k.name = u.name AND k.saga_id = u.saga_id;
            passed := passed + cardinality(names);
        END IF;
    END LOOP;
    RETURN moved OR passed > 0;
END
$$;
COMMENT ON FUNCTION meal_planner.release_saga_locks() IS
'lets sagas and events go on that have waited for names which sagas held that have ended, of about a hundred names; false: there were none';
