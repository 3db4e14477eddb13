// SPDX-License-Identifier: GPL-2.0
/*
 * Memory that processes share by a file: who has the page tables of it in common
 * must see what he would see with tables of his own, whatever any of them does to
 * its mapping, and whatever becomes of the file.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/shm.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <linux/userfaultfd.h>
#include <unistd.h>

#include "kselftest_harness.h"
#include "cow_pte_op.h"

#define TABLES		3
#define LEN		(TABLES * TABLE)
#define STEP		16
#define NR_STEPS	(LEN / PAGE / STEP)
#define PAGE_OF(i)	(T(0) + (size_t)(i) * STEP * PAGE)

#define MPOL_BIND	2
#define MPOL_MF_MOVE	2
#define MPOL_MF_MOVE_ALL 4

enum backing { SHM, MEMFD, SYSV, TMPFS, EXT4 };

/* Of those that make it; the others have it from there, or by a file descriptor */
static enum backing backing;
static int region_fd = -1;
static int region_id = -1;
static char mount_point[32];

/* Does this run share, or is it the reference? */
static enum cow_mode running;

enum who {
	FIRST,		/* has made it */
	STRANGER,	/* has mapped it by itself */
	CHILD,		/* of the first one */
	GRANDCHILD,	/* which has other threads, too */
	NR_WHO,
};

static void must(unsigned int proc, cow_fn fn, long arg0, long arg1,
		 const char *what)
{
	if (cow_call(proc, fn, arg0, arg1))
		cow_fail("process %u: %s: %s", proc, what, strerror(errno));
}

/* A file system that wants to know which pages are written, in a file in /tmp */
static int open_ext4(void)
{
	char cmd[192], img[] = "/tmp/cow_ext4.XXXXXX";
	int fd = mkstemp(img);

	snprintf(mount_point, sizeof(mount_point), "/tmp/cow_mnt.XXXXXX");
	if (fd < 0 || ftruncate(fd, 64 << 20) || !mkdtemp(mount_point))
		return -1;
	close(fd);
	snprintf(cmd, sizeof(cmd),
		 "mkfs.ext4 -q -F %s >/dev/null 2>&1 && mount -o loop %s %s 2>/dev/null",
		 img, img, mount_point);
	if (system(cmd)) {
		unlink(img);
		rmdir(mount_point);
		mount_point[0] = '\0';
		return cow_skip("no ext4 on a loop device");
	}
	unlink(img);
	snprintf(cmd, sizeof(cmd), "%s/file", mount_point);
	return open(cmd, O_RDWR | O_CREAT, 0600);
}

static void close_ext4(void)
{
	if (!mount_point[0])
		return;
	umount2(mount_point, MNT_DETACH);
	rmdir(mount_point);
	mount_point[0] = '\0';
}

/* In the first process, before there is any other */
static long call_make(const long *arg)
{
	backing = arg[0];
	region_fd = -1;
	region_id = -1;
	switch (backing) {
	case SHM:
		return 0;
	case SYSV:
		region_id = shmget(IPC_PRIVATE, LEN, 0600);
		return region_id < 0;
	case MEMFD:
		region_fd = memfd_create("cow_pte", 0);
		break;
	case TMPFS:
		region_fd = cow_tmpfile();
		break;
	case EXT4:
		region_fd = open_ext4();
		break;
	}
	return region_fd < 0 || ftruncate(region_fd, LEN);
}

static long call_map(const long *arg)
{
	void *p;

	if (backing == SYSV)
		p = shmat(region_id, T(0), SHM_REMAP);
	else
		p = mmap(T(0), LEN, arg[0], MAP_SHARED | MAP_FIXED |
			 (backing == SHM ? MAP_ANONYMOUS : 0),
			 backing == SHM ? -1 : region_fd, 0);
	return p != T(0);
}

static long call_forget(const long *arg)
{
	if (region_id >= 0)
		shmctl(region_id, IPC_RMID, NULL);
	close_ext4();
	return 0;
}

static long call_write_all(const long *arg)
{
	unsigned int i;

	for (i = 0; i < NR_STEPS; i++)
		if (cow_try_write(PAGE_OF(i), i))
			return -1;
	return 0;
}

/* Every so many pages, and what became of it is written down */
static long call_write(const long *arg)
{
	long i;

	for (i = arg[0]; i < NR_STEPS; i += arg[1])
		cow_log("write", i, cow_try_write(PAGE_OF(i), i));
	return 0;
}

static long call_touch(const long *arg)
{
	unsigned int i;

	for (i = 0; i < NR_STEPS; i++)
		cow_peek(PAGE_OF(i));
	return 0;
}

static long call_log(const long *arg)
{
	unsigned int i;

	for (i = 0; i < NR_STEPS; i++)
		cow_log("read", (arg[0] << 16) + i, cow_peek(PAGE_OF(i)));
	return 0;
}

static long call_opt(const long *arg)
{
	return prctl(PR_SET_COW_PTE, arg[0], 0, 0, 0);
}

static void set_file_mode(const char *mode)
{
	if (cow_write_file(COW_SYSFS "file", mode))
		cow_fail("cannot write %s to " COW_SYSFS "file", mode);
}

static const char *unsupported(void)
{
	return access(COW_SYSFS "file", W_OK) ?
		"this kernel has no tables of files to share" : NULL;
}

static void must_join(enum cow_mode mode, long before, long least)
{
	long n = cow_vmstat("cow_pte_join") - before;

	if (mode == COW_ON && n < least)
		cow_fail("%ld tables joined, expected %ld", n, least);
}

/* The four of them; all have looked at every page */
static void race_start(void);

