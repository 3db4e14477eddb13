#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Small processes with copy-on-write page tables switched on: are they ever
# slower for it? Shell pipelines, a storm of fork and exec as configure makes
# it, messaging between processes, stress-ng, and a build.
tool=small
# shellcheck source-path=SCRIPTDIR source=common.sh
. "$(dirname "$(realpath "$0")")/common.sh"

all=(pipeline storm messaging fork vfork exec build)

usage()
{
	cat <<END
Usage: small.sh [options] [WORKLOAD...]

Run each workload in both modes in turn, after a run that is not counted. Small
differences are to be looked for in the shortest CPU times.

  pipeline   shell pipelines of three commands
  storm      what a configure script does: small files, command substitutions
  messaging  perf bench sched messaging -p (many processes, pipes)
  fork, vfork, exec
             the stressors of stress-ng
  build      make -j of a small tree of C files

 -x, --scale N          the amount of work, in percent (100)
 -t, --min-tables N     set /sys/kernel/mm/cow_pte/min_tables meanwhile (root):
                        from how many page tables on a process shares at fork
$COMMON_HELP

$COMMON_STATUS
END
}

scale=100
threshold=
reps=5

own_option()
{
	case $1 in
	-x|--scale) scale=$2 ;;
	-t|--min-tables) threshold=$2 ;;
	esac
}

parse_args x:t: scale:,min-tables: "$@"
number --scale "$scale" 1 100000
[ -z "$threshold" ] || number --min-tables "$threshold" 0 1000000
workloads=("${rest[@]}")
[ ${#workloads[@]} -gt 0 ] || workloads=("${all[@]}")
for w in "${workloads[@]}"; do
	one_of workload "$w" "${all[@]}"
done
need_program python3 python3
for w in "${workloads[@]}"; do
	case $w in
	messaging) need_program perf linux-perf ;;
	fork|vfork|exec) need_program stress-ng stress-ng ;;
	build)
		need_program make make
		need_program cc gcc
		;;
	esac
done
json_writable
look_at_system
working_dir

# times N: that much of the work
times()
{
	value=$(($1 * scale / 100))
	[ $value -gt 0 ] || value=1
}

restore=
undo()
{
	[ -z "$restore" ] || echo "$restore" > /sys/kernel/mm/cow_pte/min_tables
	rm -rf "$dir/tree"
	cleanup
}
trap undo EXIT
if [ -n "$threshold" ] && [ -n "$feature" ]; then
	old=$min_tables
	echo "$threshold" 2> /dev/null > /sys/kernel/mm/cow_pte/min_tables ||
		die 1 "--min-tables: cannot set it (as root?)"
	restore=$old
	min_tables=$threshold
fi

# tree N: that many C files with a Makefile, in $dir/tree
tree()
{
	local i

	mkdir -p "$dir/tree"
	for ((i = 0; i < $1; i++)); do
		cat > "$dir/tree/part$i.c" <<-END
			#include <stdio.h>
			#include <stdlib.h>
			#include <string.h>
			struct node$i { struct node$i *next; int key; char name[32]; };
			static struct node$i *head$i;
			int part$i(int key)
			{
				struct node$i *n = malloc(sizeof(*n));

				if (!n)
					return -1;
				snprintf(n->name, sizeof(n->name), "part$i %d", key);
				n->key = key;
				n->next = head$i;
				for (head$i = n; n->next; n = n->next)
					key += n->key * (int)strlen(n->name);
				return key;
			}
		END
	done
	{
		printf '#include <stdio.h>\n'
		for ((i = 0; i < $1; i++)); do
			printf 'int part%d(int key);\n' "$i"
		done
		printf 'int main(void)\n{\n\tint sum = 0;\n\n'
		for ((i = 0; i < $1; i++)); do
			printf '\tsum += part%d(%d);\n' "$i" "$i"
		done
		printf '\tprintf("%%d\\n", sum);\n\treturn 0;\n}\n'
	} > "$dir/tree/main.c"
	cat > "$dir/tree/Makefile" <<-'END'
		CFLAGS = -O1 -Wall
		OBJS = $(patsubst %.c,%.o,$(sort $(wildcard *.c)))
		.RECIPEPREFIX = >
		program: $(OBJS)
		> $(CC) -o $@ $(OBJS)
		%.o: %.c
		> @echo "CC $@"
		> @$(CC) $(CFLAGS) -c -o $@ $<
		clean:
		> rm -f program *.o
	END
}

