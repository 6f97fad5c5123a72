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

# steps_per_second SINCE UNTIL: 3 for each saga; epochs
steps_per_second() { awk -v since="$1" -v until="$2" -v steps="$((3 * sagas))" 'BEGIN { print steps / (until - since) }'; }

# ours_saga MIDDLE-STEP: the saga, whose second step is that
ours_saga() {
	value -c "SELECT mp_define_saga('bench', '{\"steps\": [
		{\"name\": \"reserve\", \"kind\": \"compensatable\", \"run\": \"saga_write(jsonb)\", \"undo\": \"saga_unwrite(jsonb)\"},
		{\"name\": \"pay\", \"kind\": \"compensatable\", $1},
		{\"name\": \"book\", \"kind\": \"pivot\", \"run\": \"saga_write(jsonb)\"}]}')" > /dev/null
}
saga_in_database='"run": "saga_write(jsonb)", "undo": "saga_unwrite(jsonb)"'
saga_with_service='"service": "payments", "undo_service": "payments", "timeout_seconds": 300'

# ours_sagas_waiting SWEEPS: all started before, then so many sweeps
ours_sagas_waiting() {
	local since i
	ours_saga "$saga_in_database"
	value -c "SELECT count(mp_start_saga('bench', jsonb_build_object('n', n))) FROM generate_series(1, $sagas) n" > /dev/null
	settle
	since=$EPOCHREALTIME
	for ((i = 0; i < $1; i++)); do
		sql -c 'CALL mp_sweep()' &
	done
	wait
	steps_per_second "$since" "$EPOCHREALTIME"
}

# ours_sagas_started CLIENTS: one started in a transaction, while a sweep is there
ours_sagas_started() {
	local since
	ours_saga "$saga_in_database"
	echo "SELECT mp_start_saga('bench', '{\"n\": 1}');" > "$output/saga.sql"
	sweep_meanwhile
	since=$EPOCHREALTIME
	pgbench -n -M prepared -c "$1" -j 2 -t $((sagas / $1)) -f "$output/saga.sql" >> "$output/log"
	sagas_have_ended
	steps_per_second "$since" "$(value -c 'SELECT extract(epoch FROM max(ended_at)) FROM meal_planner.saga')"
	sweep_no_more
}

# ours_sagas_serviced CLIENTS: the second step is a service's: so many clients
# claim a hundred, commit, and complete them, while a sweep is there
ours_sagas_serviced() {
	local since i
	ours_saga "$saga_with_service"
	value -c "SELECT count(mp_start_saga('bench', jsonb_build_object('n', n))) FROM generate_series(1, $sagas) n" > /dev/null
	settle
	since=$EPOCHREALTIME
	sweep_meanwhile
	{
		echo "events array: SELECT token FROM mp_claim_saga_steps('payments', 100)"
		echo "run: SELECT count(mp_complete_saga_step(t, '{\"wrote\": \"pay\"}')) FROM unnest(\$1::uuid[]) t"
	} > "$output/consume.script"
	consume "$output/consume.script" "$1" "$((seconds * 12))" "$sagas" > /dev/null
	sagas_have_ended
	steps_per_second "$since" "$(value -c 'SELECT extract(epoch FROM max(ended_at)) FROM meal_planner.saga')"
	sweep_no_more
}
ours_sagas_done() { value -c "SELECT count(*) FROM meal_planner.saga WHERE state = 'completed'"; }

sweep_meanwhile() { psql -X -q -c 'CALL mp_sweep(3600)' > /dev/null 2>&1 & }
sagas_have_ended() {
	while [ "$(value -c 'SELECT count(*) FROM meal_planner.saga WHERE ended_at IS NULL')" != 0 ]; do
		sleep 0.2
	done
}
sweep_no_more() {
	value -c "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query = 'CALL mp_sweep(3600)'" > /dev/null
	wait
}
