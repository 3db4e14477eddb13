/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The kernel's user interface to copy-on-write page tables, and the small
 * readers of /proc and /sys that both tools need.
 */
#ifndef COWPTE_COMMON_H
#define COWPTE_COMMON_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

/* The kernel's spellings; user space has no header for them. */
#define __noreturn		__attribute((noreturn))
#define __printf(a, b)		__attribute((format(printf, a, b)))
#define fallthrough		__attribute((fallthrough))
#define ARRAY_SIZE(x)		(sizeof(x) / sizeof((x)[0]))
#define BIT(n)			(1UL << (n))

#define COWPTE_VERSION		"1.0"

/* From include/uapi/linux/prctl.h, for building against older headers. */
#ifndef PR_SET_COW_PTE
#define PR_SET_COW_PTE		0x434f5750
#define PR_GET_COW_PTE		0x434f5751
#endif

#define COWPTE_SYSFS_ENABLED	"/sys/kernel/mm/cow_pte/enabled"
#define COWPTE_SYSFS_MIN_TABLES	"/sys/kernel/mm/cow_pte/min_tables"
#define COWPTE_SYSFS_FILE	"/sys/kernel/mm/cow_pte/file"

#define COWPTE_MISSING \
	"this kernel has no copy-on-write page tables (CONFIG_COW_PTE); " \
	"boot a kernel built with CONFIG_COW_PTE=y"
#define COWPTE_UNSUPPORTED \
	"this machine cannot use copy-on-write page tables " \
	"(the kernel has them, the CPU or hypervisor does not allow them)"

/* The system-wide setting: the word in brackets in COWPTE_SYSFS_ENABLED. */
enum cowpte_sysmode {
	COWPTE_SYS_UNKNOWN,	/* file missing or not understood */
	COWPTE_SYS_NEVER,
	COWPTE_SYS_PRCTL,
	COWPTE_SYS_ALWAYS,
};

/* Event counts since boot, for the whole system. */
struct cowpte_vmstat {
	unsigned long long share;
	unsigned long long brk;
	unsigned long long reuse;
	unsigned long long drop;
	unsigned long long fallback;
	unsigned long long skip;
	/* 0 from a kernel without tables of files */
	unsigned long long publish;
	unsigned long long join;
	unsigned long long leave;
};

int cowpte_get(void);
int cowpte_set(bool on);
enum cowpte_sysmode cowpte_sysmode(void);
enum cowpte_sysmode cowpte_filemode(void);
const char *cowpte_sysmode_name(enum cowpte_sysmode mode);
long cowpte_min_tables(void);
int cowpte_vmstat(struct cowpte_vmstat *vs);

ssize_t read_file(const char *path, char *buf, size_t size);
int parse_field(const char *buf, const char *name, unsigned long long *val);
int meminfo_kb(const char *name, unsigned long long *kb);
int status_kb(pid_t pid, const char *name, unsigned long long *kb);

#endif /* COWPTE_COMMON_H */
