#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# The selftests on powerpc: radix must pass them, hash must refuse and skip. Under an
# emulator, with a cross-compiled kernel. The last line is "N passed, N failed"; the
# logs are in build/check-ppc64le.
#
#   check-ppc64le.sh [PROGRAM...]	only these
set -euo pipefail
# shellcheck source=scripts/cowpte/common.sh
. "$(dirname "$0")/common.sh"
# shellcheck source=scripts/cowpte/tests.sh
. "$SCRIPTS/tests.sh"

OUT=$BUILD/check-ppc64le
PROGRAMS=$BUILD/ppc64le/selftests
PROGRAM_LIMIT=${PROGRAM_LIMIT:-1800}
ALL_LIMIT=${ALL_LIMIT:-10000}

# selftests WHAT CMDLINE DIR OPTION...: those of the list, in a guest
selftests()
{
	local what=$1 cmdline=$2 dir=$OUT/$3 name status=0

	shift 3
	rm -rf "$dir"
	mkdir -p "$dir"
	printf '== %s\n' "$what"
	for name in "${names[@]}"; do
		printf '%s %s 16 %s ./%s\n' "$name" "$PROGRAM_LIMIT" "$PROGRAMS" "$name"
	done > "$dir/list"
	run_list ppc64le-debug "$cmdline" "$dir" "$ALL_LIMIT" "$@" || status=$?
	[ $status -eq 0 ] || cat "$dir/run.log"
	result $status "$what: the kernel had no complaint"
	count_list "$what" "$dir"
}

# refuses: on hash whoever asks is told that it cannot be had, and the tests skip. (The
# untouched kernel's test_hmm warns there: it looks for memory where hash has none.)
# shellcheck disable=SC2016 # for the guest's shell
refuses()
{
	"$SCRIPTS/run.sh" -k ppc64le-debug -M hash -t 300 -a "cow_pte=always" \
		-x hash__vmemmap_remove_mapping -o "$OUT/hash.log" -- bash -c '
		grep -q "^MMU.*Hash" /proc/cpuinfo || { echo "this is not hash"; exit 1; }
		grep -q "\[always\]" /sys/kernel/mm/cow_pte/enabled &&
			{ echo "the boot parameter was taken"; exit 1; }
		! echo always 2> /dev/null > /sys/kernel/mm/cow_pte/enabled ||
			{ echo "always was taken"; exit 1; }
		! "$1" on -p $$ || { echo "prctl was taken"; exit 1; }
		"$2" -r loan.merge | grep "# SKIP"' \
		- "$BUILD/ppc64le/user/cowpte" "$PROGRAMS/loans" || return
	grep -q 'cow_pte=always ignored' "$OUT/hash.log"
}

main()
{
	local names=("$@") status=0

	takes "an hour and a half" ppc64le-debug
	"$SCRIPTS/deps.sh" build test ppc64le
	mkdir -p "$OUT"
	trap summary EXIT
	tree_exists
	"$SCRIPTS/user.sh" ppc64le
	"$SCRIPTS/kernel.sh" ppc64le-debug
	[ ${#names[@]} -gt 0 ] || mapfile -t names < <(make -s \
		-C "$TOP/tools/testing/selftests/cow_pte" print-tests)
	selftests "radix, prctl mode" cow_pte=prctl radix -n
	refuses || status=$?
	result $status "hash: refused"
}
main "$@"; exit
