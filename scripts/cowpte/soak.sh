#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Rounds of random load in guests with random settings, until the time is over:
#
#   DURATION=3600   seconds; no round begins after that
#   ROUNDS=N        not more rounds than this
#   KERNELS="debug" which to take in turn (debug, kasan, kcsan, perf, stock-debug...)
#   SEED=N          of the first round; the next has N + 1. A round can be had
#                   again by its seed and kernel.
#   SET="p_zram= p_disturb=reclaim"
#                   parameters that shall be these, whatever the seed says
#   QUICK=1         short rounds without what takes long
#   NOBUILD=1       take kernels and programs as they are
#   KEEP=1          keep the logs of rounds that passed, too
#
# The last line is "N passed, N failed" and counts rounds. One line for each of
# them is added to build/soak/log; what a failed one left is kept beside it.
set -euo pipefail
# shellcheck source=scripts/cowpte/common.sh
. "$(dirname "$0")/common.sh"
# shellcheck source=scripts/cowpte/tests.sh
. "$SCRIPTS/tests.sh"

OUT=$BUILD/soak
QUICK=${QUICK:-}
DURATION=${DURATION:-3600}
ROUNDS=${ROUNDS:-1000000}
SELFTESTS=${SELFTESTS:-$BUILD/selftests}
SEED=${SEED:-$((RANDOM * 32768 + RANDOM))}
read -r -a kernels <<< "${KERNELS:-debug}"

# Those of stress-ng's that use memory, page tables or processes; none that
# needs a network or a disk, takes the machine down, turns to real time, or takes
# longer than a round. Not vfork and vforkmany: their parents lose their stack when
# a child is killed (on the untouched kernel as well: some hundred crashes of all
# kinds in a minute of it).
FORKERS=(clone exec fork forkheavy mlockmany mmapfork oom-pipe rmap session spawn
	 vm-segv zombie)
STRESSORS=(bad-altstack brk cache context fault icache io-uring madvise malloc
	   mcontend membarrier memfd memrate memthrash mincore misaligned mlock
	   mmap mmapaddr mmapfixed mmapmany mprotect mremap msync munmap numa
	   pagemove pageswap pidfd pkey prefetch ptrace remap rseq secretmem
	   shm shm-sysv splice stack stackmmap switch sysbadaddr tlb-shootdown
	   tmpfs userfaultfd vm vm-addr vm-rw vm-splice wait yield)

# What can be had of it is the same everywhere, unlike RANDOM of bash versions. All
# bits are mixed: seeds that follow each other must not draw the same.
state=0
seed()
{
	state=$1
	below 0x100000000
	state=$drawn
}

# below N: a number from 0 to N - 1, in $drawn
below()
{
	local z

	state=$(((state + 0x9e3779b9) & 0xffffffff))
	z=$((((state ^ state >> 16) * 0x85ebca6b) & 0xffffffff))
	z=$((((z ^ z >> 13) * 0xc2b2ae35) & 0xffffffff))
	drawn=$(((z ^ z >> 16) % $1))
}

# pick VARIABLE VALUE...: one of the values
pick()
{
	local name=$1

	shift
	below $#
	shift "$drawn"
	printf -v "$name" %s "$1"
}

# some NUMBER VALUE...: about as many of the values, in $chosen
some()
{
	local want=$1 value total

	shift
	total=$#
	chosen=
	for value; do
		below "$total"
		[ "$drawn" -ge "$want" ] || chosen+="${chosen:+ }$value"
	done
}

p_mode='' p_min_tables='' p_cpus='' p_limit='' p_thp='' p_mglru='' p_programs='' p_file='' p_disk=''

# draw SEED KERNEL: the parameters of a round, p_* (guest-soak.sh knows those
# that it is given) and the guest's own
draw()
{
	local kernel=$2 mib chosen disturb=(reclaim compact proc kill mode swapoff)

	seed "$1"
	p_seed=$1
	p_seconds=75
	[ -z "$QUICK" ] || p_seconds=30
	pick p_mode prctl always always
	pick p_cpus 2 2 4
	pick p_nodes '' 1
	pick mib 1024 1536 2048
	# shadow memory and quarantine
	[[ $kernel != *kasan ]] || mib=$((mib + 1024))
	mem=${mib}M
	pick swap '' 512 1024
	pick p_zram '' 256 512
	[ -n "$swap$p_zram" ] || swap=512
	# At most a quarter of the memory: the limit is reached soon.
	pick p_limit $((mib * 3 / 4)) $((mib / 2)) $((mib / 4))
	pick p_min_tables 0 0 24
	pick p_thp never madvise always
	pick p_mthp '' '' 64 '16 32 64 128'
	pick p_khugepaged '' 1
	pick p_ksm '' 1
	pick p_balancing '' 1
	pick p_mglru y n
	pick p_faults '' '' '' 1
	[ -z "$p_nodes" ] || disturb+=(nodes)
	[ -n "$QUICK" ] || disturb+=(hotplug)
	some 3 "${disturb[@]}"
	# Not both: any kernel may hang in a circle. swapoff has disabled the cache
	# of swap slots and waits for hotplug, to drain it; hotplug waits for the
	# memory of a process, whose nodes have changed (mpol_rebind_mm); and that
	# is held by a thread that waits in __read_swap_cache_async() for a slot to
	# be drained.
	[[ $chosen != *swapoff*hotplug* ]] || chosen=${chosen/ hotplug/}
	p_disturb=$chosen
	some 2 "${FORKERS[@]}"
	p_stressors=${chosen:-fork}
	some 3 "${STRESSORS[@]}"
	p_stressors+=" $chosen"
	pick p_trinity '-g vm' '-g vm' '-x reboot -x kexec_load -x syslog'
	pick p_programs 'model stress-ng' 'storm stress-ng' 'model storm' \
		'model stress-ng trinity' 'storm trinity' 'model storm stress-ng'
	pick p_file never "$p_mode" "$p_mode" "$p_mode"
	pick p_disk '' 1 1
	[ -z "${SET:-}" ] || eval "$SET"
}

