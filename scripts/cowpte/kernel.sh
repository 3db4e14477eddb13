#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Build guest kernels, each into its own directory of build/:
#
#   kernel.sh [-c] [perf] [debug] [kasan] [kcsan] [stock-perf] [stock-debug] ...
#   kernel.sh mutant
#   kernel.sh [-c] [ppc64le-perf] [ppc64le-debug] [stock-ppc64le-perf] ...
#
# perf, debug, kasan and kcsan are built from build/linux; with stock- before it,
# from an untouched copy of the same base. Without a name: perf and debug.
# -c: only configure. mutant is a debug kernel from the copy of build/linux that
# mutations.sh breaks. Those for ppc64le are built by a cross-compiler.
set -euo pipefail
# shellcheck source=scripts/cowpte/common.sh
. "$(dirname "$0")/common.sh"
# shellcheck source=scripts/cowpte/overlay.sh
. "$SCRIPTS/overlay.sh"

configure_only=

# The untouched tree is an export of the tag, not a worktree, so that it lives
# on when build/linux is removed and made again.
stock_tree()
{
	local want

	want=$(git -C "$KTREE" rev-parse 'base^{tree}' 2>/dev/null) ||
		die "build/linux has no tag 'base': run make tree first"
	if [ -d "$STOCK" ] && [ "$(cat "$STOCK.stamp" 2>/dev/null)" = "$want" ]; then
		return
	fi
	say "exporting the untouched tree to ${STOCK#"$TOP"/}"
	rm -rf "$STOCK" "$STOCK.tmp" "$STOCK.stamp"
	mkdir -p "$STOCK.tmp"
	git -C "$KTREE" archive base | tar -x -C "$STOCK.tmp"
	mv "$STOCK.tmp" "$STOCK"
	printf '%s\n' "$want" > "$STOCK.stamp"
}

# Kconfig drops silently what it cannot do; a test kernel without its checks
# would be worse than none.
verify_config()
{
	local src=$1 out=$2 sym val got bad=()

	while read -r sym val; do
		got=$(grep -m 1 "^$sym=" "$out/.config" | cut -d= -f2-) || got=n
		[ "$got" = "$val" ] && continue
		case $sym in
		CONFIG_COW_PTE|CONFIG_COW_PTE_FILE|CONFIG_DEBUG_COW_PTE)
			grep -rqsE --include='Kconfig*' "^config ${sym#CONFIG_}\$" \
				"$src/mm" "$src/lib" || continue
			;;
		esac
		bad+=("$sym=$val (is $got)")
	done < <(wanted "$out/.fragments")
	[ ${#bad[@]} -eq 0 ] ||
		die "these options did not take effect: ${bad[*]}: mend scripts/cowpte/config/"
}

fragments()
{
	local name=${1#stock-} parts=(base)

	case $name in
	kasan|kcsan) parts+=(debug) ;;
	mutant) name=debug ;;
	esac
	parts+=("${name#ppc64le-}")
	[[ $name != ppc64le-* ]] || parts+=(ppc64le)
	parts=("${parts[@]/#/$SCRIPTS/config/}")
	cat "${parts[@]/%/.config}"
}

# kcsan_only: what to tell make, so that KCSAN looks at what the overlay adds or
# changes and at nothing else: all the rest has races of its own.
kcsan_only()
{
	local files

	files=$(overlay_items | sed -n '/^tools\//d; s/\.c\(\.patch\)\{0,1\}$//p' | xargs)
	# shellcheck disable=SC2016 # for make to expand, once for each object
	printf 'KCSAN_SANITIZE=$(if $(filter $(obj)/$(target-stem),%s),y,n)\n' "$files"
}

configure()
{
	local src=$1 out=$2 name=$3

	mkdir -p "$out"
	fragments "$name" > "$out/.fragments"
	# Rewrites .config only when something changed.
	kmake "$src" "$out" -s KCONFIG_ALLCONFIG="$out/.fragments" allnoconfig \
		> "$out/config.log" 2>&1 ||
		die "configuring $name failed, see ${out#"$TOP"/}/config.log: $(tail -n 1 "$out/config.log")"
	verify_config "$src" "$out"
}

# progress < BUILD_LOG: a line now and then
progress()
{
	awk '/^  (CC|AS) / && ++n % 250 == 0 {
		printf "  %d files compiled\n", n
		fflush()
	}'
}

build()
{
	local name=$1 src=$KTREE out start=$SECONDS options=() image

	out=$(kernel_dir "$name")
	image=$(kernel_image "$name")
	case $name in
	stock-*)
		stock_tree
		src=$STOCK
		;;
	mutant)
		src=$MUTANT
		[ -d "$src" ] || die "there is no ${src#"$TOP"/}: run make mutations"
		;;
	esac
	[[ ! -e $src/.config && ! -d $src/include/config ]] ||
		die "${src#"$TOP"/} was built in place: run make -C ${src#"$TOP"/} mrproper"
	if [ -n "$configure_only" ] && [ -e "$out/.config" ] &&
	   fragments "$name" | cmp -s - "$out/.fragments"; then
		return
	fi
	lock
	configure "$src" "$out" "$name"
	[ -z "$configure_only" ] || return 0
	if [ ! -e "$out/vmlinux" ]; then
		need_space "$BUILD" 4 "building the $name kernel"
		takes "$KERNEL_TIME"
	fi
	[[ $name != *kcsan ]] || mapfile -t options < <(kcsan_only)
	say "building $name (log: ${out#"$TOP"/}/build.log)"
	if ! kmake "$src" "$out" -j "$JOBS" "${options[@]}" "${image##*/}" 2>&1 |
	     tee "$out/build.log" | progress; then
		grep -nE -B 2 -A 12 '(error|Error|undefined reference)' "$out/build.log" | head -n 60 >&2
		die "the $name kernel does not build, see ${out#"$TOP"/}/build.log"
	fi
	# The compiler's warnings of our own files must not drown.
	grep -E 'warning:' "$out/build.log" >&2 || true
	say "$name is up to date after $(hms $((SECONDS - start))): ${image#"$TOP"/}"
}

if [ "${1:-}" = -c ]; then
	configure_only=1
	shift
fi
[ $# -gt 0 ] || set -- perf debug

for name; do
	kernel_dir "$name" > /dev/null
done

groups=(build)
[[ " $*" != *ppc64le* ]] || groups+=(ppc64le)
"$SCRIPTS/deps.sh" "${groups[@]}"
mkdir -p "$BUILD"
tree_exists
# (in braces: read as a whole, as this file may be edited while it builds)
{
	for name; do
		build "$name"
	done
	exit
}
