// SPDX-License-Identifier: GPL-2.0
/*
 * Every kind of memory, shared by every kind of fork, and every way to write:
 * after each step each process must see exactly its own view.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kselftest_harness.h"
#include "cow_pte_util.h"

/* Kinds of process trees */
enum tree {
	TREE_fork, TREE_clone, TREE_clone3, TREE_threads, TREE_grandchild,
	TREE_orphan, TREE_two_children, TREE_vfork_exec,
};

enum writer { WRITER_NONE, WRITER_PARENT, WRITER_CHILD, WRITER_BOTH,
	      WRITER_THIRD };

struct test_case {
	const struct cow_mem *mem;
	enum tree tree;
	enum writer writer;
	void (*write)(unsigned int proc, unsigned int page);
};

struct family {
	unsigned int parent, child, third;
};

static long call_vfork_exec(const long *arg)
{
	pid_t pid = vfork();
	int status;

	if (!pid) {
		close(STDOUT_FILENO);
		close(STDERR_FILENO);
		execl("/proc/self/exe", "isolation", "-h", NULL);
		_exit(1);
	}
	if (pid < 0 || waitpid(pid, &status, 0) != pid)
		return -1;
	return WIFEXITED(status) ? 0 : -1;
}

static struct family start_family(enum tree tree)
{
	struct family f = { 0 };

	switch (tree) {
	case TREE_clone:
		f.child = cow_fork(0, COW_CLONE);
		break;
	case TREE_clone3:
		f.child = cow_fork(0, COW_CLONE3);
		break;
	case TREE_threads:
		f.child = cow_fork(0, COW_THREADED);
		break;
	case TREE_grandchild:
	case TREE_orphan:
		f.third = cow_fork(0, COW_FORK);
		f.child = cow_fork(f.third, COW_FORK);
		if (tree == TREE_orphan) {
			cow_exit(f.third);
			f.third = 0;
		}
		break;
	case TREE_two_children:
		f.third = cow_fork(0, COW_FORK);
		f.child = cow_fork(0, COW_FORK);
		break;
	case TREE_vfork_exec:
		f.child = cow_fork(0, COW_FORK);
		if (cow_call(0, call_vfork_exec, 0))
			cow_fail("vfork and exec: %s", strerror(errno));
		break;
	default:
		f.child = cow_fork(0, COW_FORK);
	}
	return f;
}

static unsigned int next_writable(unsigned int page)
{
	while (world->readonly[page % world->nr_pages])
		page++;
	return page % world->nr_pages;
}

/* Write pages far apart, and check everybody after each of them */
static void write_some(unsigned int proc, const struct test_case *tc)
{
	unsigned int page[] = {
		next_writable(0),
		next_writable(world->nr_pages / 2),
		next_writable(world->nr_pages - 1),
		next_writable(1),
	};
	unsigned int i;

	for (i = 0; i < ARRAY_LEN(page); i++) {
		tc->write(proc, page[i]);
		cow_check_all("after a write");
	}
}

static const char *run_writes(enum cow_mode mode, const void *arg)
{
	const struct test_case *tc = arg;
	unsigned int writer, late;
	struct family f;
	const char *why;

	why = cow_mem_start(mode, tc->mem);
	if (why)
		return why;
	f = start_family(tc->tree);
	cow_must_share(mode, tc->mem);
	cow_check_all("after fork");

	writer = tc->writer == WRITER_CHILD ? f.child :
		 tc->writer == WRITER_THIRD ? f.third : f.parent;
	if (tc->writer != WRITER_NONE)
		write_some(writer, tc);
	if (tc->writer == WRITER_BOTH)
		write_some(f.child, tc);

	/* Share what is left, and what was written since, once more */
	late = cow_fork(writer, COW_FORK);
	cow_check_all("after the second fork");
	if (tc->writer != WRITER_NONE) {
		write_some(writer, tc);
		write_some(late, tc);
	}

	cow_exit(f.child);
	cow_check_all("after the child's exit");
	if (late != f.child && cow_proc[late].alive)
		cow_exit(late);
	cow_check_all("after the late child's exit");
	if (tc->writer != WRITER_NONE) {
		cow_poke_all(f.parent);
		cow_check_all("after the parent wrote everything");
	}
	cow_world_stop();
	return NULL;
}

