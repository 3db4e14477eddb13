#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Smoke test of cowpte and cowpte-bench on whatever kernel runs: arguments,
# exit codes, output formats. No figure is judged. Output is TAP.
#
# usage: test.sh COWPTE COWPTE-BENCH
set -u

if [ $# -ne 2 ] || [ ! -x "$1" ] || [ ! -x "$2" ]; then
	echo "usage: test.sh COWPTE COWPTE-BENCH (built programs)" >&2
	exit 2
fi
cowpte=$(realpath "$1")
bench=$(realpath "$2")
here=$(dirname "$(realpath "$0")")
dir=$(mktemp -d "${TMPDIR:-/tmp}/cowpte-test.XXXXXX") || exit 1
trap 'rm -rf "$dir"' EXIT

nr=0
failed=0

ok()
{
	nr=$((nr + 1))
	echo "ok $nr - $*"
}

not_ok()
{
	nr=$((nr + 1))
	failed=$((failed + 1))
	echo "not ok $nr - $*"
	sed 's/^/# /' "$dir/out" "$dir/err"
}

skip()
{
	nr=$((nr + 1))
	echo "ok $nr - $1 # SKIP $2"
}

# status WANTED NAME COMMAND...: the exit status, and that a failure has a
# message on standard error that names the program
status()
{
	local wanted=$1 name=$2 got=0
	shift 2

	"$@" > "$dir/out" 2> "$dir/err" < /dev/null || got=$?
	if [ $got -ne "$wanted" ]; then
		echo "# status $got instead of $wanted" >> "$dir/err"
		not_ok "$name"
	elif [ "$wanted" -ne 0 ] && ! grep -Eq '^([^ ]*/)?cowpte' "$dir/err"; then
		echo "# no message" >> "$dir/err"
		not_ok "$name"
	else
		ok "$name"
	fi
}

# is WANTED STATUS NAME
is()
{
	if [ "$2" -eq "$1" ]; then
		ok "$3"
	else
		echo "# status $2 instead of $1" >> "$dir/err"
		not_ok "$3"
	fi
}

# says REGEX NAME: what the last command wrote, to either stream
says()
{
	if cat "$dir/out" "$dir/err" | grep -Eq -- "$1"; then
		ok "$2"
	else
		not_ok "$2"
	fi
}

# json NAME PYTHON: the file $dir/json is JSON, and an expression of it true; d
# is all of it, R its results, M the metrics of all results
json()
{
	if python3 - "$dir/json" "$2" > "$dir/out" 2> "$dir/err" <<- 'END'
		import json, sys
		with open(sys.argv[1], encoding="utf-8") as f:
		    d = json.load(f, parse_constant=lambda c: sys.exit("not JSON: " + c))
		R = d.get("results", []) if isinstance(d, dict) else []
		M = [m for r in R for m in r["metrics"].values()]
		assert eval("(" + sys.argv[2] + ")"), sys.argv[2]
	END
	then
		ok "$1"
	else
		not_ok "$1"
	fi
}

have_python=1
python3 -m json.tool < /dev/null > /dev/null 2>&1
[ $? -eq 127 ] && have_python=

"$cowpte" status > "$dir/out" 2>&1 && feature=1 || feature=
setting=$(sed -n 's/.*\[\(.*\)\].*/\1/p' /sys/kernel/mm/cow_pte/enabled 2> /dev/null)

echo "TAP version 13"
echo "# kernel $(uname -r), feature ${feature:+present}${feature:-absent}, setting ${setting:-none}"

# --- cowpte: arguments
status 0 "cowpte --help" "$cowpte" --help
says 'Exit status' "its help tells the exit status"
status 0 "cowpte --version" "$cowpte" --version
status 0 "cowpte run --help" "$cowpte" run --help
status 1 "no command" "$cowpte"
status 1 "unknown command" "$cowpte" frobnicate
status 1 "unknown option" "$cowpte" status --frobnicate
status 1 "run without a command" "$cowpte" run
status 1 "on without a process" "$cowpte" on
status 1 "off without a process" "$cowpte" off
status 1 "an operand that is no process" "$cowpte" on redis-server
says 'invalid PID' "... is called invalid"
for arg in '' ',' '1,x' '1 x'; do
	status 1 "status of PIDs '$arg'" "$cowpte" status "$arg"
	says 'invalid PID' "... is called invalid"
done
for arg in 0 x -1 100000; do
	status 1 "status --watch $arg" "$cowpte" status --watch "$arg"
	says "watch: '$arg'" "... is refused"
done
status 1 "-j does not go with on" "$cowpte" on -j 1
status 1 "-v does not go without a process" "$cowpte" status -v
for pid in 0 -1 x 1x '' 99999999999999999999 2147483648; do
	status 1 "status of PID '$pid'" "$cowpte" status -p "$pid"
	says 'invalid PID' "... is called invalid"
done
status 1 "-p does not go with run" "$cowpte" run -p 1 true
status 1 "-a does not go with on" "$cowpte" on -a
status 1 "-0 does not go with status" "$cowpte" status -0
status 1 "a process that is not there" "$cowpte" on -p 2147483646
says 'no such process' "... is reported"

# --- cowpte: run
status 0 "run --off on every kernel" "$cowpte" run --off -- sh -c 'echo started'
[ "$setting" = always ] || says '^started$' "... starts the command"
if [ -n "$feature" ]; then
	status 127 "run: command not found" "$cowpte" run /nonexistent/command
	status 126 "run: command not executable" "$cowpte" run /dev/null
	"$cowpte" run sh -c 'exit 5' > "$dir/out" 2> "$dir/err"
	is 5 $? "run: status of the command"
	# shellcheck disable=SC2016 # for the shell to be run
	status 0 "run: options of the command are its own" "$cowpte" run sh -c 'echo "$1"' sh -p
	says '^-p$' "... and reach it"
	status 0 "run switches on" "$cowpte" run sh -c 'cat /proc/self/cow_pte'
	says '^1$' "... over fork and exec"
	status 0 "run --off switches off" "$cowpte" run -- "$cowpte" run -0 cat /proc/self/cow_pte
	says '^0$' "... what was on"
else
	status 1 "run without the feature" "$cowpte" run true
	says 'CONFIG_COW_PTE' "... names what is missing"
	status 1 "status without the feature" "$cowpte" status
	says 'CONFIG_COW_PTE' "... names what is missing"
	status 1 "status -p without the feature" "$cowpte" status -p $$
	says 'CONFIG_COW_PTE' "... names what is missing"
	status 1 "on -p without the feature" "$cowpte" on -p $$
	says 'CONFIG_COW_PTE' "... names what is missing"
fi

# --- cowpte: running processes
if [ -n "$feature" ]; then
	sleep 1000 &
	pid=$!
	# What is switched on before it executes the program may be left behind there.
	until [ "$(cat "/proc/$pid/comm")" = sleep ]; do sleep 0.1; done
	status 0 "on -p" "$cowpte" on -p $pid
	status 0 "status -p" "$cowpte" status -p $pid -p $$
	says "^ *$pid .* on .* kB .* kB" "... shows on, VmPTE and VmCowPTE"
	status 0 "status -a" "$cowpte" status -a
	says "^ *$pid .* on " "... lists the process"
	status 0 "off -p" "$cowpte" off -p $pid
	status 0 "status -p" "$cowpte" status -p $pid
	says "^ *$pid .* off " "... shows off"
	status 0 "on, several as one argument" "$cowpte" on "$pid $$"
	status 0 "status, with commas" "$cowpte" status -p "$pid,$$"
	is 2 "$(grep -c ' on ' "$dir/out")" "... shows both on"
	status 0 "off, operands behind -p" "$cowpte" off -p $pid $$
	status 0 "status, operands" "$cowpte" status $pid $$
	is 2 "$(grep -c ' off ' "$dir/out")" "... shows both off"
	if [ -n "$have_python" ]; then
		"$cowpte" status --json $pid $$ > "$dir/json"
		json "status --json of processes" "len(d) == 2 and d[0]['pid'] == $pid and
			d[0]['on'] is False and d[0]['VmPTE'] > 0 and d[0]['VmCowPTE'] >= 0 and
			d[0]['shared_bytes'] >= 0 and d[0]['last_fork_skip'] == '-'"
		"$cowpte" status --json > "$dir/json"
		json "status --json of the system" "d['enabled'] == '$setting' and
			d['PageTables'] > 0 and d['share'] >= 0"
		"$cowpte" status --json --all > "$dir/json"
		json "status --json of all" "all(p['on'] for p in d)"
	fi
	status 0 "status -v" "$cowpte" status -v $pid
	says 'shared with others now: .* kB' "... tells what is shared"
	says 'copied at a change: .* [0-9]' "... and what was copied"
	if [ "$setting" = prctl ]; then
		# shellcheck disable=SC2016 # for that shell
		status 0 "a small process forks" "$cowpte" run sh -c '(:); "$0" status -v $$; true' "$cowpte"
		says 'its last fork shared none, for: *min_tables' "... and is told why nothing is shared"
	else
		skip "a small process forks" "in the mode '$setting' it shares, too"
	fi
	timeout 3 "$cowpte" status --watch 0.2 $pid > "$dir/out" 2> "$dir/err"
	is 124 $? "status --watch goes on until it is stopped"
	is 1 "$(($(grep -c "^ *$pid " "$dir/out") > 3))" "... and shows it again and again"
	sh -c 'sleep 0 & echo $! > "$0"; exec sleep 2' "$dir/zombie" &
	zombie=$!
	sleep 1
	status 1 "a process that has ended" "$cowpte" on "$(cat "$dir/zombie")"
	says 'has ended' "... is called so"
	kill $zombie
	wait $zombie 2> /dev/null
	if unshare --pid --fork true 2> /dev/null; then
		status 0 "on of process 1" \
			unshare --pid --fork --mount-proc "$cowpte" on 1
		says 'warning: process 1' "... warns"
	else
		skip "on of process 1" "needs the right to make a PID namespace"
	fi
	status 1 "one process of two is not there" "$cowpte" status -p $pid -p 2147483646
	says "^ *$pid " "... the other is shown"
	kill $pid
	wait $pid 2> /dev/null
	status 0 "status" "$cowpte" status
	says 'PageTables:' "... shows the memory"
	if [ "$(id -u)" -eq 0 ] && command -v setpriv > /dev/null; then
		sleep 1000 &
		pid=$!
		chmod 755 "$dir"
		cp "$cowpte" "$dir/cowpte"
		status 1 "on -p of another user's process" \
			setpriv --reuid=65534 --regid=65534 --clear-groups "$dir/cowpte" on -p $pid
		says 'permission denied' "... is refused"
		kill $pid
		wait $pid 2> /dev/null
	else
		skip "on -p of another user's process" "needs root and setpriv"
	fi
fi

# --- cowpte-bench: arguments
status 0 "bench --help" "$bench" --help
says 'Exit status' "its help tells the exit status"
status 0 "bench --version" "$bench" --version
for cmd in fork fault window memory shm micro; do
	status 0 "bench $cmd --help" "$bench" $cmd --help
	says 'nanoseconds' "... tells the unit"
done
status 2 "bench: no command" "$bench"
status 2 "bench: unknown command" "$bench" frobnicate
status 2 "bench: unknown option" "$bench" fork --frobnicate
status 2 "bench: stray argument" "$bench" fork 1G
status 2 "bench: mode" "$bench" fork --mode maybe
status 2 "bench: unit" "$bench" fork --unit furlongs
for size in '' x -1 1X 1GG 1.5G '64M,' ',64M' '1M,,2M' 99999999999999999999 16777216T 64M,65536K; do
	status 2 "bench: size '$size'" "$bench" fork --size "$size"
done
for reps in 0 -1 x 1x 1000001 99999999999999999999; do
	status 2 "bench: reps '$reps'" "$bench" fork --reps "$reps"
done
status 2 "bench: size 0 has no faults" "$bench" fault --size 0
status 2 "bench: pattern" "$bench" fault --pattern spiral
status 2 "bench: fate" "$bench" fault --child asleep
status 2 "bench: window without a table" "$bench" window --size 4K
says 'one page table' "... says how much it needs"
status 2 "bench: every table but none" "$bench" window --every 0
status 2 "bench: child" "$bench" fork --child asleep
status 2 "bench: policy" "$bench" fork --sched rr
status 2 "bench: numbers of children fall" "$bench" memory --children 4,2
status 2 "bench: no children" "$bench" memory --children 0
status 2 "bench: shm without a table" "$bench" shm --size 4K
status 2 "bench: no pages" "$bench" shm --pages 0
status 2 "bench: more pages than a table has" "$bench" shm --pages 100000
status 2 "bench: operation" "$bench" micro --ops fork,spoon
says 'spoon' "... is named"
status 2 "bench: loops" "$bench" micro --loops 0
status 2 "bench: micro has no size" "$bench" micro --size 4M
status 2 "bench: micro has no huge pages" "$bench" micro --thp
status 2 "bench: --samples without --json" "$bench" fork --samples
status 1 "bench: more memory than there is" "$bench" fork --size 64T --reps 1
says 'not enough memory|cannot reserve' "... is said before it is used"
status 1 "bench: JSON file that cannot be written" \
	"$bench" fork --size 0 --reps 1 --json /nonexistent/file
if [ -c /dev/full ]; then
	# shellcheck disable=SC2016 # for the shell to be run
	status 1 "bench: full disk" sh -c '"$0" fork --size 0 --reps 1 > /dev/full' "$bench"
fi

# --- cowpte-bench: modes that this kernel has not
small=(--size 4M --reps 2)
if [ -z "$feature" ]; then
	status 3 "bench: mode on without the feature" "$bench" fork "${small[@]}" --mode on
	says 'CONFIG_COW_PTE' "... names what is missing"
	status 0 "bench: both modes without the feature" "$bench" fork "${small[@]}"
	says 'only mode off is measured' "... says that off is left"
elif [ "$setting" = always ]; then
	status 3 "bench: mode off where all fork shared" "$bench" fork "${small[@]}" --mode off
elif [ "$setting" = never ]; then
	status 3 "bench: mode on where none may" "$bench" fork "${small[@]}" --mode on
fi

# --- cowpte-bench: output
status 0 "bench fork" "$bench" fork "${small[@]}" --note 'a note'
says '^note: a note$' "... prints the note"
says 'min_tables|not in this kernel' "... tells about the feature"
status 0 "bench fork, child waits, rewriting" "$bench" fork "${small[@]}" --child wait --rewrite
status 0 "bench fork, child executes" "$bench" fork "${small[@]}" --child exec
says 'fork \+ exec of' "... says so"
status 0 "bench fork, ordinary scheduling" "$bench" fork "${small[@]}" --sched other
status 0 "bench fork, no later forks" "$bench" fork "${small[@]}" --later 0
status 0 "bench fault" "$bench" fault "${small[@]}"
status 0 "bench window" "$bench" window "${small[@]}"
status 0 "bench window, cold" "$bench" window --size 4M --reps 1 --every 2 --cold
status 0 "bench memory" "$bench" memory "${small[@]}" --children 1,3
status 0 "bench shm" "$bench" shm --size 4M --reps 1 --children 1,3
status 0 "bench shm, every page written" "$bench" shm --size 4M --reps 1 --children 2 \
	--pages 512 --write
status 0 "bench micro" "$bench" micro --reps 1 --loops 2
if grep -q '\[never\]' /sys/kernel/mm/transparent_hugepage/enabled 2> /dev/null; then
	skip "bench fork, huge pages" "they are switched off"
else
	status 0 "bench fork, huge pages" "$bench" fork "${small[@]}" --thp
fi
if [ -n "$have_python" ]; then
	common='d["tool"] == "cowpte-bench" and d["page_size"] > 0 and d["cpus"] > 0'
	ordered='all(m["min"] <= m["median"] <= m["p99"] <= m["max"] for m in M)'

	"$bench" fork "${small[@]}" --later 3 --samples --json - --note $'q"\\\t\xff\u00e9' \
		> "$dir/json" 2> "$dir/err"
	json "fork: JSON" "$common"
	json "fork: order of the statistics" "$ordered"
	json "fork: size 0 is added" '{r["size"] for r in R} == {0, 4 << 20}'
	json "fork: samples" 'all(len(m["samples"]) == m["n"] == (2 if r["fork"] == "first" else 6)
		for r in R for m in r["metrics"].values())'
	json "fork: the note survives quoting" 'd["note"].startswith("q\"\\\t\ufffd")'
	json "fork: p99 of few samples is the largest" 'all(m["p99"] == m["max"] for m in M)'

	"$bench" fork --size 0 --reps 50 --later 3 --samples --json "$dir/json" \
		> "$dir/out" 2> "$dir/err"
	json "fork: p99 by nearest rank" 'all(
		sorted(m["samples"])[-(-99 * m["n"] // 100) - 1] == m["p99"] for m in M)'
	json "fork: median" 'all(
		__import__("statistics").median(m["samples"]) == m["median"] for m in M)'

	"$bench" fault "${small[@]}" --unit instructions --json "$dir/json" \
		> "$dir/out" 2> "$dir/err"
	json "fault: JSON" "$common"
	json "fault: unit" 'd["unit"] == "instructions"'
	json "fault: all combinations" 'len({(r["pattern"], r["child"], r["mode"]) for r in R}) \
		== len(R) == 6 * len({r["mode"] for r in R})'
	json "fault: fork and writes together" 'all(
		m["fork"]["min"] + m["rewrite"]["min"] <= m["fork_and_rewrite"]["max"]
		for m in (r["metrics"] for r in R))'
	"$bench" window --size 8M --reps 2 --every 3 --json "$dir/json" \
		> "$dir/out" 2> "$dir/err"
	json "window: JSON" "$common"
	json "window: each third table" '{r["ops"] for r in R} == {2}'
	json "window: the sum is of its parts" 'all(
		m["sum"]["min"] >= sum(m[x]["min"] for x in
		("fork", "first_write", "child_exit", "rewrite"))
		for m in (r["metrics"] for r in R))'
	"$bench" fault "${small[@]}" --json "$dir/json" > "$dir/out" 2> "$dir/err"
	json "fault: pages" '{r["ops"] for r in R if r["pattern"] != "table"} \
		== {(4 << 20) // d["page_size"]}'

	echo "longer than what follows: $(head -c 100000 /dev/zero | tr '\0' x)" > "$dir/json"
	"$bench" memory "${small[@]}" --children 1,2 --json "$dir/json" > "$dir/out" 2> "$dir/err"
	json "memory: JSON, into a file that was longer" "$common"
	json "memory: children" '{r["children"] for r in R} == {1, 2}'
	json "memory: VmPTE" 'all(r["metrics"]["child_vmpte"]["min"] > 0 for r in R)'

	"$bench" fork "${small[@]}" --child exec --json "$dir/json" > "$dir/out" 2> "$dir/err"
	json "fork: what executes is another figure" 'd["child"] == "exec" and
		all(set(r["metrics"]) == {"fork", "fork_exec_wait"} for r in R)'
	"$bench" micro --reps 2 --loops 3 --samples --json "$dir/json" > "$dir/out" 2> "$dir/err"
	json "micro: JSON" "$common"
	json "micro: order of the statistics" "$ordered"
	json "micro: all operations, each once per mode" 'len(R) == len({(r["op"], r["mode"])
		for r in R}) == 17 * len({r["mode"] for r in R})'
	json "micro: samples" 'all(len(m["samples"]) == 6 and m["min"] > 0 for m in M)'
	"$bench" micro --ops cow,fork --reps 1 --loops 1 --json "$dir/json" > "$dir/out" 2> "$dir/err"
	json "micro: only some operations" '{r["op"] for r in R} == {"fork", "cow"}'
	if [ -n "$feature" ] && [ "$setting" = prctl ]; then
		"$bench" fork --size 64M --reps 2 --json "$dir/json" > "$dir/out" 2> "$dir/err"
		json "forks in mode on share" 'min(r["shared_tables_median"] for r in R
			if r["mode"] == "on" and r["size"]) >= 32'
		json "... and quotients are given" 'len(d["ratios_off_on"]) == 4'
	fi
