-- How many retries a subscription may make (option retry_budget).  The buckets
-- are in shared memory; a retry without a token stays where it is, due.

CREATE FUNCTION meal_planner.take_retry(subscription text) RETURNS boolean
LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'mp_take_retry';
COMMENT ON FUNCTION meal_planner.take_retry(text) IS
'takes a token for a retry, for good; false: there is none. Always true for a subscription without a budget';

CREATE FUNCTION meal_planner.retry_ready_at(subscription text) RETURNS timestamptz
LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'mp_retry_ready_at';
COMMENT ON FUNCTION meal_planner.retry_ready_at(text) IS
'when there will be a token for a retry; NULL: there is one, or there is no budget';

CREATE FUNCTION meal_planner.retry_budget(
    subscription text,
    OUT tokens float8, OUT ready_at timestamptz, OUT per_second float8, OUT burst float8, OUT per_success float8)
RETURNS SETOF record
LANGUAGE c VOLATILE STRICT SECURITY DEFINER PARALLEL UNSAFE ROWS 1
AS 'MODULE_PATHNAME', 'mp_retry_budgets';
COMMENT ON FUNCTION meal_planner.retry_budget(text) IS 'what mp_retry_budgets shows of a subscription; no row without a budget';

CREATE VIEW @extschema@.mp_retry_budgets AS
SELECT s.name AS subscription, b.tokens, b.ready_at, b.per_second, b.burst, b.per_success,
       (SELECT count(*)
          FROM (SELECT FROM meal_planner.delivery d
                 WHERE d.subscription = s.name AND d.token IS NULL AND d.attempt > 0
                   AND d.next_attempt_at <= meal_planner.clock()
                 LIMIT 10000) due) AS waiting
  FROM meal_planner.subscription s
 CROSS JOIN LATERAL meal_planner.retry_budget(s.name) b
 WHERE s.options ? 'retry_budget';
COMMENT ON VIEW @extschema@.mp_retry_budgets IS
'retry budgets: tokens left, when there will be one (ready_at; NULL: now), what brings them, and how many retries are due and wait for one (10000: that many or more)';
