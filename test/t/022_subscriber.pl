# A trigger on the subscriber of a logical replication emits to handlers, starts
# sagas and looks keys up.  Its process has few places left for those who want to know of
# changed relations, and ends when there is none: all of ours need one.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use MealPlannerCluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = MealPlannerCluster->start('subscriber', conf => "wal_level = logical\nmax_wal_senders = 4\nmax_replication_slots = 4\n");

$node->safe_psql('postgres', 'CREATE DATABASE source');
$node->safe_psql('source', <<'EOS');
CREATE TABLE fact (n int PRIMARY KEY);
CREATE PUBLICATION facts FOR TABLE fact;
SELECT pg_create_logical_replication_slot('facts', 'pgoutput');
EOS
$node->safe_psql('postgres', <<'EOS');
CREATE TABLE fact (n int PRIMARY KEY) PARTITION BY LIST (n);
CREATE TABLE fact_of_any PARTITION OF fact DEFAULT;
CREATE TABLE handled (n int);
CREATE FUNCTION on_fact(e meal_planner.event) RETURNS void LANGUAGE sql AS 'INSERT INTO public.handled VALUES ((e.detail ->> $$n$$)::int)';
SELECT mp_subscribe('fact', '{"detail-type": ["Fact"]}', 'on_fact(meal_planner.event)');
CREATE FUNCTION did(s jsonb) RETURNS void LANGUAGE sql AS '';
SELECT mp_define_saga('s', '{"steps": [{"name": "a", "kind": "pivot", "run": "did(jsonb)"}]}');
CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    PERFORM pg_filenode_relation(0, pg_relation_filenode('fact_of_any'));
    PERFORM mp_emit_event('Fact', to_jsonb(NEW));
    PERFORM mp_start_saga('s', to_jsonb(NEW));
    IF NOT mp_check_processed(NEW.n::text, 'fact') THEN
        PERFORM mp_mark_processed(NEW.n::text, 'fact');
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER tell AFTER INSERT ON fact_of_any FOR EACH ROW EXECUTE FUNCTION tell();
ALTER TABLE fact_of_any ENABLE ALWAYS TRIGGER tell;
EOS
$node->safe_psql('postgres', sprintf(
	"CREATE SUBSCRIPTION facts CONNECTION \$\$%s\$\$ PUBLICATION facts WITH (create_slot = false, slot_name = facts, copy_data = false)",
	$node->connstr('source')));
$node->safe_psql('source', 'INSERT INTO fact SELECT generate_series(1, 5)');
# for which it takes one more place
$node->safe_psql('source', 'UPDATE fact SET n = n + 10');
ok(MealPlannerCluster::wait_until(sub { $node->safe_psql('postgres', 'SELECT min(n) FROM fact') eq 11 }, 60), 'rows have come');
$node->safe_psql('postgres', 'CALL mp_sweep()');
is($node->safe_psql('postgres', q{
	SELECT (SELECT count(*) FROM meal_planner.event WHERE detail_type = 'Fact'), (SELECT count(*) FROM handled),
	       (SELECT count(*) FROM meal_planner.saga WHERE state = 'completed'),
	       (SELECT bool_and(mp_check_processed((n - 10)::text, 'fact')) FROM fact)}), '5|5|5|t', 'and with them events, which are handled, sagas and keys');
unlike(slurp_file($node->logfile), qr/out of relcache_callback_list slots/, 'there was a place');
$node->safe_psql('postgres', 'DROP SUBSCRIPTION facts');
$node->stop;

done_testing();
