// SPDX-License-Identifier: GPL-2.0
/* userfaultfd, and the bits that tell who touched what; see cow_pte_op.h */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdalign.h>
#include <stdlib.h>
#include <string.h>
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "kselftest_harness.h"
#include "cow_pte_op.h"

/* Newer than the oldest headers these tests build with */
#define FEATURE_WP_UNPOPULATED	0x2000
#define FEATURE_POISON		0x4000
#define FEATURE_WP_ASYNC	0x8000
#define FEATURE_MOVE		0x10000

struct move_arg {
	__u64 dst, src, len, mode;
	__s64 move;
};

struct poison_arg {
	__u64 start, len, mode;
	__s64 updated;
};

#define IOC_MOVE	_IOWR(UFFDIO, 0x05, struct move_arg)
#define IOC_POISON	_IOWR(UFFDIO, 0x08, struct poison_arg)

/* userfaultfd: always unregistered in the end, nobody serves its faults */

static int open_uffd(__u64 features)
{
	struct uffdio_api api = { .api = UFFD_API, .features = features };
	int fd = syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);

	if (fd < 0 || ioctl(fd, UFFDIO_API, &api)) {
		cow_skip("userfaultfd features %#llx: %s",
			 features, strerror(errno));
		return -1;
	}
	return fd;
}

static int uffd_register(int fd, void *addr, size_t len, __u64 mode)
{
	struct uffdio_register reg = {
		.range = { (uintptr_t)addr, len },
		.mode = mode,
	};

	return ioctl(fd, UFFDIO_REGISTER, &reg);
}

static int uffd_protect(int fd, void *addr, size_t len, __u64 mode)
{
	struct uffdio_writeprotect wp = {
		.range = { (uintptr_t)addr, len },
		.mode = mode,
	};

	return ioctl(fd, UFFDIO_WRITEPROTECT, &wp);
}

static void op_uffd_register(void)
{
	int fd = open_uffd(0);

	if (fd < 0)
		return;
	DO(uffd_register(fd, T(0), TABLE, UFFDIO_REGISTER_MODE_MISSING));
	/* Not the empty entries: nobody would serve the fault */
	cow_log_pages("registered", T(0), TABLE, 8);
	close(fd);
}

static void op_uffd_copy(void)
{
	alignas(PAGE) char buf[PAGE];
	struct uffdio_copy copy = {
		.src = (uintptr_t)buf, .len = PAGE,
	};
	int fd = open_uffd(0);

	if (fd < 0)
		return;
	cow_fill_page(buf, cow_next_stamp(cow_self, 0));
	DO(uffd_register(fd, T(1), TABLE, UFFDIO_REGISTER_MODE_MISSING));
	/* Into an empty entry and over a page */
	copy.dst = (uintptr_t)(T(1) + PAGE);
	DO(ioctl(fd, UFFDIO_COPY, &copy));
	copy.dst = (uintptr_t)T(1);
	DO(ioctl(fd, UFFDIO_COPY, &copy));
	close(fd);
	cow_log_pages("copied", T(1), 4 * PAGE, 1);
}

static void op_uffd_zeropage(void)
{
	struct uffdio_zeropage zero = { .range.len = PAGE };
	int fd = open_uffd(0);

	if (fd < 0)
		return;
	DO(uffd_register(fd, T(1), TABLE, UFFDIO_REGISTER_MODE_MISSING));
	zero.range.start = (uintptr_t)(T(1) + PAGE);
	DO(ioctl(fd, UFFDIO_ZEROPAGE, &zero));
	zero.range.start = (uintptr_t)T(1);
	DO(ioctl(fd, UFFDIO_ZEROPAGE, &zero));
	close(fd);
	cow_log_pages("zeroed", T(1), 4 * PAGE, 1);
}

static void op_uffd_wp(void)
{
	int fd = open_uffd(UFFD_FEATURE_PAGEFAULT_FLAG_WP);

	if (fd < 0)
		return;
	DO(uffd_register(fd, T(0), TABLE, UFFDIO_REGISTER_MODE_WP));
	DO(uffd_protect(fd, T(0), TABLE / 2, UFFDIO_WRITEPROTECT_MODE_WP));
	cow_log_pagemap("protected", PM_PRESENT | PM_WP);
	DO(uffd_protect(fd, T(0), TABLE / 4, 0));
	cow_log_pagemap("unprotected", PM_PRESENT | PM_WP);
	close(fd);
}

