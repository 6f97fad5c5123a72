# A dump restores: into another database of the server and into another server,
# from the custom format and from the plain one, without an error line and
# without firing a handler, and the log goes on where it ended.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use MealPlannerCluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $dir = PostgreSQL::Test::Utils::tempdir;
my $node = MealPlannerCluster->create('dump');
my $other = MealPlannerCluster->create('other', conf => "meal_planner.node_id = 7\n");

$_->start for $node, $other;

# A database with something in every table, and with the clock two days ahead,
# so that what is restored is ahead of the clock of the server.
$node->safe_psql('postgres', 'CREATE DATABASE kitchen');
$node->safe_psql('kitchen', <<'EOS');
CREATE EXTENSION meal_planner;
SET meal_planner.clock_offset = 172800;
CREATE TABLE calls (handler text, event_id uuid);
CREATE FUNCTION on_inline(e meal_planner.event) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO public.calls VALUES ('inline', e.id);
    IF e.detail ? 'fail' THEN
        RAISE EXCEPTION 'told to' USING ERRCODE = e.detail ->> 'fail';
    END IF;
END
$$;
CREATE FUNCTION on_worker(e meal_planner.event) RETURNS void LANGUAGE sql AS $$
    INSERT INTO public.calls VALUES (CASE WHEN public.mp_replay_name() = 'dumped' THEN 'replay' ELSE 'worker' END, e.id)
$$;
SELECT mp_subscribe('inline', '{"detail-type":["Dish"]}', 'on_inline(meal_planner.event)', options => '{"max_attempts":4}');
SELECT mp_subscribe('worker', '{"detail-type":["Dish"]}', 'on_worker(meal_planner.event)', 'worker');
SELECT mp_subscribe('puller', '{"detail-type":["Dish"]}', NULL, 'pull');
INSERT INTO meal_planner.error_class VALUES ('subscription:inline', 'P0001', 'transient');
UPDATE meal_planner.error_class SET class = 'transient' WHERE service = 'postgres' AND code = '23';
-- shipped, and changed; shipped rows refer to each of these
SELECT mp_pause_subscription('recipe_created', 'once'), mp_resume_subscription('recipe_created'), mp_pause_subscription('shopping_list_created');
INSERT INTO meal_planner.aisle (name, sort_order) VALUES ('Cellar', 99);
UPDATE meal_planner.aisle SET sort_order = 77 WHERE name = (SELECT aisle FROM meal_planner.food WHERE name = 'all-purpose flour');
UPDATE meal_planner.unit SET plural = 'Pfund' WHERE code = 'lb';
UPDATE meal_planner.nutrient SET name = 'Salt' WHERE code = 'sodium';
UPDATE meal_planner.food SET aisle = 'Cellar', grams_per_ml = 0.6 WHERE name = 'all-purpose flour';
UPDATE meal_planner.food_measure SET grams = 111 WHERE food = 'all-purpose flour' AND unit = 'cup';
UPDATE meal_planner.food_nutrient SET per_100g = 9.9 WHERE food = 'all-purpose flour' AND nutrient = 'protein';
UPDATE meal_planner.food_alias SET food = 'all-purpose flour' WHERE alias = (SELECT min(alias) FROM meal_planner.food_alias);
UPDATE meal_planner.unit_alias SET unit = 'lb' WHERE alias = (SELECT min(alias) FROM meal_planner.unit_alias);

SELECT mp_emit_event('Dish', jsonb_build_object('n', n), stream => 'dish-' || n % 3, idempotency_key => 'key-' || n)
  FROM generate_series(1, 50) n;
