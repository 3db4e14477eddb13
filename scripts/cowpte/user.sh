#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Build the programs that run in guests, always from the overlay's own copy:
#
#   user.sh bench      build/user: cowpte, cowpte-bench
#   user.sh selftests  build/selftests: the selftests of this project
#   user.sh mm         build/mm: the kernel's own tests of memory management
#   user.sh ppc64le    build/ppc64le-root, the root directory of powerpc guests, and the
#                      selftests and cowpte-bench for them, below build/ppc64le
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

# ppc_root: Debian's packages for ppc64el, unpacked and not configured, which needs no
# emulator and is enough to run programs
ppc_root()
{
	local packages mirror suite stamp=$PPC_ROOT/.packages

	packages=bash,coreutils,dash,grep,sed,gawk,mount,util-linux,procps,findutils
	packages+=,libc-bin,iproute2,e2fsprogs,kmod,liburing-dev,libcap-dev,libnuma-dev,stress-ng
	[ "$(cat "$stamp" 2> /dev/null)" != "$packages" ] || return 0
	suite=$(. /etc/os-release && echo "$VERSION_CODENAME")
	# (security updates of different architectures may be out of step)
	# shellcheck disable=SC2016 # for apt-get to expand
	mirror=$(apt-get indextargets --format '$(REPO_URI) $(CODENAME)' 'Created-By: Packages' |
		awk -v suite="$suite" '$2 == suite { print $1; exit }')
	[ -n "$mirror" ] || die "apt knows no source for Debian $suite: add one to /etc/apt/sources.list"
	say "unpacking packages of Debian's ppc64el into ${PPC_ROOT#"$TOP"/}"
	rm -rf "$PPC_ROOT"
	mmdebstrap --quiet --variant=extract --architectures=ppc64el --include="$packages" \
		"$suite" "$PPC_ROOT" "deb $mirror $suite main" > "$PPC_ROOT.log" 2>&1 ||
		die "mmdebstrap failed, see $PPC_ROOT.log: $(tail -n 1 "$PPC_ROOT.log")"
	# What their maintainer scripts would have done
	ln -sf gawk "$PPC_ROOT/usr/bin/awk"
	ln -sf dash "$PPC_ROOT/bin/sh"
	echo "root:x:0:0::/root:/bin/bash" > "$PPC_ROOT/etc/passwd"
	echo "root:x:0:" > "$PPC_ROOT/etc/group"
	echo "$packages" > "$stamp"
}

ppc64le()
{
	local out=$BUILD/ppc64le usr=$PPC_ROOT/usr triplet=powerpc64le-linux-gnu flags

	ppc_root
	"$SCRIPTS/kernel.sh" -c ppc64le-debug
	headers "$KTREE" ppc64le-debug "$BUILD/ppc64le-headers"
	# Libraries are those of the guest; without pkg-config, which knows the host's.
	flags="-isystem $BUILD/ppc64le-headers/include -idirafter $usr/include"
	flags+=" -idirafter $usr/include/$triplet -DHAVE_LIBURING -DHAVE_LIBCAP"
	quiet "$out/selftests.log" make -C "$TOP/tools/testing/selftests/cow_pte" -j "$JOBS" \
		OUTPUT="$out/selftests" KSRC="$KTREE" CC="${PPC_CROSS}gcc" PKG_CONFIG=false \
		USERCFLAGS="$flags" USERLDFLAGS="-static -L$usr/lib/$triplet" \
		LDLIBS="-pthread -luring -lcap"
	quiet "$out/user.log" make -C "$TOP/tools/cowpte-bench" -j "$JOBS" OUTPUT="$out/user/" \
		CC="${PPC_CROSS}gcc" LDFLAGS=-static
}

groups=(build test)
case ${1:-} in
bench) groups=(build) ;;
ppc64le) groups=(build ppc64le) ;;
esac
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
ppc64le)
	ppc64le
	;;
mm)
	"$SCRIPTS/kernel.sh" -c debug
	headers "$KTREE" debug "$BUILD/headers"
	mm
	;;
*)
	die "usage: user.sh bench, selftests, mm or ppc64le"
	;;
esac