static void op_uffd_unregister(void)
{
	struct uffdio_range part = { (uintptr_t)T(0), TABLE / 2 };
	int fd = open_uffd(0);

	if (fd < 0)
		return;
	DO(uffd_register(fd, T(0), 2 * TABLE, UFFDIO_REGISTER_MODE_MISSING));
	DO(ioctl(fd, UFFDIO_UNREGISTER, &part));
	cow_log_pages("unregistered", T(0), TABLE / 2, 1);
	part.start = (uintptr_t)T(4);
	DO(ioctl(fd, UFFDIO_UNREGISTER, &part));
	close(fd);
}

static void op_uffd_poison(void)
{
	struct poison_arg poison = { .len = PAGE };
	int fd = open_uffd(FEATURE_POISON);

	if (fd < 0)
		return;
	DO(uffd_register(fd, T(1), TABLE, UFFDIO_REGISTER_MODE_MISSING));
	/* An empty entry and one with a page */
	poison.start = (uintptr_t)(T(1) + PAGE);
	DO(ioctl(fd, IOC_POISON, &poison));
	poison.start = (uintptr_t)T(1);
	DO(ioctl(fd, IOC_POISON, &poison));
	close(fd);
	cow_log_pages("poisoned", T(1), 4 * PAGE, 1);
}

/* For memory that is backed by a file; beside it lies what is shared */
static void op_uffd_continue(void)
{
	struct uffdio_continue map = {
		.range = { (uintptr_t)Q(3), 2 * PAGE },
	};
	int fd = open_uffd(UFFD_FEATURE_MINOR_SHMEM);

	if (fd < 0)
		return;
	DO(uffd_register(fd, T(0), TABLE, UFFDIO_REGISTER_MODE_MINOR));
	DO(cow_map_neighbour());
	DO(uffd_register(fd, Q(3), 16 * PAGE, UFFDIO_REGISTER_MODE_MINOR));
	DO(ioctl(fd, UFFDIO_CONTINUE, &map));
	cow_log_pages("mapped", Q(3), 2 * PAGE, 1);
	DO(ioctl(fd, UFFDIO_CONTINUE, &map));
	close(fd);
	cow_log_pages("all", Q(3), 16 * PAGE, 1);
}

/* A thread of the actor in a fault that userfaultfd serves */

static void *peek_hole(void *arg)
{
	*(__u64 *)arg = cow_peek(T(1) + PAGE);
	return NULL;
}

static void *write_protected(void *arg)
{
	*(int *)arg = cow_try_write(T(0), 0);
	return NULL;
}

/* Waits for the fault of a thread, and notes it */
static void await_fault(int fd)
{
	struct pollfd pfd = { .fd = fd, .events = POLLIN };
	struct uffd_msg msg = { };

	DO(poll(&pfd, 1, 60000));
	DO(read(fd, &msg, sizeof(msg)));
	cow_log("event", msg.event, msg.arg.pagefault.address & -PAGE);
	cow_log("flags", msg.event, msg.arg.pagefault.flags);
}

static void op_uffd_serve_missing(void)
{
	alignas(PAGE) char buf[PAGE];
	struct uffdio_range range = { (uintptr_t)(T(1) + PAGE), PAGE };
	struct uffdio_copy copy = {
		.src = (uintptr_t)buf, .dst = (uintptr_t)(T(1) + PAGE),
		.len = PAGE, .mode = UFFDIO_COPY_MODE_DONTWAKE,
	};
	int fd = open_uffd(0);
	pthread_t thread;
	__u64 seen = 0;

	if (fd < 0)
		return;
	cow_fill_page(buf, cow_next_stamp(cow_self, 0));
	DO(uffd_register(fd, T(1), TABLE, UFFDIO_REGISTER_MODE_MISSING));
	DO(pthread_create(&thread, NULL, peek_hole, &seen));
	await_fault(fd);
	DO(ioctl(fd, UFFDIO_COPY, &copy));
	DO(ioctl(fd, UFFDIO_WAKE, &range));
	pthread_join(thread, NULL);
	cow_log("seen", 0, seen);
	close(fd);
}

