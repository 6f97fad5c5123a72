# shellcheck shell=bash disable=SC2154
# message-db.  Its consumers store their position in a stream of their own.

message_db_setup() {
	local database=$peers/node_modules/@eventide/message-db/database
	DATABASE_NAME=bench CREATE_DATABASE=off PGOPTIONS="-c client_min_messages=warning" bash "$database/install.sh" < /dev/null
	sql -c 'ALTER DATABASE bench SET search_path = message_store, public'
}

# One category; every client has a stream.
message_db_emit_sql() {
	echo "SELECT write_message(gen_random_uuid()::varchar, 'recipe-' || :client_id::int, 'RecipeCreated', '$1');"
}
message_db_fill() {
	sql -c "INSERT INTO messages (id, stream_name, type, position, data)
		SELECT gen_random_uuid(), 'recipe-' || i % 100, 'RecipeCreated', i / 100, '$small' FROM generate_series(0, $1 - 1) i"
}

# The position that a batch leads to is written with it; one consumer reads all
# of a category.
message_db_drain() {
	sql -c "CREATE FUNCTION next_batch() RETURNS SETOF message LANGUAGE sql AS \$\$
		SELECT * FROM get_category_messages('recipe', coalesce((SELECT (data::jsonb ->> 'position')::bigint + 1
			FROM get_last_stream_message('consumer:position-1')), 1), $1) \$\$"
	{
		echo "events array: SELECT global_position, id, stream_name, type, position, data, time FROM next_batch()"
		echo "run: SELECT write_message(gen_random_uuid()::varchar, 'consumer:position-1', 'Read', jsonb_build_object('position', (\$1::bigint[])[cardinality(\$1::bigint[])]))"
	} > "$output/consume.script"
	drain_by_script 1
}
