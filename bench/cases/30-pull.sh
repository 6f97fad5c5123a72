# shellcheck shell=bash disable=SC2154
# A queue of FILL events is drained; every consumer gets the payload, then says
# that it is done.

unit="events/s"
pair pull-pgq 1.0 "$unit" "1 consumer, 1,000 at a time: next_batch, get_batch_events, finish_batch" pgq \
	"drain pgq 1000 1" "drain ours 1000 1"
# What is sent: PgQ stores text and sends it, an envelope is jsonb and is written
# out.  With the text written at once, and without sending, by a consumer that
# works in the server:
pair pull-pgq-json 1.0 "$unit" "the same with mp_claim_json" pgq "drain pgq 1000 1" "drain ours_json 1000 1"
pair pull-pgq-inside - "$unit" "the same by a consumer in the server, nothing is sent" pgq \
	"drain pgq_inside 1000 1" "drain ours_inside 1000 1"
pair pull-plain-8x100 1.5 "$unit" "8 consumers, 100 at a time: SKIP LOCKED and DELETE" plain \
	"drain plain 100 8" "drain ours 100 8"
pair pull-plain-8x100-json - "$unit" "the same with mp_claim_json" plain "drain plain 100 8" "drain ours_json 100 8"
pair pull-plain-8x1000 - "$unit" "8 consumers, 1,000 at a time: SKIP LOCKED and DELETE" plain \
	"drain plain 1000 8" "drain ours 1000 8"
pair pull-pgmq-delete - "$unit" "8 consumers, 100 at a time: read, delete" pgmq "drain pgmq 100 8" "drain ours 100 8"
pair pull-pgmq-archive - "$unit" "8 consumers, 100 at a time: read, archive" pgmq "drain pgmq_archive 100 8" "drain ours 100 8"
pair pull-message_db - "$unit" "1 consumer, 1,000 at a time: get_category_messages, position written" message_db \
	"drain message_db 1000 1" "drain ours 1000 1"
pair pull-graphile - "$unit" "8 consumers: its runner in node, local queue of 500, batched completion" graphile \
	"drain graphile 500 8" "drain ours 100 8"
pair pull-boss - "$unit" "8 consumers, 1,000 at a time: fetch, complete in node" boss "drain boss 1000 8" "drain ours 1000 8"
