#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Debian packages, in build/packages: a kernel with the feature, its headers, and
# cowpte, the tools with their manual pages, completion and a drop-in for systemd:
#
#   deb.sh            both
#   deb.sh tools      only the tools
#
# CONFIG in the environment chooses the kernel's configuration:
#
#   debian   Debian's own (the default; more than an hour to build on two cores)
#   cloud    Debian's for virtual machines (less than half of that)
#   running  that of the kernel that runs here, with the modules that are loaded now
#   small    for virtual machines of QEMU; what make deb-test installs (10 minutes)
#   FILE     that file
#
# It has no debug information (and so no BTF), and is not signed.
set -euo pipefail
# shellcheck source=scripts/cowpte/common.sh
. "$(dirname "$0")/common.sh"

OUT=$BUILD/packages
KOUT=$OUT/kernel-${CONFIG:-debian}
CONFIG=${CONFIG:-debian}

# debian_config FLAVOUR
debian_config()
{
	local file=/usr/src/linux-config-$SERIES/config.amd64_none_$1.xz

	[ -e "$file" ] || die "there is no $file: apt-get install linux-config-$SERIES"
	xz -dc "$file"
}

running_config()
{
	local file

	file=/boot/config-$(uname -r)
	if [ -r "$file" ]; then
		cat "$file"
	elif [ -r /proc/config.gz ]; then
		gzip -dc /proc/config.gz
	else
		die "neither $file nor /proc/config.gz is there: give CONFIG= a file, or debian"
	fi
}

# Whatever it is called and wherever it comes from: with the feature, and without what
# needs keys or tools of who configured it.
adapt()
{
	(cd "$KOUT" && "$KTREE/scripts/config" --enable COW_PTE --enable COW_PTE_FILE \
		--disable DEBUG_COW_PTE --set-str LOCALVERSION "" --disable LOCALVERSION_AUTO \
		--set-str SYSTEM_TRUSTED_KEYS "" --set-str SYSTEM_REVOCATION_KEYS "" \
		--disable DEBUG_INFO --enable DEBUG_INFO_NONE \
		--disable DEBUG_INFO_DWARF_TOOLCHAIN_DEFAULT --disable DEBUG_INFO_DWARF4 \
		--disable DEBUG_INFO_DWARF5 --disable DEBUG_INFO_BTF)
}

configure()
{
	local parts

	mkdir -p "$KOUT"
	case $CONFIG in
	small)
		parts=("$SCRIPTS"/config/{base,perf,deb}.config)
		cat "${parts[@]}" > "$KOUT/.fragments"
		kmake "$KTREE" "$KOUT" -s KCONFIG_ALLCONFIG="$KOUT/.fragments" allnoconfig
		return
		;;
	debian) debian_config amd64 > "$KOUT/.config" ;;
	cloud) debian_config cloud-amd64 > "$KOUT/.config" ;;
	running) running_config > "$KOUT/.config" ;;
	*) cat "$CONFIG" > "$KOUT/.config" ;;
	esac
	adapt
	kmake "$KTREE" "$KOUT" -s olddefconfig
	if [ "$CONFIG" = running ]; then
		lsmod > "$KOUT/lsmod"
		kmake "$KTREE" "$KOUT" -s LSMOD="$KOUT/lsmod" localmodconfig < /dev/null
	fi
}

kernel()
{
	local version start=$SECONDS

	lock
	configure > "$OUT/config.log" 2>&1 ||
		die "configuring failed, see ${OUT#"$TOP"/}/config.log: $(tail -n 1 "$OUT/config.log")"
	grep -q '^CONFIG_COW_PTE=y' "$KOUT/.config" ||
		die "CONFIG=$CONFIG does not allow for COW_PTE: it takes 64 bits and an MMU"
	version=$(kmake "$KTREE" "$KOUT" -s kernelversion)
	say "building $version-cowpte, configuration '$CONFIG' (log: ${OUT#"$TOP"/}/build.log)"
	rm -f "$OUT"/linux-*.deb "$OUT"/linux-*.buildinfo "$OUT"/linux-*.changes
	# (a package's directory is the parent of the one where it is built)
	kmake "$KTREE" "$KOUT" -j "$JOBS" LOCALVERSION=-cowpte \
		KDEB_PKGVERSION="$version-1" bindeb-pkg 2>&1 | tee "$OUT/build.log" |
		awk '/^  (CC|AS) / && ++n % 500 == 0 { printf "  %d files compiled\n", n; fflush() }' ||
		die "the kernel does not build, see ${OUT#"$TOP"/}/build.log"
	# the C library's headers are the distribution's
	rm -f "$OUT"/linux-libc-dev_*.deb
	say "the kernel took $(hms $((SECONDS - start)))"
}

