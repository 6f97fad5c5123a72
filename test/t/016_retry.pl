# Retries over the death of the server: what was deferred is neither lost nor
# early, and a budget does not begin anew with every start.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use MealPlannerCluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = MealPlannerCluster->start('retry');

sub query { return $node->safe_psql('postgres', $_[0]) }

# Much later than the start, where every bucket is full.
my $later = 'SET meal_planner.clock_offset = 1000000';

query(q(
	CREATE TABLE weather (code text);
	INSERT INTO weather VALUES ('MPT01');
	CREATE TABLE seen (n serial, event int);
	CREATE FUNCTION work(e meal_planner.event) RETURNS void LANGUAGE plpgsql AS $$
	DECLARE
	    failure text := (SELECT code FROM weather);
	BEGIN
	    IF failure IS NOT NULL THEN
	        RAISE EXCEPTION 'weather' USING ERRCODE = failure;
	    END IF;
	    INSERT INTO seen (event) VALUES ((e.detail ->> 'n')::int);
	END $$;
	SELECT mp_subscribe('budget', '{"detail-type": ["B"]}', 'work(meal_planner.event)',
	                    options => '{"base_delay": 0, "max_attempts": 100, "retry_budget": {"per_second": 0.001, "burst": 3}}');
	SELECT mp_subscribe('breaker', '{"detail-type": ["C"]}', 'work(meal_planner.event)', options => '{"breaker": "c", "base_delay": 500}');
	SELECT mp_breaker_configure('c', '{"failure_threshold": 1, "open_seconds": 1000}');
	));
query('CALL mp_sweep()');

# ---------------------------------------------------------------- the budget
query("$later; SELECT count(mp_emit_event('B', jsonb_build_object('n', n))) FROM generate_series(1, 10) n");
query("$later; CALL mp_sweep()");
my $attempts = q(SELECT string_agg(attempt::text, ' ' ORDER BY attempt DESC) FROM meal_planner.delivery WHERE subscription = 'budget');
like(query($attempts), qr/^(4( 1){9}|3 2( 1){8}|2 2 2( 1){7})$/, 'three retries, as many as there are tokens');
$attempts = q(SELECT sum(attempt) FROM meal_planner.delivery WHERE subscription = 'budget');
is(query($attempts), 13, 'and no more');
query("UPDATE meal_planner.delivery SET next_attempt_at = meal_planner.clock() WHERE subscription = 'budget'");
for my $how (qw(fast immediate kill))
{
	if ($how eq 'kill') { $node->kill9; MealPlannerCluster::start_again($node) }
	else { $node->stop($how); MealPlannerCluster::start_again($node) }
	query('CALL mp_sweep()');
	is(query($attempts), 13, "a start after $how brings no tokens") or diag(query('SELECT * FROM mp_retry_budgets'));
	is(query(q(SELECT count(*) FROM mp_retry_budgets WHERE tokens < 1 AND ready_at > meal_planner.clock())), 1, 'the bucket is empty');
}
query('UPDATE weather SET code = NULL');
query("$later; CALL mp_sweep()");
is(query('SELECT count(*) FROM seen'), 3, 'time does');
query("SET meal_planner.clock_offset = 1004000; CALL mp_sweep()");
query("SET meal_planner.clock_offset = 1008000; CALL mp_sweep()");
query("SET meal_planner.clock_offset = 1012000; CALL mp_sweep()");
is(query('SELECT count(*), count(DISTINCT event) FROM seen'), '10|10', 'nothing is lost, nothing done twice');

# ---------------------------------------------------- behind an open breaker
query("UPDATE weather SET code = 'MPT01'");
query("SELECT count(mp_emit_event('C', jsonb_build_object('n', 100 + n))) FROM generate_series(1, 5) n");
$node->kill9;
MealPlannerCluster::start_again($node);
query('CALL mp_sweep()');
is(query(q(SELECT count(*), sum(attempt) FROM meal_planner.delivery WHERE subscription = 'breaker')), '5|1', 'kill -9: what waits for the breaker still does');
query('UPDATE weather SET code = NULL');
query(q(SELECT mp_breaker_force('c', 'closed', reason => 'it is up')));
query('CALL mp_sweep()');
is(query('SELECT count(*) FROM seen WHERE event > 100'), 4, 'closed by force: it goes on at once');
query('SET meal_planner.clock_offset = 1000; CALL mp_sweep()');
is(query('SELECT count(*) FROM seen WHERE event > 100'), 5, 'and what had failed, when its time has come');
is(query('SELECT count(*) FROM mp_dlq'), 0, 'no dead letter');

$node->stop;
done_testing();
