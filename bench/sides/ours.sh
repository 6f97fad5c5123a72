# shellcheck shell=bash disable=SC2154
# meal_planner

ours_setup() {
	# the first event makes partitions; that is once a day and not measured
	value -c 'CALL mp_sweep()' -c "SELECT count(mp_emit_event('Warmed', '{}')) FROM generate_series(1, 10)"
}
ours_emit_sql() { echo "SELECT mp_emit_event('RecipeCreated', '$1');"; }
ours_put_sql() { echo "SELECT mp_put_events(entries) FROM batch;"; }

ours_fill() {
	ours_subscribe
	sql -c "CALL fill('SELECT mp_put_events(entries) FROM batch', $(($1 / 1000)))"
}
ours_subscribe() {
	value -c "SELECT mp_subscribe('bench', '{\"detail-type\":[\"RecipeCreated\"]}', mode => 'pull')" > /dev/null
}
ours_steps() {
	echo "events first: SELECT token, event_id, attempt, event FROM ${OURS_CLAIM:-mp_claim}('bench', $1)"
	echo "true: SELECT mp_ack(\$1)"
}
ours_drain() {
	ours_steps "$1" > "$output/consume.script"
	drain_by_script "$2"
}

# The same by mp_claim_json
ours_json_setup() { ours_setup; }
ours_json_fill() { ours_fill "$@"; }
ours_json_drain() { OURS_CLAIM=mp_claim_json ours_drain "$@"; }

# The same by a consumer in the server: events are read there, and not sent.
ours_inside_setup() { ours_setup; }
ours_inside_fill() { ours_fill "$@"; }
ours_inside_drain() {
	{
		echo "number first: SELECT (array_agg(token))[1], count(event) FROM mp_claim('bench', $1)"
		echo "true: SELECT mp_ack(\$1)"
	} > "$output/consume.script"
	drain_by_script "$2"
}

ours_cycle() {
	ours_subscribe
	{
		echo "put: SELECT mp_put_events(entries) FROM $(batch_of "$1")"
		ours_steps "$1"
	} > "$output/consume.script"
	consume "$output/consume.script" "$2" "$3"
}

# ours_work MILLIONS: events per second of one worker with a handler in plpgsql
# that writes a row.  Without a backlog it gets 100,000 events.
ours_work() {
	local start=earliest
	[ "$1" != 0 ] || start=latest
	value -c "SELECT mp_subscribe('work', '{\"detail-type\":[\"RecipeCreated\"]}', 'note_done(meal_planner.event)', 'worker', '{\"start\":\"$start\"}')" > /dev/null
	[ "$1" != 0 ] || sql -c "CALL fill('SELECT mp_put_events(entries) FROM batch', 100)"
	sql -c "CALL mp_sweep($seconds)"
	value -c "SELECT count(*) / extract(epoch FROM max(done_at) - min(done_at)) FROM done HAVING count(*) > 1000"
}

# batch_of N: the table that holds N events to put
batch_of() {
	case $1 in
		1000) echo batch ;;
		100) echo batch_100 ;;
		*) die "there is no batch of $1" ;;
	esac
}
