/*
 * notice.h
 *		Telling consumers outside the server that there is something to claim.
 */
#ifndef MP_BUS_NOTICE_H
#define MP_BUS_NOTICE_H

#include "postgres.h"

#include "datatype/timestamp.h"

extern Size mp_notice_shmem_size(void);
extern void mp_notice_shmem_startup(void);

/* A sweep begins: it looks at once.  `until`: the wall clock's; 0: until nothing is due. */
extern void mp_notice_begin_sweep(TimestampTz until);

/* An event was committed, or may have been. */
extern void mp_notice_want(void);

/* When to look because of that, by the wall clock; DT_NOEND: nothing came since. */
extern TimestampTz mp_notice_next_look(void);

#endif							/* MP_BUS_NOTICE_H */
