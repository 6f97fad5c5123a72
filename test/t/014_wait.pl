# Waiting for events: consumers and sweeps are woken by commits, no wake-up is
# lost, whoever stops waiting leaves nothing behind, and consumers outside the
# server are told by NOTIFY.
#
# meal_planner.longest_sleep is ten minutes here: whatever is found in time, a
# wake-up has found, not a look by chance.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use MealPlannerCluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = MealPlannerCluster->start('wait', conf => "meal_planner.longest_sleep = '10min'\n");

sub query
{
	my ($query) = @_;
	return $node->safe_psql('postgres', $query);
}

query(<<'EOS');
CREATE TABLE handled (n int, at timestamptz DEFAULT clock_timestamp());
CREATE FUNCTION on_worker(e meal_planner.event) RETURNS void LANGUAGE sql AS $$
    INSERT INTO public.handled VALUES ((e.detail ->> 'n')::int) $$;
SELECT mp_subscribe('worker', '{"detail-type":["Work"]}', 'on_worker(meal_planner.event)', 'worker');
SELECT mp_subscribe('pull', '{"detail-type":["Pull"]}', NULL, 'pull');
SELECT mp_subscribe('other', '{"detail-type":["Other"]}', NULL, 'pull');
SELECT mp_subscribe('ordered', '{"detail-type":["Ordered"]}', NULL, 'pull', '{"order_key": "detail.key"}');

-- A consumer that claims one event at a time, each in a transaction of its own,
-- and is through when it gets one whose n is negative.  Nothing within a minute
-- is an error: there is always something to come.
CREATE TABLE consumed (consumer int, n int);
CREATE PROCEDURE consume(consumer int, subscription text DEFAULT 'pull') LANGUAGE plpgsql AS $$
DECLARE
    got record;
BEGIN
    LOOP
        SELECT * INTO got FROM public.mp_claim(subscription, 1, 600, NULL, 'local', 60);
        IF NOT FOUND THEN
            RAISE EXCEPTION 'consumer % waited in vain', consumer;
        END IF;
        INSERT INTO public.consumed VALUES (consumer, (got.event -> 'detail' ->> 'n')::int);
        COMMIT;
        PERFORM public.mp_ack(got.token);
        COMMIT;
        EXIT WHEN (got.event -> 'detail' ->> 'n')::int < 0;
    END LOOP;
END
$$;
EOS

# background(statement): a session that runs it; returns the session and its pid.
sub background
{
	my ($statement) = @_;
	my $session = $node->background_psql('postgres', on_error_stop => 0);
	my $pid = $session->query_safe('SELECT pg_backend_pid()');

	$session->query_until(qr/^started$/m, "\\echo started\n$statement\n\\echo finished\n");
	return ($session, $pid);
}

sub waiters { return query('SELECT waiters FROM meal_planner.waiting()'); }
sub wait_for_waiters
{
	my ($count) = @_;
	return $node->poll_query_until('postgres', "SELECT waiters = $count FROM meal_planner.waiting()");
}

sub finish
{
	my ($session) = @_;

	$session->query_until(qr/^finished$/m, '');
	my $out = $session->query('SELECT 1');
	$session->quit;
	return;
}

# Ends a session whose server process is gone.
sub end_of
{
	my ($session) = @_;

	$session->{run}->kill_kill;
	return;
}

