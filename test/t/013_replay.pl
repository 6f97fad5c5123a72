# A replay survives the death of its worker and a crash of the server: it goes
# on where it was, and every event takes effect once, with the mark.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use MealPlannerCluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = MealPlannerCluster->start('replay', conf => "restart_after_crash = on\n");
my $killed = PostgreSQL::Test::Utils::tempdir . '/killed';

sub query
{
	my ($query) = @_;
	return $node->safe_psql('postgres', $query);
}

sub try_sweep
{
	my $status = $node->psql('postgres', 'SET meal_planner.clock_offset = 100000; CALL mp_sweep()');

	MealPlannerCluster::wait_until(sub { $node->psql('postgres', 'SELECT 1') == 0 })
	  or die 'the server did not come back';
	return $status == 0 ? 'lived' : 'died';
}

# The shell that the server starts is its child: it knows whom to kill, once.
query(<<"EOS");
CREATE TABLE effects (n int, replay text);
CREATE FUNCTION on_work(e meal_planner.event) RETURNS void LANGUAGE plpgsql AS \$\$
BEGIN
    INSERT INTO effects VALUES ((e.detail ->> 'n')::int, mp_replay_name());
    IF e.detail ->> 'n' = '120' AND mp_replay_name() IS NOT NULL THEN
        COPY (SELECT 1) TO PROGRAM 'cat > /dev/null; test -e $killed || { touch $killed; kill -9 \$PPID; }';
    END IF;
END
\$\$;
SELECT mp_subscribe('s', '{"detail-type":["Work"]}', 'on_work(meal_planner.event)');
SELECT count(mp_emit_event('Work', jsonb_build_object('n', n))) FROM generate_series(1, 200) n;
EOS
is(query("SELECT mp_replay('s', name => 'again')"), 200, 'it is to deliver all');
is(try_sweep(), 'died', 'the sweep that runs it dies');
is(query('SELECT delivered FROM mp_replays'), 100, 'what it had done before is done');
is(query("SELECT count(*) FROM effects WHERE replay = 'again'"), 100, 'and nothing else has taken effect');
$node->stop('immediate');
$node->start;
is(try_sweep(), 'lived', 'another goes on');
is(query("SELECT count(*), count(DISTINCT n) FROM effects WHERE replay = 'again'"), '200|200', 'every event took effect once');
is(query('SELECT count(*) FROM effects WHERE replay IS NULL'), 200, 'next to that of its first time');
is(query('SELECT count(*) FROM meal_planner.event'), 200, 'nothing was appended');
is(query('SELECT (SELECT count(*) FROM mp_replays) + (SELECT count(*) FROM meal_planner.replay_cursor)
	+ (SELECT count(*) FROM meal_planner.worker_batch) + (SELECT count(*) FROM meal_planner.delivery)'), 0, 'nothing is left behind');

done_testing();
