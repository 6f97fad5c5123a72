# A test server that preloads pg_cron and meal_planner from the staged
# install, and what every TAP test does with one.
#
#   use MealPlannerCluster;
#   my $node = MealPlannerCluster->start('main');            # database postgres, both extensions
#   my $node = MealPlannerCluster->create('main', conf => "meal_planner.node_id = 7\n");
#
# Both return a PostgreSQL::Test::Cluster; create() leaves it stopped and empty.
package MealPlannerCluster;

use strict;
use warnings;

use POSIX ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Time::HiRes qw(sleep time);

# create(name, conf => text, %init): initialised, not started.
sub create
{
	my ($class, $name, %option) = @_;
	my $conf = delete $option{conf} // '';
	my $node = PostgreSQL::Test::Cluster->new($name);

	$node->init(extra => [ '--encoding=UTF8', '--locale=C.UTF-8' ], %option);
	# The module chose socket directory and port; test/cluster.conf chooses the rest.
	$node->append_conf('postgresql.conf', $ENV{MP_CONF} . "\n" . $conf);
	return $node;
}

# start(name, ...): running, with pg_cron and meal_planner in database postgres.
sub start
{
	my ($class, $name, %option) = @_;
	my $node = $class->create($name, %option);

	$node->start;
	$node->safe_psql('postgres', 'CREATE EXTENSION pg_cron; CREATE EXTENSION meal_planner');
	return $node;
}

# wait_until(code, seconds): poll until code returns true; false when it never did.
# Waits long and proves no speed: it only ends a test that would hang.
sub wait_until
{
	my ($code, $seconds) = @_;
	my $end = time + ($seconds // $PostgreSQL::Test::Utils::timeout_default);

	while (time < $end)
	{
		my $result = $code->();
		return $result if $result;
		sleep 0.1;
	}
	return 0;
}

# sweep(node, database, ahead): one sweep with the clock `ahead` seconds ahead.
sub sweep
{
	my ($node, $database, $ahead) = @_;

	$node->safe_psql($database, sprintf('SET meal_planner.clock_offset = %d; CALL mp_sweep()', $ahead // 0));
	return;
}

# sweep_until_idle(node, database, from): sweep, with the clock ever further
# ahead, until nothing is scheduled or running any more.
sub sweep_until_idle
{
	my ($node, $database, $from) = @_;

	$from //= 0;
	for (my $ahead = $from; $ahead <= $from + 600; $ahead += 40)
	{
		sweep($node, $database, $ahead);
		return 1
		  if $node->safe_psql($database,
			'SELECT NOT EXISTS (TABLE meal_planner.delivery) AND NOT EXISTS (TABLE meal_planner.worker_batch)') eq 't';
	}
	return 0;
}

# run_script(node, script, output, psql-argument...): psql in the background, to its
# end or to its first error; returns its process.
sub run_script
{
	my ($node, $script, $output, @arguments) = @_;
	my $psql = $node->installed_command('psql');
	my $pid;

	# so that whoever looks finds no output of before, and no file missing
	for my $file ($output, "$output.err")
	{
		open my $new, '>', $file or die "$file: $!";
		close $new;
	}
	$pid = fork();

	die "could not fork: $!" unless defined $pid;
	if ($pid == 0)
	{
		open STDOUT, '>>', $output;
		open STDERR, '>>', "$output.err";
		exec($psql, '-X', '-q', '-A', '-t', '-v', 'ON_ERROR_STOP=1', @arguments,
			'-d', $node->connstr('postgres'), '-f', $script)
		  or POSIX::_exit(127);
	}
	return $pid;
}

# some_backend(node, condition): the process of a session that is busy with
# something like that, as soon as there is one.
sub some_backend
{
	my ($node, $condition) = @_;
	my $pid;

	wait_until(sub {
		$pid = $node->safe_psql('postgres',
			"SELECT pid FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND state = 'active' AND $condition LIMIT 1");
	}) or die "no backend with $condition";
	return $pid;
}

# start_again(node): after a kill.  The first tries may find processes of the
# killed server that have not yet noticed.
sub start_again
{
	my ($node) = @_;
	my @start = ('pg_ctl', '-w', '-s', '-D', $node->data_dir, '-l', $node->logfile, '-o',
		'--cluster-name=' . $node->name, 'start');

	wait_until(sub { PostgreSQL::Test::Utils::system_log(@start) == 0 })
	  or die 'the server did not start again';
	$node->_update_pid(1);
	return;
}

# wait_until_up(node): until it answers, after somebody has killed one of its processes.
sub wait_until_up
{
	my ($node) = @_;

	wait_until(sub { my ($status) = $node->psql('postgres', 'SELECT 1'); return defined $status && $status == 0 })
	  or die 'the server did not come back';
	return;
}

# no_panic(node): what must never stand in a log, whatever was done to the server.
sub no_panic
{
	my ($node) = @_;
	my $log = slurp_file($node->logfile);

	return $log !~ /PANIC|TRAP|terminated by signal (?!9\b)|leak(?:ed|:)/;
}

1;

