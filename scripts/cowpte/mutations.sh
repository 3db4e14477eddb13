#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Can the tests fail? Break the kernel in many ways, each by a patch in
# tools/testing/selftests/cow_pte/mutations, build and boot each one, and run
# the tests that its patch names:
#
#   mutations.sh [NUMBER...]    these patches, or all
#
# Before that the same tests have to pass on the kernel as it is. The last line
# is "N passed, N failed", where a mutation that no test notices has failed; the
# verdicts on all are in build/mutations/table.
set -euo pipefail
# shellcheck source=scripts/cowpte/common.sh
. "$(dirname "$0")/common.sh"
# shellcheck source=scripts/cowpte/tests.sh
. "$SCRIPTS/tests.sh"

OUT=$BUILD/mutations
PATCHES=$TOP/$MUTATIONS
PROGRAM_LIMIT=240	# seconds
GUEST_LIMIT=600		# with what one patch names
ALL_LIMIT=3600		# with what all name

# header PATCH KEY: a line of what stands before the diff
header()
{
	sed -n "/^--- /q; s/^$2: //p" "$1"
}

# choose [NUMBER...]: into the array "patches"
choose()
{
	local number found

	[ $# -gt 0 ] || set -- '*'
	for number; do
		# shellcheck disable=SC2206 # all numbers, if there was none
		found=($PATCHES/$number-*.patch)
		[ -e "${found[0]}" ] || die "there is no mutation '$number'"
		patches+=("${found[@]}")
	done
}

# tests_of PATCH: its tests, one a line
tests_of()
{
	header "$1" Tests | sed 's/ *; */\n/g'
}

args_of()
{
	local args

	args=$(header "$1" Args)
	printf '%s\n' "${args:-cow_pte=prctl}"
}

# The tree is changed and changed back. What it lacks, and what an interrupted
# run left broken, gets a new time stamp, so that make builds it again.
refresh_tree()
{
	[ -d "$MUTANT" ] || need_space "$BUILD" 6 "a kernel tree to be broken"
	mkdir -p "$MUTANT"
	rsync -rlp --checksum --delete --exclude=/.git "$KTREE/" "$MUTANT/"
}

# apply PATCH [OPTION OF patch...]
apply()
{
	local file=$1

	shift
	patch -s -f -p1 -F0 --no-backup-if-mismatch -r - -d "$MUTANT" "$@" < "$file"
}

# boot KERNEL DIR CMDLINE SECONDS: the tests that standard input lists, one a
# line, in a guest; for at most SECONDS
boot()
{
	local kernel=$1 dir=$2 cmdline=$3 limit=$4 test status=0

	mkdir -p "$dir"
	while IFS= read -r test; do
		printf '%s %s 16 %s ./%s\n' "$(slug "$test")" "$PROGRAM_LIMIT" \
			"$BUILD/selftests" "$test"
	done > "$dir/list"
	# (two nodes, for those that migrate)
	run_list "$kernel" "$cmdline" "$dir" "$limit" -n || status=$?
	printf '%s\n' "$status" > "$dir/status"
}

# test_failures DIR: what the tests themselves found, one a line
test_failures()
{
	local name program status

	while read -r name _ _ _ program _; do
		program=${program#./}
		# Not at its end, or never begun, when the guest died
		[ -e "$1/$name.tap" ] || continue
		sed -n "s/^not ok [0-9]* /$program: /p" "$1/$name.tap"
		status=$(cat "$1/$name.status" 2> /dev/null) || continue
		case $status in
		0) ;;
		1) grep -q '^not ok' "$1/$name.tap" || printf '%s: exit status 1\n' "$program" ;;
		4) printf '%s: skipped\n' "$program" ;;
		124|137) printf '%s: stopped after its time limit\n' "$program" ;;
		*) printf '%s: exit status %s\n' "$program" "$status" ;;
		esac
		! grep -q '# *SKIP' "$1/$name.tap" || printf '%s: something skipped\n' "$program"
		[ ! -e "$1/$name.leak" ] ||
			sed -n "s/^not ok after/$program: leaves something behind after/p" "$1/$name.leak"
	done < "$1/list"
}

# complaint DIR: the first line of the kernel's
complaint()
{
	sed -n 's/^run: the kernel complained, [^:]*: *\(\[[^]]*\] *\)\{0,2\}//p' "$1/run.log"
}

