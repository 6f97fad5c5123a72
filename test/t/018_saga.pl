# Sagas under crashes.  Sagas of many shapes, with failures of their own, are run
# by sweeps and workers that are killed, with the server and without it.  When
# that is over each of them ends, and what is left agrees with how it ended
# (SagaCheck.pm).
#
# Shapes and failures come from a seed (MP_SEED); when who is killed does not.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use IPC::Run;
use MealPlannerCluster;
use SagaCheck;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep);

use constant { SHAPES => 12, ROUNDS => 14, SAGAS_PER_ROUND => 18 };

my $seed = $ENV{MP_SEED} // 20261123;
srand($seed);
diag("MP_SEED=$seed");

my $node = MealPlannerCluster->start('saga', conf => <<'EOC');
restart_after_crash = on
log_statement = none
EOC

SagaCheck::setup($node);

sub q_list { return '[' . join(', ', map { "\"$_\"" } @_) . ']'; }

# A shape: layers of steps, each behind all of the layer before; then mostly a
# pivot, perhaps a step beside it, and steps that follow.
my $retry = '{"max_attempts": 12, "base_delay": 0.01, "max_delay": 0.1}';
my @steps_of;

sub step
{
	my ($name, $kind, $outside, $undo, @after) = @_;
	my $run = $outside ? '"service": "svc"' : '"run": "act(jsonb)"';
	my $back = !$undo ? '' : $outside ? ', "undo_service": "svc"' : ', "undo": "act(jsonb)"';
	my $policy = $undo ? qq{, "undo_retry": $retry} : '';

	return sprintf '{"name": "%s", "kind": "%s", %s%s, "after": %s, "retry": %s%s}', $name, $kind, $run, $back, q_list(@after), $retry, $policy;
}

for my $shape (0 .. SHAPES - 1)
{
	my @steps;
	my @names;
	my @before;
	my $n = 0;

	for (1 .. 1 + int rand 3)
	{
		my @layer = map { 's' . $n++ } 1 .. 1 + int rand 3;

		for my $name (@layer)
		{
			my $kind = rand() < 0.8 ? 'compensatable' : 'read_only';
			push @steps, step($name, $kind, rand() < 0.4, $kind eq 'compensatable', @before);
		}
		@before = @layer;
		push @names, @layer;
	}
	if ($shape % 4 != 3)
	{
		my $outside = rand() < 0.4;
		push @steps, step('pivot', 'pivot', $outside, $outside, @before);
		push @steps, step('beside', 'retriable', 1, 1, @before) if rand() < 0.4;
		push @names, 'pivot', $steps[-1] =~ /beside/ ? 'beside' : ();
		for my $name (map { "r$_" } 1 .. int rand 3)
		{
			push @steps, step($name, 'retriable', rand() < 0.4, 0, 'pivot');
			push @names, $name;
		}
	}
	$node->safe_psql('postgres', sprintf(q{SELECT mp_define_saga('shape %d', '{"steps": [%s], "on_completed": {"emit": "Done"}, "on_compensated": {"emit": "Undone"}}')},
		$shape, join(', ', @steps)));
	$steps_of[$shape] = \@names;
}

# What goes wrong with one saga.
sub failures_of
{
	my ($shape) = @_;
	my %plan;

	for my $step (@{ $steps_of[$shape] })
	{
		my $dice = rand;

		if ($dice < 0.15) { $plan{$step} = sprintf '{"fails": %d, "sqlstate": "MPT01"}', 1 + int rand 3 }
		elsif ($dice < 0.22) { $plan{$step} = '{"fails": 100, "sqlstate": "P0001"}' }
		elsif ($dice < 0.25) { $plan{$step} = '{"dies": 1}' }
		elsif ($dice < 0.32) { $plan{$step} = sprintf '{"silent": %d}', 1 + int rand 2 }
		$plan{"$step!"} = sprintf '{"fails": %d, "sqlstate": "MPT01", "silent": %d}', int rand 3, int rand 2 if rand() < 0.2;
	}
	return '{' . join(', ', map { "\"$_\": $plan{$_}" } sort keys %plan) . '}';
}

