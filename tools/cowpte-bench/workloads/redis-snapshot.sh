#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# What copy-on-write page tables do to the snapshots of a Redis server: the
# time its clients wait for fork(), and the page tables that the saving child
# needs. One server, one data set; the feature is switched between the saves.
# The snapshots, taken while the server writes, are proved to hold the data.
tool=redis-snapshot
# shellcheck source-path=SCRIPTDIR source=common.sh
. "$(dirname "$(realpath "$0")")/common.sh"
# shellcheck source-path=SCRIPTDIR source=redis-common.sh
. "$here/redis-common.sh"

usage()
{
	cat <<'END'
Usage: redis-snapshot.sh [options]
       redis-snapshot.sh --digest [-j FILE] [-t SECONDS] FILE FILE...

Fill a redis-server, let it fork for BGSAVE with and without copy-on-write page
tables, compare, and check that the snapshots are right. With --digest: load RDB
files, each into a new server, and check that all have the same DEBUG DIGEST.

 -s, --size SIZE        memory of the data set, with K, M or G (512M)
 -v, --value-size N     bytes of a value (1000)
 -r, --reps N           saves per mode (5)
 -c, --complete N       how many of these, the last, are completed and checked;
                        the others are stopped after the fork (1)
 -w, --writes N         values overwritten during each save, all over the
                        memory, and set back after it (1000)
 -m, --mode MODE        off, on or both (both); each mode's saves in a row
     --verify HOW       digest: load each completed RDB file into a new server
                        and compare DEBUG DIGEST with the live server's;
                        files: compare it with an RDB file that the server
                        wrote without fork; both; none (digest)
     --disable-thp ON   yes: Redis's default, no transparent huge pages; no
     --compress ON      yes: Redis's default, compressed RDB files; no
 -k, --keep DIR         copy the last completed RDB file of each mode to DIR,
                        as off.rdb and on.rdb, after all is measured
 -d, --dir DIR          for socket and RDB files (a new one in $TMPDIR or /tmp)
 -j, --json FILE        write the results as JSON too
 -n, --note TEXT        put a text into the outputs
     --cowpte PATH      the cowpte program (found beside this script, or in PATH)
     --digest           the second form, as above
 -t, --timeout SECONDS  for each FILE of --digest (900)
 -h, --help             this help

Times are in microseconds (as Redis reports them), memory in kB unless said
otherwise. A digest takes some 60 instructions a byte, compression 30. Where
instructions are emulated, 512 MiB take a few minutes with
  --value-size 4000 --compress no --verify files
The digests can be compared elsewhere, of the files left by --keep:
  redis-snapshot.sh --digest DIR/off.rdb DIR/on.rdb

Exit status: 0 success (also if 'both' came down to one mode, said on standard
error), 1 failure, 2 bad arguments, 3 this system cannot measure the mode asked
for, 4 a snapshot or the live data are wrong, or the digests of the files not
all the same (a file that does not load in time or has no keys is wrong).
END
}

# --- arguments

size_text=512M
value_size=1000
reps=5
complete=1
writes=1000
verify=digest
thp_off=yes
compress=yes
keep=
digest_mode=
timeout=900

own_option()
{
	case $1 in
	-s|--size) size_text=$2 ;;
	-v|--value-size) value_size=$2 ;;
	-c|--complete) complete=$2 ;;
	-w|--writes) writes=$2 ;;
	--verify) verify=$2 ;;
	--disable-thp) thp_off=$2 ;;
	--compress) compress=$2 ;;
	-k|--keep) keep=$2 ;;
	--digest) digest_mode=1 ;;
	-t|--timeout) timeout=$2 ;;
	esac
}