# gz FILE TO
gz()
{
	install -d "$(dirname "$2")"
	gzip -9nc "$1" > "$2"
	chmod 644 "$2"
}

tools()
{
	local src=$TOP/tools/cowpte-bench root=$OUT/cowpte doc version arch name

	"$SCRIPTS/user.sh" bench
	version=$(sed -n 's/^#define COWPTE_VERSION[[:space:]]*"\(.*\)"/\1/p' "$src/common.h")
	arch=$(dpkg --print-architecture)
	doc=$root/usr/share/doc/cowpte
	rm -rf "$root" "$OUT"/cowpte_*.deb
	install -D -t "$root/usr/bin" "$BUILD/user/cowpte" "$BUILD/user/cowpte-bench" "$src/perf-compare"
	strip "$root/usr/bin/cowpte" "$root/usr/bin/cowpte-bench"
	for name in cowpte cowpte-bench perf-compare; do
		gz "$src/$name.1" "$root/usr/share/man/man1/$name.1.gz"
	done
	install -D -m 644 "$src/cowpte.bash" "$root/usr/share/bash-completion/completions/cowpte"
	install -D -m 644 -t "$doc/examples" "$src/cowpte.conf"
	gz "$TOP/Documentation/admin-guide/mm/cow_pte.rst" "$doc/cow_pte.rst.gz"
	install -D -m 644 "$TOP/LICENSE" "$doc/copyright"
	install -d "$root/DEBIAN"
	cat > "$root/DEBIAN/control" <<-END
		Package: cowpte
		Version: $version
		Architecture: $arch
		Maintainer: cow_pte <linux-mm@kvack.org>
		Section: admin
		Priority: optional
		Depends: libc6 (>= 2.36)
		Suggests: linux-perf
		Description: let processes share page tables at fork
		 Switches processes to copy-on-write page tables, shows what they share, and
		 measures what that saves. It takes a kernel with CONFIG_COW_PTE.
	END
	dpkg-deb --root-owner-group -Zxz --build "$root" "$OUT/cowpte_${version}_$arch.deb" > "$OUT/tools.log"
	rm -rf "$root"
}

main()
{
	local time config

	case ${1:-all} in
	all|tools) ;;
	*) die "usage: deb.sh [tools]" ;;
	esac
	case $CONFIG in
	debian) time="1 to 2 hours" config=config ;;
	cloud) time="about 40 minutes" config=config ;;
	small) time="10 minutes" config='' ;;
	running) time="half an hour, as the modules are" config='' ;;
	*)
		[ -f "$CONFIG" ] || die "CONFIG is debian, cloud, running, small or a file, not '$CONFIG'"
		CONFIG=$(realpath "$CONFIG")
		KOUT=$OUT/kernel-file
		time="a while, as the file is"
		config=''
		;;
	esac
	[ "$(uname -m)" = x86_64 ] || die "packages can be built on x86-64 only"
	mkdir -p "$OUT"
	if [ "${1:-all}" = all ]; then
		# shellcheck disable=SC2086 # none, or one
		"$SCRIPTS/deps.sh" build deb $config
		tree_exists
		need_space "$BUILD" "$([ "$CONFIG" = small ] && echo 4 || echo 20)" "building a kernel package"
		say "takes $time on two idle cores"
		kernel
	fi
	tools
	(cd "$OUT" && ls -- *.deb) | sed "s|^|deb: ${OUT#"$TOP"/}/|"
}

# (a function: read as a whole, as this file may be edited while it builds)
main "$@"; exit
