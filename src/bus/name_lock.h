/*
 * name_lock.h
 *		Locks of the server on what is known by names.
 */
#ifndef MP_BUS_NAME_LOCK_H
#define MP_BUS_NAME_LOCK_H

#include "postgres.h"

#include "storage/lock.h"

/*
 * The lock of something in a table of the extension, by its names (text).  The
 * table stands where the catalog of an object would: no other lock looks like
 * that.  Two that share 48 bits of hash share the lock, which costs them time
 * and nothing else.
 */
extern LOCKTAG mp_lock_of_names(const char *table, const Datum *names, int count);

#endif							/* MP_BUS_NAME_LOCK_H */
