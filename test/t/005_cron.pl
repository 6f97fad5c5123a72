# pg_cron for real: sweeps in the database where pg_cron lives and in another
# one, both by background workers.  pg_cron 1.4 starts jobs by the minute, so
# that this test waits up to one; both databases wait together.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use MealPlannerCluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = MealPlannerCluster->create('cron');
my $starts = PostgreSQL::Test::Utils::tempdir . '/starts';
my @databases = ('postgres', 'kitchen');

sub query
{
	my ($query, $database) = @_;
	return $node->safe_psql($database // 'postgres', $query);
}

sub error_of
{
	my ($query, $database) = @_;
	my $err = '';

	$node->psql($database, $query, stderr => \$err);
	return $err;
}

$node->start;
is(query("SHOW cron.use_background_workers"), 'on', 'pg_cron uses background workers');
query('CREATE DATABASE kitchen');
query('CREATE EXTENSION meal_planner', $_) for @databases;

# pg_cron is loaded but not installed.
for my $database (@databases)
{
	like(error_of('SELECT mp_schedule_sweeps()', $database),
		qr/ERROR:  MP503: extension pg_cron is not installed in database "postgres"\nHINT:  retry=no\. Run CREATE EXTENSION pg_cron there\./,
		"$database: without the extension pg_cron there is an error with a hint");
}
query('CREATE EXTENSION pg_cron');

my %job = map { ($_ => query('SELECT mp_schedule_sweeps()', $_)) } @databases;
isnt($job{postgres}, $job{kitchen}, 'each database has a job of its own');
is(query('SELECT mp_schedule_sweeps()', $_), $job{$_}, "$_: scheduling again changes the job and adds none") for @databases;
is(query(<<'EOS'), "kitchen|t|t\npostgres|t|t", 'the jobs are as they should be');
SELECT database, active AND command LIKE 'CALL public.mp\_sweep(%)', username = current_user FROM cron.job ORDER BY database
EOS

# A handler tells when it was due and when it started, by a file that keeps it
# when the attempt fails.
for my $database (@databases)
{
	query(<<"EOS", $database);
CREATE TABLE calls (handler text, n int, attempt int);
CREATE FUNCTION on_inline(e meal_planner.event) RETURNS void LANGUAGE plpgsql AS \$\$
DECLARE
    d  meal_planner.delivery;
    at int;
BEGIN
    SELECT * INTO d FROM meal_planner.delivery q
     WHERE (q.account, q.subscription, q.position) = (e.account, 'inline', e.position);
    at := coalesce(d.attempt, 1);
    EXECUTE format('COPY (SELECT 1) TO PROGRAM %L',
                   format('cat > /dev/null; echo %s %s %s %s %s >> $starts', current_database(), e.detail ->> 'n', at,
                          extract(epoch FROM coalesce(d.next_attempt_at, clock_timestamp())),
                          extract(epoch FROM clock_timestamp())));
    IF at <= (e.detail ->> 'failures')::int THEN
        RAISE EXCEPTION 'attempt %', at USING ERRCODE = 'MPT01';
    END IF;
    INSERT INTO public.calls VALUES ('inline', (e.detail ->> 'n')::int, at);
END
\$\$;
CREATE FUNCTION on_worker(e meal_planner.event) RETURNS void LANGUAGE sql AS \$\$
    INSERT INTO public.calls VALUES ('worker', (e.detail ->> 'n')::int, NULL)
\$\$;
SELECT mp_subscribe('inline', '{"detail-type":["Work"]}', 'on_inline(meal_planner.event)');
SELECT mp_subscribe('worker', '{"detail-type":["Work"]}', 'on_worker(meal_planner.event)', 'worker');
EOS
}

ok($node->poll_query_until('postgres', <<'EOS'), 'pg_cron starts a sweep in each database');
SELECT count(DISTINCT datname) = 2 FROM pg_stat_activity WHERE backend_type = 'pg_cron' AND query LIKE 'CALL public.mp\_sweep%'
EOS

for my $database (@databases)
{
	query(<<'EOS', $database);
SELECT mp_emit_event('Work', '{"n":1,"failures":0}');
SELECT mp_emit_event('Work', '{"n":2,"failures":3}');
SELECT mp_emit_event('Work', '{"n":3,"failures":0}', deliver_after => meal_planner.clock() + interval '3 s');
EOS
}
for my $database (@databases)
{
	ok($node->poll_query_until($database, "SELECT count(*) = 3 FROM calls WHERE handler = 'worker'"), "$database: the worker subscription gets its events");
}

# Three retries: after 2, 4 and 8 seconds.
for my $database (@databases)
{
	ok($node->poll_query_until($database, "SELECT count(*) = 3 FROM calls WHERE handler = 'inline'"), "$database: what failed three times succeeds");
	is(query("SELECT n, attempt FROM calls WHERE handler = 'inline' ORDER BY n", $database), "1|1\n2|4\n3|1", "$database: in its fourth attempt");

	my @started = map { [ (split)[ 2, 3, 4 ] ] } grep { /^$database 2 / } split /\n/, slurp_file($starts);

	is(join(' ', map { $_->[0] } @started), '1 2 3 4', "$database: each attempt was started once");
	for my $retry (@started[ 1 .. 3 ])
	{
		my ($attempt, $due, $started) = @$retry;

		cmp_ok($started, '>=', $due, "$database: attempt $attempt does not start early");
		# not how fast it is, but that it does not wait for pg_cron's next minute
		cmp_ok($started - $due, '<', 5, "$database: attempt $attempt starts when it is due");
		note sprintf('started %.3f s after it was due', $started - $due);
	}
	cmp_ok($started[1][1] - $started[0][2], '>=', 2, "$database: the first retry is due after 2 s");
	cmp_ok($started[2][1] - $started[1][2], '>=', 4, "$database: the second after 4 s");
	cmp_ok($started[3][1] - $started[2][2], '>=', 8, "$database: the third after 8 s");
}
is(query("SELECT count(*) FROM cron.job_run_details WHERE status = 'failed'"), 0, 'no run of a job failed');

for my $database (reverse @databases)
{
	query('SELECT mp_unschedule_sweeps()', $database);
	is(query("SELECT count(*) FROM cron.job WHERE database = '$database'"), 0, "$database: the job is removed");
	is($node->psql($database, 'SELECT mp_unschedule_sweeps()'), 0, "$database: removing it again is no error");
}

# What goes wrong where pg_cron lives is told where it was asked for.
query('ALTER TABLE cron.job RENAME TO hidden');
like(error_of('SELECT mp_unschedule_sweeps()', 'kitchen'), qr/MP503: query in database "postgres" failed: relation "cron.job" does not exist/,
	'an error in the other database comes back');
query('ALTER TABLE cron.hidden RENAME TO job');

ok(MealPlannerCluster::no_panic($node), 'no PANIC, no assertion, no other signal in the log');
$node->stop;
done_testing();