FIXTURE(writes) {
};

FIXTURE_VARIANT(writes) {
	struct test_case tc;
};

FIXTURE_SETUP(writes) {}
FIXTURE_TEARDOWN(writes) {}

/* The members of a variant */
#define TC(m, t)							\
	.tc = {								\
		.mem = &cow_mem[MEM_##m],				\
		.tree = TREE_##t,					\
		.writer = WRITER_BOTH,					\
		.write = cow_poke,					\
	}

FIXTURE_VARIANT_ADD(writes, anon) { TC(anon, fork) };
FIXTURE_VARIANT_ADD(writes, sparse) { TC(sparse, fork) };
FIXTURE_VARIANT_ADD(writes, holes) { TC(holes, fork) };
FIXTURE_VARIANT_ADD(writes, straddle) { TC(straddle, fork) };
FIXTURE_VARIANT_ADD(writes, heap) { TC(heap, fork) };
FIXTURE_VARIANT_ADD(writes, stack) { TC(stack, fork) };
FIXTURE_VARIANT_ADD(writes, tmpfs) { TC(tmpfs, fork) };
FIXTURE_VARIANT_ADD(writes, memfd) { TC(memfd, fork) };
FIXTURE_VARIANT_ADD(writes, exe) { TC(exe, fork) };

FIXTURE_VARIANT_ADD(writes, readonly_neighbour) {
	TC(readonly_neighbour, fork)
};

FIXTURE_VARIANT_ADD(writes, protections) { TC(protections, fork) };
FIXTURE_VARIANT_ADD(writes, confetti) { TC(confetti, fork) };
FIXTURE_VARIANT_ADD(writes, zeropage) { TC(zeropage, fork) };
FIXTURE_VARIANT_ADD(writes, swapped) { TC(swapped, fork) };
FIXTURE_VARIANT_ADD(writes, thp_split) { TC(thp_split, fork) };
FIXTURE_VARIANT_ADD(writes, thp) { TC(thp, fork) };
FIXTURE_VARIANT_ADD(writes, mthp) { TC(mthp, fork) };
FIXTURE_VARIANT_ADD(writes, ksm) { TC(ksm, fork) };
FIXTURE_VARIANT_ADD(writes, mremapped) { TC(mremapped, fork) };
FIXTURE_VARIANT_ADD(writes, shared_neighbour) { TC(shared_neighbour, fork) };

FIXTURE_VARIANT_ADD(writes, dontfork_neighbour) {
	TC(dontfork_neighbour, fork)
};

FIXTURE_VARIANT_ADD(writes, file_neighbour) { TC(file_neighbour, fork) };
FIXTURE_VARIANT_ADD(writes, mlocked_neighbour) { TC(mlocked_neighbour, fork) };

static void run_writer(struct __test_metadata *_metadata,
		       struct test_case tc, enum writer writer)
{
	tc.writer = writer;
	if (writer == WRITER_THIRD)
		tc.tree = TREE_two_children;
	COW_REPORT(cow_run_once(run_writes, &tc));
}

TEST_F_TIMEOUT(writes, nobody, 120)
{
	run_writer(_metadata, variant->tc, WRITER_NONE);
}

TEST_F_TIMEOUT(writes, parent, 120)
{
	run_writer(_metadata, variant->tc, WRITER_PARENT);
}

TEST_F_TIMEOUT(writes, child, 120)
{
	run_writer(_metadata, variant->tc, WRITER_CHILD);
}

TEST_F_TIMEOUT(writes, both, 120)
{
	run_writer(_metadata, variant->tc, WRITER_BOTH);
}

TEST_F_TIMEOUT(writes, third, 120)
{
	run_writer(_metadata, variant->tc, WRITER_THIRD);
}

FIXTURE(trees) {
};

FIXTURE_VARIANT(trees) {
	struct test_case tc;
};

FIXTURE_SETUP(trees) {}
FIXTURE_TEARDOWN(trees) {}

FIXTURE_VARIANT_ADD(trees, anon_clone) { TC(anon, clone) };
FIXTURE_VARIANT_ADD(trees, anon_clone3) { TC(anon, clone3) };
FIXTURE_VARIANT_ADD(trees, anon_threads) { TC(anon, threads) };
FIXTURE_VARIANT_ADD(trees, anon_grandchild) { TC(anon, grandchild) };
FIXTURE_VARIANT_ADD(trees, anon_orphan) { TC(anon, orphan) };
FIXTURE_VARIANT_ADD(trees, anon_two_children) { TC(anon, two_children) };
FIXTURE_VARIANT_ADD(trees, anon_vfork_exec) { TC(anon, vfork_exec) };
FIXTURE_VARIANT_ADD(trees, memfd_clone) { TC(memfd, clone) };
FIXTURE_VARIANT_ADD(trees, memfd_clone3) { TC(memfd, clone3) };
FIXTURE_VARIANT_ADD(trees, memfd_threads) { TC(memfd, threads) };
FIXTURE_VARIANT_ADD(trees, memfd_grandchild) { TC(memfd, grandchild) };
FIXTURE_VARIANT_ADD(trees, memfd_orphan) { TC(memfd, orphan) };
FIXTURE_VARIANT_ADD(trees, memfd_two_children) { TC(memfd, two_children) };
FIXTURE_VARIANT_ADD(trees, memfd_vfork_exec) { TC(memfd, vfork_exec) };
FIXTURE_VARIANT_ADD(trees, protections_clone) { TC(protections, clone) };
FIXTURE_VARIANT_ADD(trees, protections_clone3) { TC(protections, clone3) };
FIXTURE_VARIANT_ADD(trees, protections_threads) { TC(protections, threads) };

FIXTURE_VARIANT_ADD(trees, protections_grandchild) {
	TC(protections, grandchild)
};

FIXTURE_VARIANT_ADD(trees, protections_orphan) { TC(protections, orphan) };

FIXTURE_VARIANT_ADD(trees, protections_two_children) {
	TC(protections, two_children)
};

FIXTURE_VARIANT_ADD(trees, protections_vfork_exec) {
	TC(protections, vfork_exec)
};

FIXTURE_VARIANT_ADD(trees, swapped_clone) { TC(swapped, clone) };
FIXTURE_VARIANT_ADD(trees, swapped_clone3) { TC(swapped, clone3) };
FIXTURE_VARIANT_ADD(trees, swapped_threads) { TC(swapped, threads) };
FIXTURE_VARIANT_ADD(trees, swapped_grandchild) { TC(swapped, grandchild) };
FIXTURE_VARIANT_ADD(trees, swapped_orphan) { TC(swapped, orphan) };
FIXTURE_VARIANT_ADD(trees, swapped_two_children) { TC(swapped, two_children) };
FIXTURE_VARIANT_ADD(trees, swapped_vfork_exec) { TC(swapped, vfork_exec) };
FIXTURE_VARIANT_ADD(trees, thp_split_clone) { TC(thp_split, clone) };
FIXTURE_VARIANT_ADD(trees, thp_split_clone3) { TC(thp_split, clone3) };
FIXTURE_VARIANT_ADD(trees, thp_split_threads) { TC(thp_split, threads) };
FIXTURE_VARIANT_ADD(trees, thp_split_grandchild) { TC(thp_split, grandchild) };
FIXTURE_VARIANT_ADD(trees, thp_split_orphan) { TC(thp_split, orphan) };

FIXTURE_VARIANT_ADD(trees, thp_split_two_children) {
	TC(thp_split, two_children)
};

FIXTURE_VARIANT_ADD(trees, thp_split_vfork_exec) { TC(thp_split, vfork_exec) };
FIXTURE_VARIANT_ADD(trees, mremapped_clone) { TC(mremapped, clone) };
FIXTURE_VARIANT_ADD(trees, mremapped_clone3) { TC(mremapped, clone3) };
FIXTURE_VARIANT_ADD(trees, mremapped_threads) { TC(mremapped, threads) };
FIXTURE_VARIANT_ADD(trees, mremapped_grandchild) { TC(mremapped, grandchild) };
FIXTURE_VARIANT_ADD(trees, mremapped_orphan) { TC(mremapped, orphan) };

FIXTURE_VARIANT_ADD(trees, mremapped_two_children) {
	TC(mremapped, two_children)
};

FIXTURE_VARIANT_ADD(trees, mremapped_vfork_exec) { TC(mremapped, vfork_exec) };

FIXTURE_VARIANT_ADD(trees, sparse_threads) { TC(sparse, threads) };
FIXTURE_VARIANT_ADD(trees, sparse_orphan) { TC(sparse, orphan) };
FIXTURE_VARIANT_ADD(trees, holes_threads) { TC(holes, threads) };
FIXTURE_VARIANT_ADD(trees, holes_orphan) { TC(holes, orphan) };
FIXTURE_VARIANT_ADD(trees, straddle_threads) { TC(straddle, threads) };
FIXTURE_VARIANT_ADD(trees, straddle_orphan) { TC(straddle, orphan) };
FIXTURE_VARIANT_ADD(trees, heap_threads) { TC(heap, threads) };
FIXTURE_VARIANT_ADD(trees, heap_orphan) { TC(heap, orphan) };
FIXTURE_VARIANT_ADD(trees, stack_threads) { TC(stack, threads) };
FIXTURE_VARIANT_ADD(trees, stack_orphan) { TC(stack, orphan) };
FIXTURE_VARIANT_ADD(trees, tmpfs_threads) { TC(tmpfs, threads) };
FIXTURE_VARIANT_ADD(trees, tmpfs_orphan) { TC(tmpfs, orphan) };
FIXTURE_VARIANT_ADD(trees, exe_threads) { TC(exe, threads) };
FIXTURE_VARIANT_ADD(trees, exe_orphan) { TC(exe, orphan) };

FIXTURE_VARIANT_ADD(trees, readonly_neighbour_threads) {
	TC(readonly_neighbour, threads)
};

FIXTURE_VARIANT_ADD(trees, readonly_neighbour_orphan) {
	TC(readonly_neighbour, orphan)
};

FIXTURE_VARIANT_ADD(trees, confetti_threads) { TC(confetti, threads) };
FIXTURE_VARIANT_ADD(trees, confetti_orphan) { TC(confetti, orphan) };
FIXTURE_VARIANT_ADD(trees, zeropage_threads) { TC(zeropage, threads) };
FIXTURE_VARIANT_ADD(trees, zeropage_orphan) { TC(zeropage, orphan) };
FIXTURE_VARIANT_ADD(trees, thp_threads) { TC(thp, threads) };
FIXTURE_VARIANT_ADD(trees, thp_orphan) { TC(thp, orphan) };
FIXTURE_VARIANT_ADD(trees, mthp_threads) { TC(mthp, threads) };
FIXTURE_VARIANT_ADD(trees, mthp_orphan) { TC(mthp, orphan) };
FIXTURE_VARIANT_ADD(trees, ksm_threads) { TC(ksm, threads) };
FIXTURE_VARIANT_ADD(trees, ksm_orphan) { TC(ksm, orphan) };

FIXTURE_VARIANT_ADD(trees, shared_neighbour_threads) {
	TC(shared_neighbour, threads)
};

FIXTURE_VARIANT_ADD(trees, shared_neighbour_orphan) {
	TC(shared_neighbour, orphan)
};

FIXTURE_VARIANT_ADD(trees, dontfork_neighbour_threads) {
	TC(dontfork_neighbour, threads)
};

FIXTURE_VARIANT_ADD(trees, dontfork_neighbour_orphan) {
	TC(dontfork_neighbour, orphan)
};

FIXTURE_VARIANT_ADD(trees, file_neighbour_threads) {
	TC(file_neighbour, threads)
};

FIXTURE_VARIANT_ADD(trees, file_neighbour_orphan) {
	TC(file_neighbour, orphan)
};

FIXTURE_VARIANT_ADD(trees, mlocked_neighbour_threads) {
	TC(mlocked_neighbour, threads)
};

FIXTURE_VARIANT_ADD(trees, mlocked_neighbour_orphan) {
	TC(mlocked_neighbour, orphan)
};

TEST_F_TIMEOUT(trees, both, 120)
{
	COW_REPORT(cow_run_once(run_writes, &variant->tc));
}

/*
 * Ways to write other than a plain store.  Those that the test process carries
 * out on the world's processes have to keep the model themselves.
 */

static void stamped(unsigned int proc, unsigned int page, __u64 stamp)
{
	world->model[proc][page] = stamp;
}

static long call_atomic(const long *arg)
{
	__u64 stamp = cow_next_stamp(cow_self, arg[0]);
	char *addr = world->page[arg[0]];
	unsigned int i;

	for (i = 0; i < COW_STAMP_SLOTS; i++)
		__atomic_exchange_n((__u64 *)(addr + i * COW_SLOT_BYTES),
				    cow_stamp_word(stamp, i), __ATOMIC_SEQ_CST);
	stamped(cow_self, arg[0], stamp);
	return 0;
}

static void write_atomic(unsigned int proc, unsigned int page)
{
	cow_call(proc, call_atomic, page);
}

static long call_populate(const long *arg)
{
	char *addr = world->page[arg[0]];

	if (madvise(addr, PAGE, MADV_POPULATE_WRITE))
		return -1;
	if (cow_peek(addr) != world->model[cow_self][arg[0]])
		return -2;
	return cow_try_write(addr, arg[0]);
}

static void write_populate(unsigned int proc, unsigned int page)
{
	long ret = cow_call(proc, call_populate, page);

	if (ret)
		cow_fail("MADV_POPULATE_WRITE and write: %ld, %s", ret,
			 strerror(errno));
}

/* The kernel writes, through copy_to_user() */
static long call_read(const long *arg)
{
	__u64 stamp = cow_next_stamp(cow_self, arg[0]);
	char buf[PAGE];
	int fds[2];
	long ret;

	cow_fill_page(buf, stamp);
	if (pipe(fds) || write(fds[1], buf, PAGE) != PAGE)
		return -1;
	ret = read(fds[0], world->page[arg[0]], PAGE) == PAGE ? 0 : -1;
	close(fds[0]);
	close(fds[1]);
	stamped(cow_self, arg[0], stamp);
	return ret;
}

static void write_read(unsigned int proc, unsigned int page)
{
	if (cow_call(proc, call_read, page))
		cow_fail("read into page %u: %s", page, strerror(errno));
}

static void write_process_vm(unsigned int proc, unsigned int page)
{
	__u64 stamp = cow_next_stamp(proc, page);
	char buf[PAGE];
	struct iovec local = { buf, PAGE };
	struct iovec remote = { world->page[page], PAGE };

	cow_fill_page(buf, stamp);
	if (process_vm_writev(cow_proc[proc].pid, &local, 1, &remote, 1,
			      0) != PAGE)
		cow_fail("process_vm_writev: %s", strerror(errno));
	stamped(proc, page, stamp);
}

static void write_proc_mem(unsigned int proc, unsigned int page)
{
	__u64 stamp = cow_next_stamp(proc, page);
	char path[64], buf[PAGE];
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/mem", cow_proc[proc].pid);
	cow_fill_page(buf, stamp);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0 ||
	    pwrite(fd, buf, PAGE, (uintptr_t)world->page[page]) != PAGE)
		cow_fail("write to %s: %s", path, strerror(errno));
	close(fd);
	stamped(proc, page, stamp);
}

