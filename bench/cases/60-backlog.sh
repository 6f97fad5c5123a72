# shellcheck shell=bash disable=SC2154
# The same work with events waiting, and with a held snapshot besides.  Ratios are
# to no backlog and no snapshot.  $output/backlog.tsv is what is plotted.

# backlog_lines SYSTEM
backlog_lines() {
	local system=$1 millions held i line emit pull work base_emit='' base_pull='' base_work=''
	for millions in $backlogs; do
		for held in free held; do
			wanted "backlog-$system-$millions-$held" || continue
			: > "$output/backlog.runs"
			for ((i = 0; i < (pairs + 2) / 3; i++)); do
				echo "--- backlog $system $millions $held" >> "$output/log"
				if line=$(bash bench/measure backlog "$system" "$millions" "$held" 2>> "$output/log"); then
					echo "$line" >> "$output/backlog.runs"
				else
					echo "    backlog $system $millions $held failed: see build/bench/log" >&2
				fi
			done
			[ -s "$output/backlog.runs" ] || continue
			emit=$(cut -d' ' -f1 "$output/backlog.runs" | median)
			pull=$(cut -d' ' -f2 "$output/backlog.runs" | median)
			work=$(cut -d' ' -f3 "$output/backlog.runs" | median)
			: "${base_emit:=$emit}" "${base_pull:=$pull}" "${base_work:=$work}"
			backlog_point emit "$emit" "$base_emit"
			backlog_point pull "$pull" "$base_pull"
			[ "$system" != ours ] || backlog_point worker "$work" "$base_work"
			say "backlog-$system-$millions-$held: $emit $pull $work"
		done
	done
}

# backlog_point WORK FIGURE BASE: in the variables of backlog_lines.  Peers are
# in the plot alone.
backlog_point() {
	if [ "$system" = ours ] && [ "$millions $held" != "${backlogs%% *} free" ]; then
		row "backlog-$1-$millions-$held" "$1 with $millions million events waiting$([ "$held" = free ] || echo ", snapshot held")" \
			"events/s" "itself undisturbed" "$3" "$2" \
			"$(awk -v a="$3" -v b="$2" 'BEGIN { printf "%.3f", (a > 0) ? b / a : 0 }')" 0.9 "$seconds s"
	fi
	printf '%s\t%s\t%s\t%s\n' "$1" "$(called "$system")$([ "$held" = free ] || echo ", snapshot held")" "$millions" "$2" >> "$output/backlog.tsv"
}

for system in ours plain pgq; do
	if have "$system"; then
		backlog_lines "$system"
	fi
done