else
	skip "JSON output" "no python3"
fi

# --- the workload scripts

# script NAME OPTION...: its --help, bad arguments, and a small run with these
# options: figures for each mode, and JSON
script()
{
	local name=$1 script=$here/workloads/$1.sh args got=0
	shift

	status 0 "$name --help" "$script" --help
	says 'Exit status' "... tells the exit status"
	for args in '--frobnicate' '--reps 0' '--reps x' '--mode maybe' '--reps'; do
		# shellcheck disable=SC2086 # to be split
		"$script" $args > "$dir/out" 2> "$dir/err"
		is 2 $? "$name: $args"
	done
	"$script" --json /nonexistent/file "$@" > "$dir/out" 2> "$dir/err"
	is 1 $? "$name: JSON file that cannot be written"
	"$script" --cowpte /nonexistent/cowpte "$@" > "$dir/out" 2> "$dir/err"
	is 1 $? "$name: a cowpte that is not there"
	if [ -z "$feature" ]; then
		"$script" --mode on --cowpte "$cowpte" "$@" > "$dir/out" 2> "$dir/err"
		is 3 $? "$name: mode on without the feature"
		says 'CONFIG_COW_PTE' "... names what is missing"
	fi
	"$script" --cowpte "$cowpte" --reps 2 --json "$dir/json" --note 'a "note"' \
		"$@" > "$dir/out" 2> "$dir/err" || got=$?
	is 0 $got "$name: a small run"
	says '^note: a "note"$' "... prints the note"
	[ -n "$have_python" ] || return 0
	json "... and writes JSON" "d['tool'] == '$name' and d['note'] == 'a \"note\"' and d['metrics']"
	json "... figures of all modes" 'all(m.get(mode, {"min": 0})["min"] <= m[mode]["median"]
		<= m[mode]["max"] for m in d["metrics"].values() for mode in ("off", "on")
		if mode in m) and {mode for m in d["metrics"].values() for mode in m
		if mode in ("off", "on")} == ({"off", "on"} if d["cow_pte"].get("enabled") == "prctl"
		else {"on"} if d["cow_pte"].get("enabled") == "always" else {"off"})'
}

