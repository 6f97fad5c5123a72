# A backend that emits a great deal does not grow.  MP_LONG=1 makes it a million
# events of each kind.
use strict;
use warnings;

# The session has one timer from its start to its end.
BEGIN { $ENV{PG_TEST_TIMEOUT_DEFAULT} = $ENV{MP_LONG} ? 7200 : 900 }

use FindBin;
use lib $FindBin::RealBin;
use MealPlannerCluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $long = $ENV{MP_LONG} ? 1_000_000 : 0;
my $node = MealPlannerCluster->start('memory', conf => <<'EOC');
log_statement = none
synchronous_commit = off
max_wal_size = 4GB
autovacuum = off
EOC

$node->safe_psql('postgres', <<'EOS');
CREATE TABLE effects (n int);
CREATE FUNCTION on_good(e meal_planner.event) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO public.effects VALUES ((e.detail ->> 'n')::int);
END
$$;
CREATE FUNCTION on_bad(e meal_planner.event) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO public.effects VALUES ((e.detail ->> 'n')::int);
    RAISE EXCEPTION 'told to' USING ERRCODE = e.detail ->> 'code', DETAIL = repeat('detail ', 20);
END
$$;
SELECT mp_subscribe('good', '{"source":["memory"],"detail-type":["Good"],"detail":{"n":[{"numeric":[">",0]}]}}', 'on_good(meal_planner.event)');
SELECT mp_subscribe('bad', '{"source":["memory"],"detail-type":["Bad"]}', 'on_bad(meal_planner.event)');
CREATE PROCEDURE emit(kind text, events int, extra jsonb) LANGUAGE plpgsql AS $$
BEGIN
    FOR n IN 1 .. events LOOP
        PERFORM mp_emit_event(kind, extra || jsonb_build_object('n', n, 'text', repeat('x', n % 200)), 'memory');
        IF n % 1000 = 0 THEN
            COMMIT;
        END IF;
    END LOOP;
END
$$;
EOS

my $session = $node->background_psql('postgres');
my $pid = $session->query_safe('SELECT pg_backend_pid()');

# Kilobytes: what the process has for itself, and what the server knows of.
sub memory
{
	my ($rss) = slurp_file("/proc/$pid/status") =~ /^RssAnon:\s+(\d+) kB/m;
	my $contexts = $session->query_safe('SELECT sum(total_bytes) / 1024 FROM pg_backend_memory_contexts');

	return { process => $rss, contexts => int($contexts) };
}

# run(what, events, statement): nothing grows between a quarter of the events
# and all of them.  `statement` has %d for the number of events.
sub check_growth
{
	my ($what, $events, $statement) = @_;

	$session->query_safe(sprintf $statement, $events / 4);
	my $early = memory();
	$session->query_safe(sprintf $statement, $events * 3 / 4);
	my $late = memory();

	note "$what, $events events: process $early->{process} kB, then $late->{process} kB;"
	  . " contexts $early->{contexts} kB, then $late->{contexts} kB";
	# the process rounds up; of the contexts a few bytes per event would show
	cmp_ok($late->{process} - $early->{process}, '<', 1024, "$what: the process does not grow");
	cmp_ok($late->{contexts} - $early->{contexts}, '<=', 64, "$what: nor do its memory contexts");
	return;
}

# The first events fill caches.
my $keyed = <<'EOS';
DO $$ BEGIN FOR n IN 1 .. %d LOOP
    PERFORM mp_emit_event('Keyed', '{}', 'memory', stream => 's' || n %% 10, idempotency_key => 'k' || n %% 5000);
    IF n %% 100 = 0 THEN COMMIT; END IF;
END LOOP; END $$
EOS
$session->query_safe(sprintf $keyed, 6000);
$session->query_safe("CALL emit('Plain', 2000, '{}'); CALL emit('Good', 2000, '{}'); CALL emit('Bad', 200, '{\"code\":\"MPP01\"}'); CALL emit('Bad', 200, '{\"code\":\"MPT01\"}')");

check_growth('plain', $long || 200_000, "CALL emit('Plain', %d, '{}')");
check_growth('inline handler', $long || 100_000, "CALL emit('Good', %d, '{}')");
check_growth('retried failure', $long || 20_000, "CALL emit('Bad', %d, '{\"code\":\"MPT01\"}')");
check_growth('dead letter', $long || 20_000, "CALL emit('Bad', %d, '{\"code\":\"MPP01\"}')");
check_growth('streams and keys', $long || 40_000, $keyed);
check_growth('batches', $long || 100_000, <<'EOS');
DO $$ BEGIN FOR i IN 1 .. %d / 100 LOOP
    PERFORM mp_put_events((SELECT jsonb_agg('{"Source":"memory","DetailType":"Put","Detail":"{\"a\":[1,2,{}]}"}'::jsonb) FROM generate_series(1, 100)));
    COMMIT;
