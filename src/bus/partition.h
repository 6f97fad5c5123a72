/*
 * partition.h
 *		Where the rows of the log go.
 */
#ifndef MP_BUS_PARTITION_H
#define MP_BUS_PARTITION_H

#include "postgres.h"

#include "datatype/timestamp.h"

extern Size mp_partition_shmem_size(void);
extern void mp_partition_shmem_startup(void);

/*
 * Sees to it that the events of now have a partition, if that can be had soon.
 * To be called before the transaction takes a position or a lock of the log.
 * SPI is connected.
 */
extern void mp_partition_prepare(TimestampTz now);

/*
 * Where the partition in use begins, 0 when that is not known: whoever wants
 * the newest of something asks from there on first.
 */
extern int64 mp_partition_recent(void);

/*
 * To be called before rows of these positions are inserted: what has no
 * partition goes to the default one, which then stays as it is until the
 * transaction ends.  SPI is connected.
 */
extern void mp_partition_settle(int64 first, int64 last);

/*
 * The same for one row.  Returns its partition, locked as for an INSERT until
 * the transaction ends; InvalidOid: it goes through the log's own table.
 */
extern Oid	mp_partition_lock(int64 position);

#endif							/* MP_BUS_PARTITION_H */
