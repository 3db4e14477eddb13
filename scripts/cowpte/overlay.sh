# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# The overlay and the tree, compared. To be sourced after common.sh.
#
# This repository mirrors the kernel tree: a file that the kernel does not have
# stands whole at its place, a change to a file it has is one patch beside the
# place, PATH.patch. Both are "items", named by their path in the repository.
#
# An item has two sides: the overlay's bytes, and those that refresh would
# write from the tree. What both were when they last agreed is recorded in the
# tree's .git directory; so it can be told which side was edited since.

ROOTS=(arch block crypto Documentation drivers fs include init io_uring ipc
       kernel lib mm net samples security sound tools usr virt)
STATE=$KTREE/.git/cowpte-sync
NONE=-

# git in the tree, whatever the user's configuration says; and without writing
# the index, as somebody may be working there.
tgit()
{
	git --no-optional-locks -C "$KTREE" -c core.quotePath=false -c diff.noprefix=false \
		-c diff.mnemonicPrefix=false -c diff.suppressBlankEmpty=false \
		-c diff.interHunkContext=0 -c core.autocrlf=false "$@"
}

check_tree()
{
	[ -d "$KTREE" ] || die "there is no build/linux: run make tree first"
	tgit rev-parse -q --verify 'base^{commit}' > /dev/null 2>&1 ||
		die "build/linux has no tag 'base': move it away and run make tree"
	check_version < <(tgit show base:Makefile)
}

