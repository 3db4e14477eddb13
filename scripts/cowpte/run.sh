#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Boot a kernel in a guest on this machine's own root directory, run a command
# there, and pass on what it prints and how it ends.
#
# shellcheck disable=SC2054 # the commas are QEMU's
set -euo pipefail
# shellcheck source=scripts/cowpte/common.sh
. "$(dirname "$0")/common.sh"

usage()
{
	cat <<'END'
usage: run.sh [options] [--] COMMAND [ARG...]
       run.sh [options] -S

  -k KERNEL   debug (default), perf, kasan, kcsan, stock-debug, ..., or a bzImage;
              ppc64le-debug, ppc64le-perf: a pseries machine, whose root is
              build/ppc64le-root
  -M MMU      of such a machine: radix (default) or hash
  -t SECONDS  time limit (600); then the guest is killed and the status is 124
  -m MEM      memory (4G)
  -c CPUS     processors (2)
  -i          count instructions: one processor, 1 instruction = 1 ns
  -a ARGS     more kernel parameters, for instance -a cow_pte=always
  -n          two NUMA nodes
  -s MB       a swap disk of that size
  -w DIR      DIR of the host is writable in the guest (may be repeated)
  -o FILE     keep the kernel's console log there
  -x REGEX    kernel messages that match are not trouble (extended regex)
  -S          an interactive shell instead of a command

The guest sees the host's files read-only, at the same paths. /tmp, /run and
/dev/shm are empty and in memory; /etc, /var, /root, /home are copies in memory.
The command runs as root in the caller's directory with an environment of its
own (use env NAME=VALUE COMMAND). The status is the command's; 124: time limit;
70: the kernel complained (warning, oops, lockdep, ...) or the guest died.
END
}

STATUS_TROUBLE=70
STATUS_TIMEOUT=124
STATUS_USAGE=64

# Kernel messages that fail a run. A program's own crash ("traps: x general
# protection fault", "segfault at") is not one, hence the anchored pattern.
TROUBLE='BUG:|kernel BUG at|WARNING:|Oops|\.[0-9]+\] general protection fault|KASAN:|KCSAN:|UBSAN:'
TROUBLE+='|INFO: (possible|suspicious|trying|lockdep|task|rcu)|possible (circular|recursive)'
TROUBLE+='|inconsistent lock state|bad unlock balance|DEBUG_LOCKS_WARN_ON'
TROUBLE+='|Bad (page|rss-counter|swap)|bad (pte|pmd|pud|p4d|pgd) |Unused swap|get_swap_device: Bad'
TROUBLE+='|blocked for more than|soft lockup|hard LOCKUP|detected stall|self-detected|rcu.*stalls? on'
TROUBLE+='|page_table_check|Kernel panic|list_(add|del) corruption|refcount_t:|non-zero (pgtables_bytes|nr_ptes)'
TROUBLE+='|cow_pte:.*guard'

kernel=debug
limit=600
mem=4G
cpus=2
icount=
append=
numa=
swap=
shell=
logfile=
ignore=
mmu=radix
writable=()

while getopts 'k:t:m:c:ia:ns:w:o:x:M:Sh' opt; do
	case $opt in
	k) kernel=$OPTARG ;;
	t) limit=$OPTARG ;;
	m) mem=$OPTARG ;;
	c) cpus=$OPTARG ;;
	i) icount=1 ;;
	a) append="$append $OPTARG" ;;
	n) numa=1 ;;
	s) swap=$OPTARG ;;
	w) writable+=("$(realpath "$OPTARG")") ;;
	o) logfile=$OPTARG ;;
	x) ignore=$OPTARG ;;
	M) mmu=$OPTARG ;;
	S) shell=1 ;;
	h) usage; exit 0 ;;
	*) usage >&2; exit $STATUS_USAGE ;;
	esac
done
shift $((OPTIND - 1))
if [ -z "$shell" ] && [ $# -eq 0 ]; then
	usage >&2
	exit $STATUS_USAGE
fi

case ${kernel#stock-} in
perf|debug|kasan|kcsan|mutant|ppc64le-perf|ppc64le-debug)
	image=$(kernel_image "$kernel")
	[ -f "$image" ] || die "there is no $kernel kernel: run make kernel-$kernel"
	;;
*)
	image=$(realpath -m "$kernel")
	[ -f "$image" ] || die "no such kernel image: $kernel"
	;;
