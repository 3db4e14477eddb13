#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# A PostgreSQL server of which every backend reads the same table from the shared
# buffers: what page tables that takes, and what the first scan costs a backend that
# has just come, with and without shared page tables of shared memory.
tool=postgres
# shellcheck source-path=SCRIPTDIR source=common.sh
. "$(dirname "$(realpath "$0")")/common.sh"

usage()
{
	cat <<END
Usage: postgres.sh [options]

Start a PostgreSQL server of its own with a table that lies in its shared buffers
as a whole (pg_prewarm), connect backends, and let each of them scan the table, one
after the other. The server runs without huge pages (huge_pages=off).

 -s, --size SIZE        memory of the table, with K, M or G (256M)
 -b, --backends N       backends that scan it (64)
     --user NAME        the user that the server runs as, if this one is root, as
                        which it refuses (postgres)
     --programs DIR     where initdb and postgres are (the newest in
                        /usr/lib/postgresql, or in PATH)
$COMMON_HELP

The first of the backends fills the shared page tables, so it is not among those
of which the median is shown, unless it is the only one.

$COMMON_STATUS
END
}

size_text=256M
backends=64
user=postgres
programs=
reps=1

own_option()
{
	case $1 in
	-s|--size) size_text=$2 ;;
	-b|--backends) backends=$2 ;;
	--user) user=$2 ;;
	--programs) programs=$2 ;;
	esac
}

