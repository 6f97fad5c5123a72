-- Steps that are not over at once: those that a service does, while they may be
-- claimed or are out, and any that wait for their next attempt.  Workers claim
-- the former under a lease; the token fences off who comes too late.

CREATE TABLE meal_planner.saga_step (
    account     text        NOT NULL,
    saga_id     uuid        NOT NULL,
    step        text        NOT NULL,
    direction   text        NOT NULL CHECK (direction IN ('forward', 'compensate')),
    service     text,
    attempt     int         NOT NULL,
    run         int         NOT NULL,
    crashes     int         NOT NULL,
    first_at    timestamptz,
    due_at      timestamptz NOT NULL,
    token       uuid,
    started_at  timestamptz,
    lease_until timestamptz,
    permit      bigint,
    PRIMARY KEY (account, saga_id, step),
    CHECK ((token IS NULL) = (lease_until IS NULL) AND (token IS NULL) = (started_at IS NULL))
);
COMMENT ON TABLE meal_planner.saga_step IS
'steps of sagas that a service may claim or has claimed, and steps that wait for their next attempt';
COMMENT ON COLUMN meal_planner.saga_step.service IS 'whose workers do it; NULL: it is a function, which waits';
COMMENT ON COLUMN meal_planner.saga_step.attempt IS 'attempts so far, that which is out included';
COMMENT ON COLUMN meal_planner.saga_step.run IS 'of the attempt that is out: no other one''s outcome counts';
COMMENT ON COLUMN meal_planner.saga_step.first_at IS 'when the first attempt in this direction began or failed';
COMMENT ON COLUMN meal_planner.saga_step.token IS 'of the worker''s claim; NULL: nobody has it';
COMMENT ON COLUMN meal_planner.saga_step.permit IS 'of the step''s circuit breaker';
CREATE INDEX saga_step_due ON meal_planner.saga_step (account, service, due_at)
    WHERE token IS NULL AND service IS NOT NULL;
CREATE INDEX saga_step_token ON meal_planner.saga_step (token) WHERE token IS NOT NULL;
SELECT pg_extension_config_dump('meal_planner.saga_step', '');

CREATE FUNCTION @extschema@.mp_claim_saga_steps(
    service text, max_steps int DEFAULT 10, lease_seconds float8 DEFAULT 60, account text DEFAULT 'local')
RETURNS TABLE (token uuid, saga_id uuid, step text, direction text, attempt int, idempotency_key text, input jsonb)
LANGUAGE c VOLATILE SECURITY DEFINER PARALLEL UNSAFE ROWS 10
AS 'MODULE_PATHNAME', 'mp_claim_saga_steps';
COMMENT ON FUNCTION @extschema@.mp_claim_saga_steps(text, int, float8, text) IS
'claims up to max_steps steps of sagas for the workers of a service, for lease_seconds each, or the step''s timeout_seconds if that is less: nobody else gets them until they are completed, failed or the lease has ended. No row: nothing is due; NOTIFY mp_claim tells {"service", "account"} of what comes.
direction: forward, or compensate: undo it, also when it has never happened. idempotency_key: the same for every attempt of a step in a direction; hand it on to the service. input: {"saga_id","account","step","direction","attempt","idempotency_key","input","results": {step: result}}.
Commit before calling the service: an attempt counts once it is committed.
Errors: MP400, MP503; 40001 (retry the transaction) in a REPEATABLE READ or SERIALIZABLE transaction when somebody was faster.';

CREATE FUNCTION @extschema@.mp_complete_saga_step(token uuid, result jsonb) RETURNS text
LANGUAGE c VOLATILE SECURITY DEFINER PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'mp_complete_saga_step';
COMMENT ON FUNCTION @extschema@.mp_complete_saga_step(uuid, jsonb) IS
'a step that was claimed is done; its result is there for the steps behind it. Returns the state of the saga; lease_lost when the claim is no more: its lease has ended and somebody has noticed, or the saga goes back without it; nothing is changed then. MP400; 40001: retry the transaction';

CREATE FUNCTION @extschema@.mp_fail_saga_step(token uuid, error_type text, error_message text) RETURNS text
LANGUAGE c VOLATILE SECURITY DEFINER PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'mp_fail_saga_step';
COMMENT ON FUNCTION @extschema@.mp_fail_saga_step(uuid, text, text) IS
'a step that was claimed has failed. error_type transient: it is tried again after the backoff of its policy, until its attempts are used up; permanent: it is not; unknown: nobody knows whether it has had its effect, it is tried again with the same idempotency key. Returns the state of the saga; lease_lost as mp_complete_saga_step. MP400; 40001: retry the transaction';

CREATE FUNCTION @extschema@.mp_extend_saga_step(token uuid, lease_seconds float8) RETURNS boolean
LANGUAGE c VOLATILE SECURITY DEFINER PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'mp_extend_saga_step';
COMMENT ON FUNCTION @extschema@.mp_extend_saga_step(uuid, float8) IS
'heartbeat: the lease of a claimed step ends lease_seconds from now, never later than its timeout_seconds allow; false when the claim is no more. MP400; 40001: retry the transaction';
