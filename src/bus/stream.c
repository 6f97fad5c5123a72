/*
 * stream.c
 *		Gap-free versions of a stream.
 *
 * Writers of one stream meet at its row, which the first one makes and all
 * lock.  The lock writes no new version of the row, so that a busy stream does
 * not bloat.  Whoever holds it reads the last version from the log, with the
 * newest snapshot: an older one could hide the event of the writer before.
 * Where retention has dropped the last events of a stream it has left their
 * version in the row.
 */
#include "bus/event.h"

#include "bus/partition.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"

/* 0 when the statement before has returned no row. */
static int64
version_of_result(void)
{
	bool		isnull;

	if (SPI_tuptable == NULL || SPI_tuptable->numvals == 0)
		return 0;
	return DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
}

int64
mp_stream_lock(text *account, text *stream)
{
	static MpPlan lock = {
		.sql = "SELECT s.dropped_version FROM meal_planner.stream s"
		" WHERE s.account OPERATOR(pg_catalog.=) $1 AND s.stream OPERATOR(pg_catalog.=) $2"
		" FOR NO KEY UPDATE",
	.types = {TEXTOID, TEXTOID}};
	static MpPlan make = {
		.sql = "INSERT INTO meal_planner.stream (account, stream) VALUES ($1, $2) ON CONFLICT DO NOTHING",
	.types = {TEXTOID, TEXTOID}};
	static MpPlan last = {
		.sql = "SELECT e.version FROM meal_planner.event e"
		" WHERE e.account OPERATOR(pg_catalog.=) $1 AND e.stream OPERATOR(pg_catalog.=) $2"
		" AND e.stream IS NOT NULL"
		" ORDER BY e.account DESC, e.stream DESC, e.version DESC LIMIT 1",
	.types = {TEXTOID, TEXTOID}, .in_index_order = true};
	static MpPlan recent = {
		.sql = "SELECT e.version FROM meal_planner.event e"
		" WHERE e.account OPERATOR(pg_catalog.=) $1 AND e.stream OPERATOR(pg_catalog.=) $2"
		" AND e.stream IS NOT NULL AND e.position OPERATOR(pg_catalog.>=) $3"
		" ORDER BY e.account DESC, e.stream DESC, e.version DESC LIMIT 1",
	.types = {TEXTOID, TEXTOID, INT8OID}, .in_index_order = true};
	Datum		values[3] = {
		PointerGetDatum(account), PointerGetDatum(stream), Int64GetDatum(mp_partition_recent())
	};
	int64		dropped;
	int64		version;

	mp_plan_execute(&lock, values, NULL, 1);
	if (SPI_processed == 0)
	{
		/* Waits for another maker; afterwards the row is there to be locked. */
		mp_plan_execute(&make, values, NULL, 0);
		if (SPI_processed == 0)
			mp_plan_execute(&lock, values, NULL, 1);
	}
	dropped = version_of_result();

	/*
	 * Within a stream the order of positions is the order of versions: what is
	 * found in the newest partitions is the last one.  The others are asked
	 * only for a stream that has rested since.
	 */
	mp_plan_read_latest(&recent, values, NULL, 1);
	version = version_of_result();
	if (version == 0)
	{
		mp_plan_read_latest(&last, values, NULL, 1);
		version = version_of_result();
	}
	return Max(version, dropped);
}

/* Versions of the last events of streams, by a query that returns one row for each. */
static void
read_versions(MpPlan *plan, text *account, Datum *streams, int count, int64 *versions)
{
	Datum		values[3] = {
		PointerGetDatum(account), mp_array(streams, count, TEXTOID), Int64GetDatum(mp_partition_recent())
	};

	mp_plan_read_latest(plan, values, NULL, 0);
	for (int i = 0; i < count; i++)
	{
		bool		isnull;
		Datum		version = SPI_getbinval(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1, &isnull);

		versions[i] = isnull ? 0 : DatumGetInt64(version);
	}
}

