-- The steps of a redrive, which the sweep takes: a step counts what has become of
-- the letters in flight, and makes the next ones deliveries.  It holds the row of
-- the redrive, so that nobody else takes one meanwhile.

CREATE FUNCTION meal_planner.redrive_outcomes(redrive bigint)
RETURNS TABLE (account text, subscription text, "position" bigint, outcome text)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
SET enable_bitmapscan = off SET enable_seqscan = off SET jit = off -- by the keys
SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
#variable_conflict use_column
BEGIN
    -- One statement: a letter and its delivery as they are at the same moment.
    -- LIMIT, lest the whole subscription be read for each: without statistics
    -- that seems no more.
    RETURN QUERY
    SELECT o.account, o.subscription, o.position, o.outcome
      FROM (SELECT p.account, p.subscription, u.position,
                   CASE WHEN l.id IS NULL THEN 'skipped'
                        WHEN l.replay_count <> u.replay THEN 'failed' -- and somebody has replayed it again
                        WHEN l.status = 'resolved' THEN 'done'
                        WHEN l.status <> 'replaying' THEN 'failed'
                        WHEN d.position IS NULL THEN 'failed' -- nobody goes on with it, see lock_dead_letter
                        WHEN d.next_attempt_at = 'infinity'
                             AND EXISTS (SELECT FROM meal_planner.dead_letter f
                                          WHERE f.account = l.account AND f.subscription = l.subscription
                                            AND f.order_key = l.order_key AND f.status = 'dead' AND f.position < l.position)
                        THEN 'blocked' END AS outcome
              FROM meal_planner.redrive_part p
             CROSS JOIN LATERAL unnest(p.positions, p.replays) u (position, replay)
              LEFT JOIN LATERAL (
                   SELECT * FROM meal_planner.dead_letter t
                    WHERE t.account = p.account AND t.subscription = p.subscription AND t.position = u.position
                    LIMIT 1) l ON true
              LEFT JOIN LATERAL (
                   SELECT * FROM meal_planner.delivery t
                    WHERE t.account = p.account AND t.subscription = p.subscription AND t.position = u.position
                    LIMIT 1) d ON true
             WHERE p.redrive = $1 AND u.replay > 0) o
     WHERE o.outcome IS NOT NULL;
END
$$;
COMMENT ON FUNCTION meal_planner.redrive_outcomes(bigint) IS
'what has become of the letters of a redrive that were made deliveries, as far as they have come to an end: done, failed, blocked by another dead letter of their order key, or skipped (the letter is gone)';

CREATE FUNCTION meal_planner.redrive_feeds(r meal_planner.redrive) RETURNS int
LANGUAGE sql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
    -- Not more than a hundred in flight: what fails for a while keeps the others
    -- back, and new failures need not wait behind a million old ones.
    SELECT CASE WHEN r.state = 'running' AND r.due <= meal_planner.clock()
                THEN greatest(least(100 - r.in_flight,
                                    -- a second's worth at a time
                                    ceil(r.max_per_second)::int,
                                    CASE WHEN r.trying THEN r.canary - r.tried END), 0)
                ELSE 0 END
$$;
COMMENT ON FUNCTION meal_planner.redrive_feeds(meal_planner.redrive) IS 'how many letters a redrive may make deliveries now';

CREATE FUNCTION meal_planner.redrive_room(part meal_planner.redrive_part, parts bigint) RETURNS int
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    -- A part whose letters do not come to an end leaves room to the others.
    SELECT greatest(greatest(100 / greatest(parts, 1), 1)::int - cardinality(array_remove(part.replays, 0)), 0)
$$;
COMMENT ON FUNCTION meal_planner.redrive_room(meal_planner.redrive_part, bigint) IS
'how many letters more a part may have in flight when the redrive has so many parts';

CREATE FUNCTION meal_planner.redrive_parts(redrive bigint) RETURNS bigint
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off -- by the index of its parts
AS $$
    SELECT count(*) FROM meal_planner.redrive_part p
     WHERE p.redrive = $1 AND (p.after_position < p.up_to OR 0 = ANY (p.replays))
$$;
COMMENT ON FUNCTION meal_planner.redrive_parts(bigint) IS 'how many parts of a redrive have letters that are no deliveries yet';

CREATE FUNCTION meal_planner.redrive_is_ready(r meal_planner.redrive) RETURNS boolean
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off -- by the index of its parts
AS $$
DECLARE
    parts bigint := meal_planner.redrive_parts(r.id);
