#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# The benchmarks, on the perf kernel, counted in instructions, so the figures
# do not depend on the machine or on what else it does. JSON and tables are left
# in build/bench. Names of benchmarks as arguments: only these.
#
#   bench.sh [fork] [fault] [memory] [redis]
set -euo pipefail
# shellcheck source=scripts/cowpte/common.sh
. "$(dirname "$0")/common.sh"

OUT=$BUILD/bench
failed=()

# bench NAME MEMORY LIMIT: each in a guest of its own, so that none is measured
# on the free lists another has left behind
bench()
{
	local start=$SECONDS

	say "$1"
	if "$SCRIPTS/run.sh" -k perf -i -m "$2" -t "$3" -w "$OUT" -o "$OUT/$1.console.log" -- \
		env BUILD="$BUILD" "$SCRIPTS/guest-bench.sh" "$1" "$OUT" | tee "$OUT/$1.txt"; then
		say "$1 took $(hms $((SECONDS - start)))"
	else
		failed+=("$1")
	fi
}

# Do the snapshots hold the same data? (none was taken with the feature on if
# the kernel does not have it)
digest()
{
	[ -e "$OUT/on.rdb" ] || return 0
	if ! "$TOP/tools/cowpte-bench/workloads/redis-snapshot.sh" --digest \
		--json "$OUT/redis-digest.json" "$OUT/off.rdb" "$OUT/on.rdb" |
		tee "$OUT/redis-digest.txt"; then
		failed+=("redis-digest")
	fi
	rm -f "$OUT/off.rdb" "$OUT/on.rdb"
}

[ $# -gt 0 ] || set -- fork fault memory redis
for name; do
	case $name in
	fork|fault|memory|redis) ;;
	*) die "no such benchmark: $name (fork, fault, memory or redis)" ;;
	esac
done
"$SCRIPTS/deps.sh" -q
"$SCRIPTS/kernel.sh" perf
"$SCRIPTS/user.sh" bench
mkdir -p "$OUT"
for name; do
	case $name in
	fork) bench fork 12G 3600 ;;
	redis)
		bench redis 6G 3600
		digest
		;;
	*) bench "$name" 8G 3600 ;;
	esac
done
[ ${#failed[@]} -eq 0 ] || die "failed: ${failed[*]}"
say "results are in ${OUT#"$TOP"/}: $(cd "$OUT" && echo ./*.json)"
