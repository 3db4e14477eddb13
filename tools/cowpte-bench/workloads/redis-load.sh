#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# What the clients of a busy Redis server see of a snapshot: latencies from
# BGSAVE until the save is over, with redis-benchmark writing all over the
# memory, with and without copy-on-write page tables.
tool=redis-load
# shellcheck source-path=SCRIPTDIR source=common.sh
. "$(dirname "$(realpath "$0")")/common.sh"
# shellcheck source-path=SCRIPTDIR source=redis-common.sh
. "$here/redis-common.sh"

usage()
{
	cat <<END
Usage: redis-load.sh [options]

Fill a redis-server with small keys, put redis-benchmark's load on it, and let it
fork for BGSAVE. A client of its own asks at a fixed rate, from before the save
until after it; a request's latency counts from when it was due, so that those
held up by another are counted in full. Then look at the fork and the page tables
of saves without load, and check that the snapshot holds the data.

 -s, --size SIZE        memory of the data set, with K, M or G (1G)
 -v, --value-size N     bytes of a value (100)
 -c, --clients N        connections of redis-benchmark (50); 0: no load
 -i, --interval N       microseconds from one measured request to the next (1000)
 -b, --before N         milliseconds of measuring before each save (1000)
     --disable-thp ON   yes: Redis's default, no transparent huge pages; no
     --compress ON      yes: Redis's default, compressed RDB files; no (no)
     --verify HOW       digest: load the RDB file of each mode's last save into a
                        new server and compare DEBUG DIGEST; files: compare it
                        with one that the server wrote without fork; none (digest)
 -k, --keep DIR         copy the last RDB file of each mode to DIR, as off.rdb
                        and on.rdb (redis-snapshot.sh --digest compares them)
 -S, --series FILE      write every latency: mode, repetition, milliseconds since
                        BGSAVE, microseconds
$COMMON_HELP

The load writes one byte of a random value at a time, the byte that is there, so
the data must be the same in all snapshots.

$COMMON_STATUS
END
}

size_text=1G
value_size=100
clients=50
interval=1000
before=1000
verify=digest
keep=
series=
reps=3

own_option()
{
	case $1 in
	-s|--size) size_text=$2 ;;
	-v|--value-size) value_size=$2 ;;
	-c|--clients) clients=$2 ;;
	-i|--interval) interval=$2 ;;
	-b|--before) before=$2 ;;
	--disable-thp) thp_off=$2 ;;
	--compress) compress=$2 ;;
	--verify) verify=$2 ;;
	-k|--keep) keep=$2 ;;
	-S|--series) series=$2 ;;
	esac
}

