#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# One round of soak.sh, in a guest:
#
#   guest-soak.sh RESULTS
#
# RESULTS/round has the parameters, as assignments: soak.sh explains them. Leaves
# the output of each program in RESULTS/NAME.log, and RESULTS/result: the counts
# as assignments. The status is 0 if nothing went wrong; else RESULTS/problems
# has a line for each thing that did.
set -u

results=$1
# shellcheck source=scripts/cowpte/gauge.sh
. "$(dirname "$0")/gauge.sh"

p_seed=1 p_seconds=10 p_programs=stress-ng
p_cpus=2 p_nodes='' p_limit=1024 p_zram=''
p_mode=prctl p_min_tables=24 p_file=never p_disk=''
p_thp=madvise p_mthp='' p_khugepaged='' p_ksm='' p_balancing='' p_mglru=y
p_faults='' p_disturb='' p_stressors=vm p_trinity='-g vm'
selftests='' cowpte=''
# shellcheck disable=SC1091 # made by soak.sh
. "$results/round"

MM=/sys/kernel/mm
CG=/sys/fs/cgroup/soak
DIR=/tmp/soak		# of the programs, and their output
STOP=/tmp/stop		# is there when the disturbances shall end
declare -A pids=() status=()

problem()
{
	printf '%s\n' "$*" >> "$results/problems"
}

# put VALUE FILE: a setting that does not take would make the round say more
# than it tested.
put()
{
	{ echo "$1" > "$2"; } 2> /dev/null || problem "cannot write '$1' to $2"
}

phase()
{
	echo "cowpte-guest: $*" > /dev/kmsg
}

# counters: forks and those of the feature, as assignments, with a prefix
counters()
{
	local key value

	while read -r key value _; do
		[ "$key" != processes ] || printf '%sforks=%s\n' "$1" "$value"
	done < /proc/stat
	while read -r key value; do
		case $key in
		cow_pte_*) printf '%s%s=%s\n' "$1" "${key#cow_pte_}" "$value" ;;
		esac
	done < /proc/vmstat
}

setup()
{
	local thp=$MM/transparent_hugepage size

	mkdir -p "$DIR"
	mount -t tmpfs -o mode=1777 tmpfs "$DIR" || problem "cannot mount $DIR"
	rm -f "$STOP"

	# (an untouched kernel does not have it)
	if [ -d $MM/cow_pte ]; then
		put "$p_mode" $MM/cow_pte/enabled
		put "$p_min_tables" $MM/cow_pte/min_tables
		put "$p_file" $MM/cow_pte/file
	fi
	put "$p_thp" $thp/enabled
	for size in $p_mthp; do
		put always "$thp/hugepages-${size}kB/enabled"
	done
	if [ -n "$p_khugepaged" ]; then
		put 0 $thp/khugepaged/scan_sleep_millisecs
		put 0 $thp/khugepaged/alloc_sleep_millisecs
		put 8192 $thp/khugepaged/pages_to_scan
		put 511 $thp/khugepaged/max_ptes_shared
	fi
	if [ -n "$p_ksm" ]; then
		put 2000 $MM/ksm/pages_to_scan
		put 1 $MM/ksm/sleep_millisecs
		put 1 $MM/ksm/run
	fi
	put "$p_mglru" $MM/lru_gen/enabled
	put "${p_balancing:-0}" /proc/sys/kernel/numa_balancing
	# (there with SCHED_DEBUG only; else processes are looked at less often)
	if [ -n "$p_balancing" ] && [ -d /sys/kernel/debug/sched ]; then
		put 10 /sys/kernel/debug/sched/numa_balancing/scan_delay_ms
		put 20 /sys/kernel/debug/sched/numa_balancing/scan_period_min_ms
	fi
	if [ -n "$p_zram" ]; then
		put "${p_zram}M" /sys/block/zram0/disksize
		{ mkswap /dev/zram0 && swapon -p 10 /dev/zram0; } > /dev/null ||
			problem "cannot swap to zram"
	fi
	# In memory that is not swapped: what is in use afterwards has to be the same
	if [ -n "$p_disk" ]; then
		read -r disk < /sys/class/zram-control/hot_add
		put 160M "/sys/block/zram$disk/disksize"
		mkdir "$DIR/disk"
		{ mkfs.ext4 -q "/dev/zram$disk" && mount "/dev/zram$disk" "$DIR/disk" &&
			chmod 1777 "$DIR/disk"; } > /dev/null 2>&1 || problem "cannot mount ext4"
		export TMPDIR=$DIR/disk
	fi
	# Few and far between: most of what a program does shall succeed.
	if [ -n "$p_faults" ]; then
		fault_attr failslab
		fault_attr fail_page_alloc
		put 0 /sys/kernel/debug/fail_page_alloc/min-order
	fi

	mkdir -p $CG/model $CG/stress || problem "cannot make $CG"
	put "${p_limit}M" $CG/memory.max
	ulimit -l unlimited
	ulimit -c 0
	put -1000 /proc/self/oom_score_adj
}

