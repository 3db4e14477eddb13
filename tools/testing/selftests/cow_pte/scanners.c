// SPDX-License-Identifier: GPL-2.0
/*
 * What the kernel does to memory in the background must neither change
 * contents nor copy shared tables.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "kselftest_harness.h"
#include "cow_pte_op.h"

#define THP		"/sys/kernel/mm/transparent_hugepage/"
#define KHUGEPAGED	THP "khugepaged/"
#define KDAMONDS	"/sys/kernel/mm/damon/admin/kdamonds/"
#define CONTEXT		KDAMONDS "0/contexts/0/"
#define SCHEME		CONTEXT "schemes/0/"
#define NUMA		"/sys/kernel/debug/sched/numa_balancing/"
#define PAGE_IDLE	"/sys/kernel/mm/page_idle/bitmap"
#define LRU_GEN		"/sys/kernel/debug/lru_gen"

/* Far more than any of them takes */
#define PATIENCE_S	60

struct scanner_case {
	struct cow_op_case tc;
	void (*scan)(void);
};

static long call_write_all(const long *arg)
{
	unsigned int i;

	for (i = 0; i < world->nr_pages; i++)
		cow_try_write(world->page[i], i);
	return 0;
}

static const char *run_scanner(enum cow_mode mode, const void *arg)
{
	const struct scanner_case *sc = arg;
	const char *why;
	long shared[3], now;
	unsigned int i;

	why = cow_field_start(mode, &sc->tc);
	if (why)
		return why;
	for (i = 0; i < 3; i++)
		shared[i] = cow_shared_tables(i);
	sc->scan();
	if (world->skip[0]) {
		cow_world_stop();
		return world->skip;
	}
	for (i = 0; i < 3; i++) {
		now = cow_shared_tables(i);
		if (now != shared[i])
			cow_fail("process %u shares %ld tables after the scan, not %ld",
				 i, now, shared[i]);
	}
	cow_field_check(&sc->tc, "after the scan");
	for (i = 0; i < 3; i++) {
		cow_call(i, call_write_all, 0);
		cow_field_check(&sc->tc, "after a write");
	}
	/* Once more, with some tables of their own and some shared */
	cow_fork(1, COW_FORK);
	sc->scan();
	cow_check_all("after another scan");
	cow_world_stop();
	return NULL;
}

static long read_number(const char *path)
{
	char buf[64];

	if (cow_read_file(path, buf, sizeof(buf)) < 0)
		return -1;
	return strtol(buf, NULL, 10);
}

/* Wait for a counter to grow that much; returns whether it did */
static bool await_growth(long (*read_value)(void), long start, long growth)
{
	int i;

	for (i = 0; i < PATIENCE_S * 100; i++) {
		if (read_value() >= start + growth)
			return true;
		usleep(10000);
	}
	return false;
}

/* khugepaged */

static int prepare_huge(void)
{
	char mode[64];

	if (cow_read_file(THP "enabled", mode, sizeof(mode)) < 0)
		return cow_skip("no transparent huge pages");
	if (strstr(mode, "[never]"))
		cow_write_file(THP "enabled", "madvise");
	return madvise(T(0), 2 * TABLE, MADV_HUGEPAGE);
}

static long khugepaged_scans(void)
{
	return read_number(KHUGEPAGED "full_scans");
}

static void scan_khugepaged(void)
{
	long start = khugepaged_scans();

	cow_write_file(KHUGEPAGED "pages_to_scan", "100000");
	cow_write_file(KHUGEPAGED "alloc_sleep_millisecs", "0");
	cow_write_file(KHUGEPAGED "scan_sleep_millisecs", "0");
	/* The first to end may have begun before the memory was there */
	if (!await_growth(khugepaged_scans, start, 3))
		cow_fail("khugepaged does not scan");
	cow_write_file(KHUGEPAGED "scan_sleep_millisecs", "10000");
}

/* KSM */

static int prepare_mergeable(void)
{
	__u64 twin = cow_next_stamp(cow_self, 0);
	unsigned int i;

	for (i = 0; world->page[i] < T(1); i += 2)
		cow_stamp(world->page[i], twin);
	if (madvise(T(0), 2 * TABLE, MADV_MERGEABLE))
		return cow_skip("no KSM");
	return 0;
}

static void scan_ksm(void)
{
	if (cow_ksm_scan())
		cow_skip("no KSM");
}

/* NUMA balancing: on behalf of a process that runs */