static const char *start(enum cow_mode mode, enum backing what)
{
	long before = cow_vmstat("cow_pte_join");
	bool stranger = what != SHM;
	unsigned int i;

	if (unsupported())
		return unsupported();
	race_start();
	running = mode;
	cow_world_start(mode);
	set_file_mode(mode == COW_ON ? "prctl" : "never");
	if (cow_call(FIRST, call_make, what))
		return world->skip[0] ? world->skip : "cannot make it";
	if (stranger)
		cow_fork(FIRST, COW_FORK);
	must(FIRST, call_map, RW, 0, "mapping");
	must(FIRST, call_write_all, 0, 0, "writing");
	if (stranger)
		must(STRANGER, call_map, RW, 0, "mapping");
	else
		cow_fork(FIRST, COW_FORK);
	cow_fork(FIRST, COW_FORK);
	cow_fork(CHILD, COW_THREADED);
	for (i = 0; i < NR_WHO; i++)
		must(i, call_touch, 0, 0, "reading");
	must_join(mode, before, (NR_WHO - 1) * TABLES);
	return NULL;
}

static void stop(void)
{
	unsigned int i;

	for (i = NR_WHO; i-- > 1; )
		if (cow_proc[i].alive)
			cow_exit(i);
	if (cow_proc[FIRST].alive)
		must(FIRST, call_forget, 0, 0, "forgetting");
	cow_world_stop();
	set_file_mode("never");
}

static void log_all(void)
{
	unsigned int i;

	for (i = 0; i < NR_WHO; i++)
		if (cow_proc[i].alive)
			cow_call(i, call_log, i);
}

/* Each writes some pages, and each sees what it and the others have written */
static void use(bool poisoned)
{
	unsigned int i;

	log_all();
	for (i = 0; i < NR_WHO; i++)
		if (cow_proc[i].alive)
			cow_call(i, call_write, i, NR_WHO + 1);
	log_all();
	/* What is poisoned smaps counts, and the counters do not */
	for (i = 0; i < NR_WHO; i++)
		if (cow_proc[i].alive && !poisoned)
			cow_check_rss(i);
}

/*
 * One operation by one of them
 */

static void op_munmap_table(void)
{
	DO(munmap(T(1), TABLE));
	/* Memory of its own in place of it */
	DO(mmap(T(1), TABLE, RW, ANON | MAP_FIXED, -1, 0) == T(1));
	DO(cow_try_write(T(1), 0));
}

static void op_munmap_page(void)
{
	DO(munmap(T(1) + 3 * STEP * PAGE, PAGE));
}

static void op_munmap_edge(void)
{
	DO(munmap(T(0), TABLE + 5 * STEP * PAGE));
}

static void op_munmap_all(void)
{
	DO(munmap(T(0), LEN));
}

static void op_map_fixed(void)
{
	DO(mmap(T(1) + STEP * PAGE, 4 * STEP * PAGE, RW, ANON | MAP_FIXED,
		-1, 0) == T(1) + STEP * PAGE);
	DO(cow_try_write(PAGE_OF(TABLE_PAGES / STEP + 2), 0));
}

static void op_mprotect_read(void)
{
	DO(mprotect(T(0) + STEP * PAGE, TABLE, PROT_READ));
}

static void op_mprotect_table(void)
{
	DO(mprotect(T(1), TABLE, PROT_READ));
}

static void op_mprotect_none(void)
{
	DO(mprotect(T(0), LEN, PROT_NONE));
}

static void op_mprotect_back(void)
{
	DO(mprotect(T(0), LEN, RW));
}

static void op_mremap(void)
{
	DO(mremap(T(1), TABLE, TABLE, MREMAP_MAYMOVE | MREMAP_FIXED, T(4)) ==
	   T(4));
	DO(cow_peek(T(4)));
	DO(cow_try_write(T(4) + STEP * PAGE, 0));
}

static void op_mremap_part(void)
{
	DO(mremap(T(1) + STEP * PAGE, 8 * STEP * PAGE, 8 * STEP * PAGE,
		  MREMAP_MAYMOVE | MREMAP_FIXED, T(4) + PAGE) == T(4) + PAGE);
	DO(cow_peek(T(4) + PAGE));
}

static void op_mremap_shrink(void)
{
	DO(mremap(T(0), LEN, TABLE + 5 * STEP * PAGE, 0) == T(0));
}

static void op_mremap_dontunmap(void)
{
	DO(mremap(T(1), TABLE, TABLE,
		  MREMAP_MAYMOVE | MREMAP_FIXED | MREMAP_DONTUNMAP, T(4)) == T(4));
	DO(cow_peek(T(4)));
}

/* What is tracked takes in what is not: others may write that without a fault */
static void op_mremap_into_next(void)
{
	size_t i;

	if (region_fd < 0)
		return;
	DO(munmap(T(1), 2 * TABLE));
	DO(cow_write_file("/proc/self/clear_refs", "4"));
	DO(mmap(T(2), TABLE, RW, MAP_SHARED | MAP_FIXED, region_fd, 2 * TABLE) ==
	   T(2));
	for (i = 0; i < TABLE_PAGES; i += STEP)
		DO(cow_peek(T(2) + i * PAGE));
	if (running == COW_ON && cow_smaps_field(T(2), "FilePTE") <= 0)
		cow_fail("the table was not joined");
	DO(mremap(T(0), TABLE, 2 * TABLE, 0) == T(0));
	DO(cow_smaps_field(T(2), "FilePTE"));
}

static void op_mremap_again(void)
{
	/* One more mapping of the same pages */
	DO(mremap(T(0), 0, TABLE, MREMAP_MAYMOVE | MREMAP_FIXED, T(4)) == T(4));
	DO(cow_peek(T(4)));
	DO(cow_try_write(T(4) + STEP * PAGE, 0));
}

static void op_mlock(void)
{
	DO(mlock(T(0) + STEP * PAGE, TABLE));
}

static void op_munlock(void)
{
	DO(munlock(T(0), LEN));
}

static void op_mlock_onfault(void)
{
	DO(mlock2(T(1), TABLE, MLOCK_ONFAULT));
}

static void op_mlockall(void)
{
	DO(mlockall(MCL_CURRENT));
}

static void op_munlockall(void)
{
	DO(munlockall());
}

static void op_advise_some(void)
{
	DO(madvise(T(0) + PAGE, TABLE, MADV_RANDOM));
	DO(madvise(T(1) + PAGE, PAGE, MADV_SEQUENTIAL));
	DO(madvise(T(2), PAGE, MADV_DONTDUMP));
	DO(madvise(T(2), LEN / TABLES, MADV_WILLNEED));
	DO(madvise(T(0), LEN, MADV_COLD));
	DO(madvise(T(0), LEN, MADV_FREE));
}

