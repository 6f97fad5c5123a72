-- Order per key: of the events of one (account, subscription, order_key) the
-- first that is live runs, and the others wait for it.  Live are a delivery and
-- a dead letter with an order key, which blocks it until it is replayed or
-- discarded; a saga that holds the key (saga_lock.sql) keeps back what comes
-- after its start.  A delivery that waits for another of its key is blocked:
-- next_attempt_at = infinity.
--
-- Blocking and releasing hold the order lock.  Parking (an event that meets a
-- busy key becomes a delivery) does not, and leaves the delivery due: who claims
-- a delivery that has a key has to ask, under the lock and in a statement of
-- its own, whether it may run.

CREATE FUNCTION meal_planner.order_lock(account text, subscription text) RETURNS void
LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'mp_sql_order_lock';
COMMENT ON FUNCTION meal_planner.order_lock(text, text) IS
'the order lock of a subscription in an account, to the end of the transaction; look again after taking it';

CREATE FUNCTION meal_planner.try_order_lock(account text, subscription text) RETURNS boolean
LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'mp_sql_try_order_lock';
COMMENT ON FUNCTION meal_planner.try_order_lock(text, text) IS 'order_lock unless somebody else has it: then false';

CREATE FUNCTION meal_planner.order_key(path text, e meal_planner.event) RETURNS text
LANGUAGE c IMMUTABLE PARALLEL SAFE
AS 'MODULE_PATHNAME', 'mp_sql_order_key';
COMMENT ON FUNCTION meal_planner.order_key(text, meal_planner.event) IS
'the value of an order_key (a path such as detail.recipe_id) in an event; NULL: it has no order';

CREATE FUNCTION meal_planner.key_heads(account text, subscription text, keys text[])
RETURNS TABLE (order_key text, "position" bigint)
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT h.order_key, h.position
      FROM (SELECT k.order_key,
                   least((SELECT d.position FROM meal_planner.delivery d
                           WHERE d.account = $1 AND d.subscription = $2 AND d.order_key = k.order_key
                           ORDER BY d.account, d.subscription, d.order_key, d.position LIMIT 1),
                         (SELECT l.position FROM meal_planner.dead_letter l
                           WHERE l.account = $1 AND l.subscription = $2 AND l.order_key = k.order_key
                             AND l.status IN ('dead', 'replaying')
                           ORDER BY l.account, l.subscription, l.order_key, l.position LIMIT 1),
                         (SELECT min(s.since) FROM meal_planner.saga_lock s
                           WHERE s.account = $1 AND s.name = k.order_key AND s.state IN ('held', 'waiting'))) AS position
              FROM (SELECT DISTINCT u.order_key FROM unnest($3) u (order_key)) k) h
     WHERE h.position IS NOT NULL
$$;
COMMENT ON FUNCTION meal_planner.key_heads(text, text, text[]) IS
'which of these keys have a live delivery, a dead letter that blocks or a saga that holds them or waits to, and the first position of each';

CREATE FUNCTION meal_planner.busy_keys(account text, subscription text, keys text[]) RETURNS SETOF text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$ SELECT h.order_key FROM meal_planner.key_heads($1, $2, $3) h $$;
COMMENT ON FUNCTION meal_planner.busy_keys(text, text, text[]) IS
'which of these keys have a live delivery, a dead letter that blocks or a saga that holds them or waits to';

CREATE FUNCTION meal_planner.must_wait(account text, subscription text, order_key text, "position" bigint)
RETURNS boolean
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT EXISTS (SELECT FROM meal_planner.delivery d
                    WHERE d.account = $1 AND d.subscription = $2 AND d.order_key = $3
                      AND d.position < $4)
        -- one that runs although it is later: this one was not there yet
        OR EXISTS (SELECT FROM meal_planner.delivery d
                    WHERE d.account = $1 AND d.subscription = $2 AND d.order_key = $3
                      AND d.token IS NOT NULL AND d.position <> $4)
        OR EXISTS (SELECT FROM meal_planner.dead_letter l
                    WHERE l.account = $1 AND l.subscription = $2 AND l.order_key = $3
                      AND l.status IN ('dead', 'replaying') AND l.position < $4)
        OR EXISTS (SELECT FROM meal_planner.saga_lock s
                    WHERE s.account = $1 AND s.name = $3 AND s.state IN ('held', 'waiting') AND s.since < $4)
$$;
COMMENT ON FUNCTION meal_planner.must_wait(text, text, text, bigint) IS
'whether a delivery with an order key has to wait for another of its key; ask under order_lock';

CREATE FUNCTION meal_planner.block_delivery(account text, subscription text, order_key text, "position" bigint)
RETURNS boolean
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
SET enable_sort = off SET enable_bitmapscan = off SET enable_seqscan = off SET jit = off -- in the order of the key's index
AS $$
#variable_conflict use_column
DECLARE
    due     bigint;
    blocked boolean := false;
