#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Everything that can be checked on one machine. The last line is
# "N passed, N failed"; the logs are in build/check.
#
#   check.sh               all of it
#   check.sh record-stock  record in expect/ what the kernel's own cow test
#                          says on an untouched kernel
set -euo pipefail
# shellcheck source=scripts/cowpte/common.sh
. "$(dirname "$0")/common.sh"

OUT=$BUILD/check
EXPECT=$SCRIPTS/expect/cow.tap-summary

# Limits in seconds, several times what an idle two-core machine takes: of one
# test program, of a guest that runs them all, of the others.
PROGRAM_LIMIT=${PROGRAM_LIMIT:-600}
SELFTESTS_LIMIT=${SELFTESTS_LIMIT:-1500}
COW_LIMIT=600
SMOKE_LIMIT=300

passed=0
failed=0
began=$SECONDS

# result STATUS WHAT: count one check
result()
{
	if [ "$1" -eq 0 ]; then
		passed=$((passed + 1))
		printf 'ok: %s\n' "$2"
	else
		failed=$((failed + 1))
		printf 'FAILED: %s\n' "$2"
	fi
}

# step WHAT COMMAND...: a check that is a command, with its duration. When it
# fails its output is shown.
step()
{
	local what=$1 log start=$SECONDS status=0

	shift
	log=$OUT/$(tr -c 'a-z0-9\n' - <<< "$what").log
	printf '== %s\n' "$what"
	"$@" > "$log" 2>&1 || status=$?
	[ $status -eq 0 ] || tail -n 60 "$log"
	result $status "$what ($(hms $((SECONDS - start))))"
	return $status
}

# count_tap NAME FILE STATUS: add the results of one test program
count_tap()
{
	local p f s

	read -r p f s < <(awk -v status="$3" '
		/^1\.\.[0-9]+/ { plan = substr($1, 4) + 0 }
		/^ok / { if (/# *SKIP/) skip++; else pass++ }
		/^not ok / { fail++ }
		/^Bail out!/ { fail++ }
		END {
			# planned and not run: it crashed or was stopped
			missing = plan - pass - skip - fail
			if (missing > 0)
				fail += missing
			# 4 is how a kselftest says that it skips
			if (status != 0 && status != 4 && !fail)
				fail = 1
			if (!pass && !skip && !fail)
				fail = 1
			print pass + 0, fail + 0, skip + 0
		}' "$2")
	passed=$((passed + p))
	failed=$((failed + f))
	printf '%s: %s: %d passed, %d failed, %d skipped\n' \
		"$([ "$f" -eq 0 ] && echo ok || echo FAILED)" "$1" "$p" "$f" "$s"
	if [ "$f" -gt 0 ]; then
		grep -E '^(not ok|Bail)' "$2" | head -n 20 || true
		case $3 in
		0|1|4) ;;
		124) echo "stopped after its time limit" ;;
		137) echo "killed (it did not heed its time limit, or memory ran out)" ;;
		-) echo "it did not run to its end" ;;
		*) echo "exit status $3" ;;
		esac
	fi
}

