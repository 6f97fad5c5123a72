# shellcheck shell=bash disable=SC2034
# Sourced by bench/run and bench/measure after scripts/lib.sh: the settings of a
# run, where things are, and how the peers are called.

pairs=${PAIRS:-5}
seconds=${SECONDS_PER_RUN:-10}
only=${ONLY:-.}
fill=${FILL:-1000000}                 # events in a queue that is drained
held_seconds=${HELD_SECONDS:-60}
backlogs=${BACKLOGS:-0 1 5}           # millions of events
sagas=${SAGAS:-10000}                 # sagas of three steps
output=$MP_BUILD/bench
results=$output/results.tsv
peers=$output/peers

# A detail of some 300 bytes, and one of 2 KB that does not compress well.
small='{"recipe_id": "3f0e5c1e-7f1a-4c8e-9a55-0f5f3c1d2b3a", "name": "Bean chili with rice", "source": "tandoor", "created_at": "2026-11-23T08:00:00Z", "servings": 4, "tags": ["dinner", "vegan"], "kcal": 612.5, "protein": 24.1, "fat": 11.9, "carbs": 98.2, "fiber": 21.4, "note": "double it and freeze half of it"}'
large() { cat "$output/large.json"; }

# node_program: the node that the peers run with
node_program() {
	local bundled
	bundled=$(find "$peers/node_modules" -path '*/node-linux-*/bin/node' 2>/dev/null | head -n 1)
	echo "${bundled:-$(command -v node || true)}"
}

# have SYSTEM: can it be measured here?
have() {
	case $1 in
		ours | plain | copy) true ;;
		pgq) [ -f "$("$PG_CONFIG" --sharedir)/extension/pgq.control" ] ;;
		pgmq) [ -s "$peers/pgmq.sql" ] ;;
		message_db) [ -d "$peers/node_modules/@eventide/message-db" ] ;;
		graphile) [ -n "$(node_program)" ] && [ -d "$peers/node_modules/graphile-worker" ] ;;
		boss) [ -n "$(node_program)" ] && [ -d "$peers/node_modules/pg-boss" ] ;;
		dbos) [ -n "$(node_program)" ] && [ -d "$peers/node_modules/@dbos-inc/dbos-sdk" ] ;;
		*) die "what is $1?" ;;
	esac
}

# called SYSTEM: its name in the report
called() {
	case $1 in
		ours) echo "meal_planner" ;;
		plain) echo "plain SQL" ;;
		copy) echo "COPY" ;;
		pgq) echo "PgQ" ;;
		pgmq) echo "pgmq" ;;
		message_db) echo "message-db" ;;
		graphile) echo "graphile-worker" ;;
		boss) echo "pg-boss" ;;
		dbos) echo "DBOS Transact" ;;
	esac
}

# version SYSTEM
version() {
	case $1 in
		ours) sed -n "s/^default_version *= *'\(.*\)'.*/\1/p" meal_planner.control ;;
		pgq) sed -n "s/^default_version *= *'\(.*\)'.*/\1/p" "$("$PG_CONFIG" --sharedir)/extension/pgq.control" ;;
		pgmq) cat "$peers/pgmq.version" 2>/dev/null || echo '?' ;;
		message_db) package_version @eventide/message-db ;;
		graphile) package_version graphile-worker ;;
		boss) package_version pg-boss ;;
		dbos) package_version @dbos-inc/dbos-sdk ;;
	esac
}
package_version() { sed -n 's/^ *"version": *"\([^"]*\)".*/\1/p' "$peers/node_modules/$1/package.json" | head -n 1; }

median() { sort -g | awk '{ v[NR] = $1 } END { print (NR % 2) ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2 }'; }

# What follows is for bench/run and bench/cases: lines of the report.

# wanted ID: shall it be measured?  With --list its name is printed instead.
wanted() {
	if [ -n "${listing:-}" ]; then
		echo "$1"
		return 1
	fi
	[[ $1 =~ $only ]]
}