static long call_run_about(const long *arg)
{
	unsigned int i, k;

	for (k = 0; k < 500; k++)
		for (i = 0; i < world->nr_pages; i++)
			cow_peek(world->page[i]);
	return 0;
}

static long numa_updates(void)
{
	unsigned int i;

	for (i = 0; i < 3; i++)
		cow_call(i, call_run_about, 0);
	return cow_vmstat("numa_pte_updates");
}

/* Returns why there is none, or NULL */
static const char *balancing_start(void)
{
	if (access("/sys/devices/system/node/node1", F_OK) ||
	    cow_vmstat("numa_pte_updates") < 0 ||
	    cow_write_file("/proc/sys/kernel/numa_balancing", "1"))
		return "no second node, or no NUMA balancing";
	cow_write_file(NUMA "scan_delay_ms", "1");
	cow_write_file(NUMA "scan_period_min_ms", "1");
	cow_write_file(NUMA "scan_period_max_ms", "20");
	return NULL;
}

static void balancing_stop(void)
{
	cow_write_file("/proc/sys/kernel/numa_balancing", "0");
}

static void scan_numa(void)
{
	long start = cow_vmstat("numa_pte_updates");
	const char *why = balancing_start();

	if (why) {
		cow_skip("%s", why);
		return;
	}
	/* Some tables are their own, at least that of the stack */
	if (!await_growth(numa_updates, start, 1))
		cow_fail("NUMA balancing does not scan");
	numa_updates();
	balancing_stop();
}

/* DAMON */

static int set(const char *path, const char *val)
{
	if (!world->skip[0] && cow_write_file(path, val))
		return cow_skip("DAMON: %s: %s", path, strerror(errno));
	return 0;
}

static void set_number(const char *path, unsigned long val)
{
	char buf[32];

	snprintf(buf, sizeof(buf), "%lu", val);
	set(path, buf);
}

static long damon_tried(void)
{
	cow_write_file(KDAMONDS "0/state", "update_schemes_stats");
	return read_number(SCHEME "stats/nr_tried");
}

static void damon_start(const char *operations, const char *action)
{
	if (access(KDAMONDS, F_OK)) {
		cow_skip("no DAMON");
		return;
	}
	set(KDAMONDS "nr_kdamonds", "1");
	set(KDAMONDS "0/contexts/nr_contexts", "1");
	set(CONTEXT "operations", operations);
	set(CONTEXT "monitoring_attrs/intervals/sample_us", "1000");
	set(CONTEXT "monitoring_attrs/intervals/aggr_us", "20000");
	set(CONTEXT "schemes/nr_schemes", "1");
	set(SCHEME "action", action);
	set(SCHEME "access_pattern/sz/max", "18446744073709551615");
	set(SCHEME "access_pattern/nr_accesses/max", "100000");
	set(SCHEME "access_pattern/age/max", "100000");
}

static void damon_run(void)
{
	bool tried;

	set(KDAMONDS "0/state", "on");
	if (world->skip[0])
		return;
	tried = await_growth(damon_tried, 0, 20);
	cow_write_file(KDAMONDS "0/state", "off");
	cow_write_file(KDAMONDS "nr_kdamonds", "0");
	if (!tried)
		cow_fail("DAMON does nothing");
}

static void damon_vaddr(const char *action)
{
	char path[128];
	unsigned int i;

	damon_start("vaddr", action);
	set(CONTEXT "targets/nr_targets", "3");
	for (i = 0; i < 3; i++) {
		snprintf(path, sizeof(path), CONTEXT "targets/%u/pid_target", i);
		set_number(path, world->pid[i]);
	}
	damon_run();
}

/* The physical memory that holds the field */
static void damon_paddr(const char *action)
{
	unsigned long first = -1UL, last = 0, pfn;
	unsigned int i;
	__u64 pm;

	for (i = 0; i < world->nr_pages; i++) {
		pm = cow_pagemap(world->pid[0], world->page[i]);
		pfn = pm & PM_PFN_MASK;
		if (!(pm & PM_PRESENT))
			continue;
		first = pfn < first ? pfn : first;
		last = pfn > last ? pfn : last;
	}
	damon_start("paddr", action);
	set(CONTEXT "targets/nr_targets", "1");
	set(CONTEXT "targets/0/regions/nr_regions", "1");
	set_number(CONTEXT "targets/0/regions/0/start", first * PAGE);
	set_number(CONTEXT "targets/0/regions/0/end", (last + 1) * PAGE);
	damon_run();
}

