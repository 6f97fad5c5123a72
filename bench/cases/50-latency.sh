# shellcheck shell=bash
# From the time in the event until its handler's effect is committed.

alone latency-p50 - ms "emit to handler's commit, a waiting worker, 200 events/s: median" ours "$pairs" "latency 50"
alone latency-p99 '<50' ms "emit to handler's commit, a waiting worker, 200 events/s: p99" ours "$pairs" "latency 99"
