// SPDX-License-Identifier: GPL-2.0
#include <argp.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include <linux/loop.h>
#include <linux/sched.h>

#include "cow_pte_util.h"

/* Far beyond anything a slow emulator needs: only a hang ends up here */
#define CALL_TIMEOUT_MS	(600 * 1000)

#define DEBUGFS		"/sys/kernel/debug/"
#define OVERCOMMIT	"/proc/sys/vm/overcommit_memory"

/* Less than this and a few processes more would make the difference */
#define COMMIT_ROOM_KB	(64L << 10)

/* No mapping with anything in it is that large */
#define RESERVED	(4UL << 30)

/* Far below the rest, so that the kernel puts nothing in holes of the arena */
#define ARENA_HINT	((void *)(1UL << 44))

/* Bad page, oops, warning; see Documentation/admin-guide/tainted-kernels.rst */
#define TAINT_SPLAT	(0x20 | 0x80 | 0x200)

struct cow_world *world;
struct cow_proc cow_proc[COW_MAX_PROCS];
unsigned int cow_self;
char *arena;

static int sock[COW_MAX_PROCS][2];
static unsigned int nr_socks;
static struct cow_log *ref_log;
static const long no_arg[6];
static long boot_taint;
static char boot_mode[64];
static __thread sigjmp_buf probe_env;
static __thread int probing;

/* Files that tests write to; restored when the test program ends. */
static struct {
	const char *path;
	char val[64];
} saved_file[] = {
	{ COW_SYSFS "enabled" },
	{ COW_SYSFS "min_tables" },
	{ COW_SYSFS "file" },
	{ "/sys/kernel/mm/ksm/run" },
	{ "/sys/kernel/mm/ksm/pages_to_scan" },
	{ "/sys/kernel/mm/ksm/sleep_millisecs" },
	{ "/sys/kernel/mm/ksm/smart_scan" },
	{ "/sys/kernel/mm/ksm/use_zero_pages" },
	{ "/sys/kernel/mm/transparent_hugepage/enabled" },
	{ "/sys/kernel/mm/transparent_hugepage/khugepaged/pages_to_scan" },
	{ "/sys/kernel/mm/transparent_hugepage/khugepaged/alloc_sleep_millisecs" },
	{ "/sys/kernel/mm/transparent_hugepage/khugepaged/scan_sleep_millisecs" },
	{ "/sys/kernel/mm/transparent_hugepage/hugepages-64kB/enabled" },
	{ "/sys/kernel/mm/transparent_hugepage/khugepaged/max_ptes_none" },
	{ "/proc/sys/kernel/numa_balancing" },
	{ "/proc/sys/vm/compaction_proactiveness" },
	{ "/sys/kernel/debug/sched/numa_balancing/scan_delay_ms" },
	{ "/sys/kernel/debug/sched/numa_balancing/scan_period_min_ms" },
	{ "/sys/kernel/debug/sched/numa_balancing/scan_period_max_ms" },
	{ "/sys/kernel/debug/failslab/ignore-gfp-wait" },
	{ "/sys/kernel/debug/failslab/verbose" },
	{ "/sys/kernel/debug/failslab/cache-filter" },
	{ "/sys/kernel/debug/fail_page_alloc/ignore-gfp-wait" },
	{ "/sys/kernel/debug/fail_page_alloc/ignore-gfp-highmem" },
	{ "/sys/kernel/debug/fail_page_alloc/min-order" },
	{ "/sys/kernel/debug/fail_page_alloc/verbose" },
	{ "/proc/sys/kernel/core_pattern" },
	{ OVERCOMMIT },
};

struct call {
	cow_fn fn;
	long arg[6];
};

struct reply {
	long ret;
	int err;
};

/**
 * cow_fail() - end the test case as failed
 *
 * May be called by the process of the test case only; those of the world see
 * their sockets close and end, too.
 */
void cow_fail(const char *fmt, ...)
{
	char msg[512];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(msg, sizeof(msg), fmt, ap);
	va_end(ap);
	ksft_print_msg("%s\n", msg);
	fflush(stdout);
	_exit(KSFT_FAIL);
}

/**
 * cow_open_proc() - open a file of /proc/PID for reading
 *
 * Returns it; the test fails if that does not work.
 */
FILE *cow_open_proc(pid_t pid, const char *name)
{
	char path[64];
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/%s", pid, name);
	f = fopen(path, "re");
	if (!f)
		cow_fail("%s: %s", path, strerror(errno));
	return f;
}

/**
 * cow_read_file() - read a small file as a string, without the last newline
 *
 * Returns the length or -1 with errno set.
 */
int cow_read_file(const char *path, char *buf, size_t len)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t ret;
	int err;

	if (fd < 0)
		return -1;
	ret = read(fd, buf, len - 1);
	err = errno;
	close(fd);
	errno = err;
	if (ret < 0)
		return -1;
	if (ret && buf[ret - 1] == '\n')
		ret--;
	buf[ret] = '\0';
	return ret;
}

/**
 * cow_write_file() - write a string to a file in one write()
 *
 * Returns 0 or -1 with errno set.
 */
int cow_write_file(const char *path, const char *val)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	ssize_t ret;
	int err;

	if (fd < 0)
		return -1;
	ret = write(fd, val, strlen(val));
	err = errno;
	close(fd);
	errno = err;
	return ret == (ssize_t)strlen(val) ? 0 : -1;
}

/**
 * cow_read_field() - the number after a field's name in a file of lines
 *
 * Understands both "Name:  1 kB" and "name 1".  Returns -1 if there is no such
 * file or field.
 */
long cow_read_field(const char *path, const char *field)
{
	size_t len = strlen(field);
	char line[256];
	long val = -1;
	FILE *f;

	f = fopen(path, "re");
	if (!f)
		return -1;
	while (fgets(line, sizeof(line), f)) {
		if (strncmp(line, field, len) ||
		    (line[len] != ':' && line[len] != ' '))
			continue;
		val = strtol(line + len + 1, NULL, 10);
		break;
	}
	fclose(f);
	return val;
}

/* The value of a counter in /proc/vmstat, or -1 */
long cow_vmstat(const char *field)
{
	return cow_read_field("/proc/vmstat", field);
}

/* The value of a field in /proc/PID/status, or -1 */
long cow_status(pid_t pid, const char *field)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/status", pid);
	return cow_read_field(path, field);
}

/* The value of a field in /proc/PID/cow_pte_stat, or -1 */
long cow_stat(pid_t pid, const char *field)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/cow_pte_stat", pid);
	return cow_read_field(path, field);
}

/**
 * cow_smaps_field() - a line of the caller's smaps
 * @addr: an address in the mapping that is meant
 * @field: name, without the colon
 *
 * Return: the number, or -1 if there is no such mapping or field
 */
