-- A replay delivers events of the log again, to one subscription only.  It is a
-- second cursor of that subscription, with an end, a pattern and a name; nothing
-- is appended.  The sweep takes its stretches like batches, consumers claim
-- them.  What fails becomes a delivery that carries the replay's name.

CREATE TABLE meal_planner.replay (
    account        text        NOT NULL,
    subscription   text        NOT NULL,
    id             bigint      NOT NULL,
    name           text        NOT NULL,
    pattern        jsonb,
    after_position bigint      NOT NULL,
    up_to          bigint      NOT NULL,
    events         bigint      NOT NULL,
    max_per_second float8,
    created_at     timestamptz NOT NULL,
    PRIMARY KEY (account, subscription, id)
);
COMMENT ON TABLE meal_planner.replay IS
'replays that are not done; of one subscription in an account the lowest id is the one that runs';
COMMENT ON COLUMN meal_planner.replay.id IS 'of the call of mp_replay, the same in every account';
COMMENT ON COLUMN meal_planner.replay.events IS 'how many matched when it was asked for';
SELECT pg_extension_config_dump('meal_planner.replay', '');

-- A ledger like subscription_cursor, and for the same reason.
CREATE TABLE meal_planner.replay_cursor (
    account      text        NOT NULL,
    subscription text        NOT NULL,
    replay       bigint      NOT NULL,
    position     bigint      NOT NULL,
    delivered    bigint      NOT NULL,
    due          timestamptz NOT NULL,
    log_position bigint,
    PRIMARY KEY (account, subscription, replay, position)
);
COMMENT ON TABLE meal_planner.replay_cursor IS 'how far a replay has come: the highest position';
COMMENT ON COLUMN meal_planner.replay_cursor.delivered IS 'events handled, handed out or parked so far';
COMMENT ON COLUMN meal_planner.replay_cursor.due IS
'when the next stretch may begin; in the past: those of other replays that have waited longer come first';
COMMENT ON COLUMN meal_planner.replay_cursor.log_position IS
'pull: the cursor of the subscription when a consumer claimed last; once it has moved it is the replay''s turn';
SELECT pg_extension_config_dump('meal_planner.replay_cursor', '');

CREATE FUNCTION @extschema@.mp_replay_name() RETURNS text
LANGUAGE c STABLE PARALLEL RESTRICTED
AS 'MODULE_PATHNAME', 'mp_replay_name';
COMMENT ON FUNCTION @extschema@.mp_replay_name() IS
'in a handler: the name of the replay (mp_replay) that delivers the event; NULL: it is delivered for the first time, and outside of handlers';

CREATE FUNCTION @extschema@.mp_replay(
    subscription text, from_time timestamptz DEFAULT NULL, to_time timestamptz DEFAULT NULL,
    pattern jsonb DEFAULT NULL, max_per_second float8 DEFAULT NULL, name text DEFAULT NULL,
    account text DEFAULT NULL)
RETURNS bigint
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET enable_sort = off SET enable_bitmapscan = off SET enable_seqscan = off SET jit = off -- the window, by the index
AS $$
#variable_conflict use_column
DECLARE
    moment  timestamptz := meal_planner.clock();
    replay  bigint := meal_planner.next_position();
    low     bigint := coalesce(meal_planner.position_at($2) - 1, 0);
    high    bigint := meal_planner.position_at($3) - 1;
    -- what is later comes, or has come, anyway
    reached bigint;
    target  meal_planner.subscription;
    source  record;
    found_events record;
    total   bigint := 0;