parse_args s:v:c:w:k:t: size:,value-size:,complete:,writes:,verify:,disable-thp:,\
compress:,keep:,digest,timeout: "$@"
set -- "${rest[@]}"
if [ -z "$digest_mode" ]; then
	[ $# -eq 0 ] || die $EXIT_USAGE "unexpected argument '$1'"
elif [ $# -lt 2 ]; then
	die $EXIT_USAGE "--digest: two or more RDB files are needed"
fi

size_arg --size "$size_text"
size=$value
number --value-size "$value_size" 16 $((1 << 20))
number --complete "$complete" 0 10000
number --writes "$writes" 0 100000000
one_of --verify "$verify" digest files both none
one_of --disable-thp "$thp_off" yes no
one_of --compress "$compress" yes no
number --timeout "$timeout" 1 1000000
timeout=$((10#$timeout))
[ "$complete" -le "$reps" ] || complete=$reps
[ -z "$keep" ] || [ "$complete" -gt 0 ] ||
	die $EXIT_USAGE "--keep: no save is completed (--complete 0)"

redis_programs redis-cli
json_writable

# --- the digests of RDB files

# load_cli COMMAND...: the answer of the server of load_digest() in $reply, as
# long as there is time
load_cli()
{
	local left=$((deadline - SECONDS))

	reply=timeout
	[ $left -gt 0 ] || return 1
	reply=$(timeout -k 5 "$left" $product-cli -s "$dir/load.sock" "$@" 2>&1 < /dev/null)
}

# load_digest FILE: load it into a new server; $digest and $keys, or what went
# wrong in $problem
load_digest()
{
	local pid deadline=$((SECONDS + timeout)) log=$dir/load.log sock=$dir/load.sock

	digest='' keys=0 problem=''
	rm -f "$sock"
	# (by a link: so the file may have any name, in any directory)
	ln -sfn "$(realpath "$1")" "$dir/load.rdb"
	$product-server --port 0 --unixsocket "$sock" --dir "$dir" --dbfilename load.rdb \
		--save '' --appendonly no --daemonize no "${debug_option[@]}" \
		> "$log" 2>&1 < /dev/null &
	pid=$!
	servers=("$pid")
	while kill -0 "$pid" 2> /dev/null && [ $SECONDS -lt $deadline ]; do
		if [ -S "$sock" ] && load_cli PING && [ "$reply" = PONG ]; then
			load_cli DEBUG DIGEST
			digest=$reply
			load_cli INFO keyspace
			keys=$(sed -n 's/^db[0-9]*:keys=\([0-9]*\),.*/\1/p' <<< "$reply" |
				awk '{ n += $1 } END { printf "%d", n }')
			break
		fi
		sleep 0.1
	done

	if [ $SECONDS -ge $deadline ]; then
		problem="no digest within $timeout s"
		digest=''
	elif ! kill -0 "$pid" 2> /dev/null; then
		# The server's first complaint; its check of the file says much more.
		problem=$(sed -n 's/^[0-9]*:M .* # //p' "$log" | grep -Ev '^(WARNING|Server init)' |
			head -n 1)
		problem="it does not load: ${problem:-$(tail -n 1 "$log")}"
		digest=''
	elif [[ ! $digest =~ ^[0-9a-f]{40}$ ]]; then
		problem="DEBUG DIGEST: $digest"
		digest=''
	elif [ "$keys" -eq 0 ]; then
		problem="it has no keys"
	fi
	kill -KILL "$pid" 2> /dev/null
	wait "$pid" 2> /dev/null
	servers=()
}

# compare_digests FILE...: returns if all have the same, which is of something
compare_digests()
{
	local file other seen=() first='' equal=true digests='' counts='' sep=''
	local digest keys problem

	for file; do
		if [ ! -f "$file" ] || [ ! -r "$file" ]; then
			die 1 "no readable file: $file"
		fi
		# A file is always equal to itself: that would prove nothing.
		for other in "${seen[@]}"; do
			[ ! "$file" -ef "$other" ] || die 1 "the same file: $other and $file"
		done
		seen+=("$file")
	done
	redis_dir
	files+=("$dir/load.rdb" "$dir/load.log" "$dir/load.sock")

	for file; do
		say "loading $file"
		load_digest "$file"
		say
		if [ -n "$problem" ]; then
			echo "redis-snapshot: $file: $problem" >&2
			equal=false
		fi
		first=${first:-$digest}
		[ "$digest" = "$first" ] || equal=false
		echo "${digest:-no-digest}  $keys keys  $file"
		quote "$file"
		digests+="$sep$value: ${digest:+\"}${digest:-null}${digest:+\"}"
		counts+="$sep$value: $keys"
		sep=', '
	done
	if [ -n "$json" ]; then
		local text

		quote "$redis_version"
		text="{\"digests\": {$digests}, \"keys\": {$counts},"
		text+=" \"server\": \"$product\", \"version\": $value, \"equal\": $equal}"
		echo "$text" > "$json_new" || die 1 "cannot write $json_new"
		json_done
	fi
	[ $equal = true ] || die $EXIT_WRONG "the digests are not all the same"
	echo "same DEBUG DIGEST ($product-server $redis_version)"
}

if [ -n "$digest_mode" ]; then
	compare_digests "$@"
	exit 0
fi

# --- the system and its memory

look_at_system

# The server, its copy on write, a second server, and files: in a tmpfs perhaps.
need=$((size * 5 / 2))
if [ "$compress" = no ]; then
	need=$((need + size * 2))
	[ -z "$keep" ] || need=$((need + size * 2))
fi
need_memory $need "--size $size_text"

redis_dir
declare -A kept		# RDB file by mode
if [ -n "$keep" ]; then
	[ -d "$keep" ] || die 1 "--keep: no directory: $keep"
	keep=$(realpath "$keep")
	# No file of an earlier run may be taken for one of this.
	{
		rm -f "$keep"/{off,on}.rdb && : > "$keep/off.rdb.part" && rm "$keep/off.rdb.part"
	} 2> /dev/null || die 1 "--keep: no writable directory: $keep"
fi

# --- servers

# Time the server's main thread has spent on a CPU: with one CPU, the child
# has its share of the time that passes.
server_cpu_ns()
{
	value=
	read -r value _ 2> /dev/null < "/proc/$live/schedstat"
}

# --- data

say "filling redis-server"
files+=("$dir/dump.rdb")
start_server live dump.rdb
live=$server_pid

fill "$size" "$value_size"

# Some keys of every type, with contents that do not repeat.
awk 'BEGIN {
	srand(1)
	for (i = 0; i < 500; i++) {
		r = int(rand() * 1e9)
		printf "SET s:%d v%d\r\n", i, r
		printf "HSET h:%d a %d b x%d\r\n", i, r, r
		printf "RPUSH l:%d %d %d y%d\r\n", i, r, r + 1, r
		printf "SADD u:%d %d m%d\r\n", i, r, r
		printf "ZADD z:%d %d m %d n\r\n", i, r, r % 7
	}
}' > "$dir/commands"
files+=("$dir/commands")
$product-cli -s "$dir/live.sock" --pipe < "$dir/commands" > "$dir/pipe.out" 2>&1 ||
	die 1 "redis-cli --pipe: $(tail -n 1 "$dir/pipe.out")"
files+=("$dir/pipe.out")

settle

redis DBSIZE
dbsize=$reply
redis INFO memory
field used_memory
used_memory=$value
status_kb "$live" VmRSS
rss_kb=$value
status_kb "$live" VmPTE
vmpte_kb=$value

# overwrite LETTER: make that the first letter of every n-th value. The values
# of DEBUG POPULATE begin with "v".
overwrite()
{
	[ "$writes" -gt 0 ] || return 0
	expect "$writes" EVAL "\"local n,t=tonumber(ARGV[1]),tonumber(ARGV[2]) for i=0,n-1 do" \
		"local k='key:'..math.floor(i*t/n)%t" \
		"redis.call('SET',k,ARGV[3]..string.sub(redis.call('GET',k),2)) end return n\"" \
		0 "$writes" "$keys" "$1"
}

do_digest=
do_files=
case $verify in
digest) do_digest=1 ;;
files) do_files=1 ;;
both) do_digest=1 do_files=1 ;;
esac
[ "$complete" -gt 0 ] || do_digest='' do_files=''

