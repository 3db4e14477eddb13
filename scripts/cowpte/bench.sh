#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# The benchmarks, on the perf kernel, counted in instructions, so the figures
# do not depend on the machine or on what else it does.
#
#   bench.sh demo           the first figures, in minutes
#   bench.sh [NAME...]      the quick ones; JSON and tables in build/bench
#   bench.sh full [NAME...] all, and a report of them, in build/report
#   bench.sh report         only write the report anew
#
# Names: only these.
set -euo pipefail
# shellcheck source=scripts/cowpte/common.sh
. "$(dirname "$0")/common.sh"

demo=(fork redis)
quick=(fork fault window memory redis)
full=(fork exec fault window window-cold memory shm shm-5000 micro small redis-load postgres prefork forkexec afl untouched)

level=quick
case ${1:-} in
demo|full|report)
	level=$1
	shift
	;;
esac
case $level in
demo)
	known=("${demo[@]}")
	OUT=$BUILD/demo
	;;
quick)
	known=("${quick[@]}")
	OUT=$BUILD/bench
	;;
*)
	known=("${full[@]}")
	OUT=$BUILD/report
	;;
esac
failed=()

# bench NAME MEMORY LIMIT: each in a guest of its own, so that none is measured
# on the free lists another has left behind
bench()
{
	local start=$SECONDS

	say "$1"
	if "$SCRIPTS/run.sh" -k perf -i -m "$2" -t "$3" -w "$OUT" -o "$OUT/$1.console.log" -- \
		env BUILD="$BUILD" "$SCRIPTS/guest-bench.sh" "$level" "$1" "$OUT" | tee "$OUT/$1.txt"; then
		say "$1 took $(hms $((SECONDS - start)))"
	else
		failed+=("$1")
	fi
}

# digest NAME: do the snapshots that it left hold the same data? (none was taken
# with the feature on if the kernel does not have it)
digest()
{
	[ -e "$OUT/on.rdb" ] || return 0
	if ! "$TOP/tools/cowpte-bench/workloads/redis-snapshot.sh" --digest \
		--json "$OUT/$1-digest.json" "$OUT/off.rdb" "$OUT/on.rdb" |
		tee "$OUT/$1-digest.txt"; then
		failed+=("$1-digest")
	fi
	rm -f "$OUT/off.rdb" "$OUT/on.rdb"
}

report()
{
	"$SCRIPTS/bench-report.py" report "$OUT" > "$OUT/report.txt" || failed+=(report)
	cat "$OUT/report.txt"
}

if [ "$level" = report ]; then
	[ $# -eq 0 ] || die "report takes no names"
	[ -d "$OUT" ] || die "nothing is measured yet: run make bench-full"
	"$SCRIPTS/deps.sh" build bench
	report
	[ ${#failed[@]} -eq 0 ] || die "the report could not be written"
	exit 0
fi
if [ $# -eq 0 ]; then
	set -- "${known[@]}"
	case $level in
	demo) takes "3 minutes" perf ;;
	quick) takes "11 minutes" perf ;;
	full) takes "an hour" perf stock-perf ;;
	esac
fi
for name; do
	[[ " ${known[*]} " = *" $name "* ]] ||
		die "no such benchmark: $name (${known[*]})"
done
# (in braces: read as a whole, as this file may be edited while guests run)
{
groups=(build guest redis)
[ "$level" != full ] || groups+=(bench)
"$SCRIPTS/deps.sh" "${groups[@]}"
"$SCRIPTS/kernel.sh" perf
[[ " $* " != *" untouched "* ]] || "$SCRIPTS/kernel.sh" stock-perf
"$SCRIPTS/user.sh" bench
mkdir -p "$OUT"
for name; do
	case $level-$name in
	demo-*) bench "$name" 4G 900 ;;
	*-fork) bench fork 12G 3600 ;;
	*-exec) bench exec 8G 3600 ;;
	*-redis)
		bench redis 6G 3600
		digest redis
		;;
	*-redis-load)
		bench redis-load 10G 7200
		digest redis-load
		;;
	*-afl)
		# (a compiler is dear where instructions are emulated)
		"$TOP/tools/cowpte-bench/workloads/afl.sh" --build "$BUILD/user/sqlite-harness"
		bench afl 6G 7200
		;;
	*-forkexec) bench forkexec 8G 3600 ;;
	*-shm-5000) bench shm-5000 4G 3600 ;;
	*-untouched)
		"$SCRIPTS/bench-compare.sh" -o "$OUT/untouched.json" | tee "$OUT/untouched.txt" ||
			failed+=(untouched)
		;;
	*) bench "$name" 8G 3600 ;;
	esac
done
[ "$level" != full ] || report
[ ${#failed[@]} -eq 0 ] || die "failed: ${failed[*]}"
say "results are in ${OUT#"$TOP"/}: $(cd "$OUT" && echo ./*.json)"
exit
}
