# shellcheck shell=bash disable=SC2154
# graphile-worker, pg-boss and DBOS Transact, through their own interfaces in node
# and with the batches that their pages recommend.  bench/node/*.mjs print what consume.c does.

node_peer() {
	cp -u bench/node/*.mjs "$peers/"
	"$(node_program)" "$peers/$1.mjs" "${@:2}" | tee -a "$output/log"
}

graphile_setup() { node_peer graphile setup; }
graphile_emit_sql() { echo "SELECT graphile_worker.add_job('bench', '$1');"; }
graphile_fill() { node_peer graphile fill "$1" "$small" > /dev/null; }
graphile_drain() { node_peer graphile run "$2" "$((seconds * 12))" $((fill * 95 / 100)) | awk '/^total/ { print $2 / $4 }'; }
graphile_cycle() { node_peer graphile cycle "$2" "$3" "$1" "$small"; }

boss_setup() { node_peer boss setup; }
boss_fill() { node_peer boss fill "$1" "$small" > /dev/null; }
boss_drain() { node_peer boss run "$2" "$((seconds * 12))" $((fill * 95 / 100)) "$1" | awk '/^total/ { print $2 / $4 }'; }
boss_cycle() { node_peer boss cycle "$2" "$3" "$1" "$small"; }

# boss_send: its send() is a statement that only its own program can make
boss_send() {
	fresh boss
	node_peer boss send "$1" "$seconds" "$small" | awk '/^total/ { print $2 / $4 }'
}

# DBOS: a hundred workflows at a time (from ten to 300 there is little difference),
# 20 connections for it and 20 for the steps.  A step is its fastest kind, whose
# effect and record are two commits.
dbos_setup() { node_peer dbos setup; }
dbos_sagas_started() { node_peer dbos start "$sagas" 100 | awk '/^total/ { print $2 / $4 }'; }
dbos_sagas_waiting() { node_peer dbos queue "$sagas" 100 | awk '/^total/ { print $2 / $4 }'; }
dbos_sagas_done() { value -c "SELECT count(*) FROM dbos.workflow_status WHERE status = 'SUCCESS'"; }
