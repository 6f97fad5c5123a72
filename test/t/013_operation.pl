# The owner of an operation's key ends without a word: in its transaction the
# key is free at once, whatever its lease was to be; a lease that was committed
# outlives the crash, and what is completed stays completed.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use MealPlannerCluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = MealPlannerCluster->start('operation', conf => "restart_after_crash = on\n");

sub query
{
	my ($query) = @_;
	return $node->safe_psql('postgres', $query);
}

# Begins under a key and stays in the transaction; returns the session and its process.
sub owner_of
{
	my ($key) = @_;
	my $owner = $node->background_psql('postgres', on_error_stop => 0);
	my $pid = $owner->query_safe('SELECT pg_backend_pid()');

	$owner->query_safe("BEGIN; INSERT INTO effect VALUES ('$key', 'owner')");
	is($owner->query_safe("SELECT mp_begin_operation('op', '$key', lease_seconds => 86400) ->> 'status'"), 'started', "$key: somebody owns it");
	return ($owner, $pid);
}

query('CREATE TABLE effect (key text, who text)');

# The process of the owner is ended: who waits goes on, and does the work.
my ($owner, $pid) = owner_of('ended');
my $waiter = $node->background_psql('postgres', on_error_stop => 0);
$waiter->query_until(qr/waiting/, <<'EOS');
\echo waiting
INSERT INTO effect SELECT 'ended', b ->> 'status' FROM mp_begin_operation('op', 'ended', lease_seconds => 86400) b WHERE mp_complete_operation((b ->> 'token')::uuid, '"of the waiter"');
EOS
ok( $node->poll_query_until('postgres', "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%mp_begin_operation%')"),
	'ended: another waits');
query("SELECT pg_terminate_backend($pid)");
ok($node->poll_query_until('postgres', "SELECT mp_check_processed('ended', 'op')"), 'ended: it goes on at once, without any lease');
is(query("SELECT string_agg(who, ',') FROM effect WHERE key = 'ended'"), 'started', 'ended: one effect, that of the waiter');
is(query("SELECT mp_begin_operation('op', 'ended') ->> 'result'"), 'of the waiter', 'ended: and one answer');
$owner->{run}->finish;
$waiter->quit;

# kill -9 of the owner takes the server down with it.
my $token = query("SELECT mp_begin_operation('op', 'leased', '1', lease_seconds => 86400) ->> 'token'");
query("SELECT mp_mark_processed('e1', 'op', result => '{\"n\": 1}')");
($owner, $pid) = owner_of('killed');
kill 9, $pid;
ok(MealPlannerCluster::wait_until(sub { my ($ret, $out) = $node->psql('postgres', "SELECT count(*) FROM pg_stat_activity WHERE pid = $pid"); defined $out && $out eq '0' }),
	'killed: the server is up again');
$owner->{run}->finish;
is(query("SELECT mp_begin_operation('op', 'killed') ->> 'status'"), 'started', 'killed: the key is free');
is(query('SELECT count(*) FROM effect'), 1, 'killed: and no effect is left');
is(query("SELECT mp_begin_operation('op', 'leased', '1') ->> 'status'"), 'in_progress', 'a lease outlives a crash');
is(query("SELECT mp_complete_operation('$token', '\"late\"')"), 't', 'and so does its token');
is(query("SELECT mp_mark_processed('e1', 'op')"), 'f', 'what is marked stays so');

# kill -9 of the whole server.
$token = query("SELECT mp_begin_operation('op', 'verified', '1', lease_seconds => 0, on_owner_lost => 'verify') ->> 'token'");
$node->kill9;
MealPlannerCluster::start_again($node);
is(query("SELECT mp_begin_operation('op', 'leased', '1') ->> 'result'"), 'late', 'a result outlives a crash of the server');
is(query("SELECT (b ->> 'status') || (b ->> 'attempt') FROM mp_begin_operation('op', 'verified', '1') b"), 'verify2', 'a lost owner is known as such');
is(query("SELECT mp_complete_operation('$token', '\"zombie\"')"), 'f', 'and fenced off');
is(query("SELECT count(*) FROM pg_locks WHERE locktype = 'object' AND mode = 'ExclusiveLock'"), 0, 'no lock is left');
$node->stop;
done_testing();
