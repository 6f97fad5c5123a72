# The server is killed under load, in several ways.  Nothing acknowledged may be
# lost, nothing may be applied twice, and positions must go on.
#
# "Acknowledged" means that COMMIT returned: psql prints the id only then.  The
# clients write what they are about to do and what was acknowledged to files of
# their own.  The server runs without fsync: the kernel outlives a kill -9, so
# that only what the server had not handed over can be lost, and that is what
# this test is about (see the control at its end, which loses something).
#
# All three modes take part.  Inline and worker handlers take effect exactly
# once.  Consumers of the pull subscription "pull" commit their effect, then
# acknowledge: at least once.  Those of "ledger" do both in one transaction:
# exactly once.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use CrashLoad;
use MealPlannerCluster;
use PostgreSQL::Test::Utils;
use Test::More;

use constant { CLIENTS => 8, STEPS => 4000, ACKS_BEFORE_KILL => 250, CLAIMS_BEFORE_KILL => 5, LEASE => 2 };

my $node = MealPlannerCluster->start('crash', conf => <<'EOC');
restart_after_crash = on
log_statement = none
max_connections = 40
EOC

$node->safe_psql('postgres', <<'EOS');
-- no unique constraint: what is applied twice shall show
CREATE TABLE effects (handler text, client int, n int, event_id uuid);
CREATE INDEX ON effects (event_id);

CREATE FUNCTION attempt_of(e meal_planner.event, handler text) RETURNS int LANGUAGE sql AS $$
    SELECT coalesce((SELECT d.attempt FROM meal_planner.delivery d
                      WHERE (d.account, d.subscription, d.position) = (e.account, handler, e.position)), 1)