# A row of results.tsv: what a line of the report is made of.
# row ID TITLE UNIT PEER THEIRS OURS RATIO TARGET EACH
row() {
	local IFS=$'\t'
	echo "$*" >> "$results"
}

# measured MEASURE...: its number; "failed" when there is none
measured() {
	local value
	echo "--- $*" >> "$output/log"
	if value=$(bash bench/measure "$@" 2>> "$output/log") && [[ $value =~ ^[0-9.]+$ ]]; then
		echo "$value"
	else
		echo "    $* failed: see build/bench/log" >&2
		echo failed
	fi
}

# pair ID TARGET UNIT TITLE PEER "MEASURE THEIRS..." "MEASURE OURS...": measures
# the two one after the other, as often as PAIRS says; the order alternates, so
# that neither always comes first.  TARGET is the ratio to reach, or -.
pair() {
	local id=$1 target=$2 unit=$3 title=$4 peer=$5 theirs=$6 ours=$7 a b i each=
	wanted "$id" || return 0
	if ! have "$peer"; then
		row "$id" "$title" "$unit" "$(called "$peer")" - - - "$target" "not run: $(called "$peer") is not installed"
		say "$id: $(called "$peer") is not installed"
		return 0
	fi
	: > "$output/pairs"
	for ((i = 1; i <= pairs; i++)); do
		# shellcheck disable=SC2086
		if ((i % 2)); then
			a=$(measured $theirs)
			b=$(measured $ours)
		else
			b=$(measured $ours)
			a=$(measured $theirs)
		fi
		if [[ "$a $b" != *failed* ]]; then
			awk -v a="$a" -v b="$b" 'BEGIN { print a, b, (a > 0) ? sprintf("%.3f", b / a) : 0 }' >> "$output/pairs"
		fi
	done
	if [ ! -s "$output/pairs" ]; then
		row "$id" "$title" "$unit" "$(called "$peer")" - - - "$target" "failed"
		return 0
	fi
	each=$(cut -d' ' -f3 "$output/pairs" | tr '\n' ' ')
	row "$id" "$title" "$unit" "$(called "$peer")" "$(cut -d' ' -f1 "$output/pairs" | median)" \
		"$(cut -d' ' -f2 "$output/pairs" | median)" "$(cut -d' ' -f3 "$output/pairs" | median)" "$target" "$pairs x $seconds s: ${each% }"
	say "$id: $(tail -n 1 "$results" | cut -f4-7 | tr '\t' ' ')"
}

# alone ID TARGET UNIT TITLE SYSTEM REPEATS "MEASURE...": a figure that has no
# pair.  TARGET is at least so much, <N for below N, or -.
alone() {
	local id=$1 target=$2 unit=$3 title=$4 system=$5 repeats=$6 measure=$7 i value each=
	wanted "$id" || return 0
	if ! have "$system"; then
		row "$id" "$title" "$unit" "$(called "$system")" - - - "$target" "not run: $(called "$system") is not installed"
		say "$id: $(called "$system") is not installed"
		return 0
	fi
	: > "$output/figures"
	for ((i = 1; i <= repeats; i++)); do
		# shellcheck disable=SC2086
		value=$(measured $measure)
		[ "$value" = failed ] || echo "$value" >> "$output/figures"
	done
	if [ ! -s "$output/figures" ]; then
		row "$id" "$title" "$unit" "$(called "$system")" - - - "$target" "failed"
		return 0
	fi
	each=$(tr '\n' ' ' < "$output/figures")
	if [ "$system" = ours ]; then
		row "$id" "$title" "$unit" - - "$(median < "$output/figures")" - "$target" "${each% }"
	else
		row "$id" "$title" "$unit" "$(called "$system")" "$(median < "$output/figures")" - - "$target" "${each% }"
	fi
	say "$id: $(median < "$output/figures") $unit"
}