parse_args s:v:c:i:b:k:S: size:,value-size:,clients:,interval:,before:,disable-thp:,\
compress:,verify:,keep:,series: "$@"
[ ${#rest[@]} -eq 0 ] || die $EXIT_USAGE "unexpected argument '${rest[0]}'"
size_arg --size "$size_text"
size=$value
number --value-size "$value_size" 16 $((1 << 20))
number --clients "$clients" 0 10000
number --interval "$interval" 10 10000000
number --before "$before" 0 1000000
one_of --verify "$verify" digest files none
one_of --disable-thp "$thp_off" yes no
one_of --compress "$compress" yes no

redis_programs redis-benchmark
need_program python3 python3
json_writable
if [ -n "$series" ]; then
	echo "mode rep ms us" 2> /dev/null > "$series" || die 1 "cannot write $series"
	series=$(realpath "$series")
fi
look_at_system
# The server, its copy on write, a second server or file: in a tmpfs perhaps.
need_memory $((size * 4)) "--size $size_text"
redis_dir
if [ -n "$keep" ]; then
	if [ ! -d "$keep" ] || [ ! -w "$keep" ]; then
		die 1 "--keep: no writable directory: $keep"
	fi
	keep=$(realpath "$keep")
	rm -f "$keep"/{off,on}.rdb
fi

metric fork_us us "fork, as Redis reports it (latest_fork_usec)"
metric rest_fork_us us "the same without load, median of 5"
metric p50_us us "latency during the save, p50"
metric p99_us us "latency during the save, p99"
metric p999_us us "latency during the save, p99.9"
metric max_us us "latency during the save, longest"
metric before_p50_us us "latency before the save, p50"
metric before_p99_us us "latency before the save, p99"
metric before_max_us us "latency before the save, longest"
metric requests "" "requests measured during the save"
metric save_ms ms "duration of the save"
metric commands_per_s 1/s "commands served during the save"
metric pagetables_kb kB "page tables of the saving child (PageTables)"
metric vmpte_kb kB "page tables the child uses (VmPTE)"
metric shared_kb kB "of these shared (VmCowPTE)"

wrong=0
digest=
load=

start_load()
{
	[ "$clients" -gt 0 ] || return 0
	"$product-benchmark" -s "$dir/live.sock" -c "$clients" -l -q -n 1000000 -r "$keys" \
		EVAL "redis.call('SETRANGE','key:'..tonumber(ARGV[1]),0,'v')" 0 __rand_int__ \
		> "$dir/load.out" 2>&1 < /dev/null &
	load=$!
	servers+=("$load")
	files+=("$dir/load.out")
	sleep 0.2
	kill -0 "$load" 2> /dev/null ||
		die 1 "$product-benchmark: $(tr '\r' '\n' < "$dir/load.out" | tail -n 1)"
}

stop_load()
{
	[ -n "$load" ] || return 0
	kill -0 "$load" 2> /dev/null || die 1 "$product-benchmark ended before the save did"
	kill "$load"
	wait "$load" 2> /dev/null
	load=
}

# begin_save: $child, and in $base the page tables of all before it
begin_save()
{
	pagetables_kb
	base=$value
	expect 'Background saving started' BGSAVE
	child=$(pgrep -P "$live" | head -n 1)
	[ -n "$child" ] || die 1 "no saving child: is the data set too small?"
}

# stop_save: Redis's own way to stop a child that is not needed any more
stop_save()
{
	kill -USR1 "$child"
	value=1
	while [ "$value" = 1 ]; do
		sleep 0.1
		redis INFO persistence
		field rdb_bgsave_in_progress
	done
}

# at_rest MODE: forks without load, which waits for a CPU too where there are few,
# and what the last save takes in page tables
at_rest()
{
	local base child tables forks=() i

	for ((i = 1; i <= 5; i++)); do
		begin_save
		pagetables_kb
		tables=$((value - base))
		redis INFO stats
		field latest_fork_usec
		forks+=("$value")
		[ $i -eq 5 ] || stop_save
	done
	median "${forks[@]}"
	sample "$1" rest_fork_us "$value"
	sample "$1" pagetables_kb $tables
	status_kb "$child" VmPTE
	sample "$1" vmpte_kb "$value"
	status_kb "$child" VmCowPTE
	sample "$1" shared_kb "$value"
	[ "$1" = off ] || [ "$value" -gt 0 ] ||
		warn "mode on: nothing shared, the figures show conventional forks"
	stop_save
}

# check MODE: the RDB file of the last save
check()
{
	local m=$1

	case $verify in
	files)
		mv "$dir/dump.rdb" "$dir/$m.rdb" || exit 1
		expect OK SAVE
		say "comparing the RDB files"
		if ! rdb_same "$dir/dump.rdb" "$dir/$m.rdb"; then
			echo "$tool: mode $m: the snapshot is not what the server wrote without fork" >&2
			wrong=$((wrong + 1))
		fi
		;;
	digest)
		say "comparing digests"
		redis DEBUG DIGEST
		[[ $reply =~ ^[0-9a-f]{40}$ ]] || die 1 "DEBUG DIGEST: $reply"
		digest=$reply
		mv "$dir/dump.rdb" "$dir/$m.rdb" || exit 1
		stop_server "$live"
		start_server load "$m.rdb"
		redis DEBUG DIGEST
		if [ "$reply" != "$digest" ]; then
			echo "$tool: mode $m: the snapshot has digest $reply, the server $digest" >&2
			wrong=$((wrong + 1))
		fi
		stop_server "$server_pid"
		;;
	none)
		mv "$dir/dump.rdb" "$dir/$m.rdb" || exit 1
		;;
	esac
	if [ -n "$keep" ]; then
		cp "$dir/$m.rdb" "$keep/$m.rdb" || die 1 "--keep: cannot copy $m.rdb to $keep"
	fi
}

files+=("$dir"/{off.rdb,on.rdb,dump.rdb,probe.out,probe.series})
for m in "${modes[@]}"; do
	# A server for each mode, which is in that mode from its start.
	say "mode $m: filling redis-server"
	rm -f "$dir/dump.rdb"
	launcher "$m"
	start_server live dump.rdb
	live=$server_pid
	fill "$size" "$value_size"
	settle
	redis DBSIZE
	dbsize=$reply
	status_kb "$live" VmRSS
	rss_kb=$value

	start_load
	for ((rep = 1; rep <= reps; rep++)); do
		say "mode $m, save $rep of $reps"
		python3 "$here/redis-probe.py" --socket "$dir/live.sock" --keys "$keys" \
			--interval "$interval" --before "$before" --series "$dir/probe.series" \
			> "$dir/probe.out" || die 1 "the measuring client failed"
		samples_from "$m" "$dir/probe.out"
		[ -z "$series" ] || sed "s/^/$m $rep /" "$dir/probe.series" >> "$series"
	done
	stop_load
	at_rest "$m"
	check "$m"
	stop_server "$live"
	rm -f "$dir/dump.rdb"
	[ -n "$keep" ] || rm -f "$dir/$m.rdb"
done

results "server=$product-$redis_version keys=$dbsize value_size=$value_size rss_mib=$((rss_kb >> 10)) \
clients=$clients interval_us=$interval disable_thp=$thp_off compress=$compress verify=$verify"
[ $wrong -eq 0 ] || die "$EXIT_WRONG" "$wrong snapshot(s) are not what they should be"
