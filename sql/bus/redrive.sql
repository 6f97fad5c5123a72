-- A redrive replays many dead letters, slowly and in small steps.  A step takes
-- letters that are dead and makes deliveries of them, which the sweep runs and
-- consumers claim like any other: their attempts are committed before they
-- start, breakers defer them, order keys block them.  So a redrive itself runs
-- nothing, and whatever dies, the next step finds everything as it was.  Here is
-- what is asked for and what operators do; the steps are in redrive_step.sql.
--
-- Its letters are those that are dead when it is asked for: for each account
-- and subscription a stretch of positions that it goes through once, and a time
-- that they died by.  What dies again or anew is none of them.

-- The letters that are dead, in the order of the log.
CREATE INDEX dead_letter_dead ON meal_planner.dead_letter (account, subscription, position) WHERE status = 'dead';

CREATE TABLE meal_planner.redrive (
    id             bigint      NOT NULL PRIMARY KEY,
    filter         jsonb       NOT NULL,
    force          boolean     NOT NULL,
    max_per_second float8,
    canary         int         NOT NULL,
    dead_by        timestamptz NOT NULL,
    letters        bigint      NOT NULL,
    done           bigint      NOT NULL DEFAULT 0,
    failed         bigint      NOT NULL DEFAULT 0,
    blocked        bigint      NOT NULL DEFAULT 0,
    refused        bigint      NOT NULL DEFAULT 0,
    skipped        bigint      NOT NULL DEFAULT 0,
    in_flight      int         NOT NULL DEFAULT 0,
    trying         boolean     NOT NULL,
    tried          int         NOT NULL DEFAULT 0,
    due            timestamptz NOT NULL,
    state          text        NOT NULL DEFAULT 'running'
                   CHECK (state IN ('running', 'paused', 'cancelled', 'done')),
    state_reason   text,
    state_by       text,
    state_at       timestamptz NOT NULL,
    requested_by   text        NOT NULL,
    reason         text,
    created_at     timestamptz NOT NULL,
    ended_at       timestamptz
);
COMMENT ON TABLE meal_planner.redrive IS 'redrives of dead letters (mp_redrive_dlq), those that are done too; across accounts, as operators work';
COMMENT ON COLUMN meal_planner.redrive.filter IS 'the filter as it was understood: lists of values, times';
COMMENT ON COLUMN meal_planner.redrive.dead_by IS 'none of its letters died later';
COMMENT ON COLUMN meal_planner.redrive.letters IS 'how many there were when it was asked for';
COMMENT ON COLUMN meal_planner.redrive.in_flight IS 'letters taken that have not come to an end; those of redrive_part.positions';
COMMENT ON COLUMN meal_planner.redrive.trying IS 'the canary letters run: tried so many of them yet';
COMMENT ON COLUMN meal_planner.redrive.due IS 'when the rate allows the next letter';
COMMENT ON COLUMN meal_planner.redrive.ended_at IS 'since when nothing of it is in flight nor to come';
CREATE INDEX redrive_live ON meal_planner.redrive (id) WHERE ended_at IS NULL;
SELECT pg_extension_config_dump('meal_planner.redrive', '');

CREATE TABLE meal_planner.redrive_part (
    account        text        NOT NULL,
    redrive        bigint      NOT NULL,
    subscription   text        NOT NULL,
    after_position bigint      NOT NULL,
    up_to          bigint      NOT NULL,
    fed_at         timestamptz NOT NULL,
    positions      bigint[]    NOT NULL DEFAULT '{}',
    replays        int[]       NOT NULL DEFAULT '{}',
    PRIMARY KEY (account, redrive, subscription)
);
COMMENT ON TABLE meal_planner.redrive_part IS
'what redrives have not done yet: the dead letters of (after_position, up_to], and those in flight';
COMMENT ON COLUMN meal_planner.redrive_part.fed_at IS 'when it was its turn last';
COMMENT ON COLUMN meal_planner.redrive_part.positions IS 'letters in flight';
COMMENT ON COLUMN meal_planner.redrive_part.replays IS
'their replay_count when they were made deliveries; 0: not yet, somebody had them';
CREATE INDEX redrive_part_turn ON meal_planner.redrive_part (redrive, fed_at, account, subscription);
SELECT pg_extension_config_dump('meal_planner.redrive_part', '');

