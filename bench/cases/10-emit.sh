# shellcheck shell=bash disable=SC2154
# One event in a transaction.  synchronous_commit is off where nothing is said:
# what the disk costs is the same for everybody and would hide the rest.

unit="events/s"
for clients in 2 8; do
	pair emit-$clients-300B 1.1 "$unit" "emit, $clients clients, 300 B" plain \
		"emit plain $clients small" "emit ours $clients small"
	pair emit-$clients-2KB 1.1 "$unit" "emit, $clients clients, 2 KB" plain \
		"emit plain $clients large" "emit ours $clients large"
done
pair emit-durable - "$unit" "emit, 8 clients, 300 B, synchronous_commit on" plain \
	"emit plain 8 small on" "emit ours 8 small on"
pair emit-pgq 1.05 "$unit" "emit, 8 clients, 300 B" pgq "emit pgq 8 small" "emit ours 8 small"
pair emit-pgmq - "$unit" "emit, 8 clients, 300 B" pgmq "emit pgmq 8 small" "emit ours 8 small"
pair emit-message_db - "$unit" "emit, 8 clients, 300 B" message_db "emit message_db 8 small" "emit ours 8 small"
pair emit-graphile - "$unit" "emit, 8 clients, 300 B" graphile "emit graphile 8 small" "emit ours 8 small"
pair emit-boss - "$unit" "emit, 8 clients, 300 B (its send() in node)" boss "boss_send 8" "emit ours 8 small"

pair put-insert 1.0 "$unit" "1,000 events in a transaction, 1 client: INSERT ... SELECT from jsonb" plain "put plain" "put ours"
pair put-copy - "$unit" "the same, COPY from a file" copy "put copy" "put ours"
pair put-pgq - "$unit" "the same" pgq "put pgq" "put ours"
pair put-pgmq - "$unit" "the same, send_batch" pgmq "put pgmq" "put ours"
