#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# What is measured, in a guest where time is the count of instructions:
#
#   guest-bench.sh smoke|fork|fault|memory|redis RESULTS
#
# Leaves JSON in the directory RESULTS.
set -euo pipefail

top=$(cd "$(dirname "$0")/../.." && pwd)
bin=${BUILD:-$top/build}/user
what=$1
results=$2

# Pages of the size under test only, and no work in the background that would
# be counted with what is measured.
echo never > /sys/kernel/mm/transparent_hugepage/enabled
echo 0 > /sys/kernel/mm/ksm/run
echo 0 > /proc/sys/kernel/numa_balancing
echo 0 > /proc/sys/kernel/randomize_va_space

case $(cat /sys/kernel/mm/cow_pte/enabled 2> /dev/null) in
'')
	echo "this kernel has no copy-on-write page tables: conventional fork only"
	mode=off
	;;
*)
	mode=both
	;;
esac

bench()
{
	local cmd=$1

	shift
	"$bin/cowpte-bench" "$cmd" --mode $mode --unit instructions \
		--json "$results/$cmd.json" --note "$(uname -r)" "$@"
}

case $what in
smoke) bench fork --size 64M --reps 2 ;;
fork) bench fork --size 64M,1G,4G --reps 3 ;;
fault) bench fault --size 256M --reps 3 ;;
memory) bench memory --size 1G --children 1,4,16 --reps 3 ;;
redis)
	# Files are compared here; bench.sh compares digests natively, they take
	# too many instructions for an emulated processor.
	"$top/tools/cowpte-bench/workloads/redis-snapshot.sh" --cowpte "$bin/cowpte" \
		--mode $mode --verify files --note "$(uname -r)" --json "$results/redis.json" \
		--keep "$results"
	;;
*) echo "usage: guest-bench.sh smoke|fork|fault|memory|redis RESULTS" >&2; exit 64 ;;
esac
