# Everything at once, and then it is killed, again and again: clients of all modes,
# idempotency keys, operations, circuit breakers, dead letters that are replayed,
# while a sequence of kill -9 hits the postmaster, backends and sweeps.  Nobody
# waits in between for the work to be done, so that it goes through several
# crashes.  At the end the invariants are asked for one by one.
#
# What the clients do and who is killed when comes from a seed; MP_SEED sets it.
# How the server schedules them does not, so that a seed repeats the load and not
# the outcome.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use CrashLoad;
use MealPlannerCluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep);

use constant { EMITTERS => 3, OWNERS => 2, OPERATORS => 2, STEPS => 3000, KEYS => 40, EVENTS_BEFORE_KILL => 150 };

my $seed = $ENV{MP_SEED} // 20261123;
srand($seed);
diag("MP_SEED=$seed");

my $node = MealPlannerCluster->start('sequence', conf => <<'EOC');
restart_after_crash = on
log_statement = none
log_min_messages = log
max_connections = 50
EOC

$node->safe_psql('postgres', <<'EOS');
-- Nothing is unique: what is done twice shall show.
CREATE SEQUENCE effect_number;
CREATE TABLE effects (handler text, event_id uuid, "position" bigint, n int, order_key text,
                      at timestamptz DEFAULT clock_timestamp(), number bigint DEFAULT nextval('effect_number'));
CREATE INDEX ON effects (event_id);
CREATE TABLE weather (bad boolean);
INSERT INTO weather VALUES (false);