static void scan_damon_vaddr(void)
{
	damon_vaddr("stat");
}

static void scan_damon_vaddr_cold(void)
{
	damon_vaddr("cold");
}

static void scan_damon_vaddr_pageout(void)
{
	damon_vaddr("pageout");
}

static void scan_damon_paddr(void)
{
	damon_paddr("stat");
}

static void scan_damon_paddr_pageout(void)
{
	damon_paddr("pageout");
}

/* Idle page tracking */

static void scan_page_idle(void)
{
	int fd = open(PAGE_IDLE, O_RDWR | O_CLOEXEC);
	unsigned int i, marked = 0;
	__u64 pm, word;
	off_t pos;

	if (fd < 0) {
		cow_skip("no " PAGE_IDLE);
		return;
	}
	for (i = 0; i < world->nr_pages; i++) {
		pm = cow_pagemap(world->pid[0], world->page[i]);
		if (!(pm & PM_PRESENT))
			continue;
		pos = (pm & PM_PFN_MASK) / 64 * sizeof(word);
		word = 1ULL << (pm & PM_PFN_MASK) % 64;
		if (pwrite(fd, &word, sizeof(word), pos) != sizeof(word) ||
		    pread(fd, &word, sizeof(word), pos) != sizeof(word))
			cow_fail(PAGE_IDLE ": %s", strerror(errno));
		marked += word >> (pm & PM_PFN_MASK) % 64 & 1;
	}
	close(fd);
	if (!marked)
		cow_fail("no page can be marked idle");
}

/* MGLRU aging: a new generation for each group and node */

static void age(int memcg, int node, long max_gen)
{
	char cmd[64];

	snprintf(cmd, sizeof(cmd), "+ %d %d %ld 1 1", memcg, node, max_gen);
	if (cow_write_file(LRU_GEN, cmd))
		cow_fail(LRU_GEN ": %s: %s", cmd, strerror(errno));
}

static void scan_lru_gen(void)
{
	int memcg = -1, node = -1, n, i;
	long gen, ms, anon, file, max_gen = -1;
	unsigned int aged = 0;
	char line[256];
	FILE *f;

	for (i = 0; i < 3; i++) {
		f = fopen(LRU_GEN, "re");
		if (!f) {
			cow_skip("no " LRU_GEN);
			return;
		}
		while (fgets(line, sizeof(line), f)) {
			if (sscanf(line, " memcg %d", &n) == 1 ||
			    sscanf(line, " node %d", &n) == 1) {
				if (max_gen >= 0)
					age(memcg, node, max_gen);
				max_gen = -1;
				if (strstr(line, "memcg"))
					memcg = n;
				else
					node = n;
			} else if (sscanf(line, "%ld %ld %ld %ld", &gen, &ms,
					  &anon, &file) == 4) {
				max_gen = gen;
				aged++;
			}
		}
		if (max_gen >= 0)
			age(memcg, node, max_gen);
		max_gen = -1;
		fclose(f);
	}
	if (!aged)
		cow_skip("MGLRU is off");
}

/* Compaction, at once and by the daemon that this wakes */

static void scan_compaction(void)
{
	long start = cow_vmstat("compact_daemon_wake");
	int i;

	if (cow_write_file("/proc/sys/vm/compact_memory", "1")) {
		cow_skip("no memory compaction");
		return;
	}
	cow_write_file("/proc/sys/vm/compaction_proactiveness", "100");
	for (i = 0; i < 50 && cow_vmstat("compact_daemon_wake") == start; i++)
		usleep(20000);
}

FIXTURE(background) {
};

FIXTURE_VARIANT(background) {
	struct cow_op op;
	void (*scan)(void);
};

FIXTURE_SETUP(background) {}
FIXTURE_TEARDOWN(background) {}

#define SCAN(name)	.scan = scan_##name

FIXTURE_VARIANT_ADD(background, khugepaged) {
	SCAN(khugepaged),
	.op.prepare = prepare_huge,
};

FIXTURE_VARIANT_ADD(background, ksm) {
	SCAN(ksm),
	.op.prepare = prepare_mergeable,
};

FIXTURE_VARIANT_ADD(background, numa_balancing) { SCAN(numa) };
FIXTURE_VARIANT_ADD(background, damon_vaddr) { SCAN(damon_vaddr) };
FIXTURE_VARIANT_ADD(background, damon_vaddr_cold) { SCAN(damon_vaddr_cold) };

