-- What is remembered for a time is looked at with its expiry, so that purging
-- only tidies up.  Keys lie in buckets, which are emptied as a whole: nothing is
-- deleted row by row, so nothing bloats.

CREATE FUNCTION meal_planner.ends_alive(bucket regclass, moment timestamptz) RETURNS boolean
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    last_pages tid := format('(%s,0)', greatest(pg_relation_size(bucket) / current_setting('block_size')::int - 8, 0));
    alive      boolean;
BEGIN
    EXECUTE format('SELECT EXISTS (SELECT FROM %s b WHERE b.ctid >= $1 AND b.expires_at > $2)', bucket)
       INTO alive USING last_pages, moment;
    RETURN alive;
END
$$;
COMMENT ON FUNCTION meal_planner.ends_alive(regclass, timestamptz) IS
'whether a key on the last pages of a bucket has not expired at that moment: what was written last has most of its time before it';

CREATE FUNCTION meal_planner.has_expired(bucket regclass, moment timestamptz) RETURNS boolean
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    alive boolean;
BEGIN
    EXECUTE format('SELECT EXISTS (SELECT FROM %s b WHERE b.expires_at > $1)', bucket) INTO alive USING moment;
    RETURN NOT alive;
END
$$;
COMMENT ON FUNCTION meal_planner.has_expired(regclass, timestamptz) IS 'whether all keys in a bucket have expired at that moment';

CREATE FUNCTION meal_planner.empty_bucket(bucket regclass, moment timestamptz) RETURNS boolean
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '100ms' -- whoever comes after us waits as long
AS $$
BEGIN
    -- Who keeps keys for another time may be writing to it: not even a lock is
    -- asked for then, since those who come after us would wait.
    IF pg_relation_size(bucket) = 0 OR meal_planner.ends_alive(bucket, moment) THEN
        RETURN false;
    END IF;
    -- Nobody writes to it now, and all it holds has expired, unless the clock or
    -- a setting was changed: asked with a lock that readers do not wait for, since
    -- it takes long when all is well, and that only one sweep has.
    EXECUTE format('LOCK TABLE %s IN SHARE ROW EXCLUSIVE MODE', bucket);
    IF NOT meal_planner.has_expired(bucket, moment) THEN
        RAISE object_in_use; -- so that the lock is gone, too
    END IF;
    EXECUTE format('TRUNCATE %s', bucket);
    RETURN true;
EXCEPTION
    -- It stays spare for a long time; a later sweep finds a better moment.
    WHEN lock_not_available OR deadlock_detected OR object_in_use THEN
        RETURN false;
END
$$;
COMMENT ON FUNCTION meal_planner.empty_bucket(regclass, timestamptz) IS
'empties a bucket in which all keys have expired at that moment, and says whether it did; not one that somebody is using';

CREATE FUNCTION meal_planner.sweep_purge() RETURNS boolean
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    moment timestamptz := meal_planner.clock();
    spare  regclass;
BEGIN
    -- An older snapshot does not show all that is to be kept.
    PERFORM meal_planner.read_committed_only();
    FOR spare IN
        SELECT format('meal_planner.operation_%s', meal_planner.operation_spare(level, moment))::regclass
          FROM generate_series(0, 2) level
         UNION ALL
        SELECT format('meal_planner.idempotency_key_%s', meal_planner.key_spare(moment))::regclass
    LOOP
        -- Who looks for a key waits for the end of this transaction.
        IF meal_planner.empty_bucket(spare, moment) THEN
            RETURN true;
        END IF;
    END LOOP;
    RETURN meal_planner.purge_sagas(10000) = 10000;
END
$$;
COMMENT ON FUNCTION meal_planner.sweep_purge() IS
'empties a bucket in which all keys of events or operations have expired, or removes some sagas that ended long ago; true: there may be more. No answer changes by it, since expiry is checked when a key is read';