static void op_pageout(void)
{
	DO(madvise(T(0), LEN, MADV_PAGEOUT));
}

static void op_dontneed(void)
{
	DO(madvise(T(0), LEN, MADV_DONTNEED));
}

static void op_dontneed_part(void)
{
	DO(madvise(T(0) + STEP * PAGE, TABLE, MADV_DONTNEED));
}

static void op_dontfork(void)
{
	DO(madvise(T(1), TABLE, MADV_DONTFORK));
}

static void op_remove(void)
{
	DO(madvise(T(0) + STEP * PAGE, TABLE, MADV_REMOVE));
}

static void op_populate(void)
{
	DO(madvise(T(0), LEN, MADV_DONTNEED));
	DO(madvise(T(0), LEN, MADV_POPULATE_READ));
	DO(madvise(T(0), LEN, MADV_POPULATE_WRITE));
}

static void op_collapse(void)
{
	int err = madvise(T(0), TABLE, MADV_COLLAPSE) ? errno : 0;

	/* It may be so, or not, with any file */
	cow_log("collapse", 0, err == EINVAL || err == EAGAIN ? 0 : err);
}

static void op_mbind(void)
{
	unsigned long mask = 2;

	DO(syscall(SYS_mbind, T(0), LEN, MPOL_BIND, &mask, 64,
		   MPOL_MF_MOVE_ALL));
}

static void op_move_pages(void)
{
	void *page[NR_STEPS];
	int node[NR_STEPS], status[NR_STEPS];
	unsigned int i;

	for (i = 0; i < NR_STEPS; i++) {
		page[i] = PAGE_OF(i);
		node[i] = i % 2;
	}
	DO(syscall(SYS_move_pages, 0, (long)NR_STEPS, page, node, status,
		   MPOL_MF_MOVE_ALL));
	for (i = 0; i < NR_STEPS; i++)
		cow_log("node", i, status[i]);
}

static void op_clear_refs(void)
{
	DO(cow_write_file("/proc/self/clear_refs", "1"));
}

static void op_clear_soft_dirty(void)
{
	unsigned int i;

	DO(cow_write_file("/proc/self/clear_refs", "4"));
	DO(cow_try_write(PAGE_OF(3), 3));
	for (i = 0; i < NR_STEPS; i++)
		cow_log("soft-dirty", i,
			!!(cow_pagemap(getpid(), PAGE_OF(i)) & PM_SOFT_DIRTY));
}

/* What the others have written since is not for this one to see */
static void op_soft_dirty_again(void)
{
	unsigned int i;

	for (i = 0; i < NR_STEPS; i++)
		cow_log("soft-dirty", i,
			!!(cow_pagemap(getpid(), PAGE_OF(i)) & PM_SOFT_DIRTY));
}

static void op_truncate(void)
{
	if (region_fd < 0)
		return;
	DO(ftruncate(region_fd, TABLE + 5 * STEP * PAGE));
}

static void op_extend(void)
{
	if (region_fd < 0)
		return;
	DO(ftruncate(region_fd, LEN));
}

static void op_punch(void)
{
	if (region_fd < 0)
		return;
	DO(fallocate(region_fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
		     STEP * PAGE, TABLE));
}

static void op_punch_page(void)
{
	if (region_fd < 0)
		return;
	DO(fallocate(region_fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
		     TABLE + 2 * STEP * PAGE, STEP * PAGE));
}

/* The others have a table in common, and this one has its own: it has two VMAs there */
static void op_punch_own(void)
{
	DO(mprotect(T(1), PAGE, PROT_READ));
	DO(cow_peek(T(1) + 2 * STEP * PAGE));
	op_punch_page();
}

static void op_write_file(void)
{
	static char buf[2 * PAGE];

	if (region_fd < 0)
		return;
	DO(pwrite(region_fd, buf, sizeof(buf), STEP * PAGE));
}

static void op_sync(void)
{
	DO(msync(T(0), LEN, MS_SYNC));
	if (region_fd >= 0)
		DO(fsync(region_fd));
}

static void op_uffd(void)
{
	struct uffdio_api api = { .api = UFFD_API };
	struct uffdio_register reg = {
		.range = { (unsigned long)T(0), TABLE },
		.mode = UFFDIO_REGISTER_MODE_MISSING,
	};
	int fd = syscall(SYS_userfaultfd, O_CLOEXEC);

	DO(fd >= 0);
	DO(ioctl(fd, UFFDIO_API, &api));
	DO(ioctl(fd, UFFDIO_REGISTER, &reg));
	DO(ioctl(fd, UFFDIO_UNREGISTER, &reg.range));
	DO(close(fd));
}

static void op_poison(void)
{
	DO(madvise(PAGE_OF(2), PAGE, MADV_HWPOISON));
}

static void op_soft_offline(void)
{
	DO(madvise(PAGE_OF(2), PAGE, MADV_SOFT_OFFLINE));
}

static void op_remap_file_pages(void)
{
	DO(remap_file_pages(T(1), STEP * PAGE, 0, 4, 0));
}

static void op_shmdt(void)
{
	if (region_id >= 0)
		DO(shmdt(T(0)));
}

FIXTURE(op) {
};

FIXTURE_VARIANT(op) {
	void (*run)(void);
	void (*finish)(void);
};

FIXTURE_SETUP(op) {}
FIXTURE_TEARDOWN(op) {}

#define DOES(name)	.run = op_##name