digest=
if [ -n "$do_digest" ]; then
	say "digest of the data"
	redis DEBUG DIGEST
	digest=$reply
	[[ $digest =~ ^[0-9a-f]{40}$ ]] || die 1 "DEBUG DIGEST: $digest"
fi
if [ -n "$do_files" ]; then
	say "RDB file without fork"
	files+=("$dir/reference.rdb")
	expect OK SAVE
	mv "$dir/dump.rdb" "$dir/reference.rdb" || exit 1
fi

# --- saves

wrong=0
rows=()			# "mode rep fork_us pagetables vmpte vmcowpte cow_kb write_us check"
declare -A forks tables writes_us cows

# check_rdb MODE RDB
check_rdb()
{
	local m=$1 rdb=$2 result=

	if [ -n "$do_files" ]; then
		say "comparing $rdb"
		if rdb_same "$dir/reference.rdb" "$dir/$rdb"; then
			result=same-file
		else
			result=WRONG-FILE
			wrong=$((wrong + 1))
		fi
	fi
	if [ -n "$do_digest" ]; then
		local in=$cli_in out=$cli_out

		say "loading $rdb"
		cli_in=''
		start_server load "$rdb"
		redis DEBUG DIGEST
		if [ "$reply" = "$digest" ]; then
			result+=${result:+,}same-digest
		else
			result+=${result:+,}WRONG-DIGEST
			wrong=$((wrong + 1))
		fi
		exec {cli_in}>&- {cli_out}<&-
		cli_in=$in cli_out=$out
		stop_server "$server_pid"
	fi
	if [ -n "$keep" ]; then
		[ -z "${kept[$m]:-}" ] || rm -f "${kept[$m]}"
		kept[$m]=$dir/$rdb
	else
		rm -f "${dir:?}/$rdb"
	fi
	checked=${result:-not-checked}
}