# missing NAME PACKAGE: without any other program it says what is missing, and
# how to get it
missing()
{
	local bin=$dir/bin tool

	rm -rf "$bin"
	mkdir "$bin"
	for tool in bash dirname realpath getopt sed cat awk rm; do
		ln -s "$(command -v $tool)" "$bin/$tool"
	done
	PATH=$bin "$here/workloads/$1.sh" > "$dir/out" 2> "$dir/err"
	is 1 $? "$1: programs that are missing"
	says "apt-get install .*$2" "... are named with their package"
}

missing redis-load redis-server
missing postgres postgresql
missing prefork python3
missing forkexec perl
missing afl "afl\+\+"
missing small python3

for w in frobnicate "fork vfork spoon"; do
	# shellcheck disable=SC2086 # to be split
	"$here/workloads/small.sh" $w > "$dir/out" 2> "$dir/err"
	is 2 $? "small: workload $w"
done
if [ -n "$have_python" ]; then
	script prefork --size 16M --workers 2 --requests 20
	"$here/workloads/prefork.sh" --cowpte "$cowpte" --size 16M --workers 2 --requests 20 \
		--reps 1 --heap objects > "$dir/out" 2> "$dir/err"
	is 0 $? "prefork --heap objects"
	says 'heap=objects ' "... says so"
	script small --scale 3 pipeline storm
	"$here/workloads/small.sh" --cowpte "$cowpte" --scale 3 --reps 1 --cpu-time pipeline \
		> "$dir/out" 2> "$dir/err"
	is 0 $? "small --cpu-time"
	if grep -q 'CPU time' "$dir/out" && ! grep -q ': time' "$dir/out"; then
		ok "... shows nothing else"
	else
		not_ok "... shows nothing else"
	fi
	if perl -MTime::HiRes -e 1 2> /dev/null; then
		script forkexec --size 16M --count 3
		"$here/workloads/forkexec.sh" --command 'exit 7' --cowpte "$cowpte" \
			> "$dir/out" 2> "$dir/err"
		is 1 $? "forkexec: a command that fails"
	else
		skip "forkexec" "no perl with Time::HiRes"
	fi
	if command -v redis-server > /dev/null && command -v redis-benchmark > /dev/null; then
		script redis-load --size 8M --clients 2 --before 50 --series "$dir/series"
		"$here/workloads/redis-load.sh" --clients x > "$dir/out" 2> "$dir/err"
		is 2 $? "redis-load: clients"
		if [ "$(awk 'NF != 4 { bad++ } END { print (NR > 50 && !bad) }' "$dir/series")" = 1 ]; then
			ok "redis-load: series of latencies"
		else
			not_ok "redis-load: series of latencies"
		fi
	else
		skip "redis-load" "no redis-server or redis-benchmark"
	fi
	if grep -qs '\[never\]' /sys/kernel/mm/cow_pte/file; then
		skip "postgres" "shared memory is left out"
	elif [ -n "$(find /usr/lib/postgresql -name initdb 2> /dev/null)" ]; then
		script postgres --size 8M --backends 2
		got=0
		"$here/workloads/postgres.sh" --size 8M --backends 1 --user no/body \
			> "$dir/out" 2> "$dir/err" || got=$?
		# (who is not root has no choice)
		is $(($(id -u) ? 0 : 2)) $got "postgres: a user who is not there"
	else
		skip "postgres" "no postgresql"
	fi
	if command -v afl-fuzz > /dev/null && command -v afl-cc > /dev/null; then
		script afl --size 4M --execs 1000
		status 0 "afl --build" "$here/workloads/afl.sh" --build "$dir/harness"
		echo 'SELECT count(*) FROM big' > "$dir/sql"
		# shellcheck disable=SC2016 # for the shell to be run
		status 0 "... builds a program that runs SQL" sh -c '"$0" 1 < "$1"' \
			"$dir/harness" "$dir/sql"
		"$dir/harness" 0 > "$dir/out" 2> "$dir/err"
		is 2 $? "... and refuses a size of 0"
	else
		skip "afl" "no afl++"
	fi