fault_attr()
{
	local d=/sys/kernel/debug/$1

	put 1 "$d/probability"
	put 50 "$d/interval"
	put -1 "$d/times"
	put 0 "$d/verbose"
	put Y "$d/task-filter"
	put N "$d/ignore-gfp-wait"
}

# start NAME GROUP SECONDS COMMAND...: in a session of its own, beside us. What is
# in the group "stress" may be killed at any time, and its allocations fail.
start()
{
	local name=$1 group=$2 limit=$3 wrap=() adj

	shift 3
	[ "$p_mode" != prctl ] || wrap=("$cowpte" run --)
	mkdir -m 1777 "$DIR/$name"
	(
		echo $BASHPID > $CG/"$group"/cgroup.procs
		# (who is checked shall not be the one that has to make room)
		[ "$group" = model ] && adj=-500 || adj=500
		echo $adj > /proc/self/oom_score_adj
		[ -z "$p_faults" ] || [ "$group" != stress ] || echo 1 > /proc/self/make-it-fail
		cd "$DIR/$name" || exit
		# (in the order of the processes: nothing between us and timeout)
		exec setsid "${wrap[@]}" timeout -s INT -k 10 "$limit" "$@"
	) < /dev/null > "$DIR/$name.log" 2>&1 &
	pids[$name]=$!
}

programs()
{
	local name i options=() trinity=() more=$((p_seconds + 20))
	# Not as root: stress-ng does kill(-1) when a fork() has failed.
	local as=(setpriv --clear-groups)

	read -r -a trinity <<< "$p_trinity"
	for name in $p_programs; do
		case $name in
		# (a sequence that has begun is brought to its end)
		model|storm)
			start "$name" model $((p_seconds * 2 + 60)) env COW_PTE_COMPANY=1 \
				"$selftests/$name" -s "$p_seed" -t "$p_seconds"
			;;
		stress-ng)
			for i in $p_stressors; do
				options+=("--$i" 1)
			done
			start stress-ng stress $more "${as[@]}" --reuid=60001 --regid=60001 \
				stress-ng --oomable --verify --metrics-brief \
				--seed "$p_seed" --temp-path "$DIR/stress-ng" --timeout "${p_seconds}s" \
				--vm-bytes 64M --mmap-bytes 64M --mremap-bytes 32M --malloc-bytes 32M \
				--memfd-bytes 32M --shm-bytes 8M --shm-sysv-bytes 8M --exec-max 8 \
				--forkheavy-procs 64 --forkheavy-allocs 1024 "${options[@]}"
			;;
		trinity)
			start trinity stress "$p_seconds" "${as[@]}" --reuid=60002 --regid=60002 \
				trinity -q -l off -a 64 -C 4 -s "$p_seed" "${trinity[@]}"
			;;
		esac
	done
}

# Disturbances: each is a loop beside us that looks for the stop file.

running()
{
	[ ! -e "$STOP" ] || return 1
	sleep "$1"
	[ ! -e "$STOP" ]
}