FIXTURE_VARIANT_ADD(op, munmap_table) { DOES(munmap_table) };
FIXTURE_VARIANT_ADD(op, munmap_page) { DOES(munmap_page) };
FIXTURE_VARIANT_ADD(op, munmap_edge) { DOES(munmap_edge) };
FIXTURE_VARIANT_ADD(op, munmap_all) { DOES(munmap_all) };
FIXTURE_VARIANT_ADD(op, map_fixed) { DOES(map_fixed) };
FIXTURE_VARIANT_ADD(op, mprotect_read) { DOES(mprotect_read), .finish = op_mprotect_back };
FIXTURE_VARIANT_ADD(op, mprotect_table) { DOES(mprotect_table), .finish = op_mprotect_back };
FIXTURE_VARIANT_ADD(op, mprotect_none) { DOES(mprotect_none), .finish = op_mprotect_back };
FIXTURE_VARIANT_ADD(op, mremap) { DOES(mremap) };
FIXTURE_VARIANT_ADD(op, mremap_part) { DOES(mremap_part) };
FIXTURE_VARIANT_ADD(op, mremap_shrink) { DOES(mremap_shrink) };
FIXTURE_VARIANT_ADD(op, mremap_dontunmap) { DOES(mremap_dontunmap) };
FIXTURE_VARIANT_ADD(op, mremap_into_next) { DOES(mremap_into_next) };
FIXTURE_VARIANT_ADD(op, mremap_again) { DOES(mremap_again) };
FIXTURE_VARIANT_ADD(op, mlock) { DOES(mlock), .finish = op_munlock };
FIXTURE_VARIANT_ADD(op, mlock_onfault) { DOES(mlock_onfault), .finish = op_munlock };
FIXTURE_VARIANT_ADD(op, mlockall) { DOES(mlockall), .finish = op_munlockall };
FIXTURE_VARIANT_ADD(op, advise_some) { DOES(advise_some) };
FIXTURE_VARIANT_ADD(op, pageout) { DOES(pageout) };
FIXTURE_VARIANT_ADD(op, dontneed) { DOES(dontneed) };
FIXTURE_VARIANT_ADD(op, dontneed_part) { DOES(dontneed_part) };
FIXTURE_VARIANT_ADD(op, dontfork) { DOES(dontfork) };
FIXTURE_VARIANT_ADD(op, remove) { DOES(remove) };
FIXTURE_VARIANT_ADD(op, populate) { DOES(populate) };
FIXTURE_VARIANT_ADD(op, collapse) { DOES(collapse) };
FIXTURE_VARIANT_ADD(op, mbind) { DOES(mbind) };
FIXTURE_VARIANT_ADD(op, move_pages) { DOES(move_pages) };
FIXTURE_VARIANT_ADD(op, clear_refs) { DOES(clear_refs) };
FIXTURE_VARIANT_ADD(op, clear_soft_dirty) { DOES(clear_soft_dirty), .finish = op_soft_dirty_again };
FIXTURE_VARIANT_ADD(op, truncate) { DOES(truncate), .finish = op_extend };
FIXTURE_VARIANT_ADD(op, punch) { DOES(punch) };
FIXTURE_VARIANT_ADD(op, punch_page) { DOES(punch_page) };
FIXTURE_VARIANT_ADD(op, punch_own) { DOES(punch_own), .finish = op_mprotect_back };
FIXTURE_VARIANT_ADD(op, write_file) { DOES(write_file) };
FIXTURE_VARIANT_ADD(op, sync) { DOES(sync) };
FIXTURE_VARIANT_ADD(op, uffd) { DOES(uffd) };
FIXTURE_VARIANT_ADD(op, poison) { DOES(poison) };
FIXTURE_VARIANT_ADD(op, soft_offline) { DOES(soft_offline) };
FIXTURE_VARIANT_ADD(op, remap_file_pages) { DOES(remap_file_pages) };
FIXTURE_VARIANT_ADD(op, shmdt) { DOES(shmdt) };

struct op_case {
	void (*run)(void);
	void (*finish)(void);
	enum backing backing;
	enum who who;
};

static long call_op(const long *arg)
{
	const struct op_case *oc = (void *)arg[0];

	if (arg[1])
		oc->finish();
	else
		oc->run();
	return 0;
}

static const char *run_op(enum cow_mode mode, const void *arg)
{
	const struct op_case *oc = arg;
	const char *why = start(mode, oc->backing);
	unsigned int child;

	if (why)
		return why;
	cow_call(oc->who, call_op, (long)oc, 0);
	use(oc->run == op_poison);
	if (oc->finish) {
		cow_call(oc->who, call_op, (long)oc, 1);
		use(false);
	}
	/* Who comes later; a poisoned page it gets from the disk again */
	child = cow_fork(oc->who, COW_FORK);
	cow_call(child, call_log, child);
	cow_exit(child);
	stop();
	return NULL;
}

TEST_F_TIMEOUT(op, SHM_FIRST, 120)
{
	struct op_case oc = { variant->run, variant->finish, SHM, FIRST };

	COW_REPORT(cow_run(run_op, &oc));
}

TEST_F_TIMEOUT(op, MEMFD_STRANGER, 120)
{
	struct op_case oc = { variant->run, variant->finish, MEMFD, STRANGER };

	COW_REPORT(cow_run(run_op, &oc));
}

TEST_F_TIMEOUT(op, SYSV_CHILD, 120)
{
	struct op_case oc = { variant->run, variant->finish, SYSV, CHILD };

	COW_REPORT(cow_run(run_op, &oc));
}

TEST_F_TIMEOUT(op, TMPFS_GRANDCHILD, 120)
{
	struct op_case oc = { variant->run, variant->finish, TMPFS, GRANDCHILD };

	COW_REPORT(cow_run(run_op, &oc));
}

TEST_F_TIMEOUT(op, EXT4_STRANGER, 120)
{
	struct op_case oc = { variant->run, variant->finish, EXT4, STRANGER };

	COW_REPORT(cow_run(run_op, &oc));
}

/*
 * Who shares with whom
 */

/* Tables of the region in common, by what the kernel counts */
static const char *run_tables(enum cow_mode mode, const void *arg)
{
	long published = cow_vmstat("cow_pte_publish");
	const char *why = start(mode, *(const enum backing *)arg);

	if (why)
		return why;
	published = cow_vmstat("cow_pte_publish") - published;
	if (published != (mode == COW_ON ? TABLES : 0))
		cow_fail("%ld tables published", published);
	use(false);
	/* The last one that has them keeps them */
	cow_exit(FIRST);
	use(false);
	cow_exit(CHILD);
	cow_exit(STRANGER);
	use(false);
	stop();
	return NULL;
}

