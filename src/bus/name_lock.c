/*
 * name_lock.c
 *		Locks of the server on what is known by names.
 */
#include "bus/name_lock.h"

#include "catalog/namespace.h"
#include "common/hashfn.h"
#include "miscadmin.h"
#include "pgcompat.h"
#include "utils/lsyscache.h"

LOCKTAG
mp_lock_of_names(const char *table, const Datum *names, int count)
{
	Oid			relation = get_relname_relid(table, get_namespace_oid("meal_planner", false));
	uint64		hash = 0;
	LOCKTAG		tag;

	for (int i = 0; i < count; i++)
	{
		text	   *name = DatumGetTextPP(names[i]);

		hash = hash_combine64(hash, hash_bytes_extended((const unsigned char *) VARDATA_ANY(name),
														VARSIZE_ANY_EXHDR(name), 0));
	}
	SET_LOCKTAG_OBJECT(tag, MyDatabaseId, relation, (uint32) (hash >> 16), (uint16) hash);
	return tag;
}
