#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Which Debian packages are needed, and install those that are missing.
#
#   deps.sh [GROUP...]    install what is missing (as root)
#   deps.sh -q [GROUP...] only check; one line that says what to install
#
# Groups: build, guest, test, soak (these if none is named: what make check
# needs); bench, for all benchmarks; static, for make static.
set -euo pipefail
# shellcheck source=scripts/cowpte/common.sh
. "$(dirname "$0")/common.sh"

# (checkpatch.pl wants python3-git and python3-ply to read licence tags)
build_pkgs=(build-essential bc bison flex libelf-dev libssl-dev git patch rsync
	    kmod cpio xz-utils perl python3 python3-git python3-ply)
guest_pkgs=(qemu-system-x86 iproute2 e2fsprogs)
# what the selftests, the kernel's own mm tests and the workloads link or run
test_pkgs=(liburing-dev libcap-dev libnuma-dev redis-server redis-tools)

# what "make soak" runs beside the selftests
soak_pkgs=(stress-ng trinity)

# what only "make bench-full" and the workloads on real hardware need
bench_pkgs=(afl++ libsqlite3-dev gnuplot-nox linux-perf stress-ng redis-server
	    redis-tools perl python3)

# what only "make static" runs
static_pkgs=(sparse coccinelle)

packages()
{
	local group

	for group; do
		case $group in
		build) printf '%s\n' "${build_pkgs[@]}" ;;
		guest) printf '%s\n' "${guest_pkgs[@]}" ;;
		test) printf '%s\n' "${test_pkgs[@]}" ;;
		bench) printf '%s\n' "${bench_pkgs[@]}" ;;
		soak) printf '%s\n' "${soak_pkgs[@]}" ;;
		static) printf '%s\n' "${static_pkgs[@]}" ;;
		*) die "no such group of packages: $group (build, guest, test, bench, soak or static)" ;;
		esac
	done
}

missing()
{
	local want

	want=$(packages "$@")
	# shellcheck disable=SC2086 # one word for each package
	comm -23 <(sort -u <<< "$want") \
		<(dpkg-query -W -f '${db:Status-Abbrev} ${Package}\n' $want 2> /dev/null |
			awk '$1 == "ii" { print $2 }' | sort -u)
}

check=
if [ "${1:-}" = -q ]; then
	check=1
	shift
fi
[ $# -gt 0 ] || set -- build guest test soak

if ! command -v dpkg-query > /dev/null; then
	warn "not a Debian system: cannot tell whether the tools are installed"
	exit 0
fi
mapfile -t lack < <(missing "$@")
[ ${#lack[@]} -gt 0 ] || exit 0

if [ -n "$check" ]; then
	target=deps
	for group in bench static; do
		[[ " $* " != *" $group "* ]] || target=deps-$group
	done
	die "packages are missing: run make $target as root, or apt-get install ${lack[*]}"
fi
[ "$(id -u)" -eq 0 ] ||
	die "installing needs root: apt-get install ${lack[*]}"
say "installing ${lack[*]}"
export DEBIAN_FRONTEND=noninteractive
apt-get -qq update ||
	die "apt-get update failed: check the network and the package sources"
# A package must not start its daemon here (redis-server would).
policy=/usr/sbin/policy-rc.d
if [ ! -e $policy ]; then
	trap 'rm -f $policy' EXIT
	printf '#!/bin/sh\nexit 101\n' > $policy
	chmod 755 $policy
fi
apt-get -qq install -y --no-install-recommends "${lack[@]}" ||
	die "apt-get could not install: ${lack[*]}"
