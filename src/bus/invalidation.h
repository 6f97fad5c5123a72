/*
 * invalidation.h
 *		Being told that a relation has changed.
 */
#ifndef MP_BUS_INVALIDATION_H
#define MP_BUS_INVALIDATION_H

#include "postgres.h"

/*
 * InvalidOid: any may have.  It runs whenever messages arrive, for the life of
 * the backend: no catalog access, no memory.
 */
typedef void (*MpRelationChanged) (Oid relation);

extern void mp_on_relation_change(MpRelationChanged callback);

#endif							/* MP_BUS_INVALIDATION_H */
