# Cancelled, terminated, shut down, dropped: what was interrupted leaves nothing
# half done and holds nobody up.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use MealPlannerCluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = MealPlannerCluster->start('signals', conf => "restart_after_crash = on\n");

$node->safe_psql('postgres', <<'EOS');
CREATE TABLE calls (handler text, n int);
CREATE FUNCTION handle(e meal_planner.event, handler text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO public.calls VALUES (handler, (e.detail ->> 'n')::int);
    PERFORM pg_sleep((e.detail ->> 'sleep')::float8);
    -- a handler that catches everything catches no cancellation
    BEGIN
        PERFORM pg_sleep((e.detail ->> 'sleep_caught')::float8);
    EXCEPTION WHEN OTHERS THEN
        NULL;
    END;
END
$$;
CREATE FUNCTION on_inline(e meal_planner.event) RETURNS void LANGUAGE sql AS $$ SELECT public.handle(e, 'inline') $$;
CREATE FUNCTION on_worker(e meal_planner.event) RETURNS void LANGUAGE sql AS $$ SELECT public.handle(e, 'worker') $$;
SELECT mp_subscribe('inline', '{"detail-type":["Work","Both"]}', 'on_inline(meal_planner.event)');
SELECT mp_subscribe('worker', '{"detail-type":["Batch","Both"]}', 'on_worker(meal_planner.event)', 'worker');
EOS

sub query
{
	my ($query, $database) = @_;
	return $node->safe_psql($database // 'postgres', $query);
}

sub recorded
{
	my ($n) = @_;
	return query(<<"EOS");
SELECT (SELECT count(*) FROM meal_planner.event e WHERE e.detail ->> 'n' = '$n'),
       (SELECT count(*) FROM calls c WHERE c.n = $n),
       (SELECT count(*) FROM meal_planner.delivery), (SELECT count(*) FROM meal_planner.dead_letter),
       (SELECT count(*) FROM mp_in_flight)
EOS
}

# background(statement): a session that runs it; returns the session and its pid.
sub background
{
	my ($statement, $database) = @_;
	my $session = $node->background_psql($database // 'postgres', on_error_stop => 0);
	my $pid = $session->query_safe('SELECT pg_backend_pid()');

	$session->query_until(qr/^started$/m, "\\echo started\n$statement\n");
	return ($session, $pid);
}

sub wait_for_sleep
{
	my ($pid) = @_;
	return $node->poll_query_until('postgres', "SELECT wait_event = 'PgSleep' FROM pg_stat_activity WHERE pid = $pid");
}

# Also of one whose server process is gone: psql would notice at its next command.
sub end_of
{
	my ($session) = @_;

	$session->{run}->kill_kill;
	return;
}

# ---------------------------------------------------------------------------
# A cancel of the emitter is no failure of its handler: the emit is gone whole.

my $n = 0;
for my $sleep ('sleep', 'sleep_caught')
{
	my ($out, $err) = ('', '');

	$n++;
	$node->psql('postgres', "SET statement_timeout = 300; SELECT mp_emit_event('Work', '{\"n\":$n,\"$sleep\":60}')", stderr => \$err);
	like($err, qr/canceling statement due to statement timeout/, "timeout, $sleep: the emit fails");
	is(recorded($n), '0|0|0|0|0', "timeout, $sleep: nothing is recorded, nothing in flight");

	$n++;
	my ($session, $pid) = background("SELECT mp_emit_event('Work', '{\"n\":$n,\"$sleep\":60}');");
	ok(wait_for_sleep($pid), "cancel, $sleep: the handler runs");
	query("SELECT pg_cancel_backend($pid)");
	ok($node->poll_query_until('postgres', "SELECT state = 'idle' FROM pg_stat_activity WHERE pid = $pid"), "cancel, $sleep: the emit ends");
	is(recorded($n), '0|0|0|0|0', "cancel, $sleep: nothing is recorded, nothing in flight");
	like($session->query('SELECT 1 AS alive'), qr/1/, "cancel, $sleep: the session goes on");
	is($session->query("SELECT mp_emit_event('Work', '{\"n\":100}') IS NOT NULL"), 't', "cancel, $sleep: and can emit");
	$session->quit;
}
is(query("SELECT count(*) FROM calls WHERE n = 100"), 2, 'after a cancel handlers are called as before');
is(query("SELECT failures FROM mp_handler_stats WHERE subscription = 'inline'"), 0, 'a cancel is no failure of the handler');

# ---------------------------------------------------------------------------
# A terminated emitter lets readers pass.

my ($emitter, $emitter_pid) = background("BEGIN; SELECT mp_emit_event('Work', '{\"n\":200}') \\g /dev/null\n\\echo emitted");
$node->poll_query_until('postgres', "SELECT state = 'idle in transaction' FROM pg_stat_activity WHERE pid = $emitter_pid");
query("SELECT mp_emit_event('Work', '{\"n\":201}')");
is(query("SELECT count(*) FROM mp_read_events() r WHERE r.event -> 'detail' ->> 'n' IN ('200', '201')"), 0, 'terminate: an open transaction holds readers back');
is(query('SELECT pid FROM mp_in_flight'), $emitter_pid, 'terminate: and is shown to do so');
query("SELECT pg_terminate_backend($emitter_pid, 10000)");
is(query("SELECT string_agg(r.event -> 'detail' ->> 'n', ',') FROM mp_read_events() r WHERE r.event -> 'detail' ->> 'n' IN ('200', '201')"),
	'201', 'terminate: without it they go on');
is(query('SELECT count(*) FROM mp_in_flight'), 0, 'terminate: nothing is in flight');
end_of($emitter);

# A savepoint that is rolled back, and a transaction that fails.
query(<<'EOS');
BEGIN;
SELECT mp_emit_event('Work', '{"n":210}');
SAVEPOINT s;
SELECT mp_emit_event('Work', '{"n":211}');
ROLLBACK TO s;
SELECT mp_emit_event('Work', '{"n":212}');
COMMIT;
EOS
is(query("SELECT string_agg(r.event -> 'detail' ->> 'n', ',') FROM mp_read_events() r WHERE r.event -> 'detail' ->> 'n' LIKE '21_'"),
	'210,212', 'savepoint: what was rolled back is gone with its handlers');
is(query("SELECT string_agg(n::text, ',' ORDER BY n) FROM calls WHERE n BETWEEN 210 AND 219"), '210,212', 'savepoint: and their effects');
is(query('SELECT count(*) FROM mp_in_flight'), 0, 'savepoint: nothing is in flight');

# ---------------------------------------------------------------------------
# A sweep that is cancelled in a handler; what it ran is taken up again.

query("SELECT mp_emit_event('Batch', '{\"n\":300,\"sleep\":60}')");
my ($sweep, $sweep_pid) = background('CALL mp_sweep();');
ok(wait_for_sleep($sweep_pid), 'cancelled sweep: the handler runs');
query("SELECT pg_cancel_backend($sweep_pid)");
ok($node->poll_query_until('postgres', "SELECT state = 'idle' FROM pg_stat_activity WHERE pid = $sweep_pid"), 'cancelled sweep: it ends');
is(query('SELECT count(*) FROM calls WHERE n = 300'), 0, 'cancelled sweep: no effect of the handler');
query("UPDATE meal_planner.event SET detail = detail - 'sleep' WHERE detail ->> 'n' = '300'");
# by another session, though the cancelled one is still there
ok(MealPlannerCluster::sweep_until_idle($node, 'postgres'), 'cancelled sweep: another one goes on');
is(query('SELECT count(*) FROM calls WHERE n = 300'), 1, 'cancelled sweep: the event is handled once');
# and the same session can sweep again
query("SELECT mp_emit_event('Batch', '{\"n\":301}')");
$sweep->query('CALL mp_sweep()');
is(query('SELECT count(*) FROM calls WHERE n = 301'), 1, 'cancelled sweep: its session can sweep again');
$sweep->quit;

# ---------------------------------------------------------------------------
# Extension and database can be dropped while nobody works in them, also when a
# session has swept and emitted before.

query('CREATE DATABASE gone');
query('CREATE EXTENSION meal_planner', 'gone');
my $idle = $node->background_psql('gone', on_error_stop => 0);
$idle->query_safe("SELECT mp_emit_event('A', '{}')");
$idle->query_safe('CALL mp_sweep()');
is($node->psql('gone', 'SET lock_timeout = 10000; DROP EXTENSION meal_planner CASCADE'), 0, 'DROP EXTENSION does not wait for a session that is idle');
like($idle->query("SELECT mp_emit_event('A', '{}')") . $idle->{stderr}, qr/function mp_emit_event\(unknown, unknown\) does not exist/,
	'the idle session notices');
$idle->{stderr} = '';
is($node->psql('gone', 'CREATE EXTENSION meal_planner'), 0, 'it can be created again');
like($idle->query("SELECT mp_emit_event('B', '{}')"), qr/^[0-9a-f-]{36}$/, 'the old session emits into the new log');
$idle->query_safe('CALL mp_sweep()');
is(query('SELECT count(*) FROM meal_planner.event', 'gone'), 1, 'which has its event');
$idle->quit;

# While a sweep sleeps: DROP DATABASE ... FORCE ends it.
my ($sleeper) = background('CALL mp_sweep(600);', 'gone');
ok($node->poll_query_until('postgres', "SELECT wait_event_type = 'Extension' FROM pg_stat_activity WHERE query = 'CALL mp_sweep(600);'"),
	'a sweep with nothing to do sleeps');
# it may meet the sweep in the middle of a step and lose a deadlock to it
ok(MealPlannerCluster::wait_until(sub { $node->psql('gone', 'DROP EXTENSION meal_planner CASCADE') == 0 }),
	'DROP EXTENSION gets in between two steps of a sweep that sleeps');
ok($node->poll_query_until('postgres', "SELECT count(*) = 0 FROM pg_stat_activity WHERE datname = 'gone' AND state = 'active'"),
	'which ends with it');
query('CREATE EXTENSION meal_planner', 'gone');
end_of($sleeper);
($sleeper) = background('CALL mp_sweep(600);', 'gone');
query('DROP DATABASE gone WITH (FORCE)');
is(query("SELECT count(*) FROM pg_database WHERE datname = 'gone'"), 0, 'DROP DATABASE WITH (FORCE) ends a sweep that sleeps');
end_of($sleeper);

# ---------------------------------------------------------------------------
# A fast shutdown ends sweeps, whether they sleep or run a handler.

my ($sleeping) = background('CALL mp_sweep(600);');
query("SELECT mp_emit_event('Batch', '{\"n\":400,\"sleep\":600}')");
my ($running) = background('CALL mp_sweep(600);');
my ($emitting, $emitting_pid) = background("SELECT mp_emit_event('Work', '{\"n\":401,\"sleep\":600}');");
ok(wait_for_sleep($emitting_pid), 'shutdown: an emitter and');
ok($node->poll_query_until('postgres', "SELECT count(*) >= 1 FROM pg_stat_activity WHERE query LIKE 'CALL mp\\_sweep(600)%' AND wait_event = 'PgSleep'"),
	'shutdown: a sweep are in their handlers');
# pg_ctl waits a minute, the handlers would sleep for ten
$node->stop('fast');
pass('shutdown: it ends the server');
end_of($_) for $sleeping, $running, $emitting;
$node->start;
is(recorded(401), '0|0|0|0|0', 'shutdown: nothing of the emit is left');
query("UPDATE meal_planner.event SET detail = detail - 'sleep' WHERE detail ->> 'n' = '400'");
ok(MealPlannerCluster::sweep_until_idle($node, 'postgres'), 'shutdown: the next sweep takes up what the last one held');
is(query('SELECT count(*) FROM calls WHERE n = 400'), 1, 'shutdown: the event is handled once');
is(query('SELECT count(*) FROM meal_planner.dead_letter'), 0, 'nothing of all this is a dead letter');

ok(MealPlannerCluster::no_panic($node), 'no PANIC, no assertion, no other signal in the log');
$node->stop;
done_testing();
