# A standby: what needs positions says MP503 there; once promoted it goes on, above
# all positions of the old primary, also of those ahead of the clock.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use MealPlannerCluster;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $primary = MealPlannerCluster->start('primary', allows_streaming => 1);

$primary->safe_psql('postgres', <<'EOS');
CREATE TABLE calls (n int, who text);
CREATE FUNCTION on_work(e meal_planner.event) RETURNS void LANGUAGE sql AS $$ INSERT INTO public.calls VALUES ((e.detail ->> 'n')::int, 'inline') $$;
CREATE FUNCTION on_worker(e meal_planner.event) RETURNS void LANGUAGE sql AS $$ INSERT INTO public.calls VALUES ((e.detail ->> 'n')::int, 'worker') $$;
SELECT mp_subscribe('inline', '{"detail-type": ["Work"]}', 'on_work(meal_planner.event)');
SELECT mp_subscribe('worker', '{"detail-type": ["Work"]}', 'on_worker(meal_planner.event)', 'worker');
-- An hour ahead: a promoted server whose own clock is behind must not go back.
SET meal_planner.clock_offset = 3600;
SELECT mp_emit_event('Work', jsonb_build_object('n', n), stream => 's', idempotency_key => 'k' || n) FROM generate_series(1, 10) n;
CALL mp_sweep();
SELECT mp_emit_event('Work', '{"n": 11}', stream => 's');
EOS

$primary->backup('base');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'base', has_streaming => 1);
$standby->start;

my $last = $primary->safe_psql('postgres', "SELECT meal_planner.event_position(mp_emit_event('Work', '{\"n\": 12}', stream => 's'))");
$primary->wait_for_catchup($standby);

# One session lives through the promotion.
my $session = $standby->background_psql('postgres', on_error_stop => 0);
is($session->query_safe('SELECT pg_is_in_recovery()'), 't', 'it is a standby');

my %needs_the_primary = (
	mp_emit_event => q(SELECT mp_emit_event('Work', '{}')),
	'mp_emit_event into a stream' => q(SELECT mp_emit_event('Work', '{}', stream => 's')),
	'mp_emit_event with a key' => q(SELECT mp_emit_event('Work', '{}', idempotency_key => 'new')),
	mp_put_events => q(SELECT mp_put_events('[{"Source":"a","DetailType":"b","Detail":{}}]')),
	mp_read_events => q(SELECT * FROM mp_read_events()),
	mp_sweep => q(CALL mp_sweep()));
for my $function (sort keys %needs_the_primary)
{
	my $err = '';
	isnt($standby->psql('postgres', $needs_the_primary{$function}, stderr => \$err), 0, "standby: $function fails");
	like($err, qr/ERROR:  MP503: positions are not available on a standby\nHINT:  retry=yes\. Use the primary\./,
		"standby: $function says why and what to do");
}
is($standby->safe_psql('postgres', "SELECT count(*), max(version) FROM mp_read_stream('s')"), '12|12', 'standby: a stream can be read');
is($standby->safe_psql('postgres', "SELECT mp_event(id) ->> 'detail-type' FROM meal_planner.event WHERE position = $last"), 'Work', 'standby: so can an event');
is($standby->safe_psql('postgres', "SELECT count(*) FROM mp_in_flight"), 0, 'standby: nothing is in flight here');
is($standby->safe_psql('postgres', "SELECT lag_events FROM mp_subscriptions WHERE name = 'worker'"), '2', 'standby: the lag is seen');
is($session->query_safe(<<'EOS'), '', 'standby: a session that lives through the promotion is refused too');
DO $$ BEGIN PERFORM mp_emit_event('Work', '{}'); RAISE 'emitted'; EXCEPTION WHEN SQLSTATE 'MP503' THEN NULL; END $$
EOS

# The primary is lost with a transaction open.
my $open = $primary->background_psql('postgres');
$open->query_safe("BEGIN; SELECT mp_emit_event('Work', '{\"n\": 13}', stream => 's')");
$primary->stop('immediate');
$open->{run}->finish;
$standby->promote;
ok($standby->poll_query_until('postgres', 'SELECT NOT pg_is_in_recovery()'), 'promoted');

my $next = $session->query_safe("SELECT meal_planner.event_position(mp_emit_event('Work', '{\"n\": 14}', stream => 's', expected_version => 12))");
cmp_ok($next, '>', $last, 'promoted: a session that was there goes on above the last position');
$session->quit;
cmp_ok($standby->safe_psql('postgres', "SELECT meal_planner.event_position(mp_emit_event('Work', '{\"n\": 15}', stream => 's'))"),
	'>', $next, 'promoted: so does a new one');
is($standby->safe_psql('postgres', "SELECT string_agg(event -> 'detail' ->> 'n', ' ' ORDER BY position) FROM mp_read_events($last)"), '14 15',
	'promoted: a reader goes on from where it was');
is($standby->safe_psql('postgres', "SELECT count(*), count(DISTINCT version), max(version) FROM meal_planner.event WHERE stream = 's'"), '14|14|14',
	'promoted: the stream has no gap');
is($standby->safe_psql('postgres', "SELECT event -> 'detail' ->> 'n' FROM meal_planner.event e, LATERAL mp_event(
		mp_emit_event('Work', '{\"n\": 3}', stream => 's', idempotency_key => 'k3')) event WHERE e.idempotency_key = 'k3' LIMIT 1"),
	'3', 'promoted: keys are known');
$standby->safe_psql('postgres', 'CALL mp_sweep()');
is($standby->safe_psql('postgres', "SELECT string_agg(n::text, ' ' ORDER BY n) FROM calls WHERE who = 'worker'"),
	'1 2 3 4 5 6 7 8 9 10 11 12 14 15', 'promoted: the worker got each event once');
is($standby->safe_psql('postgres', "SELECT count(*) - count(DISTINCT n) FROM calls WHERE who = 'inline'"), 0, 'promoted: so did the inline subscription');

ok(MealPlannerCluster::no_panic($standby), 'no PANIC, no assertion, no other signal in the log');
$standby->stop;
done_testing();
