# What the tests of sagas under faults share: steps that fail as the input says, a
# worker for those outside, and what has to hold when all of them have ended.
#
#   completed:   every step has had its effect once, and none was undone;
#   compensated: nothing of any step is left, what was undone had begun, and
#                it was undone backwards;
#   pivot:       once it has succeeded nothing is undone any more.
package SagaCheck;

use strict;
use warnings;

use Test::More;

# setup(node): tables, functions, the view net and the procedure work(most).
sub setup
{
	my ($node) = @_;

	$node->safe_psql('postgres', <<'EOS');
-- no unique constraint: what is done twice shall show
CREATE TABLE effect (saga uuid, step text, direction text);
-- the world outside: a service that knows its keys, and that an undo comes for good
CREATE TABLE outside (key text PRIMARY KEY, saga uuid, step text, undone boolean);

-- input.plan: {step: {fails, sqlstate, dies, silent}}, "step!" for its undo
CREATE FUNCTION plan_of(s jsonb) RETURNS jsonb LANGUAGE sql AS $$
    SELECT s #> ARRAY['input', 'plan', (s ->> 'step') || CASE s ->> 'direction' WHEN 'compensate' THEN '!' ELSE '' END]
$$;
CREATE FUNCTION act(s jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    plan jsonb := plan_of(s);
BEGIN
    INSERT INTO effect VALUES ((s ->> 'saga_id')::uuid, s ->> 'step', s ->> 'direction');
    IF (s ->> 'attempt')::int <= (plan ->> 'dies')::int THEN
        PERFORM pg_terminate_backend(pg_backend_pid());
        PERFORM pg_sleep(1);
    ELSIF (s ->> 'attempt')::int <= (plan ->> 'fails')::int THEN
        RAISE EXCEPTION 'no luck' USING ERRCODE = plan ->> 'sqlstate';
    END IF;
    RETURN jsonb_build_object('by', s ->> 'step');
END
$$;
CREATE PROCEDURE work(most int) LANGUAGE plpgsql AS $$
DECLARE
    c    record;
    plan jsonb;
    name text;
BEGIN
    FOR n IN 1 .. most LOOP
        SELECT * INTO c FROM mp_claim_saga_steps('svc', 1, 0.4);
        EXIT WHEN NOT FOUND;
        COMMIT;
        plan := plan_of(c.input);
        name := replace(c.idempotency_key, ':compensate', ':forward');
        IF c.attempt <= (plan ->> 'fails')::int THEN
            PERFORM mp_fail_saga_step(c.token, CASE plan ->> 'sqlstate' WHEN 'MPT01' THEN 'transient' ELSE 'permanent' END, 'no luck');
        ELSE
            IF c.direction = 'forward' THEN
                INSERT INTO outside VALUES (name, c.saga_id, c.step, false) ON CONFLICT DO NOTHING;
            ELSE
                INSERT INTO outside VALUES (name, c.saga_id, c.step, true) ON CONFLICT (key) DO UPDATE SET undone = true;
            END IF;
            COMMIT;
            IF c.attempt > coalesce((plan ->> 'silent')::int, 0) THEN
                PERFORM mp_complete_saga_step(c.token, jsonb_build_object('by', 'svc'));
            END IF;
        END IF;
        COMMIT;
    END LOOP;
END
$$;

-- One row for each step of each saga: what was done, what was undone.
CREATE VIEW net AS
SELECT s.id, s.state, d.step ->> 'name' AS step, d.step ->> 'kind' AS kind, d.step ? 'service' AS outside, d.step -> 'after' AS after,
       CASE WHEN d.step ? 'service' THEN (SELECT count(*) FROM outside o WHERE o.saga = s.id AND o.step = d.step ->> 'name')
            ELSE (SELECT count(*) FROM effect e WHERE e.saga = s.id AND e.step = d.step ->> 'name' AND e.direction = 'forward') END AS done,
       CASE WHEN d.step ? 'service' THEN (SELECT count(*) FROM outside o WHERE o.saga = s.id AND o.step = d.step ->> 'name' AND o.undone)
            ELSE (SELECT count(*) FROM effect e WHERE e.saga = s.id AND e.step = d.step ->> 'name' AND e.direction = 'compensate') END AS undone,
       (SELECT min(l.seq) FROM meal_planner.saga_log l WHERE l.account = s.account AND l.saga_id = s.id AND l.step = d.step ->> 'name'
           AND l.direction = 'forward' AND l.entry IN ('started', 'succeeded')) AS began,
       (SELECT max(l.seq) FROM meal_planner.saga_log l WHERE l.account = s.account AND l.saga_id = s.id AND l.step = d.step ->> 'name'
           AND l.direction = 'forward' AND l.entry = 'succeeded') AS succeeded,
       (SELECT count(*) FROM meal_planner.saga_log l WHERE l.account = s.account AND l.saga_id = s.id AND l.step = d.step ->> 'name'
           AND l.direction = 'forward' AND l.entry = 'succeeded') AS successes,
       (SELECT min(l.seq) FROM meal_planner.saga_log l WHERE l.account = s.account AND l.saga_id = s.id AND l.step = d.step ->> 'name'
           AND l.direction = 'compensate' AND l.entry IN ('started', 'succeeded')) AS undo_began,
       (SELECT max(l.seq) FROM meal_planner.saga_log l WHERE l.account = s.account AND l.saga_id = s.id AND l.step = d.step ->> 'name'
           AND l.direction = 'compensate' AND l.entry = 'succeeded') AS undo_ended,
       (SELECT count(*) FROM meal_planner.saga_log l WHERE l.account = s.account AND l.saga_id = s.id AND l.step = d.step ->> 'name'
           AND l.direction = 'compensate' AND l.entry = 'succeeded') AS undos
  FROM meal_planner.saga s
  JOIN meal_planner.saga_definition f ON f.name = s.name AND f.version = s.version
 CROSS JOIN jsonb_array_elements(f.definition -> 'steps') d (step)
EOS
	return;
}

my @claims = (
	[ 'no row is left behind', 'SELECT saga_id::text FROM meal_planner.saga_step UNION ALL SELECT token::text FROM meal_planner.saga_batch' ],
	[ 'completed: every step once, none undone',
		"SELECT id, step, done, undone FROM net WHERE state = 'completed' AND (done <> 1 OR undone <> 0 OR undos <> 0 OR successes <> 1)" ],
	[ 'compensated: nothing is left of any step',
		"SELECT id, step, done, undone FROM net WHERE state = 'compensated' AND kind <> 'read_only' AND done <> undone" ],
	[ 'no effect of a function without its entry, none twice',
		'SELECT id, step, done, successes, undone, undos FROM net WHERE NOT outside AND (done <> successes OR undone <> undos OR done > 1 OR undone > 1)' ],
	[ 'only what had begun was undone, and after that it did not succeed any more',
		'SELECT id, step FROM net WHERE undo_began IS NOT NULL AND (began IS NULL OR began > undo_began OR succeeded > undo_began)' ],
	[ 'undone backwards', <<'EOS' ],
WITH RECURSIVE behind AS (
    SELECT n.id, n.step, a.name AS before FROM net n CROSS JOIN jsonb_array_elements_text(n.after) a (name)
    UNION
    SELECT b.id, b.step, a.name FROM behind b JOIN net n ON n.id = b.id AND n.step = b.before CROSS JOIN jsonb_array_elements_text(n.after) a (name))
SELECT b.id, b.step, b.before FROM behind b JOIN net x ON x.id = b.id AND x.step = b.step JOIN net y ON y.id = b.id AND y.step = b.before
 WHERE x.undo_ended IS NOT NULL AND y.undo_began IS NOT NULL AND x.undo_ended > y.undo_began
EOS
	[ 'nothing is undone once the pivot has succeeded',
		"SELECT n.id, n.step FROM net n JOIN net p ON p.id = n.id AND p.kind = 'pivot' AND p.succeeded IS NOT NULL WHERE n.undo_began IS NOT NULL" ],
	[ 'one event tells of each end', <<'EOS' ],
SELECT s.id, s.state, count(e.*) FROM meal_planner.saga s
  LEFT JOIN meal_planner.event e ON e.detail ->> 'saga_id' = s.id::text AND e.detail_type = CASE s.state WHEN 'completed' THEN 'Done' ELSE 'Undone' END
 GROUP BY s.id, s.state HAVING count(e.*) <> 1
EOS
	[ 'and no other', "SELECT e.id FROM meal_planner.event e WHERE e.detail_type IN ('Done', 'Undone') AND NOT EXISTS (SELECT FROM meal_planner.saga s WHERE s.id::text = e.detail ->> 'saga_id')" ]);

# check(node, what): every saga has ended, and what is left of each agrees with how.
sub check
{
	my ($node, $what) = @_;

	is($node->safe_psql('postgres', $_->[1]), '', "$what: $_->[0]") for @claims;
	return;
}

# violations(): the same as one query, which finds nothing when all is well.
sub violations
{
	return join(";\n", map { "SELECT '$_->[0]: ' || q::text FROM ($_->[1]) q" } @claims);
}

1;