else
	skip "workloads" "no python3"
fi

# --- perf-compare
perf=$here/perf-compare
status 0 "perf-compare --help" "$perf" --help
for args in '' 'frobnicate true' 'stat' 'latency' 'latency f' '--reps 0 stat true' \
	'--json x trace true' 'stat -r 1 true'; do
	# shellcheck disable=SC2086 # to be split
	"$perf" $args > "$dir/out" 2> "$dir/err"
	is 2 $? "perf-compare: '$args'"
done
if perf stat -e task-clock true > /dev/null 2>&1; then
	"$perf" --cowpte "$cowpte" -r 2 -j "$dir/json" stat -- sh -c 'exit 0' \
		> "$dir/out" 2> "$dir/err"
	is 0 $? "perf-compare stat"
	[ -z "$have_python" ] || json "... writes JSON" '"task-clock" in d["metrics"] and
		all(len(m[mode]["samples"]) == 2 for m in d["metrics"].values()
		for mode in ("off", "on") if mode in m)'
	"$perf" --cowpte "$cowpte" -r 1 stat false > "$dir/out" 2> "$dir/err"
	is 4 $? "perf-compare: a command that fails"
	"$perf" stat /nonexistent/command > "$dir/out" 2> "$dir/err"
	is 1 $? "perf-compare: a command that is not there"
	if [ "$(id -u)" -eq 0 ] && perf trace -s true > /dev/null 2>&1; then
		"$perf" --cowpte "$cowpte" trace true > "$dir/out" 2> "$dir/err"
		is 0 $? "perf-compare trace"
		says 'syscall +calls' "... shows system calls"
		[ "$setting" != prctl ] || says '^mode off +mode on$' "... side by side"
	else
		skip "perf-compare trace" "perf trace does not work here"
	fi
	if [ "$(id -u)" -eq 0 ] && perf ftrace latency -T schedule true > /dev/null 2>&1; then
		"$perf" --cowpte "$cowpte" latency copy_process -- sh -c '(exit 0)' \
			> "$dir/out" 2> "$dir/err"
		is 0 $? "perf-compare latency"
		says 'DURATION +\| +COUNT' "... shows a histogram"
	else
		skip "perf-compare latency" "perf ftrace latency does not work here"
	fi
	"$perf" --cowpte "$cowpte" latency no_such_function true > "$dir/out" 2> "$dir/err"
	is 1 $? "perf-compare: a function that cannot be traced"