# guest_tests WHAT LIMIT CMDLINE PROGRAM...: one guest that runs these programs;
# counts their results, and that of the guest as a whole
guest_tests()
{
	local what=$1 limit=$2 cmdline=$3 dir name program start=$SECONDS status=0

	shift 3
	dir=$OUT/$(tr -c 'a-z0-9\n' - <<< "$what")
	rm -rf "$dir"
	mkdir -p "$dir"
	printf '== %s\n' "$what"
	"$SCRIPTS/run.sh" -k "$KERNEL" -m 4G -s 1024 -t "$limit" -a "$cmdline" -w "$dir" \
		-o "$dir/console.log" -- "$SCRIPTS/guest-tests.sh" "$dir" "$PROGRAM_LIMIT" "$@" \
		> "$dir/run.log" 2>&1 || status=$?
	for program; do
		name=${program##*/}
		touch "$dir/$name.tap"
		[ -e "$dir/$name.status" ] || echo - > "$dir/$name.status"
		count_tap "$what: $name" "$dir/$name.tap" "$(cat "$dir/$name.status")"
	done
	[ $status -eq 0 ] || cat "$dir/run.log"
	result $status "$what: the kernel had no complaint ($(hms $((SECONDS - start))))"
}

# verdicts TAP: one line for each test: what was tested, and how it ended
verdicts()
{
	awk '/^# \[RUN\]/ { run = substr($0, 9) }
	     /^(ok|not ok) / { print $0 " |" run }
	     /^# Totals/ { print }' "$1"
}

# The kernel's own test of copy-on-write, where pins and leaks between parent
# and child are looked for in every kind of memory, must not see a difference.
cow()
{
	local mode=$1 what="kernel's cow test, cow_pte=$1" tap status=0

	guest_tests "$what" "$COW_LIMIT" "cow_pte=$mode" "$BUILD/cow/cow"
	tap=$OUT/$(tr -c 'a-z0-9\n' - <<< "$what")/cow.tap
	verdicts "$tap" > "${tap%.tap}.verdicts"
	diff -u "$EXPECT" "${tap%.tap}.verdicts" > "${tap%.tap}.diff" || status=1
	[ $status -eq 0 ] || head -n 40 "${tap%.tap}.diff"
	result $status "$what: the same verdicts as an untouched kernel"
}

# A tiny benchmark on the perf kernel: it boots, counts, and the mode works.
smoke()
{
	rm -rf "$OUT/smoke"
	mkdir -p "$OUT/smoke"
	"$SCRIPTS/run.sh" -k perf -i -t "$SMOKE_LIMIT" -m 2G -w "$OUT/smoke" -o "$OUT/smoke/console.log" -- \
		env BUILD="$BUILD" "$SCRIPTS/guest-bench.sh" smoke "$OUT/smoke" &&
	[ -n "$(find "$OUT/smoke" -name '*.json' -size +0)" ]
}

record_stock()
{
	local dir

	"$SCRIPTS/kernel.sh" stock-debug
	"$SCRIPTS/user.sh" cow-stock
	KERNEL=stock-debug
	guest_tests "stock cow test" "$COW_LIMIT" "" "$BUILD/cow-stock/cow"
	dir=$OUT/stock-cow-test
	[ $failed -eq 0 ] || die "the untouched kernel fails its own test: nothing recorded"
	verdicts "$dir/cow.tap" > "$EXPECT"
	say "recorded $(grep -c . "$EXPECT") lines in ${EXPECT#"$TOP"/}"
}

all()
{
	local tests=() name

	"$SCRIPTS/deps.sh" -q
	step "tree" "$SCRIPTS/tree.sh" || [ -d "$KTREE" ] || return 0
	step "verify" "$SCRIPTS/verify.sh" || true
	step "user programs" "$SCRIPTS/user.sh" bench || true

	KERNEL=debug
	if step "debug kernel" "$SCRIPTS/kernel.sh" debug; then
		if step "selftests" "$SCRIPTS/user.sh" selftests; then
			while read -r name; do
				tests+=("$BUILD/selftests/$name")
			done < <(make -s -C "$TOP/tools/testing/selftests/cow_pte" print-tests)
		fi
		if [ ${#tests[@]} -gt 0 ]; then
			guest_tests "selftests, prctl mode" "$SELFTESTS_LIMIT" "cow_pte=prctl" "${tests[@]}"
			guest_tests "selftests, force mode" "$SELFTESTS_LIMIT" "cow_pte=always" "${tests[@]}"
		else
			result 1 "selftests: there is none to run"
		fi
		if step "cow test" "$SCRIPTS/user.sh" cow; then
			cow never
			cow always
		fi
	fi
	if step "perf kernel" "$SCRIPTS/kernel.sh" perf; then
		step "smoke test of the perf kernel" smoke || true
	fi
}

# The count is the last line even when this script is stopped by an error.
summary()
{
	local status=$?

	[ $status -eq 0 ] || [ $failed -gt 0 ] || failed=1
	printf 'took %s, logs in %s\n' "$(hms $((SECONDS - began)))" "${OUT#"$TOP"/}"
	printf '%d passed, %d failed\n' $passed $failed
	[ $failed -eq 0 ] && [ $passed -gt 0 ] || exit 1
	exit 0
}

mkdir -p "$OUT"
case ${1:-} in
'')
	trap summary EXIT
	all
	;;
record-stock)
	record_stock
	;;
*)
	die "usage: check.sh [record-stock]"
	;;
esac