FIXTURE_VARIANT_ADD(background, damon_vaddr_pageout) {
	SCAN(damon_vaddr_pageout)
};

FIXTURE_VARIANT_ADD(background, damon_paddr) { SCAN(damon_paddr) };

FIXTURE_VARIANT_ADD(background, damon_paddr_pageout) {
	SCAN(damon_paddr_pageout)
};

FIXTURE_VARIANT_ADD(background, page_idle) { SCAN(page_idle) };
FIXTURE_VARIANT_ADD(background, lru_gen) { SCAN(lru_gen) };
FIXTURE_VARIANT_ADD(background, compaction) { SCAN(compaction) };

static const char *run_background(const struct cow_op *op, void (*scan)(void),
				  enum cow_actor actor)
{
	struct scanner_case sc = {
		.tc = { .op = op, .actor = actor },
		.scan = scan,
	};

	return cow_run_once(run_scanner, &sc);
}

TEST_F_TIMEOUT(background, idle, 300)
{
	COW_REPORT(run_background(&variant->op, variant->scan, ACTOR_CHILD));
}

TEST_F_TIMEOUT(background, threaded, 300)
{
	COW_REPORT(run_background(&variant->op, variant->scan,
				  ACTOR_THREADED));
}

TEST_F_TIMEOUT(background, borrower, 300)
{
	COW_REPORT(run_background(&variant->op, variant->scan,
				  ACTOR_BORROWER));
}

/*
 * A process whose last child has gone has its memory for itself, even if it has
 * not written to it since: the scanners must not go on passing it by.
 */

#define LONELY		T(0)
#define LONELY_LEN	(2 * TABLE)
#define PROBE		T(4)
#define NUMA_ROUNDS	200

static int fill(char *addr, size_t len)
{
	if (mmap(addr, len, RW, ANON | MAP_FIXED, -1, 0) != addr)
		return -1;
	madvise(addr, len, MADV_NOHUGEPAGE);
	memset(addr, 1, len);
	return 0;
}

/* Small pages that may become huge ones */
static int prepare_lonely(void)
{
	if (fill(LONELY, LONELY_LEN))
		return -1;
	cow_track_range(LONELY, LONELY_LEN, 8);
	return prepare_huge();
}

static const struct cow_mem lonely = {
	.name = "lonely", .prepare = prepare_lonely, .tables = 2,
};

static const char *start_lonely(enum cow_mode mode)
{
	const char *why = cow_mem_start(mode, &lonely);

	if (why)
		return why;
	cow_fork(0, COW_FORK);
	cow_must_share(mode, &lonely);
	cow_exit(1);
	return NULL;
}

static long huge_kb(void)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/smaps_rollup", world->pid[0]);
	return cow_read_field(path, "AnonHugePages");
}

/*
 * After an ordinary fork no entry is writable, so khugepaged has no reason to
 * collapse them; a table that is taken back has its entries as they were.  At
 * the least it must have been taken back.
 */
static const char *run_lonely_huge(enum cow_mode mode, const void *arg)
{
	const char *why = start_lonely(mode);
	long shared;
	int i;

	if (why)
		return why;
	shared = cow_shared_tables(0);
	for (i = 0; i < 3 && !huge_kb(); i++)
		scan_khugepaged();
	if (mode == COW_ON && !huge_kb() && cow_shared_tables(0) > shared - 2)
		cow_fail("khugepaged passes by what nobody shares");
	cow_check_all("after the scan");
	cow_poke_all(0);
	cow_check_all("after a write");
	cow_world_stop();
	return NULL;
}

FIXTURE(lonely) {
};

FIXTURE_SETUP(lonely) {}
FIXTURE_TEARDOWN(lonely) {}

TEST_F_TIMEOUT(lonely, khugepaged, 300)
{
	COW_REPORT(cow_run(run_lonely_huge, NULL));
}

static void *idle_thread(void *arg)
{
	for (;;)
		pause();
	return NULL;
}

/* Memory of a process with threads is looked at wherever it is */
static long call_idle_thread(const long *arg)
{
	pthread_t thread;

	errno = pthread_create(&thread, NULL, idle_thread, NULL);
	return -!!errno;
}

/* Pages are marked on behalf of a process that runs, and in what it does so */
static long call_spin(const long *arg)
{
	__u64 seed = 88172645463325252;
	unsigned int i;

	for (i = 0; i < 20000000; i++)
		cow_random(&seed);
	return 0;
}

static long hint_faults(void)
{
	cow_fold_vmstat();
	return cow_vmstat("numa_hint_faults");
}

