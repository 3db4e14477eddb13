#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Install those of the needed Debian packages that are missing, after saying which.
# DEPS=no, or who is not root, is only told.
#
#   deps.sh [GROUP...]
#
# Groups: build, verify, guest, redis, test, soak (these if none is named: what make
# check and make bench need); bench, for all benchmarks; static, for make static;
# ppc64le, for kernels and guests of that architecture; deb, config and image, for
# make deb and make deb-test.
set -euo pipefail
# shellcheck source=scripts/cowpte/common.sh
. "$(dirname "$0")/common.sh"

build_pkgs=(build-essential bc bison flex libelf-dev libssl-dev git patch rsync
	    kmod cpio xz-utils perl python3)
# (checkpatch.pl wants python3-git and python3-ply to read licence tags)
verify_pkgs=(shellcheck python3-git python3-ply)
guest_pkgs=(qemu-system-x86 iproute2 e2fsprogs)
redis_pkgs=(redis-server redis-tools)
# what the selftests and the kernel's own mm tests link or run
test_pkgs=(liburing-dev libcap-dev libnuma-dev bsdextrautils criu)

# what "make soak" runs beside the selftests
soak_pkgs=(stress-ng trinity)

# what only "make bench-full" and the workloads on real hardware need
bench_pkgs=(afl++ libsqlite3-dev gnuplot-nox linux-perf stress-ng perl python3
	    postgresql)

# a cross-compiler, and what its guests are made of
ppc64le_pkgs=(gcc-powerpc64le-linux-gnu libc6-dev-ppc64el-cross qemu-system-ppc
	      mmdebstrap ca-certificates)

# what only "make deb" needs, Debian's configurations, and what only "make deb-test"
# needs
deb_pkgs=(debhelper dpkg-dev)
config_pkgs=(linux-config-6.12)
image_pkgs=(mmdebstrap ca-certificates qemu-system-x86 e2fsprogs fdisk)

# what only "make static" runs
static_pkgs=(sparse coccinelle)

packages()
{
	local group

	for group; do
		case $group in
		build) printf '%s\n' "${build_pkgs[@]}" ;;
		verify) printf '%s\n' "${verify_pkgs[@]}" ;;
		guest) printf '%s\n' "${guest_pkgs[@]}" ;;
		redis) printf '%s\n' "${redis_pkgs[@]}" ;;
		test) printf '%s\n' "${test_pkgs[@]}" ;;
		bench) printf '%s\n' "${bench_pkgs[@]}" ;;
		soak) printf '%s\n' "${soak_pkgs[@]}" ;;
		deb) printf '%s\n' "${deb_pkgs[@]}" ;;
		config) printf '%s\n' "${config_pkgs[@]}" ;;
		image) printf '%s\n' "${image_pkgs[@]}" ;;
		static) printf '%s\n' "${static_pkgs[@]}" ;;
		ppc64le) printf '%s\n' "${ppc64le_pkgs[@]}" ;;
		*) die "no such group of packages: $group (build, verify, guest, redis, test, bench, soak, static, ppc64le, deb, config or image)" ;;
		esac
	done
}

if ! command -v dpkg-query > /dev/null; then
	warn "not a Debian system: cannot tell whether the tools are installed"
	exit 0
fi
[ $# -gt 0 ] || set -- build verify guest redis test soak
want=$(packages "$@" | sort -u)
# shellcheck disable=SC2086 # one word for each package; fails if one is not known
have=$(dpkg-query -W -f '${db:Status-Abbrev} ${Package}\n' $want 2> /dev/null |
	awk '$1 == "ii" { print $2 }' | sort -u) || true
mapfile -t lack < <(comm -23 <(echo "$want") <(echo "$have"))
[ ${#lack[@]} -gt 0 ] || exit 0

get="apt-get install --no-install-recommends ${lack[*]}"
case ${DEPS:-yes} in
yes) ;;
no) die "packages are missing and DEPS=no: as root, $get" ;;
*) die "DEPS is yes or no, not '$DEPS'" ;;
esac
[ "$(id -u)" -eq 0 ] || die "packages are missing and installing needs root: $get"
say "installing these Debian packages, and what they depend on (DEPS=no refuses): ${lack[*]}"

export DEBIAN_FRONTEND=noninteractive
# (somebody else may be installing)
options=(-qq -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0)
apt-get "${options[@]}" update ||
	die "apt-get update failed: check the network and the package sources"
# (how much it is; apt-get fails as it is not to do it)
{ apt-get install --assume-no --no-install-recommends "${lack[@]}" || true; } 2> /dev/null |
	sed -n 's/^Need to get .*/deps: & This takes a few minutes./p'
# A package must not start its daemon here (redis-server would).
policy=/usr/sbin/policy-rc.d
if [ ! -e $policy ]; then
	trap 'rm -f $policy' EXIT
	printf '#!/bin/sh\nexit 101\n' > $policy
	chmod 755 $policy
fi
mkdir -p "$BUILD"
apt-get "${options[@]}" install -y --no-install-recommends "${lack[@]}" > "$BUILD/deps.log" 2>&1 || {
	tail -n 20 "$BUILD/deps.log" >&2
	die "apt-get could not install all of it, see ${BUILD#"$TOP"/}/deps.log: check the package sources, then apt-get install ${lack[*]}"
}
say "installed after $(hms $SECONDS)"
