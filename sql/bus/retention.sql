-- Retention drops whole partitions of the log.  Nothing is deleted row by row,
-- so that the log does not bloat.  A partition goes when everybody has passed
-- it and nothing live points into it.  Events of dead letters that wait for
-- somebody stay: they are copied to a small partition of the same bounds, which
-- takes the place of the large one.

CREATE TABLE meal_planner.retention (
    scope text   NOT NULL PRIMARY KEY CHECK (scope IN ('event', 'history', 'saga')),
    days  float8 NOT NULL CHECK (days > 0)
);
COMMENT ON TABLE meal_planner.retention IS
'how many days something is kept; no row: events for ever, history for 90, sagas that have ended for 30; change it with mp_set_retention';
SELECT pg_extension_config_dump('meal_planner.retention', '');

CREATE FUNCTION @extschema@.mp_set_retention(days float8, scope text DEFAULT 'event') RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
BEGIN
    IF $2 NOT IN ('event', 'history', 'saga') THEN
        RAISE EXCEPTION 'MP400: scope must be event, history or saga'
            USING ERRCODE = 'MP400', HINT = 'retry=no. Correct the argument.';
    END IF;
    IF NOT ($1 > 0 AND $1 <= 36500) THEN
        RAISE EXCEPTION 'MP400: days must be above 0 and at most 36500'
            USING ERRCODE = 'MP400', HINT = 'retry=no. Give NULL for the default.';
    END IF;
    DELETE FROM meal_planner.retention r WHERE $1 IS NULL AND r.scope = coalesce($2, 'event');
    INSERT INTO meal_planner.retention AS r (scope, days)
    SELECT coalesce($2, 'event'), $1 WHERE $1 IS NOT NULL
    ON CONFLICT (scope) DO UPDATE SET days = excluded.days;
END
$$;
COMMENT ON FUNCTION @extschema@.mp_set_retention(float8, text) IS
'keeps events for that many days (a fraction is a part of a day), NULL for ever, which is the default. The sweep then drops partitions of the log whose last moment is older, once every worker and pull subscription has passed them and no delivery waits for one of their events; events of dead letters that wait for somebody are kept.
scope history: what was settled longer ago is removed: dead letters that are resolved or discarded, with their attempts and alerts, alerts of pauses, changes of circuit breakers, and redrives that have ended; NULL for 90, which is the default.
scope saga: sagas that ended longer ago are removed, with their logs; NULL for 30, which is the default. MP400';

CREATE FUNCTION meal_planner.partition_holder(partition regclass) RETURNS text
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET enable_sort = off SET enable_bitmapscan = off SET enable_seqscan = off SET jit = off -- in the order of the index
AS $$
DECLARE
    low    bigint;
    high   bigint;
    holder text;
    reach  record;
BEGIN
    SELECT p.lower, p.upper INTO low, high FROM meal_planner.event_partition p WHERE p.partition = $1;
    IF NOT FOUND THEN
        RETURN 'it is not a partition of the log';
    END IF;

    -- First who may still append there: what they have done is in the snapshots below.
    SELECT format('transaction of process %s', f.pid) INTO holder
      FROM meal_planner.in_flight() f WHERE f.bound < high LIMIT 1;
    IF FOUND THEN
        RETURN holder;
    END IF;

    SELECT format('delivery of subscription "%s" in account "%s"', d.subscription, d.account) INTO holder
      FROM meal_planner.delivery d WHERE d.position >= low AND d.position < high LIMIT 1;
    IF FOUND THEN
        RETURN holder;
    END IF;
    SELECT format('worker of subscription "%s" in account "%s"', b.subscription, b.account) INTO holder
      FROM meal_planner.worker_batch b WHERE b.up_to >= low AND b.after_position < high LIMIT 1;
    IF FOUND THEN
        RETURN holder;
    END IF;
    SELECT format('replay of subscription "%s" in account "%s"', r.subscription, r.account) INTO holder
      FROM meal_planner.replay r
     WHERE r.up_to >= low
       AND (SELECT max(c.position) FROM meal_planner.replay_cursor c
             WHERE c.account = r.account AND c.subscription = r.subscription AND c.replay = r.id) < high - 1
     LIMIT 1;
    IF FOUND THEN
        RETURN holder;
    END IF;
    SELECT format('claim of subscription "%s" in account "%s"', c.subscription, c.account) INTO holder
      FROM meal_planner.consumer_claim c WHERE c.up_to >= low AND c.after_position < high LIMIT 1;
    IF FOUND THEN
        RETURN holder;
    END IF;

    -- How far each account goes in it, by two index probes each.
    FOR reach IN EXECUTE format(
        'WITH RECURSIVE known (account) AS (
             SELECT (SELECT e.account FROM %1$s e ORDER BY e.account LIMIT 1)
             UNION ALL
             SELECT (SELECT e.account FROM %1$s e WHERE e.account > k.account ORDER BY e.account LIMIT 1)
               FROM known k
              WHERE k.account IS NOT NULL)
         SELECT k.account,
                (SELECT e.position FROM %1$s e WHERE e.account = k.account
                  ORDER BY e.account DESC, e.position DESC LIMIT 1) AS last
           FROM known k
          WHERE k.account IS NOT NULL', $1)
    LOOP
        SELECT format('subscription "%s" in account "%s"', s.name, reach.account) INTO holder
          FROM meal_planner.subscription s
         WHERE s.mode IN ('worker', 'pull')
           AND s.start_position < reach.last
           AND coalesce(meal_planner.cursor_position(reach.account, s.name), 0) < reach.last
         LIMIT 1;
        IF FOUND THEN
            RETURN holder;
        END IF;
    END LOOP;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION meal_planner.partition_holder(regclass) IS
