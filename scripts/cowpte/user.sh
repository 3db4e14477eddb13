#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Build the programs that run in guests, always from the overlay's own copy:
#
#   user.sh bench      build/user: cowpte, cowpte-bench
#   user.sh selftests  build/selftests: the selftests of this project
#   user.sh mm         build/mm: the kernel's own tests of memory management
set -euo pipefail
# shellcheck source=scripts/cowpte/common.sh
. "$(dirname "$0")/common.sh"

# headers SRC KERNEL DIR: the kernel's headers for programs. With O=, as
# otherwise headers_install would leave its products in the source tree.
headers()
{
	local out

	out=$(kernel_dir "$2")
	kmake "$1" "$out" -s INSTALL_HDR_PATH="$3" headers_install > "$3.log" 2>&1 ||
		die "headers_install failed, see $3.log"
}

# quiet LOG COMMAND...: say only what went wrong
quiet()
{
	local log=$1

	shift
	mkdir -p "$(dirname "$log")"
	env -u MAKEFLAGS -u MFLAGS -u MAKELEVEL "$@" > "$log" 2>&1 ||
		{ cat "$log" >&2; die "failed: $*"; }
	grep -E 'warning:' "$log" >&2 || true
}

# mm: from a copy, as their Makefile writes beside the sources. The same programs
# run on both kernels, so there must be nothing of ours in them; but an emulated
# guest needs more than the 30 seconds that the harness gives each case.
mm()
{
	local tests=tools/testing/selftests dir=$BUILD/mm

	git -C "$KTREE" diff --quiet base -- "$tests/mm" ||
		die "$tests/mm was changed: the kernel's own tests are to be run as they are"
	mkdir -p "$dir"
	(cd "$KTREE" && rsync -aR "$tests"/{mm,x86,lib.mk,kselftest.h} tools/include \
		include/vdso mm/gup_test.h lib/test_hmm_uapi.h "$dir")
	sed 's/^\(#define TEST_TIMEOUT_DEFAULT\) 30$/\1 240/' "$KTREE/$tests/kselftest_harness.h" > "$dir/harness.h"
	cmp -s "$dir/harness.h" "$dir/$tests/kselftest_harness.h" ||
		cp "$dir/harness.h" "$dir/$tests/kselftest_harness.h"
	# (khugepaged.c of some 6.12 releases lacks the header that has KSFT_SKIP)
	quiet "$dir/build.log" make -C "$dir/$tests/mm" -j "$JOBS" \
		EXTRA_CFLAGS="-w -DKSFT_SKIP=4" KHDR_INCLUDES="-isystem $BUILD/headers/include"
}

groups=(build test)
[ "${1:-}" != bench ] || groups=(build)
"$SCRIPTS/deps.sh" "${groups[@]}"
mkdir -p "$BUILD"
case ${1:-} in
bench)
	[ -f "$TOP/tools/cowpte-bench/Makefile" ] || die "there is no tools/cowpte-bench"
	quiet "$BUILD/user/build.log" make -C "$TOP/tools/cowpte-bench" -j "$JOBS" OUTPUT="$BUILD/user/"
	;;
selftests)
	[ -f "$TOP/tools/testing/selftests/cow_pte/Makefile" ] || die "there is no tools/testing/selftests/cow_pte"
	"$SCRIPTS/kernel.sh" -c debug
	headers "$KTREE" debug "$BUILD/headers"
	quiet "$BUILD/selftests/build.log" make -C "$TOP/tools/testing/selftests/cow_pte" -j "$JOBS" \
		OUTPUT="$BUILD/selftests" KSRC="$KTREE" \
		USERCFLAGS="-isystem $BUILD/headers/include"
	;;
mm)
	"$SCRIPTS/kernel.sh" -c debug
	headers "$KTREE" debug "$BUILD/headers"
	mm
	;;
*)
	die "usage: user.sh bench, selftests or mm"
	;;
esac