BEGIN
    RETURN EXISTS (SELECT FROM meal_planner.redrive_outcomes(r.id))
        OR (r.state = 'running'
            AND EXISTS (SELECT FROM meal_planner.redrive_part p WHERE p.redrive = r.id AND 0 = ANY (p.replays)))
        OR (meal_planner.redrive_feeds(r) > 0
            AND EXISTS (SELECT FROM meal_planner.redrive_part p
                         WHERE p.redrive = r.id AND p.after_position < p.up_to AND meal_planner.redrive_room(p, parts) > 0
                           AND meal_planner.redrive_may_run(p.subscription)))
        OR (r.state = 'running' AND r.in_flight = 0
            AND ((r.trying AND r.tried >= r.canary)
                 OR NOT EXISTS (SELECT FROM meal_planner.redrive_part p WHERE p.redrive = r.id)));
END
$$;
COMMENT ON FUNCTION meal_planner.redrive_is_ready(meal_planner.redrive) IS
'whether there is something to do for a redrive; writes nothing, so that one that waits costs nothing';

CREATE FUNCTION meal_planner.settle_redrive(r meal_planner.redrive) RETURNS meal_planner.redrive
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off -- by the index of its parts
AS $$
#variable_conflict use_column
DECLARE
    part    record;
    letter  record;
    dead    meal_planner.dead_letter;
    moment  timestamptz := meal_planner.clock();
BEGIN
    FOR part IN
        SELECT o.account, o.subscription, array_agg(o.position ORDER BY o.position) AS positions,
               array_agg(o.outcome ORDER BY o.position) AS outcomes
          FROM meal_planner.redrive_outcomes(r.id) o
         GROUP BY o.account, o.subscription
         ORDER BY o.account, o.subscription
    LOOP
        FOR letter IN SELECT u.position, u.outcome FROM unnest(part.positions, part.outcomes) u (position, outcome) LOOP
            r.in_flight := r.in_flight - 1;
            r.done := r.done + (letter.outcome = 'done')::int;
            r.failed := r.failed + (letter.outcome = 'failed')::int;
            r.blocked := r.blocked + (letter.outcome = 'blocked')::int;
            r.skipped := r.skipped + (letter.outcome = 'skipped')::int;
            IF r.trying AND r.state = 'running' AND letter.outcome <> 'done' THEN
                SELECT * INTO dead FROM meal_planner.dead_letter l
                 WHERE l.account = part.account AND l.subscription = part.subscription AND l.position = letter.position;
                r.state := 'paused';
                r.state_reason := format('canary: dead letter %s %s', dead.id,
                                         CASE letter.outcome WHEN 'failed' THEN 'failed again: ' || coalesce(dead.error_message, dead.reason)
                                                             WHEN 'blocked' THEN 'waits for another of its order key'
                                                             ELSE 'is gone' END);
                r.state_by := NULL;
                r.state_at := moment;
                PERFORM meal_planner.raise_alert(part.account, meal_planner.next_position(), 'redrive_paused', part.subscription,
                                                 coalesce(dead."sqlstate", dead.reason, letter.outcome),
                                                 format('redrive %s paused itself: %s', r.id, r.state_reason), dead.id);
            END IF;
        END LOOP;
        UPDATE meal_planner.redrive_part p
           SET (positions, replays) = (
               SELECT coalesce(array_agg(u.position ORDER BY u.nth), '{}'), coalesce(array_agg(u.replay ORDER BY u.nth), '{}')
                 FROM unnest(p.positions, p.replays) WITH ORDINALITY u (position, replay, nth)
                WHERE u.position <> ALL (part.positions))
         WHERE p.account = part.account AND p.redrive = r.id AND p.subscription = part.subscription;
    END LOOP;
    RETURN r;
END
$$;
COMMENT ON FUNCTION meal_planner.settle_redrive(meal_planner.redrive) IS
'counts what has become of the letters in flight, and pauses the redrive when a canary is not done; its row is locked';

CREATE FUNCTION meal_planner.redrive_letter(
    r meal_planner.redrive, account text, subscription text, "position" bigint, OUT verdict text, OUT replay int)
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
SET enable_bitmapscan = off SET enable_seqscan = off SET jit = off -- by the keys
AS $$
#variable_conflict use_column
DECLARE
    letter  meal_planner.dead_letter;
    why_not text;