long cow_smaps_field(const char *addr, const char *field)
{
	size_t len = strlen(field);
	unsigned long start, end;
	bool found = false;
	char line[256];
	long val = -1;
	FILE *f;

	f = fopen("/proc/self/smaps", "re");
	if (!f)
		return -1;
	while (val < 0 && fgets(line, sizeof(line), f)) {
		if (sscanf(line, "%lx-%lx ", &start, &end) == 2)
			found = (char *)start <= addr && addr < (char *)end;
		else if (found && !strncmp(line, field, len) && line[len] == ':')
			val = strtol(line + len + 1, NULL, 10);
	}
	fclose(f);
	return val;
}

/* The pagemap entry of an address in a process; fails the test on errors */
__u64 cow_pagemap(pid_t pid, const void *addr)
{
	char path[64];
	__u64 val;
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/pagemap", pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || pread(fd, &val, sizeof(val),
			    (uintptr_t)addr / PAGE * sizeof(val)) != sizeof(val))
		cow_fail("%s: %s", path, strerror(errno));
	close(fd);
	return val;
}

/* Fold the per-CPU parts of the system's counters into the totals */
void cow_fold_vmstat(void)
{
	char buf[16];

	cow_read_file("/proc/sys/vm/stat_refresh", buf, sizeof(buf));
}

/**
 * cow_settle() - wait until a system-wide value has come down to a limit
 *
 * Page tables are freed after a grace period, so leak checks have to be
 * patient.  Returns the last value, above the limit if it stays there.
 */
long cow_settle(long (*read_value)(void), long limit)
{
	long val = 0;
	int i;

	for (i = 0; i < 100; i++) {
		cow_fold_vmstat();
		val = read_value();
		if (val <= limit)
			break;
		usleep(i < 20 ? 10000 : 100000);
	}
	return val;
}

long cow_page_tables(void)
{
	return cow_vmstat("nr_page_table_pages");
}

long cow_anon_pages(void)
{
	return cow_vmstat("nr_anon_pages");
}

long cow_swap_used(void)
{
	return (cow_read_field("/proc/meminfo", "SwapTotal") -
		cow_read_field("/proc/meminfo", "SwapFree")) / 4;
}

/*
 * Those that are in no page table any more, too: pages that somebody forgot to
 * put.  Only files in memory are not counted.
 */
long cow_anon_lru(void)
{
	return cow_vmstat("nr_active_anon") + cow_vmstat("nr_inactive_anon") -
	       cow_vmstat("nr_shmem");
}

static const struct {
	const char *name;
	long (*read)(void);
} usage_counter[] = {
	{ "nr_page_table_pages", cow_page_tables },
	{ "nr_anon_pages", cow_anon_pages },
	{ "pages of swap in use", cow_swap_used },
	{ "anonymous pages on LRU lists", cow_anon_lru },
};

/* Note how much memory the system uses; @usage has the slack already */
void cow_usage_start(struct cow_usage *usage)
{
	size_t i;

	cow_fold_vmstat();
	for (i = 0; i < ARRAY_LEN(usage_counter); i++)
		usage->before[i] = usage_counter[i].read();
}

/* A number from the environment, or the default */
long cow_env(const char *name, long def)
{
	const char *val = getenv(name);

	return val ? strtol(val, NULL, 0) : def;
}

/**
 * cow_usage_grown() - does the system still use more memory than before?
 *
 * Other processes do, now and then: only who sees it several times over has
 * found a leak.  With COW_PTE_COMPANY=1 in the environment it is not asked:
 * what runs beside the test uses as much as it likes.
 *
 * Return: whether any counter stays above its start and slack.
 */
bool cow_usage_grown(const struct cow_usage *usage)
{
	bool grown = false;
	long limit, now;
	size_t i;

	if (cow_env("COW_PTE_COMPANY", 0))
		return false;
	for (i = 0; i < ARRAY_LEN(usage_counter); i++) {
		limit = usage->before[i] + usage->slack[i];
		now = cow_settle(usage_counter[i].read, limit);
		if (now <= limit)
			continue;
		ksft_print_msg("%s: %ld before, %ld after\n",
			       usage_counter[i].name, usage->before[i], now);
		grown = true;
	}
	return grown;
}

static long read_taint(void)
{
	char buf[32];

	if (cow_read_file("/proc/sys/kernel/tainted", buf, sizeof(buf)) <= 0)
		return 0;
	return strtol(buf, NULL, 10);
}

static void restore_files(void)
{
	size_t i;

	for (i = 0; i < ARRAY_LEN(saved_file); i++)
		if (saved_file[i].val[0])
			cow_write_file(saved_file[i].path, saved_file[i].val);
}

/* Files of the "always [prctl] never" kind are saved as the chosen word */
static void save_files(void)
{
	char buf[64], *from, *to;
	size_t i;

	for (i = 0; i < ARRAY_LEN(saved_file); i++) {
		if (cow_read_file(saved_file[i].path, buf, sizeof(buf)) <= 0)
			continue;
		from = strchr(buf, '[');
		to = strchr(buf, ']');
		if (from && to) {
			*to = '\0';
			from++;
		} else {
			from = buf;
		}
		snprintf(saved_file[i].val, sizeof(saved_file[i].val), "%s", from);
	}
	snprintf(boot_mode, sizeof(boot_mode), "%s", saved_file[0].val);
}

/**
 * cow_without_rseq() - start the program anew, without restartable sequences
 *
 * For those that make allocations fail, before cow_main_start().  The kernel
 * writes to a thread's rseq area when the thread is moved to another processor,
 * and kills it if that fails: with the feature, when the table cannot be
 * copied; without it, when the page cannot.
 */
void cow_without_rseq(char **argv)
{
	if (getenv("GLIBC_TUNABLES"))
		return;
	setenv("GLIBC_TUNABLES", "glibc.pthread.rseq=0", 1);
	execv("/proc/self/exe", argv);
}

/**
 * cow_main_start() - set-up of a test program, to be called by its main()
 *
 * Saves the system settings and has them restored at exit.  Ends the program
 * as skipped if the tests cannot run here.
 */
void cow_main_start(void)
{
	if (geteuid() || sysconf(_SC_PAGESIZE) != PAGE)
		ksft_exit_skip("must be run as root on 4 KiB pages\n");
	if (access("/sys/kernel/debug/clear_warn_once", F_OK))
		mount("debugfs", "/sys/kernel/debug", "debugfs", 0, NULL);
	boot_taint = read_taint();
	save_files();
	atexit(restore_files);
	/* Start from the same state whoever runs us */
	prctl(PR_SET_COW_PTE, 0, 0, 0, 0);
	/* Small processes would fork conventionally */
	cow_write_file(COW_SYSFS "min_tables", "0");
}

/* 0 if the kernel has the feature and the machine can, or else an errno value */
int cow_available(void)
{
	int on = prctl(PR_GET_COW_PTE, 0, 0, 0, 0);

	if (on < 0 || prctl(PR_SET_COW_PTE, on, 0, 0, 0))
		return errno;
	return boot_mode[0] ? 0 : ENOENT;
}