SELECT mp_emit_event('Dish', '{"n":51,"text":"tab\there, \\ backslash, \"quotes\", umlaut \u00fc"}', account => 'other');
SELECT mp_emit_event('Dish', '{"n":52,"fail":"MPT01"}');
SELECT mp_emit_event('Dish', '{"n":53,"fail":"MPP01"}');
SELECT mp_emit_event('Dish', '{"n":54}', deliver_after => meal_planner.clock() + interval '1 hour');
-- sagas: one that has ended, one that waits for its next attempt, one whose step a worker holds, one that is blocked
CREATE FUNCTION act(s jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO public.calls VALUES ('saga ' || (s ->> 'step') || ' ' || (s ->> 'direction'), (s ->> 'saga_id')::uuid);
    IF s #>> '{input,fail}' = s ->> 'step' AND (s ->> 'attempt')::int = 1 THEN
        RAISE EXCEPTION 'told to' USING ERRCODE = 'MPT01';
    END IF;
    RETURN '{"done": true}';
END
$$;
SELECT mp_define_saga('dumped', '{"steps": [{"name": "a", "kind": "compensatable", "run": "act(jsonb)", "undo": "act(jsonb)"}, {"name": "b", "kind": "pivot", "service": "out"}, {"name": "c", "kind": "retriable", "run": "act(jsonb)"}], "locks": ["thing:{input.thing}"]}');
SELECT mp_start_saga('dumped', '{"thing": 1}', 'ended'), mp_start_saga('dumped', '{"thing": 2, "fail": "a"}', 'waits'), mp_start_saga('dumped', '{"thing": 3}', 'out');
CALL mp_sweep();
SELECT mp_complete_saga_step(c.token, '1') FROM mp_claim_saga_steps('out', 1) c;
SELECT mp_start_saga('dumped', '{"thing": 3}', 'blocked');
CALL mp_sweep();
SELECT step FROM mp_claim_saga_steps('out', lease_seconds => 86400);
CALL mp_sweep();
-- some that the worker has not got yet, and a second partition
SELECT mp_emit_event('Dish', '{"n":55}');
SET meal_planner.clock_offset = 900000;
SELECT mp_emit_event('Dish', '{"n":56}');
SELECT mp_pause_subscription('worker', 'for the dump');
SELECT mp_replay('worker', pattern => '{"detail":{"n":[1,2]}}', name => 'dumped');
SELECT mp_set_retention(3650.5), mp_set_retention(365, 'history');
SELECT mp_acknowledge_alert(id, 'for the dump') FROM mp_alerts;
SELECT mp_mark_processed('e1', 'mailer', result => '{"n": 1.50}'), mp_begin_operation('mailer', 'e2', '{"to": "a"}', on_owner_lost => 'block');
-- a worker that is gone by then
INSERT INTO meal_planner.saga_batch VALUES ('local', 1, '{}');
-- as retention leaves a stream whose events it has dropped
INSERT INTO meal_planner.stream (account, stream, dropped_version) VALUES ('local', 'dropped', 7);
SELECT mp_create_recipe('{"name":"Bread","servings":4,"ingredients":["500 g flour","2 tsp salt"],"meal_types":["dinner"]}')
 WHERE to_regprocedure('mp_create_recipe(jsonb,text)') IS NOT NULL;
EOS

sub rows_of
{
	my ($server, $database, $query) = @_;
	return $server->safe_psql($database, "SET bytea_output = hex; $query");
}

# Every table of the extension and every partition, whole.
my @tables = split /\n/, $node->safe_psql('kitchen', <<'EOS');
SELECT c.relname FROM pg_class c
 WHERE c.relnamespace = 'meal_planner'::regnamespace AND c.relkind = 'r' ORDER BY 1
EOS

sub contents
{
	my ($server, $database) = @_;
	my %contents = map {
		($_ => rows_of($server, $database, "SELECT t::text FROM meal_planner.$_ t ORDER BY 1"))
	} grep { $_ ne 'subscription' && $_ ne 'saga_definition' } @tables;

	# those of the extension itself are made anew, at another time
	$contents{subscription} = rows_of($server, $database, <<'EOS');
SELECT t::text FROM meal_planner.subscription t WHERE NOT t.builtin ORDER BY 1;
SELECT t.name, t.pattern, t.handler, t.owner, t.handler_path, t.paused_at FROM meal_planner.subscription t WHERE t.builtin ORDER BY 1;
EOS

	$contents{saga_definition} = rows_of($server, $database, <<'EOS');
SELECT t::text FROM meal_planner.saga_definition t WHERE NOT t.builtin ORDER BY 1;
SELECT t.name, t.version, t.definition, t.routines, t.owner, t.routine_path FROM meal_planner.saga_definition t WHERE t.builtin ORDER BY 1, 2;
EOS

	$contents{catalog} = rows_of($server, $database, <<'EOS');
SELECT c.relname, c.relkind, pg_get_expr(c.relpartbound, c.oid), pg_get_userbyid(c.relowner)
  FROM pg_class c WHERE c.relnamespace = 'meal_planner'::regnamespace ORDER BY 1;
SELECT c.relname, pg_get_indexdef(i.indexrelid), i.indisvalid
  FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
 WHERE c.relnamespace = 'meal_planner'::regnamespace ORDER BY 1;
SELECT c.relname, pg_get_triggerdef(g.oid), g.tgenabled
  FROM pg_trigger g JOIN pg_class c ON c.oid = g.tgrelid
 WHERE c.relnamespace = 'meal_planner'::regnamespace AND NOT g.tgisinternal ORDER BY 1, 2;
SELECT c.relname, k.conname, pg_get_constraintdef(k.oid)
  FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid
 WHERE c.relnamespace = 'meal_planner'::regnamespace ORDER BY 1, 2;
SELECT d.objid::regclass FROM pg_depend d JOIN pg_extension x ON x.oid = d.refobjid AND x.extname = 'meal_planner'
 WHERE d.classid = 'pg_class'::regclass AND d.deptype = 'e' ORDER BY 1;
EOS
	return \%contents;
}

my $original = contents($node, 'kitchen');

for my $table (qw(subscription delivery dead_letter alert acknowledgement stream subscription_cursor replay replay_cursor idempotency_key error_class retention operation_12
	saga saga_log saga_step saga_batch saga_lock saga_definition))
{
	isnt($original->{$table}, '', "there is something in $table");
}
is($node->safe_psql('kitchen', "SELECT count(*) FROM meal_planner.$_ WHERE NOT builtin"), $_ eq 'aisle' ? 2 : 1, "what was changed of $_ is a user's")
	for qw(unit unit_alias aisle nutrient food food_alias food_measure food_nutrient);
isnt(join('', map { $original->{"operation_$_"} } 0 .. 11), '', 'a result is remembered');
cmp_ok(scalar(grep { /^event_\d/ } @tables), '>=', 2, 'the log has several partitions');
is($node->safe_psql('kitchen', 'SELECT count(*) FROM meal_planner.event_default'), 0, 'the default partition is empty');
is($node->safe_psql('kitchen', "SELECT max(position) > meal_planner.position_at(clock_timestamp() + interval '10 days') FROM meal_planner.event"),
	't', 'the log is ahead of the clock');

# run(what, command...): succeeds and says nothing at all on standard error.
sub run_quietly
{
	my ($what, @command) = @_;
	my ($out, $err) = ('', '');
	my $status = IPC::Run::run(\@command, '>', \$out, '2>', \$err);

	ok($status, "$what succeeds");
	is($err, '', "$what reports nothing");
	return;
}

my $source = $node->connstr('kitchen');
run_quietly('pg_dump -Fc', 'pg_dump', '-Fc', '-f', "$dir/custom", '-d', $source);
run_quietly('pg_dump, plain', 'pg_dump', '-f', "$dir/plain.sql", '-d', $source);
run_quietly('pg_dump -Fd', 'pg_dump', '-Fd', '-j', '2', '-f', "$dir/directory", '-d', $source);

sub check_restored
{
	my ($what, $server, $database) = @_;
	my $restored = contents($server, $database);
	my $last = $server->safe_psql($database, 'SELECT max(position) FROM meal_planner.event');

	is_deeply([ grep { $restored->{$_} ne $original->{$_} } sort keys %$original ], [], "$what: all that was there is there, as it was");
	is($server->safe_psql($database, 'TABLE calls ORDER BY 1, 2'),
		$node->safe_psql('kitchen', 'TABLE calls ORDER BY 1, 2'), "$what: no handler was fired");
	is($server->safe_psql($database, 'SELECT count(*) FROM mp_handler_stats'), 0, "$what: nor counted");
	is($server->safe_psql($database, 'SELECT count(*) - count(DISTINCT event_id) FROM (SELECT e.id AS event_id FROM meal_planner.event e) q'),
		0, "$what: no event is there twice");

	for my $shipped (qw(recipe_created shopping_list_created nutrition_goal_set))
	{
		is(($server->psql($database, "SELECT mp_unsubscribe('$shipped')", on_error_stop => 0))[2] =~ /MP409/ ? 'MP409' : 'removed',
			'MP409', "$what: $shipped cannot be removed");
	}

	# it goes on: above what was restored, though the clock is behind it
	is($server->safe_psql($database, <<"EOS"), 't|t', "$what: the next positions are above those of the log");
WITH emitted AS MATERIALIZED (
    SELECT n, meal_planner.event_position(mp_emit_event('Dish', jsonb_build_object('n', 100 + n), stream => 'dish-0')) AS position
      FROM generate_series(1, 3) n)
SELECT min(position) > $last, count(DISTINCT position) = 3 FROM emitted
EOS
	is($server->safe_psql($database, "SELECT string_agg(version::text, ',' ORDER BY version) FROM mp_read_stream('dish-0', 15)"),
		'15,16,17,18,19', "$what: streams go on without a gap");
	is($server->safe_psql($database, "SELECT mp_emit_event('Probe', '{}', stream => 'dropped', expected_version => 7) IS NOT NULL;
	     SELECT version FROM mp_read_stream('dropped')"), "t\n8", "$what: also those whose events were dropped");
	is($server->safe_psql($database, "SELECT mp_emit_event('Dish', '{\"n\": 7}', stream => 'dish-1', idempotency_key => 'key-7')"),
		$node->safe_psql('kitchen', "SELECT id FROM meal_planner.event WHERE idempotency_key = 'key-7'"),
		"$what: idempotency keys are known");
	is($server->safe_psql($database, "SELECT count(*) FROM calls WHERE handler = 'inline' AND event_id IN
	     (SELECT id FROM meal_planner.event WHERE position > $last)"), 3, "$what: inline subscriptions are in force");

	# sagas go on
	is($server->safe_psql($database, <<'EOS'), "ended|completed\nout|completed", "$what: a step that a worker held is completed, and its saga");
SELECT mp_complete_saga_step(token, '2') FROM meal_planner.saga_step WHERE token IS NOT NULL \g /dev/null
SET meal_planner.clock_offset = 172900;
CALL mp_sweep();
SELECT idempotency_key, state FROM meal_planner.saga WHERE ended_at IS NOT NULL ORDER BY 1;
EOS
	is($server->safe_psql($database, <<'EOS'), "2|completed", "$what: what waited, for its time or for another saga, goes on");
SET meal_planner.clock_offset = 172900;
SELECT count(mp_complete_saga_step(c.token, '3')) FROM mp_claim_saga_steps('out') c \g /dev/null
CALL mp_sweep();
SELECT count(*), min(state) FROM meal_planner.saga WHERE idempotency_key IN ('waits', 'blocked');
EOS
	is($server->safe_psql($database, <<'EOS'), '', "$what: every step was run once, but for the attempt that failed");
SELECT s.idempotency_key, c.handler, count(*) FROM calls c JOIN meal_planner.saga s ON s.id = c.event_id
 GROUP BY 1, 2 HAVING count(*) <> 1 ORDER BY 1, 2
EOS
	is($server->safe_psql($database, 'SELECT count(*) FROM meal_planner.saga_lock'), 0, "$what: and holds nothing any more");

	# deliveries and cursors go on too
	$server->safe_psql($database, "SELECT mp_resume_subscription('worker')");
	ok(MealPlannerCluster::sweep_until_idle($server, $database, 1000000), "$what: the sweeps come to an end");
	is($server->safe_psql($database, <<'EOS'), '', "$what: the worker got every event exactly once");
SELECT e.detail, count(c.*) FROM meal_planner.event e LEFT JOIN calls c ON c.event_id = e.id AND c.handler = 'worker'
 WHERE e.detail_type = 'Dish' GROUP BY e.id, e.detail HAVING count(c.*) <> 1
EOS
	is($server->safe_psql($database, "SELECT count(*), count(DISTINCT event_id) FROM calls WHERE handler = 'replay'"), '2|2',
		"$what: a replay that had not begun is done");
	is($server->safe_psql($database, "SELECT reason, retry_count, attempts, status FROM mp_dlq WHERE detail_type = 'Dish' ORDER BY id"),
		"permanent|0|1|dead\nmax_attempts|3|4|dead", "$what: the restored retry went its way to the end");
	is($server->safe_psql($database, <<'EOS'), 'done', "$what: a restored dead letter can be replayed");
SELECT mp_replay_dlq(id, '{"n":53}') FROM mp_dlq WHERE reason = 'permanent' AND detail_type = 'Dish'
EOS
	return;
}

$node->safe_psql('postgres', 'CREATE DATABASE same_server; CREATE DATABASE plain_same_server');
$other->safe_psql('postgres', "CREATE DATABASE $_") for qw(other_server plain_other_server parallel);

run_quietly('pg_restore into another database', 'pg_restore', '--exit-on-error', '-d', $node->connstr('same_server'), "$dir/custom");
check_restored('another database', $node, 'same_server');

run_quietly('pg_restore into another server', 'pg_restore', '--exit-on-error', '-d', $other->connstr('other_server'), "$dir/custom");
check_restored('another server', $other, 'other_server');

run_quietly('the plain dump into another server', 'psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', '--single-transaction', '-o', "$dir/out",
	'-d', $other->connstr('plain_other_server'), '-f', "$dir/plain.sql");
check_restored('plain dump', $other, 'plain_other_server');

# The data with one job: pg_dump does not tell it which tables of an extension refer to which.
for my $part ([ 'pre-data', 1 ], [ 'data', 1 ], [ 'post-data', 2 ])
{
	my ($section, $jobs) = @$part;

	run_quietly("pg_restore in parallel, $section", 'pg_restore', '--exit-on-error', '-j', $jobs, '--section', $section,
		'-d', $other->connstr('parallel'), "$dir/directory");
}
check_restored('parallel', $other, 'parallel');

# A dump of what was restored, restored again.
run_quietly('pg_dump of the restored database', 'pg_dump', '-Fc', '-f', "$dir/again", '-d', $other->connstr('parallel'));
$other->safe_psql('postgres', 'CREATE DATABASE again');
run_quietly('pg_restore of it', 'pg_restore', '--exit-on-error', '-d', $other->connstr('again'), "$dir/again");
is($other->safe_psql('again', 'SELECT count(*), max(position) FROM meal_planner.event'),
	$other->safe_psql('parallel', 'SELECT count(*), max(position) FROM meal_planner.event'), 'again: the same log');

$_->stop for $node, $other;
done_testing();
