#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Write the overlay anew from build/linux. An item that was edited in the
# overlay only goes the other way. One that was edited on both sides is for a
# human to decide: nothing is touched unless TAKE=tree or TAKE=overlay says
# which side wins.
set -euo pipefail
# shellcheck source=scripts/cowpte/common.sh
. "$(dirname "$0")/common.sh"
# shellcheck source=scripts/cowpte/overlay.sh
. "$(dirname "$0")/overlay.sh"

sync_lock
check_tree
scratch
survey "$work"

{ verdict "$work" tree; verdict "$work" loose; } > "$work/from-tree"
verdict "$work" overlay > "$work/from-overlay"
verdict "$work" both > "$work/both"
if [ -s "$work/both" ]; then
	case ${TAKE:-} in
	tree) cat "$work/both" >> "$work/from-tree" ;;
	overlay) cat "$work/both" >> "$work/from-overlay" ;;
	*) die "edited in the overlay and in build/linux: $(tr '\n' ' ' < "$work/both"): make them equal, or make refresh TAKE=tree or TAKE=overlay" ;;
	esac
fi

to_tree "$work" "$work/from-overlay"
to_overlay "$work" "$work/from-tree"
sed 's/^/  from the tree:    /' "$work/from-tree"
sed 's/^/  from the overlay: /' "$work/from-overlay"

# Record what stands now. An edit made meanwhile differs from what was
# surveyed, so it must not be taken for agreed: only equal items are, and those
# that went to the tree, with the overlay's side as it was then.
survey "$work/after"
verdict "$work/after" same > "$work/paths"
record "$work/after/o" "$work/after/t" "$work/paths"
record "$work/o" "$work/after/t" "$work/from-overlay"

# A patch written by hand did its work; now it becomes what git diff writes.
compare "$work/after/o" "$work/after/t" > "$work/after/verdicts"
verdict "$work/after" loose > "$work/loose"
to_overlay "$work/after" "$work/loose"
record "$work/after/t" "$work/after/t" "$work/loose"
say "$(wc -l < "$work/after/t") item(s), $(wc -l < "$work/from-tree") written, $(wc -l < "$work/from-overlay") brought to the tree"