/**
 * cow_set_system_mode() - make the reference possible in every boot mode
 *
 * Booted with cow_pte=always the reference has to be taken under "never", for
 * then no process can stay out.
 */
void cow_set_system_mode(enum cow_mode mode)
{
	const char *word = "prctl";

	if (!boot_mode[0])
		return;
	if (!strcmp(boot_mode, "always"))
		word = mode == COW_ON ? "always" : "never";
	if (cow_write_file(COW_SYSFS "enabled", word))
		cow_fail("cannot write %s to " COW_SYSFS "enabled: %s", word,
			 strerror(errno));
}

/**
 * cow_set_file_mode() - likewise whether tables of files are shared
 *
 * Does nothing where the kernel cannot.
 */
void cow_set_file_mode(enum cow_mode mode)
{
	const char *word = "prctl";

	if (access(COW_SYSFS "file", W_OK))
		return;
	if (!strcmp(boot_mode, "always"))
		word = "always";
	if (mode == COW_OFF)
		word = "never";
	if (cow_write_file(COW_SYSFS "file", word))
		cow_fail("cannot write %s to " COW_SYSFS "file: %s", word,
			 strerror(errno));
}

static void check_taint(void)
{
	long taint = read_taint();

	if ((taint & TAINT_SPLAT) & ~boot_taint)
		cow_fail("the kernel complained, see its log (taint %#lx)", taint);
}

/* Fails the test if the logs differ, after showing the first differences */
static void compare_logs(const struct cow_log *ref, unsigned int nr)
{
	unsigned int i, differences = 0;

	for (i = 0; i < nr && i < world->nr_log && differences < 10; i++) {
		struct cow_log *on = &world->log[i];

		if (strcmp(ref[i].label, on->label) || ref[i].key != on->key)
			cow_fail("off: %s %ld, on: %s %ld", ref[i].label,
				 ref[i].key, on->label, on->key);
		if (ref[i].val == on->val)
			continue;
		ksft_print_msg("%s %ld: %#llx with the feature off, %#llx on\n",
			       on->label, on->key,
			       ref[i].val,
			       on->val);
		differences++;
	}
	if (nr != world->nr_log)
		cow_fail("%u log entries with the feature off, %u on", nr,
			 world->nr_log);
	if (differences)
		cow_fail("the feature makes a difference");
}

static const char *reason_missing(int err)
{
	static char reason[160];

	snprintf(reason, sizeof(reason),
		 "this kernel has no cow_pte (prctl: %s); without it: ok",
		 strerror(err));
	return reason;
}

static const char *run_scenario(cow_scenario_fn scenario, enum cow_mode mode,
				const void *arg)
{
	bool on = mode == COW_ON && !cow_available();
	const char *why;

	cow_set_system_mode(mode);
	why = scenario(on ? COW_ON : COW_OFF, arg);
	cow_set_system_mode(COW_ON);
	check_taint();
	return why;
}

/**
 * cow_run_off() - run a scenario with the feature off
 *
 * Returns NULL or the reason why it could not run.
 */
const char *cow_run_off(cow_scenario_fn scenario, const void *arg)
{
	return run_scenario(scenario, COW_OFF, arg);
}

enum pass { PASS_WARM_UP, PASS_REFERENCE, PASS_ON };

/*
 * The processes of the world fork below here, and what the stack of this one
 * looks like shows in their counters: there is but one way down for all passes.
 */
static const char *run_passes(cow_scenario_fn scenario, const void *arg,
			      enum pass first)
{
	const char *why = NULL;
	unsigned int nr = 0;
	enum pass pass;

	for (pass = first; pass <= PASS_ON && !why; pass++) {
		why = run_scenario(scenario,
				   pass == PASS_ON ? COW_ON : COW_OFF, arg);
		if (!why && pass == PASS_REFERENCE) {
			nr = world->nr_log;
			memcpy(ref_log, world->log, nr * sizeof(*ref_log));
		}
	}
	if (!why && first <= PASS_REFERENCE)
		compare_logs(ref_log, nr);
	if (!why && cow_available())
		why = reason_missing(cow_available());
	return why;
}

/**
 * cow_run_once() - run a scenario with the feature on
 *
 * On a kernel without the feature it runs all the same, which shows that the
 * scenario is sound.  Returns NULL or the reason why it was skipped or could
 * not run with the feature on.
 */
const char *cow_run_once(cow_scenario_fn scenario, const void *arg)
{
	return run_passes(scenario, arg, PASS_ON);
}

/**
 * cow_run() - run a scenario with the feature off, then on, and compare
 *
 * Fails the test if the two runs logged different things.  On a kernel without
 * the feature both run without, which shows that the results can be repeated.
 * Returns NULL or the reason why the scenario was skipped or could not run with
 * the feature on.
 */
const char *cow_run(cow_scenario_fn scenario, const void *arg)
{
	return run_passes(scenario, arg, PASS_REFERENCE);
}

/**
 * cow_run_warm() - cow_run() after a first run that does not count
 *
 * The first run maps files, touches stack and data for the first time, and so
 * on, which shows in the counters of the processes that fork from this one.
 */
const char *cow_run_warm(cow_scenario_fn scenario, const void *arg)
{
	return run_passes(scenario, arg, PASS_WARM_UP);
}

/* The handler runs in the same thread: keep the compiler from moving it */
static void set_probing(int on)
{
	__atomic_store_n(&probing, on, __ATOMIC_RELAXED);
	__atomic_signal_fence(__ATOMIC_SEQ_CST);
}

static void probe_handler(int sig, siginfo_t *info, void *ctx)
{
	if (!probing) {
		/* News of poisoned memory, which a test has asked for */
		if (sig == SIGBUS && (info->si_code == BUS_MCEERR_AO ||
				      info->si_code == BUS_MCEERR_AR))
			return;
		/* A real crash: let it happen again, for good */
		signal(sig, SIG_DFL);
		return;
	}
	siglongjmp(probe_env, sig);
}

static void install_probe(void)
{
	struct sigaction sa = {
		.sa_sigaction = probe_handler,
		.sa_flags = SA_SIGINFO | SA_NODEFER,
	};

	sigaction(SIGSEGV, &sa, NULL);
	sigaction(SIGBUS, &sa, NULL);
}

/* One word of a stamp: owner 8 bits, page 16, version 32, slot 8 */
__u64 cow_stamp_word(__u64 stamp, unsigned int slot)
{
	return stamp ? stamp | slot : 0;
}

/* A stamp that nobody used before */
__u64 cow_next_stamp(unsigned int owner, unsigned int page)
{
	world->version++;
	return (__u64)(owner + 1) << 56 | (__u64)page << 40 |
	       (__u64)world->version << 8;
}

/* Write a stamp with plain stores; the memory has to be writable */
void cow_stamp(void *addr, __u64 stamp)
{
	unsigned int i;

	for (i = 0; i < COW_STAMP_SLOTS; i++)
		__atomic_store_n((__u64 *)(addr + i * COW_SLOT_BYTES),
				 cow_stamp_word(stamp, i), __ATOMIC_RELAXED);
}

