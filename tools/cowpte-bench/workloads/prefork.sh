#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# A prefork server with much memory loaded before it forks its workers: how
# long the forks take, what the workers' page tables take, and what requests
# cost, with and without copy-on-write page tables.
tool=prefork
# shellcheck source-path=SCRIPTDIR source=common.sh
. "$(dirname "$(realpath "$0")")/common.sh"

usage()
{
	cat <<END
Usage: prefork.sh [options]

Start a small HTTP server in Python (prefork.py) that loads a table of objects
and then forks its workers, as application servers with "preload" do. Requests
read objects at random.

 -s, --size SIZE        memory to load before the forks, with K, M or G (1G)
     --heap KIND        flat: in one piece of memory, which is only read; objects:
                        as objects of Python, which counts references in the
                        objects themselves, so that reading writes, and pages
                        are copied little by little (flat)
 -w, --workers N        processes that serve (32)
 -q, --requests N       requests per repetition, after a first round with one
                        request per worker (5000)
 -c, --clients N        connections at a time (4)
 -l, --lookups N        objects read by a request (20)
$COMMON_HELP

$COMMON_STATUS
END
}

size_text=1G
heap=flat
workers=32
requests=5000
clients=4
lookups=20
reps=3

own_option()
{
	case $1 in
	-s|--size) size_text=$2 ;;
	--heap) heap=$2 ;;
	-w|--workers) workers=$2 ;;
	-q|--requests) requests=$2 ;;
	-c|--clients) clients=$2 ;;
	-l|--lookups) lookups=$2 ;;
	esac
}

parse_args s:w:q:c:l: size:,heap:,workers:,requests:,clients:,lookups: "$@"
[ ${#rest[@]} -eq 0 ] || die $EXIT_USAGE "unexpected argument '${rest[0]}'"
size_arg --size "$size_text"
size=$value
one_of --heap "$heap" flat objects
number --workers "$workers" 1 10000
number --requests "$requests" 1 100000000
number --clients "$clients" 1 1000
number --lookups "$lookups" 0 1000000

need_program python3 python3
json_writable
look_at_system
# What is loaded, conventional page tables of all, and what the workers copy.
need_memory $((size + size / 8 + workers * (size / 512 + (8 << 20)))) \
	"--size $size_text with $workers workers"
working_dir

metric first_fork_us us "fork of the first worker, CPU time"
metric fork_us us "fork of a later worker, CPU time, median"
metric forks_ms ms "forks of all workers, CPU time"
metric pagetables_kb kB "page tables per worker, before requests"
metric vmpte_kb kB "page tables a worker uses (VmPTE)"
metric shared_kb kB "of these shared (VmCowPTE)"
metric first_p50_us us "first requests, p50"
metric first_max_us us "first requests, longest"
metric p50_us us "requests, p50"
metric p99_us us "requests, p99"
metric max_us us "requests, longest"
metric requests_per_s 1/s "requests served"
metric all_requests_ms ms "all requests"
metric total_ms ms "forks and all requests"
metric pagetables_after_kb kB "page tables per worker, after requests"
metric exit_ms ms "end of all workers"

# answer WORD...: the server's line with these words at its start; the rest
answer()
{
	local line

	while IFS= read -r line <&"$from"; do
		case $line in
		"$1"*) value=${line#"$1"}; value=${value# }; return ;;
		esac
	done
	die 1 "the server ended: $(tail -n 2 "$dir/server.log")"
}

one()
{
	local m=$1 base port pids list forks t

	pagetables_kb
	base=$value
	launcher "$m"
	coproc "${run[@]}" python3 "$here/prefork.py" --size "$size" --heap "$heap" --workers "$workers" \
		--lookups "$lookups" 2> "$dir/server.log"
	# shellcheck disable=SC2153 # set by coproc
	pid=$COPROC_PID
	servers=("$pid")
	exec {to}>&"${COPROC[1]}" {from}<&"${COPROC[0]}"
	eval "exec ${COPROC[1]}>&- ${COPROC[0]}<&-"
	answer port
	port=$value
	answer objects
	objects=$value
	answer pids
	read -r -a pids <<< "$value"
	answer forks
	read -r -a list <<< "$value"
	answer forked
	[ ${#pids[@]} -eq "$workers" ] || die 1 "${#pids[@]} workers instead of $workers"

	sample "$m" first_fork_us "$(awk -v t="${list[0]}" 'BEGIN { print t / 1000 }')"
	if [ "$workers" -gt 1 ]; then
		median "${list[@]:1}"
		sample "$m" fork_us "$(awk -v t="$value" 'BEGIN { print t / 1000 }')"
	fi
	forks=$(printf '%s\n' "${list[@]}" | awk '{ s += $1 } END { printf "%.3f", s / 1e6 }')
	sample "$m" forks_ms "$forks"
	status_kb "$pid" VmPTE
	t=$value
	pagetables_kb
	sample "$m" pagetables_kb $(((value - base - t) / workers))
	status_kb "${pids[-1]}" VmPTE
	sample "$m" vmpte_kb "$value"
	status_kb "${pids[-1]}" VmCowPTE
	sample "$m" shared_kb "$value"
	[ "$m" = off ] || [ "$value" -gt 0 ] ||
		warn "mode on: nothing shared, the figures show conventional forks"

	echo go >&"$to"
	answer ready
	python3 "$here/prefork-client.py" --port "$port" --objects "$objects" \
		--lookups "$lookups" --clients "$clients" --first "$workers" \
		--requests "$requests" > "$dir/client.out" || {
			cat "$dir/server.log" >&2
			die "$EXIT_WRONG" "mode $m: requests failed"
		}
	samples_from "$m" "$dir/client.out"
	sample "$m" total_ms "$(awk -v f="$forks" '$1 == "all_requests_ms" { print f + $2 }' \
		"$dir/client.out")"
	status_kb "$pid" VmPTE
	t=$value
	pagetables_kb
	sample "$m" pagetables_after_kb $(((value - base - t) / workers))

	clock
	t=$value
	echo stop >&"$to"
	while IFS= read -r _ <&"$from"; do :; done
	ms_since "$t"
	sample "$m" exit_ms "$value"
	exec {to}>&- {from}<&-
	wait "$pid" || die "$EXIT_WRONG" "mode $m: $(tail -n 2 "$dir/server.log")"
	servers=()
}

files+=("$dir/server.log" "$dir/client.out")
for ((rep = 1; rep <= reps; rep++)); do
	for m in "${modes[@]}"; do
		say "mode $m, repetition $rep of $reps"
		one "$m"
	done
done

results "size=$size_text heap=$heap objects=$objects workers=$workers requests=$requests clients=$clients lookups=$lookups"