/* What /proc says of it is what it would say of tables of their own */
static long call_log_smaps(const long *arg)
{
	static const char * const name[] = {
		"Rss", "Pss", "Pss_Dirty", "Shared_Clean", "Shared_Dirty",
		"Private_Clean", "Private_Dirty", "Referenced", "Anonymous",
		"Swap", "Locked",
	};
	unsigned long start, end;
	char line[256];
	bool ours = false;
	unsigned int i;
	long kb;
	FILE *f = fopen("/proc/self/smaps", "re");

	if (!f)
		return -1;
	while (fgets(line, sizeof(line), f)) {
		if (sscanf(line, "%lx-%lx ", &start, &end) == 2)
			ours = (char *)start >= T(0) && (char *)start < T(TABLES);
		for (i = 0; ours && i < ARRAY_LEN(name); i++) {
			size_t len = strlen(name[i]);

			if (!strncmp(line, name[i], len) && line[len] == ':' &&
			    sscanf(line + len + 1, "%ld", &kb) == 1)
				cow_log(name[i], i, kb);
		}
	}
	fclose(f);
	return 0;
}

/* What it says of the tables themselves; an untouched kernel says nothing */
static void must_report(enum cow_mode mode, unsigned int proc)
{
	/* The tests have other shared memory, which may be such a mapping, too */
	long want = mode == COW_ON ? TABLES * (long)(PAGE / 1024) : 0;
	pid_t pid = cow_proc[proc].pid;
	char path[64];
	long all = cow_status(pid, "VmFilePTE"), kb;

	if (all < want || (!want && all))
		cow_fail("process %u: VmFilePTE is %ld kB, expected %ld", proc,
			 all, want);
	snprintf(path, sizeof(path), "/proc/%d/smaps_rollup", pid);
	kb = cow_read_field(path, "FilePTE");
	if (kb != all)
		cow_fail("process %u: FilePTE is %ld kB, VmFilePTE %ld", proc,
			 kb, all);
}

static long call_log_pagemap(const long *arg)
{
	unsigned int i;

	for (i = 0; i < NR_STEPS; i++)
		cow_log("pagemap", i, cow_pagemap(getpid(), PAGE_OF(i)) &
				      ~PM_PFN_MASK);
	return 0;
}

static long call_populate(const long *arg)
{
	return madvise(T(0), LEN, arg[0]);
}

static const char *run_told(enum cow_mode mode, const void *arg)
{
	const char *why = start(mode, *(const enum backing *)arg);
	unsigned int i;

	if (why)
		return why;
	/* What else faults map depends on who takes them */
	must(FIRST, call_populate, MADV_POPULATE_WRITE, 0, "populating");
	for (i = 0; i < NR_WHO; i++)
		must(i, call_populate, MADV_POPULATE_READ, 0, "populating");
	for (i = 0; i < NR_WHO; i++) {
		must(i, call_log_smaps, 0, 0, "smaps");
		must(i, call_log_pagemap, 0, 0, "pagemap");
		must_report(mode, i);
		cow_check_rss(i);
	}
	cow_exit(STRANGER);
	for (i = 0; i < NR_WHO; i++)
		if (i != STRANGER)
			must(i, call_log_smaps, 0, 0, "smaps");
	stop();
	return NULL;
}

static long call_track(const long *arg)
{
	return cow_write_file("/proc/self/clear_refs", "4");
}

static long call_log_soft_dirty(const long *arg)
{
	op_soft_dirty_again();
	return 0;
}

/* Who tracks what he writes is told that, and not what others write who do so, too */
static const char *run_tracked(enum cow_mode mode, const void *arg)
{
	const char *why = start(mode, *(const enum backing *)arg);
	unsigned int i;

	if (why)
		return why;
	for (i = 0; i < NR_WHO; i++)
		must(i, call_track, 0, 0, "clear_refs");
	use(false);
	for (i = 0; i < NR_WHO; i++)
		must(i, call_log_soft_dirty, 0, 0, "pagemap");
	stop();
	return NULL;
}

/* Nobody can tell from the tables of others what they read of a file */
static long call_open_readonly(const long *arg)
{
	char path[64];
	int fd;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", region_fd);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -1;
	region_fd = fd;
	return 0;
}

static const char *run_readonly(enum cow_mode mode, const void *arg)
{
	long joins, published;

	if (unsupported())
		return unsupported();
	cow_world_start(mode);
	set_file_mode("prctl");
	must(FIRST, call_make, TMPFS, 0, "making");
	must(FIRST, call_map, RW, 0, "mapping");
	must(FIRST, call_write_all, 0, 0, "writing");
	must(FIRST, call_open_readonly, 0, 0, "opening");
	/* No relatives: each has opted in after the fork */
	must(FIRST, call_opt, 0, 0, "prctl");
	cow_fork(FIRST, COW_FORK);
	must(FIRST, call_opt, mode == COW_ON, 0, "prctl");
	must(STRANGER, call_opt, mode == COW_ON, 0, "prctl");
	published = cow_vmstat("cow_pte_publish");
	must(FIRST, call_map, PROT_READ, 0, "mapping");
	must(STRANGER, call_map, PROT_READ, 0, "mapping");
	must(FIRST, call_touch, 0, 0, "reading");
	must(STRANGER, call_touch, 0, 0, "reading");
	if (cow_vmstat("cow_pte_publish") != published)
		cow_fail("tables of read-only mappings published without a family");
	/* A child may know of its parent what it could see before */
	cow_fork(FIRST, COW_FORK);
	must(FIRST, call_map, PROT_READ, 0, "mapping again");
	must(FIRST, call_touch, 0, 0, "reading");
	joins = cow_vmstat("cow_pte_join");
	must(CHILD, call_map, PROT_READ, 0, "mapping again");
	must(CHILD, call_touch, 0, 0, "reading");
	if (mode == COW_ON && cow_vmstat("cow_pte_join") - joins != TABLES)
		cow_fail("the child has not joined its parent's tables");
	joins = cow_vmstat("cow_pte_join");
	must(STRANGER, call_map, PROT_READ, 0, "mapping again");
	must(STRANGER, call_touch, 0, 0, "reading");
	if (cow_vmstat("cow_pte_join") != joins)
		cow_fail("a stranger has joined tables of a read-only mapping");
	cow_world_stop();
	set_file_mode("never");
	return NULL;
}

