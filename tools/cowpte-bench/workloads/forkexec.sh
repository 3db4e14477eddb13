#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# What it costs a big process to run a command: fork, exec and wait, from Perl
# and from Python's subprocess, with and without copy-on-write page tables.
tool=forkexec
# shellcheck source-path=SCRIPTDIR source=common.sh
. "$(dirname "$(realpath "$0")")/common.sh"

usage()
{
	cat <<END
Usage: forkexec.sh [options]

Start a Perl and a Python program that fill memory and then run a shell command
again and again. Perl always forks for that. Python's subprocess forks when
vfork() and posix_spawn() are switched off, as with a preexec_fn; how it does
with vfork() is shown for comparison.

 -s, --size SIZE        memory to fill, with K, M or G (4G)
 -c, --count N          commands run by each process, after a first one (20)
 -x, --command COMMAND  the shell command (:)
 -p, --program NAME     perl, python or all (all)
$COMMON_HELP

$COMMON_STATUS
END
}

size_text=4G
count=20
command=:
program=all
reps=3

own_option()
{
	case $1 in
	-s|--size) size_text=$2 ;;
	-c|--count) count=$2 ;;
	-x|--command) command=$2 ;;
	-p|--program) program=$2 ;;
	esac
}

parse_args s:c:x:p: size:,count:,command:,program: "$@"
[ ${#rest[@]} -eq 0 ] || die $EXIT_USAGE "unexpected argument '${rest[0]}'"
size_arg --size "$size_text"
size=$value
number --count "$count" 1 1000000
one_of --program "$program" perl python all

case $program in
all) programs=(perl python) ;;
*) programs=("$program") ;;
esac
for p in "${programs[@]}"; do
	case $p in
	perl)
		perl -MTime::HiRes -e 1 2> /dev/null ||
			die 1 "perl with Time::HiRes is missing: apt-get install perl"
		;;
	python) need_program python3 python3 ;;
	esac
done
sh -c "$command" > /dev/null 2>&1 || die 1 "--command: it fails: $command"
json_writable
look_at_system
need_memory $((size + size / 64)) "--size $size_text"
working_dir

for p in "${programs[@]}"; do
	metric_elapsed "${p}_first_us" us "$p: first command"
	metric "${p}_first_cpu_us" us "$p: first command, CPU time of all"
	metric_elapsed "${p}_us" us "$p: a later command, median"
	metric_elapsed "${p}_min_us" us "$p: a later command, shortest"
	metric "${p}_cpu_us" us "$p: a later command, CPU time of all, shortest"
	metric_elapsed "${p}_vfork_min_us" us "$p: the same with vfork, shortest"
	metric "${p}_vfork_cpu_us" us "$p: the same with vfork, CPU time of all, shortest"
done

# Each prints the microseconds of the first command, and of the others: those that
# passed, and those of CPU time, its own and the command's.
# shellcheck disable=SC2016 # Perl's variables
in_perl='
use Time::HiRes qw(clock_gettime CLOCK_MONOTONIC);
my ($size, $number, $command) = @ARGV;
my $memory = "x";
$memory x= $size;
# times() counts ticks only, and getrusage() is in no module that all have: by its
# number on x86-64.
sub cpu {
	my $sum = 0;
	for my $who (0, -1) {
		my $buf = "\0" x 256;
		syscall(98, $who, $buf) and die "getrusage: $!";
		my ($us, $uus, $ss, $sus) = unpack "q4", $buf;
		$sum += ($us + $ss) * 1e6 + $uus + $sus;
	}
	return $sum;
}
cpu();
for my $i (0 .. $number) {
	my ($used, $start) = (cpu(), clock_gettime(CLOCK_MONOTONIC));
	system "/bin/sh", "-c", $command;
	die "the command failed" if $?;
	my $passed = (clock_gettime(CLOCK_MONOTONIC) - $start) * 1e6;
	printf "%s %.3f %d\n", $i ? "later" : "first", $passed, cpu() - $used;
}'
in_python='
import resource, subprocess, sys, time
size, number, command = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
memory = bytearray(b"x") * size
def cpu():
    return sum(r.ru_utime + r.ru_stime for r in map(resource.getrusage,
               (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)))
def one(name):
    used, start = cpu(), time.perf_counter_ns()
    subprocess.run(["/bin/sh", "-c", command], check=True)
    print(name, (time.perf_counter_ns() - start) / 1000, round((cpu() - used) * 1e6))
subprocess._USE_POSIX_SPAWN = False
subprocess._USE_VFORK = False
for i in range(number + 1):
    one("later" if i else "first")
subprocess._USE_VFORK = True
for i in range(number + 1):
    one("vfork")
'

# sample_of MODE METRIC WHICH FIELD HOW: the median, or by order() the min, of a
# field of the lines that begin with WHICH
sample_of()
{
	local list

	mapfile -t list < <(awk -v w="$3" -v f="$4" '$1 == w { print $f }' "$dir/times")
	case $3:${#list[@]} in
	first:1|later:"$count"|vfork:$((count + 1))) ;;
	*) die "$EXIT_WRONG" "the program ended too early in mode $1" ;;
	esac
	if [ "$5" = median ]; then
		median "${list[@]}"
	else
		order "$5" "${list[@]}"
	fi
	sample "$1" "$2" "$value"
}

# one MODE PROGRAM
one()
{
	local m=$1 p=$2 share

	launcher "$m"
	vmstat cow_pte_share
	share=$value
	case $p in
	perl) "${run[@]}" perl -e "$in_perl" "$size" "$count" "$command" ;;
	python) "${run[@]}" python3 -c "$in_python" "$size" "$count" "$command" ;;
	esac > "$dir/times" || die "$EXIT_WRONG" "$p failed in mode $m"
	vmstat cow_pte_share
	if [ "$m" = on ] && [ "$value" -eq "$share" ]; then
		warn "mode on: nothing shared, the figures show conventional forks"
	fi
	sample_of "$m" "${p}_first_us" first 2 min
	sample_of "$m" "${p}_first_cpu_us" first 3 min
	sample_of "$m" "${p}_us" later 2 median
	sample_of "$m" "${p}_min_us" later 2 min
	sample_of "$m" "${p}_cpu_us" later 3 min
	[ "$p" = python ] || return 0
	sample_of "$m" python_vfork_min_us vfork 2 min
	sample_of "$m" python_vfork_cpu_us vfork 3 min
}

files+=("$dir/times")
for ((rep = 1; rep <= reps; rep++)); do
	for p in "${programs[@]}"; do
		for m in "${modes[@]}"; do
			say "$p, mode $m, repetition $rep of $reps"
			one "$m" "$p"
		done
	done
done

results "size=$size_text commands=$count"