one_save()
{
	local m=$1 rep=$2 rdb=$1-$2.rdb want=0
	local share before child pt vmpte vmcow cow=- us_before us=-

	[ "$m" != on ] || want=1
	if [ -n "$feature" ]; then
		"$cowpte" "$m" -p "$live" || die 1 "cannot switch redis-server $m"
		[ "$setting" = always ] || [ "$(cat /proc/"$live"/cow_pte)" = $want ] ||
			die 1 "redis-server is not switched $m"
	fi
	vmstat cow_pte_share
	share=$value
	pagetables_kb
	before=$value

	expect 'Background saving started' BGSAVE
	redis INFO stats
	field latest_fork_usec
	fork_us=$value
	vmstat cow_pte_share
	share=$((value - share))
	child=$(pgrep -P "$live" | head -n 1)
	[ -n "$child" ] || die 1 "no saving child: is the data set too small?"
	pagetables_kb
	pt=$((value - before))
	status_kb "$child" VmPTE
	vmpte=$value
	status_kb "$child" VmCowPTE
	vmcow=$value

	server_cpu_ns
	us_before=$value
	overwrite w
	server_cpu_ns
	if [ "$writes" -gt 0 ] && [ -n "$value" ]; then
		us=$(((value - us_before) / 1000))
	fi
	redis INFO persistence
	field rdb_bgsave_in_progress
	[ "$value" = 1 ] ||
		warn "mode $m: the save was over before the writes were; use a larger --size"

	checked=stopped
	if [ "$rep" -le $((reps - complete)) ]; then
		# Redis's own way to stop a child that is not needed any more.
		kill -USR1 "$child"
	fi
	while [ "$value" = 1 ]; do
		sleep 0.2
		redis INFO persistence
		field rdb_bgsave_in_progress
	done
	if [ "$rep" -gt $((reps - complete)) ]; then
		field rdb_last_bgsave_status
		[ "$value" = ok ] || die 1 "BGSAVE failed: $(tail -n 3 "$dir/live.log")"
		field rdb_last_cow_size
		cow=$((value / 1024))
		cows[$m]+="$cow "
	fi
	# The data are again what they were, for the next save and the last check.
	overwrite v
	if [ "$rep" -gt $((reps - complete)) ]; then
		files+=("$dir/$rdb")
		mv "$dir/dump.rdb" "$dir/$rdb" || exit 1
		check_rdb "$m" "$rdb"
	fi

	forks[$m]+="$fork_us "
	tables[$m]+="$pt "
	[ "$us" = - ] || writes_us[$m]+="$us "
	rows+=("$m $rep $fork_us $share $pt $vmpte $vmcow $us $cow $checked")
	if [ "$m" = on ] && [ "$share" -eq 0 ]; then
		warn "mode on: nothing shared, the figures show conventional forks"
	fi
}