-- What is asked for ------------------------------------------------------------

CREATE FUNCTION meal_planner.redrive_filter(filter jsonb, account text, force boolean) RETURNS jsonb
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    understood jsonb := '{}';
    wrong      text;
    name       text;
    value      jsonb;
    word       jsonb;
    at         timestamptz;
BEGIN
    IF jsonb_typeof($1) <> 'object' THEN
        RAISE EXCEPTION 'MP400: filter must be a JSON object'
            USING ERRCODE = 'MP400', HINT = 'retry=no. Use {} for all that is dead.';
    END IF;
    IF $2 IS NOT NULL THEN
        understood := jsonb_build_object('account', jsonb_build_array($2));
    END IF;
    FOR name, value IN SELECT f.key, f.value FROM jsonb_each($1) f LOOP
        wrong := NULL;
        CASE name
            WHEN 'account', 'subscription', 'detail_type', 'error_type', 'sqlstate', 'reason', 'status', 'ids' THEN
                IF jsonb_typeof(value) <> 'array' THEN
                    value := jsonb_build_array(value);
                END IF;
                IF jsonb_array_length(value) NOT BETWEEN 1 AND 1000 THEN
                    wrong := 'must have between 1 and 1000 values';
                END IF;
                FOR word IN SELECT w.value FROM jsonb_array_elements(value) w LOOP
                    wrong := coalesce(wrong, CASE
                        WHEN name = 'ids' THEN
                            CASE WHEN jsonb_typeof(word) NOT IN ('string', 'number') OR (word #>> '{}') !~ '^\d{1,18}$'
                                 THEN 'must hold ids of dead letters' END
                        WHEN jsonb_typeof(word) <> 'string' THEN 'must hold strings'
                        WHEN name = 'status' AND word NOT IN ('"dead"', '"parked"') THEN 'must be dead or parked'
                        WHEN name = 'error_type' AND word NOT IN ('"transient"', '"permanent"', '"crash"')
                        THEN 'must be transient, permanent or crash' END);
                END LOOP;
                IF name = 'ids' THEN
                    value := (SELECT jsonb_agg(w.value #>> '{}') FROM jsonb_array_elements(value) w);
                ELSIF name = 'account' AND $2 IS NOT NULL THEN
                    wrong := coalesce(wrong, 'is given by the argument account, too');
                END IF;
            WHEN 'from_time', 'to_time' THEN
                BEGIN
                    at := (value #>> '{}')::timestamptz;
                    value := to_jsonb(at);
                EXCEPTION
                    WHEN data_exception THEN
                        at := NULL;
                END;
                IF jsonb_typeof(value) <> 'string' OR at IS NULL THEN
                    wrong := 'must be a time';
                END IF;
            WHEN 'pattern' THEN
                PERFORM @extschema@.mp_match(value, '{}'); -- MP400 naming the path
            ELSE
                RAISE EXCEPTION 'MP400: unknown filter "%"', name
                    USING ERRCODE = 'MP400',
                          HINT = 'retry=no. Known are account, subscription, detail_type, error_type, sqlstate, reason, status, from_time, to_time, pattern and ids.';
        END CASE;
        IF wrong IS NOT NULL THEN
            RAISE EXCEPTION 'MP400: filter % %', name, wrong
                USING ERRCODE = 'MP400', HINT = 'retry=no. Correct the filter.';
        END IF;
        understood := understood || jsonb_build_object(name, value);
    END LOOP;
    IF NOT understood ? 'status' THEN
        understood := understood || CASE WHEN $3 THEN '{"status": ["dead", "parked"]}'::jsonb
                                         ELSE '{"status": ["dead"]}' END;
    END IF;
    RETURN understood;
END
$$;
COMMENT ON FUNCTION meal_planner.redrive_filter(jsonb, text, boolean) IS
'a filter of mp_redrive_dlq in the form that redrive_letters reads: lists, times in one format, the status; MP400 naming the key';

CREATE FUNCTION meal_planner.dead_queues(OUT account text, OUT subscription text) RETURNS SETOF record
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
SET enable_sort = off SET enable_bitmapscan = off SET enable_seqscan = off SET jit = off -- in the order of the index
AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    WITH RECURSIVE queue (account, subscription) AS (
        (SELECT l.account, l.subscription FROM meal_planner.dead_letter l
          WHERE l.status = 'dead'
          ORDER BY l.account, l.subscription LIMIT 1)
        UNION ALL
        SELECT n.account, n.subscription
          FROM queue q,
               LATERAL (SELECT l.account, l.subscription FROM meal_planner.dead_letter l
                         WHERE l.status = 'dead' AND (l.account, l.subscription) > (q.account, q.subscription)
                         ORDER BY l.account, l.subscription LIMIT 1) n)
    SELECT q.account, q.subscription FROM queue q;
END
$$;
COMMENT ON FUNCTION meal_planner.dead_queues() IS
'accounts and subscriptions that have dead letters, by one index probe each';

CREATE FUNCTION meal_planner.redrive_letters(
    filter jsonb, account text, subscription text, after_position bigint, up_to bigint, dead_by timestamptz,
    max_letters bigint, judged boolean DEFAULT false, force boolean DEFAULT false)
RETURNS TABLE ("position" bigint, error_type text, "sqlstate" text, dead_at timestamptz, parked boolean, wanted boolean,
               refusal text)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
SET enable_sort = off SET enable_bitmapscan = off SET enable_seqscan = off SET jit = off -- in the order of the index
SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
#variable_conflict use_column
DECLARE
    f     jsonb := $1;
    low   timestamptz := coalesce(($1 ->> 'from_time')::timestamptz, '-infinity');
    high  timestamptz := coalesce(($1 ->> 'to_time')::timestamptz, 'infinity');
    limit_of_replays int := (SELECT meal_planner.max_replays(s.options) FROM meal_planner.subscription s WHERE s.name = $3);
BEGIN
    IF (f ? 'account' AND NOT f -> 'account' ? $2) OR (f ? 'subscription' AND NOT f -> 'subscription' ? $3) THEN
        RETURN;
    END IF;
    limit_of_replays := coalesce(limit_of_replays, meal_planner.max_replays(NULL));
    RETURN QUERY
    SELECT c.position, c.error_type, c."sqlstate", c.dead_at, c.parked,
           coalesce(c.wanted AND f -> 'status' ? CASE WHEN c.parked THEN 'parked' ELSE 'dead' END, false),
           CASE WHEN judged AND c.wanted THEN meal_planner.replay_refusal(c.letter, force) END
      FROM (SELECT l.position, l.error_type, l."sqlstate", l.dead_at, l AS letter,
                   l.replay_count >= limit_of_replays AS parked,
                   l.dead_at >= low AND l.dead_at < high
                   AND (NOT f ? 'error_type' OR f -> 'error_type' ? l.error_type)
                   AND (NOT f ? 'reason' OR f -> 'reason' ? l.reason)
                   -- a code, or its class
                   AND (NOT f ? 'sqlstate' OR f -> 'sqlstate' ?| ARRAY[l."sqlstate", left(l."sqlstate", 2)])
                   AND (NOT f ? 'ids' OR f -> 'ids' ? l.id::text)
                   AND (NOT f ? 'detail_type' OR coalesce(f -> 'detail_type' ? (e.event).detail_type, false))
                   AND (NOT f ? 'pattern' OR (e.found AND meal_planner.matches(f -> 'pattern', e.event)))
                   AS wanted
              FROM meal_planner.dead_letter l
              -- LIMIT, lest the whole log be read for each
              LEFT JOIN LATERAL (SELECT t AS event, true AS found FROM meal_planner.event t
                                  WHERE t.account = $2 AND t.position = l.position
                                  LIMIT 1) e ON true
             WHERE l.account = $2 AND l.subscription = $3 AND l.position > $4 AND l.position <= $5
               AND l.status = 'dead' AND l.dead_at <= $6
             ORDER BY l.account, l.subscription, l.position
             LIMIT $7) c;
END
$$;
COMMENT ON FUNCTION meal_planner.redrive_letters(jsonb, text, text, bigint, bigint, timestamptz, bigint, boolean, boolean) IS
'the dead letters of a subscription in an account in the order of the log, at most max_letters, and whether a redrive with that filter wants them; judged: and what would refuse them';

CREATE FUNCTION @extschema@.mp_redrive_dlq(
    filter jsonb DEFAULT '{}', max_per_second float8 DEFAULT NULL, dry_run boolean DEFAULT false,
    canary int DEFAULT 0, force boolean DEFAULT false, account text DEFAULT NULL, reason text DEFAULT NULL)
RETURNS jsonb
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    everything CONSTANT bigint := 9223372036854775807;
    forced  boolean     := coalesce($5, false);
    moment  timestamptz := meal_planner.clock();
    f       jsonb       := meal_planner.redrive_filter(coalesce($1, '{}'), $6, forced);
    redrive bigint;
    part    record;
    result  jsonb;
    total   bigint      := 0;
    dead_by timestamptz := moment;
BEGIN
    -- with less the next letter would be due when no timestamp reaches, an error in every sweep
    IF NOT ($2 >= 0.0001 AND $2 <= 1000000) THEN
        RAISE EXCEPTION 'MP400: max_per_second must be between 0.0001 and 1000000'
            USING ERRCODE = 'MP400', HINT = 'retry=no. Give NULL for as fast as it goes.';
    ELSIF $4 NOT BETWEEN 0 AND 10000 THEN
        RAISE EXCEPTION 'MP400: canary must be between 0 and 10000'
            USING ERRCODE = 'MP400', HINT = 'retry=no. Correct the argument.';
    END IF;
    IF $3 THEN
        SELECT jsonb_build_object(
                   'dry_run', true,
                   'letters', coalesce(sum(g.letters), 0), 'refused', coalesce(sum(g.refused), 0),
                   'parked', coalesce(sum(g.parked), 0),
                   'by', coalesce(jsonb_agg(jsonb_build_object(
                             'subscription', nullif(g.subscription, ''), 'error_type', g.error_type, 'sqlstate', g."sqlstate",
                             'letters', g.letters, 'refused', g.refused)
                             ORDER BY g.letters DESC, g.subscription, g.error_type, g."sqlstate")
                             FILTER (WHERE g.letters > 0), '[]'))
          INTO result
          FROM (SELECT q.subscription, l.error_type, l."sqlstate", count(*) FILTER (WHERE l.wanted) AS letters,
                       count(l.refusal) FILTER (WHERE l.wanted) AS refused, count(*) FILTER (WHERE l.parked) AS parked
                  FROM meal_planner.dead_queues() q,
                       LATERAL meal_planner.redrive_letters(f, q.account, q.subscription, 0, everything, 'infinity', NULL,
                                                            true, forced) l
                 GROUP BY q.subscription, l.error_type, l."sqlstate") g;
        RETURN result;
    END IF;

    redrive := meal_planner.next_position();
    FOR part IN
        SELECT q.account, q.subscription, count(*) AS letters, min(l.position) AS first, max(l.position) AS last,
               max(l.dead_at) AS dead_by
          FROM meal_planner.dead_queues() q,
               LATERAL meal_planner.redrive_letters(f, q.account, q.subscription, 0, everything, 'infinity', NULL) l
         WHERE l.wanted
         GROUP BY q.account, q.subscription
         ORDER BY q.account, q.subscription
    LOOP
        INSERT INTO meal_planner.redrive_part (account, redrive, subscription, after_position, up_to, fed_at)
        VALUES (part.account, redrive, part.subscription, part.first - 1, part.last, moment);
        total := total + part.letters;
        -- the clock may have been set back since
        dead_by := greatest(dead_by, part.dead_by);
    END LOOP;
    INSERT INTO meal_planner.redrive AS r
           (id, filter, force, max_per_second, canary, dead_by, letters, trying, due, state, state_at, requested_by, reason,
            created_at, ended_at)
    VALUES (redrive, f, forced, $2, coalesce($4, 0), dead_by, total, coalesce($4, 0) > 0 AND total > 0, moment,
            CASE WHEN total > 0 THEN 'running' ELSE 'done' END, moment,
            meal_planner.caller(), $7, moment,
            CASE WHEN total = 0 THEN moment END);
    RETURN jsonb_build_object('dry_run', false, 'id', redrive, 'letters', total,
                              'state', CASE WHEN total > 0 THEN 'running' ELSE 'done' END);
END
$$;
COMMENT ON FUNCTION @extschema@.mp_redrive_dlq(jsonb, float8, boolean, int, boolean, text, text) IS
'replays many dead letters: those that are dead now and match the filter. A task, which the sweep goes on with until it is done, see mp_redrives; {"id","letters","state"}. Each letter runs its own subscription again, in the order of the log, once; one that was replayed, resolved or discarded meanwhile is skipped. While a subscription is paused or its breaker open its letters wait.
filter: account, subscription, detail_type, error_type, sqlstate (a code or its first two characters), reason, ids: a value or a list; status dead (default), parked or both; from_time and to_time (when they died, from and before); pattern (of the event). max_per_second: no more than that on average. canary: so many run first, of its subscriptions in turn; when one of them is not done the redrive pauses itself, with an alert. dry_run: counts by subscription and error, nothing is written.
Refused, and left dead, are letters whose subscription or event is gone; and those whose event had an idempotency key that has expired, or that are past the redrive_window of the subscription, unless force is true. force also takes what is parked. account: NULL for every one. reason: a note for others.
MP400 naming the argument or the key of the filter, MP503';

-- Operators --------------------------------------------------------------------

CREATE FUNCTION meal_planner.redrive_may_run(subscription text) RETURNS boolean
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    s meal_planner.subscription;
BEGIN
    SELECT * INTO s FROM meal_planner.subscription t WHERE t.name = $1;
    -- one that is gone has its letters refused
    RETURN s.name IS NULL
        OR (s.paused_at IS NULL AND NOT meal_planner.is_broken($1)
            AND meal_planner.breaker_retry_at(s.options ->> 'breaker') IS NULL);
END
$$;
COMMENT ON FUNCTION meal_planner.redrive_may_run(text) IS
'whether deliveries of a subscription would run now: not while it is paused or broken or its circuit breaker open';

CREATE FUNCTION meal_planner.change_redrive(redrive bigint, from_states text[], to_state text, reason text) RETURNS boolean
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    former text;
BEGIN
    SELECT r.state INTO former FROM meal_planner.redrive r WHERE r.id = $1 FOR UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'MP404: redrive % does not exist', $1
            USING ERRCODE = 'MP404', HINT = 'retry=no. See the view mp_redrives.';
    ELSIF former <> ALL ($2) THEN
        RETURN false;
    END IF;
    UPDATE meal_planner.redrive r
       SET state = $3, state_reason = $4, state_at = meal_planner.clock(),
           state_by = meal_planner.caller()
     WHERE r.id = $1;
    RETURN true;
END
$$;
COMMENT ON FUNCTION meal_planner.change_redrive(bigint, text[], text, text) IS
'changes the state of a redrive, after the step that is running; false when it is in none of from_states; MP404';

CREATE FUNCTION @extschema@.mp_pause_redrive(id bigint, reason text DEFAULT NULL) RETURNS boolean
LANGUAGE sql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$ SELECT meal_planner.change_redrive($1, '{running}', 'paused', $2) $$;
COMMENT ON FUNCTION @extschema@.mp_pause_redrive(bigint, text) IS
'stops a redrive until mp_resume_redrive; letters that are deliveries already go on. False when it is not running. MP404';

CREATE FUNCTION @extschema@.mp_resume_redrive(id bigint) RETURNS boolean
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    -- One that failed its canary begins with another.
    IF NOT meal_planner.change_redrive($1, '{paused}', 'running', NULL) THEN
        RETURN false;
    END IF;
    UPDATE meal_planner.redrive r SET tried = 0 WHERE r.id = $1;
    RETURN true;
END
$$;
COMMENT ON FUNCTION @extschema@.mp_resume_redrive(bigint) IS
'goes on with a redrive that is paused; one whose canary has not come to an end begins with the next canary letters. False when it is not paused. MP404';

CREATE FUNCTION @extschema@.mp_cancel_redrive(id bigint, reason text DEFAULT NULL) RETURNS boolean
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    left_over int;
BEGIN
    IF NOT meal_planner.change_redrive($1, '{running,paused}', 'cancelled', $2) THEN
        RETURN false;
    END IF;
    -- What was not made a delivery will not be; what was is counted to its end.
    UPDATE meal_planner.redrive_part p
       SET up_to = p.after_position,
           positions = (SELECT coalesce(array_agg(u.position) FILTER (WHERE u.replay > 0), '{}')
                          FROM unnest(p.positions, p.replays) u (position, replay)),
           replays = array_remove(p.replays, 0)
     WHERE p.redrive = $1;
    DELETE FROM meal_planner.redrive_part p WHERE p.redrive = $1 AND p.positions = '{}';
    SELECT coalesce(sum(cardinality(p.positions)), 0) INTO left_over FROM meal_planner.redrive_part p WHERE p.redrive = $1;
    UPDATE meal_planner.redrive r
       SET in_flight = left_over, ended_at = CASE WHEN left_over = 0 THEN meal_planner.clock() END
     WHERE r.id = $1;
    RETURN true;
END
$$;
COMMENT ON FUNCTION @extschema@.mp_cancel_redrive(bigint, text) IS
'ends a redrive: letters that are deliveries already go on, the others stay dead. False when it has ended. MP404';

CREATE VIEW @extschema@.mp_redrives AS
SELECT r.id, r.state, r.letters, r.done, r.failed, r.blocked, r.refused, r.skipped, r.in_flight,
       CASE WHEN r.state = 'done' THEN 0
            ELSE greatest(r.letters - r.done - r.failed - r.blocked - r.refused - r.skipped - r.in_flight, 0) END AS remaining,
       r.trying, w.waiting_for, r.max_per_second, r.canary, r.force, r.filter, r.requested_by, r.reason, r.created_at,
       r.state_reason, r.state_by, r.state_at, r.ended_at
  FROM meal_planner.redrive r
  LEFT JOIN LATERAL (
       SELECT array_agg(DISTINCT p.subscription ORDER BY p.subscription) AS waiting_for
         FROM meal_planner.redrive_part p
        WHERE p.redrive = r.id AND r.state = 'running' AND p.after_position < p.up_to
          AND NOT meal_planner.redrive_may_run(p.subscription)) w ON true;
COMMENT ON VIEW @extschema@.mp_redrives IS
'redrives of dead letters: how many letters there were, and of these done, failed again, blocked by another dead letter of their order key, refused, skipped (no longer dead), in flight and remaining; trying: the canary runs; waiting_for: subscriptions that are paused, broken or have their breaker open; who asked for it, why, and who changed its state. mp_pause_redrive, mp_resume_redrive, mp_cancel_redrive';
