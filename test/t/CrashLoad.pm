# What the tests share that kill a server under load: clients that run in the
# background and say what they do, and what they do.
package CrashLoad;

use strict;
use warnings;

use MealPlannerCluster;
use PostgreSQL::Test::Utils;

# drain_procedure(): SQL for one consumer of everything, when all is quiet.  The
# test has claim(subscription, consumer, lease, wait), fail(token) and
# take_effect(token).
sub drain_procedure
{
	return <<'EOS';
CREATE PROCEDURE drain() LANGUAGE plpgsql AS $$
DECLARE
    name    text;
    claimed uuid;
BEGIN
    FOREACH name IN ARRAY '{pull,ledger}'::text[] LOOP
        LOOP
            claimed := claim(name, 'drain', 10, 0);
            EXIT WHEN claimed IS NULL;
            COMMIT;
            PERFORM fail(claimed), take_effect(claimed), mp_ack(claimed);
            COMMIT;
        END LOOP;
    END LOOP;
END
$$;
EOS
}

# Steps of an emitter, for psql: each is announced before and acknowledged after.
# emit(n, name) is the statement that emits event n and keeps its id under name.
sub emit_one
{
	my ($n, $emit) = @_;
	return sprintf "\\echo try %d\n%s\n\\echo ack %d :a\n", $n, $emit->($n, 'a'), $n;
}

# Events n and n + 1 in one transaction, with a statement in between.
sub emit_two
{
	my ($n, $emit, $between) = @_;
	return sprintf "\\echo try %d\n\\echo try %d\nBEGIN;\n%s\n%s%s\nCOMMIT;\n\\echo ack %d :a\n\\echo ack %d :b\n",
	  $n, $n + 1, $emit->($n, 'a'), $between // '', $emit->($n + 1, 'b'), $n, $n + 1;
}

sub emit_and_roll_back
{
	my ($n, $emit) = @_;
	return sprintf "\\echo undo %d\nBEGIN;\n%s\nROLLBACK;\n", $n, $emit->($n, 'a');
}

# start_client(node, dir, name, script, psql-argument...): what it says is in
# dir/name.out, its errors in dir/name.out.err; returns its process.
sub start_client
{
	my ($node, $dir, $name, $script, @arguments) = @_;

	open my $out, '>', "$dir/$name.sql" or die $!;
	print $out $script;
	close $out;
	return MealPlannerCluster::run_script($node, "$dir/$name.sql", "$dir/$name.out", @arguments);
}

# wait_for_progress(dir, code): until code says that the clients have done enough.
sub wait_for_progress
{
	my ($dir, $code) = @_;

	MealPlannerCluster::wait_until($code)
	  or die 'no progress: ' . join "\n", map { "$_: " . slurp_file($_) } glob "$dir/*.out.err";
	return;
}

# is_idle(node): nothing waits for a handler or a consumer, and none has anything.
sub is_idle
{
	my ($node) = @_;

	return $node->safe_psql('postgres', <<'EOS') eq 't';
SELECT NOT EXISTS (TABLE meal_planner.delivery) AND NOT EXISTS (TABLE meal_planner.worker_batch)
   AND NOT EXISTS (TABLE meal_planner.consumer_claim)
EOS
}

1;
