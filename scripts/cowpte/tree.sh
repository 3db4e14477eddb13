#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Make build/linux, the kernel tree with the overlay applied, or bring it up
# to date. The base is KERNEL_SRC (a directory or a tarball), or else Debian's
# package of the kernel source.
set -euo pipefail
# shellcheck source=scripts/cowpte/common.sh
. "$(dirname "$0")/common.sh"
# shellcheck source=scripts/cowpte/overlay.sh
. "$(dirname "$0")/overlay.sh"

PACKAGE=linux-source-$SERIES
WANTED="a tree or a tarball of Linux $SERIES.y"
FINAL=$KTREE

# download DIR: the package into it (the lists of apt may be missing, or too old)
download()
{
	(cd "$1" && apt-get -qq download "$PACKAGE") > "$1/log" 2>&1 && return
	[ "$(id -u)" -eq 0 ] && apt-get -qq update > "$1/log" 2>&1 &&
		(cd "$1" && apt-get -qq download "$PACKAGE") > "$1/log" 2>&1
}

# debian_tarball: the path of the source tarball, fetched if need be: not installed,
# as nothing outside of build/ is to change for it
debian_tarball()
{
	local tarball=/usr/src/$PACKAGE.tar.xz deb=$BUILD/deb

	if [ ! -f "$tarball" ]; then
		tarball=$deb$tarball
	fi
	if [ ! -f "$tarball" ]; then
		say "downloading the package $PACKAGE (150 MB) to ${deb#"$TOP"/}" >&2
		command -v apt-get > /dev/null ||
			die "not a Debian system: give KERNEL_SRC= $WANTED"
		rm -rf "$deb" "$deb.tmp"
		mkdir -p "$deb.tmp"
		download "$deb.tmp" ||
			die "cannot download $PACKAGE ($(tail -n 1 "$deb.tmp/log")): check the network and the package sources, or give KERNEL_SRC= $WANTED"
		dpkg-deb -x "$deb.tmp/${PACKAGE}"_*.deb "$deb.tmp"
		rm -f "$deb.tmp"/*.deb
		mv "$deb.tmp" "$deb"
	fi
	printf '%s\n' "$tarball"
}

# check_source DIR NAME: is it what is wanted?
check_source()
{
	{ [ -f "$1/Makefile" ] && [ -f "$1/mm/memory.c" ]; } ||
		die "$2 is no kernel source: give KERNEL_SRC= $WANTED"
	check_version < "$1/Makefile"
}

# unpack DIR: the source of the base into DIR
unpack()
{
	local src=${KERNEL_SRC:-}

	[ -n "$src" ] || src=$(debian_tarball)
	if [ -d "$src" ]; then
		check_source "$src" "$src"
		[ ! -e "$src/.config" ] || die "$src was built in place: run make mrproper there first"
		say "copying $src"
		tar -C "$src" --exclude=./.git -cf - . | tar -C "$1" -xf -
	elif [ -f "$src" ]; then
		say "unpacking $src (about a minute)"
		tar -C "$1" --strip-components=1 -xf "$src" ||
			die "cannot unpack $src: give KERNEL_SRC= $WANTED"
		check_source "$1" "$src"
	else
		die "KERNEL_SRC=$src is neither a directory nor a tarball: give it $WANTED"
	fi
}

fresh()
{
	local tmp=$FINAL.tmp

	need_space "$BUILD" 5 "the kernel tree"
	# what an interrupted run has left
	rm -rf "$tmp"
	mkdir -p "$tmp"
	unpack "$tmp"
	say "recording the base"
	git -C "$tmp" init -q
	# A tarball may hold files that .gitignore names; they are base, too.
	git -C "$tmp" -c core.autocrlf=false -c gc.auto=0 add -A -f .
	git -C "$tmp" -c user.name=cowpte -c user.email=cowpte@localhost -c gc.auto=0 \
		-c commit.gpgSign=false -c core.hooksPath=/dev/null commit -q -m "Base: ${KERNEL_SRC:-$PACKAGE}"
	git -C "$tmp" tag base
	# The functions of overlay.sh work on $KTREE.
	KTREE=$tmp STATE=$tmp/.git/cowpte-sync update
	mv "$tmp" "$FINAL"
	say "build/linux is ready"
}

# agree DIR: record what was brought to the tree, and what is equal now
agree()
{
	survey "$1/after"
	verdict "$1/after" same > "$1/same"
	record "$1/after/o" "$1/after/t" "$1/same"
	# The overlay's side as it was applied, not as it may be by now.
	record "$1/o" "$1/after/t" "$1/list"
}

update()
{
	local edited n

	survey "$work"
	edited=$(verdict "$work" tree; verdict "$work" both)
	[ -z "$edited" ] ||
		die "build/linux has edits that the overlay lacks ($(tr '\n' ' ' <<< "$edited")): run make refresh to keep them, or rm -rf build/linux"
	verdict "$work" overlay > "$work/list"
	n=$(wc -l < "$work/list")
	to_tree "$work" "$work/list"
	agree "$work"
	[ "$n" -eq 0 ] || say "$n item(s) of the overlay brought to the tree"
}

"$SCRIPTS/deps.sh" build
sync_lock
scratch
if [ -d "$FINAL" ]; then
	[ -z "${KERNEL_SRC:-}" ] || say "build/linux exists: KERNEL_SRC is not looked at"
	check_tree
	update
	say "build/linux is up to date"
else
	fresh
fi
