# The token of a sweep is given up when its session ends, however it does and
# also while it is idle between two statements: what it has claimed is taken back.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use MealPlannerCluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = MealPlannerCluster->start('token');

sub query
{
	my ($query) = @_;
	return $node->safe_psql('postgres', $query);
}

query(<<'EOS');
CREATE TABLE calls (n int);
CREATE FUNCTION on_work(e meal_planner.event) RETURNS void LANGUAGE sql AS $$ INSERT INTO public.calls VALUES ((e.detail ->> 'n')::int) $$;
SELECT mp_subscribe('late', '{"detail-type": ["Work"]}', 'on_work(meal_planner.event)', options => '{"max_attempts": 10}');
EOS

my $n = 0;
for my $how ('quit', 'pg_terminate_backend', 'an error', 'sweep_end', 'another sweep')
{
	$n++;
	query("SELECT mp_emit_event('Work', '{\"n\": $n}', deliver_after => meal_planner.clock() + interval '1 hour');
	       UPDATE meal_planner.delivery SET next_attempt_at = meal_planner.clock()");
	my $worker = $node->background_psql('postgres', on_error_stop => 0);
	my $token = $worker->query_safe('SELECT meal_planner.sweep_begin(0)');
	is($worker->query_safe("SELECT (meal_planner.sweep_claim($token)).subscription"), 'late', "$how: the worker claims a delivery");
	is(query("SELECT meal_planner.worker_is_dead($token)"), 'f', "$how: it is alive while it is idle");
	query('CALL mp_sweep()');
	is(query("SELECT count(*) FROM calls WHERE n = $n"), 0, "$how: nobody takes from it what it has claimed");

	if ($how eq 'quit')
	{
		$worker->quit;
	}
	elsif ($how eq 'pg_terminate_backend')
	{
		query('SELECT pg_terminate_backend(' . $worker->query_safe('SELECT pg_backend_pid()') . ')');
	}
	elsif ($how eq 'an error')
	{
		$worker->query('SELECT 1 / 0');
	}
	elsif ($how eq 'sweep_end')
	{
		$worker->query_safe('SELECT meal_planner.sweep_end()');
	}
	else
	{
		$worker->query_safe('SELECT meal_planner.sweep_begin(0) IS NOT NULL');
	}
	ok($node->poll_query_until('postgres', "SELECT meal_planner.worker_is_dead($token)"), "$how: its token is free");
	is(query("SELECT attempt, crashes FROM meal_planner.delivery WHERE token = $token"), '1|0', "$how: it has left its claim behind");
	query('SET meal_planner.clock_offset = 100; CALL mp_sweep()');
	query('SET meal_planner.clock_offset = 200; CALL mp_sweep()');
	is(query("SELECT count(*) FROM calls WHERE n = $n"), 1, "$how: which another worker takes back and delivers");
	is(query('SELECT count(*) FROM meal_planner.delivery'), 0, "$how: nothing is left");
	$worker->{run}->finish if $how eq 'pg_terminate_backend';
	$worker->quit unless $how eq 'quit' || $how eq 'pg_terminate_backend';
}
is(query("SELECT count(*) FROM pg_locks WHERE locktype = 'object' AND mode = 'ExclusiveLock'"), 0, 'no lock is left');
ok(MealPlannerCluster::no_panic($node), 'no PANIC, no assertion, no other signal in the log');
$node->stop;
done_testing();