END LOOP; END $$
EOS
my $mixed = <<'EOS';
DO $$ BEGIN FOR i IN 1 .. %d / 100 LOOP
    PERFORM mp_put_events((SELECT jsonb_agg(jsonb_build_object('Source', 'memory', 'DetailType', CASE WHEN n %% 50 = 0 THEN 'Bad' ELSE 'Good' END,
                                                               'Detail', CASE WHEN n %% 11 = 0 THEN '[]' ELSE jsonb_build_object('n', n, 'code', 'MPT01') END,
                                                               'Resources', jsonb_build_array('r' || n), 'Time', 0,
                                                               'Stream', 's' || n %% 10, 'IdempotencyKey', (i * 50 + n)::text))
                             FROM generate_series(1, 100) n));
    COMMIT;
END LOOP; END $$
EOS
$session->query_safe(sprintf $mixed, 6000);
check_growth('batches with streams, keys, handlers and failures', $long || 40_000, $mixed);
check_growth('readers', $long || 100_000, <<'EOS');
DO $$ BEGIN FOR i IN 1 .. %d / 100 LOOP
    PERFORM count(*) FROM mp_read_events(0, 100, '{"source":["memory"]}');
END LOOP; END $$
EOS
check_growth('subscriptions that change', ($long || 200_000) / 100, <<'EOS');
DO $$ BEGIN FOR i IN 1 .. %d LOOP
    PERFORM mp_subscribe('good', jsonb_build_object('detail-type', jsonb_build_array('Good', i::text)), 'on_good(meal_planner.event)');
    PERFORM mp_emit_event('Good', '{"n":1}', 'memory');
    COMMIT;
END LOOP; END $$
EOS

# Within one transaction: what the server keeps of every row and every
# subtransaction until its end, and nothing of ours.
$session->query_safe('BEGIN');
$session->query_safe("SELECT count(mp_emit_event('Good', jsonb_build_object('n', n), 'memory')) FROM generate_series(1, 5000) n");
my $early = memory();
$session->query_safe("SELECT count(mp_emit_event('Good', jsonb_build_object('n', n), 'memory')) FROM generate_series(1, 20000) n");
my $late = memory();
$session->query_safe('COMMIT');
note "one transaction: contexts $early->{contexts} kB, then $late->{contexts} kB";
cmp_ok(($late->{contexts} - $early->{contexts}) * 1024 / 20000, '<', 100, 'one transaction: less than 100 bytes per event');

# Sweeps: a worker subscription, and retries until they are used up.  The first
# two do all that a later one does: the second has dead letters before it.
$session->query_safe("SELECT mp_subscribe('worker', '{\"source\":[\"memory\"],\"detail-type\":[\"Plain\"]}', 'on_good(meal_planner.event)', 'worker')");
$session->query_safe("SELECT mp_subscribe('bad', '{\"source\":[\"memory\"],\"detail-type\":[\"Bad\"]}', 'on_bad(meal_planner.event)',"
	  . " options => '{\"base_delay\":0.001,\"multiplier\":1,\"max_attempts\":3}')");
$session->query_safe('DELETE FROM meal_planner.delivery');
my $sweep = "CALL emit('Plain', %d, '{}'); CALL emit('Bad', %d, '{\"code\":\"MPT01\"}'); CALL mp_sweep()";
$session->query_safe(sprintf $sweep, 20_000, 1000) for 1 .. 2;
$early = memory();
$session->query_safe(sprintf $sweep, 50_000, 3000);
$late = memory();
note "sweeps: process $early->{process} kB, then $late->{process} kB; contexts $early->{contexts} kB, then $late->{contexts} kB";
cmp_ok($late->{contexts} - $early->{contexts}, '<=', 64, 'sweeps: the memory contexts do not grow');
cmp_ok($late->{process} - $early->{process}, '<', 1024, 'sweeps: nor does the process');
is($session->query_safe('SELECT count(*) FROM meal_planner.delivery'), 0, 'sweeps: all was delivered or is dead');
is($session->query_safe("SELECT count(*) FROM meal_planner.event_default"), 0, 'the default partition was not needed');

$session->quit;
ok(MealPlannerCluster::no_panic($node), 'no PANIC, no assertion, no leak in the log');
$node->stop;
done_testing();
