#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Run test programs one after the other, in a guest:
#
#   guest-tests.sh RESULTS
#
# RESULTS/list says which, one "NAME SECONDS HUGEPAGES DIRECTORY COMMAND" a line;
# the command is the shell's. Those that have a NAME.status are passed over, so
# that another guest can go on where one died.
#
# Leaves NAME.tap, NAME.err, NAME.status and NAME.leak of each. Always ends well:
# what the results mean is for the caller to say.
set -u

results=$1

# What may be in use after a program more than before it, in pages. After some
# forty programs an untouched kernel had one table and five anonymous pages more
# at most, as this shell grows (69 right after hugetlb-read-hwpoison, which a bus
# error killed); allow a few times five. One process that stays
# behind has more.
TABLES_MORE=8
ANON_MORE=32
SWAP_MORE=0
# An exit may lag behind: RCU, lazily switched processors, threads that linger.
SETTLE=20

# gauge: tables, anon, swap: pages in use. (Without a process of its own, which
# would count.)
gauge()
{
	local key value rest

	# The counts of the processors are added up only now and then.
	{ read -r rest < /proc/sys/vm/stat_refresh; } 2> /dev/null
	while read -r key value; do
		case $key in
		nr_page_table_pages) tables=$value ;;
		nr_anon_pages) anon=$value ;;
		esac
	done < /proc/vmstat
	swap=0
	while read -r key _ _ value rest; do
		case $key in
		/*)
			device=$key
			swap=$((value / 4))
			;;
		esac
	done < /proc/swaps
}

# settled: is what gauge found no more than before?
settled()
{
	[ $((tables - tables0)) -le $TABLES_MORE ] &&
	[ $((anon - anon0)) -le $ANON_MORE ] &&
	[ $((swap - swap0)) -le $SWAP_MORE ]
}

# leak_check: wait until all is free that the program used
leak_check()
{
	local i verdict="not ok"

	for ((i = 0; i < SETTLE; i++)); do
		gauge
		if settled; then
			verdict=ok
			break
		fi
		echo 3 > /proc/sys/vm/drop_caches
		if [ $((swap - swap0)) -gt $SWAP_MORE ]; then
			# What belongs to somebody comes back to memory and is
			# counted there; a slot that is leaked stays.
			timeout 60 swapoff "$device"
			swapon "$device"
		fi
		sleep 1
	done
	echo "$verdict after $i s: page tables $tables0 -> $tables," \
		"anonymous $anon0 -> $anon, swap $swap0 -> $swap pages"
}

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
device=

while read -r name limit huge directory command; do
	[ ! -e "$results/$name.status" ] || continue
	echo "cowpte-guest: test $name" > /dev/kmsg
	huge_pages "$huge"
	gauge
	tables0=$tables anon0=$anon swap0=$swap
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
