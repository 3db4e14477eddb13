// SPDX-License-Identifier: GPL-2.0
/*
 * What the kernel reports about shared memory must be what it reports after
 * an ordinary fork: RSS, PSS, USS, pagemap, page-table memory.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include <linux/userfaultfd.h>

#include "kselftest_harness.h"
#include "cow_pte_util.h"

/* What happens between fork and the measurement */
enum stage {
	STAGE_fork,
	STAGE_child_write,
	STAGE_parent_write,
	STAGE_both_write,
	STAGE_child_reads,
	STAGE_child_fills,
	STAGE_child_munmap,
	STAGE_child_dontneed,
	STAGE_child_dontneed_part,
	STAGE_child_mremap,
	STAGE_child_mprotect,
	STAGE_child_exit,
	STAGE_child_exit_parent_write,
	STAGE_parent_exit,
	STAGE_parent_munmap,
	STAGE_grandchild,
	STAGE_two_children,
	STAGE_middle_exit,
};

struct test_case {
	const struct cow_mem *mem;
	enum stage stage;
};

/* The memory's first table, or what there is of it */
static char *first_table(void)
{
	return (char *)((uintptr_t)world->page[0] & -TABLE);
}

static long call_munmap(const long *arg)
{
	return munmap(first_table() + 16 * PAGE, 64 * PAGE);
}

static long call_dontneed(const long *arg)
{
	return madvise(first_table() + arg[0], arg[1], MADV_DONTNEED);
}

static long call_mremap(const long *arg)
{
	void *dst = arena + 4 * TABLE + 3 * PAGE;

	return mremap(first_table(), 64 * PAGE, 64 * PAGE,
		      MREMAP_MAYMOVE | MREMAP_FIXED, dst) != dst;
}

static long call_mprotect(const long *arg)
{
	return mprotect(first_table(), 64 * PAGE, PROT_READ);
}

static long call_fill(const long *arg)
{
	unsigned int i;

	for (i = 0; i < world->nr_holes; i++)
		cow_stamp(world->hole[i], cow_next_stamp(cow_self, 0));
	return 0;
}

static void do_call(unsigned int proc, cow_fn fn, long arg0, long arg1)
{
	if (cow_call(proc, fn, arg0, arg1))
		cow_fail("process %u: %s", proc, strerror(errno));
}

static void run_stage(enum stage stage)
{
	unsigned int child = cow_fork(0, COW_FORK);
	unsigned int last = world->nr_pages - 1;

	switch (stage) {
	case STAGE_child_write:
		cow_poke(child, 0);
		break;
	case STAGE_parent_write:
		cow_poke(0, 0);
		cow_poke(0, last);
		break;
	case STAGE_both_write:
		cow_poke(child, 0);
		cow_poke(0, 0);
		break;
	case STAGE_child_reads:
		cow_check(child, "after fork");
		break;
	case STAGE_child_fills:
		do_call(child, call_fill, 0, 0);
		break;
	case STAGE_child_munmap:
		do_call(child, call_munmap, 0, 0);
		break;
	case STAGE_child_dontneed:
		do_call(child, call_dontneed, 0, TABLE);
		break;
	case STAGE_child_dontneed_part:
		do_call(child, call_dontneed, 8 * PAGE, 8 * PAGE);
		break;
	case STAGE_child_mremap:
		do_call(child, call_mremap, 0, 0);
		break;
	case STAGE_child_mprotect:
		do_call(child, call_mprotect, 0, 0);
		break;
	case STAGE_child_exit:
		cow_exit(child);
		break;
	case STAGE_child_exit_parent_write:
		cow_exit(child);
		cow_poke(0, 0);
		break;
	case STAGE_parent_exit:
		cow_exit(0);
		break;
	case STAGE_parent_munmap:
		do_call(0, call_munmap, 0, 0);
		break;
	case STAGE_grandchild:
		cow_fork(child, COW_FORK);
		break;
	case STAGE_two_children:
		cow_fork(0, COW_FORK);
		cow_poke(child, 0);
		break;
	case STAGE_middle_exit:
		cow_fork(child, COW_FORK);
		cow_exit(child);
		break;
	default:
		break;
	}
}

/*
 * How much the C library and the test program add depends on what the page
 * cache and other processes do, so file mappings outside of the arena count
 * neither in the figures per mapping nor in those of the process.
 */

static const char * const smaps_field[] = {
	"Rss", "Pss", "Pss_Dirty", "Pss_Anon", "Pss_File", "Pss_Shmem",
	"Shared_Clean", "Shared_Dirty", "Private_Clean", "Private_Dirty",
	"Anonymous", "KSM", "LazyFree", "AnonHugePages", "Swap", "SwapPss",
	"Locked",
};

