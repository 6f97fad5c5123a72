/*
 * Tables of keys that are remembered for a time.  Their rows lie in buckets,
 * which are partitions (core/bucket.h); a row is looked up
 * in all of them, whatever it is said to be kept for.
 */
#ifndef MP_BUS_BUCKET_H
#define MP_BUS_BUCKET_H

#include "postgres.h"

#include "access/htup.h"
#include "core/bucket.h"
#include "datatype/timestamp.h"
#include "utils/relcache.h"
#include "utils/snapshot.h"

#define MP_BUCKET_INDEXES	2

/* An index of every bucket, and how its columns are compared. */
typedef struct MpBucketIndex
{
	int			count;
	const char *column[3];
	RegProcedure equal;
} MpBucketIndex;

typedef struct MpBucket
{
	int			number;
	Oid			relation;
	Oid			index[MP_BUCKET_INDEXES];
} MpBucket;

/* A static variable of who looks up in the table; the first part is given. */
typedef struct MpBucketTable
{
	const char *name;
	int			count;			/* of the buckets */
	MpBucketIndex index[MP_BUCKET_INDEXES];

	/* what is known of it: bucket.c */
	bool		known;
	bool		changed;		/* since one began to get to know it */
	bool		plain;
	bool		whole;
	Oid			relation;
	Oid			row_type;
	AttrNumber	column[MP_BUCKET_INDEXES][3];
	AttrNumber	expires_at;
	MpBucket	bucket[MP_OPERATION_BUCKETS];
	struct MpBucketTable *next;
} MpBucketTable;

/* Whether the table is as the extension makes it, so that its buckets can be visited. */
extern bool mp_buckets_are_plain(MpBucketTable *table);

/*
 * Whether, besides, they hold all there is: Citus hides a distributed table
 * behind one that looks like any other, and is empty.
 */
extern bool mp_buckets_are_whole(MpBucketTable *table);

/* What is done in a bucket, which is open; false: it was the last. */
typedef bool (*MpBucketVisit) (const MpBucketTable *table, const MpBucket *bucket, Relation relation, void *arg);

/*
 * Visits the buckets that have a page: one that had none after a snapshot was
 * taken has nothing that the snapshot shows.  False: the tables were changed
 * meanwhile and cannot be visited any more.
 */
extern bool mp_visit_buckets(MpBucketTable *table, MpBucketVisit visit, void *arg);

/*
 * A copy of the row of a bucket with these values in the columns of an index
 * that expires after the moment, NULL when there is none.
 */
extern HeapTuple mp_find_in_bucket(const MpBucketTable *table, const MpBucket *bucket, Relation relation,
								   int index, const Datum *values, TimestampTz moment, Snapshot snapshot);

#endif							/* MP_BUS_BUCKET_H */