# check_version < Makefile
check_version()
{
	local v

	v=$(awk -F ' *= *' '$1 == "VERSION" { v = $2 } $1 == "PATCHLEVEL" { p = $2 }
		$1 == "SUBLEVEL" { s = $2 } /^NAME/ { exit } END { print v "." p "." s }')
	[[ $v == "$SERIES".* ]] ||
		die "the kernel source is $v, the patches are for $SERIES.y: give KERNEL_SRC= such a tree or tarball"
}

# overlay_items: what the repository holds for the kernel tree (the mutations are
# patches, but none that the tree shall have): whatever .gitignore does not name, to
# an index that is always empty. The repository's own is not asked: an unpacked
# archive has none, or lies within another repository, and of a clone that belongs to
# another user git refuses to read it.
overlay_items()
{
	local index=$BUILD/.empty.git

	[ -d "$index" ] || git init -q --bare --template= "$index"
	cd "$TOP" || return
	git --git-dir="$index" --work-tree=. -c core.quotePath=false \
		ls-files -o --exclude-per-directory=.gitignore -x '*~' -x '*.orig' -x '*.rej' \
		-- "${ROOTS[@]}" ':(glob)*.patch' |
		awk -F / -v not="$MUTATIONS/" 'index($0, not) != 1 && ($NF !~ /^\./ || $NF == ".gitignore")' |
		sort -u
}

# overlay_copy DIR: the overlay's items as files below DIR
overlay_copy()
{
	local items

	items=$(overlay_items)
	[ -z "$items" ] || tar -C "$TOP" -cf - -T - <<< "$items" | tar -C "$1" -xf -
}

# tree_export DIR: the items as the tree would have them, below DIR
tree_export()
{
	local dir=$1 gone

	gone=$(tgit diff --no-renames --diff-filter=D --name-only base --)
	[ -z "$gone" ] || die "removing files of the base is not supported: $(head -n 1 <<< "$gone")"

	# One patch for each changed file. The hashes of the "index" lines change
	# with every base and say nothing to patch(1).
	tgit diff --no-color --no-ext-diff --no-textconv --no-renames --diff-filter=MT -U2 \
		--diff-algorithm=myers --indent-heuristic --src-prefix=a/ --dst-prefix=b/ base -- |
		awk -v dir="$dir" '
		/^diff --git / {
			if (out)
				close(out)
			path = $0
			sub(/^diff --git a\//, "", path)
			path = substr(path, 1, (length(path) - 3) / 2)
			out = dir "/" path ".patch"
			d = out
			sub(/\/[^\/]*$/, "", d)
			system("mkdir -p \"" d "\"")
			head = 1
		}
		/^@@ / { head = 0 }
		head && /^index / { next }
		{ print > out }'

	{
		tgit diff --no-renames --diff-filter=A --name-only base --
		# Debian's source ignores everything at the top level, and
		# the ignore files themselves; undo that.
		tgit ls-files -o -x '!/*' -x '!.gitignore' --exclude-standard -- "${ROOTS[@]}"
	} | sort -u | while IFS= read -r p; do
		[ ! -f "$KTREE/$p" ] || printf '%s\n' "$p"
	done > "$dir/.new"
	tar -C "$KTREE" -cf - -T "$dir/.new" | tar -C "$dir" -xf -
	rm -f "$dir/.new"
}

# checkpatch ARG...: what the tree's own has to say, a line each
# (Debian's python3 first: it has the modules that checkpatch's helper imports.)
checkpatch()
{
	(cd "$KTREE" && PATH=/usr/bin:/bin:$PATH perl scripts/checkpatch.pl --strict --no-signoff --terse --no-summary \
		--quiet --show-types "$@" 2>&1) || true
}

# sums DIR: "HASH PATH" for each item below DIR. The function name behind a
# hunk's "@@" depends on the version of git, so it does not count; that a file
# is executable does.
sums()
{
	(
		cd "$1" || exit
		find . -type f ! -name '*.patch' ! -perm -u+x -printf '%P\n' | hash_files ''
		find . -type f ! -name '*.patch' -perm -u+x -printf '%P\n' | hash_files x
		find . -type f -name '*.patch' -printf '%P\n' | while IFS= read -r p; do
			printf '%s %s\n' "$(sed -E 's/^(@@ [-0-9,+ ]+ @@).*/\1/' "$p" | sha1sum | cut -c 1-40)" "$p"
		done
	)
}

hash_files()
{
	tr '\n' '\0' | xargs -0 -r sha1sum | sed "s/^\([0-9a-f]*\)  /\1$1 /"
}

# compare OVERLAY_SUMS TREE_SUMS: one line "VERDICT PATH" for each item:
# same, overlay (only that side was edited since both agreed), tree, both, or
# loose (a patch that is not what git diff would write, but does the same).
compare()
{
	local state=$STATE

	[ -e "$state" ] || state=/dev/null
	awk -v none="$NONE" '
	FILENAME == ARGV[1] { p = substr($0, index($0, " ") + 1); o[p] = $1; all[p]; next }
	FILENAME == ARGV[2] { p = substr($0, index($0, " ") + 1); t[p] = $1; all[p]; next }
	{ so[$3] = $1; st[$3] = $2; all[$3] }
	END {
		for (p in all) {
			a = p in o ? o[p] : none
			b = p in t ? t[p] : none
			sa = p in so ? so[p] : none
			sb = p in st ? st[p] : none
			if (a == b)
				v = "same"
			else if (a != sa && b != sb)
				v = "both"
			else if (a != sa)
				v = "overlay"
			else if (b != sb)
				v = "tree"
			else if (a != none && b != none)
				v = "loose"
			else
				v = a == none ? "tree" : "overlay"
			print v, p
		}
	}' "$1" "$2" "$state" | sort -k 2
}

# record OVERLAY_SUMS TREE_SUMS PATHS_FILE: the two sides of these paths are
# what was agreed on; the record of other paths stays.
record()
{
	local state=$STATE

	[ -e "$state" ] || state=/dev/null
	awk -v none="$NONE" '
	FILENAME == ARGV[1] { o[substr($0, index($0, " ") + 1)] = $1; next }
	FILENAME == ARGV[2] { t[substr($0, index($0, " ") + 1)] = $1; next }
	FILENAME == ARGV[3] { now[$0]; next }
	!($3 in now) { print }
	END {
		for (p in now)
			if (p in o || p in t)
				print (p in o ? o[p] : none), (p in t ? t[p] : none), p
	}' "$1" "$2" "$3" "$state" | sort -k 3 > "$STATE.tmp"
	mv "$STATE.tmp" "$STATE"
}

# survey DIR: both sides and their comparison: DIR/{overlay,tree}/, DIR/o, DIR/t
# and DIR/verdicts
survey()
{
	mkdir -p "$1/overlay" "$1/tree"
	overlay_copy "$1/overlay"
	tree_export "$1/tree"
	sums "$1/overlay" > "$1/o"
	sums "$1/tree" > "$1/t"
	compare "$1/o" "$1/t" > "$1/verdicts"
}

# verdict DIR WHICH: the items of that verdict
verdict()
{
	sed -n "s/^$2 //p" "$1/verdicts"
}

# put SRC DST: replace a file in one step, and only if it differs, so that the
# time stamps which make looks at stay
put()
{
	local mode=644

	[ ! -x "$1" ] || mode=755
	if [ -f "$2" ] && cmp -s "$1" "$2" &&
	   { [ -x "$1" ] && [ -x "$2" ] || [ ! -x "$1" ] && [ ! -x "$2" ]; }; then
		return
	fi
	mkdir -p "$(dirname "$2")"
	install -m $mode "$1" "$2.cowpte-tmp"
	mv "$2.cowpte-tmp" "$2"
}

# drop FILE ROOT: remove it, and the directories below ROOT it leaves empty
drop()
{
	rm -f "$1"
	(cd "$2" && rmdir -p --ignore-fail-on-non-empty "$(dirname "${1#"$2"/}")" 2> /dev/null) || true
}

# apply_items ITEMS_DIR LIST OUT: what the tree's files become by these items
# of the overlay: below OUT, and OUT.gone lists those that go. Fails before
# anything was touched.
apply_items()
{
	local dir=$1 list=$2 out=$3 p f patched=() bad=()

	mkdir -p "$out"
	: > "$out.gone"
	while IFS= read -r p; do
		case $p in
		*.patch)
			patched+=("${p%.patch}")
			;;
		*)
			if tgit cat-file -e "base:$p" 2> /dev/null; then
				die "$p is in the base: the overlay must have $p.patch instead"
			elif [ -e "$dir/$p" ]; then
				mkdir -p "$out/$(dirname "$p")"
				cp -p "$dir/$p" "$out/$p"
			else
				printf '%s\n' "$p" >> "$out.gone"
			fi
			;;
		esac
	done < "$list"
	for f in "${patched[@]}"; do
		tgit cat-file -e "base:$f" 2> /dev/null ||
			die "$f.patch is for a file that the base does not have"
	done
	[ ${#patched[@]} -eq 0 ] || tgit archive base -- "${patched[@]}" | tar -C "$out" -xf -
	for f in "${patched[@]}"; do
		[ -e "$dir/$f.patch" ] || continue
		patch -s -f -p1 -F0 --no-backup-if-mismatch -r - -d "$out" \
			< "$dir/$f.patch" > "$out.log" 2>&1 || bad+=("$f.patch")
	done
	[ ${#bad[@]} -eq 0 ] ||
		die "does not apply to the base without fuzz: ${bad[*]}: mend it, or give KERNEL_SRC= a $SERIES.y to which it does (make verify-releases)"
}

# to_tree DIR LIST: bring these items of the overlay (below DIR/overlay) to the
# tree
to_tree()
{
	local f

	apply_items "$1/overlay" "$2" "$1/new"
	(cd "$1/new" && find . -type f -printf '%P\n') | while IFS= read -r f; do
		put "$1/new/$f" "$KTREE/$f"
	done
	while IFS= read -r f; do
		drop "$KTREE/$f" "$KTREE"
	done < "$1/new.gone"
}

# to_overlay DIR LIST: write these items as the tree has them (DIR/tree)
to_overlay()
{
	local p

	while IFS= read -r p; do
		if [ -e "$1/tree/$p" ]; then
			put "$1/tree/$p" "$TOP/$p"
		else
			drop "$TOP/$p" "$TOP"
		fi
	done < "$2"
}

# scratch: a new temporary directory in $work, removed at exit
scratch()
{
	mkdir -p "$BUILD"
	work=$(mktemp -d "$BUILD/.sync.XXXXXX")
	trap 'rm -rf "$work"' EXIT
}

# Only one of tree, refresh and verify at a time.
sync_lock()
{
	mkdir -p "$BUILD"
	exec 8> "$BUILD/.sync.lock"
	flock -w 300 8 || die "another make tree, refresh or verify does not end"
}