for m in "${modes[@]}"; do
	for ((rep = 1; rep <= reps; rep++)); do
		say "mode $m, save $rep of $reps"
		one_save "$m" $rep
	done
done

# The live server's data after all this.
live_check=not-checked
if [ -n "$do_files" ]; then
	expect OK SAVE
	live_check=same-file
	rdb_same "$dir/reference.rdb" "$dir/dump.rdb" || live_check=WRONG-FILE
fi
if [ -n "$do_digest" ] && [ $live_check != WRONG-FILE ]; then
	redis DEBUG DIGEST
	live_check=same-digest
	[ "$reply" = "$digest" ] || live_check=WRONG-DIGEST
fi
[[ $live_check != WRONG* ]] || wrong=$((wrong + 1))
say

# --- results

declare -A med_fork med_pt med_write med_cow
for m in "${modes[@]}"; do
	# shellcheck disable=SC2086 # lists of numbers
	{
		median ${forks[$m]}; med_fork[$m]=$value
		median ${tables[$m]}; med_pt[$m]=$value
		median ${writes_us[$m]:-}; med_write[$m]=$value
		median ${cows[$m]:-}; med_cow[$m]=$value
	}
done
ratio "${med_fork[off]:-}" "${med_fork[on]:-}"
fork_ratio=$value
ratio "${med_pt[off]:-}" "${med_pt[on]:-}"
pt_ratio=$value
ratio "${med_write[off]:-}" "${med_write[on]:-}"
write_ratio=$value

thp=$(sed -n 's/.*\[\(.*\)\].*/\1/p' /sys/kernel/mm/transparent_hugepage/enabled 2> /dev/null)

echo "redis-snapshot: $product-server $redis_version, $(system_line)"
feature_line
printf 'data: %d keys, values of %d bytes, used_memory %d MiB, RSS %d MiB, VmPTE %d kB\n' \
	"$dbsize" "$value_size" $((used_memory >> 20)) $((rss_kb >> 10)) "$vmpte_kb"
printf 'disable-thp %s (system: %s), rdbcompression %s, %d writes during each save\n' \
	"$thp_off" "${thp:-none}" "$compress" "$writes"
