# Handlers that take their own backend down.  The second crash makes a dead
# letter with the reason crash and one alert; nobody waits for a time-out to
# find a dead worker, and everybody else's deliveries go on.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use MealPlannerCluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = MealPlannerCluster->start('poison', conf => "restart_after_crash = on\n");
my $starts = PostgreSQL::Test::Utils::tempdir . '/starts';

# The handlers count their starts in a file, which no rollback and no crash of
# the server takes back.  The shell that the server starts is its child: it
# knows whom to kill.
$node->safe_psql('postgres', <<"EOS");
CREATE TABLE effects (handler text, n int);
CREATE FUNCTION count_start(handler text, n int, command text DEFAULT '') RETURNS void LANGUAGE plpgsql AS \$\$
BEGIN
    EXECUTE format('COPY (SELECT 1) TO PROGRAM %L', format('cat > /dev/null; echo %s %s >> $starts; %s', handler, n, command));
END
\$\$;
CREATE FUNCTION die(e meal_planner.event, handler text) RETURNS void LANGUAGE plpgsql AS \$\$
DECLARE
    n int := (e.detail ->> 'n')::int;
BEGIN
    INSERT INTO effects VALUES (handler, n);
    IF e.detail ->> 'poison' IS NULL THEN
        RETURN;
    ELSIF e.detail ->> 'poison' = 'kill' THEN
        PERFORM count_start(handler, n, 'kill -9 \$PPID');
    ELSE
        PERFORM count_start(handler, n);
        PERFORM pg_terminate_backend(pg_backend_pid()), pg_sleep(60);
    END IF;
END
\$\$;
CREATE FUNCTION on_worker(e meal_planner.event) RETURNS void LANGUAGE sql AS \$\$ SELECT die(e, 'worker') \$\$;
-- harmless at first: a delivery must be on record before it can be retried
CREATE FUNCTION on_inline(e meal_planner.event) RETURNS void LANGUAGE plpgsql AS \$\$
BEGIN
    IF e.detail ->> 'poison' IS NULL OR EXISTS (
        SELECT FROM meal_planner.delivery d
         WHERE (d.account, d.subscription, d.position) = (e.account, 'inline', e.position)) THEN
        PERFORM die(e, 'inline');
    ELSE
        RAISE EXCEPTION 'later' USING ERRCODE = 'MPT01';
    END IF;
END
\$\$;
CREATE FUNCTION on_other(e meal_planner.event) RETURNS void LANGUAGE sql AS \$\$
    INSERT INTO effects VALUES ('other', (e.detail ->> 'n')::int)
\$\$;
SELECT mp_subscribe('worker', '{"detail-type":["Work"]}', 'on_worker(meal_planner.event)', 'worker');
SELECT mp_subscribe('inline', '{"detail-type":["Call"]}', 'on_inline(meal_planner.event)');
SELECT mp_subscribe('other', '{"detail-type":["Work","Call"]}', 'on_other(meal_planner.event)', 'worker');
EOS

sub emit
{
	my ($type, $n, $poison) = @_;
	my $detail = $poison ? qq({"n":$n,"poison":"$poison"}) : qq({"n":$n});

	$node->safe_psql('postgres', "SELECT mp_emit_event('$type', '$detail')");
	return;
}

# A sweep that may not live to its end.
sub try_sweep
{
	my ($ahead) = @_;
	my $status = $node->psql('postgres', "SET meal_planner.clock_offset = $ahead; CALL mp_sweep()");

	MealPlannerCluster::wait_until(sub { $node->psql('postgres', 'SELECT 1') == 0 })
	  or die 'the server did not come back';
	return $status == 0 ? 'lived' : 'died';
}

sub query
{
	my ($query) = @_;
	return $node->safe_psql('postgres', $query);
}

sub starts_of
{
	my ($handler, $n) = @_;
	my @lines = -f $starts ? split /\n/, slurp_file($starts) : ();

	return scalar grep { $_ eq "$handler $n" } @lines;
}

sub delivery
{
	my ($subscription) = @_;
	return query("SELECT attempt, crashes, token IS NULL FROM meal_planner.delivery WHERE subscription = '$subscription'");
}

sub check_dead
{
	my ($what, $subscription, $n, $message) = @_;

	is(query(<<"EOS"), "crash|crash|dead|$message", "$what: dead, by the reason crash");
SELECT l.reason, l.error_type, l.status, l.error_message
  FROM mp_dlq l WHERE l.subscription = '$subscription' AND l.event -> 'detail' ->> 'n' = '$n'
EOS
	is(query(<<"EOS"), 1, "$what: one alert");
SELECT count(*) FROM meal_planner.alert a JOIN mp_dlq l ON l.id = a.dead_letter_id
 WHERE l.subscription = '$subscription' AND l.event -> 'detail' ->> 'n' = '$n'
EOS
	is(query('SELECT count(*) FROM meal_planner.delivery') + query('SELECT count(*) FROM meal_planner.worker_batch'),
		0, "$what: nothing is left scheduled or running");
	is(try_sweep(100000), 'lived', "$what: it is not tried again");
	return;
}

my $ahead = 0;

