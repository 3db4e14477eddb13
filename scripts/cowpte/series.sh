#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# The overlay as a series of patches for a mailing list, and as one patch:
#
#   series.sh          write build/series/0000-cover-letter.patch, 0001-...
#                      (which give the tree of the overlay, or it fails)
#   series.sh check    and have checkpatch look at it, and build after each patch what
#                      is changed by then, with the feature off and on
#   series.sh patch    write build/cow_pte.patch, for people with a tree of their own
#
# Which part of the overlay is in which patch, and their messages, is in
# scripts/cowpte/series/. Whoever sends it adds his sign-off (git format-patch -s).
set -euo pipefail
# shellcheck source=scripts/cowpte/common.sh
. "$(dirname "$0")/common.sh"
# shellcheck source=scripts/cowpte/overlay.sh
. "$SCRIPTS/overlay.sh"
# shellcheck source=scripts/cowpte/tests.sh
. "$SCRIPTS/tests.sh"

OUT=$BUILD/series
WORK=$OUT/tree		# a clone of the base, with a commit for each patch
KOUT=$OUT/kernel
SERIES_DIR=$SCRIPTS/series

# sgit ARG...: git in the series' tree
sgit()
{
	git -C "$WORK" -c core.quotePath=false -c core.autocrlf=false "$@"
}

# identity: who has written the patches, as git knows him
identity()
{
	if [ -z "$(git -C "$TOP" config user.email 2> /dev/null)" ]; then
		warn "git does not know who you are (git config user.name, user.email): the patches are from nobody"
	fi
	export GIT_AUTHOR_NAME GIT_AUTHOR_EMAIL GIT_COMMITTER_NAME GIT_COMMITTER_EMAIL
	GIT_AUTHOR_NAME=$(git -C "$TOP" config user.name 2> /dev/null) || GIT_AUTHOR_NAME=nobody
	GIT_AUTHOR_EMAIL=$(git -C "$TOP" config user.email 2> /dev/null) ||
		GIT_AUTHOR_EMAIL=nobody@localhost
	GIT_COMMITTER_NAME=$GIT_AUTHOR_NAME
	GIT_COMMITTER_EMAIL=$GIT_AUTHOR_EMAIL
}

write_series()
{
	local n

	identity
	rm -rf "$OUT"/*.patch "$OUT/overlay"
	mkdir -p "$OUT/overlay"
	if [ ! -d "$WORK" ]; then
		need_space "$BUILD" 3 "a second kernel tree"
		git clone -q --shared --no-checkout "$KTREE" "$WORK"
	fi
	sgit fetch -q origin "refs/tags/base:refs/tags/base" --force
	overlay_copy "$OUT/overlay"
	# (only the files that change: to check out all takes a while)
	sgit symbolic-ref HEAD refs/heads/series
	sgit update-ref refs/heads/series "$(sgit rev-parse 'base^{commit}')"
	sgit read-tree base
	(cd "$OUT/overlay" && find . -name '*.patch' -printf '%P\n') | sed 's/\.patch$//' |
		sgit checkout-index -q -f --stdin
	python3 "$SCRIPTS/series.py" "$OUT/overlay" "$SERIES_DIR" "$WORK" || exit $TOLD
	n=$(sgit rev-list --count base..series)
	# (patience: the patches of new text are easier to read)
	sgit format-patch -q --patience --cover-letter -o "$OUT" base..series
	cover "$OUT/0000-cover-letter.patch"
	check_tree_equal
	say "$n patches and a cover letter in ${OUT#"$TOP"/}"
}

# cover FILE: put the text into the letter that git has made
cover()
{
	local text=$SERIES_DIR/00-cover-letter

	awk -v text="$text" '
		BEGIN { getline subject < text }
		{ sub(/\*\*\* SUBJECT HERE \*\*\*/, subject) }
		/^\*\*\* BLURB HERE \*\*\*$/ {
			getline line < text
			while ((getline line < text) > 0)
				print line
			next
		}
		{ print }' "$1" > "$1.new"
	mv "$1.new" "$1"
}

