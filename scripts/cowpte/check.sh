#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Everything that can be checked on one machine. The last line is
# "N passed, N failed"; the logs are in build/check.
set -euo pipefail
# shellcheck source=scripts/cowpte/common.sh
. "$(dirname "$0")/common.sh"
# shellcheck source=scripts/cowpte/tests.sh
. "$SCRIPTS/tests.sh"

OUT=$BUILD/check

# Limits in seconds, several times what an idle two-core machine takes: of one
# test program, of guests that run them all, of the smoke test; after how long
# no round of soak begins.
PROGRAM_LIMIT=${PROGRAM_LIMIT:-1200}
SELFTESTS_LIMIT=${SELFTESTS_LIMIT:-3600}
SMOKE_LIMIT=300
SOAK_LIMIT=240

# In force mode the program that says most in a short time, beside the kernel's own
# tests and soak; with FULL=1, all.
FORCED="tree"
FULL=${FULL:-}

# less PROGRAM: the options with which the longest programs leave out what says
# least: most of the processes that act in turn, the largest families, operations that
# are like others; nothing is left out with FULL=1
less()
{
	local kind

	[ -z "$FULL" ] || return 0
	case $1 in
	advice|uffd) echo "-T parent -T child -T third -T lender -T borrower" ;;
	syscalls) echo "-T parent -T child -T third -T lender -T threaded" ;;
	swap)
		echo "-T parent -T child -T third -T borrower -T threaded"
		printf -- '-V %s ' {read,write}_{large,mthp,zram} read_zram_mthp \
			swapoff_{large,mthp} cache_hit_zram
		;;
	access) echo "-T parent -T third -T lender -T borrower" ;;
	ends) echo "-T third -T thread" ;;
	isolation) echo "-T third -V memfd -V tmpfs -V mthp" ;;
	files) echo "-T SYSV_CHILD -T TMPFS_GRANDCHILD" ;;
	faults)
		echo "-T parent -T third -T threaded"
		printf -- '-V %s ' mlock_onfault migrate_pages madvise_populate_read \
			madvise_unmergeable madvise_hugepage mremap_grow mremap_shrink \
			mremap_dontunmap pkey_mprotect munlock uffd_copy uffd_zeropage \
			uffd_move pagemap_scan madvise_collapse process_madvise \
			ptrace_poke vm_writev vmsplice_in write_from load_from_hole \
			mprotect_none_table map_fixed_file mbind_move
		;;
	counters)
		printf -- '-V %s ' {all_break,half_break,break_then_fork}_62 \
			memfd_child_{dontneed,dontneed_part,fills,mprotect,mremap,munmap,reads} \
			memfd_{grandchild,middle_exit,parent_exit,parent_munmap,two_children}
		;;
	families)
		printf -- '-V %s ' of_70 first_of_70_exits first_of_70_breaks \
			hole_of_a_page_of_70 everything_of_70
		;;
	ksm) echo "-V not_forked -V child_of_child" ;;
	pins)
		for kind in anon memfd zeropage swapped thp_split mthp ksm; do
			printf -- '-V %s_in_third -V %s_in_threaded ' $kind $kind
		done
		printf -- '-V %s ' {memfd,mthp}_{before_fork,in_child,in_parent}
		;;
	esac
}

# step WHAT COMMAND...: a check that is a command, with its duration. Of its output
# those lines are shown that say how far it is, and when it fails the last ones.
step()
{
	local what=$1 log start=$SECONDS status=0

	shift
	log=$OUT/$(slug "$what").log
	printf '== %s\n' "$what"
	"$@" 2>&1 | tee "$log" | sed -un '/^  [0-9]/p' || status=$?
	[ $status -eq 0 ] || tail -n 60 "$log"
	result $status "$what ($(hms $((SECONDS - start))))"
	return $status
}