[ -z "$note" ] || echo "note: $note"
echo
{
	echo "mode save fork_us shared PageTables VmPTE VmCowPTE write_us cow_kB snapshot"
	[ ${#rows[@]} -eq 0 ] || printf '%s\n' "${rows[@]}"
	for m in "${modes[@]}"; do
		echo "$m median ${med_fork[$m]} - ${med_pt[$m]} - -" \
			"${med_write[$m]:--} ${med_cow[$m]:--} -"
	done
	if [ ${#modes[@]} -eq 2 ]; then
		echo "off/on - ${fork_ratio:--} - ${pt_ratio:--} - - ${write_ratio:--} - -"
	fi
} | awk '{
	for (i = 1; i <= NF; i++) {
		c[NR, i] = $i
		if (length($i) > w[i])
			w[i] = length($i)
	}
} END {
	for (r = 1; r <= NR; r++) {
		for (i = 1; i <= 9; i++)
			printf i == 1 ? "%-*s" : "  %*s", w[i], c[r, i]
		print "  " c[r, 10]
	}
}'
echo
echo "fork_us: latest_fork_usec; shared: page tables shared by the fork; PageTables: growth of the"
echo "system's, kB; VmPTE, VmCowPTE: of the child, kB; write_us: CPU time of the writes;"
echo "cow_kB: memory the child found no longer shared (rdb_last_cow_size)"
echo "live data after all saves: $live_check"

# --- JSON

if [ -n "$json" ]; then
	{
		printf '{\n'
		json_system
		quote "$redis_version"
		printf '  "redis_version": %s,\n' "$value"
		printf '  "keys": %d,\n  "value_size": %d,\n  "used_memory": %d,\n' \
			"$dbsize" "$value_size" "$used_memory"
		printf '  "rss_kb": %d,\n  "vmpte_kb": %d,\n  "writes": %d,\n' \
			"$rss_kb" "$vmpte_kb" "$writes"
		printf '  "disable_thp": "%s",\n  "rdbcompression": "%s",\n' "$thp_off" "$compress"
		printf '  "saves": ['
		sep=
		for row in "${rows[@]}"; do
			read -r m rep fork share pt vmpte vmcow us cow checked <<< "$row"
			printf '%s\n    { "mode": "%s", "save": %d, "latest_fork_usec": %d,' \
				"$sep" "$m" "$rep" "$fork"
			printf ' "shared_tables": %d, "pagetables_kb": %d,' "$share" "$pt"
			printf ' "child_vmpte_kb": %d, "child_vmcowpte_kb": %d,' "$vmpte" "$vmcow"
			printf ' "write_usec": %s, "cow_kb": %s, "snapshot": "%s" }' \
				"${us/#-/null}" "${cow/#-/null}" "$checked"
			sep=,
		done
		printf '\n  ],\n  "median": {'
		sep=
		for m in "${modes[@]}"; do
			printf '%s\n    "%s": { "latest_fork_usec": %s, "pagetables_kb": %s,' \
				"$sep" "$m" "${med_fork[$m]}" "${med_pt[$m]}"
			printf ' "write_usec": %s, "cow_kb": %s }' \
				"${med_write[$m]:-null}" "${med_cow[$m]:-null}"
			sep=,
		done
		printf '\n  },\n  "ratio_off_on": { "latest_fork_usec": %s,' "${fork_ratio:-null}"
		printf ' "pagetables_kb": %s, "write_usec": %s },\n' \
			"${pt_ratio:-null}" "${write_ratio:-null}"
		quote "$digest"
		printf '  "digest": %s,\n  "live_data": "%s",\n  "wrong": %d,\n' \
			"$value" "$live_check" "$wrong"
		json_warnings
		printf '}\n'
	} > "$json_new" || die 1 "cannot write $json_new"
	json_done
fi

# --- files to keep: all is measured, and the results are written

copied=1
for m in "${!kept[@]}"; do
	say "copying $m.rdb to $keep"
	files+=("$keep/$m.rdb.part")
	if cp "${kept[$m]}" "$keep/$m.rdb.part"; then
		# (a file system may not know sync; the check sum in the file is there too)
		sync "$keep/$m.rdb.part" 2> /dev/null
		mv "$keep/$m.rdb.part" "$keep/$m.rdb" || copied=
	else
		copied=
	fi
done
say

[ $wrong -eq 0 ] || die $EXIT_WRONG "$wrong check(s) failed: data are not what they were"
[ -n "$copied" ] || die 1 "--keep: cannot copy the RDB files to $keep"