CREATE FUNCTION handle(e meal_planner.event, handler text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    kind       text := e.detail ->> 'kind';
    -- what every attempt after the first has
    attempt    int := coalesce((SELECT d.attempt FROM meal_planner.delivery d
                                 WHERE (d.account, d.subscription, d.position) = (e.account, handler, e.position)), 1);
    generation int := coalesce((SELECT l.replay_count FROM meal_planner.dead_letter l
                                 WHERE (l.account, l.subscription, l.position) = (e.account, handler, e.position)), 0);
BEGIN
    -- no rollback and no crash takes that back
    RAISE LOG 'start % % % %', translate(handler, ' ', '-'), e.id, attempt, generation;
    INSERT INTO effects VALUES (handler, e.id, e.position, (e.detail ->> 'n')::int, e.detail ->> 'order');
    IF kind = 'bad' OR kind = 'late' AND (SELECT bad FROM weather) THEN
        RAISE EXCEPTION 'never' USING ERRCODE = 'MPP01';
    ELSIF kind = 'stubborn' OR kind = 'flaky' AND attempt < 3
          OR handler LIKE 'guarded%' AND (SELECT bad FROM weather) THEN
        RAISE EXCEPTION 'not now' USING ERRCODE = 'MPT01';
    END IF;
END
$$;
DO $$
DECLARE
    s record;
BEGIN
    FOR s IN
        SELECT * FROM (VALUES
            ('inline', 'inline', '{}', '{"base_delay":0.02}'),
            ('worker', 'worker', '{}', '{"base_delay":0.02}'),
            ('guarded inline', 'inline', '{"guard":[true]}', '{"base_delay":0.02,"max_attempts":100,"multiplier":1,"breaker":"service"}'),
            ('guarded worker', 'worker', '{"guard":[true]}', '{"base_delay":0.02,"max_attempts":100,"multiplier":1,"breaker":"service"}'),
            ('ordered inline', 'inline', '{"order":[{"exists":true}]}', '{"base_delay":0.02,"order_key":"detail.order","on_dead":"block_key"}'),
            ('ordered worker', 'worker', '{"order":[{"exists":true}]}', '{"base_delay":0.02,"order_key":"detail.order","on_dead":"block_key"}'),
            ('pull', 'pull', '{"pull":[true]}', '{"base_delay":0.02,"multiplier":1,"max_attempts":100}'),
            ('ledger', 'pull', '{"pull":[true]}', '{"base_delay":0.02,"multiplier":1,"max_attempts":100}')
        ) AS v (name, mode, detail, options)
    LOOP
        IF s.mode <> 'pull' THEN
            EXECUTE format('CREATE FUNCTION %I(e meal_planner.event) RETURNS void LANGUAGE sql AS %L',
                           'on ' || s.name, format('SELECT handle(e, %L)', s.name));
        END IF;
        PERFORM mp_subscribe(s.name, '{"source":["load"]}'::jsonb || CASE s.detail WHEN '{}' THEN '{}'
                                 ELSE jsonb_build_object('detail', s.detail::jsonb) END,
                             CASE WHEN s.mode <> 'pull' THEN format('%I(meal_planner.event)', 'on ' || s.name)::regprocedure END,
                             s.mode, s.options::jsonb);
    END LOOP;
END
$$;

-- Other content under a key that somebody has used
CREATE FUNCTION emit_other(n int) RETURNS text LANGUAGE sql AS $$
    SELECT CASE WHEN EXISTS (SELECT FROM meal_planner.idempotency_key k WHERE k.key = 'key ' || n) THEN
        coalesce(mp_put_events(jsonb_build_array(jsonb_build_object('Source', 'load', 'DetailType', 'Load',
            'Detail', jsonb_build_object('n', n, 'kind', 'other'), 'IdempotencyKey', 'key ' || n))) #>> '{Entries,0,ErrorCode}', 'accepted')
        ELSE 'absent' END
$$;

-- Consumers: what they were handed, committed with the claim.
CREATE TABLE handed (subscription text, token uuid, event_id uuid, attempt int, detail jsonb, PRIMARY KEY (token, event_id));
CREATE INDEX ON handed (event_id);
CREATE FUNCTION claim(name text, consumer text, lease float8, wait_seconds float8) RETURNS uuid LANGUAGE sql AS $$
    WITH claimed AS MATERIALIZED (SELECT * FROM mp_claim(name, 20, lease, consumer, wait_seconds => wait_seconds)),
    noted AS (INSERT INTO handed SELECT name, c.token, c.event_id, c.attempt, c.event -> 'detail' FROM claimed c)
    SELECT c.token FROM claimed c LIMIT 1
$$;
CREATE FUNCTION wants_to_fail(h handed) RETURNS boolean LANGUAGE sql AS $$
    SELECT h.detail ->> 'kind' IN ('bad', 'stubborn') OR h.detail ->> 'kind' = 'flaky' AND h.attempt < 3
$$;
CREATE FUNCTION fail(claimed uuid) RETURNS bigint LANGUAGE sql AS $$
    SELECT count(mp_fail(h.token, h.event_id,
                         CASE WHEN h.detail ->> 'kind' IN ('bad', 'stubborn') THEN 'permanent' ELSE 'transient' END, 'told to'))
      FROM handed h WHERE h.token = claimed AND wants_to_fail(h)
$$;
CREATE FUNCTION take_effect(claimed uuid) RETURNS void LANGUAGE sql AS $$
    INSERT INTO effects
    SELECT h.subscription, h.event_id, meal_planner.event_position(h.event_id), (h.detail ->> 'n')::int, h.detail ->> 'order'
      FROM handed h WHERE h.token = claimed AND NOT wants_to_fail(h)
$$;
-- Owners of operations.  What is done under a lease is done at a gate, which
-- refuses tokens older than one it has seen.
CREATE TABLE done (operation text, key text, token uuid, who text);
CREATE TABLE gate (key text PRIMARY KEY, token uuid);
CREATE FUNCTION do_once(k text, who text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    answer jsonb := mp_begin_operation('once', k, to_jsonb(k));
BEGIN
    IF answer ->> 'status' = 'started' THEN
        INSERT INTO done VALUES ('once', k, (answer ->> 'token')::uuid, who);
        IF NOT mp_complete_operation((answer ->> 'token')::uuid, to_jsonb(who)) THEN
            RAISE EXCEPTION 'the token of this transaction is fenced off';
        END IF;
        RETURN who;
    END IF;
    RETURN answer ->> 'result';
END
$$;
CREATE FUNCTION begin_leased(k text, wish text, OUT status text, OUT token text, OUT result text, OUT mine boolean)
LANGUAGE plpgsql AS $$
DECLARE
    answer jsonb;
BEGIN
    answer := mp_begin_operation('leased', k, to_jsonb(k), lease_seconds => 0.05, on_owner_lost => wish);
    status := answer ->> 'status';
    token := coalesce(answer ->> 'token', '-');
    result := coalesce(answer ->> 'result', '-');
    mine := status IN ('started', 'verify');
EXCEPTION WHEN SQLSTATE 'MP409' THEN
    status := 'blocked'; token := '-'; result := '-'; mine := false;
END
$$;
CREATE FUNCTION pass_gate(k text, mine uuid, verified boolean, who text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO gate AS g VALUES (k, mine) ON CONFLICT (key) DO UPDATE SET token = excluded.token WHERE g.token < excluded.token;
    IF (SELECT g.token FROM gate g WHERE g.key = k FOR UPDATE) = mine
       AND NOT (verified AND EXISTS (SELECT FROM done d WHERE (d.operation, d.key) = ('leased', k))) THEN
        INSERT INTO done VALUES ('leased', k, mine, who);
    END IF;
END
$$;

-- Operators.
CREATE FUNCTION operate(what text, pick int) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    letter record;
BEGIN
    IF what = 'redrive' THEN
        RETURN 'redrive ' || (mp_redrive_dlq(max_per_second => 200, canary => pick) ->> 'letters');
    END IF;
    SELECT d.id, d.event -> 'detail' AS detail INTO letter
      FROM mp_dlq d WHERE d.status = 'dead' ORDER BY d.id DESC OFFSET pick LIMIT 1;
    IF letter.id IS NULL THEN
        RETURN 'nothing';
    ELSIF what = 'discard' THEN
        PERFORM mp_discard_dlq(letter.id, 'given up');
        RETURN 'discarded';
    END IF;
    RETURN mp_replay_dlq(letter.id, CASE what WHEN 'correct' THEN letter.detail || '{"kind":"ok"}' END);
EXCEPTION WHEN SQLSTATE 'MP409' THEN
    RETURN 'too late';
END
$$;

SELECT mp_breaker_configure('service', '{"failure_threshold":3,"open_seconds":0.2,"permit_seconds":1}');
SELECT mp_breaker_configure('outside', '{"failure_threshold":3,"open_seconds":0.05,"permit_seconds":0.5}');
SELECT mp_breaker_force('held', 'open', reason => 'to the end of the test');

-- What the clients say of themselves.
CREATE TABLE tried (n int PRIMARY KEY, rolled_back boolean, keyed boolean);
CREATE TABLE acked (n int, id uuid, round int);
CREATE TABLE refused (n int, answer text);
CREATE TABLE answered (key text, result text);                                      -- operations in one transaction
CREATE TABLE leased (key text, status text, result text);
CREATE TABLE completed (key text, token uuid, answer boolean, who text);
CREATE TABLE settled (token uuid PRIMARY KEY, answer boolean);
CREATE TABLE told (round int, client int, line int, permit bigint, outcome text, state text);
CREATE TABLE starts (handler text, event_id uuid, attempt int, generation int);
CREATE TABLE crash (at timestamptz DEFAULT clock_timestamp());
EOS
$node->safe_psql('postgres', CrashLoad::drain_procedure());

my $dir = PostgreSQL::Test::Utils::tempdir;
my $next_n = 0;

sub one_of { return $_[ int rand @_ ] }

# ---------------------------------------------------------------------------
# What clients do, step by step; every step is announced before and told after.

sub emit
{
	my ($client, $n, $name) = @_;
	my $kind = one_of(('ok') x 12, 'late', 'flaky', 'flaky', 'bad', 'stubborn');
	my %extra;

	# the service that is guarded fails by the weather alone
	if ($kind =~ /ok|bad/ && rand() < 0.3) { $extra{guard} = 'true' }
	# a key has one emitter: the order of its events is that of one session; few block it
	if ($kind ne 'stubborn' && rand() < ($kind eq 'bad' ? 0.1 : 0.3)) { $extra{order} = sprintf '"%d-%d"', $client, int rand 3 }
	if (rand() < 0.4) { $extra{pull} = 'true' }
	return sprintf q(SELECT mp_emit_event('Load', '{"n":%d,"kind":"%s"%s}', 'load') AS %s \gset),
	  $n, $kind, join('', map { qq(,"$_":$extra{$_}) } sort keys %extra), $name;
}

sub emitter_step
{
	my ($client) = @_;
	my $way = rand();
	my $emit = sub { return emit($client, @_) };

	if ($way < 0.1)
	{
		$next_n += 2;
		return CrashLoad::emit_two($next_n - 2, $emit, one_of('', '', "SELECT pg_sleep(0.02) \\g /dev/null\n"));
	}
	if ($way < 0.2)
	{
		return CrashLoad::emit_and_roll_back($next_n++, $emit);
	}
	if ($way < 0.35)
	{
		# several clients use the same keys with the same content, some with other content
		my $n = 1_000_000 + int rand KEYS;
		my $detail = qq({"n":$n,"kind":"ok"});

		return "SELECT emit_other($n) AS a \\gset\n\\echo refused $n :a\n" if $way < 0.23;
		return "\\echo key $n\n" . ($way < 0.29
			? qq(SELECT mp_put_events('[{"Source":"load","DetailType":"Load","Detail":$detail,"IdempotencyKey":"key $n"}]') #>> '{Entries,0,EventId}' AS a \\gset\n)
			: qq(SELECT mp_emit_event('Load', '$detail', 'load', idempotency_key => 'key $n') AS a \\gset\n))
		  . "\\echo ack $n :a\n";
	}
	return CrashLoad::emit_one($next_n++, $emit);
}

sub owner_step
{
	my ($client, $step, $round) = @_;
	my $who = "$round-$client-$step";
	my $key = one_of('old', "round $round") . ' ' . int rand KEYS;

	return "SELECT do_once('$key', '$who') AS a \\gset\n\\echo once $key :a\n" if rand() < 0.3;
	return "INSERT INTO done SELECT 'mark', '$key', NULL, '$who' WHERE mp_mark_processed('$key', 'mark');\n" if rand() < 0.3;

	my $wish = one_of('retry', 'verify', 'block');
	my $late = one_of('', "SELECT pg_sleep(0.2) \\g /dev/null\n");
	$key = "$wish round $round " . int rand 5;
	return <<"EOS";
SELECT * FROM begin_leased('$key', '$wish') \\gset
\\if :mine
${late}SELECT pass_gate('$key', :'token', :'status' = 'verify', '$who') \\g /dev/null
SELECT mp_complete_operation(:'token', to_jsonb('$who'::text)) AS answer \\gset
\\echo completed $key :token :answer $who
\\else
\\echo leased $key :status :result
\\endif
EOS
}

sub caller_step
{
	my $outcome = one_of('success', 'success', 'failure', 'failure', 'failure', 'ignored');

	return <<"EOS";
SELECT a ->> 'allowed' AS allowed, coalesce(a ->> 'permit', '0') AS permit FROM mp_breaker_acquire('outside') a \\gset
\\if :allowed
SELECT mp_breaker_report('outside', :permit, '$outcome') AS state \\gset
\\echo told :permit $outcome :state
\\endif
SELECT mp_breaker_acquire('held') ->> 'allowed' AS held \\gset
\\echo held :held
SELECT pg_sleep(0.005) \\g /dev/null
EOS
}

sub operator_step
{
	return sprintf "SELECT operate('%s', %d) AS a \\gset\n\\echo operated :a\nSELECT pg_sleep(0.01) \\g /dev/null\n",
	  one_of(('replay') x 6, ('correct') x 6, 'discard', 'discard', 'redrive'), int rand 3;
}

my %consumer_step = (
	pull => <<'EOS',
SELECT token IS NOT NULL AS any, token FROM claim('pull', 'pull', 0.5, 0.2) AS token \gset
\if :any
SELECT fail(:'token'), take_effect(:'token') \g /dev/null
SELECT mp_ack(:'token') AS answer \gset
\echo settled :token :answer
\endif
EOS
	ledger => <<'EOS');
SELECT token IS NOT NULL AS any, token FROM claim('ledger', 'ledger', 0.5, 0.2) AS token \gset
\if :any
BEGIN;
SELECT take_effect(:'token'), fail(:'token') AS failed \gset
SELECT mp_ack(:'token') OR NOT EXISTS (SELECT FROM handed h WHERE h.token = :'token' AND NOT wants_to_fail(h)) AS answer \gset
\if :answer
COMMIT;
\else
ROLLBACK;
\endif
\endif
EOS

# ---------------------------------------------------------------------------
# Rounds of load

my %running;

sub run_client
{
	my ($name, $script) = @_;

	$running{$name} = CrashLoad::start_client($node, $dir, $name, $script);
	return;
}

sub start_load
{
	my ($round) = @_;

	for my $client (1 .. EMITTERS)
	{
		run_client("emitter$client", join '', map { emitter_step($client) } 1 .. STEPS);
	}
	for my $client (1 .. OWNERS)
	{
		run_client("owner$client", join '', map { owner_step($client, $_, $round) } 1 .. 4 * STEPS);
	}
	run_client("operator$_", join '', map { operator_step() } 1 .. STEPS) for 1 .. OPERATORS;
	run_client("caller$_", join '', map { caller_step() } 1 .. STEPS) for 1 .. 2;
	run_client("consumer_pull$_", $consumer_step{pull} x STEPS) for 1 .. 2;
	run_client("consumer_ledger$_", $consumer_step{ledger} x STEPS) for 1 .. 2;
	run_client('weather', join '', map {
		sprintf "UPDATE weather SET bad = NOT bad;\nSELECT pg_sleep(%.2f) \\g /dev/null\n", 0.05 + rand 0.4 } 1 .. STEPS);
	run_client("sweep$_", "CALL mp_sweep(600);\n") for 1 .. 2;
	return;
}

# How often they have said something like that in this round, all together.
sub said
{
	my ($clients, $pattern) = @_;
	my $times = 0;

	$times += () = slurp_file($_) =~ /$pattern/g for glob "$dir/$clients*.out";
	return $times;
}

sub has_progressed
{
	return said('emitter', qr/^ack /m) >= EVENTS_BEFORE_KILL && said('owner', qr/^(?:once|completed) /m) >= 20
	  && said('operator', qr/^operated (?:done|dead|retry)/m) >= 2 && said('caller', qr/^told /m) >= 10
	  && said('consumer_pull', qr/^settled /m) >= 2;
}

# Before the server is there again, what they said must be read.
my %table = (
	tried => 'n, rolled_back, keyed', acked => 'n, id, round', refused => 'n, answer', answered => 'key, result',
	leased => 'key, status, result', completed => 'key, token, answer, who', settled => 'token, answer',
	told => 'round, client, line, permit, outcome, state');
my $uuid = qr/[0-9a-f-]{36}/;
my %held_answers;
my @errors;

sub read_what_was_said
{
	my ($round) = @_;
	my %rows = map { $_ => '' } keys %table;
	my %keyed;

	for my $client (sort keys %running)
	{
		my $said = slurp_file("$dir/$client.out");
		my $line = 0;

		for (split /\n/, $said)
		{
			$line++;
			if    (/^(try|undo) (\d+)$/) { $rows{tried} .= "$2\t" . ($1 eq 'undo' ? 't' : 'f') . "\tf\n" }
			elsif (/^key (\d+)$/)        { $keyed{$1} = 1 }
			elsif (/^ack (\d+) ($uuid)$/)   { $rows{acked} .= "$1\t$2\t$round\n" }
			elsif (/^refused (\d+) (\w+)$/) { $rows{refused} .= "$1\t$2\n" }
			elsif (/^once (.+ \d+) ([\d-]+)$/) { $rows{answered} .= "$1\t$2\n" }
			elsif (/^leased (.+ \d+) (\w+) (\S+)$/) { $rows{leased} .= "$1\t$2\t$3\n" }
			elsif (/^completed (.+ \d+) ($uuid) ([tf]) (\S+)$/) { $rows{completed} .= "$1\t$2\t$3\t$4\n" }
			elsif (/^settled ($uuid) ([tf])$/) { $rows{settled} .= "$1\t$2\n" }
			elsif (/^told (\d+) (\w+) ([\w-]+)$/) { $rows{told} .= join("\t", $round, substr($client, -1), $line, $1, $2, $3) . "\n" }
			elsif (/^held (\w+)$/) { $held_answers{$1}++ }
		}
		push @errors, "$client: $_" for grep { /ERROR/ } split /\n/, slurp_file("$dir/$client.out.err");
	}
	my $sql = join '', map { "COPY $_ ($table{$_}) FROM stdin;\n$rows{$_}\\.\n" } sort keys %table;
	$sql .= "INSERT INTO tried SELECT n, false, true FROM unnest('{" . join(',', sort keys %keyed) . "}'::int[]) n ON CONFLICT DO NOTHING;\n";
	return $sql;
}

sub query
{
	my ($query) = @_;
	return $node->safe_psql('postgres', $query);
}

sub count { return query("SELECT count(*) FROM ($_[0]) q") }

sub some_backend
{
	my ($condition) = @_;
	return MealPlannerCluster::some_backend($node, $condition);
}

# The ways to die.
my %kill = (
	'the postmaster' => sub { $node->kill9; MealPlannerCluster::start_again($node) },
	'an emitter' => sub { kill 9, some_backend("query LIKE '%mp\\_emit\\_event%'") },
	'a sweep' => sub { kill 9, some_backend("query LIKE 'CALL mp\\_sweep%'") },
	'an owner of an operation' => sub { kill 9, some_backend("query ~ 'do_once|pass_gate|begin_leased|mp_complete_operation'") },
	'a consumer' => sub { kill 9, some_backend("query ~ 'claim\\(|take_effect|mp_ack'") },
	'an operator' => sub { kill 9, some_backend("query ~ 'operate\\('") });
my @sequence = map { $_->[1] } sort { $a->[0] <=> $b->[0] } map { [ rand, $_ ] } sort keys %kill;
push @sequence, 'the postmaster';

my $log_is_whole = <<'EOS';
SELECT a.n FROM acked a
 WHERE NOT EXISTS (SELECT FROM meal_planner.event e
                    WHERE e.account = 'local' AND e.id = a.id AND e.source = 'load' AND (e.detail ->> 'n')::int = a.n)
EOS

my $round = 0;
for my $victim (@sequence)
{
	$round++;
	start_load($round);
	CrashLoad::wait_for_progress($dir, \&has_progressed);
	sleep rand 0.3;
	$kill{$victim}->();
	waitpid $_, 0 for values %running;
	MealPlannerCluster::wait_until_up($node);
	query('INSERT INTO crash DEFAULT VALUES');
	query(read_what_was_said($round));
	%running = ();
	is(count($log_is_whole), 0, "round $round, kill -9 of $victim: nothing acknowledged is lost");
	is(query("SELECT state, forced FROM mp_breakers WHERE name = 'held'"), 'open|open', "round $round: what is forced open is open");
}

# ---------------------------------------------------------------------------
# Quiet: the weather is good, and sweeps, a consumer and an operator go on until
# nothing is left that somebody waits for.

query('UPDATE weather SET bad = false');

# A key that is blocked waits for its dead letter, and that for an operator.
sub release_keys
{
	return query(<<'EOS');
SELECT count(mp_replay_dlq(d.id, d.event -> 'detail' || '{"kind":"ok"}'))
  FROM mp_dlq d WHERE d.status IN ('dead', 'parked') AND d.subscription LIKE 'ordered%'
EOS
}

sub is_quiet
{
	return CrashLoad::is_idle($node) && query(<<'EOS') eq 't';
SELECT NOT EXISTS (SELECT FROM mp_subscriptions s WHERE s.lag_events > 0 AND NOT s.builtin)
   AND NOT EXISTS (SELECT FROM mp_redrives WHERE ended_at IS NULL)
EOS
}

my $ahead = 0;
for (; $ahead <= 4000; $ahead += 40)
{
	MealPlannerCluster::sweep($node, 'postgres', $ahead);
	query("SET meal_planner.clock_offset = $ahead; CALL drain()");
	query("SELECT mp_resume_redrive(id) FROM mp_redrives WHERE state = 'paused'");
	last if release_keys() == 0 && is_quiet();
}
ok(is_quiet(), 'sweeps and consumers come to an end');

sub none
{
	my ($query, $what) = @_;
	my $found = query($query);

	is($found, '', $what);
	return;
}

# ---------------------------------------------------------------------------
# The invariants

none($log_is_whole, 'I1: nothing acknowledged is lost');
none(<<'EOS', 'I2: nothing is in the log that nobody tried, that was rolled back, or twice');
SELECT e.detail ->> 'n', count(*) FROM meal_planner.event e
  LEFT JOIN tried t ON t.n = (e.detail ->> 'n')::int AND NOT t.rolled_back
 WHERE e.source = 'load' GROUP BY 1 HAVING count(*) > 1 OR count(t.n) = 0
EOS
none("SELECT * FROM effects f WHERE NOT EXISTS (SELECT FROM meal_planner.event e WHERE e.account = 'local' AND e.id = f.event_id)",
	'I2: no effect without its event');

query(<<'EOS');
CREATE VIEW due AS
SELECT e.id, e.position, e.detail, s.name,
       (SELECT count(*) FROM effects f WHERE f.event_id = e.id AND f.handler = s.name) AS effects,
       (SELECT l.status FROM meal_planner.dead_letter l
         WHERE (l.account, l.subscription, l.position) = (e.account, s.name, e.position)) AS letter
  FROM meal_planner.event e
  JOIN meal_planner.subscription s ON meal_planner.matches(s.pattern, e)
 WHERE e.source = 'load'
EOS
none("SELECT * FROM due WHERE name <> 'pull' AND effects > 1", 'I3: no (event, handler) took effect twice');
none("SELECT * FROM due WHERE (effects > 0) <> (coalesce(letter, 'resolved') = 'resolved')",
	'I3, I4: every (event, handler) is either done, and took effect, or dead or discarded, and did not');
none(<<'EOS', 'I4: the sums agree');
SELECT * FROM (
    SELECT name, count(*) AS matching, count(*) FILTER (WHERE effects > 0) AS done,
           (SELECT count(*) FROM meal_planner.dead_letter l WHERE l.subscription = d.name AND l.status NOT IN ('resolved', 'replaying')) AS given_up
      FROM due d GROUP BY name) s
 WHERE matching <> done + given_up
EOS
none('SELECT token FROM meal_planner.delivery WHERE token IS NOT NULL UNION ALL SELECT token FROM meal_planner.worker_batch',
	'I5: nothing runs that nobody runs');

# Handlers tell the server's log of every start.
my $log = slurp_file($node->logfile);
my $starts = '';
$starts .= "$1\t$2\t$3\t$4\n" while $log =~ /LOG:  start (\S+) ($uuid) (\d+) (\d+)$/mg;
query("COPY starts FROM stdin;\n$starts\\.\n");
query("UPDATE starts SET handler = translate(handler, '-', ' ')");
none(<<'EOS', 'I6: no attempt is started twice: its number was committed before');
SELECT handler, event_id, attempt, generation FROM starts
 WHERE attempt > 1 AND handler NOT LIKE 'guarded%' GROUP BY 1, 2, 3, 4 HAVING count(*) > 1
EOS
none("SELECT * FROM starts WHERE handler NOT LIKE 'guarded%' AND attempt > 5", 'I6: no attempt after the last');
none("SELECT * FROM meal_planner.dead_letter WHERE reason = 'max_attempts' AND retry_count <> 4", 'I6: who was given up had all its attempts');
none("SELECT * FROM meal_planner.dead_letter WHERE subscription LIKE 'guarded%' AND reason NOT IN ('permanent', 'crash')",
	'I6: bad weather made no dead letter: what is deferred burns no attempt');
none(<<'EOS', 'I6: pull: attempts count from 1, each handed to one consumer');
SELECT h.subscription, h.event_id FROM handed h
 WHERE NOT EXISTS (SELECT FROM meal_planner.dead_letter l WHERE l.event_id = h.event_id AND l.subscription = h.subscription)
 GROUP BY 1, 2 HAVING min(h.attempt) <> 1 OR max(h.attempt) <> count(*) OR count(DISTINCT h.attempt) <> count(*)
EOS
none(<<'EOS', 'I6: the attempts of a dead letter are all kept, each under its number');
SELECT dlq_id, subscription, replay FROM mp_attempts
 WHERE counted AND subscription NOT LIKE 'guarded%' -- of those only the last hundred are kept
 GROUP BY 1, 2, 3 HAVING min(attempt) <> 1 OR max(attempt) <> count(*) OR count(DISTINCT attempt) <> count(*)
EOS
none(<<'EOS', 'I7: what is bad or stubborn is a dead letter, and of the rest what took its server down twice');
SELECT d.name, d.detail, l.reason FROM due d
  LEFT JOIN meal_planner.dead_letter l ON l.event_id = d.id AND l.subscription = d.name
 WHERE coalesce(l.reason, 'none') <> ALL (CASE d.detail ->> 'kind' WHEN 'bad' THEN '{permanent,crash}'
            WHEN 'stubborn' THEN CASE WHEN d.name IN ('pull', 'ledger') THEN '{permanent}' ELSE '{max_attempts,crash}' END
            WHEN 'late' THEN '{none,permanent,crash}' ELSE '{none,crash}' END::text[])
EOS
none(<<'EOS', 'I7, I22: the depth of the dead letters is their number');
(SELECT subscription, error_type, count(*) FROM meal_planner.dead_letter WHERE status = 'dead' GROUP BY 1, 2)
EXCEPT (SELECT subscription, error_type, depth FROM mp_dlq_depth)
EOS
none("SELECT * FROM meal_planner.dead_letter WHERE status = 'replaying'", 'I8: no replay is left in the middle');
none("SELECT d.* FROM due d WHERE d.letter = 'resolved' AND d.effects <> 1 AND d.name <> 'pull'",
	'I8: what operators replayed, several at once, ran once');

none(<<'EOS', 'I8: redrives came to their end, and every letter of each has one');
SELECT id, state, letters, done, failed, blocked, refused, skipped, in_flight, remaining FROM mp_redrives
 WHERE state <> 'done' OR in_flight + remaining <> 0 OR done + failed + blocked + refused + skipped <> letters
EOS

none('SELECT n FROM acked GROUP BY n HAVING count(DISTINCT id) > 1', 'I9: all who emit with a key get one id');
none("SELECT * FROM refused WHERE answer NOT IN ('IdempotencyConflict', 'absent')", 'I9: other content under a key is refused');
none("SELECT e.id FROM meal_planner.event e WHERE e.detail ->> 'kind' = 'other'", 'I9: and has no effect');
none(<<'EOS', 'I9: an operation in one transaction takes effect once, and all get its result');
SELECT a.key FROM answered a LEFT JOIN done d ON d.operation = 'once' AND d.key = a.key
 GROUP BY 1 HAVING count(DISTINCT a.result) <> 1 OR count(DISTINCT d.who) <> 1 OR min(a.result) <> min(d.who)
EOS
none("SELECT operation, key FROM done WHERE operation IN ('once', 'mark') GROUP BY 1, 2 HAVING count(*) > 1",
	'I9: nothing is done twice under a key');
none(<<'EOS', 'I9: all who ask for a completed operation get its result');
SELECT l.key, l.result FROM leased l
  LEFT JOIN meal_planner.operation o ON (o.account, o.operation, o.key) = ('local', 'leased', l.key)
 WHERE l.status = 'completed' AND o.result #>> '{}' IS DISTINCT FROM l.result
EOS
none(<<'EOS', 'I10: of all owners one completes, and what a fenced-off one says is nowhere');
SELECT c.* FROM completed c
  LEFT JOIN meal_planner.operation o ON (o.account, o.operation, o.key) = ('local', 'leased', c.key)
 WHERE c.answer <> coalesce(o.token = c.token AND o.result = to_jsonb(c.who), false)
EOS
none("SELECT key FROM done WHERE operation = 'leased' AND key ~ '^(verify|block)' GROUP BY 1 HAVING count(*) > 1",
	'I10: who verifies or blocks does nothing twice');
none(<<'EOS', 'I10: what is acknowledged is not handed out again');
SELECT h.* FROM handed h JOIN settled s USING (token)
 WHERE s.answer AND NOT wants_to_fail(h)
   -- of a replay attempts count anew
   AND NOT EXISTS (SELECT FROM meal_planner.dead_letter l WHERE l.event_id = h.event_id AND l.subscription = h.subscription)
   AND EXISTS (SELECT FROM handed later WHERE (later.subscription, later.event_id) = (h.subscription, h.event_id) AND later.attempt > h.attempt)
EOS
my $remembered = "SET meal_planner.clock_offset = 90000; SELECT operation, key, mp_check_processed(key, operation) FROM (SELECT DISTINCT operation, key FROM done) d ORDER BY 1, 2";
my $answers = query($remembered);
query('SET meal_planner.clock_offset = 90000; SELECT meal_planner.sweep_purge()');
is(query($remembered), $answers, 'I11: a purge changes no answer');
none(<<'EOS', 'I12: of a key effects are in the order of the log');
SELECT * FROM (SELECT handler, order_key, position, lag(position) OVER (PARTITION BY handler, order_key ORDER BY number) AS before
                 FROM effects WHERE handler LIKE 'ordered%') o WHERE position < before
EOS
none("SELECT * FROM due WHERE name IN ('worker', 'guarded worker', 'ordered worker', 'pull', 'ledger') AND effects = 0 AND letter IS NULL",
	'I13: no cursor passed an event, also of one that committed late');
none(<<'EOS', 'I14: no attempt comes early');
SELECT f.* FROM effects f JOIN meal_planner.event e ON e.id = f.event_id
 WHERE e.detail ->> 'kind' = 'flaky' AND f.handler IN ('inline', 'worker')
   AND f.at < meal_planner.position_time(e.position) + interval '60 milliseconds'
EOS
none(<<'EOS', 'I14: nor does any of those that failed');
SELECT * FROM (SELECT a.*, lag(failed_at) OVER (PARTITION BY dlq_id, replay ORDER BY attempt) AS before FROM mp_attempts a
                WHERE counted AND subscription IN ('inline', 'worker', 'ordered inline', 'ordered worker')) a
 WHERE failed_at - make_interval(secs => coalesce(seconds, 0)) < before + make_interval(secs => 0.019 * 2 ^ (attempt - 2))
EOS

# ---- breakers

query('CALL mp_sweep()');
none(<<'EOS', 'I15: changes of a breaker are a path of the state table, but for what a crash cut off');
SELECT * FROM (SELECT h.*, lag(to_state) OVER w AS before, lag(at) OVER w AS before_at
                 FROM meal_planner.breaker_history h WHERE reason <> 'forced' WINDOW w AS (PARTITION BY name ORDER BY epoch)) h
 WHERE (from_state, to_state, reason) NOT IN (('closed', 'open', 'consecutive_failures'), ('open', 'half-open', 'probing'),
            ('half-open', 'open', 'probe_failed'), ('half-open', 'open', 'probe_lost'), ('half-open', 'closed', 'recovered'))
    OR from_state <> before AND NOT EXISTS (SELECT FROM crash c WHERE c.at BETWEEN h.before_at AND h.at)
EOS
none(<<'EOS', 'I15: epochs rise with time');
SELECT * FROM (SELECT name, epoch, at, lag(at) OVER (PARTITION BY name ORDER BY epoch) AS before FROM meal_planner.breaker_history) h
 WHERE at < before AND at < (SELECT max(c.at) FROM crash c) -- afterwards the clock is shifted
EOS
none(<<'EOS', 'I15: the epochs of permits go on over crashes');
SELECT * FROM (SELECT round, min(permit / 4096) AS first, lag(max(permit / 4096)) OVER (ORDER BY round) AS last FROM told GROUP BY round) t
 WHERE first <= last
EOS
none(<<'EOS', 'I15: who was told of an opening finds it stored');
SELECT * FROM told t WHERE t.state = 'open'
   AND NOT EXISTS (SELECT FROM meal_planner.breaker_history h
                    WHERE h.name = 'outside' AND h.to_state = 'open' AND h.epoch > t.permit / 4096)
EOS
none(<<'EOS', 'I15: of a half-open breaker one probe has a result');
SELECT permit / 4096, count(*) FROM told WHERE permit % 4096 <> 0 AND outcome <> 'ignored' GROUP BY 1 HAVING count(*) > 1
EOS
none(<<'EOS', 'I15: every change is one event');
SELECT h.name, h.epoch, count(e.id) FROM meal_planner.breaker_history h
  LEFT JOIN meal_planner.event e ON e.account = 'local' AND e.detail_type LIKE 'Circuit%'
                                AND e.detail ->> 'breaker' = h.name AND (e.detail ->> 'epoch')::bigint = h.epoch
 GROUP BY 1, 2 HAVING count(e.id) <> 1
EOS
is(join(',', sort keys %held_answers), 'false', 'I15: what is forced open let nobody pass, over all crashes');
isnt(query("SELECT count(*) FROM meal_planner.breaker_history WHERE name = 'service' AND to_state = 'open'"), 0, 'the weather did open the breaker of the handlers');

# Of the handlers' breaker: what it counts since the last start is what was
# committed, and what failed, whatever became of that.
query("SELECT mp_breaker_force('service', 'closed')");
my $counters = "SELECT (counters ->> 'successes')::int, (counters ->> 'failures')::int FROM mp_breakers WHERE name = 'service'";
my ($successes, $failures) = split /\|/, query($counters);
my $guarded = q(SELECT mp_emit_event('Load', '{"n":-1,"kind":"ok","guard":true}', 'load') FROM generate_series(1, 10));
query("BEGIN; $guarded; COMMIT");
query("BEGIN; $guarded; ROLLBACK");
query('UPDATE weather SET bad = true');
query("BEGIN; $guarded; ROLLBACK");
query('UPDATE weather SET bad = false');
query('CALL mp_sweep()');
query('CALL drain()');
is(query($counters), ($successes + 20) . '|' . ($failures + 10),
	'I16: successes are what was committed, failures count although they rolled back');

# ---- everybody else

is(join("\n", @errors), '', 'I20: no client saw an error of a handler, of another client or of the breaker');
none("SELECT f.* FROM effects f JOIN tried t ON t.n = f.n WHERE t.rolled_back", 'I20: what was rolled back has no effect');
none(<<'EOS', 'I21: one alert each time that a letter became dead');
SELECT l.id, l.subscription, l.status, l.replay_count, count(a.id) FROM meal_planner.dead_letter l
  LEFT JOIN meal_planner.alert a ON a.account = l.account AND a.dead_letter_id = l.id AND a.kind = 'dead_letter'
 GROUP BY l.account, l.id HAVING count(a.id) <> l.replay_count + CASE l.status WHEN 'resolved' THEN 0 ELSE 1 END
EOS
none(<<'EOS', 'I22: what operators see is what the tables say');
SELECT s.name FROM mp_subscriptions s WHERE NOT s.builtin
   AND (s.lag_events, s.in_flight, s.retrying, s.blocked, s.dead)
       IS DISTINCT FROM (CASE s.mode WHEN 'inline' THEN NULL ELSE 0::bigint END, 0::bigint, 0::bigint, 0::bigint,
                         (SELECT count(*) FROM meal_planner.dead_letter l WHERE l.subscription = s.name AND l.status = 'dead'))
EOS
none(<<'EOS', 'I22: breakers are as they are stored');
SELECT * FROM mp_breakers b JOIN meal_planner.breaker_state s USING (name)
 WHERE (b.state, b.forced) IS DISTINCT FROM (s.state, s.forced)
   AND NOT (b.state = 'open' AND s.state = 'half-open') -- which a crash has made of it
EOS
none('SELECT * FROM mp_in_flight', 'no transaction is left in flight');
none("SELECT locktype, pid FROM pg_locks WHERE locktype IN ('advisory', 'object') AND pid <> pg_backend_pid()", 'no lock is left');
ok(MealPlannerCluster::no_panic($node), 'I23: no PANIC, no assertion, no other signal in the log');

# That it was a test of something.
for my $query (
	"SELECT count(*) FROM effects f JOIN meal_planner.event e ON e.id = f.event_id WHERE e.detail ->> 'kind' = 'flaky'",
	"SELECT count(*) FROM meal_planner.dead_letter WHERE status = 'resolved'",
	"SELECT count(*) FROM meal_planner.dead_letter WHERE reason = 'max_attempts'",
	"SELECT count(*) FROM mp_redrives WHERE done > 0",
	"SELECT count(*) FROM completed WHERE NOT answer",
	"SELECT count(*) FROM leased WHERE status = 'completed'",
	"SELECT count(*) FROM told WHERE state = 'half-open' OR permit % 4096 <> 0")
{
	cmp_ok(query($query), '>', 0, "some: $query");
}

$node->stop;
done_testing();
