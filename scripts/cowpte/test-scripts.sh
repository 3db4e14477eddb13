#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Do these scripts themselves do what they are to do, where a user may come upon it
# first: in an unpacked archive, in somebody else's clone, with a BUILD or KERNEL_SRC
# that cannot be, without a package, and when something fails that nobody foresaw?
# In seconds, and without a network. The last line is "N passed, N failed".
set -euo pipefail
# shellcheck source=scripts/cowpte/common.sh
. "$(dirname "$0")/common.sh"
# shellcheck source=scripts/cowpte/overlay.sh
. "$SCRIPTS/overlay.sh"
# shellcheck source=scripts/cowpte/tests.sh
. "$SCRIPTS/tests.sh"

OUT=$BUILD/test-scripts
# What the tests set must not come from who calls.
export -n BUILD KERNEL_SRC DEPS
unset MAKEFLAGS MFLAGS MAKELEVEL

# copy DIR: this repository without .git, as an unpacked archive is
copy()
{
	mkdir -p "$1"
	# (not all roots are there)
	{ cd "$TOP" && find "${ROOTS[@]}" scripts .ci .gitignore Makefile ./*.patch -maxdepth 0 2> /dev/null; } |
		tar -C "$TOP" -cf - -T - | tar -C "$1" -xf - || true
	# what somebody may have built there
	touch "$1/tools/cowpte-bench/worker.o" "$1/tools/testing/selftests/cow_pte/model"
}

# items DIR: what the scripts in DIR take for the overlay
items()
{
	# shellcheck disable=SC2016 # for that shell
	(cd "$1" && bash -c 'set -euo pipefail
		. scripts/cowpte/common.sh
		. scripts/cowpte/overlay.sh
		overlay_items' scripts/cowpte/tree.sh) > "$1.items" 2>&1
}

# same_items DIR WHAT
same_items()
{
	local status=0

	{ items "$1" && cmp -s "$OUT/items" "$1.items"; } || status=1
	result $status "$2: the same items of the overlay"
	[ $status -eq 0 ] || diff "$OUT/items" "$1.items" | head -n 10 || true
}

# says WHAT STATUS TEXT COMMAND...: fails with that status and says so in one line,
# which has the text (a pattern)
says()
{
	local what=$1 want=$2 text=$3 status=0 wrong=0 said

	shift 3
	said=$("$@" 2>&1) || status=$?
	{ [ $status -eq "$want" ] && [ "$(grep -c ': error: ' <<< "$said")" -eq 1 ] &&
		grep -q ": error: .*$text" <<< "$said"; } || wrong=1
	result $wrong "$what"
	[ $wrong -eq 0 ] || printf 'status %d:\n%s\n' $status "$said"
}

test_items()
{
	local status=0

	overlay_items > "$OUT/items"
	grep -q '^mm/cow_pte\.c$' "$OUT/items" && grep -q '^kernel/fork\.c\.patch$' "$OUT/items" || status=1
	result $status "the overlay has $(wc -l < "$OUT/items") items"

	copy "$OUT/archive"
	same_items "$OUT/archive" "unpacked archive"

	git init -q "$OUT/outer"
	copy "$OUT/outer/inner"
	same_items "$OUT/outer/inner" "archive within another repository"

	copy "$OUT/clone"
	git -C "$OUT/clone" init -q
	git -C "$OUT/clone" add -A
	same_items "$OUT/clone" "clone"
	if [ "$(id -u)" -eq 0 ]; then
		chown -R 65534:65534 "$OUT/clone"
		same_items "$OUT/clone" "clone that belongs to another user"
	else
		echo "skipped, only root can: clone that belongs to another user"
	fi
}

test_places()
{
	local script name

	# (those that begin with "guest-" run where there is no BUILD)
	for script in "$SCRIPTS"/*.sh; do
		name=${script##*/}
		grep -q '^\. .*/common\.sh"$' "$script" || continue
		[ "$name" != "${0##*/}" ] || continue
		says "$name: BUILD with a blank is refused" $TOLD "no blanks" \
			env BUILD="$OUT/a b" "$script"
	done
	copy "$OUT/with blank"
	says "a blank in the path of the repository is refused" $TOLD "no blanks" \
		"$OUT/with blank/scripts/cowpte/tree.sh"
	says "make with such a BUILD is refused" 2 "no blanks" \
		make -C "$TOP" --no-print-directory BUILD="$OUT/a b" bench
	[ ! -e "$OUT/a b" ]
	result $? "and nothing was made there"
}