sub emit
{
	my ($type, $n, $more) = @_;
	return query("SELECT mp_emit_event('$type', '{\"n\": $n" . ($more // '') . "}')");
}

# ---------------------------------------------------------------------------
# One waits, another commits.

my ($consumer, $pid) = background('CALL consume(1);');
ok(wait_for_waiters(1), 'a consumer waits');
is(query("SELECT wait_event_type FROM pg_stat_activity WHERE pid = $pid"), 'Extension', 'asleep');
emit('Pull', -1);
finish($consumer);
is(query('SELECT string_agg(n::text, \',\') FROM consumed'), '-1', 'it returns when an event is committed');
is(waiters(), 0, 'nobody waits any more');

# An event is of no use to it while an earlier transaction may still append; the
# end of that one wakes, also when it is rolled back.
my $open = $node->background_psql('postgres', on_error_stop => 0);
for my $end ('COMMIT', 'ROLLBACK')
{
	query('TRUNCATE consumed');
	$open->query_safe("BEGIN; SELECT mp_emit_event('Nothing', '{}')");
	($consumer) = background('CALL consume(1);');
	ok(wait_for_waiters(1), "$end: a consumer waits");
	my $woken = query('SELECT woken FROM meal_planner.waiting()');
	emit('Pull', -2);
	ok($node->poll_query_until('postgres', "SELECT waiters = 1 AND woken > $woken FROM meal_planner.waiting()"),
		"$end: it was woken and waits again, behind a transaction in flight");
	is(query('SELECT count(*) FROM consumed'), 0, "$end: without the event");
	$open->query_safe($end);
	finish($consumer);
	is(query('SELECT string_agg(n::text, \',\') FROM consumed'), '-2', "$end: which wakes it when it ends");
}
$open->quit;

# ---------------------------------------------------------------------------
# Eight wait; every event wakes one, and every event is taken.

sub eight
{
	return map { [ background("CALL consume($_);") ] } 1 .. 8;
}

query('TRUNCATE consumed');
my @consumers = eight();
ok(wait_for_waiters(8), 'eight consumers wait');
my $before = query('SELECT woken FROM meal_planner.waiting()');
for my $n (1 .. 40)
{
	emit('Pull', $n);
	# those who are not woken stay asleep, so that the event itself has to find one
	$node->poll_query_until('postgres', "SELECT count(*) = $n FROM consumed")
	  or last;
}
is(query('SELECT count(*), count(DISTINCT n) FROM consumed'), '40|40', 'one at a time: each event is claimed by one of them');
ok(wait_for_waiters(8), 'and all eight wait again');
cmp_ok(query('SELECT woken FROM meal_planner.waiting()') - $before, '<=', 80, 'an event wakes one of them, not all');

# Many at once, claimed one by one: who leaves some behind wakes the next.
query("SELECT mp_put_events((SELECT jsonb_agg(jsonb_build_object('Source', 's', 'DetailType', 'Pull', 'Detail', jsonb_build_object('n', n))) FROM generate_series(101, 300) n))");
$node->poll_query_until('postgres', 'SELECT count(*) = 240 FROM consumed');
is(query('SELECT count(*), count(DISTINCT n) FROM consumed'), '240|240', 'a batch: all of it is claimed');
cmp_ok(query('SELECT count(DISTINCT consumer) FROM consumed WHERE n > 100'), '>', 1, 'by more than one of them');

# Emitters at the same time, some of which roll back.
ok(wait_for_waiters(8), 'all eight wait again');
my @emitters = map { [ background("DO \$\$ BEGIN FOR n IN 1 .. 100 LOOP PERFORM mp_emit_event('Pull', jsonb_build_object('n', $_ * 1000 + n)); IF n % 7 = 0 THEN ROLLBACK; ELSE COMMIT; END IF; END LOOP; END \$\$;") ] } 1 .. 4;
finish($_->[0]) for @emitters;
$node->poll_query_until('postgres', 'SELECT count(*) = 240 + 4 * 86 FROM consumed');
is(query('SELECT count(*), count(DISTINCT n) FROM consumed WHERE n > 1000'), 4 * 86 . '|' . 4 * 86, 'four emitters: all that they committed is claimed');

# The one that is woken is killed, or rolls back, with the event in its hands.
query(<<'EOS');
CREATE FUNCTION take_and_sleep() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM FROM public.mp_claim('pull', 1, 600, NULL, 'local', 60);
    PERFORM pg_sleep(600);
END
$$;
EOS
emit('Pull', -100 - $_) for 1 .. 8;
finish($_->[0]) for @consumers;
query('TRUNCATE consumed');
for my $how ('cancel', 'terminate')
{
	my ($taker, $taker_pid) = background('SELECT take_and_sleep();');
	ok(wait_for_waiters(1), "$how: one waits");
	emit('Pull', -3);
	ok($node->poll_query_until('postgres', "SELECT wait_event = 'PgSleep' FROM pg_stat_activity WHERE pid = $taker_pid"), "$how: and has the event");
	($consumer) = background('CALL consume(1);');
	# it waits for the lock of the claim that is not committed, not for an event
	ok($node->poll_query_until('postgres', "SELECT count(*) = 1 FROM pg_stat_activity WHERE query LIKE 'CALL consume%' AND wait_event_type = 'Lock'"), "$how: another one comes");
	query("SELECT pg_${how}_backend($taker_pid)");
	finish($consumer);
	is(query('SELECT count(*) FROM consumed'), 1, "$how: and gets it");
	query('TRUNCATE consumed');
	$how eq 'cancel' ? $taker->quit : end_of($taker);
}

# A savepoint that is rolled back gives the event back as well; the one that
# waits behind it is not the one that was woken.
my $holder = $node->background_psql('postgres', on_error_stop => 0);
emit('Pull', -4);
$holder->query_safe('BEGIN');
$holder->query_safe('SAVEPOINT s');
$holder->query_safe("SELECT * FROM mp_claim('pull', 1, 600)");
($consumer) = background('CALL consume(1);');
ok($node->poll_query_until('postgres', "SELECT count(*) = 1 FROM pg_stat_activity WHERE query LIKE 'CALL consume%' AND wait_event_type = 'Lock'"), 'savepoint: a consumer waits for a claim');
$holder->query_safe('ROLLBACK TO s');
finish($consumer);
is(query('SELECT string_agg(n::text, \',\') FROM consumed'), '-4', 'savepoint: and gets its event when it is undone');
$holder->query_safe('COMMIT');
$holder->quit;

# Two subscriptions and an account of their own: an event wakes one of each queue.
query('TRUNCATE consumed');
my ($a) = background("CALL consume(1, 'pull');");
my ($b) = background("CALL consume(2, 'other');");
ok(wait_for_waiters(2), 'two subscriptions: one waits for each');
query(<<'EOS');
BEGIN;
SELECT mp_emit_event('Pull', '{"n": -5}');
SELECT mp_emit_event('Other', '{"n": -6}');
COMMIT;
EOS
finish($_) for $a, $b;
is(query("SELECT string_agg(consumer || ':' || n, ',' ORDER BY consumer) FROM consumed"), '1:-5,2:-6', 'two subscriptions: a commit wakes both');
$before = query('SELECT woken FROM meal_planner.waiting()');
($a) = background('CALL consume(1);');
ok(wait_for_waiters(1), 'accounts: a consumer waits');
query("SELECT mp_emit_event('Pull', '{\"n\": -1}', account => 'elsewhere')");
is(query('SELECT woken FROM meal_planner.waiting()'), $before, 'accounts: an event of another account does not wake it');
emit('Pull', -1);
finish($a);

# What an order key holds back is free with the acknowledgement.
query('TRUNCATE consumed');
emit('Ordered', 1, ', "key": "k"');
my $first = query("SELECT token FROM mp_claim('ordered', 1, 600)");
emit('Ordered', -7, ', "key": "k"');
($consumer) = background("CALL consume(1, 'ordered');");
ok(wait_for_waiters(1), 'order key: a consumer waits for the key');
is(query("SELECT mp_ack('$first')"), 't', 'order key: its event is acknowledged');
finish($consumer);
is(query('SELECT string_agg(n::text, \',\') FROM consumed'), '-7', 'order key: and the next one is claimed');

# ---------------------------------------------------------------------------
# The end of a wait.

is($node->psql('postgres', "SELECT * FROM mp_claim('pull', 1, 600, NULL, 'local', 0.2)"), 0, 'a wait ends in time');
is(waiters(), 0, 'and leaves no waiter');

my $err;
$node->psql('postgres', "SET statement_timeout = 300; SELECT * FROM mp_claim('pull', 1, 600, NULL, 'local', 60)", stderr => \$err);
like($err, qr/canceling statement due to statement timeout/, 'statement_timeout ends a wait');
is(waiters(), 0, 'and leaves no waiter');

($consumer, $pid) = background("SELECT * FROM mp_claim('pull', 1, 600, NULL, 'local', 60);");
ok(wait_for_waiters(1), 'cancel: a consumer waits');
query("SELECT pg_cancel_backend($pid)");
ok($node->poll_query_until('postgres', "SELECT state = 'idle' FROM pg_stat_activity WHERE pid = $pid"), 'cancel: it ends');
is(waiters(), 0, 'cancel: and leaves no waiter');
$consumer->quit;

# caught by the statement itself: the transaction goes on
($consumer, $pid) = background("DO \$\$ BEGIN PERFORM mp_claim('pull', 1, 600, NULL, 'local', 60); EXCEPTION WHEN query_canceled THEN PERFORM pg_sleep(60); END \$\$;");
ok(wait_for_waiters(1), 'cancel that is caught: a consumer waits');
query("SELECT pg_cancel_backend($pid)");
ok($node->poll_query_until('postgres', "SELECT wait_event = 'PgSleep' FROM pg_stat_activity WHERE pid = $pid"), 'cancel that is caught: it goes on');
is(waiters(), 0, 'cancel that is caught: and leaves no waiter');
query("SELECT pg_terminate_backend($pid, 10000)");
end_of($consumer);

($consumer, $pid) = background("SELECT * FROM mp_claim('pull', 1, 600, NULL, 'local', 60);");
ok(wait_for_waiters(1), 'terminate: a consumer waits');
query("SELECT pg_terminate_backend($pid, 10000)");
is(waiters(), 0, 'terminate: it leaves no waiter');
end_of($consumer);

# A consumer that waits holds no other one up, whatever it has looked through.
query('TRUNCATE consumed');
($a) = background('CALL consume(1);');
ok(wait_for_waiters(1), 'passing: a consumer waits');
emit('Other', 0);
ok(wait_for_waiters(1), 'passing: it has passed an event that is not for it');
is(query("SELECT count(*) FROM mp_claim('pull')"), 0, 'passing: another one need not wait for it');
emit('Pull', -8);
finish($a);

# ---------------------------------------------------------------------------
# Sweeps.

my ($sweep, $sweep_pid) = background('CALL mp_sweep(600);');
ok(wait_for_waiters(1), 'a sweep waits');
emit('Work', $_) && $node->poll_query_until('postgres', "SELECT count(*) = $_ FROM handled")
  for 1 .. 10;
is(query('SELECT count(*), count(DISTINCT n) FROM handled'), '10|10', 'an event wakes it, which runs the worker subscription');
ok(wait_for_waiters(1), 'and it waits again');

# NOTIFY: of what lies there at the start, of what comes, once per burst.
sub notices
{
	my ($listener) = @_;
	my $out = $listener->query('SELECT 1');
	return $out =~ /Asynchronous notification "mp_claim" with payload "(\{[^\n]*\})" received/g;
}

# psql shows what has arrived with the answer to its next statement
sub wait_for_notice
{
	my ($listener) = @_;
	my @all;

	MealPlannerCluster::wait_until(sub { push @all, notices($listener); return scalar @all; });
	return @all;
}

query('SELECT mp_ack(token) FROM (SELECT DISTINCT token FROM mp_claim(\'pull\', 10000) UNION SELECT DISTINCT token FROM mp_claim(\'other\', 10000)) c');
my $listener = $node->background_psql('postgres', on_error_stop => 0);
$listener->query_safe('LISTEN mp_claim');
sleep 1;
notices($listener);
emit('Pull', 1);
is((wait_for_notice($listener))[0], '{"account": "local", "subscription": "pull"}', 'an event for a pull subscription is told by NOTIFY');
query('SELECT mp_ack(token) FROM mp_claim(\'pull\', 10000)');

# the emitter sends nothing
query("SELECT pg_terminate_backend($sweep_pid, 10000)");
end_of($sweep);
is(waiters(), 0, 'a sweep that is terminated leaves no waiter');
emit('Pull', 2);
emit('Work', 99);
is(scalar(@{ [ notices($listener) ] }), 0, 'without a sweep nobody is told');
query('CALL mp_sweep()');
is(scalar(@{ [ wait_for_notice($listener) ] }), 1, 'the next sweep tells it, once');
query('CALL mp_sweep()');
is(scalar(@{ [ notices($listener) ] }), 0, 'and another one does not tell it again');

# A burst of a thousand commits; several sweeps.
my @sweeps = map { [ background('CALL mp_sweep(600);') ] } 1 .. 3;
ok(wait_for_waiters(3), 'three sweeps wait');
my $start = query('SELECT extract(epoch FROM clock_timestamp())');
query("DO \$\$ BEGIN FOR n IN 1 .. 1000 LOOP PERFORM mp_emit_event('Pull', jsonb_build_object('n', n)); COMMIT; END LOOP; END \$\$");
my @told = wait_for_notice($listener);
sleep 1;
push @told, notices($listener);
my $seconds = query("SELECT extract(epoch FROM clock_timestamp()) - $start");
cmp_ok(scalar(@told), '>=', 1, 'a burst is told');
cmp_ok(scalar(@told), '<=', 2 + $seconds / 0.05, 'not more than once in 50 ms')
  or diag(scalar(@told) . " notices of 1,000 commits in $seconds s");

# A retry that is due.
query('SELECT mp_ack(token) FROM (SELECT DISTINCT token FROM mp_claim(\'pull\', 10000)) c');
emit('Pull', 3);
wait_for_notice($listener);
my ($token, $event) = split /\|/, query("SELECT token, event_id FROM mp_claim('pull')");
is(query("SELECT mp_fail('$token', '$event', 'transient', 'not now', 0)"), 'retry', 'an event fails');
emit('Work', 100);
is((wait_for_notice($listener))[0], '{"account": "local", "subscription": "pull"}', 'its retry is told when a sweep looks');
$listener->quit;
for (@sweeps)
{
	query("SELECT pg_terminate_backend($_->[1], 10000)");
	end_of($_->[0]);
}

is(waiters(), 0, 'nobody waits');
ok(MealPlannerCluster::no_panic($node), 'no PANIC, no assertion, no other signal in the log');
$node->stop;
done_testing();
