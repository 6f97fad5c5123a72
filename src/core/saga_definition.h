/*
 * saga_definition.h
 *		What the parts of the compiler of saga definitions share.
 */
#ifndef MP_SAGA_DEFINITION_H
#define MP_SAGA_DEFINITION_H

#include "core/saga.h"

/* A text from outside, fit to be part of a message. */
typedef struct MpSagaQuote
{
	char		text[MP_SAGA_NAME_BYTES + 4];
} MpSagaQuote;

extern MpSagaQuote mp_saga_quote(const char *text, size_t len);

/*
 * Fills in the error and returns false.  `step` is an index, -1 for what is not
 * about a step; without a name the step is shown by its number.
 */
extern bool mp_saga_refuse(MpSagaError *error, int step, const char *name, const char *format,...)
			__attribute__((format(printf, 4, 5)));

/*
 * Closes the sets before and behind over the steps' after; false when they run
 * in a circle.
 */
extern bool mp_saga_order(MpSagaStep *steps, int count, MpSagaError *error);

/*
 * Finds the pivot and fills in the sets of the definition; false when kinds,
 * places and undos do not go together.  The sets of the steps are closed.
 */
extern bool mp_saga_check_kinds(MpSagaDefinition *definition, MpSagaError *error);

/* Is it the template of a lock? */
extern bool mp_saga_check_lock(const char *template, size_t len, MpSagaError *error);

#endif							/* MP_SAGA_DEFINITION_H */
