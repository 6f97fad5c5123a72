# Restarts, a clock that was set back, two databases of one server, and a server
# that does not preload the library.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use MealPlannerCluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = MealPlannerCluster->start('restart', conf => "restart_after_crash = on\nautovacuum = off\n");

sub query
{
	my ($query, $database) = @_;
	return $node->safe_psql($database // 'postgres', $query);
}

my $fixture = <<'EOS';
CREATE TABLE calls (handler text, n int, attempt int);
CREATE FUNCTION on_inline(e meal_planner.event) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    at int := coalesce((SELECT d.attempt FROM meal_planner.delivery d
                         WHERE (d.account, d.subscription, d.position) = (e.account, 'inline', e.position)), 1);
BEGIN
    IF at <= (e.detail ->> 'failures')::int THEN
        RAISE EXCEPTION 'attempt %', at USING ERRCODE = 'MPT01';
    END IF;
    INSERT INTO public.calls VALUES ('inline', (e.detail ->> 'n')::int, at);
END
$$;
CREATE FUNCTION on_worker(e meal_planner.event) RETURNS void LANGUAGE sql AS $$
    INSERT INTO public.calls VALUES ('worker', (e.detail ->> 'n')::int, NULL)
$$;
SELECT mp_subscribe('inline', '{"detail-type":["Work"]}', 'on_inline(meal_planner.event)');
SELECT mp_subscribe('worker', '{"detail-type":["Work"]}', 'on_worker(meal_planner.event)', 'worker');
EOS

# ---------------------------------------------------------------------------
# A clean restart changes nothing.

query($fixture);
query(<<'EOS');
SELECT mp_emit_event('Work', '{"n":1,"failures":0}');
SELECT mp_emit_event('Work', '{"n":2,"failures":2}');
SELECT mp_emit_event('Work', '{"n":3,"failures":0}', deliver_after => meal_planner.clock() + interval '1 hour');
EOS
my $state = <<'EOS';
SELECT * FROM meal_planner.delivery ORDER BY position;
SELECT * FROM meal_planner.subscription ORDER BY name;
SELECT * FROM meal_planner.subscription_cursor ORDER BY 1, 2, 3;
SELECT account, position FROM meal_planner.event ORDER BY position;
EOS
my $before = query($state);

$node->restart;
is(query($state), $before, 'restart: deliveries, subscriptions and cursors are as they were');
is(query('SELECT meal_planner.event_position(mp_emit_event(\'Probe\', \'{}\')) > max(position) FROM meal_planner.event'),
	't', 'restart: positions go on');

# The retry is due two seconds after its failure and not before.
my $due = query('SELECT next_attempt_at FROM meal_planner.delivery ORDER BY next_attempt_at LIMIT 1');

sub sweep_at
{
	my ($moment, $database) = @_;
	my $ahead = query("SELECT extract(epoch FROM $moment - clock_timestamp())");

	query("SET meal_planner.clock_offset = $ahead; CALL mp_sweep()", $database);
	return;
}

sweep_at("timestamptz '$due' - interval '500 ms'");
is(query("SELECT attempt, next_attempt_at = '$due' FROM meal_planner.delivery WHERE attempt > 0"), '1|t', 'restart: no retry starts early');
$node->restart;
sweep_at("timestamptz '$due' + interval '10 ms'");
is(query("SELECT attempt, next_attempt_at > timestamptz '$due' + interval '4 s' FROM meal_planner.delivery WHERE attempt > 0"),
	'2|t', 'restart: it starts when it is due, and the next one is four seconds later');
sweep_at("timestamptz '$due' + interval '2 hours'");
is(query('SELECT handler, n, attempt FROM calls ORDER BY handler, n'),
	"inline|1|1\ninline|2|3\ninline|3|1\nworker|1|\nworker|2|\nworker|3|", 'restart: all is delivered once, in its attempt');
is(query('SELECT count(*) FROM meal_planner.delivery'), 0, 'restart: nothing is left');

# ---------------------------------------------------------------------------
# The clock goes back an hour.

# Each row: positions of everything made in this life of the server.
sub emit_some
{
	my ($count) = @_;
	return query(<<"EOS");
SELECT string_agg(meal_planner.event_position(mp_emit_event('Work', jsonb_build_object('n', n, 'failures', 0)))::text, ' ' ORDER BY n)
  FROM generate_series(1000, 999 + $count) n
EOS
}

my @positions = split / /, emit_some(20);
query(<<'EOS');
-- numbers of the same clock that are not events, above the last event
SELECT mp_subscribe('dies', '{"detail-type":["Dies"]}', 'on_inline(meal_planner.event)');
SELECT mp_emit_event('Dies', '{"n":"no number"}');
SELECT mp_sweep FROM (SELECT NULL AS mp_sweep) q;
CALL mp_sweep();
SELECT mp_subscribe('late', '{"detail-type":["Late"]}', 'on_worker(meal_planner.event)', 'worker');
EOS
is(query("SELECT count(*) FROM mp_alerts"), 1, 'clock back: there is an alert');

# The last thing that a life of the server does: of two subscriptions, a claim
# that stays out, and one that is acknowledged.  Two events wait in each.  Then a
# step of a saga is begun.
my @claims;
my $step;

sub claim_last
{
	query("SELECT mp_emit_event('Pulled', '{}') FROM generate_series(1, 2)");
	query('SELECT meal_planner.next_position() FROM generate_series(1, 10)');
	query("SELECT mp_ack(token) FROM mp_claim('acked', 1)");
	push @claims, query("SELECT meal_planner.event_position(token) FROM mp_claim('held', 1, 86400)");
	query("SELECT mp_start_saga('last', '{}')");
	query("SELECT meal_planner.claim_sagas(1); SELECT meal_planner.run_sagas('local', 1)");
	$step = query("SELECT token FROM mp_claim_saga_steps('last')");
	return;
}
query(q{SELECT mp_define_saga('last', '{"steps": [{"name": "a", "kind": "pivot", "service": "last"}]}')});
query(<<'EOS');
SELECT mp_subscribe(name, '{"detail-type":["Pulled"]}', mode => 'pull', options => '{"base_delay":0.001}')
  FROM unnest('{held,acked}'::text[]) name
EOS
claim_last();
push @positions, query('SELECT max(position) FROM meal_planner.event');

query('ALTER SYSTEM SET meal_planner.clock_offset = -3600');
for my $how ('restart', 'kill -9', 'restart')
{
	if ($how eq 'restart')
	{
		$node->restart;
	}
	else
	{
		$node->kill9;
		MealPlannerCluster::start_again($node);
	}
	cmp_ok(query('SELECT extract(epoch FROM clock_timestamp() - meal_planner.clock())::int'), '==', 3600, "clock back, $how: it is an hour behind");

	# the order of a saga's log comes from the same clock
	is(query("SELECT mp_complete_saga_step('$step', NULL)"), 'completed', "clock back, $how: a saga goes on");
	is(query('SELECT DISTINCT string_agg(l.entry, \' \' ORDER BY l.seq) FROM meal_planner.saga_log l GROUP BY l.saga_id'), 'started succeeded completed',
		"clock back, $how: and its log is in order");

	# numbers of claims come from the same clock
	push @claims, query("SELECT meal_planner.event_position(token) FROM mp_claim('held', 1, 86400)");
	is(query("SELECT attempt FROM mp_claim('acked', 1, 0.001)"), 1, "clock back, $how: an event is claimed");
	# the claim that ends the lease has that to commit, and comes back with nothing
	my $again = MealPlannerCluster::wait_until(sub { return query("SELECT attempt, mp_ack(token) FROM mp_claim('acked', 1, wait_seconds => 60)") });
	is($again, '2|t', "clock back, $how: and again when the lease has ended");

	push @positions, split / /, emit_some(20);
	is(query('SELECT max(position) FROM meal_planner.event'), $positions[-1], "clock back, $how: the last event has the highest position");
	is(query("SELECT count(*) FROM mp_read_events($positions[-21])"), 20,
		"clock back, $how: a reader that goes on gets the new ones");

	# ids of dead letters and alerts come from the same clock
	query("SELECT mp_emit_event('Dies', '{\"n\":\"no number\"}') FROM generate_series(1, 40)");
	is(query('SELECT count(*) - count(DISTINCT id), count(*) - (SELECT count(*) FROM mp_dlq) FROM meal_planner.alert'), '0|0',
		"clock back, $how: ids of alerts stay unique");

	# and so do the tokens of workers and the starts of subscriptions
	query("SELECT mp_emit_event('Late', '{\"n\":9999}')");
	query('CALL mp_sweep()');
	is(query("SELECT count(*) FROM calls WHERE n = 9999"), 1, "clock back, $how: a subscription that starts at the end gets what comes");
	query('DELETE FROM calls WHERE n = 9999');
	push @positions, query('SELECT max(position) FROM meal_planner.event');
	claim_last();
	push @positions, query('SELECT max(position) FROM meal_planner.event');
}
is_deeply(\@claims, [ sort { $a <=> $b } @claims ], 'clock back: numbers of claims rose all the time');
is_deeply(\@positions, [ sort { $a <=> $b } @positions ], 'clock back: positions rose all the time');
is(scalar(@positions), scalar(keys %{ { map { $_ => 1 } @positions } }), 'clock back: strictly');
query('ALTER SYSTEM RESET meal_planner.clock_offset');
$node->restart;

# ---------------------------------------------------------------------------
# Two databases.

query('CREATE DATABASE one');
query('CREATE DATABASE two');
for my $database ('one', 'two')
{
	query("CREATE EXTENSION meal_planner; $fixture", $database);
}
query("SELECT mp_emit_event('Work', '{\"n\":1,\"failures\":0}')", 'one');
is(query('SELECT count(*) FROM meal_planner.event', 'two'), 0, 'two databases: an event is in one of them');
is(query('SELECT count(*) FROM calls', 'two'), 0, 'two databases: and handled there alone');
is(query("SELECT subscription, calls FROM mp_handler_stats WHERE calls > 0", 'one'), 'inline|1', 'two databases: counted where it was');
is(query("SELECT count(*) FROM mp_handler_stats WHERE calls > 0", 'two'), 0, 'two databases: and not in the other');

# one: a transaction that has emitted and does not end
my $open = $node->background_psql('one');
$open->query_safe("BEGIN; SELECT mp_emit_event('Work', '{\"n\":2,\"failures\":0}')");
query("SELECT mp_emit_event('Work', '{\"n\":3,\"failures\":0}')", $_) for 'one', 'two';
is(query("SELECT count(*) FROM mp_read_events() r WHERE r.event -> 'detail' ->> 'n' = '3'", 'one'), 0,
	'two databases: an open transaction holds the readers of its own');
is(query("SELECT count(*) FROM mp_read_events() r WHERE r.event -> 'detail' ->> 'n' = '3'", 'two'), 1,
	'two databases: and not those of the other');
is(query('SELECT count(*) FROM mp_in_flight', 'one'), 1, 'two databases: it is shown where it is');
is(query('SELECT count(*) FROM mp_in_flight', 'two'), 0, 'two databases: and not in the other');
query('CALL mp_sweep()', $_) for 'one', 'two';
is(query("SELECT string_agg(n::text, ',' ORDER BY n) FROM calls WHERE handler = 'worker'", 'one'), '1', 'two databases: its worker waits');
is(query("SELECT string_agg(n::text, ',' ORDER BY n) FROM calls WHERE handler = 'worker'", 'two'), '3', 'two databases: the other does not');
$open->query_safe('COMMIT');
$open->quit;
query('CALL mp_sweep()', 'one');
is(query("SELECT string_agg(n::text, ',' ORDER BY n) FROM calls WHERE handler = 'worker'", 'one'), '1,2,3', 'two databases: it goes on after the commit');

# a worker in one database, dead or alive, is nobody's business in the other
my $sweep = $node->background_psql('one', on_error_stop => 0);
$sweep->query_until(qr/sweeping/, "\\echo sweeping\nCALL mp_sweep(600);\n");
query("SELECT mp_emit_event('Work', '{\"n\":4,\"failures\":1}')", $_) for 'one', 'two';
ok($node->poll_query_until('one', "SELECT count(*) = 1 FROM calls WHERE n = 4 AND handler = 'worker'"),
	'two databases: a sweep serves its database');
is(query("SELECT count(*) FROM calls WHERE n = 4", 'two'), 0, 'two databases: and no other');
query("SELECT mp_pause_subscription('inline')", 'one');
query("SELECT mp_emit_event('Work', '{\"n\":5,\"failures\":0}')", 'two');
is(query("SELECT count(*) FROM calls WHERE n = 5", 'two'), 1, 'two databases: a pause in one is none in the other');
ok($node->poll_query_until('postgres', "SELECT count(*) = 1 FROM pg_stat_activity WHERE query LIKE 'CALL mp\\_sweep(600)%'"), 'two databases: the sweep still runs');
query('DROP DATABASE two');
is(query('SELECT 1', 'one'), 1, 'two databases: dropping one does not harm the other');
query("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'CALL mp\\_sweep(600)%'");
$sweep->{run}->finish;

ok(MealPlannerCluster::no_panic($node), 'no PANIC, no assertion, no other signal in the log');
$node->stop;

# ---------------------------------------------------------------------------
# The library is not preloaded.

my $bare = MealPlannerCluster->create('bare', conf => "shared_preload_libraries = ''\n");
$bare->start;
$bare->safe_psql('postgres', 'CREATE EXTENSION meal_planner');
pass('no preload: the extension installs');

my @tables = split /\n/, $bare->safe_psql('postgres', <<'EOS');
SELECT c.oid::regclass FROM pg_class c
 WHERE c.relnamespace = 'meal_planner'::regnamespace AND c.relkind IN ('r', 'p') ORDER BY 1
EOS
cmp_ok(scalar(@tables), '>', 10, 'no preload: there are tables');
$bare->safe_psql('postgres', join(';', map { "SELECT count(*) FROM $_" } @tables));
pass('no preload: the tables can be read');

my %needs_it = (
	mp_emit_event => q(SELECT mp_emit_event('A', '{}')),
	mp_put_events => q(SELECT mp_put_events('[{"Source":"a","DetailType":"b","Detail":{}}]')),
	mp_read_events => q(SELECT * FROM mp_read_events()),
	mp_subscribe => q(SELECT mp_subscribe('a', '{}', NULL, 'pull')),
	mp_sweep => q(CALL mp_sweep()),
	mp_in_flight => q(SELECT * FROM mp_in_flight),
	mp_handler_stats => q(SELECT * FROM mp_handler_stats),
	'a handler of a builtin subscription' => q(SELECT mp_create_recipe('{"name":"Bread","servings":1,"ingredients":["500 g flour"]}')));
for my $function (sort keys %needs_it)
{
	my ($out, $err) = ('', '');
	my $status = $bare->psql('postgres', "\\set VERBOSITY verbose\n$needs_it{$function}", stdout => \$out, stderr => \$err);

	isnt($status, 0, "no preload: $function fails");
	like($err, qr/ERROR:  MP503: MP503: meal_planner is not in shared_preload_libraries\nHINT:  retry=no\. Add meal_planner to shared_preload_libraries in postgresql\.conf and restart the server\./,
		"no preload: $function says why and what to do");
}

# What needs nothing from shared memory works.
for my $query (
	q(SELECT mp_match('{"source":["a"]}', '{"source":"a"}')),
	q(SELECT mp_backoff(2)),
	q(SELECT mp_classify_error('40001')),
	q(SELECT meal_planner.clock()),
	q(SELECT mp_event('018f3c5e-0000-7000-8000-000000000000')),
	q(SELECT * FROM mp_read_stream('a')),
	q(SELECT * FROM mp_dlq), q(SELECT * FROM mp_alerts), q(SELECT * FROM mp_subscriptions))
{
	is($bare->psql('postgres', $query), 0, "no preload: $query works");
}

my ($out, $err);
$bare->psql('postgres', 'SELECT mp_schedule_sweeps()', stderr => \$err);
like($err, qr/MP503: pg_cron is not loaded\nHINT:  retry=no\. /, 'no pg_cron: the schedule says so');

# With the server as it should be, the same database works.
$bare->append_conf('postgresql.conf', "shared_preload_libraries = 'meal_planner'");
$bare->restart;
like($bare->safe_psql('postgres', q(SELECT mp_emit_event('A', '{}'))), qr/^[0-9a-f-]{36}$/, 'preloaded later, the database works');
$bare->psql('postgres', 'SELECT mp_schedule_sweeps()', stderr => \$err);
like($err, qr/MP503: pg_cron is not loaded/, 'preloaded alone: pg_cron is missed');
$bare->stop;
done_testing();
