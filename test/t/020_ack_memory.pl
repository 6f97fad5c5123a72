# What an acknowledgement of some events needs grows with their number, not with
# its square.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use MealPlannerCluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = MealPlannerCluster->start('ack_memory');

$node->safe_psql('postgres', <<'EOS');
SELECT mp_subscribe('p', '{"source":["memory"]}', mode => 'pull');
SELECT count(mp_emit_event('Any', '{}', 'memory')) FROM generate_series(1, 10000);
CREATE TABLE held AS SELECT token, event_id, row_number() OVER () AS n FROM mp_claim('p', 10000, 600);
EOS

my $session = $node->background_psql('postgres');
my $pid = $session->query_safe('SELECT pg_backend_pid()');

# Megabytes that the process has had at most.
sub peak
{
	my ($kb) = slurp_file("/proc/$pid/status") =~ /^VmHWM:\s+(\d+) kB/m;

	return int($kb / 1024);
}

$session->query_safe('SELECT count(*) FROM held');
my $before = peak();
is($session->query_safe('SELECT mp_ack((SELECT token FROM held LIMIT 1), (SELECT array_agg(event_id) FROM held WHERE n <= 9000))'),
	't', 'most of a large claim is acknowledged');
my $after = peak();
note "peak: $before MB, then $after MB";
cmp_ok($after - $before, '<', 250, 'it does not copy the list of what is settled for every event');
is($session->query_safe('SELECT remaining FROM meal_planner.consumer_claim'), '1000', 'the others are still held');
$session->quit;
$node->stop;

done_testing();
