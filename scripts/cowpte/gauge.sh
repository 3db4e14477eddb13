# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# Shared by guest-tests.sh and guest-soak.sh: is all memory back after a program?
# To be sourced in a guest.

# What may be in use after a program more than before it, in pages. Anonymous pages
# are those that no process maps which was there before: the shells grow by forty and
# more, by hundreds with large folios, but who stays behind counts.
TABLES_MORE=8
ANON_MORE=32
LRU_MORE=200
SWAP_MORE=0
# An exit may lag behind: RCU, lazily switched processors, threads that linger.
SETTLE=20

# gauge: tables, swap: pages in use; anon, lru: anonymous pages that count as mapped,
# or are on LRU lists, less those that the processes in $there map; devices: what is
# swapped to. (Without a process of its own, which would count.)
gauge()
{
	local key value rest file mapped=0

	# The counts of the processors are added up only now and then.
	{ read -r rest < /proc/sys/vm/stat_refresh; } 2> /dev/null
	lru=0
	while read -r key value; do
		case $key in
		nr_page_table_pages) tables=$value ;;
		nr_anon_pages) anon=$value ;;
		nr_active_anon | nr_inactive_anon) lru=$((lru + value)) ;;
		nr_shmem) lru=$((lru - value)) ;;
		esac
	done < /proc/vmstat
	# (kernel threads have none, and who has ended has none any more)
	for file in "${there[@]}"; do
		while read -r key value _; do
			[ "$key" != Anonymous: ] || mapped=$((mapped + value / 4))
		done < "$file"
	done 2> /dev/null
	anon=$((anon - mapped))
	lru=$((lru - mapped))
	swap=0
	devices=()
	while read -r key _ _ value rest; do
		case $key in
		/*)
			devices+=("$key")
			swap=$((swap + value / 4))
			;;
		esac
	done < /proc/swaps
}

# gauge_start: what is in use now is what may be in use at leak_check
gauge_start()
{
	there=(/proc/[0-9]*/smaps_rollup)
	gauge
	tables0=$tables anon0=$anon lru0=$lru swap0=$swap
}

# settled: is what gauge found no more than before?
settled()
{
	[ $((tables - tables0)) -le $TABLES_MORE ] &&
	[ $((anon - anon0)) -le $ANON_MORE ] &&
	[ $((lru - lru0)) -le $LRU_MORE ] &&
	[ $((swap - swap0)) -le $SWAP_MORE ]
}

# leak_check: wait until all is free that the program used
leak_check()
{
	local i device verdict="not ok"

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
			for device in "${devices[@]}"; do
				timeout 60 swapoff "$device"
				swapon "$device"
			done
		fi
		sleep 1
	done
	echo "$verdict after $i s: page tables $tables0 -> $tables," \
		"anonymous that nobody maps $anon0 -> $anon, on LRU lists $lru0 -> $lru, swap $swap0 -> $swap pages"
}
