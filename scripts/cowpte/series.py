#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Cut the overlay into a series of patches, for series.sh.

    series.py OVERLAY SERIES TREE

OVERLAY has the new files and one patch per changed file. SERIES has a file for each
patch of the series, in the order of their names: the message, a line "%%", and what
belongs to it:

    PATH              all of it that no other patch names by a pattern
    PATH/             the same of all files below that directory
    PATH: /RE/        the hunks that change a line which matches
    PATH: from /RE/   of lines that are added in one go, those from the first on that
                      matches, to where another pattern begins

A hunk that only includes a header goes with the first hunk of its file. TREE is a git
tree of the untouched kernel, to which a commit is added for each patch. Everything in
OVERLAY must be named, unless SERIES/left-out has it.
"""

import os
import re
import subprocess
import sys

INCLUDE = re.compile(r"^\+#include <linux/cow_pte\.h>$")
HEAD = re.compile(r"^@@ -(\d+)(?:,(\d+))? \+\d+(?:,\d+)? @@")


def die(*text):
    sys.exit("series: error: " + " ".join(text))


class Change:
    """Lines that are removed at one place of a file, and lines that take their place."""

    def __init__(self, hunk, at, removed, added):
        self.hunk = hunk        # which one, for patterns that choose hunks
        self.at = at            # the first removed line, from 0; or what is added before
        self.removed = removed
        self.added = added
        self.owner = None


def parse(path):
    """The changes of a patch, in their order, and the lines of each hunk."""
    changes, hunks = [], []
    at = 0
    removed, added = 0, []

    def flush():
        nonlocal removed, added
        if removed or added:
            changes.append(Change(len(hunks) - 1, at - removed, removed, added))
        removed, added = 0, []

    with open(path, encoding="utf-8") as f:
        for line in f:
            head = HEAD.match(line)
            if head:
                flush()
                # an empty range names the line before it
                at = int(head[1]) - (head[2] != "0")
                hunks.append([])
            elif not hunks:
                continue
            elif line[0] == "+":
                added.append(line[1:])
                hunks[-1].append(line.rstrip("\n"))
            elif line[0] == "-":
                if added:
                    flush()
                removed += 1
                at += 1
                hunks[-1].append(line.rstrip("\n"))
            else:
                flush()
                at += 1
        flush()
    return changes, hunks


class Patch:
    def __init__(self, path):
        self.name = os.path.basename(path)
        with open(path, encoding="utf-8") as f:
            text = f.read()
        try:
            self.message, what = text.split("\n%%\n")
        except ValueError:
            die(self.name, "has no line \"%%\"")
        self.whole, self.below, self.hunks, self.start = [], [], [], []
        for line in what.splitlines():
            line = line.strip()
            if not line:
                continue
            chosen = re.match(r"^(\S+): (from )?/(.*)/$", line)
            if chosen:
                (self.start if chosen[2] else self.hunks).append((chosen[1], re.compile(chosen[3])))
            elif " " in line or ":" in line:
                die(self.name, "says", line)
            elif line.endswith("/"):
                self.below.append(line)
            else:
                self.whole.append(line)

    def names(self, path):
        return path in self.whole or any(path.startswith(d) for d in self.below)


def split_runs(path, changes, patches):
    """Cut what is added in one go where a pattern begins."""
    starts = [(p, rx) for p in patches for name, rx in p.start if name == path]
    result = []
    for change in changes:
        piece = Change(change.hunk, change.at, change.removed, [])
        for line in change.added:
            for patch, rx in starts:
                if rx.search(line.rstrip("\n")):
                    if piece.added or piece.removed:
                        result.append(piece)
                    piece = Change(change.hunk, change.at + change.removed, 0, [])
                    piece.owner = patch
            piece.added.append(line)
        result.append(piece)
    for patch, rx in starts:
        if not any(c.owner is patch for c in result):
            die(f"{patch.name}: nothing of {path} matches /{rx.pattern}/")
    return result


def assign(path, patches, overlay):
    """Who has which change of a changed file."""
    changes, hunks = parse(os.path.join(overlay, path + ".patch"))
    chooser = {}
    for patch in patches:
        for name, rx in patch.hunks:
            if name != path:
                continue
            found = [i for i, lines in enumerate(hunks) if any(rx.search(line) for line in lines)]
            if not found:
                die(f"{patch.name}: no hunk of {path} matches /{rx.pattern}/")
            for i in found:
                if i in chooser and chooser[i] is not patch:
                    die(f"{path}: both {chooser[i].name} and {patch.name} name the hunk of",
                        hunks[i][0])
                chooser[i] = patch
    rest = [p for p in patches if p.names(path)]
    if len(rest) > 1:
        die(f"{path}: {rest[0].name} and {rest[1].name} both name all the rest")
    changes = split_runs(path, changes, patches)
    for change in changes:
        if not change.owner:
            change.owner = chooser.get(change.hunk) or (rest[0] if rest else None)
    first = min((c.owner for c in changes if c.owner and not includes(hunks[c.hunk])),
                key=patches.index, default=None)
    for change in changes:
        if first and includes(hunks[change.hunk]):
            change.owner = first
        if not change.owner:
            die(f"{path}: no patch of the series names the hunk of", hunks[change.hunk][0])
    if rest and not any(c.owner is rest[0] for c in changes):
        die(f"{rest[0].name}: nothing is left of {path}")
    return changes


def includes(lines):
    return all(INCLUDE.match(line) for line in lines)


def compose(base, changes, done):
    """The file with the changes of these patches."""
    result, at = [], 0
    for change in changes:
        if change.owner not in done:
            continue
        result += base[at:change.at]
        result += change.added
        at = change.at + change.removed
    return result + base[at:]


def git(tree, *args, **more):
    subprocess.run(["git", "-C", tree, *args], check=True, **more)


def main():
    if len(sys.argv) != 4:
        die("usage: series.py OVERLAY SERIES TREE")
    overlay, series, tree = sys.argv[1:]
    with open(os.path.join(series, "left-out"), encoding="utf-8") as f:
        left_out = [line.strip() for line in f if line.strip() and line[0] != "#"]
    patches = [Patch(os.path.join(series, name)) for name in sorted(os.listdir(series))
               if re.match(r"^\d\d-", name) and not name.startswith("00-")]
    files = []
    for where, _, names in os.walk(overlay):
        files += [os.path.relpath(os.path.join(where, name), overlay) for name in names]
    files = sorted(path for path in files
                   if not any(path == o or o.endswith("/") and path.startswith(o) for o in left_out))

    new, changed = {}, {}
    for path in files:
        if path.endswith(".patch"):
            changed[path[:-6]] = assign(path[:-6], patches, overlay)
            continue
        owners = [p for p in patches if p.names(path)]
        if len(owners) != 1:
            die(f"{path}: named by", " and ".join(p.name for p in owners) or "no patch")
        new[path] = owners[0]
    for patch in patches:
        for path in patch.whole + [name for name, _ in patch.hunks + patch.start]:
            if path not in new and path not in changed:
                die(f"{patch.name}: there is no {path} in the overlay")

    base = {}
    for path in changed:
        with open(os.path.join(tree, path), encoding="utf-8") as f:
            base[path] = f.readlines()
    done = []
    for patch in patches:
        done.append(patch)
        touched = []
        for path, changes in changed.items():
            if any(c.owner is patch for c in changes):
                with open(os.path.join(tree, path), "w", encoding="utf-8") as f:
                    f.writelines(compose(base[path], changes, done))
                touched.append(path)
        for path, owner in new.items():
            if owner is patch:
                os.makedirs(os.path.dirname(os.path.join(tree, path)), exist_ok=True)
                source = os.path.join(overlay, path)
                with open(source, "rb") as f, open(os.path.join(tree, path), "wb") as g:
                    g.write(f.read())
                os.chmod(os.path.join(tree, path), os.stat(source).st_mode & 0o777)
                touched.append(path)
        git(tree, "add", "-f", "--", *touched)
        git(tree, "commit", "-q", "-F", "-", input=patch.message.strip() + "\n", text=True)


main()
