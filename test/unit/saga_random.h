/*
 * saga_random.h
 *		Random definitions of sagas, always the same for a seed.
 */
#ifndef SAGA_RANDOM_H
#define SAGA_RANDOM_H

#include <stddef.h>
#include <stdint.h>

typedef struct Random
{
	uint64_t	state;
} Random;

/* 0 .. limit - 1 */
extern int	random_below(Random *random, int limit);

/* A valid definition as JSON (with ' for ") of up to max_steps steps. */
extern void random_saga(Random *random, int max_steps, char *text, size_t size);

#endif							/* SAGA_RANDOM_H */