BEGIN
    IF $1 IS NULL THEN
        RAISE EXCEPTION 'MP400: subscription must not be NULL'
            USING ERRCODE = 'MP400', HINT = 'retry=no. Correct the argument.';
    ELSIF $2 > $3 THEN
        RAISE EXCEPTION 'MP400: from_time must not be after to_time'
            USING ERRCODE = 'MP400', HINT = 'retry=no. Correct the arguments.';
    -- with less the next event would be due when no timestamp reaches, an error in every sweep
    ELSIF NOT ($5 >= 0.0001 AND $5 <= 1000000) THEN
        RAISE EXCEPTION 'MP400: max_per_second must be between 0.0001 and 1000000'
            USING ERRCODE = 'MP400', HINT = 'retry=no. Give NULL for as fast as it goes.';
    ELSIF NOT (length($6) BETWEEN 1 AND 200) THEN
        RAISE EXCEPTION 'MP400: name must have between 1 and 200 characters'
            USING ERRCODE = 'MP400', HINT = 'retry=no. Give NULL for one that is made up.';
    END IF;
    PERFORM @extschema@.mp_match($4, '{}'); -- MP400 naming the path
    PERFORM meal_planner.read_committed_only();
    SELECT * INTO target FROM meal_planner.subscription s WHERE s.name = $1 FOR KEY SHARE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'MP404: subscription "%" does not exist', $1
            USING ERRCODE = 'MP404', HINT = 'retry=no. See the view mp_subscriptions.';
    END IF;

    FOR source IN
        SELECT a.account FROM meal_planner.accounts(low) a (account) WHERE $7 IS NULL OR a.account = $7
    LOOP
        -- The bound first, the snapshot of the next statement second.
        reached := meal_planner.read_bound(source.account);
        IF target.mode <> 'inline' THEN
            reached := least(reached, greatest(meal_planner.cursor_position(source.account, $1),
                                               target.start_position));
        END IF;
        SELECT count(*) AS events, min(e.position) AS first, max(e.position) AS last INTO found_events
          FROM meal_planner.event e
         WHERE e.account = source.account AND e.position > low AND e.position <= least(reached, high)
           AND meal_planner.matches(target.pattern, e) AND coalesce(meal_planner.matches($4, e), true);
        CONTINUE WHEN found_events.events = 0;
        INSERT INTO meal_planner.replay
               (account, subscription, id, name, pattern, after_position, up_to, events, max_per_second, created_at)
        VALUES (source.account, $1, replay, coalesce($6, 'replay-' || replay), $4, found_events.first - 1,
                found_events.last, found_events.events, $5, moment);
        INSERT INTO meal_planner.replay_cursor (account, subscription, replay, position, delivered, due)
        VALUES (source.account, $1, replay, found_events.first - 1, 0, moment);
        total := total + found_events.events;
    END LOOP;
    RETURN total;
END
$$;
COMMENT ON FUNCTION @extschema@.mp_replay(text, timestamptz, timestamptz, jsonb, float8, text, text) IS
'delivers events of the log again, in their order, to this subscription only, and returns how many: those from from_time to before to_time that match its pattern and the given one and that it has passed already. The sweep (inline, worker) or the consumers (pull) go on with it until it is done, see mp_replays.
Deliveries are marked with the name (default: replay- and the id): replay-name in the envelope, mp_replay_name() in a handler. max_per_second: no more than that on average. account: NULL for every one. An event that has a live delivery is left to that.
Errors: MP400, MP404, MP409 in a REPEATABLE READ or SERIALIZABLE transaction, MP503';

CREATE FUNCTION @extschema@.mp_cancel_replay(id bigint) RETURNS boolean
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
BEGIN
    -- Whoever takes a stretch of it holds its row: none is taken after this, and
    -- the one that runs is waited for.
    PERFORM FROM meal_planner.replay r WHERE r.id = $1 FOR UPDATE;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    DELETE FROM meal_planner.worker_batch b WHERE b.replay = $1;
    DELETE FROM meal_planner.replay_cursor c WHERE c.replay = $1;
    DELETE FROM meal_planner.replay r WHERE r.id = $1;
    RETURN true;
END
$$;
COMMENT ON FUNCTION @extschema@.mp_cancel_replay(bigint) IS
'ends a replay, in every account, after the stretch that is running; what failed already is still retried. False: there is none of that id (any more)';

CREATE TYPE meal_planner.replay_stretch AS (
    name           text,
    after_position bigint,
    up_to          bigint,
    events         int
);
COMMENT ON TYPE meal_planner.replay_stretch IS
'what is next in a replay: (after_position, up_to] with so many events; up_to NULL: there is nothing to take';

-- Whoever moves a replay holds its row to the end of the transaction.
CREATE FUNCTION meal_planner.lock_replay(account text, subscription text, replay bigint) RETURNS boolean
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM FROM meal_planner.replay r
      WHERE r.account = $1 AND r.subscription = $2 AND r.id = $3
        FOR UPDATE SKIP LOCKED;
    RETURN FOUND;
END
$$;
COMMENT ON FUNCTION meal_planner.lock_replay(text, text, bigint) IS
'locks a replay; false when somebody else has it or it is gone';

CREATE FUNCTION meal_planner.next_stretch(
    account text, subscription text, replay bigint, max_events int, before_claims bigint DEFAULT NULL)
RETURNS meal_planner.replay_stretch
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
SET enable_sort = off SET enable_bitmapscan = off SET enable_seqscan = off SET jit = off -- in the order of the index
AS $$
#variable_conflict use_column
DECLARE
    most_read CONSTANT int := 500;
    r         meal_planner.replay;
    found_in  meal_planner.replay_stretch;
    most      int;
    page_end  bigint;
    matching  jsonb;