# described: the parameters, short
described()
{
	printf 'mode=%s file=%s%s min_tables=%s cpus=%s%s mem=%s limit=%sM swap=%s zram=%s thp=%s%s' \
		"$p_mode" "$p_file" "${p_disk:+ ext4}" "$p_min_tables" "$p_cpus" "${p_nodes:+ nodes=2}" "$mem" "$p_limit" \
		"${swap:-0}" "${p_zram:-0}" "$p_thp" "${p_mthp:+ mthp=${p_mthp// /,}}"
	printf '%s%s%s%s mglru=%s | %s | %s |' "${p_khugepaged:+ khugepaged}" "${p_ksm:+ ksm}" \
		"${p_balancing:+ balancing}" "${p_faults:+ faults}" "$p_mglru" \
		"${p_disturb:-undisturbed}" "${p_programs/stress-ng/stress-ng($(tr -s ' ' , <<< "${p_stressors% }"))}"
}

# round SEED KERNEL: count one
round()
{
	local kernel=$2 dir=$OUT/$1-$2 status=0 start=$SECONDS line options=() problem p
	local ops=0 oom_kills=0 before_forks=0 after_forks=0 before_share=0 after_share=0
	local before_break=0 after_break=0 before_reuse=0 after_reuse=0
	local before_join=0 after_join=0

	draw "$1" "$kernel"
	rm -rf "$dir"
	mkdir -p "$dir"
	for p in "${!p_@}"; do
		printf '%s=%q\n' "$p" "${!p}"
	done > "$dir/round"
	printf '%s=%q\n' selftests "$SELFTESTS" cowpte "$BUILD/user/cowpte" >> "$dir/round"
	[ -z "$swap" ] || options+=(-s "$swap")
	[ -z "$p_nodes" ] || options+=(-n)
	# To boot and to settle takes a while, with KASAN a longer one.
	"$SCRIPTS/run.sh" -k "$kernel" -m "$mem" -c "$p_cpus" "${options[@]}" \
		-t $((p_seconds * 3 + 360)) -w "$dir" -o "$dir/console.log" -- \
		"$SCRIPTS/guest-soak.sh" "$dir" > "$dir/run.log" 2>&1 || status=$?
	if [ -f "$dir/result" ]; then
		# shellcheck disable=SC1091 # made by guest-soak.sh
		. "$dir/result"
	fi
	# (a status of 0 proves that it came to its end)
	line="seed=$p_seed kernel=$kernel $(described)"
	line+=" $ops operations, $((after_forks - before_forks)) forks, tables: $((after_share - before_share)) shared,"
	line+=" $((after_break - before_break)) broken, $((after_reuse - before_reuse)) reused,"
	line+=" $((after_join - before_join)) joined"
	[ "$oom_kills" -eq 0 ] || line+=", $oom_kills killed for memory"
	line+=" ($(hms $((SECONDS - start))))"
	result $status "$line" | tee -a "$OUT/log"
	# (the pipe's count was that of a subshell)
	if [ $status -eq 0 ]; then
		passed=$((passed + 1))
		[ -n "${KEEP:-}" ] || rm -rf "$dir"
		return
	fi
	failed=$((failed + 1))
	{
		while read -r problem; do
			printf '  %s\n' "$problem"
		done < <(cat "$dir/problems" 2> /dev/null || true)
		case $status in
		70) sed -n 's/^run: the kernel complained/  the kernel complained/p' "$dir/run.log" ;;
		124) echo "  the guest did not end in time" ;;
		esac
		printf '  what it left is in %s; again: make soak SEED=%s ROUNDS=1 KERNELS=%s%s\n' \
			"${dir#"$TOP"/}" "$p_seed" "$kernel" "${QUICK:+ QUICK=1}"
	} | tee -a "$OUT/log"
}

# (a function: read as a whole, as this file may be edited while a guest runs)
main()
{
	local i start

	[[ $DURATION =~ ^[0-9]+$ && $ROUNDS =~ ^[0-9]+$ && $SEED =~ ^[0-9]+$ ]] ||
		die "DURATION, ROUNDS and SEED want numbers"
	[ ${#kernels[@]} -gt 0 ] || die "KERNELS is empty"
	for i in "${kernels[@]}"; do
		kernel_dir "$i" > /dev/null
	done
	[ -n "$QUICK" ] || say "takes $(hms "$DURATION") and what the last round needs then (one is about three minutes)"
	"$SCRIPTS/deps.sh" build guest test soak
	mkdir -p "$OUT"
	trap summary EXIT
	trap 'exit 130' INT
	trap 'exit 143' TERM HUP
	if [ -z "${NOBUILD:-}" ]; then
		"$SCRIPTS/kernel.sh" "${kernels[@]}"
		"$SCRIPTS/user.sh" bench
		"$SCRIPTS/user.sh" selftests
	fi
	start=$SECONDS
	for ((i = 0; i < ROUNDS && SECONDS - start < DURATION; i++)); do
		round $((SEED + i)) "${kernels[i % ${#kernels[@]}]}"
	done
}
main; exit
