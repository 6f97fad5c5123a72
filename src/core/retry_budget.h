/*
 * A bucket of tokens: how many retries there may be.
 *
 * Each retry takes a token.  Tokens come with time, and with what succeeds; of
 * more than `burst` the rest is lost.  Times are microseconds of the caller's
 * clock.
 */
#ifndef MP_CORE_RETRY_BUDGET_H
#define MP_CORE_RETRY_BUDGET_H

#include <stdbool.h>
#include <stdint.h>

typedef struct MpRetryBudget
{
	double		per_second;		/* tokens; 0: there is no budget */
	double		burst;			/* the bucket holds so many */
	double		per_success;	/* tokens for each event handled */
} MpRetryBudget;

#define MP_RETRY_BUDGET_DEFAULT ((MpRetryBudget) {.burst = 10})

typedef struct MpBucket
{
	double		tokens;
	int64_t		filled_at;
	uint64_t	successes;		/* that have been paid for */
} MpBucket;

/* A bucket that was empty then, and has filled since. */
extern MpBucket mp_bucket_since(const MpRetryBudget *budget, int64_t then, int64_t now, uint64_t successes);

/* Fills it up to now; `successes` is a count that only grows. */
extern void mp_bucket_fill(const MpRetryBudget *budget, MpBucket *bucket, int64_t now, uint64_t successes);

/* Takes up to `wanted` tokens and returns how many these are.  Fill it first. */
extern int	mp_bucket_take(MpBucket *bucket, int wanted);

/* Puts tokens back that were not needed. */
extern void mp_bucket_give_back(const MpRetryBudget *budget, MpBucket *bucket, int count);

/* When there will be a token, if nothing but time brings one: `filled_at` when there is one now. */
extern int64_t mp_bucket_ready_at(const MpRetryBudget *budget, const MpBucket *bucket);

#endif							/* MP_CORE_RETRY_BUDGET_H */
