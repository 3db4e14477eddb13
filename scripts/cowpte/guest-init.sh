#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# The first process of the guest that run.sh boots. The root is the host's
# own, over 9p and read-only; everything a program may write is memory. What
# to run, and where, is in the file $COWPTE_DIR/job, which run.sh wrote (the
# kernel hands COWPTE_DIR from its command line to us as environment).
#
# With COWPTE_FOREIGN, the machine is another than the host, and the root a directory
# of its own; the host's lies beside it.
#
# shellcheck disable=SC2154 # job_*: set by that file

export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export HOME=/root LANG=C.UTF-8 USER=root LOGNAME=root
unset BOOT_IMAGE

# The end of every guest. Never return: an init that exits panics the kernel.
off()
{
	sync
	echo o > /proc/sysrq-trigger
	while :; do
		sleep 60
	done
}

mount -t proc proc /proc
trap off EXIT

complain()
{
	echo "cowpte-guest: $*" > /dev/kmsg
}

# try COMMAND...: say so in the kernel log when it fails, and go on
try()
{
	local said

	said=$("$@" 2>&1) || complain "failed: $* (${said//$'\n'/; })"
}

# /mnt keeps the host's root in sight, for the overlays, and as a directory that the
# job needs may lie under one that is covered.
try mount -t tmpfs tmpfs /mnt
mkdir -p /mnt/host /mnt/overlay/{var,etc,root,home}/{upper,work}
host_dir=
if [ -n "${COWPTE_FOREIGN:-}" ]; then
	try mount -t 9p -o ro,trans=virtio,version=9p2000.L,msize=512000,cache=loose \
		host /mnt/host
	host_dir=/mnt/host
fi

# shellcheck disable=SC1090,SC1091 # made by run.sh
. "$host_dir$COWPTE_DIR/job" || { complain "cannot read $COWPTE_DIR/job"; exit 1; }

# (the kernel has mounted devtmpfs)
ln -s /proc/self/fd /dev/fd
ln -s fd/0 /dev/stdin
ln -s fd/1 /dev/stdout
ln -s fd/2 /dev/stderr

# Places to write
mkdir -p /dev/{pts,shm,hugepages,mqueue}
{
	[ -n "$host_dir" ] || echo "/ /mnt/host none bind"
	cat <<'END'
sysfs		/sys			sysfs		defaults
devpts		/dev/pts		devpts		gid=5,mode=620,ptmxmode=666
tmpfs		/dev/shm		tmpfs		mode=1777
hugetlbfs	/dev/hugepages		hugetlbfs	defaults
mqueue		/dev/mqueue		mqueue		defaults
debugfs		/sys/kernel/debug	debugfs		defaults
tracefs		/sys/kernel/tracing	tracefs		defaults
cgroup2		/sys/fs/cgroup		cgroup2		defaults
tmpfs		/tmp			tmpfs		mode=1777
END
	for d in /var /etc /root /home; do
		lower=/mnt/host$d
		[ -z "$host_dir" ] || lower=$d
		[ ! -d "$d" ] || printf 'overlay %s overlay lowerdir=%s,upperdir=%s,workdir=%s\n' \
			"$d" "$lower" "/mnt/overlay$d/upper" "/mnt/overlay$d/work"
	done
	cat <<'END'
tmpfs		/var/tmp		tmpfs		mode=1777
tmpfs		/run			tmpfs		mode=755
END
} > /mnt/fstab
# one process: starting one is what takes time in an emulated guest
try mount -a -T /mnt/fstab
mkdir -p /run/lock /run/redis

read -r -a controllers < /sys/fs/cgroup/cgroup.controllers
for c in "${controllers[@]}"; do
	echo "+$c" > /sys/fs/cgroup/cgroup.subtree_control
done

for d in "${job_paths[@]}"; do
	[ -n "$host_dir" ] || [ ! -e "$d" ] || continue
	mkdir -p "$d"
	try mount --bind "/mnt/host$d" "$d"
done
i=0
for d in "${job_writable[@]}"; do
	mkdir -p "$d"
	try mount -t 9p -o trans=virtio,version=9p2000.L,msize=512000,cache=none \
		"w$i" "$d"
	i=$((i + 1))
done

ip link set lo up 2> /dev/null || complain "failed: loopback (is iproute2 installed?)"
ulimit -n 65536

if [ -n "$job_swap" ]; then
	try mkswap /dev/vda > /dev/null
	try swapon /dev/vda
fi

# /dev/virtio-ports is udev's work, and udev does not run here. The host tells
# the names of the ports some time after the driver was bound: wait for them.
ports=(status)
[ -n "$job_shell" ] || ports+=(out err)
declare -A port
for ((i = 0; i < 300 && ${#port[@]} < ${#ports[@]}; i++)); do
	[ $i -eq 0 ] || sleep 0.1
	for p in /sys/class/virtio-ports/*; do
		name=
		{ read -r name < "$p/name"; } 2> /dev/null
		[ -z "$name" ] || [ ! -c "/dev/${p##*/}" ] || port[$name]=/dev/${p##*/}
	done
done
for name in "${ports[@]}"; do
	[ -n "${port[$name]:-}" ] || { complain "no port '$name'"; exit 1; }
done

if [ -n "$job_shell" ]; then
	cd "$job_cwd" || cd /
	export TERM="$job_term"
	stty rows "$job_rows" cols "$job_cols" < /dev/hvc0 2> /dev/null
	setsid -c -w bash -i < /dev/hvc0 > /dev/hvc0 2>&1
	echo $? > "${port[status]}"
	exit
fi

# (run.sh looks for this line)
complain "running the command"

# The program writes into pipes, so that it may open /dev/stderr and the like
# again; a virtio port can be opened only once.
mkfifo /run/.out /run/.err
cat < /run/.out > "${port[out]}" &
cats=" $! "
cat < /run/.err > "${port[err]}" &
cats="$cats$! "

(
	if ! cd "$job_cwd" 2> /dev/null; then
		echo "cowpte-guest: no directory $job_cwd in the guest" >&2
		exit 126
	fi
	exec setsid -w "${job_argv[@]}"
) < /dev/null > /run/.out 2> /run/.err &
wait $!
status=$?

# What the program left behind may hold the pipes open.
for p in /proc/[0-9]*; do
	p=${p#/proc/}
	[ "$p" != 1 ] || continue
	case $cats in
	*" $p "*) ;;
	*) kill -9 "$p" 2> /dev/null ;;
	esac
done
wait

echo "$status" > "${port[status]}"
