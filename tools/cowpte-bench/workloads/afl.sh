#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Executions per second of AFL++ on a target whose fork server holds much
# memory, a SQLite database, with and without copy-on-write page tables.
tool=afl
# shellcheck source-path=SCRIPTDIR source=common.sh
. "$(dirname "$(realpath "$0")")/common.sh"

usage()
{
	cat <<END
Usage: afl.sh [options]
       afl.sh --build FILE

Run afl-fuzz on sqlite-harness.c: it loads a database into memory, starts the
deferred fork server, and then runs each input as SQL in a child. Two runs of
different length give the rate without what happens before and after.

 -s, --size SIZE        memory of the database, with K, M or G (256M)
 -e, --execs N          executions that are measured (2000)
     --harness FILE     the harness if it is built already
     --build FILE       only build it, as FILE
$COMMON_HELP

$COMMON_STATUS
END
}

size_text=256M
execs=2000
harness=
build=
reps=1

own_option()
{
	case $1 in
	-s|--size) size_text=$2 ;;
	-e|--execs) execs=$2 ;;
	--harness) harness=$2 ;;
	--build) build=$2 ;;
	esac
}

parse_args s:e: size:,execs:,harness:,build: "$@"
[ ${#rest[@]} -eq 0 ] || die $EXIT_USAGE "unexpected argument '${rest[0]}'"
size_arg --size "$size_text"
size=$value
number --execs "$execs" 1 100000000

# build_harness FILE
build_harness()
{
	local said

	need_program afl-cc afl++
	[ -e /usr/include/sqlite3.h ] ||
		printf '#include <sqlite3.h>\n' | cc -E - > /dev/null 2>&1 ||
		die 1 "sqlite3.h is missing: apt-get install libsqlite3-dev"
	said=$(AFL_QUIET=1 afl-cc -O2 -o "$1" "$here/sqlite-harness.c" -lsqlite3 2>&1) ||
		die 1 "afl-cc cannot build the harness: $said"
}

if [ -n "$build" ]; then
	build_harness "$build"
	exit 0
fi
need_program afl-fuzz afl++
need_program python3 python3
[ -z "$harness" ] || [ -x "$harness" ] || die 1 "--harness: $harness is not a program"
json_writable
look_at_system
need_memory $((size + size / 8)) "--size $size_text"
working_dir
if [ -z "$harness" ]; then
	harness=$dir/sqlite-harness
	files+=("$harness")
	build_harness "$harness"
fi
harness=$(realpath "$harness")

metric_elapsed execs_per_s 1/s "executions per second"
metric_elapsed exec_us us "one execution"
metric execs_per_cpu_s 1/s "executions per second of CPU time"
metric exec_cpu_us us "one execution, CPU time of all"
metric_elapsed start_ms ms "start of afl-fuzz and of the target"
metric shared_tables "" "tables shared per fork"

out=$dir/afl
mkdir -p "$dir/seeds"
made_out=$out
# (the directory may be the user's own)
remove_out()
{
	rm -rf "$made_out" "$dir/seeds"
	cleanup
}
trap remove_out EXIT

printf "SELECT v FROM big WHERE id = 77;" > "$dir/seeds/select"
printf "UPDATE big SET k = 1 WHERE id < 3;" > "$dir/seeds/update"
printf "INSERT INTO t SELECT a, b, c + 1 FROM t ORDER BY b;" > "$dir/seeds/insert"

# What afl-fuzz would rather see changed on a machine that fuzzes for days.
export AFL_NO_UI=1 AFL_SKIP_CPUFREQ=1 AFL_NO_AFFINITY=1 AFL_FAST_CAL=1 \
	AFL_I_DONT_CARE_ABOUT_MISSING_CRASHES=1 AFL_FORKSRV_INIT_TMOUT=600000

# fuzz MODE EXECS MEBIBYTES: about so many executions; $ms and $cpu_ms they took,
# $done_execs in fact
fuzz()
{
	rm -rf "$out"
	launcher "$1"
	"${run[@]}" python3 "$here/timed.py" "$dir/times" afl-fuzz -i "$dir/seeds" -o "$out" \
		-s 1 -t 10000 -m none -E "$2" -- "$harness" "$3" > "$dir/log" 2>&1 < /dev/null ||
		die "$EXIT_WRONG" "afl-fuzz failed in mode $1: $(sed 's/\x1b\[[0-9;]*m//g' "$dir/log" |
			grep -v '^$' | tail -n 4)"
	read -r ms cpu_ms < "$dir/times"
	done_execs=$(awk '$1 == "execs_done" { print $3 }' "$out/default/fuzzer_stats" 2> /dev/null)
	[[ $done_execs =~ ^[0-9]+$ ]] || die "$EXIT_WRONG" "afl-fuzz does not tell how much it did"
}

# rate MODE TIME EXECS WHAT: samples of that many executions in that many ms
rate()
{
	sample "$1" "execs_per_$4s" "$(awk -v t="$2" -v n="$3" 'BEGIN { printf "%.2f", n * 1000 / t }')"
	sample "$1" "exec_$4us" "$(awk -v t="$2" -v n="$3" 'BEGIN { printf "%.3f", t * 1000 / n }')"
}

# less A B: B - A in $value; is that something?
less()
{
	value=$(awk -v a="$1" -v b="$2" 'BEGIN { printf "%.3f", b - a }')
	[[ $value != -* ]] && [[ $value =~ [1-9] ]]
}

files+=("$dir/log" "$dir/times")
mib=$((size >> 20))
say "warming up"
fuzz "${modes[0]}" 1 1
for ((rep = 1; rep <= reps; rep++)); do
	for m in "${modes[@]}"; do
		say "mode $m, repetition $rep of $reps"
		fuzz "$m" 1 $mib
		short_ms=$ms
		short_cpu=$cpu_ms
		short_execs=$done_execs
		vmstat cow_pte_share
		share=$value
		fuzz "$m" $((short_execs + execs)) $mib
		vmstat cow_pte_share
		share=$(((value - share) / done_execs))
		if [ "$m" = on ] && [ $share -eq 0 ]; then
			warn "mode on: nothing shared, the figures show conventional forks"
		fi
		n=$((done_execs - short_execs))
		if [ $n -le 0 ] || ! less "$short_cpu" "$cpu_ms"; then
			die 1 "too few executions to tell: use a larger --execs"
		fi
		rate "$m" "$value" $n cpu_
		# What else the machine does may take more time than the executions.
		if less "$short_ms" "$ms"; then
			rate "$m" "$value" $n ""
		elif [ -z "$cpu_only" ]; then
			warn "too few executions to tell the time that passed: use a larger --execs"
		fi
		sample "$m" start_ms "$short_ms"
		sample "$m" shared_tables "$share"
	done
done

results "size=$size_text execs=$execs afl=$(afl-fuzz -h 2>&1 |
	sed -n 's/.*afl-fuzz++*\([0-9.a-z]*\).*/\1/p' | head -n 1)"