parse_args s:b: size:,backends:,user:,programs: "$@"
[ ${#rest[@]} -eq 0 ] || die $EXIT_USAGE "unexpected argument '${rest[0]}'"
size_arg --size "$size_text"
size=$value
number --backends "$backends" 1 1000
backends=$((10#$backends))

if [ -z "$programs" ]; then
	programs=$(dirname "$(command -v postgres || echo /)")
	for directory in /usr/lib/postgresql/*/bin; do
		[ ! -d "$directory" ] || programs=$directory
	done
fi
for program in initdb postgres; do
	[ -x "$programs/$program" ] ||
		die 1 "$program is missing: apt-get install postgresql, or --programs DIR"
done
need_program psql postgresql-client
need_program setpriv util-linux
as_user=()
if [ "$(id -u)" -eq 0 ]; then
	group=$(id -g "$user" 2> /dev/null) || die $EXIT_USAGE "--user: there is no user '$user'"
	as_user=(setpriv --reuid "$user" --regid "$group" --clear-groups)
fi
json_writable
look_at_system
if [[ " ${modes[*]} " = *' on '* ]]; then
	setting_file=$(sed -n 's/.*\[\(.*\)\].*/\1/p' /sys/kernel/mm/cow_pte/file 2> /dev/null)
	case $setting_file in
	prctl|always) ;;
	never) cannot on "shared memory is left out; as root: echo prctl > /sys/kernel/mm/cow_pte/file" ;;
	*) cannot on "this kernel has no shared page tables of files (CONFIG_COW_PTE_FILE)" ;;
	esac
fi
# The shared buffers and the file that they are read from, what a backend and its
# client take, and conventional page tables of all.
need_memory $((size * 5 / 2 + backends * (size / 512 + (12 << 20)))) \
	"--size $size_text with $backends backends"
working_dir
# (removed at the end, with what the server has written)
if [ -z "$made_dir" ]; then
	dir=$(mktemp -d "$dir/$tool.XXXXXX") || exit 1
	made_dir=$dir
fi

metric pagetables_kb kB "page tables that the scans take, all backends"
metric pagetables_each_kb kB "... each backend"
metric vmpte_kb kB "page tables a backend uses (VmPTE)"
metric shared_kb kB "of these shared, of files (VmFilePTE)"
metric rss_kb kB "resident memory of a backend (VmRSS)"
metric first_faults faults "first scan of a backend: faults"
metric first_ms ms "first scan of a backend: time"
metric later_faults faults "second scan: faults"
metric later_ms ms "second scan: time"
metric exit_ms ms "end of all backends and their clients"

# What a row takes, with its header, so that four fill a page
ROW=2000

# session N: start a client; it reads from $dir/in.N and writes to $dir/out.N
session()
{
	mkfifo "$dir/in.$1" "$dir/out.$1" || exit 1
	psql -h "$dir" -U bench -d postgres -X -q -A -t -v ON_ERROR_STOP=1 \
		< "$dir/in.$1" > "$dir/out.$1" 2>> "$dir/clients.log" &
	clients+=($!)
	exec {fd}> "$dir/in.$1"
	to[$1]=$fd
	exec {fd}< "$dir/out.$1"
	from[$1]=$fd
	rm "$dir/in.$1" "$dir/out.$1"
}

# ask N SQL: its answer, one line, in $value
ask()
{
	printf '%s\n' "$2" >&"${to[$1]}"
	IFS= read -r -t 600 value <&"${from[$1]}" ||
		die 1 "no answer to \"$2\": $(tail -qn 2 "$dir/clients.log" "$dir/server.log")"
}

# scan N: read the whole table; the duration and the faults of the backend in $ms, $faults
scan()
{
	local before t bytes

	minor_faults "${pids[$1]}"
	before=$value
	clock
	t=$value
	ask "$1" "select sum(octet_length(filler)) from bench;"
	bytes=$value
	ms_since "$t"
	ms=$value
	[ "$bytes" = $((nr_rows * ROW)) ] ||
		die "$EXIT_WRONG" "backend $1 read $bytes bytes instead of $((nr_rows * ROW))"
	minor_faults "${pids[$1]}"
	faults=$((value - before))
}

# minor_faults PID: in $value
minor_faults()
{
	local stat fields

	read -r stat < "/proc/$1/stat" || die 1 "backend $1 ended: $(tail -n 2 "$dir/server.log")"
	read -r -a fields <<< "${stat##*) }"
	value=${fields[7]}
}

start_server()
{
	local i

	mkdir "$dir/data"
	[ ${#as_user[@]} -eq 0 ] || chown "$user:$group" "$dir" "$dir/data"
	(cd "$dir" && "${as_user[@]}" "$programs/initdb" -D "$dir/data" -U bench -A trust -N \
		--no-instructions -E UTF8 --locale=C > "$dir/initdb.log" 2>&1) ||
		die 1 "initdb failed: $(tail -n 2 "$dir/initdb.log")"
	(cd "$dir" && exec "${run[@]}" "${as_user[@]}" "$programs/postgres" -D "$dir/data" -k "$dir" \
		-c listen_addresses= -c huge_pages=off -c shared_memory_type=mmap \
		-c shared_buffers=$(((size * 3 / 2) >> 10))kB -c max_connections=$((backends + 10)) \
		-c fsync=off -c autovacuum=off -c jit=off -c max_parallel_workers_per_gather=0 \
		-c wal_level=minimal -c max_wal_senders=0 -c checkpoint_timeout=1h \
		-c max_wal_size=64GB) > "$dir/server.log" 2>&1 &
	server=$!
	servers=("$server")
	for ((i = 0; i < 600; i++)); do
		[ -S "$dir/.s.PGSQL.5432" ] &&
			psql -h "$dir" -U bench -d postgres -X -q -c 'select' > /dev/null 2>&1 && return
		kill -0 "$server" 2> /dev/null ||
			die 1 "the server ended: $(tail -n 2 "$dir/server.log")"
		sleep 0.1
	done
	die 1 "the server does not answer: $(tail -n 2 "$dir/server.log")"
}

stop_server()
{
	kill -INT "$server"	# a fast shutdown
	wait "$server"
	servers=()
	rm -rf "$dir/data"
}

one()
{
	local m=$1 i base list t

	launcher "$m"
	start_server
	pids=() clients=() to=() from=()
	: > "$dir/clients.log"
	session 0
	ask 0 "create extension pg_prewarm;
create table bench (id int, filler text);
alter table bench alter filler set storage plain;
insert into bench select i, repeat('x', $ROW) from generate_series(1, $nr_rows) i;
vacuum (freeze) bench;
select pg_prewarm('bench') > 0;"
	[ "$value" = t ] || die 1 "the table could not be loaded: $(tail -n 2 "$dir/clients.log")"
	for ((i = 1; i <= backends; i++)); do
		session "$i"
		ask "$i" "select pg_backend_pid();"
		pids[i]=$value
	done

	pagetables_kb
	base=$value
	for ((i = 1; i <= backends; i++)); do
		say "mode $m: backend $i of $backends"
		scan "$i"
		[ "$i" -gt 1 ] || [ "$backends" -eq 1 ] || continue
		sample "$m" first_faults "$faults"
		sample "$m" first_ms "$ms"
	done
	pagetables_kb
	sample "$m" pagetables_kb $((value - base))
	sample "$m" pagetables_each_kb $(((value - base) / backends))
	status_kb "${pids[backends]}" VmPTE
	sample "$m" vmpte_kb "$value"
	status_kb "${pids[backends]}" VmFilePTE
	sample "$m" shared_kb "$value"
	[ "$m" = off ] || [ "$value" -gt 0 ] ||
		warn "mode on: nothing shared, the figures show conventional page tables"
	status_kb "${pids[backends]}" VmRSS
	sample "$m" rss_kb "$value"
	scan "$backends"
	sample "$m" later_faults "$faults"
	sample "$m" later_ms "$ms"

	clock
	t=$value
	for i in "${to[@]}"; do
		echo '\q' >&"$i"
	done
	for i in "${clients[@]}"; do
		wait "$i" || die 1 "a client failed: $(tail -n 2 "$dir/clients.log")"
	done
	for i in "${pids[@]}"; do
		while [ -e "/proc/$i" ]; do
			sleep 0.01
		done
	done
	ms_since "$t"
	sample "$m" exit_ms "$value"
	for i in "${to[@]}" "${from[@]}"; do
		exec {i}>&-
	done
	stop_server
}

nr_rows=$((size / 2048))
for ((rep = 1; rep <= reps; rep++)); do
	for m in "${modes[@]}"; do
		one "$m"
	done
done

results "size=$size_text rows=$nr_rows backends=$backends server=$("$programs/postgres" --version | tr ' ' _)"