esac
[[ $limit =~ ^[0-9]+$ ]] || die "-t wants seconds, not '$limit'"
[[ $mem =~ ^[0-9]+[MG]$ ]] || die "-m wants a size such as 512M or 4G, not '$mem'"
[[ $cpus =~ ^[1-8]$ ]] || die "-c wants 1 to 8, not '$cpus'"
[[ -z $swap || $swap =~ ^[0-9]+$ ]] || die "-s wants MiB, not '$swap'"
# The kernel's command line and QEMU's options have no quoting to speak of.
for path in "${writable[@]}"; do
	[[ $path != *[[:space:],]* ]] || die "no blanks or commas please in the path $path"
done
[[ $mmu = radix || $mmu = hash ]] || die "-M wants radix or hash, not '$mmu'"
ppc=
qemu="qemu-system-x86_64"
packages=guest
if [[ $kernel = *ppc64le* ]]; then
	ppc=1
	qemu="qemu-system-ppc64"
	packages=ppc64le
	[ -d "$PPC_ROOT" ] || die "there is no ${PPC_ROOT#"$TOP"/}: run make user-ppc64le"
fi
command -v $qemu > /dev/null || "$SCRIPTS/deps.sh" $packages >&2
if [ -n "$icount" ]; then
	cpus=1
fi
half=			# of the memory, in MiB
smp=$cpus
if [ -n "$numa" ]; then
	half=${mem%[MG]}
	[ "${mem: -1}" = M ] || half=$((half * 1024))
	half=$((half / 2))
	mem=$((half * 2))M
	# Processors of one socket on two nodes would be warned about.
	smp=$cpus,sockets=$cpus
fi

mkdir -p "$BUILD/run"
dir=$(mktemp -d "$BUILD/run/XXXXXX")
qpid=
cats=()

