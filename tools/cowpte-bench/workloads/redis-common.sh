# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# Redis (or Valkey) servers for the workload scripts: start them, talk to them,
# compare RDB files. To be sourced after common.sh.
#
# shellcheck disable=SC2154 # dir: of common.sh

unset REDISCLI_AUTH

# How the servers are started; the defaults of Redis but for the compression,
# which takes ten times the time of everything else in a save.
thp_off=yes
compress=no
run=()

# redis_programs [PROGRAM...]: which there are, and others that are needed;
# $product, $redis_version
redis_programs()
{
	local prog

	product=redis
	if ! command -v redis-server > /dev/null && command -v valkey-server > /dev/null; then
		product=valkey
	fi
	for prog in $product-server $product-cli "$@"; do
		command -v "${prog/#redis/$product}" > /dev/null ||
			die 1 "${prog/#redis/$product} is missing: apt-get install $product-server $product-tools"
	done
	redis_version=$("$product-server" --version | sed -n 's/.* v=\([0-9.]*\) .*/\1/p')
	debug_option=()
	# Before 7.0 DEBUG was always allowed, and the option unknown.
	[ "${redis_version%%.*}" -lt 7 ] || debug_option=(--enable-debug-command yes)
}

# redis_dir: the working directory, with room for the name of a socket
redis_dir()
{
	working_dir
	# The path of a Unix socket has 108 bytes.
	[ ${#dir} -le 80 ] || die 1 "--dir: the path is too long for a socket: $dir"
}

# start_server NAME RDB: a server with that RDB file, loaded if it exists. Sets
# $server_pid and connects redis() to it. The words of ${run[@]} stand before
# the command.
start_server()
{
	local rdb=$2 log=$dir/$1.log sock=$dir/$1.sock tries

	files+=("$log" "$sock")
	rm -f "$sock"
	"${run[@]}" "$product-server" --port 0 --unixsocket "$sock" --dir "$dir" --dbfilename "$rdb" \
		--save '' --appendonly no --daemonize no --disable-thp "$thp_off" \
		--rdbcompression "$compress" "${debug_option[@]}" > "$log" 2>&1 &
	server_pid=$!
	servers+=("$server_pid")
	for ((tries = 0; tries < 600; tries++)); do
		[ ! -S "$sock" ] || break
		kill -0 $server_pid 2> /dev/null || break
		sleep 0.1
	done
	[ -S "$sock" ] || die 1 "redis-server does not start: $(tail -n 3 "$log")"
	connect "$sock"
	while redis PING; [[ $reply = LOADING* ]]; do
		sleep 0.2
	done
	[ "$reply" = PONG ] || die 1 "redis-server does not answer: $reply"
}

stop_server()
{
	kill "$1" 2> /dev/null
	wait "$1" 2> /dev/null
}

# One connection for all commands: to start redis-cli costs more than most of
# them, above all where instructions are emulated.
connect()
{
	local sock=$1

	if [ -n "${cli_in:-}" ]; then
		exec {cli_in}>&- {cli_out}<&-
	fi
	coproc "$product-cli" -s "$sock" 2>&1
	# shellcheck disable=SC2153 # set by coproc
	exec {cli_in}>&"${COPROC[1]}" {cli_out}<&"${COPROC[0]}"
	eval "exec ${COPROC[1]}>&- ${COPROC[0]}<&-"
}

# redis COMMAND...: the answer is in $reply, lines separated by newlines
redis()
{
	local line

	reply=
	printf '%s\nECHO --end--\n' "$*" >&"$cli_in" || die 1 "lost redis-cli"
	while IFS= read -r line <&"$cli_out"; do
		line=${line%$'\r'}
		if [ "$line" = --end-- ]; then
			reply=${reply%$'\n'}
			return
		fi
		# redis-cli ends the answer to INFO with an empty line
		[ -z "$line" ] || reply+=$line$'\n'
	done
	die 1 "redis-server is gone after: $* (${reply:-no answer})"
}

expect()
{
	local wanted=$1
	shift
	redis "$@"
	# shellcheck disable=SC2053 # a pattern
	[[ $reply = $wanted ]] || die 1 "$*: $reply"
}

# field NAME: of the last answer to INFO
field()
{
	local rest=$'\n'$reply

	rest=${rest#*$'\n'"$1":}
	[ "$rest" != $'\n'"$reply" ] || die 1 "redis-server does not report $1"
	value=${rest%%$'\n'*}
}

# rdb_start FILE: where the data begin in $value, after the header with the
# time and the memory used: select database 0, and the size of its hash table
rdb_start()
{
	[ "$(head -c 5 "$1")" = REDIS ] || return 1
	value=$(head -c 1024 "$1" | grep -obUaP '\xfe\x00\xfb' | head -n 1 | cut -d : -f 1)
	[ -n "$value" ]
}

# rdb_same FILE FILE: but for the header, and for the check sum at the end
rdb_same()
{
	local a b

	rdb_start "$1" || return 1
	a=$value
	rdb_start "$2" || return 1
	b=$value
	cmp -s <(tail -c +$((a + 1)) "$1" | head -c -8) <(tail -c +$((b + 1)) "$2" | head -c -8)
}

# fill BYTES VALUE_SIZE: that much memory of keys "key:0", "key:1", ...;
# $keys, $per_key
fill()
{
	local empty sample=5000

	redis INFO memory
	field used_memory
	empty=$value
	# Bytes per key, of a sample: the allocator's size classes included.
	expect OK DEBUG POPULATE $sample key "$2"
	redis INFO memory
	field used_memory
	per_key=$(((value - empty) / sample))
	keys=$(($1 / per_key))
	[ $keys -ge $sample ] || keys=$sample
	expect OK DEBUG POPULATE $keys key "$2"
}

# settle: wait until the hash table has its size. While it moves to a larger
# one its order changes, and with it the order within RDB files.
settle()
{
	local tries

	for ((tries = 0; tries < 600; tries++)); do
		redis DEBUG HTSTATS 0
		[[ $reply = *'rehashing target'* ]] || break
		sleep 0.2
	done
}