static void write_ptrace(unsigned int proc, unsigned int page)
{
	__u64 stamp = cow_next_stamp(proc, page);
	pid_t pid = cow_proc[proc].pid;
	unsigned int i;

	if (ptrace(PTRACE_SEIZE, pid, 0, 0) ||
	    ptrace(PTRACE_INTERRUPT, pid, 0, 0) ||
	    waitpid(pid, NULL, __WALL) != pid)
		cow_fail("ptrace of process %u: %s", proc, strerror(errno));
	for (i = 0; i < COW_STAMP_SLOTS; i++)
		if (ptrace(PTRACE_POKEDATA, pid,
			   world->page[page] + i * COW_SLOT_BYTES,
			   cow_stamp_word(stamp, i)))
			cow_fail("PTRACE_POKEDATA: %s", strerror(errno));
	if (ptrace(PTRACE_DETACH, pid, 0, 0))
		cow_fail("PTRACE_DETACH: %s", strerror(errno));
	stamped(proc, page, stamp);
}

FIXTURE(ways) {
};

FIXTURE_VARIANT(ways) {
	struct test_case tc;
};

FIXTURE_SETUP(ways) {}
FIXTURE_TEARDOWN(ways) {}

FIXTURE_VARIANT_ADD(ways, anon) { TC(anon, two_children) };
FIXTURE_VARIANT_ADD(ways, heap) { TC(heap, two_children) };
FIXTURE_VARIANT_ADD(ways, memfd) { TC(memfd, two_children) };
FIXTURE_VARIANT_ADD(ways, exe) { TC(exe, two_children) };
FIXTURE_VARIANT_ADD(ways, protections) { TC(protections, two_children) };
FIXTURE_VARIANT_ADD(ways, zeropage) { TC(zeropage, two_children) };
FIXTURE_VARIANT_ADD(ways, swapped) { TC(swapped, two_children) };
FIXTURE_VARIANT_ADD(ways, thp_split) { TC(thp_split, two_children) };
FIXTURE_VARIANT_ADD(ways, thp) { TC(thp, two_children) };
FIXTURE_VARIANT_ADD(ways, mthp) { TC(mthp, two_children) };
FIXTURE_VARIANT_ADD(ways, ksm) { TC(ksm, two_children) };
FIXTURE_VARIANT_ADD(ways, mremapped) { TC(mremapped, two_children) };

