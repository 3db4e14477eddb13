#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# What do static checkers say of the files that the overlay adds or changes,
# that they do not say of the untouched ones? gcc W=1, sparse, smatch if it is
# installed, the kernel's semantic patches for coccinelle, checkpatch --strict.
#
#   static.sh [CHECK...]	gcc sparse smatch coccinelle checkpatch
#
# expect/static has findings that were looked at and are to stay, each with the
# reason. The last line is "N passed, N failed"; all findings are in build/static.
set -euo pipefail
# shellcheck source=scripts/cowpte/common.sh
. "$(dirname "$0")/common.sh"
# shellcheck source=scripts/cowpte/overlay.sh
. "$SCRIPTS/overlay.sh"
# shellcheck source=scripts/cowpte/tests.sh
. "$SCRIPTS/tests.sh"

OUT=$BUILD/static
EXPECT=$SCRIPTS/expect/static
# Seconds for one semantic patch on all files; a few take for ever on large ones.
COCCI_LIMIT=${COCCI_LIMIT:-90}

# Two sides, each with a build directory: ours and the untouched one.
tree_of()
{
	[ "$1" = ours ] && printf '%s\n' "$KTREE" || printf '%s\n' "$STOCK"
}

# files SIDE PATTERN: those of the overlay that are there
files()
{
	local path tree

	tree=$(tree_of "$1")
	overlay_items | sed -n "/^\(tools\|Documentation\|arch\/powerpc\)\//d; s/\.patch$//; /$2/p" | while read -r path; do
		[ ! -f "$tree/$path" ] || printf '%s\n' "$path"
	done
}

# prepare SIDE: configured as the debug kernel is, with all that is generated
prepare()
{
	local out=$OUT/$1

	mkdir -p "$out"
	cat "$SCRIPTS/config/"{base,debug}.config > "$out/.fragments"
	kmake "$(tree_of "$1")" "$out" -s KCONFIG_ALLCONFIG="$out/.fragments" allnoconfig &&
	kmake "$(tree_of "$1")" "$out" -j "$JOBS" prepare
}

# objects SIDE MAKE-ARGUMENT...: build (or check) the objects of the C files
objects()
{
	local side=$1 list

	shift
	mapfile -t list < <(files "$side" '\.c$' | sed 's/\.c$/.o/')
	# (-k: a checker's error in one file says nothing of the others)
	kmake "$(tree_of "$side")" "$OUT/$side" -k -j "$JOBS" W=1 "$@" "${list[@]}" 2>&1
}

