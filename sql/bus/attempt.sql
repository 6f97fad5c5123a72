-- What is kept of a failed attempt.  It lies in the row of the delivery that
-- failed, and moves with it into the dead letter: where nothing failed there is
-- nothing, and nothing is left behind when it ends well.  A history is an array
-- of them, the oldest first.

CREATE FUNCTION meal_planner.failed_attempt(
    attempt int, counted boolean, seconds float8, "sqlstate" text, message text, verdict text, worker text)
RETURNS jsonb
LANGUAGE sql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT jsonb_build_array(jsonb_strip_nulls(jsonb_build_object(
        'attempt', $1, 'counted', $2,
        'at', to_char(meal_planner.clock() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
        'seconds', $3, 'sqlstate', $4, 'message', left($5, 4000), 'verdict', $6, 'worker', left($7, 4000))))
$$;
COMMENT ON FUNCTION meal_planner.failed_attempt(int, boolean, float8, text, text, text, text) IS
'the history of one attempt, which failed now: attempt (its number), counted (whether it used that number up), at, seconds, sqlstate, message, detail, hint, context, verdict (retry, or why there was no other), worker (the consumer''s name) or pid (the process that ran the handler), replay_name; in a dead letter also replay (after which replay of it, if any). What is not known is left out; texts are cut to 4000';

-- Where histories are short, || does without a call.
CREATE FUNCTION meal_planner.join_history(history jsonb, later jsonb) RETURNS jsonb
LANGUAGE plpgsql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    joined jsonb := $1 || $2;
BEGIN
    IF jsonb_array_length(joined) > 100 THEN
        RETURN jsonb_path_query_array(joined, '$[0, last - 98 to last]');
    END IF;
    RETURN joined;
END
$$;
COMMENT ON FUNCTION meal_planner.join_history(jsonb, jsonb) IS
'two histories as one of at most 100 attempts, the first and the last 99';

CREATE FUNCTION meal_planner.stamp_history(history jsonb, replay int) RETURNS jsonb
LANGUAGE plpgsql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF $2 = 0 OR $1 = '[]' THEN
        RETURN $1;
    END IF;
    RETURN (SELECT jsonb_agg(jsonb_build_object('replay', $2) || a.attempt ORDER BY a.ordinality)
              FROM jsonb_array_elements($1) WITH ORDINALITY AS a (attempt));
END
$$;
COMMENT ON FUNCTION meal_planner.stamp_history(jsonb, int) IS
'the history of a delivery as its dead letter keeps it: each attempt says after which replay of the letter it was';