/* Make a buffer of one page look like a stamped page */
void cow_fill_page(void *buf, __u64 stamp)
{
	memset(buf, 0, PAGE);
	cow_stamp(buf, stamp);
}

/**
 * cow_peek() - what a page holds
 *
 * Returns its stamp, 0 for a page of zeroes, COW_SEGV or COW_BUS if reading it
 * raises that signal, or a hash with the top bit set for anything else.
 */
__u64 cow_peek(const void *addr)
{
	__u64 word[COW_STAMP_SLOTS], hash;
	unsigned int i;
	int sig;

	sig = sigsetjmp(probe_env, 0);
	if (sig) {
		set_probing(0);
		return sig == SIGBUS ? COW_BUS : COW_SEGV;
	}
	set_probing(1);
	for (i = 0; i < COW_STAMP_SLOTS; i++)
		word[i] = __atomic_load_n((__u64 *)(addr + i * COW_SLOT_BYTES),
					  __ATOMIC_RELAXED);
	set_probing(0);

	for (i = 0; i < COW_STAMP_SLOTS; i++)
		if (word[i] != cow_stamp_word(word[0], i))
			break;
	if (i == COW_STAMP_SLOTS)
		return word[0];

	for (hash = 0, i = 0; i < COW_STAMP_SLOTS; i++)
		hash = (hash ^ word[i]) * 0x9e3779b97f4a7c15ULL;
	return (hash >> 2) | 1ULL << 63;
}

/**
 * cow_try_write() - stamp a page as its owner, if it can be written
 *
 * Keeps the model in step when the address is that of the tracked page.
 * Returns 0, or the signal that the store raised.
 */
int cow_try_write(void *addr, unsigned int page)
{
	__u64 stamp = cow_next_stamp(cow_self, page);
	int sig;

	sig = sigsetjmp(probe_env, 0);
	if (sig) {
		set_probing(0);
		return sig;
	}
	set_probing(1);
	cow_stamp(addr, stamp);
	set_probing(0);
	if (addr == world->page[page])
		world->model[cow_self][page] = stamp;
	return 0;
}

/* Add a page to those every check looks at; returns its number */
unsigned int cow_track(void *addr)
{
	if (world->nr_pages == COW_MAX_PAGES)
		abort();
	world->page[world->nr_pages] = addr;
	world->readonly[world->nr_pages] = false;
	return world->nr_pages++;
}

/* Track and stamp every step-th page of a writable range */
void cow_track_range(char *addr, size_t len, unsigned int step)
{
	char *p;

	for (p = addr; p < addr + len; p += step * PAGE)
		cow_stamp(p, cow_next_stamp(cow_self, cow_track(p)));
}

/* Remember an untouched page, for tests that populate one */
void cow_add_hole(void *addr)
{
	if (world->nr_holes < COW_MAX_HOLES)
		world->hole[world->nr_holes++] = addr;
}

/* Take what this process sees now as what it has to see from now on */
void cow_adopt(void)
{
	unsigned int i;

	for (i = 0; i < world->nr_pages; i++)
		world->model[cow_self][i] = cow_peek(world->page[i]);
}

/* Note a value that must not depend on the feature */
void cow_log(const char *label, long key, __u64 val)
{
	struct cow_log *log = &world->log[world->nr_log];

	if (world->nr_log == COW_MAX_LOG)
		abort();
	world->nr_log++;
	log->label = label;
	log->key = key;
	log->val = val;
}

/* Give the reason why this scenario cannot run here; returns -1 */
int cow_skip(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(world->skip, sizeof(world->skip), fmt, ap);
	va_end(ap);
	return -1;
}

/* An unlinked file in /tmp; returns a descriptor or -1 with errno set */
int cow_tmpfile(void)
{
	const char *dir = getenv("TMPDIR");
	char path[PATH_MAX];
	int fd;

	snprintf(path, sizeof(path), "%s/cow_pte.XXXXXX", dir ? dir : "/tmp");
	fd = mkostemp(path, O_CLOEXEC);
	if (fd >= 0)
		unlink(path);
	return fd;
}

/**
 * cow_stamped_file() - fill a file with pages stamped by COW_FILE_OWNER
 *
 * Returns the descriptor, or -1 with errno set (also if given one below 0).
 */
int cow_stamped_file(int fd, size_t len)
{
	char buf[PAGE];
	size_t i;

	if (fd < 0)
		return -1;
	for (i = 0; i < len / PAGE; i++) {
		cow_fill_page(buf, cow_next_stamp(COW_FILE_OWNER, i));
		if (pwrite(fd, buf, PAGE, i * PAGE) != PAGE)
			return -1;
	}
	return fd;
}

/**
 * cow_direct_device() - a loop device open for O_DIRECT, its file in /tmp
 *
 * It goes away when it is closed.  Returns -1 with errno set on failure.
 */
int cow_direct_device(size_t len)
{
	struct loop_info64 info = { .lo_flags = LO_FLAGS_AUTOCLEAR };
	int ctl = open("/dev/loop-control", O_RDWR | O_CLOEXEC);
	int file = cow_tmpfile();
	char path[32];
	int nr, fd;

	if (ctl < 0 || file < 0 || ftruncate(file, len))
		return -1;
	nr = ioctl(ctl, LOOP_CTL_GET_FREE);
	close(ctl);
	snprintf(path, sizeof(path), "/dev/loop%d", nr);
	fd = open(path, O_RDWR | O_DIRECT | O_CLOEXEC);
	if (fd >= 0 && (ioctl(fd, LOOP_SET_FD, file) ||
			ioctl(fd, LOOP_SET_STATUS64, &info))) {
		close(fd);
		fd = -1;
	}
	close(file);
	return fd;
}

/**
 * cow_faults_start() - choose which allocations cow_with_failure() counts
 *
 * Returns NULL, or why allocations cannot be made to fail here.
 */
const char *cow_faults_start(enum cow_faults which)
{
	const char *tables = which == COW_FAULTS_TABLES ? "Y" : "N";
	const struct {
		const char *path;
		const char *val;
	} file[] = {
		{ DEBUGFS "failslab/ignore-gfp-wait", "N" },
		{ DEBUGFS "failslab/verbose", "0" },
		/* No cache has been marked: none fails */
		{ DEBUGFS "failslab/cache-filter", tables },
		{ DEBUGFS "fail_page_alloc/ignore-gfp-wait", "N" },
		/* What processes have in their memory is "highmem" */
		{ DEBUGFS "fail_page_alloc/ignore-gfp-highmem", tables },
		{ DEBUGFS "fail_page_alloc/min-order", "0" },
		{ DEBUGFS "fail_page_alloc/verbose", "0" },
	};
	size_t i;

	if (access("/proc/self/fail-nth", W_OK))
		return "no /proc/self/fail-nth: kernel without fault injection";
	for (i = 0; i < ARRAY_LEN(file); i++)
		if (cow_write_file(file[i].path, file[i].val))
			return "no failslab or fail_page_alloc in debugfs";
	return NULL;
}

