# shellcheck shell=bash disable=SC2154
# pgmq, from its plain SQL file

pgmq_setup() {
	sql -c 'SET client_min_messages = warning' -f "$peers/pgmq.sql"
	value -c "SELECT pgmq.create('bench')"
}
pgmq_emit_sql() { echo "SELECT pgmq.send('bench', '$1');"; }
pgmq_put() {
	echo "SELECT count(*) FROM $1, pgmq.send_batch('bench', ARRAY (SELECT e -> 'Detail' FROM jsonb_array_elements(entries) e))"
}
pgmq_put_sql() { echo "$(pgmq_put batch);"; }
pgmq_fill() { sql -c "CALL fill(\$\$$(pgmq_put batch)\$\$, $(($1 / 1000)))"; }
pgmq_steps() {
	echo "events array: SELECT * FROM pgmq.read('bench', 30, $1)"
	echo "run: SELECT count(*) FROM pgmq.${PGMQ_DONE:-delete}('bench', \$1::bigint[])"
}

# pgmq_drain BATCH CLIENTS; pgmq_archive_drain is the same with archive()
pgmq_drain() {
	pgmq_steps "$1" > "$output/consume.script"
	drain_by_script "$2"
}
pgmq_archive_setup() { pgmq_setup; }
pgmq_archive_fill() { pgmq_fill "$@"; }
pgmq_archive_drain() { PGMQ_DONE=archive pgmq_drain "$@"; }
pgmq_cycle() {
	{
		echo "put: $(pgmq_put "$(batch_of "$1")")"
		pgmq_steps "$1"
	} > "$output/consume.script"
	consume "$output/consume.script" "$2" "$3"
}
