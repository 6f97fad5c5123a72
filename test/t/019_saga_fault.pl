# A fault at every write of the engine: one after the other, each row that it
# writes for the same few sagas is met by an ERROR, by the end of the session or
# by the end of the server.  Then it goes on, and what is left must agree with how
# each saga ended (SagaCheck.pm).  A trigger on the engine's tables is the fault.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use MealPlannerCluster;
use SagaCheck;
use PostgreSQL::Test::Utils;
use Test::More;

# Which writes: all of them, one of the three each; MP_FAULTS=error,session,server: each of these at all.
my @wanted = split /,/, $ENV{MP_FAULTS} // '';

my $node = MealPlannerCluster->start('saga_fault', conf => "restart_after_crash = on\nlog_statement = none\n");
SagaCheck::setup($node);
$node->safe_psql('postgres', <<'EOS');
CREATE TABLE armed (n bigint, kind text);
CREATE SEQUENCE writes;
CREATE FUNCTION fault() RETURNS trigger LANGUAGE plpgsql SET search_path = public AS $$
DECLARE
    this bigint := nextval('writes'); -- counts although what it counts is rolled back
    what text;
BEGIN
    SELECT kind INTO what FROM armed WHERE n = this;
    IF what = 'error' THEN
        RAISE EXCEPTION 'a fault' USING ERRCODE = 'XX000';
    ELSIF what = 'session' THEN
        PERFORM pg_terminate_backend(pg_backend_pid());
        PERFORM pg_sleep(10);
    ELSIF what = 'server' THEN
        EXECUTE format('COPY (SELECT 1) TO PROGRAM %L', 'kill -9 ' || pg_backend_pid());
        PERFORM pg_sleep(10);
    END IF;
    RETURN coalesce(NEW, OLD);
END $$;
DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY '{saga,saga_log,saga_step,saga_batch,saga_lock,event}'::text[] LOOP
        EXECUTE format('CREATE TRIGGER a_fault %s ON meal_planner.%I FOR EACH ROW EXECUTE FUNCTION fault()',
                       CASE name WHEN 'event' THEN 'AFTER INSERT' ELSE 'BEFORE INSERT OR UPDATE OR DELETE' END, name);
    END LOOP;
END $$;
SELECT mp_define_saga('line', '{"steps": [
    {"name": "a", "kind": "compensatable", "run": "act(jsonb)", "undo": "act(jsonb)", "after": []},
    {"name": "b", "kind": "compensatable", "service": "svc", "undo_service": "svc", "after": ["a"], "retry": {"base_delay": 0.01}, "undo_retry": {"base_delay": 0.01}},
    {"name": "p", "kind": "pivot", "run": "act(jsonb)", "after": ["b"], "retry": {"base_delay": 0.01}},
    {"name": "c", "kind": "retriable", "run": "act(jsonb)", "after": ["p"], "retry": {"base_delay": 0.01}}],
    "locks": ["line"], "on_completed": {"emit": "Done"}, "on_compensated": {"emit": "Undone"}}');
SELECT mp_define_saga('fork', '{"steps": [
    {"name": "a", "kind": "compensatable", "run": "act(jsonb)", "undo": "act(jsonb)", "after": [], "undo_retry": {"base_delay": 0.01}},
    {"name": "b", "kind": "compensatable", "service": "svc", "undo_service": "svc", "after": [], "retry": {"base_delay": 0.01}, "undo_retry": {"base_delay": 0.01}},
    {"name": "p", "kind": "pivot", "service": "svc", "undo_service": "svc", "after": ["a", "b"], "retry": {"base_delay": 0.01}, "undo_retry": {"base_delay": 0.01}}],
    "on_completed": {"emit": "Done"}, "on_compensated": {"emit": "Undone"}}');
EOS

my @starts = (
	q{SELECT mp_start_saga('line', '{"plan": {}}', '1')},
	q{SELECT mp_start_saga('line', '{"plan": {"p": {"fails": 100, "sqlstate": "P0001"}, "b!": {"fails": 1, "sqlstate": "MPT01"}}}', '2')},
	q{SELECT mp_start_saga('fork', '{"plan": {"p": {"fails": 100, "sqlstate": "P0001"}, "a!": {"fails": 1, "sqlstate": "MPT01"}}}', '3')});

# A server that is killed may answer once more before it goes down: asked until it answers.
sub query
{
	my ($query) = @_;
	my $out;

	MealPlannerCluster::wait_until(sub { (my $status, $out) = $node->psql('postgres', $query); return defined $status && $status == 0 })
	  or die "no answer to: $query";
	return $out;
}

# How often the server has been killed.
sub kills
{
	return scalar(() = slurp_file($node->logfile) =~ /was terminated by signal 9/g);
}

# All of them to their ends, whatever fails on the way; false: they do not come there.
sub run_to_the_end
{
	my ($kills) = @_;

	for my $turn (1 .. 200)
	{
		# the number of the write may have gone with the server, and would come again
		$node->psql('postgres', 'TRUNCATE armed') if kills() > $kills;
		# a start that failed is tried again, with its key
		my ($status, $out) = $node->psql('postgres', join(";\n", @starts, ('CALL mp_sweep()', 'CALL work(10)', 'SELECT pg_sleep(0.02)') x 4,
			q{SELECT mp_retry_saga(id) FROM meal_planner.saga WHERE state = 'stuck'},
			q{SELECT 'ended ' || count(*) FROM meal_planner.saga WHERE ended_at IS NOT NULL}), on_error_stop => 0);
		return 1 if ($out // '') =~ /ended 3$/;
	}
	return 0;
}

my %faults;
my $n = 0;
my $fired = 1;
while ($fired && $n < 500)
{
	$n++;
	for my $kind (@wanted ? @wanted : $n % 12 == 0 ? 'server' : $n % 3 == 0 ? 'session' : 'error')
	{
		query(<<"EOS");
TRUNCATE armed, effect, outside, meal_planner.saga, meal_planner.saga_log, meal_planner.saga_step, meal_planner.saga_lock, meal_planner.saga_batch, meal_planner.event, meal_planner.alert;
ALTER SEQUENCE writes RESTART;
INSERT INTO armed VALUES ($n, '$kind');
EOS
		my $kills = kills();
		my $ended = run_to_the_end($kills);
		# the end of the server may take the number of the write with it
		$fired = $kind eq 'server' ? kills() > $kills : query("SELECT last_value >= $n FROM writes") eq 't';
		last if !$fired;
		$faults{$kind}++;
		my $violations = query($ended ? SagaCheck::violations() : 'SELECT * FROM mp_sagas WHERE ended_at IS NULL');
		is($violations, '', "write $n, $kind: all ends well");
	}
}
cmp_ok($n, '>', 30, 'there were many writes');
cmp_ok($faults{$_} // 0, '>', 0, "faults: $_") for @wanted ? @wanted : qw(error session server);
diag(join(', ', map { "$faults{$_} $_" } sort keys %faults));

$node->stop;
done_testing();
