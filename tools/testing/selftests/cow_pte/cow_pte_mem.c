// SPDX-License-Identifier: GPL-2.0
/*
 * The kinds of memory that tests share.  Each prepare() function runs in the
 * first process of a world, before it forks.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cow_pte_util.h"

#define KSM	"/sys/kernel/mm/ksm/"
#define THP	"/sys/kernel/mm/transparent_hugepage/"

#define RW	(PROT_READ | PROT_WRITE)

static char *table(unsigned int nr)
{
	return arena + nr * TABLE;
}

static char *map_fixed(char *addr, size_t len, int prot, int flags, int fd)
{
	if (mmap(addr, len, prot, flags | MAP_FIXED, fd, 0) != addr)
		abort();
	/* Huge pages have no PTE table; the kinds that want them say so */
	madvise(addr, len, MADV_NOHUGEPAGE);
	return addr;
}

static char *map_anon(char *addr, size_t len)
{
	return map_fixed(addr, len, RW, MAP_PRIVATE | MAP_ANONYMOUS, -1);
}

static void protect(char *addr, size_t len, int prot)
{
	if (mprotect(addr, len, prot))
		abort();
}

static void track_readonly(char *addr, size_t len, unsigned int step)
{
	char *p;

	for (p = addr; p < addr + len; p += step * PAGE)
		world->readonly[cow_track(p)] = true;
}

/* A well filled table and a sparse one */
static int prepare_anon(void)
{
	char *mem = map_anon(table(0), 2 * TABLE);

	cow_track_range(mem, 64 * PAGE, 1);
	cow_track_range(mem + 64 * PAGE, TABLE - 64 * PAGE, 8);
	cow_track_range(mem + TABLE, TABLE, 32);
	cow_add_hole(mem + TABLE + PAGE);
	cow_add_hole(mem + 2 * TABLE - PAGE);
	return 0;
}

/* Between the second and the third table one is missing */
static int prepare_sparse(void)
{
	char *mem = map_anon(table(0), 4 * TABLE);
	unsigned int i;

	for (i = 0; i < 4; i++) {
		if (i == 2)
			continue;
		cow_track_range(mem + i * TABLE, TABLE, 64);
		cow_add_hole(mem + i * TABLE + 3 * PAGE);
	}
	return 0;
}

static int prepare_holes(void)
{
	char *mem = map_anon(table(0), TABLE);

	cow_track_range(mem, 64 * PAGE, 4);
	cow_track_range(mem + 128 * PAGE, 172 * PAGE, 4);
	cow_track_range(mem + 310 * PAGE, 101 * PAGE, 4);
	cow_add_hole(mem + 511 * PAGE);
	return munmap(mem + 64 * PAGE, 64 * PAGE) ||
	       munmap(mem + 300 * PAGE, 10 * PAGE);
}

/* The mapping starts and ends in the middle of a table */
static int prepare_straddle(void)
{
	char *mem = map_anon(table(0) + TABLE / 2, TABLE);

	cow_track_range(mem, TABLE, 4);
	cow_add_hole(mem + PAGE);
	cow_add_hole(mem + TABLE - PAGE);
	return 0;
}

static int prepare_heap(void)
{
	char *cur = sbrk(0);
	char *start = (char *)(((uintptr_t)cur + TABLE - 1) & -TABLE);

	if (brk(start + 2 * TABLE))
		return -1;
	madvise(start, 2 * TABLE, MADV_NOHUGEPAGE);
	cow_track_range(start, TABLE, 8);
	cow_track_range(start + TABLE, TABLE, 64);
	cow_add_hole(start + TABLE + PAGE);
	return 0;
}

/* Grown downwards by faults into the free table below it */
static int prepare_stack(void)
{
	int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_GROWSDOWN | MAP_STACK;
	char *mem = map_fixed(table(2), TABLE, RW, flags, -1);

	if (munmap(table(1), TABLE))
		return -1;
	cow_track_range(mem, TABLE, 8);
	cow_stamp(mem - 16 * PAGE, cow_next_stamp(cow_self,
						  cow_track(mem - 16 * PAGE)));
	cow_add_hole(mem - 8 * PAGE);
	return 0;
}

/* Pages that are written, pages only read and pages not touched */
static int map_file(int fd)
{
	unsigned int i;
	char *mem;

	if (cow_stamped_file(fd, TABLE / 4) < 0 || ftruncate(fd, 2 * TABLE))
		return -1;
	mem = map_fixed(table(0), 2 * TABLE, RW, MAP_PRIVATE, fd);
	close(fd);
	for (i = 0; i < TABLE_PAGES / 4; i += 4) {
		cow_track_range(mem + i * PAGE, PAGE, 1);
		cow_track(mem + (i + 1) * PAGE);
	}
	cow_track_range(mem + TABLE / 2, TABLE + TABLE / 2, 16);
	return 0;
}

static int prepare_tmpfs(void)
{
	return map_file(cow_tmpfile());
}

static int prepare_memfd(void)
{
	return map_file(memfd_create("cow_pte", MFD_CLOEXEC));
}

