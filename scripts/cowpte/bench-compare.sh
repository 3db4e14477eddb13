#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Who never opts in pays nothing: single operations on the untouched kernel and
# on ours with the feature never enabled, in instructions, side by side. And on
# ours before and after another process has used it.
#
#   bench-compare.sh [-n BOOTS] [-o FILE] [KERNEL KERNEL]
#
# Two boots of the same kernel differ too, by where memory comes from: each is
# booted several times (3), in turn, and the shortest of all is compared. The
# JSON goes to FILE (build/report/untouched.json), and that of before and after
# beside it, with "-used" in its name. Other kernels than stock-perf and perf may
# be named, as run.sh -k takes them.
set -euo pipefail
# shellcheck source=scripts/cowpte/common.sh
. "$(dirname "$0")/common.sh"

boots=3
out=$BUILD/report/untouched.json
while getopts 'n:o:' opt; do
	case $opt in
	n) boots=$OPTARG ;;
	o) out=$(realpath -m "$OPTARG") ;;
	*) die "usage: bench-compare.sh [-n BOOTS] [-o FILE] [KERNEL KERNEL]" ;;
	esac
done
shift $((OPTIND - 1))
[[ $boots =~ ^[1-9][0-9]?$ ]] || die "-n wants 1 to 99, not '$boots'"
[ $# -eq 0 ] || [ $# -eq 2 ] || die "none or two kernels, not $#"
[ $# -eq 2 ] || set -- stock-perf perf

"$SCRIPTS/user.sh" bench
dir=$(dirname "$out")/untouched
mkdir -p "$dir"
rm -f "$dir"/*.json
for ((i = 1; i <= boots; i++)); do
	for side in a b; do
		[ $side = a ] && kernel=$1 || kernel=$2
		say "boot $i of $boots: $kernel" >&2
		"$SCRIPTS/run.sh" -k "$kernel" -i -m 2G -t 1200 -w "$dir" \
			-o "$dir/$side$i.console.log" -- env BUILD="$BUILD" \
			"$SCRIPTS/guest-bench.sh" untouched "$side$i" "$dir" > "$dir/$side$i.txt" ||
			die "kernel $kernel: see $dir/$side$i.txt"
	done
done
"$SCRIPTS/bench-report.py" compare --json "$out" --names "$1" "$2" -- "$dir"/a*.json "$dir"/b*.json
rm -f "${out%.json}-used.json"
if [ -e "$dir/used-b1.json" ]; then
	echo
	"$SCRIPTS/bench-report.py" compare --json "${out%.json}-used.json" --names "$2" used \
		-- "$dir"/b*.json "$dir"/used-b*.json
fi