FIXTURE_VARIANT_ADD(ways, mlocked_neighbour) {
	TC(mlocked_neighbour, two_children)
};

static void run_way(struct __test_metadata *_metadata, struct test_case tc,
		    void (*write)(unsigned int proc, unsigned int page))
{
	tc.write = write;
	COW_REPORT(cow_run_once(run_writes, &tc));
}

TEST_F_TIMEOUT(ways, atomic, 120)
{
	run_way(_metadata, variant->tc, write_atomic);
}

TEST_F_TIMEOUT(ways, populate, 120)
{
	run_way(_metadata, variant->tc, write_populate);
}

TEST_F_TIMEOUT(ways, read, 120)
{
	run_way(_metadata, variant->tc, write_read);
}

TEST_F_TIMEOUT(ways, process_vm, 120)
{
	run_way(_metadata, variant->tc, write_process_vm);
}

TEST_F_TIMEOUT(ways, proc_mem, 120)
{
	run_way(_metadata, variant->tc, write_proc_mem);
}

TEST_F_TIMEOUT(ways, ptrace, 120)
{
	run_way(_metadata, variant->tc, write_ptrace);
}

/*
 * A debugger may write where the process itself may not.  Everybody else still
 * has to see the old contents.
 */
static const char *run_forced(enum cow_mode mode, const void *arg)
{
	const struct test_case *tc = arg;
	unsigned int child, i;
	const char *why;

	why = cow_mem_start(mode, tc->mem);
	if (why)
		return why;
	child = cow_fork(0, COW_FORK);
	cow_fork(0, COW_FORK);
	for (i = 0; i < world->nr_pages; i++) {
		/* Neither does PROT_NONE memory show what was written to it */
		if (!world->readonly[i] || world->model[0][i] == COW_SEGV)
			continue;
		tc->write(child, i);
		cow_check_all("after a forced write in the child");
		tc->write(0, i);
		cow_check_all("after a forced write in the parent");
		break;
	}
	cow_exit(child);
	cow_check_all("after the child's exit");
	cow_world_stop();
	return NULL;
}