# victim GROUP: a process of it, but not one that we started, in $victim
victim()
{
	local all=() stat

	victim=
	mapfile -t all < <(cat $CG/"$1"/cgroup.procs 2> /dev/null)
	[ ${#all[@]} -gt 0 ] || return 1
	victim=${all[RANDOM % ${#all[@]}]}
	{ read -r stat < "/proc/$victim/stat"; } 2> /dev/null || return 1
	stat=${stat##*) }
	read -r _ parent _ <<< "$stat"
	[[ " $$ ${pids[*]} " != *" $victim "* && " $$ ${pids[*]} " != *" $parent "* ]]
}

disturb_kill()
{
	while running 0.3; do
		! victim stress || kill -9 "$victim" 2> /dev/null
	done
}

disturb_hotplug()
{
	local n=$((p_cpus - 1)) f

	# The fair server of 6.12 counts as a task, which any kernel warns of when
	# it is in the queue of the processor that goes ("not properly vacated").
	for f in /sys/kernel/debug/sched/fair_server/cpu*/runtime; do
		[ ! -e "$f" ] || put 0 "$f"
	done
	while running 1; do
		f=/sys/devices/system/cpu/cpu$((RANDOM % n + 1))/online
		# (EBUSY now and then, as for every administrator)
		{ echo 0 > "$f"; } 2> /dev/null
		running 1
		{ echo 1 > "$f"; } 2> /dev/null
	done
}

# (it fails when there is not enough memory for what is to come back)
disturb_swapoff()
{
	local device

	while running 3; do
		for device in "${devices[@]}"; do
			timeout 60 swapoff "$device" 2> /dev/null
			swapon "$device" 2> /dev/null
		done
	done
}

disturb_reclaim()
{
	while running 0.5; do
		{ echo "$((RANDOM % 64 + 1))M" > $CG/memory.reclaim; } 2> /dev/null
	done
}

disturb_compact()
{
	while running 1; do
		echo 1 > /proc/sys/vm/compact_memory
	done
}

disturb_mode()
{
	local modes=(always prctl always never) i=0

	[ -d $MM/cow_pte ] || return
	while running 1; do
		echo "${modes[i++ % 4]}" > $MM/cow_pte/enabled
		echo $((RANDOM % 48)) > $MM/cow_pte/min_tables
		[ "$p_file" = never ] || echo "${modes[RANDOM % 4]}" > $MM/cow_pte/file
	done
	echo "$p_mode" > $MM/cow_pte/enabled
	echo "$p_file" > $MM/cow_pte/file
}

disturb_nodes()
{
	local i=0

	while running 2; do
		{ echo $((i++ % 2)) > $CG/cpuset.mems; } 2> /dev/null
	done
	{ echo 0-1 > $CG/cpuset.mems; } 2> /dev/null
}

disturb_proc()
{
	local group

	while running 0.2; do
		group=stress
		[ $((RANDOM % 2)) -eq 0 ] || group=model
		victim $group || continue
		cat "/proc/$victim/"{smaps,smaps_rollup,numa_maps,status,pagemap} 2> /dev/null |
			head -c 4M > /dev/null
		{ echo $((RANDOM % 4 + 1)) > "/proc/$victim/clear_refs"; } 2> /dev/null
	done
}

finish()
{
	local f i watchdog

	: > "$STOP"
	# (where they hang can be told only as long as they do)
	(
		for ((i = 0; i < 75; i++)); do
			sleep 1
			[ -e "$STOP" ] || exit 0
		done
		phase "the disturbances do not end"
		# (ps would look at memory, and hang as well; d: held locks)
		for f in /proc/[1-9]*/task/*; do
			cat "$f/stat" "$f/stack"
		done > "$results/processes" 2> /dev/null
		echo w > /proc/sysrq-trigger
		echo d > /proc/sysrq-trigger
	) &
	watchdog=$!
	[ ${#loops[@]} -eq 0 ] || wait "${loops[@]}"
	rm "$STOP"
	wait $watchdog
	phase finishing
	for f in /sys/devices/system/cpu/cpu*/online; do
		read -r i < "$f"
		[ "$i" = 1 ] || put 1 "$f"
	done
	put 1 $CG/cgroup.kill
	for ((i = 0; i < 300; i++)); do
		! grep -q 'populated 0' $CG/cgroup.events || break
		sleep 0.2
	done
	grep -q 'populated 0' $CG/cgroup.events || {
		problem "processes that do not die: $(cat $CG/*/cgroup.procs | tr '\n' ' ')"
		echo t > /proc/sysrq-trigger
	}
	oom_kills=$(sed -n 's/^oom_kill //p' $CG/memory.events)
	wait
}

# verdict NAME STATUS: what a program's own output says of what it checked
verdict()
{
	local log=$DIR/$1.log

	case $1 in
	model|storm)
		# Who was killed for want of memory after all has nothing to say.
		! dmesg | grep -qE "Killed process [0-9]+ \($1\)" || return
		! grep -E '^(not ok|Bail out!)' "$log" > "$DIR/failures" ||
			problem "$1: $(head -n 1 "$DIR/failures")"
		# (after its time it was sent SIGINT, and then SIGKILL)
		case $2 in
		137) problem "$1: it did not end when told to" ;;
		124|130) ;;
		*) [ "$2" -lt 124 ] || problem "$1: exit status $2: $(tail -n 1 "$log")" ;;
		esac
		;;
	stress-ng)
		# Of all that it may complain about when killed and starved, this
		# is what is always wrong: memory with other contents than were
		# written to it.
		# (and not that it has none, when none of its forks succeeded)
		! grep -E "$STRESS_CORRUPT" "$log" | grep -v 'all bogo-op counters are zero' \
			> "$DIR/corrupt" || problem "$1: $(head -n 1 "$DIR/corrupt")"
		;;
	esac
}
STRESS_CORRUPT='detected [1-9][0-9]* (bit |memory )?error|data (mismatch|corrupt)'
STRESS_CORRUPT+='|(memory|data|page|checksum|contents?) .*(mismatch|corrupt|not match|differ|incorrect)'

# operations NAME: how many it says it did
operations()
{
	case $1 in
	model|storm) sed -n 's/^# ops \([0-9]*\) .*/\1/p' "$DIR/$1.log" ;;
	stress-ng)
		# the table of --metrics-brief: name, operations, times
		awk '/ metrc: / { sub(/.* metrc: \[[0-9]*\] */, "")
			if ($2 ~ /^[0-9]+$/) n += $2 } END { print n + 0 }' "$DIR/$1.log"
		;;
	trinity) sed -n 's/.*Ran \([0-9]*\) syscalls.*/\1/p' "$DIR/$1.log" ;;
	esac | awk '{ n += $1 } END { print n + 0 }'
}

