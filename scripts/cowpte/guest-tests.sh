#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Run test programs one after the other, in a guest:
#
#   guest-tests.sh RESULTS
#
# RESULTS/list says which, one "NAME SECONDS HUGEPAGES DIRECTORY COMMAND" a line;
# the command is the shell's. Those that have been begun, which NAME.taken says, are
# passed over: several guests can share a list, and another can go on where one died.
#
# Leaves NAME.tap, NAME.err, NAME.status and NAME.leak of each, and prints which one
# begins. Always ends well: what the results mean is for the caller to say.
set -u

results=$1

# shellcheck source=scripts/cowpte/gauge.sh
. "$(dirname "$0")/gauge.sh"

# huge_pages COUNT
huge_pages()
{
	local have i

	for ((i = 0; i < 3; i++)); do
		echo "$1" > /proc/sys/vm/nr_hugepages
		read -r have < /proc/sys/vm/nr_hugepages
		[ "$have" -ne "$1" ] || return 0
		echo 3 > /proc/sys/vm/drop_caches
		echo 1 > /proc/sys/vm/compact_memory
	done
	echo "cowpte-guest: only $have of $1 huge pages" > /dev/kmsg
}

ulimit -l unlimited
ulimit -c 0

total=$(wc -l < "$results/list")
number=0
while read -r name limit huge directory command; do
	number=$((number + 1))
	(set -o noclobber && : > "$results/$name.taken") 2> /dev/null || continue
	echo "cowpte-guest: test $name" > /dev/kmsg
	echo "  $number of $total: $name"
	huge_pages "$huge"
	gauge_start
	: > "$results/$name.running"
	# Beside the program, as kselftest does it. In a session of its own, so
	# that what it leaves behind can be found.
	(cd "$directory" && exec setsid timeout -k 10 "$limit" bash -c "$command") \
		< /dev/null > "$results/$name.tap" 2> "$results/$name.err" &
	wait $!
	status=$?
	kill -9 -- -$! 2> /dev/null
	leak_check > "$results/$name.leak"
	echo $status > "$results/$name.status"
	rm "$results/$name.running"
done < "$results/list"
exit 0