/* Who has not opted in has no part in it */
static const char *run_opted_out(enum cow_mode mode, const void *arg)
{
	long joins;

	if (unsupported())
		return unsupported();
	cow_world_start(mode);
	set_file_mode("prctl");
	must(FIRST, call_make, MEMFD, 0, "making");
	cow_fork(FIRST, COW_FORK);
	must(STRANGER, call_opt, 0, 0, "prctl");
	must(FIRST, call_map, RW, 0, "mapping");
	must(FIRST, call_write_all, 0, 0, "writing");
	joins = cow_vmstat("cow_pte_join");
	must(STRANGER, call_map, RW, 0, "mapping");
	must(STRANGER, call_touch, 0, 0, "reading");
	if (cow_vmstat("cow_pte_join") != joins)
		cow_fail("joined without having opted in");
	cow_world_stop();
	set_file_mode("never");
	return NULL;
}

FIXTURE(tables) {
};

FIXTURE_VARIANT(tables) {
	enum backing backing;
};

FIXTURE_SETUP(tables) {}
FIXTURE_TEARDOWN(tables) {}

FIXTURE_VARIANT_ADD(tables, shm) { .backing = SHM };
FIXTURE_VARIANT_ADD(tables, memfd) { .backing = MEMFD };
FIXTURE_VARIANT_ADD(tables, sysv) { .backing = SYSV };
FIXTURE_VARIANT_ADD(tables, tmpfs) { .backing = TMPFS };
FIXTURE_VARIANT_ADD(tables, ext4) { .backing = EXT4 };

TEST_F_TIMEOUT(tables, shared, 120)
{
	enum backing what = variant->backing;

	COW_REPORT(cow_run(run_tables, &what));
}

TEST_F_TIMEOUT(tables, told, 120)
{
	enum backing what = variant->backing;

	COW_REPORT(cow_run(run_told, &what));
}

/* That somebody has the file at an address is not for everybody to find out */
static long call_setuid(const long *arg)
{
	return setgid(arg[0]) || setuid(arg[0]) ||
	       prctl(PR_SET_DUMPABLE, arg[1], 0, 0, 0);
}

static const char *run_other_user(enum cow_mode mode, const void *arg)
{
	bool dumpable = *(const bool *)arg;
	long joins;

	if (unsupported())
		return unsupported();
	cow_world_start(mode);
	set_file_mode("prctl");
	must(FIRST, call_make, MEMFD, 0, "making");
	/* No relatives */
	must(FIRST, call_opt, 0, 0, "prctl");
	cow_fork(FIRST, COW_FORK);
	cow_fork(FIRST, COW_FORK);
	must(FIRST, call_opt, mode == COW_ON, 0, "prctl");
	must(STRANGER, call_opt, mode == COW_ON, 0, "prctl");
	must(CHILD, call_opt, mode == COW_ON, 0, "prctl");
	must(FIRST, call_map, RW, 0, "mapping");
	must(FIRST, call_write_all, 0, 0, "writing");
	must(STRANGER, call_setuid, dumpable ? 65534 : 0, dumpable, "setuid");
	joins = cow_vmstat("cow_pte_join");
	must(STRANGER, call_map, RW, 0, "mapping");
	must(STRANGER, call_touch, 0, 0, "reading");
	if (cow_vmstat("cow_pte_join") != joins)
		cow_fail("joined the tables of another user");
	/* As he would have, who is the same user */
	must(CHILD, call_map, RW, 0, "mapping");
	must(CHILD, call_touch, 0, 0, "reading");
	if (mode == COW_ON && cow_vmstat("cow_pte_join") - joins != TABLES)
		cow_fail("has not joined");
	cow_world_stop();
	set_file_mode("never");
	return NULL;
}

TEST_F_TIMEOUT(tables, tracked, 120)
{
	enum backing what = variant->backing;

	COW_REPORT(cow_run(run_tracked, &what));
}

FIXTURE(with_whom) {
};

FIXTURE_SETUP(with_whom) {}
FIXTURE_TEARDOWN(with_whom) {}

TEST_F_TIMEOUT(with_whom, readonly_family_only, 120)
{
	COW_REPORT(cow_run_once(run_readonly, NULL));
}

TEST_F_TIMEOUT(with_whom, not_opted_in, 120)
{
	COW_REPORT(cow_run_once(run_opted_out, NULL));
}

TEST_F_TIMEOUT(with_whom, not_another_user, 120)
{
	bool dumpable = true;

	COW_REPORT(cow_run_once(run_other_user, &dumpable));
}

TEST_F_TIMEOUT(with_whom, not_who_keeps_to_himself, 120)
{
	bool dumpable = false;

	COW_REPORT(cow_run_once(run_other_user, &dumpable));
}

/*
 * Races.  Each process has a worker, which maps what it maps.
 */

static struct race {
	atomic_bool stop;
	__u64 count[NR_WHO][NR_STEPS];
} *race;

static __u64 *counter(unsigned int who, unsigned int i)
{
	return (__u64 *)(PAGE_OF(i) + (who + 1) * 64);
}

/* Before there are processes, for all to have it */
static void race_start(void)
{
	if (!race)
		race = mmap(NULL, sizeof(*race), RW, MAP_SHARED | MAP_ANONYMOUS,
			    -1, 0);
	if (race == MAP_FAILED)
		cow_fail("mmap: %s", strerror(errno));
	memset(race, 0, sizeof(*race));
}

static void count_up(unsigned int who)
{
	unsigned int i;

	while (!race->stop)
		for (i = who; i < NR_STEPS; i += 3) {
			__atomic_fetch_add(counter(who, i), 1, __ATOMIC_RELAXED);
			race->count[who][i]++;
		}
}

