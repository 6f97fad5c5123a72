# shellcheck shell=bash disable=SC2154
# From the time in the event until its handler's effect is committed.

rm -f "$output/latency.p50"
alone latency-p99 '<50' ms "emit to handler's commit, a waiting worker, 200 events/s: p99" ours "$pairs" latency
if [ -s "$output/latency.p50" ]; then
	alone latency-p50 - ms "the same: median" ours 1 latency_p50
fi
