#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Is the overlay exactly what build/linux holds, do it and the mutations apply without
# fuzz, and have checkpatch and shellcheck nothing to say?
#
#   verify.sh            all of it
#   verify.sh releases   does the overlay apply to each point release of the
#                        series that Debian's archive offers now?
set -euo pipefail
# shellcheck source=scripts/cowpte/common.sh
. "$(dirname "$0")/common.sh"
# shellcheck source=scripts/cowpte/overlay.sh
. "$(dirname "$0")/overlay.sh"

failures=0

bad()
{
	printf 'verify: FAIL: %s\n' "$*"
	failures=$((failures + 1))
}

# The overlay, written anew from the tree, must be the same bytes.
verify_equal()
{
	local v p

	while read -r v p; do
		case $v in
		same) ;;
		loose) bad "$p is not the patch that git diff writes: make refresh" ;;
		overlay) bad "$p was edited in the overlay only: make tree or make refresh" ;;
		tree) bad "$p was edited in build/linux only: make refresh" ;;
		both) bad "$p was edited in the overlay and in build/linux" ;;
		esac
	done < "$work/verdicts"
}

# Every patch alone, on the file as the base has it. (That the result is the
# tree's file follows from verify_equal: the tree's own diff is that patch.)
verify_applies()
{
	local p

	(cd "$work/overlay" && find . -type f -printf '%P\n') > "$work/items"
	while IFS= read -r p; do
		printf '%s\n' "$p" > "$work/one"
		rm -rf "$work/new"
		(apply_items "$work/overlay" "$work/one" "$work/new") 2> "$work/err" ||
			bad "$(sed 's/^[^:]*: error: //' "$work/err")"
	done < <(sort "$work/items")
}

# What checkpatch says about the form of a mail, about MAINTAINERS (a patch
# series would have an entry once; here it would be said of each file), and
# about the place of a file does not concern us. All else does.
IGNORE=FILE_PATH_CHANGES,COMMIT_MESSAGE,EMAIL_SUBJECT,GIT_COMMIT_ID

verify_style()
{
	local p out types

	while IFS= read -r p; do
		case $p in
		*.patch) out=$(checkpatch --ignore "$IGNORE" "$work/overlay/$p") ;;
		# in its place in the tree: what checkpatch asks for depends on the path
		*.c|*.h|*.S|*.sh|*.rst|*.py|*/Makefile|*/Kconfig)
			[ -e "$KTREE/$p" ] || continue	# told already
			types=
			# the way TRACE_EVENT() is written throughout the kernel
			[[ $p != include/trace/events/* ]] ||
				types=,PARENTHESIS_ALIGNMENT,OPEN_ENDED_LINE
			# these are left to shellcheck; "need_program make make"
			[[ $p != *.sh ]] ||
				types=,LONG_LINE,LONG_LINE_STRING,LONG_LINE_COMMENT,REPEATED_WORD
			out=$(checkpatch --ignore "$IGNORE$types" -f "$p")
			;;
		*) continue ;;
		esac
		# shellcheck disable=SC2001 # each line
		[ -z "$out" ] || bad "checkpatch on $p:"$'\n'"$(sed "s,$work/overlay/,,; s/^/    /" <<< "$out")"
	done < <(sort "$work/items")
}

# All shell scripts, by their name or their first line. (Not by the index of git: an
# unpacked archive has none.)
verify_shell()
{
	local f line out

	cd "$TOP"
	scripts=()
	while IFS= read -r f; do
		line=
		read -r line < "$f" || true
		if [[ $f = *.sh || $f = *.bash || $line = '#!'*sh ]]; then
			scripts+=("$f")
		fi
	done < <(find .ci scripts/cowpte tools -type f | sort)
	out=$(shellcheck -x -f gcc "${scripts[@]}" 2>&1) || bad "shellcheck:"$'\n'"$out"
}

# What the tests are tested with must not rot while what it breaks is edited.
# They apply, and no two of them break the same thing: one that was mended by guess may
# have moved to where another one is.
verify_mutations()
{
	local p result
	local -A broken=()

	for p in "$TOP/$MUTATIONS"/*.patch; do
		if ! result=$(patch -s -f -p1 -F0 -r - -o - -d "$KTREE" < "$p" 2> /dev/null | sha256sum); then
			bad "${p#"$TOP"/} does not apply to build/linux: write it anew"
		elif [ -n "${broken[$result]:-}" ]; then
			bad "${p#"$TOP"/} breaks what ${broken[$result]} breaks"
		else
			broken[$result]=${p##*/}
		fi
	done
}