FIXTURE(forced) {
};

FIXTURE_VARIANT(forced) {
	struct test_case tc;
};

FIXTURE_SETUP(forced) {}
FIXTURE_TEARDOWN(forced) {}

FIXTURE_VARIANT_ADD(forced, readonly_neighbour) {
	TC(readonly_neighbour, fork)
};

FIXTURE_VARIANT_ADD(forced, protections) { TC(protections, fork) };
FIXTURE_VARIANT_ADD(forced, confetti) { TC(confetti, fork) };
FIXTURE_VARIANT_ADD(forced, exe) { TC(exe, fork) };
FIXTURE_VARIANT_ADD(forced, file_neighbour) { TC(file_neighbour, fork) };

TEST_F_TIMEOUT(forced, proc_mem, 120)
{
	struct test_case tc = variant->tc;

	tc.write = write_proc_mem;
	COW_REPORT(cow_run_once(run_forced, &tc));
}

TEST_F_TIMEOUT(forced, ptrace, 120)
{
	struct test_case tc = variant->tc;

	tc.write = write_ptrace;
	COW_REPORT(cow_run_once(run_forced, &tc));
}

/* Populate entries that were empty when the table was shared */
static const char *run_populate(enum cow_mode mode, const void *arg)
{
	const struct test_case *tc = arg;
	unsigned int i, k, page, who[3];
	const char *why;

	why = cow_mem_start(mode, tc->mem);
	if (why)
		return why;
	if (!world->nr_holes) {
		cow_world_stop();
		return "no untouched pages in this kind of memory";
	}
	who[0] = tc->writer == WRITER_CHILD;
	who[1] = !who[0];
	who[2] = 2;
	cow_fork(0, COW_FORK);
	cow_fork(0, COW_FORK);
	cow_must_share(mode, tc->mem);
	for (i = 0; i < world->nr_holes; i++) {
		page = cow_track_hole(i);
		/* The zero page first, for one of them */
		if (tc->writer == WRITER_NONE)
			cow_check(who[0], "reading an empty entry");
		for (k = 0; k < ARRAY_LEN(who); k++) {
			tc->write(who[k], page);
			cow_check_all("after filling an empty entry");
		}
	}
	cow_exit(1);
	cow_check_all("after the child's exit");
	cow_world_stop();
	return NULL;
}

