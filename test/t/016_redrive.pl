# A redrive survives the death of its worker and crashes of the server: it goes
# on where it was, every letter takes effect once, and nothing is left behind.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use MealPlannerCluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = MealPlannerCluster->start('redrive', conf => "restart_after_crash = on\n");
my $killed = PostgreSQL::Test::Utils::tempdir . '/killed';
my $letters = 400;

sub query
{
	my ($query) = @_;
	return $node->safe_psql('postgres', $query);
}

sub try_sweep
{
	my ($ahead) = @_;
	my $status = $node->psql('postgres', "SET meal_planner.clock_offset = $ahead; CALL mp_sweep()");

	MealPlannerCluster::wait_until_up($node);
	return $status == 0 ? 'lived' : 'died';
}

# The shell that the server starts is its child: it knows whom to kill, once for each file.
query(<<"EOS");
CREATE TABLE effects (n int, subscription text);
CREATE TABLE broken (n int);
INSERT INTO broken VALUES (1);
CREATE TABLE deadly (n int);
INSERT INTO deadly VALUES (50), (150);
CREATE FUNCTION work(name text, e meal_planner.event) RETURNS void LANGUAGE plpgsql AS \$\$
<<work>>
DECLARE
    n int := (e.detail ->> 'n')::int;
BEGIN
    IF EXISTS (SELECT FROM broken) THEN
        RAISE EXCEPTION 'broken' USING ERRCODE = 'MPP01';
    END IF;
    INSERT INTO effects VALUES (n, name);
    PERFORM pg_sleep(0.003); -- so that there is a middle to be killed in
    IF name = 's' AND EXISTS (SELECT FROM deadly d WHERE d.n = work.n) THEN
        EXECUTE format('COPY (SELECT 1) TO PROGRAM %L',
                       format('cat > /dev/null; test -e $killed.%1\$s || { touch $killed.%1\$s; kill -9 \$PPID; }', n));
    END IF;
END
\$\$;
CREATE FUNCTION on_s(e meal_planner.event) RETURNS void LANGUAGE sql AS \$\$ SELECT work('s', e) \$\$;
CREATE FUNCTION on_w(e meal_planner.event) RETURNS void LANGUAGE sql AS \$\$ SELECT work('w', e) \$\$;
SELECT mp_subscribe('s', '{"detail-type":["Work"]}', 'on_s(meal_planner.event)');
SELECT mp_subscribe('w', '{"detail-type":["Work"]}', 'on_w(meal_planner.event)', 'worker');
SELECT count(mp_emit_event('Work', jsonb_build_object('n', n))) FROM generate_series(1, $letters) n;
EOS
query('CALL mp_sweep()');
is(query("SELECT count(*) FROM mp_dlq WHERE status = 'dead'"), 2 * $letters, 'all are dead');
query('TRUNCATE broken');
is(query("SELECT mp_redrive_dlq() ->> 'letters'"), 2 * $letters, 'they are to be redriven');

is(try_sweep(0), 'died', 'the sweep dies in a handler');
cmp_ok(query('SELECT in_flight FROM mp_redrives'), '>', 0, 'some letters are in flight');
cmp_ok(query('SELECT count(*) FROM effects'), '<', 2 * $letters, 'not all have taken effect');
is(query('SELECT count(*) - count(DISTINCT (n, subscription)) FROM effects'), 0, 'none twice');
is(query("SELECT count(*) FROM meal_planner.delivery d JOIN mp_dlq l USING (event_id, subscription) WHERE l.status <> 'replaying'"),
	0, 'every delivery is of a letter that is being replayed');
# and once more, with the server stopped hard in between
is(try_sweep(100), 'died', 'the next one dies, too');
$node->stop('immediate');
$node->start;

# From now on they are as quick as the others: who dies twice is given up.
query('TRUNCATE deadly');

# The server is killed while two sweeps are at work, time and again.
for my $round (1 .. 3)
{
	my $before = query('SELECT count(*) FROM effects');
	my @sweeps = map { $node->background_psql('postgres', on_error_stop => 0) } 1 .. 2;
	my $ahead = 100 + 100 * $round;

	$_->query_until(qr/begun/, "\\echo begun\nSET meal_planner.clock_offset = $ahead; CALL mp_sweep(60);\n") for @sweeps;
	ok( MealPlannerCluster::wait_until(sub {
				query('SELECT count(*) FROM effects') > $before + 20
				  || query('SELECT count(*) FROM mp_redrives WHERE ended_at IS NULL') == 0;
			}), "round $round: they go on");
	$node->kill9;
	MealPlannerCluster::start_again($node);
	$_->{run}->finish for @sweeps;
	is(query('SELECT count(*) FROM mp_redrives WHERE ended_at IS NULL'), 1, 'in the middle of it') if $round == 1;
	is(query('SELECT count(*) - count(DISTINCT (n, subscription)) FROM effects'), 0, "round $round: none twice");
}

for my $ahead (10 .. 30)
{
	last if query('SELECT count(*) FROM mp_redrives WHERE ended_at IS NULL') == 0;
	try_sweep($ahead * 100);
}
is(query('SELECT count(*), count(DISTINCT (n, subscription)) FROM effects'), 2 * $letters . '|' . 2 * $letters, 'every letter took effect once');
is(query('SELECT state, letters, done, failed, refused, skipped, blocked, in_flight, remaining FROM mp_redrives'),
	join('|', 'done', 2 * $letters, 2 * $letters, 0, 0, 0, 0, 0, 0), 'and was counted once');
is(query("SELECT count(*) FROM mp_dlq WHERE status <> 'resolved'"), 0, 'all are resolved');
is(query('SELECT (SELECT count(*) FROM meal_planner.redrive_part) + (SELECT count(*) FROM meal_planner.delivery)'), 0, 'nothing is left behind');

done_testing();
