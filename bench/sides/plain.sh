# shellcheck shell=bash disable=SC2154
# Plain SQL: INSERT into a table, and a queue of SKIP LOCKED and DELETE.

plain_columns="account, detail_type, source, region, resources, detail, hops"

plain_setup() { sql -c "INSERT INTO plain ($plain_columns) VALUES ('local', 'Warmed', 'bench', 'us-east-1', '{}', '{}', 0)"; }
plain_emit_sql() {
	echo "INSERT INTO plain (account, id, detail_type, source, time, region, resources, detail, hops)" \
		"VALUES ('local', gen_random_uuid(), 'RecipeCreated', 'meal-planner', clock_timestamp()," \
		"'us-east-1', '{}', '$1', 0);"
}
plain_put() { # TABLE BATCH-TABLE
	echo "INSERT INTO $1 ($plain_columns) SELECT 'local', e.\"DetailType\", e.\"Source\", 'us-east-1', '{}', e.\"Detail\", 0" \
		"FROM $2, jsonb_to_recordset(entries) AS e (\"Source\" text, \"DetailType\" text, \"Detail\" jsonb)"
}
plain_put_sql() { echo "$(plain_put plain batch);"; }
plain_fill() { sql -c "CALL fill(\$\$$(plain_put plain_queue batch)\$\$, $(($1 / 1000)))"; }

# The rows are locked and deleted in one statement, and gone when the client
# commits.  ANY (ARRAY (...)) has one sensible plan, with or without statistics.
plain_steps() {
	echo "run: BEGIN"
	echo "events: DELETE FROM plain_queue WHERE position = ANY (ARRAY (SELECT position FROM plain_queue ORDER BY position" \
		"LIMIT $1 FOR UPDATE SKIP LOCKED)) RETURNING position, id, detail_type, source, time, region, resources, detail"
	echo "run: COMMIT"
}
plain_drain() {
	plain_steps "$1" > "$output/consume.script"
	drain_by_script "$2"
}
plain_cycle() {
	{
		echo "put: $(plain_put plain_queue "$(batch_of "$1")")"
		plain_steps "$1"
	} > "$output/consume.script"
	consume "$output/consume.script" "$2" "$3"
}
plain_work() { echo -; }

# COPY of the same thousand rows, from a file that the server reads
copy_setup() {
	plain_setup
	sql -c "COPY (SELECT 'local', e ->> 'DetailType', e ->> 'Source', 'us-east-1', '{}', e -> 'Detail', 0
		FROM batch, jsonb_array_elements(entries) e) TO '$output/batch.copy'"
}
copy_put_sql() { echo "COPY plain ($plain_columns) FROM '$output/batch.copy';"; }