# guest_tests WHAT CMDLINE PROGRAM...: two guests that share these programs, as most
# of them keep one processor busy; counts their results, and those of the guests
guest_tests()
{
	local what=$1 cmdline=$2 dir name program start=$SECONDS guest status
	local -A guests=()

	shift 2
	dir=$OUT/$(slug "$what")
	rm -rf "$dir"
	mkdir -p "$dir"
	printf '== %s\n' "$what"
	for program; do
		name=${program##*/}
		program="${program%/*} ./$name $(less "$name" | paste -sd " ")"
		# (a few huge pages, for the tests that map some)
		printf '%s %s 16 %s\n' "$name" "$PROGRAM_LIMIT" "$program"
	done > "$dir/list"
	# (two nodes, for those that migrate)
	for guest in first second; do
		GUEST=-$guest run_list debug "$cmdline" "$dir" "$SELFTESTS_LIMIT" -n &
		guests[$guest]=$!
	done
	for guest in first second; do
		status=0
		wait "${guests[$guest]}" || status=$?
		[ $status -eq 0 ] || cat "$dir/run-$guest.log"
		result $status "$what: the kernel of the $guest guest had no complaint"
	done
	count_list "$what" "$dir"
	printf '%s took %s\n' "$what" "$(hms $((SECONDS - start)))"
}

# summed WHAT COMMAND...: one that counts by itself, its last line is "N passed,
# N failed"
summed()
{
	local what=$1 log p='' f=''

	shift
	log=$OUT/$(slug "$what").log
	printf '== %s\n' "$what"
	"$@" 2>&1 | tee "$log" | sed -u '$d' || true
	read -r p _ f _ < <(tail -n 1 "$log") || true
	if [[ $p =~ ^[0-9]+$ && $f =~ ^[0-9]+$ ]]; then
		passed=$((passed + p))
		failed=$((failed + f))
		[ "$f" -eq 0 ] || failures+=("$what: $(sed -n 's/^again, what failed: //p' "$log" |
			paste -sd ';')")
	else
		result 1 "$what: no result"
	fi
}

# What the tools and the workloads say and refuse, on this machine's own kernel
tools()
{
	local log=$OUT/tools.log status=0

	printf '== tools\n'
	make -s -C "$TOP/tools/cowpte-bench" OUTPUT="$BUILD/user/" test > "$log" 2>&1 || status=$?
	count_tap "tools" "$log" "$status"
}

# mm_tests MODE [TEST...]: the quick ones of the kernel's own mm tests must say
# what they say on an untouched kernel
mm_tests()
{
	summed "mm tests, cow_pte=$1" "$SCRIPTS/mm-tests.sh" quick "$@"
}

# A short round of make soak, the same one each time
soak()
{
	summed "soak" env QUICK=1 ROUNDS=1 SEED="${SEED:-1}" NOBUILD=1 KERNELS=debug \
		DURATION=$SOAK_LIMIT "$SCRIPTS/soak.sh"
}

# A tiny benchmark on the perf kernel: it boots, counts, and the mode works.
# shellcheck disable=SC2317 # called by step()
smoke()
{
	rm -rf "$OUT/smoke"
	mkdir -p "$OUT/smoke"
	"$SCRIPTS/run.sh" -k perf -i -t "$SMOKE_LIMIT" -m 2G -w "$OUT/smoke" -o "$OUT/smoke/console.log" -- \
		env BUILD="$BUILD" "$SCRIPTS/guest-bench.sh" smoke "$OUT/smoke" &&
	[ -n "$(find "$OUT/smoke" -name '*.json' -size +0)" ]
}

all()
{
	local tests=() forced=() name

	if [ -n "$FULL" ]; then
		takes "an hour" debug perf
	else
		takes "40 minutes" debug perf
	fi
	"$SCRIPTS/deps.sh" build verify guest test soak
	step "tree" "$SCRIPTS/tree.sh" || [ -d "$KTREE" ] || return 0
	step "verify" "$SCRIPTS/verify.sh" || true
	step "series" "$SCRIPTS/series.sh" || true
	summed "scripts" "$SCRIPTS/test-scripts.sh"
	summed "build matrix" "$SCRIPTS/matrix.sh" tiny no-migration
	if step "user programs" "$SCRIPTS/user.sh" bench; then
		tools
		step "package of the tools" "$SCRIPTS/deb.sh" tools || true
	fi

	if step "debug kernel" "$SCRIPTS/kernel.sh" debug; then
		if step "selftests" "$SCRIPTS/user.sh" selftests; then
			while read -r name; do
				tests+=("$BUILD/selftests/$name")
				[[ -z $FULL && ! " $FORCED " = *" $name "* ]] ||
					forced+=("$BUILD/selftests/$name")
			done < <(make -s -C "$TOP/tools/testing/selftests/cow_pte" print-tests)
		fi
		if [ ${#tests[@]} -gt 0 ]; then
			guest_tests "selftests, prctl mode" "cow_pte=prctl" "${tests[@]}"
			guest_tests "selftests, force mode" "cow_pte=always" "${forced[@]}"
		else
			result 1 "selftests: there is none to run"
		fi
		[ -z "$FULL" ] || mm_tests never cow
		mm_tests always
		soak
	fi
	if step "perf kernel" "$SCRIPTS/kernel.sh" perf; then
		step "smoke test of the perf kernel" smoke || true
	fi
}

mkdir -p "$OUT"
trap summary EXIT
# (in one line: this file may be edited while it runs)
all; exit
