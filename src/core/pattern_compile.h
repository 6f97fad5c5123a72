/*
 * pattern_compile.h
 *		What the two halves of the pattern compiler share.  Private to
 *		pattern_compile.c and pattern_matcher.c.
 *
 * A function that returns false has filled the error in.
 */
#ifndef MP_PATTERN_COMPILE_H
#define MP_PATTERN_COMPILE_H

#include "pattern_internal.h"

/*
 * Where the compiler is, as a list from the innermost step outwards; a step is
 * a member's key, or an element's index where the key is NULL.
 */
typedef struct MpPlace
{
	const struct MpPlace *outer;
	const char *key;
	size_t		key_len;
	size_t		index;
} MpPlace;

typedef struct MpCompiler
{
	const MpJsonReader *reader;
	MpArena    *arena;
	MpPatternError *error;
} MpCompiler;

/* pattern_compile.c */
extern void *mp_compiler_alloc(const MpCompiler *c, size_t count, size_t size);
extern MpBytes mp_compiler_copy(const MpCompiler *c, const char *text, size_t len);
extern size_t mp_compiler_count(const MpCompiler *c, const MpJson *container);
extern bool mp_compiler_fail(const MpCompiler *c, const MpPlace *place,
							 const char *message);
extern bool mp_key_is(const char *key, size_t len, const char *name);

/* pattern_matcher.c */
extern bool mp_is_matcher_name(const char *key, size_t len);
extern bool mp_compile_test(const MpCompiler *c, const MpJson *value,
							const MpPlace *place, MpTest *test);

#endif							/* MP_PATTERN_COMPILE_H */
