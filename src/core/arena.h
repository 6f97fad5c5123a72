/*
 * arena.h
 *		The one way the pure core allocates memory.
 *
 * Everything a function of the core keeps is taken from the caller's arena and
 * is freed with it as a whole.  In the server that is a memory context, in
 * tests a list of malloc'd blocks.  alloc never returns NULL: it leaves by the
 * caller's own means (ereport, abort) when memory runs out.  The memory it
 * returns is aligned for any type and is not zeroed.
 */
#ifndef MP_ARENA_H
#define MP_ARENA_H

#include <stddef.h>

typedef struct MpArena
{
	void	   *(*alloc) (void *context, size_t size);
	void	   *context;
} MpArena;

#endif							/* MP_ARENA_H */
