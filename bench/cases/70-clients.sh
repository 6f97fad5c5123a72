# shellcheck shell=bash disable=SC2154
# For the plot against clients: one pair for each number.

for clients in 1 2 4 8 16; do
	pairs=1 pair clients-emit-$clients - "events/s" "emit, $clients clients, 300 B" plain \
		"emit plain $clients small" "emit ours $clients small"
	pairs=1 pair clients-pull-$clients - "events/s" "$clients consumers, 100 at a time: SKIP LOCKED and DELETE" plain \
		"drain plain 100 $clients" "drain ours 100 $clients"
done