BEGIN
    SELECT * INTO r FROM meal_planner.replay p
     WHERE p.account = $1 AND p.subscription = $2 AND p.id = $3;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    found_in.name := r.name;
    SELECT c.position INTO found_in.after_position FROM meal_planner.replay_cursor c
     WHERE c.account = $1 AND c.subscription = $2 AND c.replay = $3
     ORDER BY c.account DESC, c.subscription DESC, c.replay DESC, c.position DESC
     LIMIT 1;
    SELECT max(page.position) INTO page_end
      FROM (SELECT e.position FROM meal_planner.event e
             WHERE e.account = $1 AND e.position > found_in.after_position
               AND e.position <= least(r.up_to, before_claims)
             ORDER BY e.position
             LIMIT most_read) page;

    -- A second's worth at a time, so that a slow replay does not come in bursts.
    most := greatest(least(max_events, ceil(coalesce(r.max_per_second, max_events)))::int, 1);
    SELECT s.pattern INTO matching FROM meal_planner.subscription s WHERE s.name = $2;
    SELECT max(m.position), count(*) INTO found_in.up_to, found_in.events
      FROM (SELECT e.position FROM meal_planner.event e
             WHERE e.account = $1 AND e.position > found_in.after_position AND e.position <= page_end
               AND meal_planner.matches(matching, e) AND coalesce(meal_planner.matches(r.pattern, e), true)
             ORDER BY e.position
             LIMIT most) m;
    IF found_in.events < most THEN
        found_in.up_to := page_end;
    END IF;
    RETURN found_in;
END
$$;
COMMENT ON FUNCTION meal_planner.next_stretch(text, text, bigint, int, bigint) IS
'the next stretch of a replay, up to the position before_claims if that is given; NULL when it is gone';

CREATE FUNCTION meal_planner.end_replay(account text, subscription text, replay bigint) RETURNS void
LANGUAGE sql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
    DELETE FROM meal_planner.replay_cursor c WHERE c.account = $1 AND c.subscription = $2 AND c.replay = $3;
    DELETE FROM meal_planner.replay r WHERE r.account = $1 AND r.subscription = $2 AND r.id = $3;
$$;
COMMENT ON FUNCTION meal_planner.end_replay(text, text, bigint) IS 'a replay is done in an account; its row is locked';

CREATE FUNCTION meal_planner.move_replay(
    account text, subscription text, replay bigint, after_position bigint, up_to bigint, events bigint,
    log_position bigint DEFAULT NULL)
RETURNS void
LANGUAGE sql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
    WITH former AS (
        DELETE FROM meal_planner.replay_cursor c
         WHERE c.account = $1 AND c.subscription = $2 AND c.replay = $3 AND c.position = $4
        RETURNING c.delivered, c.due)
    INSERT INTO meal_planner.replay_cursor
           (account, subscription, replay, position, delivered, due, log_position)
    SELECT $1, $2, $3, $5, f.delivered + $6,
           greatest(meal_planner.clock(), f.due) + make_interval(secs => coalesce($6 / r.max_per_second, 0)), $7
      FROM meal_planner.replay r, former f -- a handler may have cancelled it
     WHERE r.account = $1 AND r.subscription = $2 AND r.id = $3;
    DELETE FROM meal_planner.worker_batch b
     WHERE b.account = $1 AND b.subscription = $2 AND b.replay = $3 AND b.after_position = $4;
$$;
COMMENT ON FUNCTION meal_planner.move_replay(text, text, bigint, bigint, bigint, bigint, bigint) IS
'ends a stretch of a replay: its cursor moves from after_position to up_to, over so many events';

CREATE TYPE meal_planner.pull_stretch AS (
    replay         bigint,
    after_position bigint,
    up_to          bigint,
    left_out       bigint[],
    due            timestamptz,
    moved          boolean
);
COMMENT ON TYPE meal_planner.pull_stretch IS
'what a consumer gets of a replay: the events of (after_position, up_to] but those left out; replay NULL: nothing, at least not before due. moved: something was written';

CREATE FUNCTION meal_planner.pull_stretch(
    account text, subscription text, log_position bigint, first_claim bigint, max_events int, at_once boolean)
RETURNS meal_planner.pull_stretch
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
SET enable_sort = off SET enable_bitmapscan = off SET enable_seqscan = off SET jit = off -- in the order of the index
AS $$
#variable_conflict use_column
DECLARE
    source        record;
    before_claims bigint;
    stretch       meal_planner.replay_stretch;
    result        meal_planner.pull_stretch;
