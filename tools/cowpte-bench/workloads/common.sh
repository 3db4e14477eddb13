# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# Shared by the workload scripts: messages, arguments, what the system can do,
# figures of the kernel, and results as a table and as JSON. To be sourced by a
# script that has set $tool to its name.

# shellcheck disable=SC2154 # tool: set by the caller
set -u
shopt -s inherit_errexit 2> /dev/null
export LC_ALL=C

EXIT_USAGE=2
EXIT_MODE=3
# shellcheck disable=SC2034 # for the scripts
EXIT_WRONG=4

here=$(dirname "$(realpath "${BASH_SOURCE[0]}")")

# --- messages

die()
{
	local status=$1
	shift
	echo "$tool: $*" >&2
	exit "$status"
}

warnings=()

warn()
{
	local w

	for w in "${warnings[@]}"; do
		[ "$w" != "$*" ] || return 0
	done
	echo "$tool: warning: $*" >&2
	warnings+=("$*")
}

# One line that overwrites itself, for who sits there and waits.
say()
{
	[ ! -t 2 ] || printf '\r\033[K%s' "$*" >&2
}

# quote TEXT: as a JSON string, in $value
quote()
{
	value=$(printf '%s' "$1" | tr '\000-\037\177' ' ' | sed 's/[\\"]/\\&/g')
	value=\"$value\"
}

# --- arguments