else
	skip "perf-compare" "perf does not work here"
fi

# --- the report of make bench-full, of what was measured above
report=$here/../../scripts/cowpte/bench-report.py
if [ -n "$have_python" ] && [ -x "$report" ]; then
	mkdir "$dir/results"
	"$bench" micro --reps 1 --loops 2 --json "$dir/a" > /dev/null 2>&1
	python3 - "$dir/a" "$dir/b" <<- 'END'
		import json, sys
		d = json.load(open(sys.argv[1]))
		for r in d["results"]:
		    r["metrics"]["time"]["min"] *= 1.25
		json.dump(d, open(sys.argv[2], "w"))
	END
	if [ "$setting" != always ]; then
		"$report" compare --json "$dir/json" -- "$dir/a" "$dir/b" > "$dir/out" 2> "$dir/err"
		is 0 $? "bench-report compare"
		says '^cow .*\+25\.00%' "... shows the change"
		json "... writes JSON" 'len(d["ops"]) == 17 and
			all(abs(op["change"] - 0.25) < 1e-9 for op in d["ops"])'
	fi
	"$report" compare -- "$dir/a" "$dir/a" "$dir/b" > "$dir/out" 2> "$dir/err"
	is 1 $? "bench-report compare: one result too many"
	"$report" report "$dir/results" > "$dir/out" 2> "$dir/err"
	is 1 $? "bench-report report: no results"
	if command -v gnuplot > /dev/null; then
		# one target met, one not
		python3 - "$dir/results" <<- 'END'
			import json, sys
			def fault(mode, time):
			    one = {"median": time, "max": time, "median_per_op": time}
			    return {"size": 1 << 30, "pattern": "seq", "child": "alive", "mode": mode,
			            "metrics": {"rewrite": one, "worst_write": one}}
			def fork(mode, which, time):
			    return {"size": 1 << 30, "fork": which, "mode": mode, "metrics": {
			            "fork": {"median": time}, "fork_exit_wait": {"median": time}}}
			json.dump({"results": [fault("off", 100), fault("on", 104)]},
			          open(sys.argv[1] + "/fault.json", "w"))
			with open(sys.argv[1] + "/redis-load.series", "w") as f:
			    f.write("mode rep ms us\n")
			    for mode in "off", "on":
			        f.writelines(f"{mode} 1 {ms} {500 + abs(ms)}\n" for ms in range(-5, 20))
			json.dump({"results": [fork("off", "first", 2000), fork("on", "first", 11)]},
			          open(sys.argv[1] + "/fork.json", "w"))
		END
		"$report" report "$dir/results" > "$dir/out" 2> "$dir/err"
		is 0 $? "bench-report report"
		says '^fork, 1 GiB, first .* 181\.8× +yes' "... a target that is met"
		says '^child alive, parent writes every page.* \+4\.00 % +no' "... one that is not"
		says '^fork, 1 GiB, later .* not measured' "... one that is not measured"
		cp "$dir/results/report.json" "$dir/json"
		json "... in JSON" '[r["met"] for r in d["rows"] if r["figure"] == "fork, 1 GiB, first"]
			== [True] and d["plots"] == ["fork.svg", "snapshot.svg"]'
		for plot in fork snapshot; do
			if grep -q '</svg' "$dir/results/$plot.svg"; then
				ok "... draws $plot.svg"
			else
				not_ok "... draws $plot.svg"
			fi
		done
	else
		skip "bench-report report" "no gnuplot"
	fi