static void op_uffd_serve_wp(void)
{
	int fd = open_uffd(UFFD_FEATURE_PAGEFAULT_FLAG_WP);
	pthread_t thread;
	int sig = -1;

	if (fd < 0)
		return;
	DO(uffd_register(fd, T(0), TABLE, UFFDIO_REGISTER_MODE_WP));
	DO(uffd_protect(fd, T(0), TABLE, UFFDIO_WRITEPROTECT_MODE_WP));
	DO(pthread_create(&thread, NULL, write_protected, &sig));
	await_fault(fd);
	DO(uffd_protect(fd, T(0), PAGE, 0));
	pthread_join(thread, NULL);
	cow_log("signal", 0, sig);
	close(fd);
}

static long do_uffd_move(int fd, char *dst, char *src)
{
	struct move_arg move = {
		.dst = (uintptr_t)dst, .src = (uintptr_t)src, .len = PAGE,
	};

	return ioctl(fd, IOC_MOVE, &move);
}

static void op_uffd_move(void)
{
	int fd = open_uffd(FEATURE_MOVE);

	if (fd < 0)
		return;
	DO(uffd_register(fd, T(1), TABLE, UFFDIO_REGISTER_MODE_MISSING));
	/* As after any fork the page is not exclusive, until it is written */
	DO(do_uffd_move(fd, T(1) + PAGE, T(0)));
	cow_try_write(T(0), 0);
	DO(do_uffd_move(fd, T(1) + PAGE, T(0)));
	cow_log_pages("moved", T(1), 2 * PAGE, 1);
	close(fd);
}

static int uffd_before_fork;

static int prepare_uffd_wp(void)
{
	uffd_before_fork = open_uffd(UFFD_FEATURE_PAGEFAULT_FLAG_WP);
	if (uffd_before_fork < 0)
		return -1;
	return uffd_register(uffd_before_fork, T(0), TABLE,
			     UFFDIO_REGISTER_MODE_WP) ||
	       uffd_protect(uffd_before_fork, T(0), 16 * PAGE,
			    UFFDIO_WRITEPROTECT_MODE_WP);
}

/* Closed in every process, which ends it in the first one */
static void op_uffd_wp_before_fork(void)
{
	cow_log_pagemap("protected", PM_PRESENT | PM_WP);
	DO(uffd_protect(uffd_before_fork, T(0), TABLE, 0));
}

static void op_pagemap_scan(void)
{
	struct scan_region region[64] = { };
	struct scan_arg scan = {
		.size = sizeof(scan),
		.flags = SCAN_WP_MATCHING,
		.start = (uintptr_t)T(0),
		.end = (uintptr_t)T(1),
		.vec = (uintptr_t)region,
		.vec_len = ARRAY_LEN(region),
		.category_mask = SCAN_IS_WRITTEN,
		.return_mask = SCAN_IS_WRITTEN,
	};
	int fd = open_uffd(FEATURE_WP_ASYNC | FEATURE_WP_UNPOPULATED);
	int pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	unsigned int i;

	if (fd < 0)
		return;
	DO(uffd_register(fd, T(0), TABLE, UFFDIO_REGISTER_MODE_WP));
	DO(ioctl(pagemap, IOC_SCAN, &scan));
	for (i = 0; i < ARRAY_LEN(region); i++)
		cow_log("written", region[i].start, region[i].end);
	cow_try_write(T(0) + 2 * PAGE, 1);
	memset(region, 0, sizeof(region));
	DO(ioctl(pagemap, IOC_SCAN, &scan));
	for (i = 0; i < ARRAY_LEN(region); i++)
		cow_log("written again", region[i].start, region[i].end);
	cow_log_pagemap("protected", PM_WP);
	close(pagemap);
	close(fd);
}

/* Referenced and soft-dirty bits */

static void do_clear_refs(const char *what)
{
	DO(cow_write_file("/proc/self/clear_refs", what));
	cow_log_pagemap("before", PM_PRESENT | PM_SOFT_DIRTY);
	cow_try_write(T(0) + 4 * PAGE, 2);
	cow_log_pagemap("after", PM_PRESENT | PM_SOFT_DIRTY);
}

static void op_clear_refs_all(void)
{
	do_clear_refs("1");
}

static void op_clear_refs_anon(void)
{
	do_clear_refs("2");
}

static void op_clear_refs_mapped(void)
{
	do_clear_refs("3");
}