BEGIN
    -- And with it those of its key behind it that are due as well, so that a
    -- long queue is not looked at one by one.  Row by row by their key: a join
    -- would depend on statistics.
    FOR due IN
        SELECT d.position FROM meal_planner.delivery d
         WHERE d.account = $1 AND d.subscription = $2 AND d.order_key = $3 AND d.position >= $4
           AND d.token IS NULL AND d.next_attempt_at <= meal_planner.clock()
         ORDER BY d.account, d.subscription, d.order_key, d.position
         LIMIT 1000
           FOR UPDATE SKIP LOCKED
    LOOP
        UPDATE meal_planner.delivery u
           SET next_attempt_at = 'infinity'
         WHERE u.account = $1 AND u.subscription = $2 AND u.position = due;
        blocked := true;
    END LOOP;
    RETURN blocked;
END
$$;
COMMENT ON FUNCTION meal_planner.block_delivery(text, text, text, bigint) IS
'blocks a delivery that is due and must_wait, and those of its key that are due behind it; under order_lock. False: somebody else has them locked';

CREATE FUNCTION meal_planner.release_key(account text, subscription text, order_key text) RETURNS void
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
SET enable_sort = off SET enable_bitmapscan = off SET enable_seqscan = off SET jit = off -- in the order of the index
AS $$
#variable_conflict use_column
DECLARE
    head bigint;
BEGIN
    IF $3 IS NULL THEN
        RETURN;
    END IF;
    PERFORM meal_planner.order_lock($1, $2);
    -- Who has the first one locked is ending it, and comes here afterwards:
    -- waiting for it would be a deadlock.
    SELECT d.position INTO head
      FROM meal_planner.delivery d
     WHERE d.account = $1 AND d.subscription = $2 AND d.order_key = $3
     ORDER BY d.account, d.subscription, d.order_key, d.position
     LIMIT 1
       FOR UPDATE SKIP LOCKED;
    UPDATE meal_planner.delivery d
       SET next_attempt_at = meal_planner.clock()
     WHERE d.account = $1 AND d.subscription = $2 AND d.position = head
       AND d.next_attempt_at = 'infinity'
       AND NOT EXISTS (SELECT FROM meal_planner.dead_letter l
                        WHERE l.account = $1 AND l.subscription = $2 AND l.order_key = $3
                          AND l.status IN ('dead', 'replaying') AND l.position < head);
END
$$;
COMMENT ON FUNCTION meal_planner.release_key(text, text, text) IS
'makes the next delivery of a key due; call it after something of the key has ended (delivery deleted, dead letter settled); nothing for NULL';

CREATE FUNCTION meal_planner.release_orphans() RETURNS void
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
SET enable_sort = off SET enable_bitmapscan = off SET enable_seqscan = off SET jit = off -- in the order of the index
AS $$
DECLARE
    orphan record;
BEGIN
    -- One probe for each key that has deliveries, another for its first one.
    FOR orphan IN
        WITH RECURSIVE key (account, subscription, order_key) AS (
            (SELECT d.account, d.subscription, d.order_key FROM meal_planner.delivery d
              WHERE d.order_key IS NOT NULL
              ORDER BY d.account, d.subscription, d.order_key LIMIT 1)
            UNION ALL
            SELECT n.account, n.subscription, n.order_key
              FROM key k,
                   LATERAL (SELECT d.account, d.subscription, d.order_key FROM meal_planner.delivery d
                             WHERE d.order_key IS NOT NULL
                               AND (d.account, d.subscription, d.order_key)
                                   > (k.account, k.subscription, k.order_key)
                             ORDER BY d.account, d.subscription, d.order_key LIMIT 1) n)
        SELECT k.account, k.subscription, head.position
          FROM key k,
               LATERAL (SELECT d.position, d.next_attempt_at FROM meal_planner.delivery d
                         WHERE d.account = k.account AND d.subscription = k.subscription
                           AND d.order_key = k.order_key
                         ORDER BY d.account, d.subscription, d.order_key, d.position LIMIT 1) head
         WHERE head.next_attempt_at = 'infinity'
           AND NOT EXISTS (SELECT FROM meal_planner.dead_letter l
                            WHERE l.account = k.account AND l.subscription = k.subscription
                              AND l.order_key = k.order_key AND l.status IN ('dead', 'replaying')
                              AND l.position < head.position)
           AND NOT EXISTS (SELECT FROM meal_planner.saga_lock s
                            WHERE s.account = k.account AND s.name = k.order_key AND s.state IN ('held', 'waiting')
                              AND s.since < head.position)
    LOOP
        UPDATE meal_planner.delivery d
           SET next_attempt_at = meal_planner.clock()
         WHERE d.account = orphan.account AND d.subscription = orphan.subscription AND d.position = orphan.position
           AND d.next_attempt_at = 'infinity';
    END LOOP;
END
$$;
COMMENT ON FUNCTION meal_planner.release_orphans() IS
'makes blocked deliveries due that wait for nothing (any more): what they waited for was deleted by hand, or its end was rolled back while another released';