declare -A texts=(
	[pipeline]="shell pipelines"
	[storm]="configure-like storm"
	[messaging]="perf bench sched messaging -p"
	[fork]="stress-ng --fork"
	[vfork]="stress-ng --vfork"
	[exec]="stress-ng --exec"
	[build]="make -j of a small tree"
)
for w in "${all[@]}"; do
	metric "${w}_cpu_ms" ms "${texts[$w]}: CPU time"
	metric_elapsed "${w}_ms" ms "${texts[$w]}: time"
done

# prepare WORKLOAD: the command in ${work[@]}
prepare()
{
	case $1 in
	pipeline)
		times 100
		cat > "$dir/pipeline" <<-'END'
			i=0
			while [ $i -lt "$1" ]; do
				i=$((i + 1))
				n=$(echo "one two three $i" | tr ' ' '\n' | wc -l)
				[ "$n" -eq 4 ] || exit 1
			done
		END
		work=(sh "$dir/pipeline" "$value")
		;;
	storm)
		times 50
		cat > "$dir/storm" <<-'END'
			cd "$2" || exit 1
			i=0
			while [ $i -lt "$1" ]; do
				i=$((i + 1))
				name=$(echo "ac_cv_func_$i" | sed 's/[^a-z0-9_]/_/g')
				cat > conftest.c <<EOF
			int $name(void) { return $i; }
			EOF
				if grep -q "$name" conftest.c; then
					eval "$name=yes"
				else
					exit 1
				fi
				where=$(dirname "$(expr "X$2/conftest.c" : 'X\(.*\)')")
				test -d "$where" || exit 1
				(test -f conftest.c) 2> /dev/null || exit 1
				rm -f conftest.c
			done
		END
		work=(sh "$dir/storm" "$value" "$dir")
		;;
	messaging)
		times 100
		work=(perf bench -f simple sched messaging -p -g 2 -l "$value")
		;;
	fork|vfork|exec)
		times 2000
		[ "$1" != exec ] || times 200
		work=(stress-ng --temp-path "$dir" "--$1" 1 "--$1-ops" "$value")
		;;
	build)
		times 24
		tree "$value"
		# shellcheck disable=SC2016 # for the shell to be run
		work=(sh -c 'make -s -C "$1" clean && exec make -s -C "$1" -j "$2" program' \
			sh "$dir/tree" "$(nproc)")
		;;
	esac
}

# one MODE WORKLOAD: $passed and $cpu, ms
one()
{
	launcher "$1"
	"${run[@]}" python3 "$here/timed.py" "$dir/times" "${work[@]}" \
		> "$dir/log" 2>&1 < /dev/null ||
		die "$EXIT_WRONG" "$2 failed in mode $1: $(tail -n 3 "$dir/log")"
	read -r passed cpu < "$dir/times"
	[ "$2" != build ] || [ "$("$dir/tree/program")" = "$built" ] ||
		die "$EXIT_WRONG" "what was built in mode $1 does not work"
}

files+=("$dir"/{log,times,pipeline,storm,conftest.c})
built=
for w in "${workloads[@]}"; do
	prepare "$w"
	# Once for the page cache; and what is built must do.
	if [ "$w" = build ]; then
		launcher off
		"${run[@]}" "${work[@]}" > "$dir/log" 2>&1 ||
			die 1 "the build fails: $(tail -n 3 "$dir/log")"
		built=$("$dir/tree/program")
		[[ $built =~ ^[0-9]+$ ]] || die 1 "what was built does not work"
	else
		one "${modes[0]}" "$w"
	fi
	for ((rep = 1; rep <= reps; rep++)); do
		# off on, on off: a drift hits both alike
		turn=("${modes[@]}")
		[ $((rep % 2)) -eq 1 ] || [ ${#turn[@]} -eq 1 ] || turn=(on off)
		for m in "${turn[@]}"; do
			say "$w, mode $m, repetition $rep of $reps"
			one "$m" "$w"
			sample "$m" "${w}_ms" "$passed"
			sample "$m" "${w}_cpu_ms" "$cpu"
		done
	done
done

results "scale=$scale min_tables=${min_tables:-none}"
