# A retry budget is one for all: sessions that ask at the same time get no more
# tokens than the time has brought.  A crash of the server brings none.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use IPC::Run;
use MealPlannerCluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = MealPlannerCluster->start('retry_budget', conf => "restart_after_crash = on\n");

$node->safe_psql('postgres', <<'EOS');
SELECT mp_subscribe('p', '{"source":["any"]}', mode => 'pull', options => '{"retry_budget": {"per_second": 100000, "burst": 100}}');
CREATE TABLE taken (tokens bigint, began timestamptz, ended timestamptz);
CREATE PROCEDURE take(tries int) LANGUAGE plpgsql AS $$
DECLARE
    began  timestamptz := clock_timestamp();
    tokens bigint := 0;
BEGIN
    FOR i IN 1 .. tries LOOP
        tokens := tokens + meal_planner.take_retry('p')::int;
    END LOOP;
    INSERT INTO taken VALUES (tokens, began, clock_timestamp());
END $$;
EOS

my @sessions = map {
	IPC::Run::start([ 'psql', '-XqAt', '-d', $node->connstr('postgres'), '-c', 'CALL take(500000)' ])
} 1 .. 8;
ok($_->finish, 'a session ends') for @sessions;
my $what = $node->safe_psql('postgres',
	'SELECT sum(tokens), ceil(100 + 100000 * extract(epoch FROM max(ended) - min(began))) FROM taken');
note "taken, and at most: $what";
my ($taken, $most) = split /\|/, $what;
cmp_ok($taken, '>', 0, 'there were tokens');
cmp_ok($taken, '<', 8 * 500000, 'not for everybody who asked');
cmp_ok($taken, '<=', $most, 'but no more than the time has brought');

# The postmaster lives on when a backend dies, and so does the time of its start.
$node->safe_psql('postgres', q{SELECT mp_subscribe('slow', '{"source":["any"]}', mode => 'pull', options => '{"retry_budget": {"per_second": 1000, "burst": 1000000}}')});
my $victim = IPC::Run::start([ 'psql', '-Xq', '-d', $node->connstr('postgres'), '-c', 'SELECT pg_sleep(600)' ], '>', \my $out, '2>', \my $err);
my $pid = MealPlannerCluster::some_backend($node, "query LIKE '%pg_sleep(600)%'");
my $before = $node->safe_psql('postgres', 'SELECT clock_timestamp()');
kill 'KILL', $pid;
$victim->finish;
ok(MealPlannerCluster::wait_until(sub {
	slurp_file($node->logfile) =~ /all server processes terminated; reinitializing/ && ($node->psql('postgres', 'SELECT 1'))[0] == 0
}), 'the server is there again');
my $tokens = $node->safe_psql('postgres', q{SELECT tokens FROM mp_retry_budgets WHERE subscription = 'slow'});
$most = $node->safe_psql('postgres', "SELECT 1000 * extract(epoch FROM clock_timestamp() - '$before')");
cmp_ok($tokens, '<=', $most, 'no more tokens than the time since the crash has brought');
$node->stop;

done_testing();