/* A file of a disk file system, as far as the test program is on one */
static int prepare_exe(void)
{
	int fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
	struct stat st;
	size_t len;
	char *mem;

	if (fd < 0 || fstat(fd, &st))
		return -1;
	len = st.st_size & -PAGE;
	if (len > TABLE)
		len = TABLE;
	if (len < 4 * PAGE)
		return cow_skip("the test program is too small");
	mem = map_fixed(table(0), len, RW, MAP_PRIVATE, fd);
	close(fd);
	cow_track_range(mem, len / 2, 2);
	track_readonly(mem + PAGE, len / 2, 2);
	return 0;
}

static int prepare_readonly_neighbour(void)
{
	char *mem = map_anon(table(0), TABLE);

	cow_track_range(mem, TABLE, 8);
	memset(&world->readonly[TABLE_PAGES / 16], true, TABLE_PAGES / 16);
	protect(mem + TABLE / 2, TABLE / 2, PROT_READ);
	cow_add_hole(mem + PAGE);
	return 0;
}

static int prepare_protections(void)
{
	static const int prot[] = {
		RW, PROT_READ, PROT_NONE, RW | PROT_EXEC,
		PROT_READ | PROT_EXEC, RW, PROT_READ, RW,
	};
	size_t len = TABLE / ARRAY_LEN(prot);
	char *mem = map_anon(table(0), TABLE);
	unsigned int i, first;

	for (i = 0; i < ARRAY_LEN(prot); i++) {
		first = world->nr_pages;
		cow_track_range(mem + i * len, len, 4);
		if (!(prot[i] & PROT_WRITE))
			memset(&world->readonly[first], true,
			       world->nr_pages - first);
		protect(mem + i * len, len, prot[i]);
	}
	cow_add_hole(mem + PAGE);
	return 0;
}

/* Many VMAs in one table */
static int prepare_confetti(void)
{
	char *mem = map_anon(table(0), TABLE);
	unsigned int i;

	cow_track_range(mem, 64 * PAGE, 1);
	for (i = 1; i < world->nr_pages; i += 2) {
		protect(world->page[i], PAGE, PROT_READ);
		world->readonly[i] = true;
	}
	return 0;
}

static int prepare_zeropage(void)
{
	char *mem = map_anon(table(0), TABLE);
	unsigned int i;

	for (i = 0; i < TABLE_PAGES; i += 4)
		cow_track(mem + i * PAGE);
	/* Reading maps the zero page */
	cow_adopt();
	for (i = 0; i < world->nr_pages; i += 8)
		cow_stamp(world->page[i], cow_next_stamp(cow_self, i));
	return 0;
}

static int prepare_swapped(void)
{
	char *mem = map_anon(table(0), 2 * TABLE);
	unsigned int i, swapped = 0;

	if (cow_read_field("/proc/meminfo", "SwapFree") < 16 * 1024)
		return cow_skip("needs 16 MiB of swap");
	cow_track_range(mem, TABLE, 4);
	cow_track_range(mem + TABLE, TABLE, 16);
	cow_add_hole(mem + TABLE + PAGE);
	if (madvise(mem, 2 * TABLE, MADV_PAGEOUT))
		return -1;
	for (i = 0; i < world->nr_pages; i++)
		if (cow_pagemap(getpid(), world->page[i]) & PM_SWAP)
			swapped++;
	if (swapped < world->nr_pages / 2)
		return cow_skip("only %u of %u pages were swapped out", swapped,
				world->nr_pages);
	return 0;
}

static int want_huge(char *mem)
{
	char mode[64];

	if (cow_read_file(THP "enabled", mode, sizeof(mode)) < 0)
		return cow_skip("no transparent huge pages");
	if (strstr(mode, "[never]"))
		cow_write_file(THP "enabled", "madvise");
	if (madvise(mem, TABLE, MADV_HUGEPAGE))
		return -1;
	cow_track_range(mem, TABLE, 16);
	if (cow_read_field("/proc/self/smaps_rollup", "AnonHugePages") < 2048)
		return cow_skip("got no huge page");
	return 0;
}

/* A huge page, mapped by PTEs since a VMA boundary once cut it */
static int prepare_thp_split(void)
{
	char *mem = map_anon(table(0), TABLE);

	if (want_huge(mem))
		return -1;
	protect(mem + PAGE, PAGE, PROT_READ);
	protect(mem + PAGE, PAGE, RW);
	return 0;
}

static int prepare_thp(void)
{
	return want_huge(map_anon(table(0), TABLE));
}

static int prepare_mthp(void)
{
	char *mem = map_anon(table(0), TABLE);

	if (cow_write_file(THP "hugepages-64kB/enabled", "always"))
		return cow_skip("no 64 KiB huge pages");
	madvise(mem, TABLE, MADV_HUGEPAGE);
	cow_write_file(THP "enabled", "never");
	cow_track_range(mem, TABLE, 8);
	return 0;
}

