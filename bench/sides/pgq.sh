# shellcheck shell=bash disable=SC2154
# PgQ.  Its ticker is called after every thousand events, so that a batch has a
# thousand.

pgq_setup() {
	sql -c 'SET client_min_messages = warning' -c 'CREATE EXTENSION pgq'
	value -c "SELECT pgq.create_queue('bench')" -c "SELECT pgq.set_queue_config('bench', 'ticker_max_lag', '0')" \
		-c "SELECT pgq.register_consumer('bench', 'consumer')"
}
pgq_emit_sql() { echo "SELECT pgq.insert_event('bench', 'RecipeCreated', '$1');"; }
pgq_put() {
	echo "SELECT count(pgq.insert_event('bench', e ->> 'DetailType', e ->> 'Detail')) FROM $1, jsonb_array_elements(entries) e"
}
pgq_put_sql() { echo "$(pgq_put batch);"; }

# A tick is a transaction of its own after the events'.
pgq_fill() {
	sql -c "CREATE PROCEDURE fill_and_tick(n int) LANGUAGE plpgsql AS \$\$
		BEGIN
			FOR i IN 1..n LOOP
				EXECUTE \$put\$$(pgq_put batch)\$put\$;
				COMMIT;
				PERFORM pgq.ticker('bench');
				COMMIT;
			END LOOP;
		END \$\$" -c "CALL fill_and_tick($(($1 / 1000)))"
}
pgq_steps() {
	echo "run: BEGIN"
	echo "first: SELECT pgq.next_batch('bench', 'consumer')"
	echo "events: SELECT * FROM pgq.get_batch_events(\$1)"
	echo "run: SELECT pgq.finish_batch(\$1)"
	echo "run: COMMIT"
}

# One consumer is one session: the others of CLIENTS would only wait.
pgq_drain() {
	pgq_steps > "$output/consume.script"
	drain_by_script 1
}

# The same by a consumer in the server: events are read there, and not sent.
pgq_inside_setup() { pgq_setup; }
pgq_inside_fill() { pgq_fill "$@"; }
pgq_inside_drain() {
	pgq_steps | sed 's/^events: SELECT \*/number: SELECT count(ev_data)/' > "$output/consume.script"
	drain_by_script 1
}

pgq_cycle() {
	{
		echo "put: $(pgq_put batch)"
		echo "put: SELECT pgq.ticker('bench')"
		pgq_steps
	} > "$output/consume.script"
	consume "$output/consume.script" 1 "$3"
}
pgq_work() { echo -; }