for my $poison ('terminate', 'kill')
{
	# A batch of one: the event is convicted by it.
	my $n = $poison eq 'kill' ? 1 : 2;
	my $what = "worker, $poison";

	emit('Work', $n, $poison);
	is(try_sweep($ahead), 'died', "$what: the first sweep dies");
	is(query("SELECT count(*) FROM meal_planner.worker_batch WHERE subscription = 'worker'"), 1,
		"$what: its batch is still claimed");
	is(try_sweep($ahead), 'lived', "$what: the next sweep takes it back at once");
	is(delivery('worker'), '1|1|t', "$what: as a delivery that is scheduled, with one attempt and one crash");
	is(query("SELECT count(*) FROM effects WHERE handler = 'other' AND n = $n"), 1, "$what: the other subscription goes on");
	$ahead += 10;
	is(try_sweep($ahead), 'died', "$what: the retry dies");
	is(delivery('worker'), '2|1|f', "$what: its attempt was on record before it started");
	is(try_sweep($ahead), 'lived', "$what: the next sweep takes it back at once, again");
	check_dead($what, 'worker', $n, 'the worker died while the handler ran');
	is(starts_of('worker', $n), 2, "$what: the handler started twice");

	# An inline subscription; its first attempt is harmless and retried.
	$what = "inline, $poison";
	emit('Call', $n, $poison);
	is(delivery('inline'), '1|0|t', "$what: the delivery is scheduled");
	$ahead += 10;
	is(try_sweep($ahead), 'died', "$what: the first retry dies");
	is(delivery('inline'), '2|0|f', "$what: its attempt was on record before it started");
	is(try_sweep($ahead), 'lived', "$what: the next sweep takes it back");
	is(delivery('inline'), '2|1|t', "$what: with one crash");
	$ahead += 10;
	is(try_sweep($ahead), 'died', "$what: the second retry dies");
	is(try_sweep($ahead), 'lived', "$what: the next sweep gives it up");
	check_dead($what, 'inline', $n, 'the worker died while the handler ran');
	is(starts_of('inline', $n), 2, "$what: the handler was started twice by a sweep");
	is(query("SELECT count(*) FROM effects WHERE handler IN ('inline', 'worker') AND n = $n"), 0,
		"$what: no effect of an attempt that died");
}

# Among others in a batch: a batch does not tell who it was, so that its crash
# counts for nobody; then one by one.
emit('Work', $_, $_ == 13 ? 'terminate' : undef) for 11 .. 15;
is(try_sweep($ahead), 'died', 'batch: the sweep dies');
my $sweeps = 1;
$sweeps++ while $sweeps < 10 && query("SELECT count(*) FROM mp_dlq WHERE event -> 'detail' ->> 'n' = '13'") == 0
  && (try_sweep($ahead += 10) || 1);
check_dead('batch', 'worker', 13, 'the worker died while the handler ran');
is(starts_of('worker', 13), 3, 'batch: the poisonous event was started with its batch, then twice alone');
is(query("SELECT string_agg(n::text, ',' ORDER BY n) FROM effects WHERE handler = 'worker' AND n > 10"),
	'11,12,14,15', 'batch: the others took effect, each once');
is(query("SELECT string_agg(n::text, ',' ORDER BY n) FROM effects WHERE handler = 'other' AND n > 10"),
	'11,12,13,14,15', 'batch: the other subscription got all');

# A sweep that is running notices that another one died.
my $watcher = $node->background_psql('postgres', on_error_stop => 0);
$watcher->query_until(qr/watching/, "\\echo watching\nCALL mp_sweep(600);\n");
emit('Work', 21, 'terminate');
ok(MealPlannerCluster::wait_until(sub { starts_of('worker', 21) == 1 }), 'two sweeps: one of them meets the poison');
my $second = $node->background_psql('postgres', on_error_stop => 0);
$second->query_until(qr/watching/, "\\echo watching\nSET meal_planner.clock_offset = $ahead;\nCALL mp_sweep(600);\n");
ok($node->poll_query_until('postgres', "SELECT count(*) = 1 FROM meal_planner.delivery WHERE subscription = 'worker' AND crashes = 1"),
	'two sweeps: the other takes over what the dead one had');
query('SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE query LIKE \'CALL mp\_sweep(600)%\'');
$_->{run}->finish for $watcher, $second;

# An emitter killed by its own inline handler has emitted nothing.
$node->safe_psql('postgres', <<'EOS');
CREATE OR REPLACE FUNCTION on_inline(e meal_planner.event) RETURNS void LANGUAGE sql AS $$ SELECT die(e, 'inline') $$;
EOS
isnt($node->psql('postgres', q(SELECT mp_emit_event('Call', '{"n":31,"poison":"kill"}'))), 0, 'emitter: killed by its handler');
MealPlannerCluster::wait_until(sub { $node->psql('postgres', 'SELECT 1') == 0 });
is(query("SELECT count(*) FROM meal_planner.event WHERE detail ->> 'n' = '31'"), 0, 'emitter: nothing is recorded');
is(query('SELECT count(*) FROM mp_in_flight'), 0, 'emitter: and it holds no reader back');

ok(MealPlannerCluster::no_panic($node), 'no PANIC, no assertion, no other signal in the log');
$node->stop;
done_testing();