# The tests prove something only if they pass on a kernel that is not broken.
unbroken()
{
	local args dir file what failures status

	rm -rf "$OUT"/unbroken-*
	"$SCRIPTS/kernel.sh" mutant
	for file; do
		args_of "$file"
	done | sort -u | while IFS= read -r args; do
		dir=$OUT/unbroken-$(slug "$args")
		for file; do
			[ "$(args_of "$file")" != "$args" ] || tests_of "$file"
		done | sort -u > "$OUT/tests"
		boot mutant "$dir" "$args" $ALL_LIMIT < "$OUT/tests"
		printf '%s\n' "$args" > "$dir/args"
	done
	for dir in "$OUT"/unbroken-*; do
		what="not broken, $(cat "$dir/args"): $(wc -l < "$dir/list") programs"
		failures=$(test_failures "$dir")
		status=$(cat "$dir/status")
		if [ -n "$failures" ] || [ "$status" -ne 0 ]; then
			printf '%s\n' "$failures"
			[ "$status" -eq 0 ] || cat "$dir/run.log"
			result 1 "$what"
			die "the kernel is to be mended first, or the tests"
		fi
		result 0 "$what pass"
	done
}

# verdict DIR: how the mutation that ran there was noticed; fails if it was not
verdict()
{
	local failures kernel status

	failures=$(test_failures "$1" | grep -v ': skipped$\|: something skipped$') || true
	kernel=$(complaint "$1")
	status=$(cat "$1/status")
	if [ -n "$failures" ]; then
		printf 'caught by a test: %s%s\n' "$(head -n 1 <<< "$failures")" \
			"${kernel:+; the kernel: $kernel}"
	elif [ -n "$kernel" ]; then
		printf 'caught by the kernel: %s\n' "$kernel"
	elif [ "$status" -eq 124 ] && [ -n "$(find "$1" -name '*.running' -o -name '*.tap')" ]; then
		printf 'caught: hang\n'
	elif [ "$status" -eq 124 ]; then
		printf 'not run: the guest did not come up in time\n'
		return 1
	elif [ "$status" -eq 70 ]; then
		printf 'caught: the guest died\n'
	elif [ "$status" -eq 0 ]; then
		printf 'MISSED\n'
		return 1
	else
		printf 'not run: %s\n' "$(tail -n 1 "$1/run.log")"
		return 1
	fi
}

# build FILE: leaves the kernel in its directory, or "said": why there is none
build()
{
	local file=$1 dir

	dir=$OUT/$(basename "$file" .patch)
	rm -rf "$dir"
	mkdir -p "$dir"
	if ! apply "$file" --dry-run > "$dir/patch.log" 2>&1; then
		printf 'no longer applies to build/linux (%s)\n' \
			"$(head -n 1 "$dir/patch.log")" > "$dir/said"
		return
	fi
	apply "$file"
	if "$SCRIPTS/kernel.sh" mutant > "$OUT/build.log" 2>&1; then
		cp "$(kernel_dir mutant)/arch/x86/boot/bzImage" "$dir/bzImage"
	else
		printf 'does not build: %s\n' "$(tail -n 1 "$OUT/build.log")" > "$dir/said"
	fi
	apply "$file" -R
}

# run FILE: its tests on its kernel
run()
{
	local file=$1 dir

	dir=$OUT/$(basename "$file" .patch)
	[ ! -e "$dir/said" ] || return 0
	tests_of "$file" | boot "$dir/bzImage" "$dir" "$(args_of "$file")" $GUEST_LIMIT > /dev/null
	rm "$dir/bzImage"
}

# judge FILE: count it
judge()
{
	local name dir said status=0

	name=$(basename "$1" .patch)
	dir=$OUT/$name
	if [ -e "$dir/said" ]; then
		said=$(cat "$dir/said")
		status=1
	else
		said=$(verdict "$dir") || status=1
	fi
	printf '%s: %s\n' "$name" "$said" > "$dir/verdict"
	result $status "$name: $said"
}

main()
{
	local patches=() file before=

	choose "$@"
	for file in "${patches[@]}"; do
		[ -n "$(header "$file" Tests)" ] || die "${file#"$TOP"/} names no tests"
	done
	takes "$((${#patches[@]} / 2 + 10)) minutes" mutant
	"$SCRIPTS/deps.sh" build guest test
	mkdir -p "$OUT"
	trap summary EXIT
	"$SCRIPTS/user.sh" selftests
	refresh_tree
	unbroken "${patches[@]}"
	# One is built while the one before it runs.
	for file in "${patches[@]}"; do
		build "$file"
		wait
		[ -z "$before" ] || judge "$before"
		before=$file
		run "$file" &
	done
	wait
	judge "$before"
	cat "$OUT"/*/verdict > "$OUT/table"
}

# (a function: read as a whole, as this file may be edited while a guest runs)
main "$@"; exit