BEGIN
    -- Never wait for a letter: who has it may be waiting for one of ours.
    SELECT * INTO letter FROM meal_planner.dead_letter l
     WHERE l.account = $2 AND l.subscription = $3 AND l.position = $4
       AND l.status = 'dead' AND l.dead_at <= r.dead_by
       FOR UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
        verdict := CASE WHEN EXISTS (SELECT FROM meal_planner.dead_letter l
                                      WHERE l.account = $2 AND l.subscription = $3 AND l.position = $4
                                        AND l.status = 'dead' AND l.dead_at <= r.dead_by)
                        THEN 'busy' ELSE 'skipped' END;
        RETURN;
    END IF;
    why_not := meal_planner.replay_refusal(letter, r.force);
    IF why_not IS NOT NULL THEN
        UPDATE meal_planner.dead_letter l SET refused = why_not WHERE l.account = $2 AND l.id = letter.id;
        verdict := 'refused';
    -- as in mp_replay_dlq, but without waiting
    ELSIF EXISTS (SELECT FROM meal_planner.subscription s WHERE s.name = $3 AND s.mode = 'pull')
          AND (NOT meal_planner.try_order_lock($2, $3) OR meal_planner.is_claimed($2, $3, $4)) THEN
        verdict := 'busy';
    ELSIF meal_planner.begin_replay(letter, NULL, 0) THEN
        replay := letter.replay_count + 1;
        verdict := 'fed';
    ELSE
        verdict := 'skipped';
    END IF;
END
$$;
COMMENT ON FUNCTION meal_planner.redrive_letter(meal_planner.redrive, text, text, bigint) IS
'makes a dead letter of a redrive a delivery: fed (as its so manyeth replay), busy (somebody has it locked, or a consumer holds it by a replay), skipped (it is not dead any more, or has a delivery) or refused';

CREATE FUNCTION meal_planner.feed_redrive(
    INOUT r meal_planner.redrive, part meal_planner.redrive_part, max_letters int, OUT moved boolean, OUT looked int)
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    page    CONSTANT int := 500;
    former  CONSTANT meal_planner.redrive_part := part;
    fed     int := 0;
    full_up boolean := false;
    next    record;
    verdict text;
    replay  int;
BEGIN
    looked := 0;
    part.positions := '{}';
    part.replays := '{}';
    r.in_flight := r.in_flight - cardinality(former.positions);
    -- First those that somebody had, then what comes next.
    FOR next IN
        SELECT u.position, u.replay, false AS is_new, true AS wanted
          FROM unnest(former.positions, former.replays) u (position, replay)
        UNION ALL
        (SELECT l.position, 0, true, l.wanted
           FROM meal_planner.redrive_letters(r.filter, part.account, part.subscription, part.after_position, part.up_to,
                                             r.dead_by, page) l)
    LOOP
        IF next.is_new THEN
            full_up := fed >= $3 OR r.in_flight + cardinality(part.positions) >= 100;
            EXIT WHEN full_up;
            part.after_position := next.position;
            looked := looked + 1;
        END IF;
        CONTINUE WHEN NOT next.wanted;
        verdict := 'busy';
        replay := next.replay;
        IF replay = 0 AND fed < $3 THEN
            SELECT v.verdict, v.replay INTO verdict, replay
              FROM meal_planner.redrive_letter(r, part.account, part.subscription, next.position) v;
        END IF;
        fed := fed + (verdict = 'fed')::int;
        r.refused := r.refused + (verdict = 'refused')::int;
        r.skipped := r.skipped + (verdict = 'skipped')::int;
        IF verdict IN ('fed', 'busy') THEN
            part.positions := part.positions || next.position;
            part.replays := part.replays || coalesce(replay, 0);
        END IF;
    END LOOP;
    IF NOT full_up AND looked < page THEN
        part.after_position := part.up_to;
    END IF;
    UPDATE meal_planner.redrive_part p
       SET after_position = part.after_position, positions = part.positions, replays = part.replays,
           fed_at = meal_planner.clock()
     WHERE p.account = part.account AND p.redrive = part.redrive AND p.subscription = part.subscription
       AND (p.after_position, p.positions, p.replays) IS DISTINCT FROM (part.after_position, part.positions, part.replays);
    moved := FOUND;
    r.in_flight := r.in_flight + cardinality(part.positions);
    IF fed > 0 THEN
        r.tried := r.tried + CASE WHEN r.trying THEN fed ELSE 0 END;
        r.due := greatest(r.due, meal_planner.clock()) + make_interval(secs => coalesce(fed / r.max_per_second, 0));
    END IF;
END
$$;
COMMENT ON FUNCTION meal_planner.feed_redrive(meal_planner.redrive, meal_planner.redrive_part, int) IS
'makes up to max_letters of the next dead letters of a part deliveries; moved: something was written; looked: at so many letters, whatever became of them. The row of the redrive is locked';

CREATE FUNCTION meal_planner.step_redrive(redrive bigint) RETURNS boolean
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off -- by the index of its parts
AS $$
#variable_conflict use_column
DECLARE
    r      meal_planner.redrive;
    former meal_planner.redrive;
    part   meal_planner.redrive_part;
    parts  bigint;
    share  int;
    most   int;
    fed    record;
    moved  boolean := false;
    looked int := 0;
