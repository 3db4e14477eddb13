# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# Shared by all scripts that count: running test programs in a guest and counting
# results. To be sourced after common.sh, by who sets OUT, the directory of all
# logs.

passed=0
failed=0
failures=()		# what they were, to be told again at the end
began=$SECONDS

# result STATUS WHAT: count one check
result()
{
	if [ "$1" -eq 0 ]; then
		passed=$((passed + 1))
		printf 'ok: %s\n' "$2"
	else
		failed=$((failed + 1))
		failures+=("$2")
		printf 'FAILED: %s\n' "$2"
	fi
}

# summary: to be trapped at EXIT: the count is the last line even when a script is
# stopped by an error.
summary()
{
	local status=$?

	[ "$status" -eq 0 ] || [ "$failed" -gt 0 ] || failed=1
	[ ${#failures[@]} -eq 0 ] || printf 'again, what failed: %s\n' "${failures[@]}"
	printf 'took %s, logs in %s\n' "$(hms $((SECONDS - began)))" "${OUT#"$TOP"/}"
	printf '%d passed, %d failed\n' "$passed" "$failed"
	[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ] || exit 1
	exit 0
}

# slug WHAT: the same as the name of a file
slug()
{
	tr -c 'a-z0-9\n' - <<< "$1"
}

# count_tap NAME FILE STATUS: add the results of one test program
count_tap()
{
	local p f s

	read -r p f s < <(awk -v status="$3" '
		/^1\.\.[0-9]+/ { plan = substr($1, 4) + 0 }
		/^ok / { if (/# *SKIP/) skip++; else pass++ }
		/^not ok / { fail++ }
		/^Bail out!/ { fail++ }
		END {
			# planned and not run: it crashed or was stopped
			missing = plan - pass - skip - fail
			if (missing > 0)
				fail += missing
			# 4 is how a kselftest says that it skips
			if (status != 0 && status != 4 && !fail)
				fail = 1
			if (!pass && !skip && !fail)
				fail = 1
			print pass + 0, fail + 0, skip + 0
		}' "$2")
	passed=$((passed + p))
	failed=$((failed + f))
	printf '%s: %s: %d passed, %d failed, %d skipped\n' \
		"$([ "$f" -eq 0 ] && echo ok || echo FAILED)" "$1" "$p" "$f" "$s"
	if [ "$f" -gt 0 ]; then
		failures+=("$1: $(sed -n 's/^not ok [0-9]* //p' "$2" | paste -sd ' ')")
		# with what it said
		awk '/^# +RUN / { said = "" }
			{ said = said $0 "\n" }
			/^(not ok|Bail)/ { printf "%s", said }' "$2" | tail -n 40
		case $3 in
		0|1|4) ;;
		124) echo "stopped after its time limit" ;;
		137) echo "killed (it did not heed its time limit, or memory ran out)" ;;
		-) echo "it did not run to its end" ;;
		*) echo "exit status $3" ;;
		esac
	fi
}

# run_list KERNEL CMDLINE DIR SECONDS [OPTION OF run.sh...]: one guest that runs
# the programs in DIR/list, see guest-tests.sh; for at most SECONDS. Prints which one
# begins; all else that is said goes to DIR/run.log. Guests that share a list tell
# their logs apart by GUEST, in the environment.
run_list()
{
	local kernel=$1 cmdline=$2 dir=$3 most=$4 limit=300 seconds status=0

	shift 4
	# Beside its own time each program may take some to be cleaned up after.
	while read -r _ seconds _; do
		limit=$((limit + seconds + 30))
	done < "$dir/list"
	[ "$limit" -lt "$most" ] || limit=$most
	"$SCRIPTS/run.sh" -k "$kernel" -m 4G -s 1024 -t "$limit" -a "$cmdline" -w "$dir" \
		-o "$dir/console${GUEST:-}.log" "$@" -- "$SCRIPTS/guest-tests.sh" "$dir" \
		2> "$dir/run${GUEST:-}.log" || status=$?
	return $status
}

# leak_result WHAT DIR NAME: count what guest-tests.sh found after a program
leak_result()
{
	local leak status=0

	# None: the guest died under it, and that is counted elsewhere.
	[ -s "$2/$3.leak" ] || return 0
	leak=$(cat "$2/$3.leak")
	[[ $leak = ok* ]] || status=1
	result $status "$1: page tables, anonymous memory and swap are back to where they began"
	[ $status -eq 0 ] || printf '%s\n' "$leak"
}

# count_list WHAT DIR: count the results of all programs in DIR/list, also of those that
# were not begun
count_list()
{
	local name

	while read -r name _; do
		touch "$2/$name.tap"
		[ -e "$2/$name.status" ] || echo - > "$2/$name.status"
		count_tap "$1: $name" "$2/$name.tap" "$(cat "$2/$name.status")"
		leak_result "$1: $name" "$2" "$name"
	done < "$2/list"
}