static long call_touch(const long *arg)
{
	size_t off;

	for (off = 0; off < (size_t)arg[1]; off += PAGE)
		cow_peek((char *)arg[0] + off);
	return 0;
}

/* How many pages a process finds marked, by reading them */
static long touch(unsigned int proc, char *addr, size_t len)
{
	long start;

	/* So that only this memory is left to fault */
	cow_call(proc, call_touch, (long)addr, 0);
	start = hint_faults();
	cow_call(proc, call_touch, (long)addr, len);
	return hint_faults() - start;
}

/* Let it run until half of the pages there have been marked; false if never */
static bool await_marks(unsigned int proc, char *addr, size_t len)
{
	unsigned int i;

	for (i = 0; i < NUMA_ROUNDS; i++) {
		cow_call(proc, call_spin, 0);
		if (touch(proc, addr, len) >= (long)(len / PAGE / 2))
			return true;
	}
	return false;
}

static const char *run_lonely_numa(enum cow_mode mode, const void *arg)
{
	const char *why = balancing_start();

	if (!why)
		why = start_lonely(mode);
	if (why)
		return why;
	if (cow_call(0, call_idle_thread, 0))
		cow_fail("pthread_create: %s", strerror(errno));
	if (!await_marks(0, LONELY, LONELY_LEN))
		cow_fail(mode == COW_ON ?
			 "NUMA balancing passes by what nobody shares" :
			 "NUMA balancing marks nothing");
	balancing_stop();
	cow_check_all("after the scan");
	cow_world_stop();
	return NULL;
}

TEST_F_TIMEOUT(lonely, numa_balancing, 300)
{
	COW_REPORT(cow_run(run_lonely_numa, NULL));
}

/*
 * Entries that NUMA balancing has marked and that are shared then: who reads
 * them must not have to copy the table.
 */

static int prepare_marked(void)
{
	if (fill(LONELY, LONELY_LEN) || fill(PROBE, TABLE))
		return -1;
	cow_track_range(LONELY, LONELY_LEN, 2);
	return call_idle_thread(NULL);
}

static const struct cow_mem marked = {
	.name = "marked", .prepare = prepare_marked, .tables = 2,
};

static const char *run_hints(enum cow_mode mode, const void *arg)
{
	long shared, now, faults;
	unsigned int i;
	const char *why;

	why = balancing_start();
	/* A first check of all contents takes away the marks that it meets */
	balancing_stop();
	if (!why)
		why = cow_mem_start(mode, &marked);
	if (why)
		return why;
	balancing_start();
	/* It goes through new memory from its start to its end */
	if (!await_marks(0, PROBE, TABLE))
		cow_fail("NUMA balancing marks nothing");
	balancing_stop();
	for (i = 1; i < 4; i++)
		cow_fork(0, COW_FORK);
	cow_must_share(mode, &marked);
	for (i = 1; i < 4; i++) {
		/* Whatever it takes to be called */
		cow_call(i, call_touch, (long)LONELY, 0);
		shared = cow_shared_tables(i);
		faults = touch(i, LONELY, LONELY_LEN);
		/* It may have had the pages moved, for which marks are lost */
		if (mode == COW_OFF && i == 1 &&
		    faults < (long)world->nr_pages / 2)
			cow_fail("process %u found only %ld marks", i, faults);
		now = cow_shared_tables(i);
		if (now != shared)
			cow_fail("process %u shares %ld tables after a read, not %ld",
				 i, now, shared);
		/* The others are to find theirs as they are */
		cow_check(i, "after a read");
	}
	cow_check_all("after all have read");
	cow_check_all_counters("after all have read");
	for (i = 1; i < 4; i++) {
		cow_poke_all(i);
		cow_check_all("after a write");
		cow_exit(i);
	}
	cow_poke_all(0);
	balancing_start();
	if (!await_marks(0, LONELY, LONELY_LEN))
		cow_fail("NUMA balancing marks nothing any more");
	balancing_stop();
	cow_check_all("at the end");
	cow_world_stop();
	return NULL;
}

FIXTURE(marks) {
};

FIXTURE_SETUP(marks) {}
FIXTURE_TEARDOWN(marks) {}

TEST_F_TIMEOUT(marks, do_not_copy_tables, 300)
{
	COW_REPORT(cow_run(run_hints, NULL));
}

int main(int argc, char **argv)
{
	cow_main_start();
	return test_harness_run(argc, argv);
}
