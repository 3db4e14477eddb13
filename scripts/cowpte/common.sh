# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# Shared by all scripts of this directory: places, messages, small helpers.
# To be sourced, after "set -euo pipefail".
#
# shellcheck disable=SC2034 # what is set here is used where it is sourced

TOP=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd -P)
SCRIPTS=$TOP/scripts/cowpte
BUILD=$(realpath -m "${BUILD:-$TOP/build}")
KTREE=$BUILD/linux		# the kernel tree that is edited
STOCK=$BUILD/linux-stock	# the same base, untouched
MUTANT=$BUILD/mutant/linux	# a copy of build/linux, to be broken
PPC_ROOT=$BUILD/ppc64le-root	# the root directory of powerpc guests
PPC_CROSS=powerpc64le-linux-gnu-
MUTATIONS=tools/testing/selftests/cow_pte/mutations
SERIES=6.12
KERNEL_TIME="12 minutes"	# to build one from nothing on two cores
JOBS=${JOBS:-$(($(nproc) + 1))}
TOLD=69				# the status of who has said what was wrong

export KBUILD_BUILD_USER=cowpte
export KBUILD_BUILD_HOST=cowpte
# A constant date: otherwise no object that has it can come from the cache.
export KBUILD_BUILD_TIMESTAMP="2025-01-01 00:00:00 UTC"
export CCACHE_BASEDIR=$BUILD

# A caller's environment must not change what git prints or where it looks.
unset GIT_DIR GIT_WORK_TREE GIT_INDEX_FILE GIT_EXTERNAL_DIFF GIT_DIFF_OPTS
# The tree may belong to another user. Who runs these scripts has trusted it.
export GIT_CONFIG_COUNT=1 GIT_CONFIG_KEY_0=safe.directory GIT_CONFIG_VALUE_0=$KTREE
export LC_ALL=C

say()
{
	printf '%s: %s\n' "$(basename "$0" .sh)" "$*"
}

warn()
{
	printf '%s: %s\n' "$(basename "$0" .sh)" "$*" >&2
}

die()
{
	printf '%s: error: %s\n' "$(basename "$0" .sh)" "$*" >&2
	exit $TOLD
}

# unforeseen STATUS PLACE COMMAND: a command failed and nobody looked at how it
# ended
unforeseen()
{
	local command

	# bash goes on after this one: within $(...) it heeds no "set -e"
	[[ $- = *e* ]] || return 0
	case $1-$BASH_SUBSHELL in
	# told already by a script or a subshell that was called; stopped by ^C; or
	# nobody reads the rest, and who does not is to say if that was wrong
	$TOLD-*|130-*|141-[1-9]*) exit "$1" ;;
	esac
	command=${3%%$'\n'*}
	[ ${#command} -le 80 ] || command=${command:0:77}...
	die "${2#"$TOP"/}: failed with status $1: $command: what it said is above; if that does not help, bash -x $0 shows the way there"
}
set -E
trap 'unforeseen $? "${BASH_SOURCE[0]}:$LINENO" "$BASH_COMMAND"' ERR

# make and the kernel's command line, among others, cannot quote these.
[[ $TOP$BUILD != *[[:space:]:,]* ]] ||
	die "no blanks, colons or commas please in the path of this directory ($TOP) or in BUILD ($BUILD): move it, or set BUILD= to another place"

# need_space DIR GIB WHAT
need_space()
{
	local have

	have=$(df -BM --output=avail "$1" | tail -n 1 | tr -dc '0-9')
	[ "$have" -ge $(($2 * 1024)) ] ||
		die "$3 needs $2 GiB free in $1 and there are $((have / 1024)): make room, or set BUILD= to a directory elsewhere"
}

# hms SECONDS: 3m07s
hms()
{
	printf '%dm%02ds' $(($1 / 60)) $(($1 % 60))
}

# kernel_dir NAME: the output directory of a kernel by its short name
kernel_dir()
{
	case ${1#stock-} in
	perf|debug|kasan|kcsan|ppc64le-perf|ppc64le-debug)
		printf '%s/%s\n' "$BUILD" "$1"
		;;
	mutant)
		# As seen from here its source is where that of debug is, so that
		# the cache of the compiler has most objects already.
		printf '%s/mutant/kernel\n' "$BUILD"
		;;
	*)
		die "no kernel is called '$1': perf, debug, kasan, kcsan, mutant, ppc64le-perf, ppc64le-debug, or one of these with stock- before it"
		;;
	esac
}

# kernel_image NAME: what QEMU boots of it
kernel_image()
{
	case $1 in
	*ppc64le*) printf '%s/vmlinux\n' "$(kernel_dir "$1")" ;;
	*) printf '%s/arch/x86/boot/bzImage\n' "$(kernel_dir "$1")" ;;
	esac
}

# tree_exists: make build/linux if need be. One that is there is left alone: it may
# hold work that is not refreshed.
tree_exists()
{
	[ -d "$KTREE" ] || "$SCRIPTS/tree.sh"
}

# takes TIME [KERNEL...]: said before anything that is long, which needs these kernels
takes()
{
	local text="takes about $1 on two idle cores" name lack=''

	shift
	for name; do
		[ -e "$(kernel_dir "$name")/vmlinux" ] || lack+=" $name"
	done
	say "$text${lack:+, and $KERNEL_TIME for each kernel that is not built yet:$lack}"
}

# kmake SRC OUT ARGS...: for the architecture that the output directory is named for
kmake()
{
	local src=$1 out=$2 ccache='' arch=x86_64 cross=''

	shift 2
	! command -v ccache > /dev/null || ccache="ccache "
	if [[ $out = *ppc64le* ]]; then
		arch=powerpc
		cross=$PPC_CROSS
	fi
	# The build must not inherit the flags of a calling make.
	env -u MAKEFLAGS -u MFLAGS -u MAKELEVEL \
		make -C "$src" O="$out" ARCH=$arch CROSS_COMPILE="$cross" \
		CC="$ccache${cross}gcc" "$@"
}

# wanted FRAGMENT...: the options of these, the last word on each, one "NAME VALUE" a
# line
wanted()
{
	awk '/^CONFIG_/ { i = index($0, "="); v[substr($0, 1, i - 1)] = substr($0, i + 1) }
	     /^# CONFIG_.* is not set$/ { v[$2] = "n" }
	     END { for (s in v) print s, v[s] }' "$@" | sort
}

# lock: two builds at once would only be slower, and two in one directory wrong
lock()
{
	exec 9> "$BUILD/.kernel.lock"
	if ! flock -n 9; then
		say "waiting for another kernel build to end"
		flock 9
	fi
}
