# shellcheck shell=bash disable=SC2154
# Sagas of three steps that write a row each, until all are completed.  DBOS runs
# a hundred at a time in one process of node.

unit="steps/s"
for commit in off on; do
	durable=
	[ $commit = off ] || durable=", synchronous_commit on"
	pair saga-$commit 5 "$unit" "$sagas sagas of 3 steps waiting: 1 sweep against 1 queue$durable" dbos \
		"sagas dbos waiting $commit" "sagas ours waiting $commit 1"
	pair saga-started-$commit - "$unit" "the same, started meanwhile: one in a transaction by 8 clients, against startWorkflow$durable" dbos \
		"sagas dbos started $commit" "sagas ours started $commit 8"
	alone saga-1-sweep-$commit 5000 "$unit" "$sagas sagas of 3 steps waiting, 1 sweep$durable" ours "$pairs" "sagas ours waiting $commit 1"
	alone saga-2-sweeps-$commit 5000 "$unit" "the same, 2 sweeps$durable" ours "$pairs" "sagas ours waiting $commit 2"
done
alone saga-service - "$unit" "the same, 1 sweep, the second step a service's: 2 clients claim and complete 100 at a time" ours "$pairs" \
	"sagas ours serviced off 2"
