# shellcheck shell=bash
# Sourced by the scripts that run as the unprivileged user: where things are,
# and private clusters that touch nothing outside build/ and one directory
# in /tmp, which holds the sockets (their paths must be short).

set -eu -o pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
MP_TOP=$(pwd -P)
MP_BUILD=$MP_TOP/build
MP_STAGE=$MP_BUILD/stage
PG_MAJOR=${PG_MAJOR:-15}
PG_CONFIG=${PG_CONFIG:-/usr/lib/postgresql/$PG_MAJOR/bin/pg_config}

say() { echo "==> $*"; }
die() { echo "$(basename "$0"): $*" >&2; exit 1; }

command -v "$PG_CONFIG" >/dev/null || die "$PG_CONFIG is not there"
MP_BINDIR=$("$PG_CONFIG" --bindir)
MP_PGXS_SRC=$(dirname "$("$PG_CONFIG" --pgxs)")/..
MP_VERSION=$("$PG_CONFIG" --version | sed 's/[^0-9]*\([0-9]*\).*/\1/')
PATH=$MP_BINDIR:$PATH

# What the caller's shell says about servers and languages is not for us.
unset PGHOST PGHOSTADDR PGPORT PGDATABASE PGUSER PGPASSWORD PGPASSFILE PGSERVICE PGSERVICEFILE \
	PGOPTIONS PGDATA PGAPPNAME PGSSLMODE PGCLIENTENCODING PGDATESTYLE PGTZ TZ LANGUAGE ${!LC_*}
export LANG=C.UTF-8 PATH PG_CONFIG PG_MAJOR

mkdir -p "$MP_BUILD/results"
MP_RUN=$(cat "$MP_BUILD/run-dir" 2>/dev/null || true)
if [ -z "$MP_RUN" ] || [ ! -O "$MP_RUN" ]; then
	MP_RUN=$(mktemp -d /tmp/mp.XXXXXX)
	echo "$MP_RUN" > "$MP_BUILD/run-dir"
fi
export MP_TOP MP_BUILD MP_STAGE MP_BINDIR MP_RUN HOME=$MP_RUN TMPDIR=$MP_RUN

# link_sources DIRECTORY: make DIRECTORY a tree of links to what the build
# reads, leaving alone what was built there.
link_sources() {
	local dir
	find src sql -type d | while read -r dir; do
		mkdir -p "$1/$dir"
		find "$MP_TOP/$dir" -maxdepth 1 -type f \( -name '*.[ch]' -o -name '*.sql' \) \
			-exec ln -sf -t "$1/$dir" {} +
	done
	ln -sf -t "$1" "$MP_TOP/Makefile" "$MP_TOP/meal_planner.control"
	find "$1" -xtype l -delete
}

cluster_data() { echo "$MP_BUILD/clusters/$1"; }
cluster_socket() { echo "$MP_RUN/$1"; }

# destdir_settings DIRECTORY: what makes a server find an extension that was
# installed below DIRECTORY.  The library path is for shared_preload_libraries.
destdir_settings() {
	if [ "$MP_VERSION" -ge 18 ]; then
		echo "extension_control_path = '$1$("$PG_CONFIG" --sharedir):\$system'"
	else
		echo "extension_destdir = '$1'"
	fi
	echo "dynamic_library_path = '$1$("$PG_CONFIG" --pkglibdir):\$libdir'"
}