'who still needs a partition of the log, dead letters aside; NULL: nobody. A paused subscription needs it too, one that starts after it does not';

CREATE FUNCTION meal_planner.drop_partition(partition regclass) RETURNS boolean
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '100ms' -- whoever comes after us waits as long
AS $$
DECLARE
    name    text := (SELECT c.relname FROM pg_class c WHERE c.oid = $1);
    kept    text := name || '_kept';
    low     bigint;
    high    bigint;
    letters text;
    keep    boolean;
    useless boolean;
    missed  boolean;
BEGIN
    -- Conflicts with itself and with the making of partitions, not with
    -- emitters or readers: all that takes long is done under it.
    LOCK TABLE ONLY meal_planner.event IN SHARE UPDATE EXCLUSIVE MODE;
    IF meal_planner.partition_holder($1) IS NOT NULL THEN
        RETURN false;
    END IF;
    SELECT p.lower, p.upper INTO low, high FROM meal_planner.event_partition p WHERE p.partition = $1;
    letters := format('SELECT l.account, l.position FROM meal_planner.dead_letter l
                        WHERE l.status IN (''dead'', ''replaying'') AND l.position >= %s AND l.position < %s', low, high);
    EXECUTE format('SELECT EXISTS (SELECT FROM (%s) l JOIN %s e USING (account, position))', letters, $1) INTO keep;
    IF keep THEN
        EXECUTE format('SELECT EXISTS (SELECT FROM %s e WHERE (e.account, e.position) NOT IN (%s))', $1, letters)
           INTO useless;
        IF NOT useless THEN
            RETURN false;
        END IF;
    END IF;
    -- Not even begun while somebody sits on the log: what it writes would only
    -- be rolled back, sweep after sweep.
    BEGIN
        LOCK TABLE ONLY meal_planner.event IN ACCESS EXCLUSIVE MODE;
        RAISE SQLSTATE 'MP000';
    EXCEPTION
        WHEN SQLSTATE 'MP000' THEN NULL; -- it could be had, and is free again
    END;
    IF keep THEN
        EXECUTE format('CREATE TABLE meal_planner.%I (LIKE meal_planner.event INCLUDING ALL) WITH (toast_tuple_target = 4080)',
                       kept);
        EXECUTE format('INSERT INTO meal_planner.%I SELECT e.* FROM %s e
                         WHERE (e.account, e.position) IN (%s)', kept, $1, letters);
        EXECUTE format('ALTER TABLE meal_planner.%I ADD CONSTRAINT %I PRIMARY KEY (account, position)',
                       kept, kept || '_pkey');
        EXECUTE format('CREATE UNIQUE INDEX %I ON meal_planner.%I (account, stream, version) WHERE stream IS NOT NULL',
                       kept || '_stream', kept);
    END IF;

    -- Streams that end here go on from where they were.  A writer locks the row
    -- and then reads the log: it finds the one or the other.
    EXECUTE format('WITH ends AS MATERIALIZED (
                        SELECT e.account, e.stream, max(e.version) AS version
                          FROM %s e WHERE e.stream IS NOT NULL GROUP BY e.account, e.stream)
                    UPDATE meal_planner.stream s
                       SET dropped_version = x.version
                      FROM ends x
                     WHERE s.account = x.account AND s.stream = x.stream AND s.dropped_version < x.version
                       AND NOT EXISTS (SELECT FROM meal_planner.event e
                                        WHERE e.account = x.account AND e.stream = x.stream
                                          AND e.stream IS NOT NULL AND e.version > x.version)', $1);

    -- Who has read or written the log has ended once this lock is held, and
    -- nobody begins: what points into the partition is seen by now.
    LOCK TABLE ONLY meal_planner.event IN ACCESS EXCLUSIVE MODE;
    EXECUTE format('SELECT EXISTS (SELECT FROM (%s) l JOIN %s e USING (account, position) %s)', letters, $1,
                   CASE WHEN keep THEN format('WHERE (account, position) NOT IN
                                               (SELECT k.account, k.position FROM meal_planner.%I k)', kept) END)
       INTO missed;
    IF missed OR meal_planner.partition_holder($1) IS NOT NULL THEN
        RAISE object_in_use;
    END IF;
    IF keep THEN
        EXECUTE format('ALTER TABLE meal_planner.event DETACH PARTITION %s', $1);
        EXECUTE format('ALTER TABLE meal_planner.event ATTACH PARTITION meal_planner.%I FOR VALUES FROM (%s) TO (%s)',
                       kept, low, high);
    END IF;
    EXECUTE format('DROP TABLE %s', $1);
    IF keep THEN
        EXECUTE format('ALTER TABLE meal_planner.%I RENAME TO %I', kept, name);
        EXECUTE format('ALTER INDEX meal_planner.%I RENAME TO %I', kept || '_pkey', name || '_pkey');
        EXECUTE format('ALTER INDEX meal_planner.%I RENAME TO %I', kept || '_stream', name || '_stream');
    END IF;
    RETURN true;
EXCEPTION
    -- Somebody is at the log, or came to need the partition: another time.
    WHEN lock_not_available OR object_in_use OR deadlock_detected THEN
        RETURN false;
    -- Retention must not keep the sweep from its other work.
    WHEN OTHERS THEN
        RAISE WARNING 'could not drop partition %: %', name, SQLERRM;
        RETURN false;
END
$$;
COMMENT ON FUNCTION meal_planner.drop_partition(regclass) IS
'drops a partition of the log that nobody needs, but for events of dead letters that wait for somebody; false when it could not, or when there is nothing to gain';

CREATE FUNCTION meal_planner.sweep_retain() RETURNS boolean
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    kept_from bigint;
    due       regclass;
BEGIN
    SELECT meal_planner.position_at(meal_planner.clock() - make_interval(secs => r.days * 86400)) INTO kept_from
      FROM meal_planner.retention r WHERE r.scope = 'event';
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    PERFORM meal_planner.read_committed_only();
    FOR due IN SELECT p.partition FROM meal_planner.event_partition p WHERE p.upper <= kept_from ORDER BY p.lower LOOP
        IF meal_planner.drop_partition(due) THEN
            RETURN true;
        END IF;
    END LOOP;
    RETURN false;
END
$$;
COMMENT ON FUNCTION meal_planner.sweep_retain() IS
'drops one partition of the log that is older than events are kept; false when there is none that can go';

CREATE VIEW @extschema@.mp_partitions AS
SELECT p.partition, meal_planner.position_time(p.lower) AS from_time, meal_planner.position_time(p.upper) AS to_time,
       pg_total_relation_size(p.partition) AS bytes, due.is_due AS due,
       CASE WHEN due.is_due THEN coalesce(meal_planner.partition_holder(p.partition),
                                          CASE WHEN letters.are_there THEN 'dead letters' END) END AS held_by
  FROM meal_planner.event_partition p
  LEFT JOIN meal_planner.retention r ON r.scope = 'event'
 CROSS JOIN LATERAL (
       SELECT coalesce(p.upper <= meal_planner.position_at(
                           meal_planner.clock() - make_interval(secs => r.days * 86400)), false) AS is_due) due
 CROSS JOIN LATERAL (
       SELECT EXISTS (SELECT FROM meal_planner.dead_letter l
                       WHERE l.status IN ('dead', 'replaying') AND l.position >= p.lower AND l.position < p.upper)
              AS are_there) letters;
COMMENT ON VIEW @extschema@.mp_partitions IS
'partitions of the log; due: older than mp_set_retention keeps them; held_by: what keeps the sweep from dropping a due one';
