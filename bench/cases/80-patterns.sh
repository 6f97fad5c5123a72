# shellcheck shell=bash disable=SC2154
# What the patterns cost: expired keys that are purged, a circuit breaker that is
# closed.

for keys in events operations; do
	title="emit with idempotency keys, 8 clients"
	[ $keys = events ] || title="mp_mark_processed, 8 clients"
	pair purge-$keys 0.9 "calls/s" "$title, while a sweep every second purges $fill expired ones, against nobody purging" ours \
		"purged $keys no" "purged $keys yes"
done

for callers in 1 8; do
	pair breaker-call-$callers - "calls/s" "$callers caller(s) ask a closed breaker a thousand times in a statement, against a function in C that does nothing" plain \
		"asked nothing $callers" "asked breaker $callers"
	pair breaker-update-$callers - "calls/s" "$callers caller(s) ask a closed breaker, once in a transaction, against an UPDATE of one row" plain \
		"asked_once update $callers" "asked_once breaker $callers"
done
alone breaker-cost '<1000' ns "server time of asking a closed breaker, beyond that of calling a function" ours "$pairs" breaker_cost
