#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# What is measured, in a guest where time is the count of instructions:
#
#   guest-bench.sh smoke RESULTS
#   guest-bench.sh demo|quick|full|untouched NAME RESULTS
#
# Leaves JSON in the directory RESULTS.
set -euo pipefail

top=$(cd "$(dirname "$0")/../.." && pwd)
bin=${BUILD:-$top/build}/user
work=$top/tools/cowpte-bench/workloads
if [ $# -eq 2 ]; then
	set -- "$1" '' "$2"
fi
what="$1 $2"
results=$3

# Pages of the size under test only, and no work in the background that would
# be counted with what is measured.
echo never > /sys/kernel/mm/transparent_hugepage/enabled
echo 0 > /sys/kernel/mm/ksm/run
echo 0 > /proc/sys/kernel/numa_balancing
echo 0 > /proc/sys/kernel/randomize_va_space

# Where the processor has nothing to do, as while the host opens a file, time
# jumps to the next timer: what is started within a measurement must be in
# memory. Hence copies, laid over the files of the host.
local_copies()
{
	local file path

	mkdir -p /tmp/local
	for file; do
		file=$(realpath "$file")
		for path in "$file" $(ldd "$file" 2> /dev/null | grep -o '/[^ ]*'); do
			path=$(realpath "$path")
			[ ! -e "/tmp/local/${path##*/}" ] || continue
			cp "$path" "/tmp/local/${path##*/}"
			mount --bind "/tmp/local/${path##*/}" "$path"
		done
	done
}
local_copies "$bin/cowpte-bench" "$bin/cowpte" /etc/ld.so.cache
# (each program asks for it, and the host each time if it is not there)
[ -e /etc/ld.so.preload ] || : > /etc/ld.so.preload

case $(cat /sys/kernel/mm/cow_pte/enabled 2> /dev/null) in
'')
	echo "this kernel has no copy-on-write page tables: conventional fork only"
	mode=off
	;;
*)
	mode=both
	;;
esac

# bench NAME COMMAND OPTION...: cowpte-bench
bench()
{
	local name=$1 cmd=$2

	shift 2
	"$bin/cowpte-bench" "$cmd" --mode "$mode" --unit instructions \
		--json "$results/$name.json" --note "$(uname -r)" "$@"
}

# workload NAME SCRIPT OPTION...
workload()
{
	local name=$1 script=$2

	shift 2
	"$work/$script" --cowpte "$bin/cowpte" --mode $mode --json "$results/$name.json" \
		--note "$(uname -r), 1 us is 1000 instructions" "$@"
}

# medians FILE: of cowpte-bench fork with one size: the first fork, and later ones
medians()
{
	awk -F ': |,' '
		/"size":/ { size = $2 }
		/"fork": \{/ { fork = 1 }
		fork && /"median":/ { if (size > 0) print $2; fork = 0 }' "$1"
}

# rows SIZE...: fork() with so much memory, a row for each mode as soon as it is there
rows()
{
	local size m file first later off_first off_later

	echo "fork(), in millions of instructions (about 1 ms each)"
	printf '%-6s  %-7s  %10s  %6s  %10s  %6s\n' \
		memory sharing 'first fork' off/on 'later ones' off/on
	for size; do
		off_first='' off_later=''
		for m in off on; do
			[ $m = off ] || [ $mode = both ] || continue
			file=$results/fork-$size-$m.json
			"$bin/cowpte-bench" fork --mode $m --unit instructions --size "$size" \
				--reps 1 --json "$file" --note "$(uname -r)" > "$results/fork.log"
			{ read -r first; read -r later; } < <(medians "$file")
			awk -v size="$size" -v m=$m -v a="$first" -v b="$later" \
				-v oa="$off_first" -v ob="$off_later" 'BEGIN {
				printf "%-6s  %-7s  %10.3f  %6s  %10.3f  %6s\n", size, m,
					a / 1e6, oa ? sprintf("%.0f", oa / a) : "",
					b / 1e6, ob ? sprintf("%.0f", ob / b) : ""
			}'
			off_first=$first off_later=$later
		done
	done
}

case $what in
'demo fork') rows 64M 1G ;;
'demo redis')
	workload redis redis-snapshot.sh --size 128M --value-size 4000 --compress no \
		--verify none --reps 1 --complete 0 --writes 100
	;;
'smoke ') bench fork fork --size 64M --reps 2 ;;
'quick fork') bench fork fork --size 64M,1G,4G --reps 3 ;;
'quick fault') bench fault fault --size 256M --reps 3 ;;
'quick window') bench window window --size 256M --every 4 --reps 3 ;;
'quick memory') bench memory memory --size 1G --children 1,4,16 --reps 3 ;;
'quick redis')
	# Files are compared here; bench.sh compares digests natively, they take
	# too many instructions for an emulated processor.
	workload redis redis-snapshot.sh --verify files --keep "$results"
	;;
'full fork') bench fork fork --size 16M,64M,256M,1G,4G --reps 3 ;;
'full exec') bench exec fork --child exec --size 1G,4G --reps 3 ;;
'full fault') bench fault fault --size 1G --pattern table,seq --reps 3 ;;
'full window') bench window window --size 256M --every 4 --reps 3 ;;
'full window-cold') bench window-cold window --size 256M --every 4 --cold --reps 3 ;;
'full memory') bench memory memory --size 0,1G --children 1,4,16,64,256 --reps 1 ;;
'full shm')
	echo prctl > /sys/kernel/mm/cow_pte/file
	bench shm shm --size 64M --children 1,10,40,161 --reps 1
	bench shm-read shm --size 64M --children 1,4 --pages 512 --reps 1
	bench shm-write shm --size 64M --children 1,4 --pages 512 --write --reps 1
	;;
'full shm-5000')
	# Without the feature it ends for want of memory.
	echo prctl > /sys/kernel/mm/cow_pte/file
	mode=on bench shm-5000 shm --size 2G --children 5000 --reps 1
	;;
'full micro') bench micro micro --reps 5 ;;
'full small') workload small small.sh --cpu-time --reps 5 ;;
'full redis-load')
	workload redis-load redis-load.sh --size 1G --clients 4 --reps 1 --verify none \
		--keep "$results" --series "$results/redis-load.series"
	;;
'full postgres')
	for program in /usr/lib/postgresql/*/bin/postgres; do
		local_copies "$program"
	done
	echo prctl > /sys/kernel/mm/cow_pte/file
	workload postgres postgres.sh --size 256M --backends 64 --reps 1
	;;
'full prefork')
	for heap in flat objects; do
		workload prefork-$heap prefork.sh --size 1G --heap $heap --workers 32 \
			--requests 2000 --reps 1
	done
	;;
'full forkexec')
	local_copies /bin/sh
	workload forkexec forkexec.sh --cpu-time --size 4G --count 8 --reps 1
	;;
'full afl')
	local_copies "$(command -v afl-fuzz)" "$bin/sqlite-harness"
	workload afl-256M afl.sh --cpu-time --size 256M --execs 400 --harness "$bin/sqlite-harness"
	workload afl-1G afl.sh --cpu-time --size 1G --execs 200 --harness "$bin/sqlite-harness"
	;;
'untouched '*)
	# one of several boots: bench-compare.sh says which
	bench "$2" micro --mode off --reps 3 --loops 100
	if [ $mode = both ]; then
		"$bin/cowpte" run -- true
		bench "used-$2" micro --mode off --reps 3 --loops 100
	fi
	;;
*)
	echo "usage: guest-bench.sh smoke|demo|quick|full|untouched [NAME] RESULTS" >&2
	exit 64
	;;
esac
