#include "core/retry_budget.h"

#include <math.h>

/* Sums of fractions are not exact: a token is there when it is as good as there. */
#define ALMOST	1e-6

MpBucket
mp_bucket_since(const MpRetryBudget *budget, int64_t then, int64_t now, uint64_t successes)
{
	MpBucket	bucket = {.tokens = 0, .filled_at = then, .successes = successes};

	mp_bucket_fill(budget, &bucket, now, successes);
	return bucket;
}

void
mp_bucket_fill(const MpRetryBudget *budget, MpBucket *bucket, int64_t now, uint64_t successes)
{
	/* A clock that went back brings nothing, and does not stop it for ever. */
	if (now > bucket->filled_at)
		bucket->tokens += (double) (now - bucket->filled_at) / 1e6 * budget->per_second;
	bucket->filled_at = now;
	/* a count that went back has begun anew */
	if (successes > bucket->successes)
		bucket->tokens += (double) (successes - bucket->successes) * budget->per_success;
	bucket->successes = successes;
	if (bucket->tokens > budget->burst)
		bucket->tokens = budget->burst;
}

int
mp_bucket_take(MpBucket *bucket, int wanted)
{
	double		there = floor(bucket->tokens + ALMOST);
	int			taken = there >= wanted ? wanted : (int) there;

	if (taken <= 0)
		return 0;
	bucket->tokens -= taken;
	return taken;
}

void
mp_bucket_give_back(const MpRetryBudget *budget, MpBucket *bucket, int count)
{
	bucket->tokens += count;
	if (bucket->tokens > budget->burst)
		bucket->tokens = budget->burst;
}

int64_t
mp_bucket_ready_at(const MpRetryBudget *budget, const MpBucket *bucket)
{
	if (bucket->tokens + ALMOST >= 1)
		return bucket->filled_at;
	return bucket->filled_at + (int64_t) ceil((1 - bucket->tokens) / budget->per_second * 1e6);
}