BEGIN
    -- Whoever moves a redrive holds its row to the end of the transaction.
    SELECT * INTO r FROM meal_planner.redrive t WHERE t.id = $1 AND t.ended_at IS NULL FOR UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    former := r;
    r := meal_planner.settle_redrive(r);
    IF r.state = 'running' AND r.trying AND r.tried >= r.canary AND r.in_flight = 0 THEN
        r.trying := false;
    END IF;

    -- Its parts take turns, each with its share of what may run.
    parts := meal_planner.redrive_parts($1);
    share := greatest(meal_planner.redrive_feeds(r) / greatest(parts, 1), 1);
    FOR part IN
        SELECT * FROM meal_planner.redrive_part p
         WHERE p.redrive = $1 AND (p.after_position < p.up_to OR 0 = ANY (p.replays))
           AND meal_planner.redrive_may_run(p.subscription)
         ORDER BY p.redrive, p.fed_at, p.account, p.subscription
    LOOP
        -- A step is short, though nothing of what it looks at is to run.
        EXIT WHEN looked >= 500 OR meal_planner.redrive_feeds(r) = 0;
        most := least(share, meal_planner.redrive_feeds(r), meal_planner.redrive_room(part, parts));
        CONTINUE WHEN most = 0;
        SELECT f.r, f.moved, f.looked INTO fed FROM meal_planner.feed_redrive(r, part, most) f;
        r := fed.r;
        moved := moved OR fed.moved;
        looked := looked + fed.looked;
    END LOOP;
    DELETE FROM meal_planner.redrive_part p
     WHERE p.redrive = $1 AND p.after_position >= p.up_to AND p.positions = '{}';

    IF r.in_flight = 0 AND r.state IN ('running', 'cancelled')
       AND NOT EXISTS (SELECT FROM meal_planner.redrive_part p WHERE p.redrive = $1) THEN
        r.ended_at := meal_planner.clock();
        IF r.state = 'running' THEN
            r.state := 'done';
            r.state_reason := NULL;
            r.state_by := NULL;
            r.state_at := r.ended_at;
            r.trying := false;
            -- what was no longer dead when its turn came
            r.skipped := greatest(r.skipped, r.letters - r.done - r.failed - r.blocked - r.refused);
        END IF;
    END IF;
    IF r IS NOT DISTINCT FROM former THEN
        RETURN moved;
    END IF;
    UPDATE meal_planner.redrive t
       SET done = r.done, failed = r.failed, blocked = r.blocked, refused = r.refused, skipped = r.skipped,
           in_flight = r.in_flight, trying = r.trying, tried = r.tried, due = r.due,
           state = r.state, state_reason = r.state_reason, state_by = r.state_by, state_at = r.state_at,
           ended_at = r.ended_at
     WHERE t.id = $1;
    RETURN true;
END
$$;
COMMENT ON FUNCTION meal_planner.step_redrive(bigint) IS
'goes on with a redrive: counts what has ended, makes the next letters deliveries; false when somebody else is at it or there was nothing to do';

CREATE FUNCTION meal_planner.claim_redrive() RETURNS meal_planner.claim
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off -- those that are not done, by the index
AS $$
DECLARE
    next bigint;
BEGIN
    -- The one whose letters have waited longest comes first.
    FOR next IN
        SELECT r.id FROM meal_planner.redrive r
         WHERE r.ended_at IS NULL
         ORDER BY r.due, r.id
    LOOP
        IF (SELECT meal_planner.redrive_is_ready(r) FROM meal_planner.redrive r WHERE r.id = next)
           AND meal_planner.step_redrive(next) THEN
            -- what is to be run now are deliveries
            RETURN (''::text, ''::text, 0::bigint, 0::bigint, 0::bigint);
        END IF;
    END LOOP;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION meal_planner.claim_redrive() IS
'takes one step of a redrive that can go on, all of it: up_to equal to position, there is nothing to run; NULL when none can';

CREATE FUNCTION meal_planner.redrives_due() RETURNS timestamptz
LANGUAGE sql VOLATILE
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off -- those that are not done, by the index
AS $$
    SELECT min(greatest(r.due, b.retry_at))
      FROM meal_planner.redrive r
      JOIN meal_planner.redrive_part p ON p.redrive = r.id AND p.after_position < p.up_to
      JOIN meal_planner.subscription s ON s.name = p.subscription AND s.paused_at IS NULL,
           LATERAL (SELECT meal_planner.breaker_retry_at(s.options ->> 'breaker') AS retry_at) b
     WHERE r.ended_at IS NULL AND r.state = 'running' AND greatest(r.due, b.retry_at) > meal_planner.clock()
$$;
COMMENT ON FUNCTION meal_planner.redrives_due() IS
'when the rate of a redrive, or a circuit breaker that it waits for, allows the next letter; NULL: nothing waits for the clock';