verify()
{
	check_tree
	survey "$work"
	verify_equal
	verify_applies
	verify_style
	verify_shell
	verify_mutations
	[ $failures -eq 0 ] || { say "$failures problem(s) in $(wc -l < "$work/items") item(s)"; exit 1; }
	say "$(wc -l < "$work/items") item(s): same as build/linux, no fuzz, checkpatch is silent, and so is shellcheck on ${#scripts[@]} scripts"
}

# fetch_release VERSION DIR: of that package, the files named in $work/files
fetch_release()
{
	local deb

	mkdir -p "$2"
	deb=$(find "$2" -name '*.deb' | head -n 1)
	if [ -z "$deb" ]; then
		(cd "$2" && apt-get -qq download "linux-source-$SERIES=$1") > "$2/log" 2>&1 ||
			die "cannot download linux-source-$SERIES $1: $(tail -n 1 "$2/log")"
		deb=$(find "$2" -name '*.deb' | head -n 1)
	fi
	# tar fails when a wanted file is missing: that is told by the patch later
	dpkg-deb --fsys-tarfile "$deb" |
		tar -xO "./usr/src/linux-source-$SERIES.tar.xz" |
		xz -dc -T0 |
		tar -C "$2/src" --strip-components=1 -xf - -T <(sed "s,^,linux-source-$SERIES/," "$work/files") \
		2> /dev/null || true
	[ -f "$2/src/Makefile" ] || die "cannot unpack $deb"
}

releases()
{
	local versions version dir p out offsets refused row

	command -v apt-cache > /dev/null || die "verify-releases needs Debian's apt"
	versions=$(apt-cache madison "linux-source-$SERIES" | awk -F '|' '{ gsub(/ /, "", $2); print $2 }' | sort -uV)
	[ -n "$versions" ] || die "apt knows no linux-source-$SERIES: run apt-get update"
	need_space "$BUILD" 2 "keeping the packages"
	mkdir -p "$work/overlay"
	overlay_copy "$work/overlay"
	(cd "$work/overlay" && find . -type f -printf '%P\n') | sort > "$work/items"
	{
		echo Makefile
		sed 's/\.patch$//' "$work/items"
	} > "$work/files"

	printf '%-28s %-10s %8s %8s %8s  %s\n' package release patches offsets refused verdict
	while IFS= read -r version; do
		dir=$BUILD/releases/$version
		rm -rf "$dir/src"
		mkdir -p "$dir/src"
		fetch_release "$version" "$dir"
		offsets=0 refused=0 n=0
		: > "$dir/refused"
		while IFS= read -r p; do
			case $p in
			*.patch)
				n=$((n + 1))
				if ! out=$(patch -f -p1 -F0 --dry-run -d "$dir/src" < "$work/overlay/$p" 2>&1); then
					refused=$((refused + 1))
					printf '%s\n' "$p" >> "$dir/refused"
				elif grep -q offset <<< "$out"; then
					offsets=$((offsets + 1))
				fi
				;;
			*)
				if [ -e "$dir/src/$p" ]; then
					refused=$((refused + 1))
					printf '%s (exists)\n' "$p" >> "$dir/refused"
				fi
				;;
			esac
		done < "$work/items"
		row=applies
		if [ $refused -gt 0 ]; then
			row="FAILS: $(tr '\n' ' ' < "$dir/refused")"
			failures=$((failures + 1))
		fi
		printf '%-28s %-10s %8d %8d %8d  %s\n' "$version" \
			"$(awk -F ' *= *' '$1 == "VERSION" { v = $2 } $1 == "PATCHLEVEL" { q = $2 }
				$1 == "SUBLEVEL" { s = $2 } /^NAME/ { exit } END { print v "." q "." s }' "$dir/src/Makefile")" \
			"$n" "$offsets" "$refused" "$row"
	done <<< "$versions"
	[ $failures -eq 0 ] || exit 1
}

"$SCRIPTS/deps.sh" build verify
[ $# -gt 0 ] || tree_exists
sync_lock
scratch
case ${1:-} in
'') verify ;;
releases) releases ;;
*) die "usage: verify.sh [releases]" ;;
esac
