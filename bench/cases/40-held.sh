# shellcheck shell=bash disable=SC2154
# Another session holds a REPEATABLE READ snapshot all the time.  Each client puts
# a batch, gets a batch and finishes it; what counts is how fast it gets and
# finishes in the last sixth of the time, against the first.

for system in ours plain pgmq pgq graphile boss; do
	clients=8 batch=100 target=-
	case $system in
		ours) target=0.95 ;;
		pgq) clients=1 batch=1000 ;;
	esac
	alone held-$system "$target" "last/first" "$(called $system): last against first $((held_seconds / 6)) s of $held_seconds s under a held snapshot, $clients consumer(s)" \
		$system 1 "held $system $batch $clients"
	if [ -s "$output/held.$system" ]; then
		alone dead-$system - "dead rows" "$(called $system): dead rows for each 1,000 events after that" $system 1 "dead $system"
	fi
done