test_source()
{
	local dir=$OUT/source

	mkdir -p "$dir"/old/mm
	printf 'VERSION = 6\nPATCHLEVEL = 11\nSUBLEVEL = 3\nNAME = x\n' > "$dir/old/Makefile"
	touch "$dir/old/mm/memory.c" "$dir/file"
	says "KERNEL_SRC=/etc is refused" $TOLD "/etc is no kernel source" \
		env BUILD="$dir/build" KERNEL_SRC=/etc "$SCRIPTS/tree.sh"
	says "KERNEL_SRC of another version is refused" $TOLD "6\.11\.3.*6\.12\.y" \
		env BUILD="$dir/build" KERNEL_SRC="$dir/old" "$SCRIPTS/tree.sh"
	says "KERNEL_SRC that is not there is refused" $TOLD "neither a directory nor a tarball" \
		env BUILD="$dir/build" KERNEL_SRC="$dir/none" "$SCRIPTS/tree.sh"
	[ -z "$(find "$dir/build/linux.tmp" -type f)" ]
	result $? "and nothing was copied before that"
	says "KERNEL_SRC that is no tarball is refused" $TOLD "cannot unpack" \
		env BUILD="$dir/build" KERNEL_SRC="$dir/file" "$SCRIPTS/tree.sh"
}

# A system that has no package at all, and where nothing must be installed
test_deps()
{
	local bin=$OUT/bin list='apt-get install .*bison.*qemu-system-x86.*shellcheck'

	mkdir -p "$bin"
	printf '#!/bin/sh\nexit 1\n' > "$bin/dpkg-query"
	printf '#!/bin/sh\necho "$@" >> %s\n' "$OUT/apt-get.log" > "$bin/apt-get"
	printf '#!/bin/sh\necho 1000\n' > "$OUT/id"
	chmod +x "$bin"/* "$OUT/id"
	PATH=$bin:$PATH
	says "DEPS=no: what is missing is said" $TOLD "$list" env DEPS=no "$SCRIPTS/deps.sh"
	says "... by make check" 2 "$list" make -C "$TOP" --no-print-directory DEPS=no \
		BUILD="$OUT/deps" check
	says "... by make demo" 2 "apt-get install .*bison.*qemu-system-x86.*redis" \
		make -C "$TOP" --no-print-directory DEPS=no BUILD="$OUT/deps" demo
	says "DEPS=maybe is refused" $TOLD "DEPS is yes or no" env DEPS=maybe "$SCRIPTS/deps.sh"
	says "an unknown group is refused" $TOLD "no such group" "$SCRIPTS/deps.sh" nosuch
	mv "$OUT/id" "$bin"
	says "without root: what is missing is said" $TOLD "$list" "$SCRIPTS/deps.sh"
	PATH=${PATH#"$bin":}
	[ ! -e "$OUT/apt-get.log" ]
	result $? "and nothing was installed"
}

# script NAME TEXT: one in the copy, that uses common.sh
script()
{
	{
		printf 'set -euo pipefail\n. "%s/common.sh"\n' "$SCRIPTS"
		cat
	} > "$OUT/$1.sh"
}

test_unforeseen()
{
	script failing <<'END'
f()
{
	mv /nonexistent /nowhere
}
f
END
	says "a command that fails: what, where, what to do" $TOLD \
		"failing\.sh:5: failed with status 1: mv /nonexistent /nowhere: .*bash -x " \
		bash "$OUT/failing.sh"
	script pipe <<'END'
cat /nonexistent | sort
END
	says "... at the head of a pipe" $TOLD "pipe\.sh:3: failed with status 1" bash "$OUT/pipe.sh"
	script substitution <<'END'
f()
{
	die "told"
}
x=$(f)
END
	says "what is told is not told again by who called" $TOLD "told$" bash "$OUT/substitution.sh"
	script caller <<END
bash "$OUT/failing.sh"
END
	says "... nor by another script" $TOLD "failing\.sh:5" bash "$OUT/caller.sh"
	script fine <<'END'
f()
{
	false
	echo on
}
! false
false || true
x=$(false; echo on)
read -r y < <(yes)
echo "$x $y"
END
	[ "$(bash "$OUT/fine.sh" 2>&1)" = "on y" ]
	result $? "what may fail is not told"
}

main()
{
	rm -rf "$OUT"
	mkdir -p "$OUT"
	trap summary EXIT
	test_items
	# (what fails is counted)
	set +e
	test_places
	test_source
	test_deps
	test_unforeseen
}
main; exit
