/*
 * Every difference between server versions 14 to 18 that the sources meet.
 *
 * Wrappers carry the newest server's meaning; the branch for an older server
 * adapts.  No other file asks for PG_VERSION_NUM.
 */
#ifndef MP_PGCOMPAT_H
#define MP_PGCOMPAT_H

#include "catalog/pg_authid.h"
#include "catalog/pg_proc.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/lock.h"
#include "storage/proc.h"
#include "utils/acl.h"
#include "utils/guc.h"

/* 16 moved the layout of variable-length values out of postgres.h. */
#if PG_VERSION_NUM >= 160000
#include "varatt.h"
#endif

/* 16 replaced the per-catalog permission checks by one. */
#if PG_VERSION_NUM >= 160000
#define mp_may_execute(function, role) \
	(object_aclcheck(ProcedureRelationId, (function), (role), ACL_EXECUTE) == ACLCHECK_OK)
#else
#define mp_may_execute(function, role) \
	(pg_proc_aclcheck((function), (role), ACL_EXECUTE) == ACLCHECK_OK)
#endif

/* 17 numbers backends from 0 and dropped BackendId. */
#if PG_VERSION_NUM >= 170000
#define MP_BACKEND_INDEX() ((int) MyProcNumber)
#else
#define MP_BACKEND_INDEX() (MyBackendId - 1)
#endif

/* 17 asks whether a stronger lock will do as well. */
#if PG_VERSION_NUM >= 170000
#define mp_lock_held(tag, mode) LockHeldByMe((tag), (mode), false)
#else
#define mp_lock_held(tag, mode) LockHeldByMe((tag), (mode))
#endif

/* 16 can leave out indexes that a new version of a row does not need. */
#if PG_VERSION_NUM >= 160000
#define mp_insert_index_tuples(target, slot, estate) \
	ExecInsertIndexTuples((target), (slot), (estate), false, false, NULL, NIL, false)
#else
#define mp_insert_index_tuples(target, slot, estate) \
	ExecInsertIndexTuples((target), (slot), (estate), false, false, NULL, NIL)
#endif

/* 15 introduced the request hook; 14 asks from _PG_init itself. */
#if PG_VERSION_NUM >= 150000
#define MP_HAVE_SHMEM_REQUEST_HOOK 1
#define mp_max_backends() MaxBackends
#else
/* MaxBackends is not computed yet when 14 runs _PG_init. */
#include "postmaster/autovacuum.h"
#include "postmaster/bgworker_internals.h"
#include "replication/walsender.h"
#define mp_max_backends() \
	(MaxConnections + autovacuum_max_workers + 1 + max_worker_processes + max_wal_senders)
#endif

/* 15 reserves a prefix of settings; 14 only warns of unknown ones. */
#if PG_VERSION_NUM < 150000
#define MarkGUCPrefixReserved(prefix) EmitWarningsOnPlaceholders(prefix)
#endif

/* 18 keeps the plans of functions in SQL. */
#define MP_SQL_BODIES_ARE_PLANNED_EACH_TIME (PG_VERSION_NUM < 180000)

/* 18 names the module and its version. */
#if PG_VERSION_NUM >= 180000
#define MP_MODULE_MAGIC PG_MODULE_MAGIC_EXT(.name = "meal_planner", .version = "1.0")
#else
#define MP_MODULE_MAGIC PG_MODULE_MAGIC
#endif

#endif							/* MP_PGCOMPAT_H */