# cluster_create NAME [SETTING...]: a new cluster with test/cluster.conf, the
# staged extension and SETTINGs; not started.
cluster_create() {
	local name=$1 data
	shift
	data=$(cluster_data "$name")
	cluster_drop "$name"
	mkdir -p "$MP_BUILD/clusters" "$(cluster_socket "$name")"
	(
		flock 9
		if [ ! -d "$MP_BUILD/initdb-$MP_VERSION" ]; then
			initdb -D "$MP_BUILD/initdb.tmp" -U postgres -A trust -E UTF8 --locale=C.UTF-8 \
				--no-sync --no-instructions > "$MP_BUILD/initdb.log" 2>&1 ||
				{ cat "$MP_BUILD/initdb.log" >&2; exit 1; }
			mv "$MP_BUILD/initdb.tmp" "$MP_BUILD/initdb-$MP_VERSION"
		fi
	) 9> "$MP_BUILD/initdb.lock"
	cp -a "$MP_BUILD/initdb-$MP_VERSION" "$data"
	{
		cat test/cluster.conf
		destdir_settings "$MP_STAGE"
		echo "unix_socket_directories = '$(cluster_socket "$name")'"
		[ $# -eq 0 ] || printf '%s\n' "$@"
	} >> "$data/postgresql.conf"
}

cluster_start() {
	local data
	data=$(cluster_data "$1")
	if ! pg_ctl -D "$data" -w -t 60 -s -l "$data.log" start; then
		tail -n 20 "$data.log" >&2
		die "cluster $1 did not start"
	fi
}

cluster_is_up() {
	[ -f "$(cluster_data "$1")/postmaster.pid" ] && pg_ctl -D "$(cluster_data "$1")" status >/dev/null
}

# cluster_stop NAME [MODE]: also one that an interrupted run left behind.
cluster_stop() {
	if cluster_is_up "$1"; then
		pg_ctl -D "$(cluster_data "$1")" -w -t 60 -s -m "${2:-fast}" stop
	fi
}

cluster_drop() {
	cluster_stop "$1" immediate
	rm -rf "$(cluster_data "$1")" "$(cluster_data "$1").log" "$(cluster_socket "$1")"
}

# cluster_psql NAME DATABASE PSQL-ARGUMENT...
cluster_psql() {
	local socket
	socket=$(cluster_socket "$1")
	psql -X -q -v ON_ERROR_STOP=1 -h "$socket" -U postgres -d "$2" "${@:3}"
}

# suite_cluster NAME [SETTING...]: a running cluster that ends with the script.
# What it writes need not survive a power failure.
suite_cluster() {
	suite=$1
	trap 'cluster_stop "$suite" immediate' EXIT
	cluster_create "$@" "fsync = off"
	cluster_start "$1"
}

# tap_environment DIRECTORY: what the TAP tests need to know, for this shell;
# their servers live in DIRECTORY and find the extension in $MP_STAGE.
tap_environment() {
	export TESTDIR=$1 TESTDATADIR=$1/tmp_check TESTLOGDIR=$1/tmp_check/log PG_TEST_PORT_DIR=$1/portlock
	export PG_REGRESS=$MP_PGXS_SRC/test/regress/pg_regress
	MP_CONF=$(cat test/cluster.conf; destdir_settings "$MP_STAGE")
	export MP_CONF
	# Not by -I: prove forgets it for a file that it takes for unreadable, as
	# below root's home (see as-user).
	export PERL5LIB=$MP_PGXS_SRC/test/perl:$MP_TOP/test/t${PERL5LIB:+:$PERL5LIB}
}

# Suites report by a line "PASSED FAILED" in build/results/SUITE.count.
record() { echo "$2 $3" > "$MP_BUILD/results/$1.count"; }

# record_tap SUITE FILE: count the top level of a TAP stream.  A skipped test
# proved nothing and is not counted ("not ok # SKIP" is cmocka's way to say it).
record_tap() {
	# shellcheck disable=SC2046
	record "$1" $(awk '/^(not )?ok / && tolower($0) ~ /# (skip|todo)/ { next }
		/^ok / { passed++ }
		/^not ok / { failed++ }
		END { print passed + 0, failed + 0 }' "$2")
}

# listed_tests DIRECTORY EXTENSION SCHEDULE: the tests of pg_regress in their
# order.  A schedule is optional, but then it must name them all.
listed_tests() {
	local all listed
	all=$(find "$1" -maxdepth 1 -name "*.$2" -printf '%f\n' | sed "s/\.$2\$//" | sort)
	if [ ! -f "$3" ]; then
		echo "$all"
		return
	fi
	listed=$(sed -n 's/^test: *//p' "$3" | tr -s ' ' '\n')
	[ "$(sort <<< "$listed")" = "$all" ] ||
		die "$3 and the files in $1 differ: $(diff <(sort <<< "$listed") <(echo "$all") | grep '^[<>]' | tr '\n' ' ')"
	echo "$listed"
}

# run_regress SUITE PROGRAM INPUT-DIRECTORY TEST...: pg_regress or its sister on
# the running cluster SUITE.
run_regress() {
	local suite=$1 program=$2 input=$3 status=0
	local output=$MP_BUILD/$suite
	shift 3
	"$MP_PGXS_SRC/test/$program" --host="$(cluster_socket "$suite")" --port=5432 --user=postgres \
		--bindir="$MP_BINDIR" --dbname="$suite" --inputdir="$input" --outputdir="$output" "$@" \
		2>&1 | tee "$output/output" || status=$?
	if [ $status -ne 0 ] && [ -f "$output/regression.diffs" ]; then
		cat "$output/regression.diffs"
	fi
	# "ok 1 - name" since 16, "test name ... ok 12 ms" before.
	# shellcheck disable=SC2046
	record "$suite" $(awk '/^ok |\.\.\. ok/ { passed++ } /^not ok |\.\.\. FAILED/ { failed++ }
		END { print passed + 0, failed + 0 }' "$output/output")
	return $status
}