# The series must give what the overlay gives, but for what is left out.
check_tree_equal()
{
	local path

	while IFS= read -r path; do
		path=${path%.patch}
		left_out "$path" || cmp -s "$KTREE/$path" "$WORK/$path" ||
			die "$path is not what build/linux has: make refresh, or mend series.py"
	done < <(overlay_items)
}

# left_out PATH
left_out()
{
	local p

	while IFS= read -r p; do
		[[ $p != '#'* ]] || continue
		[[ $1 != "$p"* ]] || return 0
	done < "$SERIES_DIR/left-out"
	return 1
}

check_style()
{
	local patch out complained=0

	for patch in "$OUT"/[0-9]*.patch; do
		[[ $patch != */0000-* ]] || continue
		# (no sign-off, as nobody has sent it yet; no hash of this clone's commits)
		out=$(checkpatch "$patch" \
			--ignore FILE_PATH_CHANGES,UNKNOWN_COMMIT_ID,PARENTHESIS_ALIGNMENT,OPEN_ENDED_LINE)
		[ -z "$out" ] || {
			printf '%s\n' "$out"
			complained=1
		}
	done
	result $complained "checkpatch is silent"
}

# configure on|off
configure()
{
	{
		cat "$SCRIPTS"/config/{base,debug}.config
		[ "$1" = on ] || printf '# CONFIG_COW_PTE is not set\n# CONFIG_DEBUG_COW_PTE is not set\n'
	} > "$KOUT-$1/.fragments"
	kmake "$WORK" "$KOUT-$1" -s KCONFIG_ALLCONFIG="$KOUT-$1/.fragments" allnoconfig \
		> "$KOUT-$1/config.log" 2>&1
}

# objects REVISION: of all C files that the series has changed by then
objects()
{
	sgit diff --name-only base "$1" -- arch/x86/mm fs kernel mm |
		sed -n 's/\.c$/.o/p'
}

# Each step builds: nothing uses what a later one brings.
check_builds()
{
	local rev n=0 mode list log title start

	sgit checkout -q --force series
	sgit clean -qfdx
	rm -rf "$KOUT-on" "$KOUT-off"
	mkdir -p "$KOUT-on" "$KOUT-off"
	while read -r rev; do
		n=$((n + 1))
		sgit checkout -q --force "$rev"
		title=$(sgit log -1 --format=%s "$rev")
		for mode in off on; do
			start=$SECONDS
			log=$KOUT-$mode/$n.log
			configure $mode || { result 1 "patch $n, $mode: cannot be configured"; continue; }
			# Nothing to switch on yet
			[ $mode = off ] || grep -q '^CONFIG_COW_PTE=y' "$KOUT-on/.config" || continue
			mapfile -t list < <(objects "$rev" | if [ $mode = off ]; then
				grep -v '^mm/cow_pte'
			else
				cat
			fi)
			[ ${#list[@]} -gt 0 ] || continue
			if kmake "$WORK" "$KOUT-$mode" -k -j "$JOBS" W=1 "${list[@]}" > "$log" 2>&1 &&
			   ! grep -qE 'cow_pte.*warning: ' "$log"; then
				result 0 "patch $n, $mode: ${#list[@]} objects, $title ($(hms $((SECONDS - start))))"
			else
				grep -E '(error|warning): |\*\*\*' "$log" | head -n 10
				result 1 "patch $n, $mode: $title"
			fi
		done
	done < <(sgit rev-list --reverse base..series)
	sgit checkout -q --force series
}

one_patch()
{
	write_series
	sgit diff --no-color --no-ext-diff --no-renames base series > "$BUILD/cow_pte.patch.new"
	mv "$BUILD/cow_pte.patch.new" "$BUILD/cow_pte.patch"
	say "build/cow_pte.patch, for Linux $SERIES.y: patch -p1 < it"
}

main()
{
	"$SCRIPTS/deps.sh" build verify
	mkdir -p "$OUT"
	tree_exists
	check_tree
	case ${1:-} in
	'') write_series ;;
	check)
		takes "15 minutes"
		trap summary EXIT
		lock
		write_series
		result 0 "the series is the overlay"
		check_style
		check_builds
		;;
	patch)
		one_patch
		;;
	*) die "series.sh, series.sh check or series.sh patch, not '$1'" ;;
	esac
}
# (a function: read as a whole, as this file may be edited while it runs)
main "$@"; exit