BEGIN
    result.moved := false;
    -- 10000 events that match nothing are as far as one claim looks.
    FOR n IN 1 .. 20 LOOP
        SELECT c.replay, c.position, c.due, c.log_position INTO source
          FROM meal_planner.replay_cursor c
         WHERE c.account = $1 AND c.subscription = $2
           AND c.replay = (SELECT r.id FROM meal_planner.replay r WHERE r.account = $1 AND r.subscription = $2
                            ORDER BY r.account, r.subscription, r.id LIMIT 1)
         ORDER BY c.account DESC, c.subscription DESC, c.replay DESC, c.position DESC
         LIMIT 1;
        IF NOT FOUND THEN
            RETURN result;
        ELSIF source.due > meal_planner.clock() OR (source.log_position = $3 AND NOT $6) THEN
            result.due := source.due;
            RETURN result;
        END IF;
        -- What a consumer holds is not handed out to another one.
        before_claims := NULL;
        IF $4 <> 0 THEN
            SELECT min(greatest(c.after_position, source.position)) INTO before_claims
              FROM meal_planner.consumer_claim c
             WHERE c.account = $1 AND c.subscription = $2 AND c.number >= $4 AND c.up_to > source.position;
        END IF;
        stretch := meal_planner.next_stretch($1, $2, source.replay, $5, before_claims);
        IF stretch.name IS NULL OR (stretch.up_to IS NULL AND before_claims IS NOT NULL) THEN
            RETURN result;
        ELSIF stretch.up_to IS NULL THEN
            EXIT WHEN NOT meal_planner.lock_replay($1, $2, source.replay);
            result.moved := true;
            PERFORM meal_planner.end_replay($1, $2, source.replay);
        ELSIF stretch.events = 0 THEN
            EXIT WHEN NOT meal_planner.lock_replay($1, $2, source.replay);
            result.moved := true;
            PERFORM meal_planner.move_replay($1, $2, source.replay, stretch.after_position, stretch.up_to, 0,
                                             source.log_position);
        ELSE
            result.replay := source.replay;
            result.after_position := stretch.after_position;
            result.up_to := stretch.up_to;
            SELECT coalesce(array_agg(e.position), '{}') INTO result.left_out
              FROM meal_planner.event e
              JOIN meal_planner.subscription s ON s.name = $2
              JOIN meal_planner.replay r ON r.account = $1 AND r.subscription = $2 AND r.id = source.replay
             WHERE e.account = $1 AND e.position > stretch.after_position AND e.position <= stretch.up_to
               AND meal_planner.matches(s.pattern, e)
               AND (NOT coalesce(meal_planner.matches(r.pattern, e), true)
                    OR EXISTS (SELECT FROM meal_planner.delivery d
                                WHERE d.account = $1 AND d.subscription = $2 AND d.position = e.position));
            RETURN result;
        END IF;
    END LOOP;
    RETURN result;
END
$$;
COMMENT ON FUNCTION meal_planner.pull_stretch(text, text, bigint, bigint, int, boolean) IS
'the next stretch of the first replay of a pull subscription, before what consumers hold; passes what matches nothing; under order_lock. at_once: although the log has not moved since the last one, whose turn it would be';

CREATE VIEW @extschema@.mp_replays AS
SELECT r.id, r.name, r.subscription, r.account, r.pattern, r.events, c.delivered,
       meal_planner.position_time(r.after_position) AS from_time, meal_planner.position_time(r.up_to) AS to_time,
       meal_planner.position_time(c.position) AS reached_time, r.max_per_second, r.created_at,
       CASE WHEN s.paused_at IS NOT NULL THEN 'paused'
            WHEN EXISTS (SELECT FROM meal_planner.replay p
                          WHERE p.account = r.account AND p.subscription = r.subscription AND p.id < r.id)
            THEN 'waiting' ELSE 'running' END AS status
  FROM meal_planner.replay r
  LEFT JOIN meal_planner.subscription s ON s.name = r.subscription
 CROSS JOIN LATERAL (
       SELECT p.position, p.delivered FROM meal_planner.replay_cursor p
        WHERE p.account = r.account AND p.subscription = r.subscription AND p.replay = r.id
        ORDER BY p.account DESC, p.subscription DESC, p.replay DESC, p.position DESC
        LIMIT 1) c;
COMMENT ON VIEW @extschema@.mp_replays IS
'replays that are not done, one row per account: events: how many matched when it was asked for, delivered: how many it has gone through; status running, waiting (an earlier one of the subscription comes first) or paused (with its subscription); mp_cancel_replay(id)';