# Sweeps and workers, until they are told to stop; what they say is of no interest.
my $dir = PostgreSQL::Test::Utils::tempdir;
my $stop = "$dir/stop";
my $psql = $node->installed_command('psql');
my $connection = $node->connstr('postgres');
my @crew = map
{
	IPC::Run::start([ 'bash', '-c', "while [ ! -e '$stop' ]; do '$psql' -X -q -d \"$connection\" -c \"$_\" || true; sleep 0.02; done" ],
		'<', \undef, '>', '/dev/null', '2>&1')
} ('CALL mp_sweep(1)', 'CALL mp_sweep(1)', 'CALL work(20)', 'CALL work(20)');

my $started = 0;
my %killed = (session => 0, process => 0, server => 0);
for my $round (1 .. ROUNDS)
{
	my @starts = map { my $shape = int rand SHAPES; sprintf(q{SELECT mp_start_saga('shape %d', '{"plan": %s}', 'saga %d');}, $shape, failures_of($shape), $started++) } 1 .. SAGAS_PER_ROUND;

	# with the same keys until they are there
	ok(MealPlannerCluster::wait_until(sub { my ($status) = $node->psql('postgres', join("\n", @starts)); return defined $status && $status == 0 }), "round $round: sagas are started");
	sleep 0.3 + rand 0.5;
	if ($round % 7 == 0)
	{
		$node->stop('immediate');
		$node->start;
		$killed{server}++;
	}
	else
	{
		my ($status, $pids) = $node->psql('postgres', "SELECT pid FROM pg_stat_activity WHERE query ~ 'mp_sweep|work' AND pid <> pg_backend_pid() ORDER BY random() LIMIT 2");
		for my $pid (split /\n/, $pids // '')
		{
			if ($round % 3 == 0) { kill 9, $pid; $killed{process}++; last }
			$node->psql('postgres', "SELECT pg_terminate_backend($pid)");
			$killed{session}++;
		}
	}
	MealPlannerCluster::wait_until_up($node);
}
cmp_ok($killed{$_}, '>', 0, "some were killed: $_") for sort keys %killed;

# It calms down.  What is stuck has an alert; it is tried again until it has ended.
my $quiet = MealPlannerCluster::wait_until(sub {
	$node->psql('postgres', <<'EOS');
SELECT mp_retry_saga(id) FROM meal_planner.saga WHERE state = 'stuck' AND EXISTS (SELECT FROM meal_planner.alert a WHERE a.saga_id = saga.id);
EOS
	# a step that fails for good behind the pivot would do so for ever: somebody repairs it
	$node->psql('postgres', "UPDATE meal_planner.saga SET input = '{}' WHERE state = 'stuck'");
	sleep 0.5;
	my ($status, $left) = $node->psql('postgres', 'SELECT count(*) FROM meal_planner.saga WHERE ended_at IS NULL');
	return defined $left && $left eq '0';
});
open my $file, '>', $stop or die $!;
close $file;
$_->finish for @crew;
ok($quiet, 'every saga has ended') or diag($node->safe_psql('postgres', 'SELECT * FROM mp_sagas WHERE ended_at IS NULL LIMIT 5'));

is($node->safe_psql('postgres', 'SELECT count(*) FROM meal_planner.saga'), ROUNDS * SAGAS_PER_ROUND, 'each was started once');
is($node->safe_psql('postgres', "SELECT count(DISTINCT state) FROM meal_planner.saga WHERE state IN ('completed', 'compensated')"), 2, 'some were completed, and some compensated');
diag($node->safe_psql('postgres', 'SELECT string_agg(n || chr(32) || state, chr(44)) FROM (SELECT state, count(*) AS n FROM meal_planner.saga GROUP BY 1) s'));

SagaCheck::check($node, 'under crashes');
is($node->safe_psql('postgres', "SELECT count(*) FROM meal_planner.event WHERE detail_type IN ('Done', 'Undone')"), ROUNDS * SAGAS_PER_ROUND, 'and no other');
cmp_ok($node->safe_psql('postgres', "SELECT count(*) FROM meal_planner.saga_log WHERE entry IN ('crashed', 'unknown')"), '>', 0, 'some attempts crashed or were lost');

$node->stop;
done_testing();
