#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# The kernel's own tests of memory management (tools/testing/selftests/mm) must
# not see a difference between an untouched kernel and one that shares the page
# tables of every process.
#
#   mm-tests.sh [TEST...]            run them on both kernels and compare
#   mm-tests.sh quick MODE [TEST...] run the quick ones with cow_pte=MODE only,
#                                    and compare with what expect/mm-tests has
#   mm-tests.sh record [TEST...]     run the quick ones on an untouched kernel
#                                    and write expect/mm-tests anew
#
# TEST is a name of the table below, or the part of one before a dot. The last
# line is "N passed, N failed"; a table of all is in build/mm-tests/table.md.
set -euo pipefail
# shellcheck source=scripts/cowpte/common.sh
. "$(dirname "$0")/common.sh"
# shellcheck source=scripts/cowpte/tests.sh
. "$SCRIPTS/tests.sh"

OUT=$BUILD/mm-tests
EXPECT=$SCRIPTS/expect/mm-tests
MM=$BUILD/mm/tools/testing/selftests/mm
GUEST_LIMIT=3600	# seconds; the others go on in another guest

# NAME, flags, seconds, huge pages, command: as run_vmtests.sh calls them, which
# cannot be used itself: it reports programs and not what they tested, stops
# none, and wants sudo and modules.
#
# q: quick, the same each time and on every processor: for make check
# n: wants two NUMA nodes, and more than two processors
# d: takes memory away for good, so it comes last, in a guest of its own
#
# Not here: test_vmalloc.sh (a module that tests vmalloc only), the 32-bit
# programs (no compiler for them), va_high_addr_switch (five levels of page
# tables, see run.sh), charge_reserved_hugetlb.sh (it makes lockdep complain of
# cpuset_mutex and mmap_lock in the untouched kernel).
#
# uffd-unit-tests runs into a race of the untouched kernel, too, now and then: a
# fault that takes only the lock of its VMA, after UFFDIO_UNREGISTER has woken
# all that wait and before it locks that VMA, is still delivered, and UFFDIO_COPY
# then finds nothing registered. The program ends there, so it is run again.
table()
{
	cat <<'TABLE'
cow			q 600 16 ./cow
mremap_test		q 300 0 ./mremap_test
mremap_dontunmap	q 60 0 ./mremap_dontunmap
mkdirty			q 120 0 ./mkdirty
madv_populate		q 120 0 ./madv_populate
ksm_functional_tests	- 600 0 ./ksm_functional_tests
pagemap_ioctl		- 900 0 ./pagemap_ioctl
gup_longterm		q 120 16 ./gup_longterm
mseal_test		q 120 0 ./mseal_test
seal_elf		q 60 0 ./seal_elf
mdwe_test		q 60 0 ./mdwe_test
mlock2-tests		q 60 0 ./mlock2-tests
memfd_secret		q 60 0 ./memfd_secret
droppable		q 60 0 ./droppable
map_populate		q 60 0 ./map_populate
map_fixed_noreplace	q 60 0 ./map_fixed_noreplace
pkey_sighandler_tests	- 60 0 ./pkey_sighandler_tests_64
gup_test.fast		- 120 0 ./gup_test -u
gup_test.pin		- 120 0 ./gup_test -a
gup_test.dump		q 120 0 ./gup_test -ct -F 0x1 0 19 0x1000
gup_test.matrix		- 900 16 for h in -t -T -H; do for c in -u -U -a -b -L; do for w in -w -W; do for s in '' -S; do for n in 1 512 123; do ./gup_test $h -m 16 $c $w $s -n $n || exit; done; done; done; done; done
soft-dirty		- 600 0 ./soft-dirty
ksm_tests.huge_time	- 300 0 ./ksm_tests -H -s 20
ksm_tests.time		- 300 0 ./ksm_tests -P -s 100
ksm_tests.merge		- 120 0 ./ksm_tests -M -p 10
ksm_tests.unmerge	- 120 0 ./ksm_tests -U
ksm_tests.zero0		- 120 0 ./ksm_tests -Z -p 10 -z 0
ksm_tests.zero1		- 120 0 ./ksm_tests -Z -p 10 -z 1
ksm_tests.unmerge_time	- 300 0 ./ksm_tests -D -s 100
ksm_tests.cow_time	- 300 0 ./ksm_tests -C
ksm_tests.numa1		n 120 0 ./ksm_tests -N -m 1
ksm_tests.numa0		n 120 0 ./ksm_tests -N -m 0
migration		n 400 0 ./migration
uffd-unit-tests		- 900 128 for i in 1 2 3; do ./uffd-unit-tests > out 2>&1; s=$?; grep -q 'events.*UFFDIO_COPY error: -2 ' out || break; done; cat out; exit $s
uffd-stress.anon	- 300 0 ./uffd-stress anon 20 16
uffd-stress.shmem	- 300 0 ./uffd-stress shmem 20 16
uffd-stress.shmem-private - 300 0 ./uffd-stress shmem-private 20 16
uffd-stress.hugetlb	- 300 128 ./uffd-stress hugetlb 128 32
uffd-stress.hugetlb-private - 300 128 ./uffd-stress hugetlb-private 128 32
mlock-random-test	- 120 0 ./mlock-random-test
on-fault-limit		- 60 0 ulimit -l 8192; setpriv --reuid=nobody --regid=nogroup --clear-groups ./on-fault-limit
mrelease_test		- 120 0 ./mrelease_test
protection_keys		- 300 16 ./protection_keys_64
hmm-tests		- 600 16 ./hmm-tests
virtual_address_range	- 300 0 echo 1 > /proc/sys/vm/overcommit_memory; ./virtual_address_range; s=$?; echo 0 > /proc/sys/vm/overcommit_memory; exit $s
thuge-gen		- 120 128 ./thuge-gen
hugepage-mmap		- 120 128 ./hugepage-mmap
hugepage-shm		- 120 128 ./hugepage-shm
map_hugetlb		- 120 128 ./map_hugetlb
hugepage-mremap		- 120 128 ./hugepage-mremap
hugepage-vmemmap	- 60 128 ./hugepage-vmemmap
hugetlb-madvise		- 120 128 ./hugetlb-madvise
hugetlb_dio		- 120 128 ./hugetlb_dio
hugetlb_fault_after_madv - 400 1 ./hugetlb_fault_after_madv
hugetlb_madv_vs_map	- 120 1 ./hugetlb_madv_vs_map
hugetlb_reparenting	- 300 0 ./hugetlb_reparenting_test.sh -cgroup-v2
compaction_test		- 400 0 ./compaction_test
khugepaged		- 900 0 ./khugepaged
khugepaged.s2		- 900 0 ./khugepaged -s 2
khugepaged.shmem	- 600 0 ./khugepaged all:shmem
transhuge-stress	- 180 0 ./transhuge-stress -d 20
khugepaged.file		- 600 0 ./khugepaged all:file .
split_huge_page_test	- 900 0 ./split_huge_page_test
hugetlb-soft-offline	d 120 8 ./hugetlb-soft-offline
hugetlb-read-hwpoison	d 120 16 ./hugetlb-read-hwpoison
TABLE
}