/* Returns the kB of pages of files in other mappings than the arena's */
static long measure_smaps(unsigned int proc)
{
	unsigned long start, end;
	char line[256];
	bool other_file = false;
	long files = 0, val;
	size_t i, len;
	FILE *f;

	f = cow_open_proc(world->pid[proc], "smaps");
	while (fgets(line, sizeof(line), f)) {
		if (sscanf(line, "%lx-%lx ", &start, &end) == 2) {
			cow_log("mapping", start, end);
			other_file = strchr(line, '/') &&
				     ((char *)start < arena ||
				      (char *)start > arena + ARENA_TABLES * TABLE);
			continue;
		}
		for (i = 0; i < ARRAY_LEN(smaps_field); i++) {
			len = strlen(smaps_field[i]);
			if (strncmp(line, smaps_field[i], len) ||
			    line[len] != ':')
				continue;
			val = strtol(line + len + 1, NULL, 10);
			if (!other_file || !strcmp(smaps_field[i], "Anonymous"))
				cow_log(smaps_field[i], start, val);
			if (other_file && !strcmp(smaps_field[i], "Rss"))
				files += val;
			if (other_file && !strcmp(smaps_field[i], "Anonymous"))
				files -= val;
		}
	}
	fclose(f);
	return files;
}

/* Not VmHWM, for the kernel takes that from an inexact sum */
static void measure_status(unsigned int proc, long files)
{
	static const char * const field[] = {
		"RssAnon", "RssShmem", "VmSwap", "VmData", "VmSize", "VmLck",
		"VmPin",
	};
	pid_t pid = world->pid[proc];
	size_t i;

	for (i = 0; i < ARRAY_LEN(field); i++)
		cow_log(field[i], proc, cow_status(pid, field[i]));
	cow_log("VmRSS", proc, cow_status(pid, "VmRSS") - files);
	cow_log("RssFile", proc, cow_status(pid, "RssFile") - files);
}

static void measure_rollup(unsigned int proc)
{
	static const char * const field[] = {
		"Pss_Anon", "Shared_Dirty", "Private_Dirty", "Anonymous",
		"KSM", "LazyFree", "AnonHugePages", "Swap", "SwapPss", "Locked",
	};
	char path[64];
	size_t i;

	snprintf(path, sizeof(path), "/proc/%d/smaps_rollup", world->pid[proc]);
	for (i = 0; i < ARRAY_LEN(field); i++)
		cow_log(field[i], proc, cow_read_field(path, field[i]));
	/* Counting up the page tables gives what the counters say */
	cow_log("VmRSS less Rss", proc,
		cow_status(world->pid[proc], "VmRSS") -
		cow_read_field(path, "Rss"));
}

/* Flags, and whether the page is that of the first process */
static void measure_pagemap(unsigned int proc)
{
	__u64 pm, pm0 = 0;
	unsigned int i;

	for (i = 0; i < world->nr_pages; i++) {
		pm = cow_pagemap(world->pid[proc], world->page[i]);
		if (cow_proc[0].alive)
			pm0 = cow_pagemap(world->pid[0], world->page[i]);
		cow_log("flags", proc * COW_MAX_PAGES + i, pm & ~PM_PFN_MASK);
		cow_log("same page", proc * COW_MAX_PAGES + i,
			((pm ^ pm0) & PM_PFN_MASK) == 0);
	}
}

/*
 * The arena's lines of numa_maps.  On which node a page is does not count, nor
 * whether it is still in the swap cache.
 */
static void measure_numa_maps(unsigned int proc)
{
	static const char * const field[] = {
		" anon=", " dirty=", " mapped=", " mapmax=",
	};
	unsigned long start;
	char line[512];
	const char *val;
	size_t i;
	FILE *f;

	/* Only kernels with CONFIG_NUMA have it */
	if (access("/proc/self/numa_maps", R_OK))
		return;
	f = cow_open_proc(world->pid[proc], "numa_maps");
	while (fgets(line, sizeof(line), f)) {
		start = strtoul(line, NULL, 16);
		if ((char *)start < arena ||
		    (char *)start >= arena + ARENA_TABLES * TABLE)
			continue;
		for (i = 0; i < ARRAY_LEN(field); i++) {
			val = strstr(line, field[i]);
			cow_log(field[i], start,
				val ? atol(val + strlen(field[i])) : 0);
		}
	}
	fclose(f);
}

/* What PAGEMAP_SCAN finds, by category */
static void measure_scan(unsigned int proc)
{
	struct scan_region region[64];
	struct scan_arg scan = {
		.size = sizeof(scan),
		.start = (uintptr_t)arena,
		.end = (uintptr_t)(arena + ARENA_TABLES * TABLE),
		.vec = (uintptr_t)region,
		.vec_len = ARRAY_LEN(region),
		.category_anyof_mask = SCAN_CATEGORIES,
		.return_mask = SCAN_CATEGORIES,
	};
	char path[64];
	long i, nr;
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/pagemap", world->pid[proc]);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	do {
		nr = ioctl(fd, IOC_SCAN, &scan);
		for (i = 0; i < nr; i++) {
			cow_log("scanned from", region[i].start,
				region[i].categories);
			cow_log("scanned to", region[i].start, region[i].end);
		}
		scan.start = scan.walk_end;
	} while (nr > 0 && scan.start < scan.end);
	cow_log("scanned", proc, nr);
	close(fd);
}

static long call_mincore(const long *arg)
{
	unsigned char vec[TABLE_PAGES];
	unsigned int i, k;

	for (i = 0; i < ARENA_TABLES; i++) {
		memset(vec, 0, sizeof(vec));
		cow_log("mincore", i, mincore(arena + i * TABLE, TABLE, vec));
		for (k = 0; k < TABLE_PAGES; k++)
			if (vec[k])
				cow_log("in core", i * TABLE_PAGES + k, vec[k]);
	}
	return 0;
}

