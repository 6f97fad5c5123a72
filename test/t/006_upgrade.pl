# Versions.  For every released version there is a way to the present one, and
# what it leads to is what a fresh install gives, object by object.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use MealPlannerCluster;
use PostgreSQL::Test::Utils;
use Test::More;

# Released versions, the present one last.
my @versions = ('1.0');

my $node = MealPlannerCluster->start('upgrade');

# Everything that makes the extension: its members with their definitions,
# privileges and comments, and its configuration tables.
my $catalog = <<'EOS';
SET search_path = pg_catalog;
WITH member AS (
    SELECT d.classid, d.objid, o.type, o.identity
      FROM pg_depend d
      JOIN pg_extension x ON x.oid = d.refobjid AND x.extname = 'meal_planner',
           LATERAL pg_identify_object(d.classid, d.objid, 0) o
     WHERE d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e')
SELECT m.type, m.identity,
       CASE m.classid
            WHEN 'pg_proc'::regclass THEN
                 (SELECT pg_get_functiondef(p.oid) || coalesce(p.proacl::text, '') FROM pg_proc p
                   WHERE p.oid = m.objid AND p.prokind <> 'a')
            WHEN 'pg_class'::regclass THEN
                 (SELECT concat_ws(E'\n', c.relkind, c.relpersistence, c.reloptions::text, c.relacl::text,
                                   CASE c.relkind WHEN 'v' THEN pg_get_viewdef(c.oid) END,
                                   (SELECT string_agg(concat_ws(' ', a.attname, format_type(a.atttypid, a.atttypmod),
                                                                a.attnotnull, pg_get_expr(f.adbin, f.adrelid), a.attacl,
                                                                col_description(c.oid, a.attnum)), E'\n' ORDER BY a.attname)
                                      FROM pg_attribute a
                                      LEFT JOIN pg_attrdef f ON f.adrelid = a.attrelid AND f.adnum = a.attnum
                                     WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped),
                                   (SELECT string_agg(concat_ws(' ', k.conname, pg_get_constraintdef(k.oid)), E'\n' ORDER BY k.conname)
                                      FROM pg_constraint k WHERE k.conrelid = c.oid),
                                   (SELECT string_agg(pg_get_indexdef(i.indexrelid), E'\n' ORDER BY i.indexrelid::regclass::text)
                                      FROM pg_index i WHERE i.indrelid = c.oid),
                                   (SELECT string_agg(pg_get_triggerdef(t.oid), E'\n' ORDER BY t.tgname)
                                      FROM pg_trigger t WHERE t.tgrelid = c.oid AND NOT t.tgisinternal))
                    FROM pg_class c WHERE c.oid = m.objid)
       END,
       obj_description(m.objid, m.classid::regclass::name)
  FROM member m
 ORDER BY m.type, m.identity;
SELECT c.table_oid::regclass, c.condition
  FROM pg_extension x, LATERAL unnest(x.extconfig, x.extcondition) c (table_oid, condition)
 WHERE x.extname = 'meal_planner' ORDER BY 1;
SELECT name, pattern, mode, handler, owner, handler_path, options, start_position, builtin FROM meal_planner.subscription ORDER BY 1;
SELECT * FROM meal_planner.error_class ORDER BY 1, 2;
EOS

sub catalog_of
{
	my ($database) = @_;
	return $node->safe_psql($database, $catalog);
}

# The server's own view of available versions looks in its directory alone.
my $directory = "$ENV{MP_STAGE}" . $node->config_data('--sharedir') . '/extension';
is(join(' ', sort map { /meal_planner--([^-]+)\.sql$/ ? $1 : () } glob "$directory/meal_planner--*.sql"), join(' ', sort @versions),
	'the versions that can be installed are those that were released');
is($node->safe_psql('postgres', <<'EOS'), join("\n", map { "$versions[$_]|$versions[$_ + 1]" } 0 .. $#versions - 1), 'each has one step to the next, and there is no other');
SELECT source, target FROM pg_extension_update_paths('meal_planner')
 WHERE path = source || '--' || target ORDER BY source, target
EOS
is($node->safe_psql('postgres', "SELECT extversion FROM pg_extension WHERE extname = 'meal_planner'"), $versions[-1], 'the present one is the default');

$node->safe_psql('postgres', 'CREATE DATABASE fresh');
$node->safe_psql('fresh', 'CREATE EXTENSION meal_planner');
my $fresh = catalog_of('fresh');
cmp_ok(scalar(split /\n/, $fresh), '>', 300, 'the catalog of a fresh install says something');
is(catalog_of('postgres'), $fresh, 'and two installs are equal');

# The comparison is able to see a difference.
$node->safe_psql('fresh', 'GRANT EXECUTE ON PROCEDURE mp_sweep(float8) TO PUBLIC');
isnt(catalog_of('fresh'), $fresh, 'a privilege more is seen');

for my $version (@versions)
{
	my $database = "from_$version";

	$node->safe_psql('postgres', qq(CREATE DATABASE "$database"));
	$node->safe_psql($database, "CREATE EXTENSION meal_planner VERSION '$version'; SELECT mp_emit_event('Kept', '{}'); CALL mp_sweep()");
	is($node->psql($database, 'ALTER EXTENSION meal_planner UPDATE'), 0, "update from $version");
	is($node->safe_psql($database, "SELECT extversion FROM pg_extension WHERE extname = 'meal_planner'"), $versions[-1], "from $version: it is the present version");
	is(catalog_of($database), $fresh, "from $version: equal to a fresh install");
	is($node->safe_psql($database, "SELECT count(*) FROM mp_read_events() WHERE event ->> 'detail-type' = 'Kept'"), 1, "from $version: the log is kept");
	$node->safe_psql($database, "SELECT mp_emit_event('Kept', '{}')");
	is($node->psql($database, "ALTER EXTENSION meal_planner UPDATE TO '$versions[-1]'"), 0, "from $version: updating again changes nothing");
	is(catalog_of($database), $fresh, "from $version: really nothing");
}

# It leaves nothing behind.
$node->safe_psql('fresh', 'SELECT mp_emit_event(\'A\', \'{}\'); DROP EXTENSION meal_planner CASCADE');
is($node->safe_psql('fresh', "SELECT count(*) FROM pg_proc WHERE probin LIKE '%meal_planner%'"), 0, 'DROP EXTENSION leaves no function');
is($node->safe_psql('fresh', "SELECT count(*) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = 'meal_planner'"), 0, 'and no table, no partition');
$node->safe_psql('fresh', 'CREATE EXTENSION meal_planner');
is(catalog_of('fresh'), $fresh, 'and it can be installed again');
like($node->safe_psql('fresh', "SELECT mp_emit_event('A', '{}')"), qr/^[0-9a-f-]{36}$/, 'and used');

$node->stop;
done_testing();
