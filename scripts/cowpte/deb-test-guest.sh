#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Runs in the guest of deb-test.sh: as its first process, to install the boot loader;
# and as a service ("run"), on each of the two kernels.
set -u

ok()
{
	if [ "$1" -eq 0 ]; then
		echo "ok: $2"
	else
		echo "FAILED: $2"
	fi
}

boot_loader()
{
	export PATH=/usr/sbin:/usr/bin:/sbin:/bin
	mount -t proc proc /proc
	mount -t sysfs sys /sys
	mountpoint -q /dev || mount -t devtmpfs dev /dev
	{ grub-install /dev/vda && update-grub; } && echo "deb-test: boot loader installed"
	sync
	mount -o remount,ro /
	echo o > /proc/sysrq-trigger
	sleep 60
}

redis()
{
	redis-cli "$@" | tr -d '\r'
}

# A snapshot of 100,000 keys, taken by a child
snapshot()
{
	local i

	redis debug populate 100000 key 500 > /dev/null
	redis bgsave > /dev/null
	for ((i = 0; i < 100; i++)); do
		[ "$(redis info persistence | sed -n 's/^rdb_bgsave_in_progress://p')" != 0 ] || break
		sleep 1
	done
	[ "$(redis info persistence | sed -n 's/^rdb_last_bgsave_status://p')" = ok ]
}

# The kernel of the package: Debian's Redis, with the drop-in
with_feature()
{
	local pid shared
	local unit=/etc/systemd/system/redis-server.service.d

	grep -q '\[prctl\]' /sys/kernel/mm/cow_pte/enabled
	ok $? "the boot parameter chooses the mode"
	mkdir -p $unit
	cp /usr/share/doc/cowpte/examples/cowpte.conf $unit/
	systemctl daemon-reload
	systemctl restart redis-server
	pid=$(systemctl show -p MainPID --value redis-server)
	[ "$(cat "/proc/$pid/cow_pte")" = 1 ]
	ok $? "the drop-in switches Debian's redis-server.service on"
	cowpte status "$pid" | grep -q ' on '
	ok $? "cowpte status says so"
	snapshot
	ok $? "a snapshot"
	shared=$(sed -n 's/^last_fork_share //p' "/proc/$pid/cow_pte_stat")
	[ "${shared:-0}" -gt 0 ]
	ok $? "its fork shared page tables: ${shared:-none}"
	cowpte status -v "$pid"
	[ -e "/lib/modules/$(uname -r)/build/Makefile" ]
	ok $? "headers for modules of one's own are there"
}

# Debian's kernel: rolled back
without_feature()
{
	! cowpte status > /dev/null 2>&1
	ok $? "cowpte says that this kernel does not have it"
	[ "$(systemctl is-active redis-server)" = active ]
	ok $? "the service starts all the same, with the drop-in"
	snapshot
	ok $? "a snapshot"
}

[ "${1:-}" = run ] || boot_loader
echo "deb-test: $(uname -r), $(systemctl is-system-running)"
case $(uname -r) in
*-cowpte)
	with_feature
	# what a user would choose in the menu
	other=$(sed -n "s/^menuentry '\([^']*\)'.*/\1/p" /boot/grub/grub.cfg |
		grep -v -e recovery -e cowpte | grep Linux | tail -n 1)
	grub-set-default "$other"
	ok $? "chosen for the next start: $other"
	;;
*)
	without_feature
	;;
esac
systemctl --failed --no-legend
[ -z "$(systemctl --failed --no-legend)" ]
ok $? "no unit has failed"
echo "deb-test: done"
systemctl poweroff
