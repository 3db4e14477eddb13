#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Build the programs that run in guests, always from the overlay's own copy:
#
#   user.sh bench      build/user: cowpte, cowpte-bench
#   user.sh selftests  build/selftests: the selftests of this project
#   user.sh cow        build/cow/cow: the kernel's own test of copy-on-write
#   user.sh cow-stock  build/cow-stock/cow: the same, from the untouched tree
set -euo pipefail
# shellcheck source=scripts/cowpte/common.sh
. "$(dirname "$0")/common.sh"

WARN="-Wall -Wextra"

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

# cow SRC HEADERS DIR: by hand and not by the Makefile beside it, which would
# write into the source tree and wants to build all of its tests
cow()
{
	local mm=$1/tools/testing/selftests/mm

	mkdir -p "$3"
	printf '#define LOCAL_CONFIG_HAVE_LIBURING 1\n' > "$3/local_config.h"
	quiet "$3/build.log" gcc -O2 -w -U_FORTIFY_SOURCE -D_GNU_SOURCE= -I"$3" -I"$1" \
		-isystem "$2/include" -I"$1/tools/testing/selftests" \
		"$mm/cow.c" "$mm/vm_util.c" "$mm/thp_settings.c" -o "$3/cow" \
		-luring -lrt -lpthread -lm
}

"$SCRIPTS/deps.sh" -q build test
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
		USERCFLAGS="$WARN -isystem $BUILD/headers/include"
	;;
cow)
	"$SCRIPTS/kernel.sh" -c debug
	headers "$KTREE" debug "$BUILD/headers"
	cow "$KTREE" "$BUILD/headers" "$BUILD/cow"
	;;
cow-stock)
	"$SCRIPTS/kernel.sh" -c stock-debug
	headers "$STOCK" stock-debug "$BUILD/headers-stock"
	cow "$STOCK" "$BUILD/headers-stock" "$BUILD/cow-stock"
	;;
*)
	die "usage: user.sh bench, selftests, cow or cow-stock"
	;;
esac