# (coccicheck runs all of them on one file at a time, and takes hours.) On the
# untouched files only those that have something to say of ours.
coccinelle()
{
	local side=$1 cocci list include said=$OUT/$1-cocci

	cd "$(tree_of "$side")"
	mapfile -t list < <(files "$side" '\.[ch]$')
	include=(-I arch/x86/include -I "$OUT/$side/arch/x86/include/generated" -I include
		 -I "$OUT/$side/include" -I arch/x86/include/uapi -I include/uapi)
	rm -rf "$said"
	mkdir -p "$said"
	find scripts/coccinelle -name '*.cocci' | sort | while read -r cocci; do
		grep -q '^virtual report' "$cocci" || continue
		[ "$side" = ours ] || [ -s "$OUT/ours-cocci/$(basename "$cocci")" ] || continue
		printf '%s\n' "$cocci"
	done > "$OUT/$side.cocci"
	# shellcheck disable=SC2016 # for the shell that xargs starts
	xargs -P "$JOBS" -I {} bash -c '
		cocci=$1 limit=$2 said=$3
		shift 3
		read -r -a options < <(sed -n "s,^// Options: ,,p" "$cocci")
		timeout -k 5 "$limit" spatch -D report --very-quiet --cocci-file "$cocci" \
			"${options[@]}" "$@" 2> /dev/null > "$said/${cocci##*/}"
		[ $? -ne 124 ] || echo "$cocci: stopped after $limit s" >&2
		' - {} "$COCCI_LIMIT" "$said" "${include[@]}" "${list[@]}" < "$OUT/$side.cocci"
	cat "$said"/*
}

checkpatch()
{
	local path ignore

	cd "$(tree_of "$1")"
	# (Debian's python3 first: it has the modules that checkpatch's helper imports)
	files "$1" '\.[chS]$\|Kconfig\|Makefile$' | while read -r path; do
		# the way TRACE_EVENT() is written throughout the kernel, see verify.sh
		ignore=()
		[[ $path != include/trace/events/* ]] ||
			ignore=(--ignore "PARENTHESIS_ALIGNMENT,OPEN_ENDED_LINE")
		PATH=/usr/bin:/bin:$PATH perl scripts/checkpatch.pl --strict --terse --no-summary \
			--quiet --show-types "${ignore[@]}" -f "$path" || true
	done
}

# run CHECK SIDE
run()
{
	case $1 in
	gcc)
		# What is up to date would not be warned about again.
		(cd "$OUT/$2" && files "$2" '\.c$' | sed 's/\.c$/.o/' | xargs rm -f)
		objects "$2"
		;;
	# (with a column; what gcc says has an option behind it, kernel-doc neither)
	sparse) objects "$2" C=2 CHECK=sparse | grep -E '^  CHECK|:[0-9]+:[0-9]+:' | grep -v '\[-W' ;;
	smatch) objects "$2" C=2 CHECK="smatch -p=kernel" | grep -v '\[-W' ;;
	coccinelle) coccinelle "$2" ;;
	checkpatch) checkpatch "$2" ;;
	*) die "no such check: $1" ;;
	esac
}

# findings SIDE CHECK: of its output, those in our files, without where in the
# file they are: that changes with every line
findings()
{
	files "$1" '\.[chS]$\|Kconfig\|Makefile$' > "$OUT/$1.files"
	sed -E -e "s,$(tree_of "$1")/,,g; s,(\.\./)+linux(-stock)?/,,g; s,^(\./)+,," \
		-e 's/(:[0-9]+(-[0-9]+)?)+:? /: /; s/around line [0-9]+/around a line/; s/ on line [0-9]+/ on a line/' \
		-e 's/lines? [0-9,]+/line/g' "$OUT/$1-$2.log" |
		awk -F : 'NR == FNR { ours[$1]; next }
			$1 in ours && NF > 2 && !/: note: / { print }' "$OUT/$1.files" - |
		awk '{ print $0 (n[$0]++ ? " (" n[$0] ")" : "") }' | sort
}

# accepted CHECK: what expect/static has of it
accepted()
{
	[ ! -f "$EXPECT" ] || sed -n "s/^$1 //p" "$EXPECT" | sort
}

# check NAME: count one checker
check()
{
	local name=$1 start=$SECONDS status=0 side

	for side in ours stock; do
		(run "$name" $side) > "$OUT/$side-$name.log" 2> "$OUT/$side-$name.err" || true
		findings $side "$name" > "$OUT/$side-$name"
	done
	# It has to have said something of files as large as these, or have
	# looked at them at all.
	if ! looked "$name"; then
		result 1 "$name: it did not run, see ${OUT#"$TOP"/}/ours-$name.log"
		tail -n 5 "$OUT/ours-$name.log" "$OUT/ours-$name.err"
		return
	fi
	comm -23 "$OUT/ours-$name" <(sort "$OUT/stock-$name" <(accepted "$name")) > "$OUT/new-$name"
	[ ! -s "$OUT/new-$name" ] || status=1
	result $status "$name: $(wc -l < "$OUT/ours.files") files, $(wc -l < "$OUT/ours-$name") findings, $(wc -l < "$OUT/new-$name") of them new ($(hms $((SECONDS - start))))"
	cat "$OUT/new-$name"
	sed 's/^/    /' "$OUT/ours-$name.err" | grep stopped || true
}

# looked NAME: did it get as far as our own file?
looked()
{
	case $1 in
	gcc) [ -f "$OUT/ours/mm/cow_pte.o" ] ;;
	sparse|smatch) grep -q 'CHECK .*mm/cow_pte\.c' "$OUT/ours-$1.log" ;;
	coccinelle) [ "$(grep -c stopped "$OUT/ours-$1.err")" -lt "$(wc -l < "$OUT/ours.cocci")" ] ;;
	checkpatch) [ -s "$OUT/stock-$1.log" ] ;;
	esac
}

main()
{
	local name side

	takes "half an hour"
	"$SCRIPTS/deps.sh" build verify static
	mkdir -p "$OUT"
	trap summary EXIT
	# (the untouched tree is made when a kernel is to be built from it)
	"$SCRIPTS/kernel.sh" -c stock-debug
	check_tree
	for side in ours stock; do
		prepare $side > "$OUT/$side-prepare.log" 2>&1 ||
			die "cannot configure, see ${OUT#"$TOP"/}/$side-prepare.log"
	done
	for name; do
		if [ "$name" = smatch ] && ! command -v smatch > /dev/null; then
			say "smatch is not installed (Debian does not have it): skipped"
			continue
		fi
		check "$name"
	done
}
[ $# -gt 0 ] || set -- gcc sparse smatch coccinelle checkpatch
main "$@"; exit