# number NAME VALUE MIN MAX
number()
{
	# (the length first: the shell's arithmetic wraps silently)
	if [[ ! $2 =~ ^[0-9]{1,12}$ ]] || [ $((10#$2)) -lt "$3" ] || [ $((10#$2)) -gt "$4" ]; then
		die $EXIT_USAGE "$1: '$2' is not a number from $3 to $4"
	fi
}

# one_of NAME VALUE CHOICE...
one_of()
{
	local name=$1 value=$2 choice
	shift 2
	for choice; do
		[ "$value" != "$choice" ] || return 0
	done
	die $EXIT_USAGE "$name: '$value' is none of: $*"
}

# size_arg NAME VALUE: bytes in $value
size_arg()
{
	[[ $2 =~ ^([0-9]{1,9})([KMG]?)$ ]] ||
		die $EXIT_USAGE "$1: '$2' is not a size such as 512M"
	value=$((10#${BASH_REMATCH[1]}))
	case ${BASH_REMATCH[2]} in
	K) value=$((value << 10)) ;;
	M) value=$((value << 20)) ;;
	G) value=$((value << 30)) ;;
	esac
	if [ $value -lt $((1 << 20)) ] || [ $value -gt $((1 << 44)) ]; then
		die $EXIT_USAGE "$1: '$2' is not between 1M and 16384G"
	fi
}

# What all scripts have in common; the texts are for their --help.
mode=both
reps=
json=
json_new=
note=
dir=
cpu_only=
cowpte=${COWPTE:-}
# shellcheck disable=SC2034 # for the scripts
COMMON_HELP=" -r, --reps N           repetitions per mode
 -m, --mode MODE        off, on or both (both)
 -d, --dir DIR          for temporary files (a new one in \$TMPDIR or /tmp)
 -j, --json FILE        write the results as JSON too
 -n, --note TEXT        put a text into the outputs
     --cpu-time         nothing but CPU time where there is both: where an emulator
                        counts instructions, waiting takes no defined time
     --cowpte PATH      the cowpte program (found beside this script, or in PATH)
 -h, --help             this help"
# shellcheck disable=SC2034 # for the scripts
COMMON_STATUS="Exit status: 0 success (also if 'both' came down to one mode, said on standard
error), 1 failure, 2 bad arguments, 3 this system cannot measure the mode asked
for, 4 a program did not do what it should."

# parse_args SHORT LONG ARG...: the common options, and those given in getopt's
# form, which are passed to own_option() with their value. What is left is in
# ${rest[@]}.
parse_args()
{
	local short=$1 long=$2 args
	shift 2

	args=$(getopt -n "$tool" -o "r:m:d:j:n:h$short" \
		-l "reps:,mode:,dir:,json:,note:,cpu-time,cowpte:,help${long:+,$long}" -- "$@") ||
		exit $EXIT_USAGE
	eval set -- "$args"
	while :; do
		case $1 in
		-r|--reps) reps=$2 ;;
		-m|--mode) mode=$2 ;;
		-d|--dir) dir=$2 ;;
		-j|--json) json=$2 ;;
		-n|--note) note=$2 ;;
		--cowpte) cowpte=$2 ;;
		--cpu-time) cpu_only=1; shift; continue ;;
		-h|--help) usage; exit 0 ;;
		--) shift; break ;;
		*)
			case ",$long," in
			*",${1#--},"*) own_option "$1"; shift; continue ;;
			esac
			own_option "$1" "$2"
			;;
		esac
		shift 2
	done
	number --reps "$reps" 1 10000
	reps=$((10#$reps))
	one_of --mode "$mode" off on both
	# shellcheck disable=SC2034 # for the scripts
	rest=("$@")
}

# json_writable: a file that cannot be written should not cost a measurement. What is
# in it stays until all results are in $json_new.
json_writable()
{
	[ -n "$json" ] || return 0
	{ : >> "$json"; } 2> /dev/null || die 1 "cannot write $json"
	json=$(realpath "$json")
	json_new=$json
	if [ -f "$json" ]; then
		json_new=$json.new
		files+=("$json_new")
	fi
}

json_done()
{
	[ "$json_new" = "$json" ] || mv "$json_new" "$json" || die 1 "cannot write $json"
}

# need_program PROGRAM PACKAGE: or say how to get it
need_program()
{
	command -v "$1" > /dev/null || die 1 "$1 is missing: apt-get install $2"
}

# need_memory BYTES WHAT: refuse what would end with the OOM killer
need_memory()
{
	local available

	available=$(($(awk '/^MemAvailable:/ { print $2 }' /proc/meminfo) << 10))
	[ "$1" -le $available ] ||
		die 1 "not enough memory for $2: $(($1 >> 20)) MiB needed," \
			"$((available >> 20)) MiB available"
}

# --- what is started and made, and goes at the end

made_dir=
servers=()		# process ids
files=()		# to remove at the end

cleanup()
{
	local pid

	say ""
	for pid in "${servers[@]}"; do
		kill -KILL "$pid" 2> /dev/null
		wait "$pid" 2> /dev/null
	done
	rm -f "${files[@]}"
	[ -z "$made_dir" ] || rm -rf "$made_dir"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# working_dir: check $dir, or make one
working_dir()
{
	if [ -z "$dir" ]; then
		dir=$(mktemp -d "${TMPDIR:-/tmp}/$tool.XXXXXX") || exit 1
		made_dir=$dir
	fi
	if [ ! -d "$dir" ] || [ ! -w "$dir" ]; then
		die 1 "no writable directory: $dir"
	fi
	dir=$(realpath "$dir")
}

# --- the system

# cannot MODE WHY...: leave out one of both modes, or give up
cannot()
{
	local m=$1
	shift

	[ ${#modes[@]} -eq 2 ] || die $EXIT_MODE "cannot measure mode $m: $*"
	case $m in
	on) modes=(off) ;;
	off) modes=(on) ;;
	esac
	warn "only mode ${modes[*]} is measured: $*"
}

# look_at_system: $modes that can be measured, $cowpte, $feature, $setting
look_at_system()
{
	if [ -z "$cowpte" ]; then
		cowpte=$here/../cowpte
		[ -x "$cowpte" ] || cowpte=$(command -v cowpte || true)
	elif [ ! -x "$cowpte" ]; then
		die 1 "--cowpte: $cowpte is not a program"
	fi

	case $mode in
	both) modes=(off on) ;;
	*) modes=("$mode") ;;
	esac
	feature=
	[ ! -e /proc/self/cow_pte ] || feature=1
	setting=$(sed -n 's/.*\[\(.*\)\].*/\1/p' /sys/kernel/mm/cow_pte/enabled 2> /dev/null)
	min_tables=$(cat /sys/kernel/mm/cow_pte/min_tables 2> /dev/null)

	if [[ " ${modes[*]} " = *' on '* ]]; then
		if [ -z "$feature" ]; then
			cannot on "this kernel has no copy-on-write page tables (CONFIG_COW_PTE);" \
				"boot a kernel built with CONFIG_COW_PTE=y"
		elif [ "$setting" = never ]; then
			cannot on "no fork shares; as root: echo prctl > /sys/kernel/mm/cow_pte/enabled"
		fi
	fi
	if [[ " ${modes[*]} " = *' off '* ]] && [ "$setting" = always ]; then
		cannot off "every fork shares; as root: echo prctl > /sys/kernel/mm/cow_pte/enabled"
	fi
	if [ -n "$feature" ] && [ ! -x "$cowpte" ]; then
		die 1 "the cowpte program is missing: make -C $(dirname "$here"), or --cowpte PATH"
	fi
}