else
	skip "bench-report" "no python3, or not in the source tree"
fi

# --- redis-snapshot
redis=$here/workloads/redis-snapshot.sh
status 0 "redis-snapshot --help" "$redis" --help
for args in '--frobnicate' '--size x' '--size 0' '--reps 0' '--mode maybe' 'stray' \
	'--keep . --complete 0' '--digest' '--digest one' '--digest --timeout 0 a b'; do
	# shellcheck disable=SC2086 # to be split
	"$redis" $args > "$dir/out" 2> "$dir/err"
	is 2 $? "redis-snapshot: $args"
done

# rdb FILE VALUE [KEY]: a file with that one-letter value, without check sum
rdb()
{
	printf 'REDIS0009\xfe\x00\xfb\x01\x00\x00\x01%s\x01%s\xff\0\0\0\0\0\0\0\0' \
		"${3:-k}" "$2" > "$dir/$1"
}

# digest STATUS NAME FILE...: redis-snapshot --digest of files in $dir
digest()
{
	local wanted=$1 name=$2
	shift 2

	(cd "$dir" && exec "$redis" --digest --timeout 300 --json json "$@") \
		> "$dir/out" 2> "$dir/err"
	is "$wanted" $? "redis-snapshot --digest: $name"
}

if command -v redis-server > /dev/null || command -v valkey-server > /dev/null; then
	rdb a.rdb v
	rdb b.rdb v
	rdb 'other value.rdb' w
	printf 'REDIS0009\xff\0\0\0\0\0\0\0\0' | tee "$dir/empty1" > "$dir/empty2"
	head -c 17 "$dir/a.rdb" > "$dir/short.rdb"
	digest 0 "equal files" a.rdb b.rdb
	says '^[0-9a-f]{40}  1 keys  b.rdb$' "... and prints digest and keys"
	[ -z "$have_python" ] || json "... and writes JSON" 'd["equal"] is True and
		len(set(d["digests"].values())) == 1 and
		d["keys"] == {"a.rdb": 1, "b.rdb": 1}'
	digest 4 "a different value" a.rdb b.rdb 'other value.rdb'
	[ -z "$have_python" ] || json "... in JSON" 'd["equal"] is False and
		len(d["digests"]) == 3 and len(set(d["digests"].values())) == 2'
	digest 4 "a file cut short" a.rdb short.rdb
	digest 4 "nothing to compare" empty1 empty2
	says 'no keys' "... is said"
	digest 1 "a file that is not there" a.rdb none.rdb
	digest 1 "a file and itself" a.rdb ./a.rdb
else
	skip "redis-snapshot --digest" "no redis-server"
fi

echo "1..$nr"
[ $failed -eq 0 ]