: > "$results/problems"
RANDOM=$((p_seed % 32768))
loops=()
ops=0
oom_kills=0

phase setting up
setup
[ -z "$p_nodes" ] || [ -d /sys/devices/system/node/node1 ] || problem "there is no second node"
gauge_start
before=$(counters before_)

phase "programs: $p_programs, stressors: $p_stressors, disturbed by: $p_disturb"
programs
for d in $p_disturb; do
	"disturb_$d" &
	loops+=($!)
done
for name in "${!pids[@]}"; do
	wait "${pids[$name]}"
	status[$name]=$?
	phase "$name has ended"
done
finish

for name in "${!pids[@]}"; do
	verdict "$name" "${status[$name]}"
	n=$(operations "$name")
	# (who is starved may come to nothing, who had to be stopped says nothing)
	[ "$n" -gt 0 ] || [ -n "$p_faults" ] || [ "$oom_kills" -gt 0 ] || [ "${status[$name]}" -ge 124 ] ||
		problem "$name did nothing: $(tail -n 1 "$DIR/$name.log")"
	ops=$((ops + n))
	tail -c 60000 "$DIR/$name.log" > "$results/$name.log"
done
{
	printf 'ops=%s\noom_kills=%s\n%s\n' "$ops" "$oom_kills" "$before"
	counters after_
} > "$results/result"

phase settling
# Nothing of it may stay: neither files in memory nor what merged pages.
for d in failslab fail_page_alloc; do
	[ -z "$p_faults" ] || put 0 "/sys/kernel/debug/$d/probability"
done
[ -z "$p_ksm" ] || put 2 $MM/ksm/run
if [ -n "$p_disk" ]; then
	umount "$DIR/disk" || problem "ext4 cannot be unmounted"
	put "$disk" /sys/class/zram-control/hot_remove
fi
umount -l "$DIR"
rm -rf /dev/shm/* /dev/mqueue/* /tmp/[!s]* 2> /dev/null
ipcrm --all 2> /dev/null
rmdir $CG/model $CG/stress $CG || problem "the cgroup cannot be removed"
# (not in a substitution: its process would count)
leak_check > "$results/leak"
leak=$(< "$results/leak")
[[ $leak = ok* ]] || {
	problem "not back where it began: $leak"
	ps --ppid 2 -p 2 -N -o pid,ppid,stat,rss,args > "$results/processes"
}
[ ! -s "$results/problems" ]