/* Every second page the same; waits for KSM to have merged them */
static int prepare_ksm(void)
{
	char *mem = map_anon(table(0), TABLE);
	__u64 twin = cow_next_stamp(cow_self, 0);
	long merged = 0;
	int i;

	cow_track_range(mem, TABLE, 4);
	for (i = 0; i < (int)world->nr_pages; i += 2)
		cow_stamp(world->page[i], twin);
	if (madvise(mem, TABLE, MADV_MERGEABLE))
		return cow_skip("no KSM");
	cow_write_file(KSM "pages_to_scan", "4096");
	cow_write_file(KSM "sleep_millisecs", "0");
	if (cow_write_file(KSM "run", "1"))
		return -1;
	for (i = 0; i < 600 && merged < 60; i++) {
		char buf[32];

		usleep(20000);
		if (cow_read_file("/proc/self/ksm_merging_pages", buf,
				  sizeof(buf)) < 0)
			break;
		merged = strtol(buf, NULL, 10);
	}
	cow_write_file(KSM "run", "0");
	return merged ? 0 : cow_skip("KSM merged nothing");
}

/* A table moved as a whole, and pages moved to another place in a table */
static int prepare_mremapped(void)
{
	char *from = map_anon(table(3), 2 * TABLE);
	char *to = table(0);
	char *p;

	for (p = to; p < to + TABLE; p += 4 * PAGE)
		cow_stamp(p - to + from, cow_next_stamp(cow_self, cow_track(p)));
	for (p = to + TABLE + 7 * PAGE; p < to + TABLE + 71 * PAGE; p += PAGE)
		cow_stamp(p - to + from - 7 * PAGE,
			  cow_next_stamp(cow_self, cow_track(p)));
	if (mremap(from, TABLE, TABLE, MREMAP_MAYMOVE | MREMAP_FIXED,
		   to) != to)
		return -1;
	if (mremap(from + TABLE, 64 * PAGE, 64 * PAGE,
		   MREMAP_MAYMOVE | MREMAP_FIXED,
		   to + TABLE + 7 * PAGE) == MAP_FAILED)
		return -1;
	return 0;
}

static int prepare_shared_neighbour(void)
{
	char *mem = map_anon(table(0), TABLE / 2);
	char *shm = map_fixed(table(0) + TABLE / 2, TABLE / 2, RW,
			      MAP_SHARED | MAP_ANONYMOUS, -1);

	cow_track_range(mem, TABLE / 2, 8);
	/* Populated, but not tracked: it is the same for everybody */
	memset(shm, 1, TABLE / 2);
	return 0;
}

static int prepare_dontfork_neighbour(void)
{
	char *mem = map_anon(table(0), TABLE);

	cow_track_range(mem, TABLE / 2, 8);
	memset(mem + TABLE / 2, 1, TABLE / 2);
	return madvise(mem + TABLE / 2, TABLE / 2, MADV_DONTFORK);
}

/* A private file mapping that fork does not copy */
static int prepare_file_neighbour(void)
{
	int fd = cow_stamped_file(cow_tmpfile(), TABLE / 2);
	char *file;

	if (fd < 0)
		return -1;
	cow_track_range(map_anon(table(0), TABLE / 2), TABLE / 2, 4);
	file = map_fixed(table(0) + TABLE / 2, TABLE / 2, PROT_READ,
			 MAP_PRIVATE, fd);
	close(fd);
	track_readonly(file, TABLE / 2, 16);
	return 0;
}

static int prepare_mlocked_neighbour(void)
{
	char *mem = map_anon(table(0), TABLE);

	cow_track_range(mem, TABLE, 4);
	return mlock(mem + TABLE / 2, TABLE / 2);
}

#define KIND(n, t)	{ .name = #n, .prepare = prepare_##n, .tables = (t) }

const struct cow_mem cow_mem[] = {
	[MEM_anon] = KIND(anon, 2),
	[MEM_sparse] = KIND(sparse, 3),
	[MEM_holes] = KIND(holes, 1),
	[MEM_straddle] = KIND(straddle, 2),
	[MEM_heap] = KIND(heap, 2),
	[MEM_stack] = KIND(stack, 2),
	[MEM_tmpfs] = KIND(tmpfs, 2),
	[MEM_memfd] = KIND(memfd, 2),
	[MEM_exe] = KIND(exe, 1),
	[MEM_readonly_neighbour] = KIND(readonly_neighbour, 1),
	[MEM_protections] = KIND(protections, 1),
	[MEM_confetti] = KIND(confetti, 1),
	[MEM_zeropage] = KIND(zeropage, 1),
	[MEM_swapped] = KIND(swapped, 2),
	[MEM_thp_split] = KIND(thp_split, 1),
	[MEM_thp] = KIND(thp, 0),
	[MEM_mthp] = KIND(mthp, 1),
	[MEM_ksm] = KIND(ksm, 0),
	[MEM_mremapped] = KIND(mremapped, 2),
	[MEM_shared_neighbour] = KIND(shared_neighbour, 0),
	[MEM_dontfork_neighbour] = KIND(dontfork_neighbour, 0),
	[MEM_file_neighbour] = KIND(file_neighbour, 0),
	[MEM_mlocked_neighbour] = KIND(mlocked_neighbour, 0),
};

const unsigned int cow_nr_mem = ARRAY_LEN(cow_mem);