/* Part of the region, by whole pages */
static void random_part(__u64 *seed, char **addr, size_t *len)
{
	unsigned long first = cow_random(seed) % (LEN / PAGE);
	unsigned long nr = 1 + cow_random(seed) % (LEN / PAGE - first);

	/* Tables as a whole, too */
	if (cow_random(seed) % 2) {
		first &= ~(TABLE_PAGES - 1);
		nr = TABLE_PAGES;
	}
	*addr = T(0) + first * PAGE;
	*len = nr * PAGE;
}

static void touch_some(__u64 *seed)
{
	unsigned int i;

	for (i = 0; i < 8; i++) {
		unsigned int nr = cow_random(seed) % NR_STEPS;

		if (cow_random(seed) % 2)
			cow_peek(PAGE_OF(nr));
		else
			cow_try_write(PAGE_OF(nr), nr);
	}
}

static void come_and_go(unsigned int who)
{
	__u64 seed = 1 + who;
	size_t len;
	char *addr;
	pid_t pid;

	while (!race->stop) {
		random_part(&seed, &addr, &len);
		touch_some(&seed);
		switch (cow_random(&seed) % 8) {
		case 0:
			madvise(addr, len, MADV_DONTNEED);
			break;
		case 1:
			mprotect(addr, len, PROT_READ);
			touch_some(&seed);
			mprotect(T(0), LEN, RW);
			break;
		case 2:
			munmap(addr, len);
			if (mmap(addr, len, RW, MAP_SHARED | MAP_FIXED,
				 region_fd, addr - T(0)) != addr)
				_exit(1);
			break;
		case 3:
			pid = fork();
			if (!pid) {
				touch_some(&seed);
				_exit(0);
			}
			waitpid(pid, NULL, 0);
			break;
		case 4:
			mlock(addr, len);
			munlock(T(0), LEN);
			break;
		case 5:
			if (mremap(addr, len, len, MREMAP_MAYMOVE | MREMAP_FIXED,
				   T(TABLES)) != T(TABLES))
				break;
			if (mremap(T(TABLES), len, len,
				   MREMAP_MAYMOVE | MREMAP_FIXED, addr) != addr)
				_exit(1);
			break;
		case 6:
			madvise(addr, len, MADV_RANDOM);
			touch_some(&seed);
			madvise(T(0), LEN, MADV_NORMAL);
			break;
		}
	}
}

static pid_t worker;

static long call_start_worker(const long *arg)
{
	worker = fork();
	if (worker)
		return worker < 0;
	if (arg[1])
		come_and_go(arg[0]);
	else
		count_up(arg[0]);
	_exit(0);
}

static long call_stop_worker(const long *arg)
{
	int status;

	if (waitpid(worker, &status, 0) != worker)
		return -1;
	errno = 0;
	return status;
}

static void start_workers(bool come)
{
	unsigned int i;

	for (i = 0; i < NR_WHO; i++)
		must(i, call_start_worker, i, come, "starting a worker");
}

static void stop_workers(void)
{
	unsigned int i;

	race->stop = true;
	for (i = 0; i < NR_WHO; i++)
		must(i, call_stop_worker, 0, 0, "a worker");
}

static long call_disturb(const long *arg)
{
	void *page[NR_STEPS];
	int node[NR_STEPS], status[NR_STEPS];
	unsigned int i;

	switch (arg[0]) {
	case 0:
		msync(T(0), LEN, MS_SYNC);
		fsync(region_fd);
		break;
	case 1:
		for (i = 0; i < NR_STEPS; i++) {
			page[i] = PAGE_OF(i);
			node[i] = cow_random((__u64 *)arg[1]) % 2;
		}
		syscall(SYS_move_pages, 0, (long)NR_STEPS, page, node, status,
			MPOL_MF_MOVE_ALL);
		break;
	case 2:
		cow_cgroup_reclaim(4);
		break;
	case 3:
		madvise(T(0), LEN, MADV_DONTNEED);
		break;
	case 4:
		madvise(T(1), PAGE, MADV_RANDOM);
		madvise(T(0), LEN, MADV_NORMAL);
		break;
	}
	return 0;
}

static long call_check_counts(const long *arg)
{
	unsigned int who, i;
	__u64 val;

	for (who = 0; who < NR_WHO; who++)
		for (i = who; i < NR_STEPS; i += 3) {
			if (*counter(who, i) != race->count[who][i])
				return i + 1;
			if (pread(region_fd, &val, sizeof(val),
				  (char *)counter(who, i) - T(0)) != sizeof(val) ||
			    val != race->count[who][i])
				return i + 1;
		}
	return 0;
}

static long call_enter_cgroup(const long *arg)
{
	return cow_cgroup_enter(32);
}

/* Written by all of them at once, while the kernel cleans, moves and takes it */
static const char *run_no_write_lost(enum cow_mode mode, const void *arg)
{
	const char *why = start(mode, *(const enum backing *)arg);
	__u64 seed = 1;
	unsigned int i;

	if (why)
		return why;
	for (i = 0; i < NR_WHO; i++)
		if (cow_call(i, call_enter_cgroup, 0))
			cow_fail("%s", world->skip);
	start_workers(false);
	for (i = 0; i < 40; i++)
		cow_call(i % NR_WHO, call_disturb, cow_random(&seed) % 5,
			 (long)&seed);
	stop_workers();
	cow_call(FIRST, call_disturb, 0);
	cow_call(FIRST, call_disturb, 2);
	for (i = 0; i < NR_WHO; i++) {
		long bad = cow_call(i, call_check_counts, 0);

		if (bad)
			cow_fail("process %u: page %ld has lost writes", i, bad - 1);
	}
	stop();
	return NULL;
}

/* One page, without a pause, on a processor of its own */
static void write_on(void)
{
	__u64 *word = counter(STRANGER, 0);

	cow_use_cpu(1);
	while (!race->stop)
		__atomic_fetch_add(word, 1, __ATOMIC_RELAXED);
}

static long call_write_on(const long *arg)
{
	worker = fork();
	if (worker)
		return worker < 0;
	write_on();
	_exit(0);
}

/* Of /proc/kpageflags: dirty, under writeback */
#define KPF_TO_WRITE	0x110

/*
 * What is written after the file was synchronised has made the page dirty before.
 * Returns how often it had not.
 */