$$;
CREATE FUNCTION handle(e meal_planner.event, handler text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    kind text := e.detail ->> 'kind';
BEGIN
    INSERT INTO effects VALUES (handler, (e.detail ->> 'client')::int, (e.detail ->> 'n')::int, e.id);
    IF kind = 'flaky' AND attempt_of(e, handler) < 3 THEN
        RAISE EXCEPTION 'not yet' USING ERRCODE = 'MPT01';
    ELSIF kind = 'bad' THEN
        RAISE EXCEPTION 'never' USING ERRCODE = 'MPP01';
    END IF;
END
$$;
CREATE FUNCTION on_inline(e meal_planner.event) RETURNS void LANGUAGE sql AS $$ SELECT handle(e, 'inline') $$;
CREATE FUNCTION on_worker(e meal_planner.event) RETURNS void LANGUAGE sql AS $$ SELECT handle(e, 'worker') $$;
CREATE FUNCTION on_chain(e meal_planner.event) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM mp_emit_event('Echo', e.detail || '{"kind":"ok"}', 'load');
    PERFORM handle(e, 'chain');
END
$$;
CREATE FUNCTION on_echo(e meal_planner.event) RETURNS void LANGUAGE sql AS $$ SELECT handle(e, 'echo') $$;

SELECT mp_subscribe('inline', '{"source":["load"],"detail-type":["Load"]}', 'on_inline(meal_planner.event)',
                    options => '{"base_delay":0.02}');
SELECT mp_subscribe('worker', '{"source":["load"],"detail-type":["Load"]}', 'on_worker(meal_planner.event)',
                    'worker', '{"base_delay":0.02}');
SELECT mp_subscribe('chain', '{"source":["load"],"detail-type":["Load"],"detail":{"kind":["flaky","ok"]}}',
                    'on_chain(meal_planner.event)', options => '{"base_delay":0.02}');
SELECT mp_subscribe('echo', '{"source":["load"],"detail-type":["Echo"]}', 'on_echo(meal_planner.event)', 'worker');

-- a lost lease is a failed attempt: there are enough of them
SELECT mp_subscribe('pull', '{"source":["load"],"detail-type":["Load"]}', mode => 'pull',
                    options => '{"base_delay":0.02,"multiplier":1,"max_attempts":100}');
SELECT mp_subscribe('ledger', '{"source":["load"],"detail-type":["Load"]}', mode => 'pull',
                    options => '{"base_delay":0.02,"multiplier":1,"max_attempts":100}');

-- What consumers were handed, committed with the claim, and what they failed,
-- committed with the failure.
CREATE TABLE handed (consumer text, subscription text, token uuid, event_id uuid, attempt int,
                     client int, n int, kind text, asked_at timestamptz, got_at timestamptz, lease float8,
                     PRIMARY KEY (token, event_id));
CREATE INDEX ON handed (event_id);
CREATE TABLE failed (token uuid, event_id uuid, answer text, PRIMARY KEY (token, event_id));

CREATE FUNCTION claim(name text, consumer text, lease float8, wait_seconds float8) RETURNS uuid LANGUAGE sql AS $$
    WITH asked AS MATERIALIZED (SELECT meal_planner.clock() AS moment),
    claimed AS MATERIALIZED (
        SELECT a.moment, c.* FROM asked a, mp_claim(name, 20, lease, consumer, wait_seconds => wait_seconds) c),
    noted AS (
        INSERT INTO handed
        SELECT consumer, name, c.token, c.event_id, c.attempt, (c.event #>> '{detail,client}')::int,
               (c.event #>> '{detail,n}')::int, c.event #>> '{detail,kind}', c.moment, meal_planner.clock(), lease
          FROM claimed c)
    SELECT c.token FROM claimed c LIMIT 1
$$;
CREATE FUNCTION fail(claimed uuid) RETURNS void LANGUAGE sql AS $$
    INSERT INTO failed
    SELECT h.token, h.event_id,
           mp_fail(h.token, h.event_id, CASE h.kind WHEN 'bad' THEN 'permanent' ELSE 'transient' END, 'told to')
      FROM handed h
     WHERE h.token = claimed AND (h.kind = 'bad' OR h.kind = 'flaky' AND h.attempt < 3)
$$;
CREATE FUNCTION take_effect(claimed uuid) RETURNS void LANGUAGE sql AS $$
    INSERT INTO effects
    SELECT h.subscription, h.client, h.n, h.event_id
      FROM handed h
     WHERE h.token = claimed AND NOT EXISTS (SELECT FROM failed f WHERE (f.token, f.event_id) = (h.token, h.event_id))
$$;
-- what the clients say of themselves: rolled_back ones must not be there
CREATE TABLE tried (client int, n int, rolled_back boolean);
CREATE TABLE acked (client int, n int, id uuid, round int);
CREATE INDEX ON tried (n);
CREATE TABLE settled (token uuid PRIMARY KEY, answer boolean, round int);
EOS
$node->safe_psql('postgres', CrashLoad::drain_procedure());

my $dir = PostgreSQL::Test::Utils::tempdir;
my $next_n = 0;

# One client: single emits, transactions of two, transactions that roll back.
sub client_script
{
	my ($client) = @_;
	my $script = '';
	my $emit = sub {
		my ($n, $name) = @_;
		my $kind = $n % 11 == 0 ? 'flaky' : $n % 23 == 0 ? 'bad' : 'ok';
		return sprintf(q{SELECT mp_emit_event('Load', '{"client":%d,"n":%d,"kind":"%s"}', 'load') AS %s \gset},
			$client, $n, $kind, $name);
	};

	for (my $step = 0; $step < STEPS; $step++)
	{
		my $n = $next_n;

		$next_n += $step % 10 == 7 ? 2 : 1;
		$script .= $step % 10 == 7 ? CrashLoad::emit_two($n, $emit)
		  : $step % 10 == 3 ? CrashLoad::emit_and_roll_back($n, $emit)
		  : CrashLoad::emit_one($n, $emit);
	}
	return $script . "\\echo finished\n";
}

# One round of a consumer; the answer to its acknowledgement is told when it is
# certain.
my %consume = (
	pull => <<'EOS',
SELECT fail(:'token'), take_effect(:'token'), mp_extend(:'token', :lease) \g /dev/null
SELECT mp_ack(:'token') AS answer \gset
EOS
	ledger => <<'EOS');
SELECT fail(:'token') \g /dev/null
BEGIN;
SELECT take_effect(:'token') \g /dev/null
SELECT mp_ack(:'token') AS answer \gset
\if :answer
COMMIT;
\else
ROLLBACK;
\endif
EOS
while (my ($name, $statements) = each %consume)
{
	append_to_file("$dir/consume_$name.sql", <<"EOS");
SELECT token IS NOT NULL AS any, token FROM claim('$name', :'consumer', :lease, 1) AS token \\gset
\\if :any
$statements
\\echo settled :token :answer
\\endif
EOS
}
my %consumers = (1 => 'pull', 2 => 'pull', 3 => 'pull', 4 => 'ledger', 5 => 'ledger');

sub acks_so_far
{
	my $acks = 0;

	$acks += () = slurp_file("$dir/client$_.out") =~ /^ack /mg for 1 .. CLIENTS;
	return $acks;
}

# The least that a consumer of either subscription has settled.
sub claims_so_far
{
	my %claims;

	$claims{ $consumers{$_} } += () = slurp_file("$dir/consumer$_.out") =~ /^settled /mg for keys %consumers;
	return $claims{pull} < $claims{ledger} ? $claims{pull} : $claims{ledger};
}

# What runs in the background: clients, consumers, sweeps.
my (@clients, %consumer_pid, @sweepers);

# Load until enough was acknowledged, then `kill`; returns the number of clients
# that it cut short.  The server is up and quiet afterwards.
sub crash_round
{
	my ($round, $kill) = @_;
	my $cut_short = 0;

	@clients = map { CrashLoad::start_client($node, $dir, "client$_", client_script($_)) } 1 .. CLIENTS;
	for my $consumer (keys %consumers)
	{
		$consumer_pid{$consumer} = CrashLoad::start_client($node, $dir, "consumer$consumer",
			"\\i $dir/consume_$consumers{$consumer}.sql\n" x STEPS, '-v', "consumer=$consumer", '-v', 'lease=' . LEASE);
	}
	@sweepers = map { CrashLoad::start_client($node, $dir, "sweep$_", 'CALL mp_sweep(60);') } 1 .. 2;

	CrashLoad::wait_for_progress($dir, sub { acks_so_far() >= ACKS_BEFORE_KILL && claims_so_far() >= CLAIMS_BEFORE_KILL });
	$kill->();
	waitpid $_, 0 for @clients, values %consumer_pid, @sweepers;
	MealPlannerCluster::wait_until_up($node);
	# a session notices late that its client is gone
	MealPlannerCluster::wait_until(sub { count(<<'EOS') == 0 }) or die 'sessions are left';
SELECT 1 FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()
EOS

	my ($tried, $acked) = ('', '');
	for my $client (1 .. CLIENTS)
	{
		my $said = slurp_file("$dir/client$client.out");

		$cut_short++ unless $said =~ /^finished/m;
		$tried .= "$client\t$2\t" . ($1 eq 'undo' ? 't' : 'f') . "\n" while $said =~ /^(try|undo) (\d+)$/mg;
		$acked .= "$client\t$1\t$2\t$round\n" while $said =~ /^ack (\d+) ([0-9a-f-]{36})$/mg;
	}
	my $settled = '';
	for my $consumer (keys %consumers)
	{
		my $said = slurp_file("$dir/consumer$consumer.out");

		$settled .= "$1\t$2\t$round\n" while $said =~ /^settled ([0-9a-f-]{36}) ([tf])$/mg;
	}
	$node->safe_psql('postgres', <<"EOS");
COPY tried FROM stdin;
$tried\\.
COPY acked FROM stdin;
$acked\\.
COPY settled FROM stdin;
$settled\\.
EOS
	return $cut_short;
}

sub count
{
	my ($query) = @_;
	return $node->safe_psql('postgres', "SELECT count(*) FROM ($query) q");
}

sub some_backend { return MealPlannerCluster::some_backend($node, $_[0]) }

my $log_is_whole = <<'EOS';
SELECT a.client, a.n FROM acked a
 WHERE NOT EXISTS (SELECT FROM meal_planner.event e
                    WHERE e.account = 'local' AND e.id = a.id AND e.detail_type = 'Load'
                      AND (e.detail ->> 'client')::int = a.client AND (e.detail ->> 'n')::int = a.n)
EOS

# Sweeps and a consumer, with the clock ever further ahead, until nothing is
# left to do.  The first ones must find that leases have outlived the crash.
sub settle
{
	for (my $ahead = 0; $ahead <= 600; $ahead += 40)
	{
		MealPlannerCluster::sweep($node, 'postgres', $ahead);
		$node->safe_psql('postgres', "SET meal_planner.clock_offset = $ahead; CALL drain()");
		return 1 if CrashLoad::is_idle($node);
	}
	return 0;
}

# What holds whenever all is quiet.
sub check_invariants
{
	my ($what) = @_;

	ok(settle(), "$what: sweeps and consumers come to an end");
	is(count(<<'EOS'), 0, "$what: nothing is in the log that nobody tried or that was rolled back");
SELECT 1 FROM meal_planner.event e
  LEFT JOIN tried t ON t.client = (e.detail ->> 'client')::int AND t.n = (e.detail ->> 'n')::int AND NOT t.rolled_back
 WHERE e.source = 'load' AND t.client IS NULL
EOS
	is(count(<<'EOS'), 0, "$what: nothing is in the log twice");
SELECT 1 FROM meal_planner.event e WHERE e.source = 'load'
 GROUP BY e.detail_type, e.detail -> 'client', e.detail -> 'n' HAVING count(*) > 1
EOS
	is(count(<<'EOS'), 0, "$what: every (event, subscription) took effect exactly once or is one dead letter");
SELECT e.id, s.name
  FROM meal_planner.event e
  JOIN meal_planner.subscription s ON s.name IN ('inline', 'worker', 'chain', 'echo', 'ledger')
                                  AND meal_planner.matches(s.pattern, e)
 WHERE e.source = 'load'
   AND (SELECT count(*) FROM effects f WHERE f.event_id = e.id AND f.handler = s.name)
     + (SELECT count(*) FROM meal_planner.dead_letter l
         WHERE (l.account, l.subscription, l.position) = (e.account, s.name, e.position)) <> 1
EOS
	is(count(<<'EOS'), 0, "$what: pull: every event took effect at least once or is one dead letter");
SELECT e.id FROM meal_planner.event e
 WHERE e.source = 'load' AND e.detail_type = 'Load'
   AND (SELECT count(*) > 0 FROM effects f WHERE f.event_id = e.id AND f.handler = 'pull')
     = EXISTS (SELECT FROM meal_planner.dead_letter l
                WHERE (l.account, l.subscription, l.position) = (e.account, 'pull', e.position))
EOS
	is(count(<<'EOS'), 0, "$what: pull: attempts count from 1, without a gap, each handed to one consumer");
SELECT h.event_id FROM handed h
 GROUP BY h.subscription, h.event_id
HAVING min(h.attempt) <> 1 OR max(h.attempt) <> count(*) OR count(DISTINCT h.attempt) <> count(*)
EOS
	is(count(<<'EOS'), 0, "$what: pull: another attempt only after a failure or the end of the lease");
SELECT h.* FROM (
    SELECT h.*, lead(h.got_at) OVER (PARTITION BY h.subscription, h.event_id ORDER BY h.attempt) AS again_at
      FROM handed h) h
 WHERE h.again_at < h.asked_at + make_interval(secs => h.lease)
   AND NOT EXISTS (SELECT FROM failed f WHERE (f.token, f.event_id, f.answer) = (h.token, h.event_id, 'retry'))
EOS
	is(count(<<'EOS'), 0, "$what: pull: nothing acknowledged is handed out again, all else is");
SELECT h.* FROM handed h JOIN settled s USING (token)
 WHERE s.round < 100
   AND NOT EXISTS (SELECT FROM failed f WHERE (f.token, f.event_id) = (h.token, h.event_id))
   AND s.answer = EXISTS (SELECT FROM handed later
                           WHERE (later.subscription, later.event_id) = (h.subscription, h.event_id)
                             AND later.attempt > h.attempt)
EOS
	is(count(<<'EOS'), 0, "$what: no effect without its event");
SELECT 1 FROM effects f LEFT JOIN meal_planner.event e ON e.id = f.event_id WHERE e.id IS NULL
EOS
	is(count(<<'EOS'), 0, "$what: an event and what its handler emitted are there together");
SELECT e.detail -> 'client', e.detail -> 'n' FROM meal_planner.event e
 WHERE e.source = 'load' AND e.detail_type = 'Load' AND e.detail ->> 'kind' <> 'bad'
   AND NOT EXISTS (SELECT FROM meal_planner.dead_letter l WHERE l.event_id = e.id AND l.subscription = 'chain')
EXCEPT ALL
SELECT e.detail -> 'client', e.detail -> 'n' FROM meal_planner.event e
 WHERE e.source = 'load' AND e.detail_type = 'Echo'
EOS
	is(count(<<'EOS'), 0, "$what: what is bad is dead, what is dead is bad or took its server down twice");
SELECT l.id FROM meal_planner.dead_letter l JOIN meal_planner.event e ON e.account = l.account AND e.position = l.position
 WHERE (e.detail ->> 'kind' = 'bad') <> (l.reason = 'permanent')
    OR (e.detail ->> 'kind' <> 'bad') <> (l.reason = 'crash')
EOS
	is(count('SELECT l.id FROM meal_planner.dead_letter l LEFT JOIN meal_planner.alert a ON a.dead_letter_id = l.id
	           GROUP BY l.id HAVING count(a.id) <> 1'), 0, "$what: one alert per dead letter");
	is(count(<<'EOS'), 0, "$what: as many failed attempts are kept as were used up");
SELECT d.event_id FROM meal_planner.delivery d
 WHERE jsonb_array_length(d.history) < 100
   AND d.attempt - (d.token IS NOT NULL)::int
       <> (SELECT count(*) FROM mp_attempts a
            WHERE a.live AND a.counted AND a.account = d.account AND a.subscription = d.subscription AND a.event_id = d.event_id)
 UNION ALL
SELECT l.event_id FROM meal_planner.dead_letter l
 WHERE jsonb_array_length(l.history) < 100
   AND l.retry_count + 1 <> (SELECT count(*) FROM mp_dlq_attempts(l.id) a WHERE a.counted)
EOS
	is(count('SELECT 1 FROM meal_planner.event_default'), 0, "$what: the default partition was not needed");
	is(count('SELECT 1 FROM mp_in_flight'), 0, "$what: no transaction is left in flight");
	is(count(<<'EOS'), 0, "$what: a reader gets the whole log, in order");
(SELECT e.id FROM meal_planner.event e)
EXCEPT ALL
(SELECT (r.event ->> 'id')::uuid FROM mp_read_events(0, 1000000) r)
EOS
	is(count(<<'EOS'), 0, "$what: positions of a client's acknowledgements rise, over crashes too");
SELECT 1 FROM (SELECT meal_planner.event_position(a.id) AS position,
                      lag(meal_planner.event_position(a.id)) OVER (PARTITION BY a.client ORDER BY a.n) AS before
                 FROM acked a WHERE a.round < 100) p
 WHERE p.position <= p.before
EOS
	is(count('SELECT 1 FROM acked GROUP BY id HAVING count(*) > 1'), 0, "$what: no id was given twice");
	return;
}

# A session that claims something in mid-load; returns the token as well.
sub consumer_with_a_claim
{
	my ($name) = @_;
	my $session = $node->background_psql('postgres');
	my $token;

	MealPlannerCluster::wait_until(sub { $token = $session->query_safe("SELECT claim('pull', '$name', " . LEASE . ', 0)') })
	  or die 'nothing to claim';
	return ($session, $token);
}

# Consumers die and the server lives on: what they held is handed to others
# when their leases end, and one who sleeps longer finds out.
sub kill_consumers
{
	my ($dying, $dead_token) = consumer_with_a_claim('dying');
	my ($sleeping, $lost_token) = consumer_with_a_claim('sleeping');

	$dying->{run}->signal('KILL');
	kill 9, @consumer_pid{ 1, 2, 4 };
	ok( MealPlannerCluster::wait_until(sub { count(<<"EOS") == 0 }), 'kill -9 of consumers: others get what they held');
SELECT 1 FROM handed h
 WHERE h.token IN ('$dead_token', '$lost_token')
   AND NOT EXISTS (SELECT FROM handed later
                    WHERE (later.subscription, later.event_id) = (h.subscription, h.event_id) AND later.attempt > h.attempt)
EOS
	is( $sleeping->query_safe(
			"SELECT mp_ack('$lost_token'), mp_extend('$lost_token', 60), mp_fail('$lost_token', event_id, 'permanent', 'late')"
			  . " FROM handed WHERE token = '$lost_token' ORDER BY event_id LIMIT 1"),
		'f|f|lease_lost', 'kill -9 of consumers: who comes too late changes nothing');
	$sleeping->quit;
	kill 9, @clients, @consumer_pid{ 3, 5 };
	$node->safe_psql('postgres', "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'CALL mp\\_sweep%'");
}

# The ways to die.
my @rounds = (
	[ 'kill -9 of an emitter', sub { kill 9, some_backend("query LIKE '%mp\\_emit\\_event%'") } ],
	[ 'kill -9 of a worker', sub { kill 9, some_backend("query LIKE 'CALL mp\\_sweep%'") } ],
	[ 'kill -9 of a consumer\'s backend', sub { kill 9, some_backend("query LIKE '% claim(%'") } ],
	[ 'kill -9 of consumers', \&kill_consumers ],
	[ 'kill -9 of the postmaster', sub { $node->kill9; MealPlannerCluster::start_again($node) } ],
	[ 'immediate stop', sub { $node->stop('immediate'); $node->start } ]);

my $round = 0;
for my $crash (@rounds)
{
	my ($what, $kill) = @$crash;
	my $last = $node->safe_psql('postgres', 'SELECT coalesce(max(position), 0) FROM meal_planner.event');

	is(crash_round(++$round, $kill), CLIENTS, "$what: all clients were cut short");
	is(count($log_is_whole), 0, "$what: nothing acknowledged is lost");
	my ($behind, $emitted) = split /\|/, $node->safe_psql('postgres', <<"EOS");
SELECT max(position) > $last,
       meal_planner.event_position(mp_emit_event('Probe', '{}', 'probe')) > max(position)
  FROM meal_planner.event
EOS
	is($behind, 't', "$what: events were recorded");
	is($emitted, 't', "$what: the next position is above all before it");
	check_invariants($what);
}
cmp_ok(count("SELECT 1 FROM meal_planner.dead_letter WHERE reason = 'permanent'"), '>', 0, 'some events were bad');
cmp_ok(count("SELECT 1 FROM effects f JOIN meal_planner.event e ON e.id = f.event_id WHERE e.detail ->> 'kind' = 'flaky'"),
	'>', 0, 'some were retried');
cmp_ok(count('SELECT 1 FROM handed h JOIN settled s USING (token) WHERE s.answer'), '>', 0, 'consumers acknowledged');
cmp_ok(count("SELECT 1 FROM handed h WHERE h.kind = 'ok' AND h.attempt > 1"), '>', 0, 'some leases were lost');

# The control: told not to wait for the disk, the server loses what it had
# acknowledged, and this test sees it.  All else holds all the same.
$node->safe_psql('postgres', 'ALTER SYSTEM SET wal_writer_delay = 10000');
$node->safe_psql('postgres', 'ALTER SYSTEM SET wal_writer_flush_after = 131072');
$node->safe_psql('postgres', 'ALTER SYSTEM SET synchronous_commit = off');
$node->restart;
# Whatever writes the log out just before saves all: then another try.
for my $try (100 .. 109)
{
	crash_round($try, sub { $node->kill9; MealPlannerCluster::start_again($node) });
	last if count($log_is_whole) > 0;
}
cmp_ok(count($log_is_whole), '>', 0, 'control: without synchronous_commit acknowledged events are lost, and it shows');
check_invariants('control');

ok(MealPlannerCluster::no_panic($node), 'no PANIC, no assertion, no other signal in the log');

$node->stop;
done_testing();