static const char *run_counters(enum cow_mode mode, const void *arg)
{
	const struct test_case *tc = arg;
	const char *why;
	unsigned int i;

	why = cow_mem_start(mode, tc->mem);
	if (why)
		return why;
	run_stage(tc->stage);
	for (i = 0; i < world->nr_procs; i++) {
		if (!cow_proc[i].alive)
			continue;
		measure_status(i, measure_smaps(i));
		/*
		 * An ordinary MADV_DONTNEED keeps the emptied table; a shared
		 * one is given up.
		 */
		if (tc->stage != STAGE_child_dontneed)
			cow_log("VmPTE", i, cow_status(world->pid[i], "VmPTE"));
		measure_rollup(i);
		measure_pagemap(i);
		measure_numa_maps(i);
		measure_scan(i);
		cow_call(i, call_mincore, 0);
	}
	cow_world_stop();
	return NULL;
}

FIXTURE(report) {
};

FIXTURE_VARIANT(report) {
	struct test_case tc;
};

FIXTURE_SETUP(report) {}
FIXTURE_TEARDOWN(report) {}

/* The members of a variant */
#define TC(m, s)							\
	.tc = { .mem = &cow_mem[MEM_##m], .stage = STAGE_##s }

FIXTURE_VARIANT_ADD(report, anon_fork) { TC(anon, fork) };
FIXTURE_VARIANT_ADD(report, anon_child_write) { TC(anon, child_write) };
FIXTURE_VARIANT_ADD(report, anon_parent_write) { TC(anon, parent_write) };
FIXTURE_VARIANT_ADD(report, anon_both_write) { TC(anon, both_write) };
FIXTURE_VARIANT_ADD(report, anon_child_reads) { TC(anon, child_reads) };
FIXTURE_VARIANT_ADD(report, anon_child_fills) { TC(anon, child_fills) };
FIXTURE_VARIANT_ADD(report, anon_child_munmap) { TC(anon, child_munmap) };
FIXTURE_VARIANT_ADD(report, anon_child_dontneed) { TC(anon, child_dontneed) };

FIXTURE_VARIANT_ADD(report, anon_child_dontneed_part) {
	TC(anon, child_dontneed_part)
};

FIXTURE_VARIANT_ADD(report, anon_child_mremap) { TC(anon, child_mremap) };
FIXTURE_VARIANT_ADD(report, anon_child_mprotect) { TC(anon, child_mprotect) };
FIXTURE_VARIANT_ADD(report, anon_child_exit) { TC(anon, child_exit) };

FIXTURE_VARIANT_ADD(report, anon_child_exit_parent_write) {
	TC(anon, child_exit_parent_write)
};

FIXTURE_VARIANT_ADD(report, anon_parent_exit) { TC(anon, parent_exit) };
FIXTURE_VARIANT_ADD(report, anon_parent_munmap) { TC(anon, parent_munmap) };
FIXTURE_VARIANT_ADD(report, anon_grandchild) { TC(anon, grandchild) };
FIXTURE_VARIANT_ADD(report, anon_two_children) { TC(anon, two_children) };
FIXTURE_VARIANT_ADD(report, anon_middle_exit) { TC(anon, middle_exit) };

FIXTURE_VARIANT_ADD(report, memfd_fork) { TC(memfd, fork) };
FIXTURE_VARIANT_ADD(report, memfd_child_write) { TC(memfd, child_write) };
FIXTURE_VARIANT_ADD(report, memfd_parent_write) { TC(memfd, parent_write) };
FIXTURE_VARIANT_ADD(report, memfd_both_write) { TC(memfd, both_write) };
FIXTURE_VARIANT_ADD(report, memfd_child_reads) { TC(memfd, child_reads) };
FIXTURE_VARIANT_ADD(report, memfd_child_fills) { TC(memfd, child_fills) };
FIXTURE_VARIANT_ADD(report, memfd_child_munmap) { TC(memfd, child_munmap) };
FIXTURE_VARIANT_ADD(report, memfd_child_dontneed) { TC(memfd, child_dontneed) };

FIXTURE_VARIANT_ADD(report, memfd_child_dontneed_part) {
	TC(memfd, child_dontneed_part)
};

FIXTURE_VARIANT_ADD(report, memfd_child_mremap) { TC(memfd, child_mremap) };
FIXTURE_VARIANT_ADD(report, memfd_child_mprotect) { TC(memfd, child_mprotect) };
FIXTURE_VARIANT_ADD(report, memfd_child_exit) { TC(memfd, child_exit) };

FIXTURE_VARIANT_ADD(report, memfd_child_exit_parent_write) {
	TC(memfd, child_exit_parent_write)
};

FIXTURE_VARIANT_ADD(report, memfd_parent_exit) { TC(memfd, parent_exit) };
FIXTURE_VARIANT_ADD(report, memfd_parent_munmap) { TC(memfd, parent_munmap) };
FIXTURE_VARIANT_ADD(report, memfd_grandchild) { TC(memfd, grandchild) };
FIXTURE_VARIANT_ADD(report, memfd_two_children) { TC(memfd, two_children) };
FIXTURE_VARIANT_ADD(report, memfd_middle_exit) { TC(memfd, middle_exit) };

FIXTURE_VARIANT_ADD(report, swapped_fork) { TC(swapped, fork) };
FIXTURE_VARIANT_ADD(report, swapped_child_write) { TC(swapped, child_write) };
FIXTURE_VARIANT_ADD(report, swapped_parent_write) { TC(swapped, parent_write) };
FIXTURE_VARIANT_ADD(report, swapped_both_write) { TC(swapped, both_write) };
FIXTURE_VARIANT_ADD(report, swapped_child_reads) { TC(swapped, child_reads) };
FIXTURE_VARIANT_ADD(report, swapped_child_fills) { TC(swapped, child_fills) };
FIXTURE_VARIANT_ADD(report, swapped_child_munmap) { TC(swapped, child_munmap) };

FIXTURE_VARIANT_ADD(report, swapped_child_dontneed) {
	TC(swapped, child_dontneed)
};

FIXTURE_VARIANT_ADD(report, swapped_child_dontneed_part) {
	TC(swapped, child_dontneed_part)
};

FIXTURE_VARIANT_ADD(report, swapped_child_mremap) { TC(swapped, child_mremap) };

FIXTURE_VARIANT_ADD(report, swapped_child_mprotect) {
	TC(swapped, child_mprotect)
};

FIXTURE_VARIANT_ADD(report, swapped_child_exit) { TC(swapped, child_exit) };

FIXTURE_VARIANT_ADD(report, swapped_child_exit_parent_write) {
	TC(swapped, child_exit_parent_write)
};

FIXTURE_VARIANT_ADD(report, swapped_parent_exit) { TC(swapped, parent_exit) };

FIXTURE_VARIANT_ADD(report, swapped_parent_munmap) {
	TC(swapped, parent_munmap)
};

FIXTURE_VARIANT_ADD(report, swapped_grandchild) { TC(swapped, grandchild) };
FIXTURE_VARIANT_ADD(report, swapped_two_children) { TC(swapped, two_children) };
FIXTURE_VARIANT_ADD(report, swapped_middle_exit) { TC(swapped, middle_exit) };

FIXTURE_VARIANT_ADD(report, sparse_fork) { TC(sparse, fork) };
FIXTURE_VARIANT_ADD(report, sparse_both_write) { TC(sparse, both_write) };
FIXTURE_VARIANT_ADD(report, sparse_child_exit) { TC(sparse, child_exit) };
FIXTURE_VARIANT_ADD(report, straddle_fork) { TC(straddle, fork) };
FIXTURE_VARIANT_ADD(report, straddle_both_write) { TC(straddle, both_write) };
FIXTURE_VARIANT_ADD(report, straddle_child_exit) { TC(straddle, child_exit) };
FIXTURE_VARIANT_ADD(report, heap_fork) { TC(heap, fork) };
FIXTURE_VARIANT_ADD(report, heap_both_write) { TC(heap, both_write) };
FIXTURE_VARIANT_ADD(report, heap_child_exit) { TC(heap, child_exit) };
FIXTURE_VARIANT_ADD(report, tmpfs_fork) { TC(tmpfs, fork) };
FIXTURE_VARIANT_ADD(report, tmpfs_both_write) { TC(tmpfs, both_write) };
FIXTURE_VARIANT_ADD(report, tmpfs_child_exit) { TC(tmpfs, child_exit) };
FIXTURE_VARIANT_ADD(report, exe_fork) { TC(exe, fork) };
FIXTURE_VARIANT_ADD(report, exe_both_write) { TC(exe, both_write) };
FIXTURE_VARIANT_ADD(report, exe_child_exit) { TC(exe, child_exit) };
FIXTURE_VARIANT_ADD(report, protections_fork) { TC(protections, fork) };

FIXTURE_VARIANT_ADD(report, protections_both_write) {
	TC(protections, both_write)
};

FIXTURE_VARIANT_ADD(report, protections_child_exit) {
	TC(protections, child_exit)
};

FIXTURE_VARIANT_ADD(report, confetti_fork) { TC(confetti, fork) };
FIXTURE_VARIANT_ADD(report, confetti_both_write) { TC(confetti, both_write) };
FIXTURE_VARIANT_ADD(report, confetti_child_exit) { TC(confetti, child_exit) };
FIXTURE_VARIANT_ADD(report, zeropage_fork) { TC(zeropage, fork) };
FIXTURE_VARIANT_ADD(report, zeropage_both_write) { TC(zeropage, both_write) };
FIXTURE_VARIANT_ADD(report, zeropage_child_exit) { TC(zeropage, child_exit) };
FIXTURE_VARIANT_ADD(report, thp_split_fork) { TC(thp_split, fork) };
FIXTURE_VARIANT_ADD(report, thp_split_both_write) { TC(thp_split, both_write) };
FIXTURE_VARIANT_ADD(report, thp_split_child_exit) { TC(thp_split, child_exit) };
FIXTURE_VARIANT_ADD(report, thp_fork) { TC(thp, fork) };
FIXTURE_VARIANT_ADD(report, thp_both_write) { TC(thp, both_write) };
FIXTURE_VARIANT_ADD(report, thp_child_exit) { TC(thp, child_exit) };
FIXTURE_VARIANT_ADD(report, mthp_fork) { TC(mthp, fork) };
FIXTURE_VARIANT_ADD(report, mthp_both_write) { TC(mthp, both_write) };
FIXTURE_VARIANT_ADD(report, mthp_child_exit) { TC(mthp, child_exit) };
FIXTURE_VARIANT_ADD(report, mremapped_fork) { TC(mremapped, fork) };
FIXTURE_VARIANT_ADD(report, mremapped_both_write) { TC(mremapped, both_write) };
FIXTURE_VARIANT_ADD(report, mremapped_child_exit) { TC(mremapped, child_exit) };
FIXTURE_VARIANT_ADD(report, file_neighbour_fork) { TC(file_neighbour, fork) };

FIXTURE_VARIANT_ADD(report, file_neighbour_both_write) {
	TC(file_neighbour, both_write)
};

FIXTURE_VARIANT_ADD(report, file_neighbour_child_exit) {
	TC(file_neighbour, child_exit)
};

FIXTURE_VARIANT_ADD(report, dontfork_neighbour_fork) {
	TC(dontfork_neighbour, fork)
};

FIXTURE_VARIANT_ADD(report, dontfork_neighbour_both_write) {
	TC(dontfork_neighbour, both_write)
};

FIXTURE_VARIANT_ADD(report, dontfork_neighbour_child_exit) {
	TC(dontfork_neighbour, child_exit)
};

FIXTURE_VARIANT_ADD(report, mlocked_neighbour_fork) {
	TC(mlocked_neighbour, fork)
};

FIXTURE_VARIANT_ADD(report, mlocked_neighbour_both_write) {
	TC(mlocked_neighbour, both_write)
};

FIXTURE_VARIANT_ADD(report, mlocked_neighbour_child_exit) {
	TC(mlocked_neighbour, child_exit)
};

TEST_F_TIMEOUT(report, same, 120)
{
	COW_REPORT(cow_run_warm(run_counters, &variant->tc));
}

/*
 * Families whose members have left some tables and share others: everybody's
 * part in each page is what it is after ordinary forks.  The kernel looks at all
 * of up to 64; if nobody can stay out two of these are those of the test program.
 */

#define LARGE_FAMILY	62

enum stand {
	STAND_ALL_BREAK,
	STAND_HALF_BREAK,
	STAND_HALF_BREAK_ONE_TABLE,
	STAND_THIRD_EXITS,
	STAND_BREAK_THEN_FORK,
};

struct stand_case {
	const struct cow_mem *mem;
	unsigned int procs;
	enum stand stand;
};

/* A page of each table, which copies them, or of the first or last one only */
static long call_break(const long *arg)
{
	unsigned int i, last = world->nr_pages - 1;
	char *table = NULL, *next;

	for (i = arg[0] ? last : 0; i <= last; i++) {
		next = (char *)((uintptr_t)world->page[i] & -TABLE);
		if (next == table || world->readonly[i])
			continue;
		table = next;
		if (cow_try_write(world->page[i], i))
			return -1;
	}
	return 0;
}

/* All but the first that there are, or every so many of them */
static void each(unsigned int from, unsigned int step, cow_fn fn, long arg)
{
	unsigned int i, procs = world->nr_procs;

	for (i = from; i < procs; i += step)
		if (cow_proc[i].alive)
			do_call(i, fn, arg, 0);
}

/* A family in which every second process is a child of the second one */
static void fork_two_branches(unsigned int procs)
{
	while (world->nr_procs < procs)
		cow_fork(world->nr_procs & 1, COW_FORK);
}

static void take_stand(enum stand stand, unsigned int procs)
{
	unsigned int i;

	/* What the second one does before its children come */
	if (stand >= STAND_BREAK_THEN_FORK)
		cow_fork(0, COW_FORK);
	if (stand == STAND_BREAK_THEN_FORK)
		do_call(1, call_break, 0, 0);
	if (stand >= STAND_BREAK_THEN_FORK) {
		fork_two_branches(procs);
		return;
	}

	for (i = 1; i < procs; i++)
		cow_fork((i - 1) / 3, COW_FORK);
	switch (stand) {
	case STAND_ALL_BREAK:
		each(1, 1, call_break, 0);
		break;
	case STAND_HALF_BREAK_ONE_TABLE:
		each(1, 2, call_break, 1);
		break;
	default:
		each(1, 2, call_break, 0);
	}
	for (i = 2; i < procs && stand == STAND_THIRD_EXITS; i += 3)
		cow_exit(i);
}

static void measure_arena(unsigned int proc)
{
	unsigned long start, end;
	bool inside = false;
	char line[256];
	size_t i, len;
	FILE *f;

	f = cow_open_proc(world->pid[proc], "smaps");
	while (fgets(line, sizeof(line), f)) {
		if (sscanf(line, "%lx-%lx ", &start, &end) == 2) {
			inside = (char *)start >= arena &&
				 (char *)start < arena + ARENA_TABLES * TABLE;
			continue;
		}
		for (i = 0; i < ARRAY_LEN(smaps_field) && inside; i++) {
			len = strlen(smaps_field[i]);
			if (!strncmp(line, smaps_field[i], len) &&
			    line[len] == ':')
				cow_log(smaps_field[i], start,
					strtol(line + len + 1, NULL, 10));
		}
	}
	fclose(f);
	measure_numa_maps(proc);
}

static void measure_some(void)
{
	unsigned int i, last = world->nr_procs - 1;
	unsigned int proc[] = { 0, 1, last / 2, last / 2 + 1, last - 1, last };

	for (i = 0; i < ARRAY_LEN(proc); i++) {
		if (proc[i] > last || !cow_proc[proc[i]].alive)
			continue;
		cow_log("process", i, proc[i]);
		measure_arena(proc[i]);
	}
}

static const char *run_stand(enum cow_mode mode, const void *arg)
{
	const struct stand_case *sc = arg;
	const char *why = cow_mem_start_big(mode, sc->mem, sc->procs);

	if (why)
		return why;
	take_stand(sc->stand, sc->procs);
	measure_some();
	cow_world_stop();
	return NULL;
}

FIXTURE(pss) {
};

FIXTURE_VARIANT(pss) {
	struct stand_case sc;
};

FIXTURE_SETUP(pss) {}
FIXTURE_TEARDOWN(pss) {}

#define STAND(m, n, s)							\
	.sc = { .mem = &cow_mem[MEM_##m], .procs = n, .stand = STAND_##s }

FIXTURE_VARIANT_ADD(pss, all_break_3) { STAND(anon, 3, ALL_BREAK) };
FIXTURE_VARIANT_ADD(pss, all_break_16) { STAND(anon, 16, ALL_BREAK) };

FIXTURE_VARIANT_ADD(pss, all_break_62) {
	STAND(anon, LARGE_FAMILY, ALL_BREAK)
};

FIXTURE_VARIANT_ADD(pss, all_break_file) { STAND(memfd, 7, ALL_BREAK) };
FIXTURE_VARIANT_ADD(pss, all_break_split) { STAND(thp_split, 7, ALL_BREAK) };
FIXTURE_VARIANT_ADD(pss, all_break_swapped) { STAND(swapped, 7, ALL_BREAK) };
FIXTURE_VARIANT_ADD(pss, half_break_3) { STAND(anon, 3, HALF_BREAK) };
FIXTURE_VARIANT_ADD(pss, half_break_16) { STAND(anon, 16, HALF_BREAK) };

FIXTURE_VARIANT_ADD(pss, half_break_62) {
	STAND(anon, LARGE_FAMILY, HALF_BREAK)
};

FIXTURE_VARIANT_ADD(pss, half_break_file) { STAND(memfd, 7, HALF_BREAK) };
FIXTURE_VARIANT_ADD(pss, half_break_split) { STAND(thp_split, 7, HALF_BREAK) };
FIXTURE_VARIANT_ADD(pss, half_break_swapped) { STAND(swapped, 7, HALF_BREAK) };

FIXTURE_VARIANT_ADD(pss, half_break_one_table) {
	STAND(sparse, 9, HALF_BREAK_ONE_TABLE)
};

FIXTURE_VARIANT_ADD(pss, third_exits) { STAND(anon, 17, THIRD_EXITS) };

FIXTURE_VARIANT_ADD(pss, break_then_fork_3) {
	STAND(anon, 3, BREAK_THEN_FORK)
};

FIXTURE_VARIANT_ADD(pss, break_then_fork_17) {
	STAND(anon, 17, BREAK_THEN_FORK)
};

FIXTURE_VARIANT_ADD(pss, break_then_fork_62) {
	STAND(anon, LARGE_FAMILY, BREAK_THEN_FORK)
};

FIXTURE_VARIANT_ADD(pss, break_then_fork_file) {
	STAND(memfd, 7, BREAK_THEN_FORK)
};

TEST_F_TIMEOUT(pss, same, 600)
{
	COW_REPORT(cow_run(run_stand, &variant->sc));
}

/*
 * /proc/kpagecount knows pages and no processes: it counts a shared table once.
 */

static __u64 count_mappings(unsigned int proc, unsigned int page)
{
	__u64 pm = cow_pagemap(world->pid[proc], world->page[page]), nr;
	int fd = open("/proc/kpagecount", O_RDONLY | O_CLOEXEC);

	if (fd < 0 || pread(fd, &nr, sizeof(nr), (pm & PM_PFN_MASK) *
			    sizeof(nr)) != sizeof(nr))
		cow_fail("/proc/kpagecount: %s", strerror(errno));
	close(fd);
	return nr;
}

static void expect_mappings(enum cow_mode mode, unsigned int page, __u64 off,
			    __u64 on, const char *when)
{
	__u64 nr = count_mappings(0, page), want = mode == COW_ON ? on : off;

	if (nr != want)
		cow_fail("%s: page %u is mapped %llu times, expected %llu",
			 when, page, nr, want);
}

static const char *run_kpagecount(enum cow_mode mode, const void *arg)
{
	unsigned int last;

	cow_mem_start(mode, &cow_mem[MEM_anon]);
	last = world->nr_pages - 1;
	expect_mappings(mode, 0, 1, 1, "before fork");
	cow_fork(0, COW_FORK);
	cow_fork(0, COW_FORK);
	expect_mappings(mode, 0, 3, 1, "three sharers");
	expect_mappings(mode, last, 3, 1, "three sharers");
	/* The first table, not the last, is copied for another page's sake */
	cow_poke(1, 1);
	expect_mappings(mode, 0, 3, 2, "one has a copy");
	expect_mappings(mode, 1, 2, 1, "one has written");
	expect_mappings(mode, last, 3, 1, "two tables");
	cow_poke(2, 1);
	expect_mappings(mode, 0, 3, 3, "each has a table");
	cow_exit(1);
	expect_mappings(mode, 0, 2, 2, "one has gone");
	expect_mappings(mode, last, 2, 1, "one has gone");
	cow_exit(2);
	expect_mappings(mode, 0, 1, 1, "all have gone");
	cow_world_stop();
	return NULL;
}

TEST(kpagecount_counts_tables)
{
	COW_REPORT(cow_run(run_kpagecount, NULL));
}

/*
 * Page-table memory, for which the feature is there: each physical table is
 * counted once, however many processes have it.
 */

#define BIG_TABLES	128		/* 256 MiB */
#define ON_LIMIT_KB	24
#define OFF_LIMIT_KB	400
#define TABLES_TRIES	4

static long call_map_big(const long *arg)
{
	char *mem = mmap(NULL, (BIG_TABLES + 1) * TABLE, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	unsigned int i;

	if (mem == MAP_FAILED)
		return -1;
	mem = (char *)(((uintptr_t)mem + TABLE - 1) & -TABLE);
	madvise(mem, BIG_TABLES * TABLE, MADV_NOHUGEPAGE);
	/* One page is enough to have a table */
	for (i = 0; i < BIG_TABLES; i++)
		cow_track_range(mem + i * TABLE, PAGE, 1);
	cow_adopt();
	return 0;
}

static long page_tables_kb(void)
{
	cow_fold_vmstat();
	return cow_read_field("/proc/meminfo", "PageTables");
}

/*
 * Other processes come and go, too: the least of some tries with the feature
 * on, the most with it off.
 */
static long child_page_tables_kb(enum cow_mode mode)
{
	long best = 0, before, now;
	unsigned int child;
	int i;

	for (i = 0; i < TABLES_TRIES; i++) {
		before = page_tables_kb();
		child = cow_fork(0, COW_FORK);
		now = page_tables_kb() - before;
		if (!i || (mode == COW_ON ? now < best : now > best))
			best = now;
		cow_exit(child);
		usleep(20000);
	}
	return best;
}

static const char *run_page_tables(enum cow_mode mode, const void *arg)
{
	long small, kb;

	cow_world_start_big(mode, 1 + 2 * TABLES_TRIES);
	/* A child has its upper levels, its stack and its data of its own. */
	small = child_page_tables_kb(mode);
	if (cow_call(0, call_map_big, 0))
		cow_fail("no memory: %s", strerror(errno));
	kb = child_page_tables_kb(mode) - small;
	if (mode == COW_OFF && kb < OFF_LIMIT_KB)
		cow_fail("ordinary fork: child has %ld kB more, expected %u",
			 kb, OFF_LIMIT_KB);
	if (mode == COW_ON && kb > ON_LIMIT_KB)
		cow_fail("child has %ld kB more of page tables, limit %u", kb,
			 ON_LIMIT_KB);
	cow_world_stop();
	return NULL;
}

FIXTURE(memory) {
};

FIXTURE_SETUP(memory) {}
FIXTURE_TEARDOWN(memory) {}

TEST_F_TIMEOUT(memory, page_tables_of_child, 120)
{
	COW_REPORT(cow_run(run_page_tables, NULL));
}

/* Every process is charged for the tables it has, shared or not */
static const char *run_vm_pte(enum cow_mode mode, const void *arg)
{
	unsigned int child;

	cow_world_start(mode);
	if (cow_call(0, call_map_big, 0))
		cow_fail("no memory: %s", strerror(errno));
	child = cow_fork(0, COW_FORK);
	if (cow_status(world->pid[child], "VmPTE") < BIG_TABLES * 4)
		cow_fail("the child has only %ld kB of VmPTE",
			 cow_status(world->pid[child], "VmPTE"));
	if (mode == COW_ON &&
	    cow_status(world->pid[child], "VmCowPTE") < BIG_TABLES * 4)
		cow_fail("the child shares only %ld kB",
			 cow_status(world->pid[child], "VmCowPTE"));
	cow_poke_all(child);
	if (mode == COW_ON &&
	    cow_status(world->pid[child], "VmCowPTE") > ON_LIMIT_KB)
		cow_fail("%ld kB shared after all was written",
			 cow_status(world->pid[child], "VmCowPTE"));
	cow_check_all("at the end");
	cow_world_stop();
	return NULL;
}

TEST_F_TIMEOUT(memory, vm_pte, 120)
{
	COW_REPORT(cow_run_once(run_vm_pte, NULL));
}

/*
 * exec() accounts the arguments of the new program to the caller's mm, in which
 * they are not.  A vfork()ed child is held up while it copies them, as one of
 * them is a page that userfaultfd has to bring.
 */

static int args_uffd;
static char *late_arg;

static void *exec_thread(void *arg)
{
	pid_t pid = vfork();

	if (!pid) {
		execl("/bin/true", "true", late_arg, NULL);
		_exit(1);
	}
	return NULL;
}

static long call_exec_held_up(const long *arg)
{
	struct uffdio_api api = { .api = UFFD_API };
	struct pollfd pfd = { .events = POLLIN };
	struct uffdio_register reg = {
		.range.len = PAGE,
		.mode = UFFDIO_REGISTER_MODE_MISSING,
	};
	pthread_t thread;

	late_arg = mmap(NULL, PAGE, PROT_READ | PROT_WRITE,
			MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	/* (who polls must not block) */
	args_uffd = syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	if (args_uffd < 0)
		return cow_skip("userfaultfd: %s", strerror(errno));
	reg.range.start = (uintptr_t)late_arg;
	if (ioctl(args_uffd, UFFDIO_API, &api) ||
	    ioctl(args_uffd, UFFDIO_REGISTER, &reg) ||
	    pthread_create(&thread, NULL, exec_thread, NULL))
		return -1;
	pfd.fd = args_uffd;
	return poll(&pfd, 1, 60000) == 1 && pfd.revents == POLLIN ? 0 : -1;
}

static long call_let_it_exec(const long *arg)
{
	struct uffdio_zeropage zero = {
		.range = { (uintptr_t)late_arg, PAGE },
	};

	return ioctl(args_uffd, UFFDIO_ZEROPAGE, &zero) ? -1 : wait(NULL) < 0;
}

static const char *run_exec_arguments(enum cow_mode mode, const void *arg)
{
	const struct cow_mem *mem = arg;
	unsigned int child, i;
	const char *why = cow_mem_start(mode, mem);

	if (why)
		return why;
	if (cow_call(0, call_exec_held_up, 0)) {
		if (!world->skip[0])
			cow_fail("exec was not held up: %s", strerror(errno));
		cow_world_stop();
		return world->skip;
	}
	child = cow_fork(0, COW_FORK);
	cow_must_share(mode, mem);
	if (cow_call(0, call_let_it_exec, 0))
		cow_fail("exec: %s", strerror(errno));
	for (i = 0; i <= child; i++)
		cow_check_rss(i);
	cow_check_all("at the end");
	cow_world_stop();
	return NULL;
}

TEST_F_TIMEOUT(memory, exec_arguments, 120)
{
	COW_REPORT(cow_run_once(run_exec_arguments, &cow_mem[MEM_anon]));
}

#define LIVES		12
#define SLACK_PAGES	300

static void live(enum cow_mode mode, const struct cow_mem *mem)
{
	unsigned int a, b, c;

	if (cow_mem_start(mode, mem))
		return;
	a = cow_fork(0, COW_FORK);
	b = cow_fork(a, COW_FORK);
	c = cow_fork(0, COW_FORK);
	cow_poke_all(a);
	cow_exit(0);
	cow_poke_all(c);
	cow_exit(b);
	cow_check_all("in the middle");
	cow_world_stop();
}

/*
 * Leaks: after many lives of shared tables the counters of the system are back
 * where they began.  Other processes use memory, too, so a round that ends with
 * more than before is tried again; a leak shows in each of them.
 */
static bool leaks(enum cow_mode mode, const struct cow_mem *mem)
{
	/* Each life has some tables per process and many pages */
	struct cow_usage usage = {
		.slack = { LIVES - 1, SLACK_PAGES, SLACK_PAGES, SLACK_PAGES },
	};
	unsigned int i;

	cow_usage_start(&usage);
	for (i = 0; i < LIVES; i++)
		live(mode, mem);
	return cow_usage_grown(&usage);
}

static const char *run_leak(enum cow_mode mode, const void *arg)
{
	const struct cow_mem *mem = arg;
	const char *why;
	int i;

	/* Once without counting: fills caches */
	why = cow_mem_start(mode, mem);
	if (why)
		return why;
	cow_world_stop();
	live(mode, mem);
	for (i = 0; i < 4; i++)
		if (!leaks(mode, mem))
			return NULL;
	cow_fail("memory leaks");
}

FIXTURE(leak) {
};

FIXTURE_VARIANT(leak) {
	const struct cow_mem *mem;
};

FIXTURE_SETUP(leak) {}
FIXTURE_TEARDOWN(leak) {}

FIXTURE_VARIANT_ADD(leak, anon) { .mem = &cow_mem[MEM_anon] };
FIXTURE_VARIANT_ADD(leak, sparse) { .mem = &cow_mem[MEM_sparse] };
FIXTURE_VARIANT_ADD(leak, memfd) { .mem = &cow_mem[MEM_memfd] };
FIXTURE_VARIANT_ADD(leak, swapped) { .mem = &cow_mem[MEM_swapped] };
FIXTURE_VARIANT_ADD(leak, thp_split) { .mem = &cow_mem[MEM_thp_split] };
FIXTURE_VARIANT_ADD(leak, mremapped) { .mem = &cow_mem[MEM_mremapped] };

TEST_F_TIMEOUT(leak, nothing_left, 300)
{
	COW_REPORT(cow_run_once(run_leak, variant->mem));
}

int main(int argc, char **argv)
{
	cow_main_start();
	return test_harness_run(argc, argv);
}
