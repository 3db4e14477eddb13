#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Does it build in other configurations than those that are run? For each of them
# the objects of the files that the overlay adds or changes, and those of arch/x86/mm,
# which its headers change, and nothing else:
#
#   matrix.sh [NAME...]	these, or all; quick: those that differ most
#
# An error or a warning fails a configuration; with W=1 only a warning about a line
# that the overlay has added, as others are the kernel's own. The last line is "N
# passed, N failed"; the logs are in build/matrix.
set -euo pipefail
# shellcheck source=scripts/cowpte/common.sh
. "$(dirname "$0")/common.sh"
# shellcheck source=scripts/cowpte/overlay.sh
. "$SCRIPTS/overlay.sh"
# shellcheck source=scripts/cowpte/tests.sh
. "$SCRIPTS/tests.sh"

OUT=$BUILD/matrix
# One directory for all: what prepares a build is the same, or nearly so.
KOUT=$OUT/kernel
ALL=(tiny no-migration no-swap no-thp no-ksm no-numa no-memcg no-uffd no-hugetlb rt
     debug off w1)
QUICK=(tiny no-migration no-thp off)

# settings NAME: what it is, beside the configuration that it begins with. With an
# option go those that would select it.
settings()
{
	case $1 in
	tiny) echo 64BIT=y SMP=y COW_PTE=y ;;
	no-migration) echo MIGRATION=n COMPACTION=n CMA=n TRANSPARENT_HUGEPAGE=n ;;
	no-swap) echo SWAP=n ;;
	no-thp) echo TRANSPARENT_HUGEPAGE=n ;;
	no-ksm) echo KSM=n ;;
	no-numa) echo NUMA=n ;;
	no-memcg) echo MEMCG=n ;;
	no-uffd) echo USERFAULTFD=n ;;
	no-hugetlb) echo HUGETLBFS=n CGROUP_HUGETLB=n HUGETLB_PAGE=n ;;
	rt) echo EXPERT=y PREEMPT_VOLUNTARY=n PREEMPT_RT=y ;;
	debug) echo DEBUG_KERNEL=y DEBUG_COW_PTE=y ;;
	off) echo COW_PTE=n ;;
	w1) ;;
	*) die "there is no configuration '$1': ${ALL[*]}" ;;
	esac
}

# fragments NAME
fragments()
{
	local word

	if [ "$1" = tiny ]; then
		cat "$KTREE"/kernel/configs/tiny{-base,}.config "$KTREE"/arch/x86/configs/tiny.config
	else
		cat "$SCRIPTS"/config/{base,perf}.config
	fi
	for word in $(settings "$1"); do
		if [ "${word#*=}" = n ]; then
			printf '# CONFIG_%s is not set\n' "${word%=*}"
		else
			printf 'CONFIG_%s\n' "$word"
		fi
	done
}