static void op_clear_refs_soft_dirty(void)
{
	do_clear_refs("4");
}

/* The bits of the others are as they were */
static void log_soft_dirty(void)
{
	cow_log_pagemap("another's", PM_PRESENT | PM_SOFT_DIRTY);
}

static void op_clear_refs_hiwater(void)
{
	do_clear_refs("5");
}

static int prepare_soft_clean(void)
{
	if (cow_write_file("/proc/self/clear_refs", "4"))
		return -1;
	cow_try_write(T(0), 0);
	return 0;
}

static void op_soft_dirty_inherited(void)
{
	cow_log_pagemap("inherited", PM_PRESENT | PM_SOFT_DIRTY);
	cow_try_write(T(0) + 4 * PAGE, 2);
	cow_log_pagemap("after", PM_PRESENT | PM_SOFT_DIRTY);
}

FIXTURE(op) {
};

FIXTURE_VARIANT(op) {
	struct cow_op op;
};

FIXTURE_SETUP(op) {}
FIXTURE_TEARDOWN(op) {}

FIXTURE_VARIANT_ADD(op, uffd_register) { RUN(uffd_register) };
FIXTURE_VARIANT_ADD(op, uffd_copy) { RUN(uffd_copy) };
FIXTURE_VARIANT_ADD(op, uffd_zeropage) { RUN(uffd_zeropage) };
FIXTURE_VARIANT_ADD(op, uffd_wp) { RUN(uffd_wp) };
FIXTURE_VARIANT_ADD(op, uffd_move) { RUN(uffd_move) };
FIXTURE_VARIANT_ADD(op, pagemap_scan) { RUN(pagemap_scan) };
FIXTURE_VARIANT_ADD(op, clear_refs_all) { RUN(clear_refs_all) };
FIXTURE_VARIANT_ADD(op, clear_refs_anon) { RUN(clear_refs_anon) };
FIXTURE_VARIANT_ADD(op, clear_refs_mapped) { RUN(clear_refs_mapped) };
FIXTURE_VARIANT_ADD(op, clear_refs_hiwater) { RUN(clear_refs_hiwater) };
FIXTURE_VARIANT_ADD(op, uffd_unregister) { RUN(uffd_unregister) };
FIXTURE_VARIANT_ADD(op, uffd_poison) { RUN(uffd_poison) };
FIXTURE_VARIANT_ADD(op, uffd_continue) { RUN(uffd_continue) };
FIXTURE_VARIANT_ADD(op, uffd_serve_missing) { RUN(uffd_serve_missing) };
FIXTURE_VARIANT_ADD(op, uffd_serve_wp) { RUN(uffd_serve_wp) };

FIXTURE_VARIANT_ADD(op, clear_refs_soft_dirty) {
	RUN(clear_refs_soft_dirty),
	.op.others = log_soft_dirty,
};

FIXTURE_VARIANT_ADD(op, uffd_wp_before_fork) {
	RUN(uffd_wp_before_fork),
	.op.prepare = prepare_uffd_wp,
	.op.flags = NOT_SHARED,
};

FIXTURE_VARIANT_ADD(op, soft_dirty_inherited) {
	RUN(soft_dirty_inherited),
	.op.prepare = prepare_soft_clean,
};

TEST_F_TIMEOUT(op, parent, 120)
{
	COW_REPORT(cow_op_run(&variant->op, ACTOR_PARENT));
}

TEST_F_TIMEOUT(op, child, 120)
{
	COW_REPORT(cow_op_run(&variant->op, ACTOR_CHILD));
}

TEST_F_TIMEOUT(op, third, 120)
{
	COW_REPORT(cow_op_run(&variant->op, ACTOR_THIRD));
}

TEST_F_TIMEOUT(op, threaded, 120)
{
	COW_REPORT(cow_op_run(&variant->op, ACTOR_THREADED));
}

TEST_F_TIMEOUT(op, borrower, 120)
{
	COW_REPORT(cow_op_run(&variant->op, ACTOR_BORROWER));
}

TEST_F_TIMEOUT(op, lender, 120)
{
	COW_REPORT(cow_op_run(&variant->op, ACTOR_LENDER));
}

int main(int argc, char **argv)
{
	cow_main_start();
	return test_harness_run(argc, argv);
}