# shellcheck disable=SC2317 # called by the trap
cleanup()
{
	if [ -n "$qpid" ]; then
		kill "$qpid" 2> /dev/null || true
		wait "$qpid" 2> /dev/null || true
	fi
	[ ${#cats[@]} -eq 0 ] || kill "${cats[@]}" 2> /dev/null || true
	rm -rf "$dir"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# job COMMAND...: what guest-init.sh is to do
job()
{
	local rows=24 cols=80

	if [ -n "$shell" ]; then
		read -r rows cols < <(stty size 2> /dev/null || echo 24 80)
	fi
	printf 'job_%s=%q\n' cwd "$PWD" shell "$shell" swap "$swap" \
		term "${TERM:-linux}" rows "$rows" cols "$cols"
	printf 'job_argv=('
	[ $# -eq 0 ] || printf '%q ' "$@"
	printf ')\njob_paths=('
	printf '%q ' "$TOP" "$BUILD" "$PWD"
	printf ')\njob_writable=('
	[ ${#writable[@]} -eq 0 ] || printf '%q ' "${writable[@]}"
	printf ')\n'
}

cmdline="rootfstype=9p ro rootflags=trans=virtio,version=9p2000.L,msize=512000,cache=loose"
if [ -n "$ppc" ]; then
	cmdline+=" root=ppc init=/guest-init.sh COWPTE_DIR=$dir COWPTE_FOREIGN=1 console=hvc0"
else
	cmdline+=" root=host init=$SCRIPTS/guest-init.sh COWPTE_DIR=$dir console=ttyS0 nokaslr"
fi
# An oops ends the guest at once: panic=-1 restarts, -no-reboot makes that exit.
cmdline+=" oops=panic panic=-1"
# An emulated processor is slow and its host may be busy: be patient rather
# than ignore what the watchdogs say.
cmdline+=" rcupdate.rcu_cpu_stall_timeout=120 watchdog_thresh=60 random.trust_cpu=on"

if [ -n "$icount" ] && [ -z "$ppc" ]; then
	# Time is the count of instructions, so the time stamp counter is sound.
	cmdline+=" tsc=reliable"
fi

qemu_args=(-kernel "$image" -nodefaults -no-user-config -no-reboot
	-display none -monitor none -m "$mem" -smp "$smp"
	-chardev "file,id=kmsg,path=$dir/console.log" -serial chardev:kmsg
	-fsdev "local,id=host,path=/,security_model=none,readonly=on,multidevs=remap"
	-device virtio-9p-pci,fsdev=host,mount_tag=host
	-device virtio-rng-pci
	-device virtio-serial-pci
	-chardev "file,id=status,path=$dir/status"
	-device virtserialport,chardev=status,name=status)

if [ -n "$ppc" ]; then
	# What the emulator lacks against speculation has to be declared.
	machine="pseries,cap-cfpc=broken,cap-sbbc=broken,cap-ibs=broken,cap-ccf-assist=off"
	cpu=power10
	# (the last one that has both)
	if [ "$mmu" = hash ]; then
		cpu=power9
		cmdline+=" disable_radix"
	fi
	qemu_args+=(-machine "$machine" -cpu "$cpu"
		-fsdev "local,id=ppc,path=$PPC_ROOT,security_model=none,readonly=on,multidevs=remap"
		-device virtio-9p-pci,fsdev=ppc,mount_tag=ppc)
	install -m 755 "$SCRIPTS/guest-init.sh" "$PPC_ROOT/guest-init.sh"
	# Places to mount on: the guest cannot make them.
	mkdir -p "$PPC_ROOT"{"$TOP","$BUILD","$PWD",/mnt,/sys,/proc,/dev}
	for path in "${writable[@]}"; do
		mkdir -p "$PPC_ROOT$path"
	done
fi

i=0
for path in "${writable[@]}"; do
	[ -d "$path" ] || die "-w: no such directory: $path"
	qemu_args+=(-fsdev "local,id=w$i,path=$path,security_model=none,multidevs=remap"
		-device "virtio-9p-pci,fsdev=w$i,mount_tag=w$i")
	i=$((i + 1))
done

if [ -n "$numa" ]; then
	qemu_args+=(-object "memory-backend-ram,id=m0,size=${half}M"
		-object "memory-backend-ram,id=m1,size=${half}M")
	if [ "$cpus" -gt 1 ]; then
		qemu_args+=(-numa "node,memdev=m0,cpus=0-$((cpus / 2 - 1))"
			-numa "node,memdev=m1,cpus=$((cpus / 2))-$((cpus - 1))")
	else
		qemu_args+=(-numa node,memdev=m0,cpus=0 -numa node,memdev=m1)
	fi
fi

if [ -n "$swap" ]; then
	truncate -s "${swap}M" "$dir/swap"
	qemu_args+=(-drive "file=$dir/swap,format=raw,if=virtio,cache=unsafe,discard=unmap")
fi

if [ -n "$shell" ]; then
	qemu_args+=(-chardev stdio,id=con,signal=off -device virtconsole,chardev=con)
else
	mkfifo "$dir/out" "$dir/err"
	qemu_args+=(-chardev "file,id=out,path=$dir/out" -device virtserialport,chardev=out,name=out
		-chardev "file,id=err,path=$dir/err" -device virtserialport,chardev=err,name=err)
fi

# probe_kvm: the device file may be there and KVM not work, or stop half-way:
# only a guest that came up with it proves it. A guest that got as far as its
# first line but no further may be our kernel's fault, and is asked again.
probe_kvm()
{
	local cache key pdir=$dir/probe verdict=no

	[ -w /dev/kvm ] || return 1
	cache=$BUILD/.kvm-verdicts
	key=$(printf '%s %s' "$(uname -r)" "$image" | cksum | tr -d ' ')
	case $(grep -s "^$key " "$cache" | tail -n 1) in
	*' yes') return 0 ;;
	*' no') return 1 ;;
	esac
	mkdir "$pdir"
	# shellcheck disable=SC2030 # only of this job
	(
		shell='' swap='' writable=()
		job true
	) > "$pdir/job"
	# (in a shell of its own, which keeps to itself that QEMU was aborted)
	(
		timeout -k 2 10 qemu-system-x86_64 -accel kvm -cpu host -kernel "$image" \
			-nodefaults -no-user-config -no-reboot -display none -monitor none -m 1G -smp 2 \
			-chardev "file,id=kmsg,path=$pdir/console.log" -serial chardev:kmsg \
			-fsdev local,id=host,path=/,security_model=none,readonly=on,multidevs=remap \
			-device virtio-9p-pci,fsdev=host,mount_tag=host -device virtio-serial-pci \
			-chardev "file,id=status,path=$pdir/status" \
			-device virtserialport,chardev=status,name=status \
			-append "${cmdline/"$dir"/"$pdir"}" < /dev/null
		true
	) > /dev/null 2>&1
	if [ "$(cat "$pdir/status" 2> /dev/null)" = 0 ]; then
		verdict=yes
	elif grep -qs 'Linux version' "$pdir/console.log"; then
		verdict=unsure
	fi
	rm -rf "$pdir"
	[ $verdict = unsure ] || printf '%s %s\n' "$key" $verdict >> "$cache"
	[ $verdict = yes ]
}

multithreaded=
if [ -n "$ppc" ]; then
	if [ -n "$icount" ]; then
		qemu_args+=(-accel tcg -icount "shift=0,sleep=off")
	else
		# With a thread for each processor, QEMU before 9.1 does not wait for
		# the others to flush what a tlbie tells them to: writes get lost.
		qemu_args+=(-accel "tcg,thread=single")
	fi
elif [ -n "$icount" ]; then
	qemu_args+=(-accel tcg -icount shift=0,sleep=off -cpu max,la57=off)
elif [ "${COWPTE_ACCEL:-}" != tcg ] && probe_kvm; then
	qemu_args+=(-accel kvm -cpu host)
else
	qemu_args+=(-accel tcg,thread=multi -cpu max,la57=off)
	multithreaded=1
fi

# boot: one guest from power on to power off; its output goes to ours
boot()
{
	cat "$dir/out" &
	cats+=($!)
	cat "$dir/err" >&2 &
	cats+=($!)
	timeout --foreground -k 5 "$limit" \
		$qemu "${qemu_args[@]}" -append "$cmdline$append" \
		< /dev/null > "$dir/qemu.log" 2>&1 &
	qpid=$!
	qstatus=0
	wait "$qpid" || qstatus=$?
	qpid=
	if [ ! -s "$dir/console.log" ] && [ $qstatus -ne 0 ] && [ $qstatus -ne $STATUS_TIMEOUT ]; then
		# QEMU did not start: nobody has opened the pipes for writing.
		kill "${cats[@]}" 2> /dev/null || true
	fi
	wait "${cats[@]}" 2> /dev/null || true
	cats=()
}

# lost_race ATTEMPT: QEMU's multi-threaded emulator may run a breakpoint that
# the kernel, which is patching its code, has already taken away again. When
# that happens before the command was started (only a kernel with JUMP_LABEL
# does it, while it boots), booting again is harmless.
lost_race()
{
	[ "$1" -lt 3 ] && [ -n "$multithreaded" ] &&
		grep -qs 'Oops: int3' "$dir/console.log" &&
		! grep -qs 'cowpte-guest: running' "$dir/console.log"
}

# (in braces: read as a whole, as this file may be edited while a guest runs)
{
job "$@" > "$dir/job"

# shellcheck disable=SC2031 # see above: the other ones were those of a subshell
if [ -n "$shell" ]; then
	$qemu "${qemu_args[@]}" -append "$cmdline$append" || true
else
	for attempt in 1 2 3; do
		boot
		lost_race "$attempt" || break
	done
fi

touch "$dir/console.log"
tr -d '\r' < "$dir/console.log" > "$dir/log"
[ -z "$logfile" ] || cp "$dir/log" "$logfile"

# Keep the log of a run that went wrong, wherever the caller wanted it.
keep_log()
{
	if [ -z "$logfile" ]; then
		logfile=$BUILD/run/failed-$$.log
		cp "$dir/log" "$logfile"
	fi
	printf '%s\n' "$logfile"
}

trouble()
{
	grep -aE "$TROUBLE" "$dir/log" | if [ -n "$ignore" ]; then grep -vE "$ignore"; else cat; fi || true
}

# culprits: which of the programs that guest-tests.sh ran it complained in
culprits()
{
	grep -aE "cowpte-guest: test |$TROUBLE" "$dir/log" |
		if [ -n "$ignore" ]; then grep -vE "$ignore"; else cat; fi |
		awk '/cowpte-guest: test / { test = $NF; next }
		     test != "" && !seen[test]++ { print test }' || true
}

found=$(trouble)
if [ -n "$found" ]; then
	{
		warn "the kernel complained, $(wc -l <<< "$found") line(s): $(head -n 1 <<< "$found")"
		grep -aF -m 1 -B 3 -A 45 -- "$(head -n 1 <<< "$found")" "$dir/log"
		if [ "$(wc -l <<< "$found")" -gt 1 ]; then
			warn "all such lines:"
			head -n 30 <<< "$found"
		fi
		for program in $(culprits); do
			warn "it complained while this ran: $program"
		done
		warn "the whole console log is $(keep_log)"
	} >&2
fi

# shellcheck disable=SC2031
if [ -n "$shell" ]; then
	[ -z "$found" ] || exit $STATUS_TROUBLE
	exit 0
fi
# Trouble first: a deadlock that lockdep reported is more than a time-out.
[ -z "$found" ] || exit $STATUS_TROUBLE
if [ "$qstatus" -eq $STATUS_TIMEOUT ] || [ "$qstatus" -eq 137 ]; then
	warn "time limit of $limit s reached, guest killed: $*; console log: $(keep_log)"
	exit $STATUS_TIMEOUT
fi
status=$(cat "$dir/status" 2> /dev/null) || true
if ! [[ $status =~ ^[0-9]+$ ]]; then
	warn "the guest ended without saying how the command did; console log: $(keep_log)"
	tail -n 15 "$dir/log" >&2
	[ ! -s "$dir/qemu.log" ] || cat "$dir/qemu.log" >&2
	exit $STATUS_TROUBLE
fi
exit "$status"
}
