# Circuit breakers over the death of the server, a restart, a promotion and a
# dump; two databases of one server; more names than there are places.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use MealPlannerCluster;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = MealPlannerCluster->start('breaker', allows_streaming => 1);

sub query
{
	my ($query, $database) = @_;
	return $node->safe_psql($database // 'postgres', $query);
}

sub allowed
{
	my ($name, $ahead, $server) = @_;
	return ($server // $node)->safe_psql('postgres',
		sprintf('SET meal_planner.clock_offset = %d; SELECT mp_breaker_acquire(%s) ->> %s', $ahead // 0, "'$name'", "'allowed'"));
}

sub report
{
	my ($name, $outcome, $ahead, $permit) = @_;
	$permit //= "(mp_breaker_acquire('$name') ->> 'permit')::bigint";
	return query(sprintf('SET meal_planner.clock_offset = %d; SELECT mp_breaker_report(%s, %s, %s)',
			$ahead // 0, "'$name'", $permit, "'$outcome'"));
}

sub epoch { return query("SELECT epoch FROM mp_breakers WHERE name = '$_[0]'") }

sub kill_and_start
{
	$node->stop('immediate') if $_[0];
	$node->kill9 unless $_[0];
	MealPlannerCluster::start_again($node);
	return;
}

# ---------------------------------------------------------------------------
# kill -9: what a call has told of is there.

query("SELECT mp_breaker_configure('opened', '{\"failure_threshold\": 3, \"open_seconds\": 1000, \"growth\": 2}')");
my $early = query("SELECT mp_breaker_acquire('opened') ->> 'permit'");
is(report('opened', 'failure'), 'closed', 'two failures do not open it') for 1 .. 2;
is(report('opened', 'failure'), 'open', 'the third does');
query("SELECT mp_breaker_force('held', 'open', reason => 'maintenance')");
query("SELECT mp_breaker_force('let', 'closed', meal_planner.clock() + interval '1 hour')");
report('failing', 'failure') for 1 .. 4;
my %epoch = map { $_ => epoch($_) } qw(opened held let failing);
my $columns = 'name, state, opened_at, retry_at, open_seconds, open_count, forced, forced_until, forced_by, forced_reason, options';
my $rows = "SELECT $columns FROM mp_breakers WHERE name IN ('opened', 'held', 'let') ORDER BY name";
my $before = query($rows);

kill_and_start(0);
is(query($rows), $before, 'kill -9: open and forced ones are as they were');
is(allowed('opened'), 'false', 'kill -9: an open one refuses');
is(allowed('held'), 'false', 'kill -9: a forced one, too');
is(report('let', 'failure'), 'closed', 'kill -9: one that is held closed does not open') for 1 .. 6;
is(report('opened', 'success', 0, $early), 'open', 'a permit of before is late');
# the failures of a closed one are forgotten
is(report('failing', 'failure'), 'closed', "failure $_ after the crash") for 1 .. 4;
is(report('failing', 'failure'), 'open', 'the fifth after the crash');
cmp_ok(epoch($_), '>', $epoch{$_}, "the epoch of $_ went on") for sort keys %epoch;

# A probe that the crash took with it: it may be tried again at once, by another permit.
is(allowed('opened', 1001), 'true', 'a probe');
my $probe = query("SELECT epoch * 4096 + 1 FROM mp_breakers WHERE name = 'opened'");
kill_and_start(0);
is(query("SELECT state FROM mp_breakers WHERE name = 'opened'"), 'open', 'kill -9 during a probe: it is open');
my $again = query("SET meal_planner.clock_offset = 2002; SELECT mp_breaker_acquire('opened') ->> 'permit'");
cmp_ok($again, '>', $probe, 'another permit');
is(report('opened', 'success', 2002, $probe), 'half-open', 'the result of the probe of before is late');
is(report('opened', 'failure', 2002, $again), 'open', 'that of the new one counts');
is(query("SELECT open_seconds FROM mp_breakers WHERE name = 'opened'"), '2000', 'and the open time goes on growing');

# ---------------------------------------------------------------------------
# A clean restart.  (This session's clock is behind the one that opened it: the
# time to wait has become shorter, and follows the clock.)

my $stable = $rows =~ s/retry_at, //r;
$before = query($stable);
$node->restart;
is(query($stable), $before, 'restart: as it was');

# ---------------------------------------------------------------------------
# Two databases of one server.

query('CREATE DATABASE other');
query('CREATE EXTENSION meal_planner', 'other');
is(query("SELECT mp_breaker_acquire('held') ->> 'allowed'", 'other'), 'true', 'the same name in another database is another one');
query("SELECT mp_breaker_report('held', (mp_breaker_acquire('held') ->> 'permit')::bigint, 'failure')", 'other') for 1 .. 5;
query("SELECT mp_breaker_force('held', 'auto')");
is(query("SELECT mp_breaker_acquire('held') ->> 'allowed'", 'other'), 'false', 'which opens on its own');
is(allowed('held'), 'true', 'and disturbs nobody');
query("SELECT mp_breaker_force('held', 'open')");

# ---------------------------------------------------------------------------
# A dump.

query("SELECT mp_breaker_force('let', 'closed', meal_planner.clock() + interval '1 hour', 'a trial')", 'other');
query("SELECT mp_breaker_configure('opened', '{\"failure_threshold\": 3}')", 'other');
$before = query("SELECT $columns FROM mp_breakers ORDER BY name", 'other');
my $history = query('SELECT * FROM meal_planner.breaker_history ORDER BY 1, 2, 3', 'other');
my $dump = $node->basedir . '/dump';
command_ok([ 'pg_dump', '-Fc', '-f', $dump, '-d', $node->connstr('other') ], 'pg_dump');
query('CREATE DATABASE restored');
command_ok([ 'pg_restore', '--exit-on-error', '-d', $node->connstr('restored'), $dump ], 'pg_restore');
is(query("SELECT $columns FROM mp_breakers ORDER BY name", 'restored'), $before, 'dump: open and forced ones are as they were');
is(query('SELECT * FROM meal_planner.breaker_history ORDER BY 1, 2, 3', 'restored'), $history, 'and so is their history');
is(query("SELECT mp_breaker_acquire('held') ->> 'allowed'", 'restored'), 'false', 'an open one refuses there');

# ---------------------------------------------------------------------------
# More names than places; those of a database that is gone are free again.

my ($code, $out, $err) = $node->psql('other', "SELECT mp_breaker_acquire('many' || n) FROM generate_series(1, 300) n");
like($err, qr/MP503: all 256 places/, 'more than there are places: MP503');
is(allowed('held'), 'false', 'the others go on');
query('DROP DATABASE other');
is(allowed('after_all'), 'true', 'a database that is gone leaves its places');

# ---------------------------------------------------------------------------
# A promoted standby.

$node->backup('base');
my $standby = PostgreSQL::Test::Cluster->new('breaker_standby');
$standby->init_from_backup($node, 'base', has_streaming => 1);
$standby->start;
report('late', 'failure') for 1 .. 5;
$node->wait_for_catchup($standby);
is($standby->safe_psql('postgres', "SELECT state FROM mp_breakers WHERE name = 'late'"), 'open', 'standby: the view shows what is stored');
($code, $out, $err) = $standby->psql('postgres', "SELECT mp_breaker_acquire('late')");
like($err, qr/MP503/, 'standby: asking is refused');
$node->stop;
$standby->promote;
is(allowed('late', 0, $standby), 'false', 'promoted: an open one refuses');
is(allowed('held', 0, $standby), 'false', 'promoted: a forced one, too');
is(allowed('new', 0, $standby), 'true', 'promoted: a new one allows');
$standby->stop;
done_testing();