# configure NAME: tells what Kconfig made otherwise. That options go with one that
# is off is as it should be; but its own have to be as they were asked for.
configure()
{
	local sym val got own gone=() bad=()

	fragments "$1" > "$KOUT/.fragments"
	kmake "$KTREE" "$KOUT" -s KCONFIG_ALLCONFIG="$KOUT/.fragments" allnoconfig \
		> "$OUT/$1.config.log" 2>&1 ||
		{ tail -n 5 "$OUT/$1.config.log"; return 1; }
	cp "$KOUT/.config" "$OUT/$1.config"
	own=" $(settings "$1") "
	while read -r sym val; do
		got=$(grep -m 1 "^$sym=" "$KOUT/.config" | cut -d= -f2-) || got=n
		[ "$got" != "$val" ] || continue
		if [[ $own = *" ${sym#CONFIG_}="* ]]; then
			bad+=("$sym=$val (is $got)")
		else
			gone+=("${sym#CONFIG_}=$got")
		fi
	done < <(wanted "$KOUT/.fragments")
	[ ${#gone[@]} -eq 0 ] || printf '%s: with that: %s\n' "$1" "${gone[*]}"
	[ ${#bad[@]} -eq 0 ] || printf '%s: did not take effect: %s\n' "$1" "${bad[*]}"
	[ ${#bad[@]} -eq 0 ]
}

# made DIR: what Kbuild makes there as it is configured: objects, directories
made()
{
	local file=Makefile

	[ ! -f "$KTREE/$1/Kbuild" ] || file=Kbuild
	# shellcheck disable=SC2016 # all for make to expand
	printf '%s\n' '.PHONY: print' \
		'parts = $(or $(strip $($(1:.o=-y)) $($(1:.o=-objs))),$1)' \
		'print: ; @printf "%s\n" $(foreach o,$(obj-y),$(call parts,$o))' \
		'include $(objtree)/include/config/auto.conf' \
		"include \$(srctree)/\$(obj)/$file" |
		env -u MAKEFLAGS -u MFLAGS -u MAKELEVEL \
			make -s -C "$KTREE" -f - obj="$1" src="$1" srctree="$KTREE" \
			objtree="$KOUT" SRCARCH=x86 BITS=64 print
}

# enabled DIR: does Kbuild go there?
enabled()
{
	[[ $1 != */* ]] || made "${1%/*}" | grep -qxF "${1##*/}/"
}

# objects: those to be built
objects()
{
	local files dir

	files=$(overlay_items | sed -n '/^tools\//d; /^arch\/powerpc\//d; s/\.c\(\.patch\)\{0,1\}$/.o/p')
	xargs dirname <<< "$files" | sort -u | while read -r dir; do
		enabled "$dir" || continue
		made "$dir" | sed -n "/\.o$/s,^,$dir/,p" | if [ "$dir" = arch/x86/mm ]; then
			# all that are of C
			while read -r path; do
				[ ! -f "$KTREE/${path%.o}.c" ] || printf '%s\n' "$path"
			done
		else
			grep -xF "$files" || true
		fi
	done | sort -u
}

# added: the lines of the tree that are the overlay's, one "FILE FIRST LAST" a line
added()
{
	local path

	tgit diff --no-renames -U0 base -- | awk '
		/^\+\+\+ b\// { path = substr($0, 7) }
		/^@@ / {
			split(substr($3, 2), a, ",")
			n = 2 in a ? a[2] : 1
			if (n)
				print path, a[1], a[1] + n - 1
		}'
	overlay_items | sed '/\.patch$/d' | while read -r path; do
		printf '%s 1 1000000\n' "$path"
	done
}

# complaints LOG: errors and warnings, with paths as in the tree
complaints()
{
	sed -E -e "s,$KTREE/,,g; s,^((\.\./)+linux/|(\./)+),," "$1" |
		grep -E '(error|warning): |undefined reference|^make.*\*\*\*' |
		grep -vE '^make.*(Error 2|not remade because of errors)' || true
}

# ours: of these, the errors, and the warnings about the overlay's lines
ours()
{
	added > "$OUT/added"
	awk -F : 'NR == FNR { split($0, a, " "); n = ++nr[a[1]]; first[a[1], n] = a[2];
			      last[a[1], n] = a[3]; next }
		!/warning: / { print; next }
		{
			for (i = 1; i <= nr[$1]; i++)
				if ($2 >= first[$1, i] && $2 <= last[$1, i]) {
					print
					break
				}
		}' "$OUT/added" -
}

build()
{
	local name=$1 log=$OUT/$1.log options=() list status=0

	[ "$name" != w1 ] || options=(W=1)
	kmake "$KTREE" "$KOUT" -j "$JOBS" prepare > "$OUT/$name.prepare.log" 2>&1 ||
		{ tail -n 5 "$OUT/$name.prepare.log"; return 1; }
	mapfile -t list < <(objects)
	# What a configuration has in common with the one before it is up to date, and
	# would not be warned about again.
	[ -e "$KOUT/.quiet" ] ||
		(cd "$KOUT" && find arch fs kernel mm -name '*.o' -delete 2> /dev/null) || true
	rm -f "$KOUT/.quiet"
	kmake "$KTREE" "$KOUT" -k -j "$JOBS" "${options[@]}" "${list[@]}" > "$log" 2>&1 || status=$?
	complaints "$log" > "$OUT/$name.complaints"
	if [ "$status" -eq 0 ] && [ ! -s "$OUT/$name.complaints" ]; then
		touch "$KOUT/.quiet"
	fi
	if [ "$name" = w1 ]; then
		ours < "$OUT/$name.complaints" > "$OUT/$name.ours"
		mv "$OUT/$name.ours" "$OUT/$name.complaints"
	fi
	head -n 20 "$OUT/$name.complaints"
	built=$(cd "$KOUT" && find "${list[@]}" 2> /dev/null | wc -l)
	[ "$status" -eq 0 ] && [ ! -s "$OUT/$name.complaints" ]
}

# check NAME: count one configuration
check()
{
	local status=0 start=$SECONDS built=0

	lock
	{ configure "$1" && build "$1"; } || status=1
	result $status "$1: $built objects ($(hms $((SECONDS - start))))"
}

main()
{
	local name

	[ "${1:-}" != quick ] || set -- "${QUICK[@]}"
	[ $# -gt 0 ] || set -- "${ALL[@]}"
	for name; do
		settings "$name" > /dev/null
	done
	"$SCRIPTS/deps.sh" build
	mkdir -p "$BUILD"
	tree_exists
	check_tree
	mkdir -p "$KOUT"
	trap summary EXIT
	for name; do
		check "$name"
	done
}
# (a function: read as a whole, as this file may be edited while it builds)
main "$@"; exit