FIXTURE(populate) {
};

FIXTURE_VARIANT(populate) {
	struct test_case tc;
};

FIXTURE_SETUP(populate) {}
FIXTURE_TEARDOWN(populate) {}

FIXTURE_VARIANT_ADD(populate, anon) { TC(anon, fork) };
FIXTURE_VARIANT_ADD(populate, sparse) { TC(sparse, fork) };
FIXTURE_VARIANT_ADD(populate, holes) { TC(holes, fork) };
FIXTURE_VARIANT_ADD(populate, straddle) { TC(straddle, fork) };
FIXTURE_VARIANT_ADD(populate, heap) { TC(heap, fork) };
FIXTURE_VARIANT_ADD(populate, stack) { TC(stack, fork) };

FIXTURE_VARIANT_ADD(populate, readonly_neighbour) {
	TC(readonly_neighbour, fork)
};

FIXTURE_VARIANT_ADD(populate, protections) { TC(protections, fork) };
FIXTURE_VARIANT_ADD(populate, swapped) { TC(swapped, fork) };

static void run_hole(struct __test_metadata *_metadata, struct test_case tc,
		     enum writer writer,
		     void (*write)(unsigned int proc, unsigned int page))
{
	tc.writer = writer;
	tc.write = write;
	COW_REPORT(cow_run_once(run_populate, &tc));
}

TEST_F_TIMEOUT(populate, store_parent, 120)
{
	run_hole(_metadata, variant->tc, WRITER_PARENT, cow_poke);
}

TEST_F_TIMEOUT(populate, store_child, 120)
{
	run_hole(_metadata, variant->tc, WRITER_CHILD, cow_poke);
}

TEST_F_TIMEOUT(populate, read_first, 120)
{
	run_hole(_metadata, variant->tc, WRITER_NONE, cow_poke);
}

TEST_F_TIMEOUT(populate, madvise_parent, 120)
{
	run_hole(_metadata, variant->tc, WRITER_PARENT, write_populate);
}

TEST_F_TIMEOUT(populate, madvise_child, 120)
{
	run_hole(_metadata, variant->tc, WRITER_CHILD, write_populate);
}

TEST_F_TIMEOUT(populate, process_vm, 120)
{
	run_hole(_metadata, variant->tc, WRITER_CHILD, write_process_vm);
}

TEST_F_TIMEOUT(populate, read_syscall, 120)
{
	run_hole(_metadata, variant->tc, WRITER_CHILD, write_read);
}

int main(int argc, char **argv)
{
	cow_main_start();
	return test_harness_run(argc, argv);
}