static long call_sync_and_look(const long *arg)
{
	__u64 pfn = cow_pagemap(getpid(), PAGE_OF(0)) & PM_PFN_MASK;
	int kpageflags = open("/proc/kpageflags", O_RDONLY | O_CLOEXEC);
	__u64 *word = counter(STRANGER, 0);
	__u64 before, flags;
	long missed = 0;
	unsigned int i;

	if (kpageflags < 0)
		return -1;
	cow_use_cpu(0);
	for (i = 0; i < 50; i++) {
		if (fsync(region_fd))
			return -1;
		before = __atomic_load_n(word, __ATOMIC_RELAXED);
		while (__atomic_load_n(word, __ATOMIC_RELAXED) == before)
			;
		if (pread(kpageflags, &flags, sizeof(flags), pfn * 8) != sizeof(flags))
			return -1;
		missed += !(flags & KPF_TO_WRITE);
	}
	close(kpageflags);
	return missed;
}

static const char *run_clean(enum cow_mode mode, const void *arg)
{
	const char *why = start(mode, EXT4);
	const bool *few = arg;
	long missed;

	if (why)
		return why;
	/* So few are flushed one by one */
	if (*few) {
		cow_exit(GRANDCHILD);
		cow_exit(CHILD);
	}
	must(STRANGER, call_write_on, 0, 0, "starting a worker");
	missed = cow_call(FIRST, call_sync_and_look, 0);
	race->stop = true;
	must(STRANGER, call_stop_worker, 0, 0, "the worker");
	if (missed)
		cow_fail("written %ld times and not dirty", missed);
	stop();
	return NULL;
}

static long call_cut(const long *arg)
{
	if (arg[0] % 3)
		fallocate(region_fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
			  (arg[0] % TABLE_PAGES) * PAGE, TABLE + 7 * PAGE);
	else
		ftruncate(region_fd, (arg[0] % (LEN / PAGE)) * PAGE);
	return ftruncate(region_fd, LEN);
}

/* Tables joined and left all the time, while the file is cut and grows again */
static const char *run_come_and_go(enum cow_mode mode, const void *arg)
{
	const char *why = start(mode, *(const enum backing *)arg);
	__u64 seed = 1;
	unsigned int i;

	if (why)
		return why;
	start_workers(true);
	for (i = 0; i < 150; i++)
		must(i % NR_WHO, call_cut, cow_random(&seed) % 10000, 0, "cutting");
	stop_workers();
	must(FIRST, call_write_all, 0, 0, "writing");
	use(false);
	stop();
	return NULL;
}

/* Another thread, which does nothing but read */
static struct {
	__u64 *word;
	atomic_ulong seen;
	atomic_ulong loops;
	atomic_bool stop;
} reader;

static void *read_on(void *arg)
{
	cow_use_cpu(1);
	while (!reader.stop) {
		reader.seen = __atomic_load_n(reader.word, __ATOMIC_RELAXED);
		reader.loops++;
	}
	return NULL;
}

static void reader_wait(void)
{
	unsigned long loops = reader.loops;

	/* What it reads next may have been under way */
	while (reader.loops < loops + 2)
		;
}

/*
 * Other memory takes the place of the file's.  Returns how often the thread has not
 * seen it.
 */
static long call_replace(const long *arg)
{
	pthread_t thread;
	long missed = 0;
	unsigned int i;

	reader.word = (__u64 *)T(1);
	reader.stop = false;
	cow_use_cpu(0);
	if (pthread_create(&thread, NULL, read_on, NULL))
		return -1;
	for (i = 0; i < 30; i++) {
		if (mmap(T(1), TABLE, RW, MAP_SHARED | MAP_FIXED, region_fd,
			 TABLE) != T(1))
			return -1;
		reader_wait();
		if (mmap(T(1), TABLE, RW, ANON | MAP_FIXED, -1, 0) != T(1))
			return -1;
		__atomic_store_n(reader.word, 1, __ATOMIC_RELAXED);
		reader_wait();
		missed += reader.seen != 1;
	}
	reader.stop = true;
	pthread_join(thread, NULL);
	return missed;
}

static const char *run_replace(enum cow_mode mode, const void *arg)
{
	const char *why = start(mode, MEMFD);
	long missed;

	if (why)
		return why;
	missed = cow_call(STRANGER, call_replace, 0);
	if (missed)
		cow_fail("a thread went on using the file's page %ld times", missed);
	use(false);
	stop();
	return NULL;
}

FIXTURE(stale) {
};

FIXTURE_SETUP(stale) {}
FIXTURE_TEARDOWN(stale) {}

TEST_F_TIMEOUT(stale, after_it_was_replaced, 120)
{
	COW_REPORT(cow_run(run_replace, NULL));
}

FIXTURE(clean) {
};

FIXTURE_VARIANT(clean) {
	bool few;
};

FIXTURE_SETUP(clean) {}
FIXTURE_TEARDOWN(clean) {}

FIXTURE_VARIANT_ADD(clean, many) { .few = false };
FIXTURE_VARIANT_ADD(clean, few) { .few = true };

TEST_F_TIMEOUT(clean, written_again_is_dirty, 120)
{
	bool few = variant->few;

	COW_REPORT(cow_run_once(run_clean, &few));
}

FIXTURE(race) {
};

FIXTURE_VARIANT(race) {
	enum backing backing;
};

FIXTURE_SETUP(race) {}
FIXTURE_TEARDOWN(race) {}

FIXTURE_VARIANT_ADD(race, memfd) { .backing = MEMFD };
FIXTURE_VARIANT_ADD(race, ext4) { .backing = EXT4 };

TEST_F_TIMEOUT(race, no_write_lost, 300)
{
	enum backing what = variant->backing;

	COW_REPORT(cow_run_once(run_no_write_lost, &what));
}

TEST_F_TIMEOUT(race, come_and_go, 300)
{
	enum backing what = variant->backing;

	COW_REPORT(cow_run_once(run_come_and_go, &what));
}

int main(int argc, char **argv)
{
	cow_main_start();
	return test_harness_run(argc, argv);
}
