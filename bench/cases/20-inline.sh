# shellcheck shell=bash disable=SC2154
# Handlers in the emitter's transaction.  Plain SQL has a trigger in plpgsql that
# writes one row and catches its errors.

unit="events/s"
pair inline-plpgsql - "$unit" "emit with a handler in plpgsql that writes a row" plain "handled plain" "handled ours handle"
pair inline-sql 1.0 "$unit" "the same with a handler in SQL" plain "handled plain" "handled ours handle_in_sql"
pair inline-c 1.0 "$unit" "the same with a handler in C" plain "handled plain" "handled ours handle_in_c"
pair inline-nothing - "$unit" "the same with a handler that does nothing" plain "handled plain" "handled ours handle_not"
pair subscriptions 0.8 "$unit" "emit with 1,000 subscriptions of which one matches, against 1 subscription" ours \
	"subscribed 1" "subscribed 1000"