/* Locks the rows of streams, makes those that are not there, and returns what retention left. */
static void
lock_streams(text *account, Datum *streams, int count, int64 *dropped)
{
	/*
	 * All are made before the first is locked: who waits for a maker holds no
	 * lock yet that the maker may come to want.
	 */
	static MpPlan make = {
		.sql = "INSERT INTO meal_planner.stream (account, stream)"
		" SELECT $1, u.stream FROM pg_catalog.unnest($2) AS u (stream) ON CONFLICT DO NOTHING",
	.types = {TEXTOID, TEXTARRAYOID}};
	static MpPlan lock = {
		.sql = "SELECT u.n, l.dropped_version"
		" FROM pg_catalog.unnest($2) WITH ORDINALITY AS u (stream, n), LATERAL ("
		"SELECT s.dropped_version FROM meal_planner.stream s"
		" WHERE s.account OPERATOR(pg_catalog.=) $1 AND s.stream OPERATOR(pg_catalog.=) u.stream"
		" FOR NO KEY UPDATE) l",
	.types = {TEXTOID, TEXTARRAYOID}, .in_index_order = true};
	Datum		values[2] = {PointerGetDatum(account), mp_array(streams, count, TEXTOID)};

	mp_plan_execute(&make, values, NULL, 0);
	mp_plan_execute(&lock, values, NULL, 0);
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		HeapTuple	row = SPI_tuptable->vals[i];
		bool		isnull;
		int64		n = DatumGetInt64(SPI_getbinval(row, SPI_tuptable->tupdesc, 1, &isnull));

		dropped[n - 1] = DatumGetInt64(SPI_getbinval(row, SPI_tuptable->tupdesc, 2, &isnull));
	}
}

void
mp_streams_lock(text *account, text **streams, int count, int64 *versions)
{
	static MpPlan recent = {
		.sql = "SELECT (SELECT e.version FROM meal_planner.event e"
		" WHERE e.account OPERATOR(pg_catalog.=) $1 AND e.stream OPERATOR(pg_catalog.=) u.stream"
		" AND e.stream IS NOT NULL AND e.position OPERATOR(pg_catalog.>=) $3"
		" ORDER BY e.account DESC, e.stream DESC, e.version DESC LIMIT 1)"
		" FROM pg_catalog.unnest($2) AS u (stream)",
	.types = {TEXTOID, TEXTARRAYOID, INT8OID}, .in_index_order = true};
	static MpPlan last = {
		.sql = "SELECT (SELECT e.version FROM meal_planner.event e"
		" WHERE e.account OPERATOR(pg_catalog.=) $1 AND e.stream OPERATOR(pg_catalog.=) u.stream"
		" AND e.stream IS NOT NULL"
		" ORDER BY e.account DESC, e.stream DESC, e.version DESC LIMIT 1)"
		" FROM pg_catalog.unnest($2) AS u (stream)",
	.types = {TEXTOID, TEXTARRAYOID}, .in_index_order = true};
	Datum	   *names = palloc(sizeof(Datum) * count);
	Datum	   *rested_names = palloc(sizeof(Datum) * count);
	int64	   *rested_versions = palloc(sizeof(int64) * count);
	int64	   *dropped = palloc0(sizeof(int64) * count);
	int			rested = 0;

	for (int i = 0; i < count; i++)
		names[i] = PointerGetDatum(streams[i]);
	lock_streams(account, names, count, dropped);

	/* first the newest partitions, as above */
	read_versions(&recent, account, names, count, versions);
	for (int i = 0; i < count; i++)
		if (versions[i] == 0)
			rested_names[rested++] = names[i];
	if (rested > 0)
		read_versions(&last, account, rested_names, rested, rested_versions);
	rested = 0;
	for (int i = 0; i < count; i++)
	{
		if (versions[i] == 0)
			versions[i] = rested_versions[rested++];
		versions[i] = Max(versions[i], dropped[i]);
	}
}