/**
 * cow_with_failure() - call a function with its nth allocation failing
 *
 * Copies to and from user memory count, too, and fail with EFAULT.  Nothing
 * was injected if the function has fewer than @nth of them.
 */
void cow_with_failure(unsigned int nth, cow_fn fn, const long *arg,
		      struct cow_outcome *outcome)
{
	int fd = open("/proc/thread-self/fail-nth", O_RDWR | O_CLOEXEC);
	char buf[16];
	ssize_t len;

	/* The first write may fault in what the second must not */
	len = snprintf(buf, sizeof(buf), "%u", nth);
	if (pwrite(fd, "0", 1, 0) != 1 || pwrite(fd, buf, len, 0) != len)
		_exit(1);
	errno = 0;
	outcome->ret = fn(arg);
	outcome->err = errno;
	/* Reading copies, too: if that fails, it was the nth */
	len = pread(fd, buf, sizeof(buf), 0);
	outcome->injected = len > 0 && buf[0] == '0';
	while (pwrite(fd, "0", 1, 0) != 1)
		;
	close(fd);
}

/* To be called in a process: a child that ends at once */
long cow_fork_and_reap(const long *arg)
{
	pid_t pid = fork();

	if (!pid)
		_exit(0);
	if (pid < 0)
		return -1;
	while (waitpid(pid, NULL, 0) < 0)
		if (errno != EINTR)
			return -1;
	errno = 0;
	return 0;
}

/**
 * cow_commit_start() - count what memory is promised, and keep to it
 *
 * Until cow_commit_stop() a process with much memory cannot fork.  Returns
 * NULL, or why that cannot be had.
 */
const char *cow_commit_start(void)
{
	if (cow_write_file(OVERCOMMIT, "2"))
		return "cannot write " OVERCOMMIT;
	if (cow_read_field("/proc/meminfo", "CommitLimit") -
	    cow_read_field("/proc/meminfo", "Committed_AS") < COMMIT_ROOM_KB) {
		cow_commit_stop();
		return "too much memory is committed";
	}
	return NULL;
}

/* Memory may be promised as it was before */
void cow_commit_stop(void)
{
	size_t i;

	for (i = 0; i < ARRAY_LEN(saved_file); i++)
		if (!strcmp(saved_file[i].path, OVERCOMMIT))
			cow_write_file(OVERCOMMIT, saved_file[i].val);
}

/**
 * cow_fork_in_vain() - fork with more memory than there may be twice
 * @arg: the address of that memory: fork fails when it gets there
 *
 * To be called in a process, after cow_commit_start().  Returns -1 with errno
 * set by fork(), or 0 if it succeeded, or -2 if the memory cannot be had.
 */
long cow_fork_in_vain(const long *arg)
{
	long room = cow_read_field("/proc/meminfo", "CommitLimit") -
		    cow_read_field("/proc/meminfo", "Committed_AS");
	size_t len = (room / 4 * 3 * 1024) & -TABLE;
	long ret;
	char *mem;
	int err;

	mem = mmap((void *)arg[0], len, PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
	if (mem == MAP_FAILED)
		return -2;
	ret = cow_fork_and_reap(arg);
	err = errno;
	munmap(mem, len);
	errno = err;
	return ret;
}

static void __noreturn serve(unsigned int self)
{
	struct reply reply;
	struct call call;

	cow_self = self;
	for (;;) {
		/* The test process is gone: so are we */
		if (read(sock[self][1], &call, sizeof(call)) != sizeof(call))
			_exit(1);
		errno = 0;
		reply.ret = call.fn(call.arg);
		reply.err = errno;
		if (write(sock[self][1], &reply, sizeof(reply)) != sizeof(reply))
			_exit(1);
	}
}

static void *reader_thread(void *arg)
{
	unsigned int i = 0;

	for (;;) {
		if (world->nr_pages)
			cow_peek(world->page[i++ % world->nr_pages]);
		usleep(2000);
	}
	return NULL;
}

/* Keep other CPUs using this mm while it forks */
static void start_readers(void)
{
	static pid_t started_by;
	pthread_t thread;
	int i;

	if (started_by == getpid())
		return;
	for (i = 0; i < 2; i++)
		pthread_create(&thread, NULL, reader_thread, NULL);
	started_by = getpid();
}

static pid_t fork_how(enum cow_how how)
{
	struct clone_args args = { .exit_signal = SIGCHLD };

	switch (how) {
	case COW_CLONE:
		return syscall(SYS_clone, CLONE_FS | CLONE_FILES | SIGCHLD,
			       NULL, NULL, NULL, 0);
	case COW_CLONE3:
		return syscall(SYS_clone3, &args, sizeof(args));
	case COW_THREADED:
		start_readers();
		return fork();
	default:
		return fork();
	}
}

static long call_fork(const long *arg)
{
	pid_t pid = fork_how(arg[1]);

	if (!pid)
		serve(arg[0]);
	return pid;
}

static long call_nothing(const long *arg)
{
	return 0;
}

static long call_exit(const long *arg)
{
	_exit(0);
}

static long call_exec(const long *arg)
{
	close(STDOUT_FILENO);
	close(STDERR_FILENO);
	execl("/proc/self/exe", "cow_pte", "-h", NULL);
	return -1;
}

static long call_reap(const long *arg)
{
	return waitpid(arg[0], NULL, 0);
}

static long call_check(const long *arg)
{
	unsigned int i;

	for (i = 0; i < world->nr_pages; i++) {
		__u64 seen = cow_peek(world->page[i]);

		if (seen == world->model[cow_self][i])
			continue;
		world->bad.page = i;
		world->bad.seen = seen;
		return 1;
	}
	return 0;
}

static long call_poke(const long *arg)
{
	return cow_try_write(world->page[arg[0]], arg[0]);
}

static long call_poke_all(const long *arg)
{
	unsigned int i;

	for (i = 0; i < world->nr_pages; i++)
		if (!world->readonly[i] &&
		    cow_try_write(world->page[i], i))
			return i + 1;
	return 0;
}

static long call_prctl(const long *arg)
{
	return prctl(PR_SET_COW_PTE, arg[0], 0, 0, 0);
}

static void proc_started(unsigned int proc, pid_t pid, int parent)
{
	world->pid[proc] = pid;
	cow_proc[proc].pid = pid;
	cow_proc[proc].pidfd = syscall(SYS_pidfd_open, pid, 0);
	cow_proc[proc].parent = parent;
	cow_proc[proc].alive = true;
	if (cow_proc[proc].pidfd < 0)
		cow_fail("pidfd_open: %s", strerror(errno));
}

static void open_sock(unsigned int proc)
{
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sock[proc]))
		cow_fail("socketpair: %s", strerror(errno));
}

