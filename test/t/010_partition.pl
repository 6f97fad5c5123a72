# Partitions where no sweep runs: many clients that all come first, and a server
# that has no background worker to spare.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use MealPlannerCluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = MealPlannerCluster->create('partition');

$node->start;

sub query
{
	my ($query, $database) = @_;
	return $node->safe_psql($database // 'postgres', $query);
}

my $where = <<'EOS';
SELECT count(*) FILTER (WHERE tableoid = 'meal_planner.event_default'::regclass), count(*),
       (SELECT count(*) FROM meal_planner.event_partition)
  FROM meal_planner.event
EOS

# All of them find nothing.
my $script = $node->basedir . '/emit.sql';
PostgreSQL::Test::Utils::append_to_file($script, "SELECT mp_emit_event('First', '{}', account => 'a' || :client_id);\n");
for my $database ('one', 'two', 'three')
{
	query("CREATE DATABASE $database");
	query('CREATE EXTENSION meal_planner', $database);
	is(query($where, $database), '0|0|0', "$database: empty");
	$node->command_ok([ 'pgbench', '-n', '-c', 8, '-j', 2, '-t', 10, '-f', $script, $node->connstr($database) ],
		"$database: eight clients come at once");
	is(query($where, $database), '0|80|1', "$database: one partition is made and takes all");
}

# Streams and keys as well; the first statement of each session.
query('CREATE DATABASE four');
query('CREATE EXTENSION meal_planner', 'four');
query("BEGIN; SELECT mp_emit_event('First', '{}', stream => 's', idempotency_key => 'k'); COMMIT", 'four');
is(query($where, 'four'), '0|1|1', 'a stream and a key are not in the way');

# A role that may not log in owns the log.
query('CREATE DATABASE five');
query(<<'EOS', 'five');
CREATE EXTENSION meal_planner;
CREATE ROLE cellar NOLOGIN SUPERUSER;
ALTER DATABASE five SET default_transaction_isolation = 'serializable';
ALTER DATABASE five SET default_transaction_read_only = on;
DO $$
DECLARE
    object text;
BEGIN
    FOR object IN
        SELECT format('TABLE %s', c.oid::regclass) FROM pg_class c WHERE c.relnamespace = 'meal_planner'::regnamespace AND c.relkind IN ('r', 'p')
        UNION ALL
        SELECT format('VIEW %s', c.oid::regclass) FROM pg_class c WHERE c.relnamespace = 'meal_planner'::regnamespace AND c.relkind = 'v'
        UNION ALL
        SELECT format('FUNCTION %s', p.oid::regprocedure) FROM pg_proc p WHERE p.pronamespace = 'meal_planner'::regnamespace
    LOOP
        EXECUTE format('ALTER %s OWNER TO cellar', object);
    END LOOP;
END
$$;
EOS
query("SET default_transaction_read_only = off; SELECT mp_emit_event('First', '{}')", 'five');
is(query($where, 'five'), '0|1|1', 'it is made whatever the owner and the defaults of the database are');
is(query("SELECT DISTINCT relowner::regrole FROM pg_class WHERE oid IN (SELECT partition FROM meal_planner.event_partition)", 'five'),
	'cellar', 'it belongs to the owner of the log');

# No worker is free: the two places are pg_cron's and the launcher's.
$node->append_conf('postgresql.conf', "max_worker_processes = 2\n");
$node->restart;
query('CREATE DATABASE six');
query('CREATE EXTENSION meal_planner', 'six');
query("SELECT mp_emit_event('First', '{}')", 'six') for 1 .. 3;
is(query($where, 'six'), '3|3|0', 'without a worker the default partition takes the events');
query('CALL mp_sweep()', 'six');
is(query($where, 'six'), '0|3|3', 'until a sweep comes');

ok(MealPlannerCluster::no_panic($node), 'no PANIC, no assertion, no other signal in the log');
$node->stop;
done_testing();
