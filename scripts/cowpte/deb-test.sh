#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Are the packages good for who installs them? Make an image of Debian 13 with Redis
# and Debian's own kernel, install the packages there, and boot it in QEMU through its
# own boot loader and systemd: first the new kernel, then, as chosen in GRUB, Debian's.
# What is looked at is in deb-test-guest.sh, which runs there. The last line is
# "N passed, N failed".
set -euo pipefail
# shellcheck source=scripts/cowpte/common.sh
. "$(dirname "$0")/common.sh"
# shellcheck source=scripts/cowpte/tests.sh
. "$SCRIPTS/tests.sh"

OUT=$BUILD/deb-test
PACKAGES=$BUILD/packages
SUITE=${SUITE:-trixie}
ROOT=$OUT/root
DISK=$OUT/disk.img
START_MB=1		# of the partition; GRUB's core is before it
SIZE_MB=3072
LIMIT=1500		# seconds for a guest

# image: a directory with all that is installed
image()
{
	local mirror

	# shellcheck disable=SC2016 # for apt-get to expand
	mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | head -n 1)
	rm -rf "$ROOT"
	mmdebstrap --quiet --variant=minbase --include=systemd-sysv,udev,dbus,kmod,initramfs-tools \
		--include=grub-pc,redis-server,linux-image-cloud-amd64 \
		"$SUITE" "$ROOT" "deb ${mirror:-http://deb.debian.org/debian} $SUITE main" \
		> "$OUT/image.log" 2>&1 ||
		die "mmdebstrap failed, see ${OUT#"$TOP"/}/image.log: $(tail -n 1 "$OUT/image.log")"
	mkdir "$ROOT/packages"
	cp "$PACKAGES"/linux-image-*.deb "$PACKAGES"/linux-headers-*.deb "$PACKAGES"/cowpte_*.deb \
		"$ROOT/packages/"
	cat > "$ROOT/etc/fstab" <<-END
		LABEL=cowpte / ext4 defaults 0 1
	END
	cat > "$ROOT/etc/default/grub" <<-END
		GRUB_DEFAULT=saved
		GRUB_TIMEOUT=0
		GRUB_DISTRIBUTOR=Debian
		GRUB_DISABLE_SUBMENU=y
		GRUB_TERMINAL=serial
		GRUB_CMDLINE_LINUX="console=ttyS0 cow_pte=prctl quiet systemd.show_status=false"
	END
	# The console is for what the test says.
	ln -s /dev/null "$ROOT/etc/systemd/system/serial-getty@ttyS0.service"
	install "$SCRIPTS/deb-test-guest.sh" "$ROOT/usr/local/sbin/deb-test"
	cat > "$ROOT/etc/systemd/system/deb-test.service" <<-END
		[Unit]
		After=redis-server.service
		[Service]
		Type=oneshot
		ExecStart=/usr/local/sbin/deb-test run
		StandardOutput=file:/dev/ttyS0
		StandardError=file:/dev/ttyS0
		[Install]
		WantedBy=multi-user.target
	END
	ln -s /etc/systemd/system/deb-test.service \
		"$ROOT/etc/systemd/system/multi-user.target.wants/"
}

# install_packages: as a user would; no boot loader is there yet
install_packages()
{
	chroot "$ROOT" /usr/bin/env DEBIAN_FRONTEND=noninteractive \
		bash -c 'cd /packages && dpkg -i -- *.deb' > "$OUT/install.log" 2>&1
}

# disk: the directory, as a disk with one partition
disk()
{
	rm -f "$DISK" "$OUT/part.img"
	truncate -s "${SIZE_MB}M" "$OUT/part.img"
	mke2fs -q -t ext4 -L cowpte -d "$ROOT" "$OUT/part.img" > "$OUT/mke2fs.log" 2>&1
	truncate -s $((SIZE_MB + START_MB))M "$DISK"
	echo "start=${START_MB}MiB, type=83, bootable" | sfdisk -q "$DISK"
	dd if="$OUT/part.img" of="$DISK" bs=1M seek=$START_MB conv=notrunc,sparse status=none
	rm "$OUT/part.img"
}

# qemu LOG ARG...
qemu()
{
	local log=$1 accel=tcg,thread=multi status=0

	shift
	timeout -k 5 $LIMIT qemu-system-x86_64 -nodefaults -no-user-config -display none \
		-machine q35 -vga std -accel $accel -cpu max -smp 2 -m 2G -serial "file:$log" \
		-drive "file=$DISK,format=raw,if=virtio" -no-reboot "$@" || status=$?
	return $status
}

# boot_loader: what the installer of Debian does; on the kernel that was installed
boot_loader()
{
	local kernel

	kernel=$(cd "$ROOT/boot" && ls vmlinuz-*-cowpte)
	qemu "$OUT/loader.log" -kernel "$ROOT/boot/$kernel" \
		-initrd "$ROOT/boot/initrd.img-${kernel#vmlinuz-}" \
		-append "console=ttyS0 root=LABEL=cowpte rw quiet init=/usr/local/sbin/deb-test"
	grep -q '^deb-test: boot loader installed' "$OUT/loader.log"
}

# guest NAME: one boot through the boot loader; counts what it says
guest()
{
	local verdict what status

	qemu "$OUT/$1.log" || true
	while read -r verdict what; do
		status=0
		[ "$verdict" = ok: ] || status=1
		result $status "$1: $what"
	done < <(tr -d '\r' < "$OUT/$1.log" | grep -aE '^(ok|FAILED): ')
	grep -aq '^deb-test: done' "$OUT/$1.log"
	result $? "$1: booted through GRUB and systemd, and came to its end"
}

say "takes about 3 minutes on two idle cores, and 10 minutes if the packages have to be built"
"$SCRIPTS/deps.sh" image
mkdir -p "$OUT"
compgen -G "$PACKAGES/linux-image-*-cowpte_*.deb" > /dev/null || CONFIG=small "$SCRIPTS/deb.sh"
"$SCRIPTS/deb.sh" tools
trap summary EXIT
image
status=0
install_packages || status=$?
[ $status -eq 0 ] || tail -n 20 "$OUT/install.log"
result $status "the packages install on Debian ($SUITE)"
disk
status=0
boot_loader || status=$?
result $status "Debian's GRUB finds the kernels"
set +e
guest cowpte
guest debian