/**
 * cow_prepare() - what a test process needs before it starts others
 *
 * The arena, a world, and handlers for cow_peek().  It will be the one that
 * reaps processes whose parent is gone.
 */
void cow_prepare(void)
{
	if (world)
		return;
	world = mmap(NULL, sizeof(*world), PROT_READ | PROT_WRITE,
		     MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	/* A table of slack on both sides keeps neighbours away */
	arena = mmap(ARENA_HINT, (ARENA_TABLES + 3) * TABLE, PROT_NONE,
		     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	ref_log = mmap(NULL, sizeof(world->log), PROT_READ | PROT_WRITE,
		       MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (world == MAP_FAILED || arena == MAP_FAILED || ref_log == MAP_FAILED)
		cow_fail("mmap: %s", strerror(errno));
	arena = (char *)(((uintptr_t)arena + 2 * TABLE - 1) & -TABLE);
	install_probe();
	prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
}

/**
 * cow_world_start_big() - a new world with one process in it
 *
 * The process has opted in if @mode is COW_ON.  There can be @max_procs in
 * all, counting those that have ended.
 */
void cow_world_start_big(enum cow_mode mode, unsigned int max_procs)
{
	unsigned int i;
	pid_t pid;

	cow_prepare();
	world->nr_pages = 0;
	world->nr_holes = 0;
	world->version = 0;
	world->nr_log = 0;
	world->skip[0] = '\0';
	world->nr_procs = 1;

	nr_socks = max_procs;
	for (i = 0; i < nr_socks; i++)
		open_sock(i);
	fflush(stdout);
	pid = fork();
	if (pid < 0)
		cow_fail("fork: %s", strerror(errno));
	if (!pid) {
		/* Without these, a dead test process would go unnoticed */
		for (i = 0; i < nr_socks; i++)
			close(sock[i][0]);
		serve(0);
	}
	for (i = 0; i < nr_socks; i++)
		close(sock[i][1]);
	proc_started(0, pid, -1);

	if (cow_call(0, call_prctl, mode == COW_ON) && mode == COW_ON)
		cow_fail("prctl(PR_SET_COW_PTE, 1): %s", strerror(errno));
}

/* A new world for as many processes as most tests need */
void cow_world_start(enum cow_mode mode)
{
	cow_world_start_big(mode, COW_USUAL_PROCS);
}

/* End all processes of the world, the last one first */
void cow_world_stop(void)
{
	unsigned int i;

	for (i = world->nr_procs; i--; )
		if (cow_proc[i].alive)
			cow_exit(i);
	for (i = 0; i < nr_socks; i++)
		close(sock[i][0]);
}

static void lost(unsigned int proc)
{
	siginfo_t info = {};

	/* Known only of a child of this process */
	waitid(P_PID, world->pid[proc], &info, WEXITED | WNOWAIT);
	cow_fail("process %u (pid %d) of the world died: %s %d", proc,
		 world->pid[proc],
		 info.si_code == CLD_EXITED ? "exit status" : "signal",
		 info.si_status);
}

static void send_call(unsigned int proc, cow_fn fn, const long *arg)
{
	struct call call = { .fn = fn };

	memcpy(call.arg, arg, sizeof(call.arg));
	if (send(sock[proc][0], &call, sizeof(call), MSG_NOSIGNAL) != sizeof(call))
		lost(proc);
}

/**
 * cow_try_call_args() - have a process of the world call a function
 *
 * Returns what the function returned and sets errno to what it left there, or
 * -1 and ESRCH if the process died.  Fails the test if it hangs.
 */
long cow_try_call_args(unsigned int proc, cow_fn fn, const long *arg)
{
	struct pollfd pfd[2] = {
		{ .fd = sock[proc][0], .events = POLLIN },
		{ .fd = cow_proc[proc].pidfd, .events = POLLIN },
	};
	struct reply reply;
	int ret;

	send_call(proc, fn, arg);
	do {
		ret = poll(pfd, 2, CALL_TIMEOUT_MS);
	} while (ret < 0 && errno == EINTR);
	if (!ret)
		cow_fail("process %u (pid %d) of the world hangs", proc,
			 cow_proc[proc].pid);
	if (!(pfd[0].revents & POLLIN) ||
	    read(sock[proc][0], &reply, sizeof(reply)) != sizeof(reply)) {
		errno = ESRCH;
		return -1;
	}
	errno = reply.err;
	return reply.ret;
}

/* The same, for calls that no process should die of: fails the test then */
long cow_call_args(unsigned int proc, cow_fn fn, const long *arg)
{
	long ret = cow_try_call_args(proc, fn, arg);

	if (ret == -1 && errno == ESRCH)
		lost(proc);
	return ret;
}

/**
 * cow_fork() - have a process of the world fork
 *
 * The child starts with the parent's model.  Returns its number; fails the
 * test if fork does.
 */
unsigned int cow_fork(unsigned int parent, enum cow_how how)
{
	unsigned int child = world->nr_procs++;

	if (child >= nr_socks)
		cow_fail("too many processes");
	cow_fork_as(child, parent, how);
	return child;
}

/* The same, as a certain process, which must not be alive */
void cow_fork_as(unsigned int child, unsigned int parent, enum cow_how how)
{
	long pid;

	memcpy(world->model[child], world->model[parent],
	       world->nr_pages * sizeof(world->model[0][0]));
	pid = cow_call(parent, call_fork, child, how);
	if (pid < 0)
		cow_fail("fork of process %u: %s", parent, strerror(errno));
	proc_started(child, pid, parent);
	/* Then it is waiting for the next call, and its counters stand still */
	cow_call(child, call_nothing, 0);
}

/* Have the parent of a process that has ended fork another in its place */
void cow_fork_again(unsigned int proc)
{
	cow_fork_as(proc, cow_proc[proc].parent, COW_FORK);
}

/* Reap a process that has ended, in its parent if that still lives */
void cow_reap(unsigned int proc)
{
	struct cow_proc *p = &cow_proc[proc];
	unsigned int i;

	if (p->parent >= 0 && cow_proc[p->parent].alive)
		cow_call(p->parent, call_reap, p->pid);
	else
		waitpid(p->pid, NULL, 0);
	close(p->pidfd);
	p->alive = false;
	/* Its children are now those of this process */
	for (i = 0; i < COW_MAX_PROCS; i++)
		if (cow_proc[i].parent == (int)proc)
			cow_proc[i].parent = -1;
}

/* Have a process of the world call a function, without waiting for it */
void cow_send_args(unsigned int proc, cow_fn fn, const long *arg)
{
	send_call(proc, fn, arg);
}

/* Tell a process of the world to end, without waiting for that */
void cow_exit_start(unsigned int proc)
{
	send_call(proc, call_exit, no_arg);
}

/* Tell a process of the world to execute another program, which ends soon */
void cow_exec_start(unsigned int proc)
{
	send_call(proc, call_exec, no_arg);
}

/* Wait for the end of a process that has been told to */
void cow_exit_wait(unsigned int proc)
{
	struct pollfd pfd = { .fd = cow_proc[proc].pidfd, .events = POLLIN };

	if (poll(&pfd, 1, CALL_TIMEOUT_MS) <= 0)
		cow_fail("process %u does not exit", proc);
	cow_reap(proc);
}

/**
 * cow_exit() - end a process of the world and wait until it is gone
 *
 * When this returns the process has given up its memory.
 */
void cow_exit(unsigned int proc)
{
	cow_exit_start(proc);
	cow_exit_wait(proc);
}

/* Say what cow_peek() returned, perhaps in the buffer */
const char *cow_describe(__u64 val, char *buf, size_t len)
{
	if (!val)
		return "zeroes";
	if (val == COW_SEGV)
		return "SIGSEGV";
	if (val == COW_BUS)
		return "SIGBUS";
	if (val >> 63)
		snprintf(buf, len, "mixed %#llx", val);
	else
		snprintf(buf, len, "owner %d page %u version %u",
			 (int)(val >> 56) - 1, (unsigned int)(val >> 40) & 0xffff,
			 (unsigned int)(val >> 8));
	return buf;
}

/* Fail the test unless a process sees in every page what the model says */
void cow_check(unsigned int proc, const char *when)
{
	char want[64], seen[64];
	unsigned int page;

	if (!cow_call(proc, call_check, 0))
		return;
	page = world->bad.page;
	cow_fail("%s: process %u, page %u at %p: %s, expected %s", when, proc,
		 page, world->page[page],
		 cow_describe(world->bad.seen, seen, sizeof(seen)),
		 cow_describe(world->model[proc][page], want, sizeof(want)));
}

void cow_check_all(const char *when)
{
	unsigned int i;

	for (i = 0; i < world->nr_procs; i++)
		if (cow_proc[i].alive)
			cow_check(i, when);
}

/* Have a process write a tracked page; it must succeed */
void cow_poke(unsigned int proc, unsigned int page)
{
	long sig = cow_call(proc, call_poke, page);

	if (sig)
		cow_fail("process %u: write to page %u at %p got signal %ld",
			 proc, page, world->page[page], sig);
}

/* Have a process write all tracked pages that are not read-only */
void cow_poke_all(unsigned int proc)
{
	long page = cow_call(proc, call_poke_all, 0);

	if (page)
		cow_fail("process %u cannot write page %ld", proc, page - 1);
}

/* Start tracking a page nobody has touched yet; returns its number */
unsigned int cow_track_hole(unsigned int hole)
{
	unsigned int i, page = cow_track(world->hole[hole]);

	for (i = 0; i < world->nr_procs; i++)
		world->model[i][page] = 0;
	return page;
}

static long call_prepare(const long *arg)
{
	const struct cow_mem *mem = (void *)arg[0];

	if (mem->prepare())
		return -1;
	cow_adopt();
	return 0;
}

/**
 * cow_mem_start_big() - a new world whose first process has a kind of memory
 *
 * Returns NULL or the reason why the memory cannot be had; there is no world
 * then.
 */
const char *cow_mem_start_big(enum cow_mode mode, const struct cow_mem *mem,
			      unsigned int max_procs)
{
	cow_world_start_big(mode, max_procs);
	if (!cow_call(0, call_prepare, (long)mem))
		return NULL;
	if (!world->skip[0])
		cow_fail("cannot set up memory %s: %s", mem->name,
			 strerror(errno));
	cow_world_stop();
	return world->skip;
}

/* The same, for as many processes as most tests need */
const char *cow_mem_start(enum cow_mode mode, const struct cow_mem *mem)
{
	return cow_mem_start_big(mode, mem, COW_USUAL_PROCS);
}

/* Fail the test if the memory is not shared though it should be */
void cow_must_share(enum cow_mode mode, const struct cow_mem *mem)
{
	long kb;

	if (mode == COW_OFF || !mem->tables)
		return;
	kb = cow_status(cow_proc[0].pid, "VmCowPTE");
	if (kb < (long)(mem->tables * PAGE / 1024))
		cow_fail("VmCowPTE is %ld kB after fork, expected %u tables", kb,
			 mem->tables);
}

/* Fail the test unless the counters of a process are what its tables hold */
void cow_check_rss(unsigned int proc)
{
	long rss = cow_status(world->pid[proc], "VmRSS");
	char path[64];
	long mapped;

	snprintf(path, sizeof(path), "/proc/%d/smaps_rollup", world->pid[proc]);
	mapped = cow_read_field(path, "Rss");
	if (rss != mapped)
		cow_fail("process %u: VmRSS is %ld kB, its tables hold %ld",
			 proc, rss, mapped);
}

/* What the tables of a process hold, going by its pagemap; in pages */
struct tally {
	long anon, file, swapped;
};

/* The page of all that is read and was not written yet is in no counter */
static __u64 zero_pfn(void)
{
	static __u64 pfn;
	char *mem;

	if (pfn)
		return pfn;
	mem = mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (mem == MAP_FAILED || cow_peek(mem))
		cow_fail("no zero page");
	pfn = cow_pagemap(getpid(), mem) & PM_PFN_MASK;
	munmap(mem, PAGE);
	return pfn;
}

static void tally_range(int fd, unsigned long start, unsigned long end,
			struct tally *tally)
{
	__u64 pm[TABLE_PAGES];
	unsigned long nr, i;

	for (; start < end; start += nr * PAGE) {
		nr = (end - start) / PAGE;
		if (nr > TABLE_PAGES)
			nr = TABLE_PAGES;
		if (pread(fd, pm, nr * sizeof(*pm), start / PAGE * sizeof(*pm)) !=
		    (ssize_t)(nr * sizeof(*pm)))
			cow_fail("pagemap at %#lx: %s", start, strerror(errno));
		for (i = 0; i < nr; i++) {
			if (pm[i] & PM_SWAP)
				tally->swapped++;
			else if (!(pm[i] & PM_PRESENT))
				continue;
			else if (pm[i] & PM_FILE)
				tally->file++;
			else if ((pm[i] & PM_PFN_MASK) != zero_pfn())
				tally->anon++;
		}
	}
}

static struct tally tally_process(pid_t pid)
{
	struct tally tally = {};
	unsigned long start, end;
	char line[256], perms[5];
	FILE *pm, *f;

	pm = cow_open_proc(pid, "pagemap");
	f = cow_open_proc(pid, "maps");
	while (fgets(line, sizeof(line), f)) {
		if (sscanf(line, "%lx-%lx %4s", &start, &end, perms) != 3)
			continue;
		/* The kernel's own data have no pages that are counted */
		if (strstr(line, "[vvar") || strstr(line, "[vsyscall]"))
			continue;
		/* Address space that a test has taken, and nothing in it */
		if (!strcmp(perms, "---p") && end - start > RESERVED)
			continue;
		tally_range(fileno(pm), start, end, &tally);
	}
	fclose(f);
	fclose(pm);
	return tally;
}

/**
 * cow_check_counters() - fail the test unless a process's counters are right
 *
 * They have to be what the entries in its tables amount to.  A page that is
 * being moved looks as if it was swapped out, but not for long.
 */
void cow_check_counters(unsigned int proc, const char *when)
{
	pid_t pid = world->pid[proc];
	long anon, file, swap, size, resident;
	struct tally tally;
	char path[64], line[128];
	int i;

	snprintf(path, sizeof(path), "/proc/%d/statm", pid);
	for (i = 0; i < 5; i++) {
		if (i)
			usleep(20000);
		tally = tally_process(pid);
		anon = cow_status(pid, "RssAnon") / 4;
		file = (cow_status(pid, "RssFile") +
			cow_status(pid, "RssShmem")) / 4;
		swap = cow_status(pid, "VmSwap") / 4;
		if (cow_read_file(path, line, sizeof(line)) <= 0 ||
		    sscanf(line, "%ld %ld", &size, &resident) != 2)
			cow_fail("%s: %s", path, strerror(errno));
		if (anon == tally.anon && file == tally.file &&
		    swap == tally.swapped && resident == anon + file)
			return;
	}
	ksft_print_msg("its tables have %ld anonymous pages, %ld of files, %ld in swap\n",
		       tally.anon, tally.file, tally.swapped);
	cow_fail("%s: process %u counts %ld anonymous pages, %ld of files, %ld in swap",
		 when, proc, anon, file, swap);
}

void cow_check_all_counters(const char *when)
{
	unsigned int i;

	for (i = 0; i < world->nr_procs; i++)
		if (cow_proc[i].alive)
			cow_check_counters(i, when);
}

/* Of cow_cgroup_enter() */
static char cgroup[64];

static int write_cgroup(const char *file, long val, const char *unit)
{
	char path[96], buf[32];

	snprintf(path, sizeof(path), "%s/%s", cgroup, file);
	snprintf(buf, sizeof(buf), "%ld%s", val, unit);
	return cow_write_file(path, buf);
}

/* Limit it to so many MiB, with or without swap; until it is entered again */
int cow_cgroup_limit(long mib, bool swap)
{
	return write_cgroup("memory.swap.max", swap ? LONG_MAX >> 20 : 0, "M") |
	       write_cgroup("memory.max", mib, "M");
}

/* The same, to what it uses now, rounded up; -1 if that cannot be told */
int cow_cgroup_limit_to_use(bool swap)
{
	char path[96], buf[32];

	snprintf(path, sizeof(path), "%s/memory.current", cgroup);
	if (cow_read_file(path, buf, sizeof(buf)) <= 0)
		return -1;
	return cow_cgroup_limit((strtol(buf, NULL, 10) >> 20) + 1, swap);
}

/**
 * cow_cgroup_enter() - put this process in a memory cgroup to reclaim from
 *
 * The processes born later are in it, too.  Returns 0, or -1 with the reason
 * in skip[] if there is none or less than @swap MiB of swap.
 */
int cow_cgroup_enter(long swap)
{
	char dir[] = "/tmp/cow_pte.XXXXXX", path[96];
	const char *root = dir;

	if (cow_read_field("/proc/meminfo", "SwapFree") < swap * 1024)
		return cow_skip("needs %ld MiB of swap", swap);
	if (!access("/sys/fs/cgroup/cgroup.controllers", F_OK))
		root = "/sys/fs/cgroup";
	else if (!mkdtemp(dir) || mount("none", dir, "cgroup2", 0, NULL))
		return cow_skip("no cgroup2");
	snprintf(path, sizeof(path), "%s/cgroup.subtree_control", root);
	cow_write_file(path, "+memory");
	snprintf(cgroup, sizeof(cgroup), "%s/cow_pte", root);
	if (mkdir(cgroup, 0755) && errno != EEXIST)
		return cow_skip("mkdir %s: %s", cgroup, strerror(errno));
	snprintf(path, sizeof(path), "%s/memory.reclaim", cgroup);
	if (access(path, W_OK))
		return cow_skip("no memory.reclaim in %s", cgroup);
	cow_cgroup_limit(LONG_MAX >> 20, true);
	write_cgroup("memory.oom.group", 0, "");
	if (write_cgroup("cgroup.procs", getpid(), ""))
		return cow_skip("cannot enter %s: %s", cgroup, strerror(errno));
	return 0;
}

/* Have the OOM killer take all that are in it */
int cow_cgroup_oom_group(void)
{
	return write_cgroup("memory.oom.group", 1, "");
}

/* Reclaim so many MiB from it; 0, or -1 if there is no more to get */
int cow_cgroup_reclaim(long mib)
{
	return write_cgroup("memory.reclaim", mib, "M");
}

/* The only swap area, with at most so many kB in use; -1: reason in skip[] */
int cow_swap_device(char *dev, size_t len, long most)
{
	long size, used = 0;
	char line[256];
	int areas = 0;
	FILE *f;

	f = fopen("/proc/swaps", "re");
	while (f && fgets(line, sizeof(line), f))
		if (sscanf(line, "/%*s %*s %ld %ld", &size, &used) == 2)
			areas += snprintf(dev, len, "%.*s",
					  (int)strcspn(line, " \t"),
					  line) < (int)len;
	if (f)
		fclose(f);
	if (areas != 1 || used > most)
		return cow_skip("needs exactly one swap area, with less than %ld kB in use",
				most);
	return 0;
}

/* Have KSM look at all there is; 0, or -1 if there is no KSM */
int cow_ksm_scan(void)
{
	static const char scans[] = "/sys/kernel/mm/ksm/full_scans";
	char buf[32];
	long start;
	int i;

	if (cow_read_file(scans, buf, sizeof(buf)) < 0)
		return -1;
	start = strtol(buf, NULL, 10);
	cow_write_file("/sys/kernel/mm/ksm/pages_to_scan", "10000");
	cow_write_file("/sys/kernel/mm/ksm/sleep_millisecs", "1");
	cow_write_file("/sys/kernel/mm/ksm/run", "1");
	/* Two scans to see that a page does not change, one to merge it */
	for (i = 0; i < 1000; i++) {
		usleep(5000);
		if (cow_read_file(scans, buf, sizeof(buf)) < 0 ||
		    strtol(buf, NULL, 10) >= start + 3)
			break;
	}
	cow_write_file("/sys/kernel/mm/ksm/run", "0");
	return 0;
}

/* The value of an option: a number from 1 on; ends the program if it is not */
unsigned long long cow_arg_number(struct argp_state *state, const char *arg,
				  unsigned long long most)
{
	unsigned long long val;
	char *end;

	errno = 0;
	val = strtoull(arg, &end, 0);
	if (errno || end == arg || *end || *arg == '-' || !val || val > most)
		argp_error(state, "'%s' is not a number from 1 to %llu", arg, most);
	return val;
}

/* The next of a sequence of random numbers; @state is its seed at first, not 0 */
__u64 cow_random(__u64 *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}
