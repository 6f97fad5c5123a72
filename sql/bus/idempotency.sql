CREATE TABLE meal_planner.idempotency_key (
    account     text        NOT NULL,
    scope       text        NOT NULL,
    key         text        NOT NULL,
    fingerprint bytea       NOT NULL,
    event_id    uuid        NOT NULL,
    expires_at  timestamptz NOT NULL,
    PRIMARY KEY (account, scope, key)
);
COMMENT ON TABLE meal_planner.idempotency_key IS
'keys given to mp_emit_event: scope is the source, fingerprint the SHA-256 of the content, event_id the answer; expired rows are as good as absent';
CREATE INDEX idempotency_key_expires_at ON meal_planner.idempotency_key (expires_at);
SELECT pg_extension_config_dump('meal_planner.idempotency_key', '');

CREATE FUNCTION meal_planner.purge_idempotency_keys(max_keys int DEFAULT 10000) RETURNS bigint
LANGUAGE sql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET jit = off SET enable_hashjoin = off SET enable_mergejoin = off -- only what expired is looked at
AS $$
    WITH expired AS (
        SELECT k.account, k.scope, k.key
          FROM meal_planner.idempotency_key k
         WHERE k.expires_at <= (SELECT meal_planner.clock()) -- once, so that the index can be asked
         ORDER BY k.expires_at
         LIMIT max_keys
           FOR UPDATE SKIP LOCKED),
    purged AS (
        DELETE FROM meal_planner.idempotency_key k
         USING expired x
         WHERE (k.account, k.scope, k.key) = (x.account, x.scope, x.key)
        RETURNING 1)
    SELECT count(*) FROM purged
$$;
COMMENT ON FUNCTION meal_planner.purge_idempotency_keys(int) IS
'removes expired keys, at most max_keys; no answer changes by it, since expiry is checked when a key is read';
