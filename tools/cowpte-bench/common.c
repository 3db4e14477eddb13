// SPDX-License-Identifier: GPL-2.0
/*
 * The kernel's user interface to copy-on-write page tables.
 *
 * Everything here works without malloc() and stdio: a measured process calls
 * it too, and must not grow or dirty a heap between two forks.
 */
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "common.h"

/*
 * Whether forks of the calling process share their page tables: 0 or 1;
 * -EINVAL from a kernel without the feature, -EOPNOTSUPP from a machine that
 * cannot do it.
 */
int cowpte_get(void)
{
	int ret = prctl(PR_GET_COW_PTE, 0, 0, 0, 0);

	return ret < 0 ? -errno : ret;
}

/* Switch the calling process; 0, or the errors of cowpte_get(). */
int cowpte_set(bool on)
{
	return prctl(PR_SET_COW_PTE, (unsigned long)on, 0, 0, 0) ? -errno : 0;
}

/*
 * Read up to @size - 1 bytes of a (pseudo) file into @buf and terminate it.
 * Returns the number of bytes, or -errno.
 */
ssize_t read_file(const char *path, char *buf, size_t size)
{
	size_t len = 0;
	ssize_t n = 0;
	int err = 0;
	int fd;

	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	while (len < size - 1) {
		n = read(fd, buf + len, size - 1 - len);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			break;
		len += n;
	}
	if (n < 0)
		err = errno;
	buf[len] = '\0';
	close(fd);
	return err ? -err : (ssize_t)len;
}

/*
 * Find the line that begins with the word @name (up to a blank or a colon) and
 * store the number after it. Serves /proc/vmstat, meminfo and PID/status.
 * Returns 0, or -ENOENT when there is no such line.
 */
int parse_field(const char *buf, const char *name, unsigned long long *val)
{
	size_t len = strlen(name);
	const char *line = buf;

	while (line) {
		if (!strncmp(line, name, len) &&
		    (line[len] == ':' || isblank((unsigned char)line[len]))) {
			const char *p = line + len + 1;
			char *end;

			*val = strtoull(p, &end, 10);
			return end == p ? -ENOENT : 0;
		}
		line = strchr(line, '\n');
		if (line)
			line++;
	}
	return -ENOENT;
}

/* One line of /proc/meminfo in kB; 0 or -errno. */
int meminfo_kb(const char *name, unsigned long long *kb)
{
	static char buf[8192];
	ssize_t n = read_file("/proc/meminfo", buf, sizeof(buf));

	return n < 0 ? (int)n : parse_field(buf, name, kb);
}

/* One line of /proc/PID/status in kB, pid 0 meaning the caller; 0 or -errno. */
int status_kb(pid_t pid, const char *name, unsigned long long *kb)
{
	static char buf[8192];
	char path[64];
	ssize_t n;

	if (pid)
		snprintf(path, sizeof(path), "/proc/%d/status", (int)pid);
	else
		snprintf(path, sizeof(path), "/proc/self/status");
	n = read_file(path, buf, sizeof(buf));
	return n < 0 ? (int)n : parse_field(buf, name, kb);
}

static enum cowpte_sysmode read_mode(const char *path)
{
	char buf[128];

	if (read_file(path, buf, sizeof(buf)) < 0)
		return COWPTE_SYS_UNKNOWN;
	if (strstr(buf, "[always]"))
		return COWPTE_SYS_ALWAYS;
	if (strstr(buf, "[prctl]"))
		return COWPTE_SYS_PRCTL;
	if (strstr(buf, "[never]"))
		return COWPTE_SYS_NEVER;
	return COWPTE_SYS_UNKNOWN;
}

/* The system-wide setting. */
enum cowpte_sysmode cowpte_sysmode(void)
{
	return read_mode(COWPTE_SYSFS_ENABLED);
}

/* That for tables of files. */
enum cowpte_sysmode cowpte_filemode(void)
{
	return read_mode(COWPTE_SYSFS_FILE);
}

const char *cowpte_sysmode_name(enum cowpte_sysmode mode)
{
	switch (mode) {
	case COWPTE_SYS_NEVER:
		return "never";
	case COWPTE_SYS_PRCTL:
		return "prctl";
	case COWPTE_SYS_ALWAYS:
		return "always";
	default:
		return "unknown";
	}
}

/*
 * Processes with fewer page tables than this fork conventionally in prctl
 * mode; -errno when it cannot be read.
 */
long cowpte_min_tables(void)
{
	char buf[64];
	char *end;
	ssize_t n;
	long val;

	n = read_file(COWPTE_SYSFS_MIN_TABLES, buf, sizeof(buf));
	if (n < 0)
		return n;
	errno = 0;
	val = strtol(buf, &end, 10);
	if (end == buf || errno || val < 0)
		return -EINVAL;
	return val;
}

/* The system's counters; 0, or -ENOENT from a kernel without them. */
int cowpte_vmstat(struct cowpte_vmstat *vs)
{
	static char buf[32768];
	ssize_t n = read_file("/proc/vmstat", buf, sizeof(buf));

	if (n < 0)
		return n;
	if (parse_field(buf, "cow_pte_share", &vs->share) ||
	    parse_field(buf, "cow_pte_break", &vs->brk) ||
	    parse_field(buf, "cow_pte_reuse", &vs->reuse) ||
	    parse_field(buf, "cow_pte_drop", &vs->drop) ||
	    parse_field(buf, "cow_pte_fallback", &vs->fallback))
		return -ENOENT;
	if (parse_field(buf, "cow_pte_skip", &vs->skip))
		vs->skip = 0;
	if (parse_field(buf, "cow_pte_publish", &vs->publish))
		vs->publish = 0;
	if (parse_field(buf, "cow_pte_join", &vs->join))
		vs->join = 0;
	if (parse_field(buf, "cow_pte_leave", &vs->leave))
		vs->leave = 0;
	return 0;
}