# launcher MODE: the words before a command that is to run in that mode, in
# ${run[@]}
launcher()
{
	# shellcheck disable=SC2034 # for the scripts
	case $1 in
	on) run=("$cowpte" run --) ;;
	*) run=(${feature:+"$cowpte" run --off --}) ;;
	esac
}

# status_kb PID NAME: of /proc/PID/status in $value, 0 if it is not there
status_kb()
{
	local key val rest

	value=0
	while read -r key val rest; do
		[ "$key" != "$2:" ] || value=$val
	done 2> /dev/null < "/proc/$1/status"
}

# clock: microseconds, in $value
clock()
{
	value=${EPOCHREALTIME//[!0-9]/}
}

# ms_since START: milliseconds since the clock showed START, in $value
ms_since()
{
	clock
	value=$(awk -v t=$((value - $1)) 'BEGIN { printf "%.3f", t / 1000 }')
}

pagetables_kb()
{
	local key val rest

	# The kernel keeps part of the figure per CPU; this adds it in (root).
	cat /proc/sys/vm/stat_refresh > /dev/null 2>&1
	while read -r key val rest; do
		[ "$key" != PageTables: ] || value=$val
	done < /proc/meminfo
}

vmstat()
{
	local key val

	value=0
	while read -r key val; do
		[ "$key" != "$1" ] || value=$val
	done < /proc/vmstat
}

# --- figures

# median VALUE...
median()
{
	if [ $# -eq 0 ]; then
		value=
		return
	fi
	value=$(printf '%s\n' "$@" | sort -n | awk '{
		v[NR] = $1
	} END {
		h = int(NR / 2)
		printf "%.10g", NR % 2 ? v[h + 1] : (v[h] + v[h + 1]) / 2
	}')
}

ratio()
{
	value=
	if [ -n "$1" ] && [ -n "$2" ]; then
		value=$(awk -v a="$1" -v b="$2" 'BEGIN {
			if (a > 0 && b > 0)
				printf "%.4g", a / b
		}')
	fi
}

# order NAME VALUE...: of the order statistics, min or max, in $value
order()
{
	local which=$1
	shift

	value=
	[ $# -gt 0 ] || return 0
	case $which in
	min) value=$(printf '%s\n' "$@" | sort -g | head -n 1) ;;
	max) value=$(printf '%s\n' "$@" | sort -g | tail -n 1) ;;
	esac
}

metrics=()		# names, in the order they are to be shown
declare -A metric_unit metric_text samples elapsed

# metric NAME UNIT TEXT: what samples of that name are. Without samples in any
# mode it is not shown.
metric()
{
	metrics+=("$1")
	metric_unit[$1]=$2
	metric_text[$1]=$3
}

# metric_elapsed NAME UNIT TEXT: the same, of time that passes also for who waits
metric_elapsed()
{
	metric "$@"
	elapsed[$1]=1
}

# sample MODE NAME VALUE
sample()
{
	[ -z "$cpu_only" ] || [ -z "${elapsed[$2]:-}" ] || return 0
	samples["$1 $2"]+="$3 "
}

# samples_from MODE FILE: lines of "NAME VALUE", as a helper program prints
samples_from()
{
	local m=$1 name val

	while read -r name val; do
		[[ $val =~ ^-?[0-9.]+([eE][-+]?[0-9]+)?$ ]] ||
			die 1 "no figure for $name: '$val'"
		sample "$m" "$name" "$val"
	done < "$2"
}

system_line()
{
	local where=

	if grep -q '^flags.*hypervisor' /proc/cpuinfo 2> /dev/null; then
		where=' (virtual machine)'
	fi
	echo "$(uname -sr)$where, $(nproc) CPU(s)"
}

feature_line()
{
	if [ -n "$feature" ]; then
		echo "copy-on-write page tables: ${setting:-unknown}, min_tables ${min_tables:-unknown}"
	else
		echo "copy-on-write page tables: not in this kernel"
	fi
}

# json_system: the members that all results have
json_system()
{
	quote "$tool"
	printf '  "tool": %s,\n' "$value"
	quote "$(uname -r)"
	printf '  "kernel": %s,\n  "cpus": %d,\n' "$value" "$(nproc)"
	if [ -n "$feature" ]; then
		quote "$setting"
		printf '  "cow_pte": { "present": true, "enabled": %s,' "$value"
		printf ' "min_tables": %s },\n' "${min_tables:-null}"
	else
		printf '  "cow_pte": { "present": false },\n'
	fi
	quote "$note"
	printf '  "note": %s,\n' "$value"
}

json_warnings()
{
	local w sep=

	printf '  "warnings": ['
	for w in "${warnings[@]}"; do
		quote "$w"
		printf '%s\n    %s' "$sep" "$value"
		sep=,
	done
	printf '\n  ]\n'
}

# results PARAMETERS: print the table, and write the JSON. PARAMETERS is text
# for people, of the form "name=value ..." without blanks in the values.
results()
{
	local name m p sep list lo hi wide=0
	local -A med
	local rows=()

	for name in "${metrics[@]}"; do
		[ ${#metric_text[$name]} -le "$wide" ] ||
			wide=${#metric_text[$name]}
	done
	say ""
	echo "$tool: $(system_line)"
	feature_line
	[ -z "$1" ] || echo "$1"
	[ -z "$note" ] || echo "note: $note"
	echo
	printf '%-*s  %-6s' "$wide" figure unit
	printf '  %-4s  %12s  %12s  %12s\n' mode median min max
	[ -z "$json" ] || exec {fd}> "$json_new" || die 1 "cannot write $json_new"
	if [ -n "$json" ]; then
		{
			printf '{\n'
			json_system
			printf '  "reps": %d,\n  "parameters": {' "$reps"
			sep=
			for p in $1; do
				quote "${p#*=}"
				printf '%s\n    "%s": %s' "$sep" "${p%%=*}" "$value"
				sep=,
			done
			printf '\n  },\n  "metrics": {'
		} >&"$fd"
	fi
	sep=
	for name in "${metrics[@]}"; do
		med=()
		[ -n "${samples[off $name]:-}${samples[on $name]:-}" ] || continue
		if [ -n "$json" ]; then
			quote "${metric_text[$name]}"
			printf '%s\n    "%s": { "unit": "%s", "text": %s' \
				"$sep" "$name" "${metric_unit[$name]}" "$value" >&"$fd"
		fi
		for m in off on; do
			list=${samples[$m $name]:-}
			[ -n "$list" ] || continue
			# shellcheck disable=SC2086 # a list of numbers
			{
				order min $list; lo=$value
				order max $list; hi=$value
				median $list; med[$m]=$value
				med[$m-min]=$lo
			}
			printf '%-*s  %-6s  %-4s  %12s  %12s  %12s\n' "$wide" \
				"${metric_text[$name]}" "${metric_unit[$name]}" "$m" \
				"${med[$m]}" "$lo" "$hi"
			if [ -n "$json" ]; then
				# shellcheck disable=SC2086 # a list of numbers
				{
					printf ',\n      "%s": { "median": %s, "min": %s, "max": %s,' \
						"$m" "${med[$m]}" "$lo" "$hi"
					set -- $list
					printf ' "samples": [%s' "$1"
					shift
					[ $# -eq 0 ] || printf ', %s' "$@"
					printf '] }'
				} >&"$fd"
			fi
		done
		ratio "${med[off]:-}" "${med[on]:-}"
		if [ -n "$value" ]; then
			rows+=("${metric_text[$name]}: $value")
		fi
		if [ -n "$json" ]; then
			printf ',\n      "ratio_off_on": { "median": %s' "${value:-null}" >&"$fd"
			ratio "${med[off-min]:-}" "${med[on-min]:-}"
			printf ', "min": %s } }' "${value:-null}" >&"$fd"
		fi
		sep=,
	done
	if [ ${#rows[@]} -gt 0 ]; then
		echo
		echo "off/on, of the medians:"
		printf '  %s\n' "${rows[@]}"
	fi
	if [ -n "$json" ]; then
		{
			printf '\n  },\n'
			json_warnings
			printf '}\n'
		} >&"$fd"
		exec {fd}>&- || die 1 "cannot write $json_new"
		json_done
	fi
}
