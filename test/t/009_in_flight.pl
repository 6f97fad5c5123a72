# Who holds readers back, and how the sweep ends a session that does so too long.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use MealPlannerCluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = MealPlannerCluster->start('in_flight');

sub query
{
	my ($query) = @_;
	return $node->safe_psql('postgres', $query);
}

sub set_limit
{
	my ($limit) = @_;
	query("ALTER SYSTEM SET meal_planner.in_flight_limit = '$limit'; SELECT pg_reload_conf()");
	ok($node->poll_query_until('postgres', "SELECT current_setting('meal_planner.in_flight_limit') = '$limit'"),
		"the limit is $limit");
	return;
}

query("SELECT mp_emit_event('Before', '{}')");

# A transaction that is old when it appends: since tells of the append.
my $open = $node->background_psql('postgres', on_error_stop => 0);
$open->query_safe("BEGIN; SELECT 1; SELECT pg_sleep(0.1)");
$open->query_safe("SELECT mp_emit_event('Open', '{}')");
my $pid = $open->query_safe('SELECT pg_backend_pid()');
is(query("SELECT pid = $pid, account, since > xact_start, age > interval '0', state FROM mp_in_flight"),
	't|local|t|t|idle in transaction', 'mp_in_flight shows it');

query("SELECT mp_emit_event('After', '{}')");
is(query("SELECT count(*) FROM mp_read_events()"), 1, 'readers wait for it');
query('CALL mp_sweep()');
is(query("SELECT count(*) FROM mp_in_flight"), 1, 'without a limit the sweep lets it be');
set_limit('1h');
query('CALL mp_sweep()');
is(query("SELECT count(*) FROM mp_in_flight"), 1, 'so it does while it is younger');

# A transaction that has appended nothing is nobody's business.
my $idle = $node->background_psql('postgres');
$idle->query_safe('BEGIN; SELECT count(*) FROM meal_planner.subscription');

set_limit('50ms');
query('CALL mp_sweep()');
ok($node->poll_query_until('postgres', 'SELECT count(*) = 0 FROM mp_in_flight'), 'the sweep ends it');
is(query("SELECT count(*) FROM mp_read_events()"), 2, 'and readers go on');
is(query("SELECT count(*) FROM meal_planner.event WHERE detail_type = 'Open'"), 0, 'its event is gone with it');
like(slurp_file($node->logfile), qr/ended the session of process $pid, which has appended events/, 'the log tells');
is($idle->query_safe('SELECT 1'), 1, 'a session that appended nothing lives');
$idle->query_safe('COMMIT');
$idle->quit;
$open->{run}->finish;

# A sweep that runs for long looks again and again.
set_limit('300ms');
my $sweep = $node->background_psql('postgres', on_error_stop => 0);
$sweep->query_until(qr/sweeping/, "\\echo sweeping\nCALL mp_sweep(600);\n");
$open = $node->background_psql('postgres', on_error_stop => 0);
$open->query_safe("BEGIN; SELECT mp_emit_event('Open', '{}')");
ok($node->poll_query_until('postgres', 'SELECT count(*) = 0 FROM mp_in_flight'), 'a running sweep ends it too');
$open->{run}->finish;
is(query("SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'CALL mp\\_sweep(600)%'"), 1, 'and goes on');
query("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'CALL mp\\_sweep(600)%'");
$sweep->{run}->finish;

# A sweeper without rights of its own: those of the owner of the extension count.
query(<<'EOS');
CREATE ROLE sweeper LOGIN;
SELECT mp_grant('sweeper', 'sweeper');
EOS
set_limit('50ms');
$open = $node->background_psql('postgres', on_error_stop => 0);
$open->query_safe("BEGIN; SELECT mp_emit_event('Open', '{}')");
query('SELECT pg_sleep(0.1)');
query('SET SESSION AUTHORIZATION sweeper; CALL mp_sweep()');
ok($node->poll_query_until('postgres', 'SELECT count(*) = 0 FROM mp_in_flight'), 'a sweeper needs no rights over sessions');
$open->{run}->finish;

# An owner who may not end a superuser's session is told so, and the sweep goes on.
query(<<'EOS');
CREATE ROLE owner;
ALTER FUNCTION meal_planner.end_stale_appends() OWNER TO owner;
GRANT EXECUTE ON FUNCTION meal_planner.in_flight() TO owner;
GRANT EXECUTE ON FUNCTION meal_planner.end_stale_appends() TO CURRENT_USER, sweeper;
EOS
$open = $node->background_psql('postgres', on_error_stop => 0);
$open->query_safe("BEGIN; SELECT mp_emit_event('Open', '{}')");
query('SELECT pg_sleep(0.1)');
my ($out, $err) = ('', '');
is($node->psql('postgres', 'CALL mp_sweep()', stdout => \$out, stderr => \$err), 0, 'a sweep that may not end a session goes on');
like($err, qr/WARNING:  could not end the session of process \d+, which has appended events/, 'and says so');
is(query("SELECT count(*) FROM mp_in_flight"), 1, 'the session lives');
$open->query_safe('ROLLBACK');
$open->quit;

ok(MealPlannerCluster::no_panic($node), 'no PANIC, no assertion, no other signal in the log');
$node->stop;
done_testing();