# Some write beside themselves, and what they find out depends on the kind of
# file system: let it be one that tracks dirty pages, as people have.
setup()
{
	printf 'setup 300 0 / truncate -s 300M /tmp/disk && mkfs.ext4 -q /tmp/disk'
	# shellcheck disable=SC2016 # for the guest's shell
	printf ' && mkdir /tmp/mm && mount "$(losetup -f --show /tmp/disk)" /tmp/mm && cp -r %s/. /tmp/mm\n' "$MM"
}

# choose FLAG [TEST...]: the lines of the table (with that flag, if any) that
# are asked for
choose()
{
	local flag=$1 test

	shift
	for test; do
		table | awk -v t="$test" '$1 == t || index($1, t ".") == 1 { found = 1 }
			END { exit !found }' || die "there is no test '$test'"
	done
	table | awk -v flag="$flag" -v tests="$*" '
		BEGIN { n = split(tests, t, " ") }
		flag != "" && $2 != flag { next }
		n == 0 { print; next }
		{
			for (i = 1; i <= n; i++)
				if ($1 == t[i] || index($1, t[i] ".") == 1) {
					print
					next
				}
		}'
}

# verdicts DIR NAME: one line for each thing that was tested: how it ended and
# what it was, without what differs from run to run, or from one processor to
# another (pages of 1 GiB; there are none to be had, so those are only skipped)
verdicts()
{
	{
		awk '
		{ sub(/.*\r/, ""); gsub(/\033\[[0-9]*m/, "") }
		/^# \[(RUN|INFO)\]/ { run = $0; sub(/^[^]]*\]/, " |", run) }
		/^Run test: / { run = " |" substr($0, 11) }
		# Of TAP no numbers: one test more or less is one line.
		/^ok / { sub(/^ok [0-9]+ *(- )?/, "ok: "); print $0 run }
		/^not ok / { sub(/^not ok [0-9]+ *(- )?/, "not ok: "); print $0 run }
		/^(Bail out!|1\.\.0 )/ { print }
		# uffd-unit-tests
		/^Testing .*\.\.\. (done|skipped|failed)/ { print }
		# khugepaged
		/\.\.\.\.* (OK|Fail|Timeout|Skip)/ && run { gsub(/\.\.\.+/, "..."); print $0 run }
		# protection_keys
		/^test +[0-9]+ PASSED/ || /^done \(/ { print }
		# hugetlb-read-hwpoison
		/ test\.\.\.[A-Z_]+$/ { print }' "$1/$2.tap" |
		sed -E -e 's/0x[0-9a-f]{6,}/0xN/g' -e 's/[0-9]+MB of/N MB of/' \
			-e 's/ count -?[0-9]+/ count N/' -e 's/(Extra pages) .*/\1 N/' \
			-e '/hugetlb \(1048576 kB\)$/d' |
		awk '{ print $0 (n[$0]++ ? " (" n[$0] ")" : "") }'
		if [ "$(cat "$1/$2.status")" = 124 ]; then
			echo "stopped after its time limit"
		else
			echo "exit status $(cat "$1/$2.status")"
		fi
	}
}

# union FILE...: the verdicts of several runs, those first that all runs had;
# what only some had is marked
union()
{
	awk -v runs=$# '
		!count[$0]++ { order[++n] = $0 }
		END {
			for (i = 1; i <= n; i++)
				print (count[order[i]] == runs ? "" : "? ") order[i]
		}' "$@"
}

# differences EXPECTED VERDICTS: print what an untouched kernel never says or
# would always say; fail if there is anything
differences()
{
	awk '
		NR == FNR {
			if (sub(/^\? /, ""))
				may[$0]
			else
				must[$0]
			next
		}
		{ got[$0] }
		!($0 in must) && !($0 in may) { print "+ " $0; bad = 1 }
		END {
			for (v in must)
				if (!(v in got)) {
					print "- " v
					bad = 1
				}
			exit bad
		}' "$1" "$2"
}

# brief EXPECTED < VERDICTS: what is plainly ok is only counted, but for what EXPECTED
# says may be said
brief()
{
	awk 'NR == FNR { if (sub(/^\? /, "")) named[$0]; next }
		/^ok: / && !/# ?SKIP/ && !($0 in named) { n++; next }
		{ print }
		END { print n + 0, "ok" }' "$1" -
}

# expected NAME: what an untouched kernel says, or may say ("? "), in brief
expected()
{
	awk -v name="$1: " 'index($0, name) == 1 { print substr($0, length(name) + 1) }' "$EXPECT"
}

# guests WHAT KERNEL CMDLINE DIR TESTS: run lines of the table, in as many
# guests as it takes; count whether the kernel had a complaint
guests()
{
	local what=$1 kernel=$2 cmdline=$3 dir=$4 lines=$5 group status sub tests name attempt start
	local options=()

	rm -rf "$dir"
	mkdir -p "$dir"
	for group in '[q-]' n d; do
		sub=$dir/${group//[^a-z]/}
		mkdir -p "$sub"
		tests=$(awk -v g="$group" '$2 ~ "^" g "$" {
			printf "%s %s %s /tmp/mm", $1, $3, $4
			for (i = 5; i <= NF; i++)
				printf " %s", $i
			print ""
		}' <<< "$lines")
		[ -n "$tests" ] || continue
		{ setup; printf '%s\n' "$tests"; } > "$sub/list"
		options=()
		[ "$group" != n ] || options=(-n -c 4)
		# A guest that died, or was stopped: the others go on in a new one.
		for attempt in 1 2 3 4 5; do
			start=$SECONDS
			status=0
			rm -f "$sub"/setup.*
			run_list "$kernel" "$cmdline" "$sub" $GUEST_LIMIT "${options[@]}" || status=$?
			if [ $status -ne 0 ]; then
				cp "$sub/console.log" "$sub/console-$attempt.log"
				cat "$sub/run.log"
			fi
			result $status "$what: the kernel had no complaint ($(hms $((SECONDS - start))))"
			[ "$(cat "$sub/setup.status" 2> /dev/null)" = 0 ] ||
				result 1 "$what: setting up: $(cat "$sub/setup.err" 2> /dev/null)"
			status=0
			for name in "$sub"/*.running; do
				[ -e "$name" ] || continue
				rm "$name"
				echo "guest died" > "${name%.running}.status"
				status=1
			done
			[ $status -ne 0 ] || break
		done
		# ... unless it does so again and again
		while read -r name _; do
			touch "$sub/$name.tap"
			[ -e "$sub/$name.status" ] || echo "not run" > "$sub/$name.status"
			verdicts "$sub" "$name" > "$dir/$name.verdicts"
			mv "$sub/$name".* "$dir"
		done <<< "$tests"
	done
}

# tally VERDICTS: a short form for the table
tally()
{
	awk '
		/^(ok|not ok): .*# ?SKIP/ || /^Testing .*skipped/ || /\.\.\..* Skip/ { skip++; next }
		/# ?XFAIL/ { xfail++; next }
		/^ok: / || /^Testing .* done/ || /\.\.\. OK/ || /\.\.\.(TEST_)?PASSED$/ { ok++; next }
		/^not ok: / || /^Testing .*failed/ || /\.\.\. (Fail|Timeout)/ || /\.\.\.(TEST_)?FAILED$/ { bad++; next }
		/^(exit status|stopped)/ { end = $0 }
		END {
			if (ok) printf "%d ok, ", ok
			if (bad) printf "%d not ok, ", bad
			if (xfail) printf "%d expected to fail, ", xfail
			if (skip) printf "%d skipped, ", skip
			print end
		}' "$1"
}

# fails VERDICTS: did the test fail?
fails()
{
	grep -qE '^(not ok: |Testing .*failed|stopped|exit status ([1-35-9]|[0-9]{2,}|guest|not))|\.\.\. (Fail|Timeout)|FAILED$' "$1" &&
		! { [ "$(tail -n 1 "$1")" = "exit status 4" ] && ! grep -q '^not ok: ' "$1"; }
}

# compare_one NAME FORCE EXPECTED: is each run of it in force mode what an untouched
# kernel may say?
compare_one()
{
	local expected=$1 file bad=0

	shift
	for file; do
		differences "$expected" "$file" || bad=1
	done
	return $bad
}

compare()
{
	local lines=$1 rest attempt name same row status
	local stock=() force=()

	[ -n "$lines" ] || die "no test chosen"
	rest=$lines
	for attempt in 1 2 3; do
		printf '== run %d: %d tests on the untouched kernel\n' $attempt "$(grep -c . <<< "$rest")"
		guests "untouched" stock-debug "" "$OUT/stock$attempt" "$rest"
		printf '== run %d: the same with cow_pte=always\n' $attempt
		guests "force mode" debug "cow_pte=always" "$OUT/force$attempt" "$rest"
		# Again what differed.
		rest=$(while read -r name line; do
			union "$OUT"/stock[1-$attempt]/"$name".verdicts > "$OUT/$name.expected"
			compare_one "$OUT/$name.expected" "$OUT"/force[1-$attempt]/"$name".verdicts \
				> "$OUT/$name.differences" || printf '%s %s\n' "$name" "$line"
		done <<< "$rest")
		[ -n "$rest" ] || break
	done

	printf '| test | untouched | force mode | same? |\n|---|---|---|---|\n' > "$OUT/table.md"
	while read -r name _; do
		mapfile -t stock < <(printf '%s\n' "$OUT"/stock[1-3]/"$name".verdicts | grep -v '\[')
		mapfile -t force < <(printf '%s\n' "$OUT"/force[1-3]/"$name".verdicts | grep -v '\[')
		status=0
		same=yes
		if [ -s "$OUT/$name.differences" ]; then
			status=1
			same=NO
		elif grep -q '^? ' "$OUT/$name.expected"; then
			same="unstable on the untouched kernel"
		elif fails "${stock[0]}"; then
			same="yes, but fails on the untouched kernel too"
		fi
		result $status "$name: the same verdicts as on the untouched kernel"
		[ $status -eq 0 ] || sort -u "$OUT/$name.differences" | head -n 20
		if [ -s "$OUT/force1/$name.leak" ] && grep -qs '^not ok' "$OUT/stock1/$name.leak"; then
			printf 'the untouched kernel does not come to rest after %s: %s\n' "$name" \
				"$(cat "$OUT/stock1/$name.leak")"
		else
			leak_result "$name" "$OUT/force1" "$name"
		fi
		row="| $name | $(tally "${stock[0]}") | $(tally "${force[0]}") | $same |"
		printf '%s\n' "$row" >> "$OUT/table.md"
	done <<< "$lines"
	column -t -s '|' < <(grep -v '^|---' "$OUT/table.md")
}

quick()
{
	local mode=$1 lines name status

	shift
	lines=$(choose q "$@")
	[ -n "$lines" ] || die "no test chosen"
	guests "mm tests, cow_pte=$mode" debug "cow_pte=$mode" "$OUT/quick-$mode" "$lines"
	while read -r name _; do
		status=0
		expected "$name" > "$OUT/quick-$mode/$name.expected"
		brief "$OUT/quick-$mode/$name.expected" < "$OUT/quick-$mode/$name.verdicts" \
			> "$OUT/quick-$mode/$name.brief"
		differences "$OUT/quick-$mode/$name.expected" "$OUT/quick-$mode/$name.brief" \
			> "$OUT/quick-$mode/$name.differences" || status=1
		result $status "$name, cow_pte=$mode: $(tally "$OUT/quick-$mode/$name.verdicts"): the same as an untouched kernel"
		[ $status -eq 0 ] || head -n 20 "$OUT/quick-$mode/$name.differences"
		leak_result "$name, cow_pte=$mode" "$OUT/quick-$mode" "$name"
	done <<< "$lines"
}

# What only some of the runs say is recorded as what may be said.
record()
{
	local lines name run

	lines=$(choose q "$@")
	[ -n "$lines" ] || die "no test chosen"
	for run in 1 2; do
		guests "untouched, run $run" stock-debug "" "$OUT/record$run" "$lines"
	done
	[ $failed -eq 0 ] || die "the untouched kernel has a complaint: nothing recorded"
	mkdir -p "$(dirname "$EXPECT")"
	touch "$EXPECT"
	while read -r name _; do
		# A program that did not come to its end is nothing to go by.
		if [ "$(cat "$OUT"/record[12]/"$name".verdicts | grep -c '^exit status [0-9]')" -ne 2 ]; then
			result 1 "$name: did not end in time, not recorded"
			continue
		fi
		union "$OUT"/record[12]/"$name".verdicts > "$OUT/$name.union"
		{
			awk -v name="$name: " 'index($0, name) != 1' "$EXPECT"
			brief "$OUT/$name.union" < <(sed '/^? /d' "$OUT/$name.union") | sed "s/^/$name: /"
			sed -n "s/^? /$name: &/p" "$OUT/$name.union"
		} | sort > "$EXPECT.new"
		mv "$EXPECT.new" "$EXPECT"
		result 0 "$name: $(tally "$OUT/$name.union")"
	done <<< "$lines"
}

# (a function: read as a whole, as this file may be edited while a guest runs)
main()
{
	local lines

	"$SCRIPTS/deps.sh" build guest test
	mkdir -p "$OUT"
	trap summary EXIT
	case ${1:-} in
	quick) ;;
	record) "$SCRIPTS/kernel.sh" stock-debug ;;
	*)
		takes "an hour" stock-debug debug
		"$SCRIPTS/kernel.sh" stock-debug debug
		;;
	esac
	"$SCRIPTS/user.sh" mm
	case ${1:-} in
	quick)
		[ $# -ge 2 ] || die "usage: mm-tests.sh quick MODE [TEST...]"
		shift
		quick "$@"
		;;
	record)
		shift
		record "$@"
		;;
	*)
		lines=$(choose '' "$@")
		compare "$lines"
		;;
	esac
}
main "$@"; exit
