// SPDX-License-Identifier: GPL-2.0
/*
 * Pages that the kernel holds on to: what goes through a pin is what the
 * process sees, and what others do later never shows there.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdalign.h>
#include <stdlib.h>
#include <string.h>
#include <arpa/inet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "kselftest_harness.h"
#include "cow_pte_ring.h"

/* See mm/gup_test.h of the kernel */
struct pin_longterm_test {
	__u64 addr;
	__u64 size;
	__u32 flags;
};

#define PIN_START	_IOW('g', 7, struct pin_longterm_test)
#define PIN_STOP	_IO('g', 8)
#define PIN_READ	_IOW('g', 9, __u64)
#define PIN_WRITE_FLAG	1
#define PIN_FAST_FLAG	2

enum { PARENT, CHILD, THIRD, THREADED };

struct test_case {
	const struct cow_mem *mem;
	unsigned int actor;		/* one of the above */
	bool before_fork;
	long flags;			/* of the pin */
	cow_fn leave;
	const struct holder *holder;	/* of a plain reference */
	cow_fn between;			/* of taking it and fork, in the parent */
};

/* A way to pin a page of a process, and to look through the pin */
struct pin_ops {
	cow_fn pin;			/* page, flags; 0, or -1 with skip[] set */
	cow_fn look;			/* 0, with the stamp in pin_saw */
	cow_fn fill;			/* page; write through the pin, or NULL */
	cow_fn unpin;
};

/* What the last look saw; shared by all processes */
static __u64 *pin_saw;

static int start_shared(void)
{
	pin_saw = mmap(NULL, PAGE, PROT_READ | PROT_WRITE,
		       MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	return pin_saw == MAP_FAILED ? -1 : 0;
}

/* Long-term pins of the kernel's own test driver */

static int gup_fd = -1;

static long gup_pin(const long *arg)
{
	struct pin_longterm_test args = {
		.addr = (uintptr_t)world->page[arg[0]],
		.size = PAGE,
		.flags = arg[1],
	};

	if (gup_fd < 0)
		gup_fd = open("/sys/kernel/debug/gup_test", O_RDWR | O_CLOEXEC);
	if (gup_fd < 0)
		return cow_skip("no gup_test: %s", strerror(errno));
	return ioctl(gup_fd, PIN_START, &args);
}

static long gup_look(const long *arg)
{
	alignas(PAGE) char buf[PAGE];
	__u64 addr = (uintptr_t)buf;

	if (ioctl(gup_fd, PIN_READ, &addr))
		return -1;
	*pin_saw = cow_peek(buf);
	return 0;
}

static long gup_unpin(const long *arg)
{
	return ioctl(gup_fd, PIN_STOP);
}

static const struct pin_ops gup_ops = {
	.pin = gup_pin,
	.look = gup_look,
	.unpin = gup_unpin,
};

/* Registered buffers of io_uring */

static long uring_pin(const long *arg)
{
	return cow_ring_open() || cow_ring_pin(world->page[arg[0]]) ? -1 : 0;
}

static long uring_look(const long *arg)
{
	*pin_saw = cow_ring_look();
	return *pin_saw == COW_BUS ? -1 : 0;
}

static long uring_fill(const long *arg)
{
	__u64 stamp = cow_next_stamp(cow_self, arg[0]);

	world->model[cow_self][arg[0]] = stamp;
	return cow_ring_fill(stamp);
}

static long uring_unpin(const long *arg)
{
	cow_ring_close();
	return 0;
}

static const struct pin_ops uring_ops = {
	.pin = uring_pin,
	.look = uring_look,
	.fill = uring_fill,
	.unpin = uring_unpin,
};

static void must(unsigned int proc, cow_fn fn, long arg0, long arg1,
		 const char *what)
{
	if (cow_call(proc, fn, arg0, arg1))
		cow_fail("%s: %s", what, strerror(errno));
}

static void check_pin(const struct pin_ops *ops, unsigned int proc,
		      unsigned int page, const char *when)
{
	must(proc, ops->look, 0, 0, "look through the pin");
	if (*pin_saw != world->model[proc][page])
		cow_fail("%s: the pin shows %#llx, process %u has %#llx", when,
			 *pin_saw, proc,
			 world->model[proc][page]);
	cow_check_all(when);
}

static void fill(const struct pin_ops *ops, unsigned int proc,
		 unsigned int page)
{
	if (!ops->fill)
		return;
	must(proc, ops->fill, page, 0, "write through the pin");
	check_pin(ops, proc, page, "after a write through the pin");
}

/* Returns false if this cannot be had here */
static bool try_pin(const struct pin_ops *ops, unsigned int proc,
		    unsigned int page, long flags)
{
	if (!cow_call(proc, ops->pin, page, flags))
		return true;
	if (!world->skip[0])
		cow_fail("pin of page %u in process %u: %s", page, proc,
			 strerror(errno));
	cow_world_stop();
	return false;
}

/* Have other threads of a process read all the time */
static void start_threads(unsigned int proc)
{
	cow_exit(cow_fork(proc, COW_THREADED));
}

/* Fork who acts, and another who shares the memory */
static void fork_actor(const struct test_case *tc, unsigned int *actor,
		       unsigned int *other)
{
	*other = cow_fork(0, COW_FORK);
	*actor = 0;
	if (tc->actor == THIRD) {
		*actor = cow_fork(0, COW_FORK);
	} else if (tc->actor != PARENT) {
		*actor = *other;
		*other = 0;
	}
	if (tc->actor == THREADED)
		start_threads(*actor);
}

/* The whole life of a pin on one page */
static bool pin_page(const struct test_case *tc, const struct pin_ops *ops,
		     unsigned int page)
{
	unsigned int actor, other, late;

	if (tc->before_fork && !try_pin(ops, 0, page, tc->flags))
		return false;
	fork_actor(tc, &actor, &other);
	if (!tc->before_fork && !try_pin(ops, actor, page, tc->flags))
		return false;

	check_pin(ops, actor, page, "after fork and pin");
	cow_poke(other, page);
	check_pin(ops, actor, page, "after the other's write");
	fill(ops, actor, page);
	cow_poke(actor, page);
	check_pin(ops, actor, page, "after its own write");

	late = cow_fork(actor, COW_FORK);
	check_pin(ops, actor, page, "after fork of the pinned page");
	cow_poke(late, page);
	check_pin(ops, actor, page, "after the late child's write");
	fill(ops, actor, page);
	cow_poke(actor, page);
	check_pin(ops, actor, page, "after its own write, shared with a child");
	cow_exit(late);

	cow_poke_all(actor);
	check_pin(ops, actor, page, "after it wrote everything");
	must(actor, ops->unpin, 0, 0, "unpin");
	cow_exit(actor ? actor : other);
	cow_check_all("at the end");
	return true;
}

static const char *run_pin(enum cow_mode mode, const struct test_case *tc,
			   const struct pin_ops *ops)
{
	const char *why;

	if (!pin_saw && start_shared())
		cow_fail("mmap: %s", strerror(errno));
	why = cow_mem_start_big(mode, tc->mem, 2 * COW_USUAL_PROCS);
	if (why)
		return why;
	/* In the first page something was written, often not in the second */
	if (!pin_page(tc, ops, 0) || !pin_page(tc, ops, 1))
		return world->skip;
	cow_world_stop();
	return NULL;
}

static const char *run_gup(enum cow_mode mode, const void *arg)
{
	return run_pin(mode, arg, &gup_ops);
}

static const char *run_uring(enum cow_mode mode, const void *arg)
{
	return run_pin(mode, arg, &uring_ops);
}

FIXTURE(pin) {
};

FIXTURE_VARIANT(pin) {
	struct test_case tc;
};

FIXTURE_SETUP(pin) {}
FIXTURE_TEARDOWN(pin) {}

/* The members of a variant */
#define TC(m, who, before)						\
	.tc = {								\
		.mem = &cow_mem[MEM_##m],				\
		.actor = who,						\
		.before_fork = before,					\
	}

FIXTURE_VARIANT_ADD(pin, anon_before_fork) { TC(anon, PARENT, true) };
FIXTURE_VARIANT_ADD(pin, anon_in_parent) { TC(anon, PARENT, false) };
FIXTURE_VARIANT_ADD(pin, anon_in_child) { TC(anon, CHILD, false) };
FIXTURE_VARIANT_ADD(pin, anon_in_third) { TC(anon, THIRD, false) };
FIXTURE_VARIANT_ADD(pin, anon_in_threaded) { TC(anon, THREADED, false) };
FIXTURE_VARIANT_ADD(pin, memfd_before_fork) { TC(memfd, PARENT, true) };
FIXTURE_VARIANT_ADD(pin, memfd_in_parent) { TC(memfd, PARENT, false) };
FIXTURE_VARIANT_ADD(pin, memfd_in_child) { TC(memfd, CHILD, false) };
FIXTURE_VARIANT_ADD(pin, memfd_in_third) { TC(memfd, THIRD, false) };
FIXTURE_VARIANT_ADD(pin, memfd_in_threaded) { TC(memfd, THREADED, false) };
FIXTURE_VARIANT_ADD(pin, zeropage_before_fork) { TC(zeropage, PARENT, true) };
FIXTURE_VARIANT_ADD(pin, zeropage_in_parent) { TC(zeropage, PARENT, false) };
FIXTURE_VARIANT_ADD(pin, zeropage_in_child) { TC(zeropage, CHILD, false) };
FIXTURE_VARIANT_ADD(pin, zeropage_in_third) { TC(zeropage, THIRD, false) };

FIXTURE_VARIANT_ADD(pin, zeropage_in_threaded) {
	TC(zeropage, THREADED, false)
};

FIXTURE_VARIANT_ADD(pin, swapped_before_fork) { TC(swapped, PARENT, true) };
FIXTURE_VARIANT_ADD(pin, swapped_in_parent) { TC(swapped, PARENT, false) };
FIXTURE_VARIANT_ADD(pin, swapped_in_child) { TC(swapped, CHILD, false) };
FIXTURE_VARIANT_ADD(pin, swapped_in_third) { TC(swapped, THIRD, false) };
FIXTURE_VARIANT_ADD(pin, swapped_in_threaded) { TC(swapped, THREADED, false) };
FIXTURE_VARIANT_ADD(pin, thp_split_before_fork) { TC(thp_split, PARENT, true) };
FIXTURE_VARIANT_ADD(pin, thp_split_in_parent) { TC(thp_split, PARENT, false) };
FIXTURE_VARIANT_ADD(pin, thp_split_in_child) { TC(thp_split, CHILD, false) };
FIXTURE_VARIANT_ADD(pin, thp_split_in_third) { TC(thp_split, THIRD, false) };

FIXTURE_VARIANT_ADD(pin, thp_split_in_threaded) {
	TC(thp_split, THREADED, false)
};

FIXTURE_VARIANT_ADD(pin, mthp_before_fork) { TC(mthp, PARENT, true) };
FIXTURE_VARIANT_ADD(pin, mthp_in_parent) { TC(mthp, PARENT, false) };
FIXTURE_VARIANT_ADD(pin, mthp_in_child) { TC(mthp, CHILD, false) };
FIXTURE_VARIANT_ADD(pin, mthp_in_third) { TC(mthp, THIRD, false) };
FIXTURE_VARIANT_ADD(pin, mthp_in_threaded) { TC(mthp, THREADED, false) };
FIXTURE_VARIANT_ADD(pin, ksm_before_fork) { TC(ksm, PARENT, true) };
FIXTURE_VARIANT_ADD(pin, ksm_in_parent) { TC(ksm, PARENT, false) };
FIXTURE_VARIANT_ADD(pin, ksm_in_child) { TC(ksm, CHILD, false) };
FIXTURE_VARIANT_ADD(pin, ksm_in_third) { TC(ksm, THIRD, false) };
FIXTURE_VARIANT_ADD(pin, ksm_in_threaded) { TC(ksm, THREADED, false) };

static void run_longterm(struct __test_metadata *_metadata,
			 struct test_case tc, long flags)
{
	tc.flags = flags;
	COW_REPORT(cow_run_once(run_gup, &tc));
}

TEST_F_TIMEOUT(pin, longterm_read, 120)
{
	run_longterm(_metadata, variant->tc, 0);
}

TEST_F_TIMEOUT(pin, longterm_read_fast, 120)
{
	run_longterm(_metadata, variant->tc, PIN_FAST_FLAG);
}

TEST_F_TIMEOUT(pin, longterm_write, 120)
{
	run_longterm(_metadata, variant->tc, PIN_WRITE_FLAG);
}

TEST_F_TIMEOUT(pin, longterm_write_fast, 120)
{
	run_longterm(_metadata, variant->tc, PIN_WRITE_FLAG | PIN_FAST_FLAG);
}

TEST_F_TIMEOUT(pin, io_uring, 120)
{
	COW_REPORT(cow_run_once(run_uring, &variant->tc));
}

/*
 * vmsplice() takes no pin but a plain reference, and so does a socket that sends
 * without copying.  A process that put a page there and then left must not get
 * to see what the others write later; nor may one that only inherited the pipe.
 */
struct holder {
	const char *(*open)(void);	/* NULL, or why there is none */
	cow_fn take;			/* page */
	__u64 (*look)(void);		/* and let it go */
	void (*close)(void);
};

static int splice_pipe[2];

static const char *open_pipe(void)
{
	return pipe(splice_pipe) ? "no pipe" : NULL;
}

static long call_vmsplice(const long *arg)
{
	struct iovec iov = { world->page[arg[0]], PAGE };

	return vmsplice(splice_pipe[1], &iov, 1, 0) == PAGE ? 0 : -1;
}

static __u64 read_pipe(void)
{
	char buf[PAGE];

	if (read(splice_pipe[0], buf, PAGE) != PAGE)
		cow_fail("read of the pipe: %s", strerror(errno));
	return cow_peek(buf);
}

static void close_pipe(void)
{
	close(splice_pipe[0]);
	close(splice_pipe[1]);
}

static const struct holder pipe_holder = {
	.open = open_pipe,
	.take = call_vmsplice,
	.look = read_pipe,
	.close = close_pipe,
};

/*
 * The loopback device copies what it delivers, but a datagram that is not
 * complete yet waits in its socket.  The protocol copies that as well, unless
 * it may have to be cut into segments.
 */
#define SEGMENT		(2 * PAGE)

static int send_sock = -1, receive_sock = -1;

static int loopback_up(void)
{
	struct ifreq ifr = { .ifr_name = "lo", .ifr_flags = IFF_UP };

	return ioctl(send_sock, SIOCSIFFLAGS, &ifr);
}

static const char *open_socket(void)
{
	struct sockaddr_in addr = {
		.sin_family = AF_INET,
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK),
	};
	socklen_t len = sizeof(addr);
	int one = 1, segment = SEGMENT;

	send_sock = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	receive_sock = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (send_sock < 0 || receive_sock < 0)
		return "no UDP";
	if (loopback_up() ||
	    bind(receive_sock, (struct sockaddr *)&addr, len) ||
	    getsockname(receive_sock, (struct sockaddr *)&addr, &len) ||
	    connect(send_sock, (struct sockaddr *)&addr, len))
		return "no loopback device";
	if (setsockopt(send_sock, SOL_SOCKET, SO_ZEROCOPY, &one, sizeof(one)) ||
	    setsockopt(send_sock, IPPROTO_UDP, UDP_SEGMENT, &segment,
		       sizeof(segment)))
		return "no SO_ZEROCOPY or UDP_SEGMENT";
	return NULL;
}

static long call_send(const long *arg)
{
	return send(send_sock, world->page[arg[0]], PAGE,
		    MSG_ZEROCOPY | MSG_MORE) == PAGE ? 0 : -1;
}

static __u64 read_socket(void)
{
	char buf[PAGE + 1];

	/* The last byte lets it go */
	if (send(send_sock, "", 1, 0) != 1 ||
	    recv(receive_sock, buf, sizeof(buf), 0) != sizeof(buf))
		cow_fail("the datagram did not arrive: %s", strerror(errno));
	return cow_peek(buf);
}

static void close_socket(void)
{
	close(send_sock);
	close(receive_sock);
}

static const struct holder socket_holder = {
	.open = open_socket,
	.take = call_send,
	.look = read_socket,
	.close = close_socket,
};

/* The ways to leave the page's table */

static char *table_of(long page)
{
	return (char *)((uintptr_t)world->page[page] & -TABLE);
}

static long leave_munmap(const long *arg)
{
	return munmap(table_of(arg[0]), TABLE);
}

static long leave_dontneed(const long *arg)
{
	return madvise(table_of(arg[0]), TABLE, MADV_DONTNEED);
}

static long leave_page(const long *arg)
{
	return madvise(world->page[arg[0]], PAGE, MADV_DONTNEED);
}

/* By a copy of the table, without another reason to copy this page */
static long leave_break(const long *arg)
{
	long i;

	for (i = world->nr_pages - 1; i >= 0; i--)
		if (i != arg[0] && !world->readonly[i] &&
		    table_of(i) == table_of(arg[0]))
			return cow_try_write(world->page[i], i);
	errno = ENOENT;
	return -1;
}

static long leave_not(const long *arg)
{
	return 0;
}

/* Only for its address: the test process has to carry it out */
static long leave_exec(const long *arg)
{
	return -1;
}

static long call_adopt(const long *arg)
{
	cow_adopt();
	return 0;
}

static void leave(const struct test_case *tc, unsigned int proc,
		  unsigned int page)
{
	if (!tc->leave) {
		cow_exit(proc);
	} else if (tc->leave == leave_exec) {
		cow_exec_start(proc);
		cow_exit_wait(proc);
	} else {
		must(proc, tc->leave, page, 0, "leaving the page");
		cow_call(proc, call_adopt, 0);
	}
}

/* What happens to the page's table between the reference and fork */

/* A huge page that a VMA boundary cuts for a moment */
static long split_huge(const long *arg)
{
	char *mem = table_of(arg[0]);

	return mprotect(mem + PAGE, PAGE, PROT_READ) ||
	       mprotect(mem + PAGE, PAGE, PROT_READ | PROT_WRITE);
}

static long move_to(long page, char *to, size_t len)
{
	char *from = table_of(page);
	unsigned int i;

	if (mremap(from, len, len, MREMAP_MAYMOVE | MREMAP_FIXED, to) != to)
		return -1;
	for (i = 0; i < world->nr_pages; i++)
		if (world->page[i] >= from && world->page[i] < from + len)
			world->page[i] += to - from;
	return 0;
}

/* Entry by entry, as they get to another place in a table */
static long move_entries(const long *arg)
{
	return move_to(arg[0], arena + 4 * TABLE + 3 * PAGE, 64 * PAGE);
}

/* Whole, to another entry of the upper table */
static long move_table(const long *arg)
{
	return move_to(arg[0], arena + 4 * TABLE, TABLE);
}

static void splice_page(const struct test_case *tc, unsigned int page)
{
	const struct holder *holder = tc->holder;
	unsigned int actor, other, i;
	__u64 old = world->model[0][page], seen;

	if (tc->before_fork)
		must(0, holder->take, page, 0, "taking a reference");
	if (tc->between)
		must(0, tc->between, page, 0, "what happens before fork");
	fork_actor(tc, &actor, &other);
	if (!tc->before_fork)
		must(actor, holder->take, page, 0, "taking a reference");
	leave(tc, actor, page);
	cow_check_all("after vmsplice");

	/* First another page of the table, then the one in the pipe */
	for (i = 0; i < world->nr_pages; i++) {
		if (i == page || world->readonly[i])
			continue;
		cow_poke(other, i);
		break;
	}
	cow_poke(other, page);
	cow_poke(other, page);
	cow_check_all("after the other's write");
	seen = holder->look();
	if (seen != old)
		cow_fail("the pipe shows %#llx, written later, not %#llx",
			 seen, old);
	cow_poke_all(other);
	cow_check_all("after the other wrote everything");
}

static const char *run_splice(enum cow_mode mode, const void *arg)
{
	const struct test_case *tc = arg;
	const char *why = tc->holder->open();
	unsigned int page;

	for (page = 0; page < 2 && !why; page++) {
		why = cow_mem_start(mode, tc->mem);
		if (why)
			break;
		splice_page(tc, page);
		cow_world_stop();
	}
	tc->holder->close();
	return why;
}

FIXTURE(vmsplice) {
};

FIXTURE_VARIANT(vmsplice) {
	struct test_case tc;
};

FIXTURE_SETUP(vmsplice) {}
FIXTURE_TEARDOWN(vmsplice) {}

FIXTURE_VARIANT_ADD(vmsplice, anon_before_fork) { TC(anon, PARENT, true) };
FIXTURE_VARIANT_ADD(vmsplice, anon_in_parent) { TC(anon, PARENT, false) };
FIXTURE_VARIANT_ADD(vmsplice, anon_in_child) { TC(anon, CHILD, false) };
FIXTURE_VARIANT_ADD(vmsplice, anon_in_third) { TC(anon, THIRD, false) };
FIXTURE_VARIANT_ADD(vmsplice, anon_in_threaded) { TC(anon, THREADED, false) };
FIXTURE_VARIANT_ADD(vmsplice, memfd_before_fork) { TC(memfd, PARENT, true) };
FIXTURE_VARIANT_ADD(vmsplice, memfd_in_parent) { TC(memfd, PARENT, false) };
FIXTURE_VARIANT_ADD(vmsplice, memfd_in_child) { TC(memfd, CHILD, false) };
FIXTURE_VARIANT_ADD(vmsplice, memfd_in_third) { TC(memfd, THIRD, false) };
FIXTURE_VARIANT_ADD(vmsplice, memfd_in_threaded) { TC(memfd, THREADED, false) };

FIXTURE_VARIANT_ADD(vmsplice, swapped_before_fork) {
	TC(swapped, PARENT, true)
};

FIXTURE_VARIANT_ADD(vmsplice, swapped_in_parent) { TC(swapped, PARENT, false) };
FIXTURE_VARIANT_ADD(vmsplice, swapped_in_child) { TC(swapped, CHILD, false) };
FIXTURE_VARIANT_ADD(vmsplice, swapped_in_third) { TC(swapped, THIRD, false) };

FIXTURE_VARIANT_ADD(vmsplice, swapped_in_threaded) {
	TC(swapped, THREADED, false)
};

FIXTURE_VARIANT_ADD(vmsplice, thp_split_before_fork) {
	TC(thp_split, PARENT, true)
};

FIXTURE_VARIANT_ADD(vmsplice, thp_split_in_parent) {
	TC(thp_split, PARENT, false)
};

FIXTURE_VARIANT_ADD(vmsplice, thp_split_in_child) {
	TC(thp_split, CHILD, false)
};

FIXTURE_VARIANT_ADD(vmsplice, thp_split_in_third) {
	TC(thp_split, THIRD, false)
};

FIXTURE_VARIANT_ADD(vmsplice, thp_split_in_threaded) {
	TC(thp_split, THREADED, false)
};

static void run_leave(struct __test_metadata *_metadata, struct test_case tc,
		      cow_fn leave)
{
	tc.leave = leave;
	tc.holder = &pipe_holder;
	COW_REPORT(cow_run_once(run_splice, &tc));
}

TEST_F_TIMEOUT(vmsplice, exit, 120)
{
	run_leave(_metadata, variant->tc, NULL);
}

TEST_F_TIMEOUT(vmsplice, munmap, 120)
{
	run_leave(_metadata, variant->tc, leave_munmap);
}

TEST_F_TIMEOUT(vmsplice, dontneed, 120)
{
	run_leave(_metadata, variant->tc, leave_dontneed);
}

TEST_F_TIMEOUT(vmsplice, dontneed_page, 120)
{
	run_leave(_metadata, variant->tc, leave_page);
}

TEST_F_TIMEOUT(vmsplice, stay, 120)
{
	run_leave(_metadata, variant->tc, leave_not);
}

TEST_F_TIMEOUT(vmsplice, break, 120)
{
	run_leave(_metadata, variant->tc, leave_break);
}

TEST_F_TIMEOUT(vmsplice, exec, 120)
{
	run_leave(_metadata, variant->tc, leave_exec);
}

/*
 * The same for references that the parent took before fork: with the child that
 * has the pipe gone, or gone from the table, it must not write the page that is
 * in there.  Whatever happened to the page's table in between.
 */
FIXTURE(reference_before_fork) {
};

FIXTURE_VARIANT(reference_before_fork) {
	struct test_case tc;
};

FIXTURE_SETUP(reference_before_fork) {}
FIXTURE_TEARDOWN(reference_before_fork) {}

/* The members of a variant */
#define HELD(m, who, how, what)						\
	.tc = {								\
		.mem = &cow_mem[MEM_##m],				\
		.actor = who,						\
		.before_fork = true,					\
		.holder = &how##_holder,				\
		.between = what,					\
	}

FIXTURE_VARIANT_ADD(reference_before_fork, pipe) {
	HELD(anon, CHILD, pipe, NULL)
};

FIXTURE_VARIANT_ADD(reference_before_fork, pipe_threaded) {
	HELD(anon, THREADED, pipe, NULL)
};

FIXTURE_VARIANT_ADD(reference_before_fork, pipe_memfd) {
	HELD(memfd, CHILD, pipe, NULL)
};

FIXTURE_VARIANT_ADD(reference_before_fork, pipe_swapped) {
	HELD(swapped, CHILD, pipe, NULL)
};

FIXTURE_VARIANT_ADD(reference_before_fork, pipe_mthp) {
	HELD(mthp, CHILD, pipe, NULL)
};

FIXTURE_VARIANT_ADD(reference_before_fork, pipe_ksm) {
	HELD(ksm, CHILD, pipe, NULL)
};

FIXTURE_VARIANT_ADD(reference_before_fork, pipe_thp_split_first) {
	HELD(thp_split, CHILD, pipe, NULL)
};

FIXTURE_VARIANT_ADD(reference_before_fork, pipe_thp_split_after) {
	HELD(thp, CHILD, pipe, split_huge)
};

FIXTURE_VARIANT_ADD(reference_before_fork, pipe_entries_moved) {
	HELD(anon, CHILD, pipe, move_entries)
};

FIXTURE_VARIANT_ADD(reference_before_fork, pipe_table_moved) {
	HELD(anon, CHILD, pipe, move_table)
};

FIXTURE_VARIANT_ADD(reference_before_fork, pipe_forked_before) {
	HELD(anon, CHILD, pipe, cow_fork_and_reap)
};

FIXTURE_VARIANT_ADD(reference_before_fork, socket) {
	HELD(anon, CHILD, socket, NULL)
};

FIXTURE_VARIANT_ADD(reference_before_fork, socket_thp_split_after) {
	HELD(thp, CHILD, socket, split_huge)
};

FIXTURE_VARIANT_ADD(reference_before_fork, socket_entries_moved) {
	HELD(anon, CHILD, socket, move_entries)
};

static void run_before(struct __test_metadata *_metadata, struct test_case tc,
		       cow_fn leave)
{
	tc.leave = leave;
	COW_REPORT(cow_run_once(run_splice, &tc));
}

TEST_F_TIMEOUT(reference_before_fork, exit, 120)
{
	run_before(_metadata, variant->tc, NULL);
}

TEST_F_TIMEOUT(reference_before_fork, exec, 120)
{
	run_before(_metadata, variant->tc, leave_exec);
}

TEST_F_TIMEOUT(reference_before_fork, munmap, 120)
{
	run_before(_metadata, variant->tc, leave_munmap);
}

TEST_F_TIMEOUT(reference_before_fork, dontneed, 120)
{
	run_before(_metadata, variant->tc, leave_dontneed);
}

TEST_F_TIMEOUT(reference_before_fork, break, 120)
{
	run_before(_metadata, variant->tc, leave_break);
}

/* A block device transfers directly from and to the pages */

static int direct_fd;

static long direct_out(const long *arg)
{
	return pwrite(direct_fd, world->page[arg[0]], PAGE, 0) == PAGE ? 0 : -1;
}

static long direct_in(const long *arg)
{
	static alignas(PAGE) char buf[PAGE];
	__u64 stamp = cow_next_stamp(cow_self, arg[0]);

	cow_fill_page(buf, stamp);
	if (pwrite(direct_fd, buf, PAGE, PAGE) != PAGE ||
	    pread(direct_fd, world->page[arg[0]], PAGE, PAGE) != PAGE)
		return -1;
	world->model[cow_self][arg[0]] = stamp;
	return 0;
}

static __u64 read_direct(void)
{
	static alignas(PAGE) char buf[PAGE];

	if (pread(direct_fd, buf, PAGE, 0) != PAGE)
		cow_fail("read of the loop device: %s", strerror(errno));
	return cow_peek(buf);
}

static void direct_io(unsigned int proc, unsigned int page)
{
	must(proc, direct_out, page, 0, "direct write");
	if (read_direct() != world->model[proc][page])
		cow_fail("a direct write of process %u wrote something else",
			 proc);
	cow_check_all("after a direct write");
	must(proc, direct_in, page, 0, "direct read");
	cow_check_all("after a direct read");
}

static const char *run_direct(enum cow_mode mode, const void *arg)
{
	const struct test_case *tc = arg;
	unsigned int page;
	const char *why;

	direct_fd = cow_direct_device(TABLE);
	if (direct_fd < 0)
		return "no loop device";
	why = cow_mem_start(mode, tc->mem);
	if (!why) {
		cow_fork(0, COW_FORK);
		cow_fork(0, COW_FORK);
		if (tc->actor == THREADED)
			start_threads(1);
		for (page = 0; page < 2; page++) {
			direct_io(1, page);
			direct_io(0, page);
			direct_io(2, page);
			direct_io(1, page);
		}
		cow_world_stop();
	}
	close(direct_fd);
	return why;
}

FIXTURE(direct_io) {
};

FIXTURE_VARIANT(direct_io) {
	struct test_case tc;
};

FIXTURE_SETUP(direct_io) {}
FIXTURE_TEARDOWN(direct_io) {}

FIXTURE_VARIANT_ADD(direct_io, anon) { TC(anon, PARENT, false) };
FIXTURE_VARIANT_ADD(direct_io, memfd) { TC(memfd, PARENT, false) };
FIXTURE_VARIANT_ADD(direct_io, zeropage) { TC(zeropage, PARENT, false) };
FIXTURE_VARIANT_ADD(direct_io, swapped) { TC(swapped, PARENT, false) };
FIXTURE_VARIANT_ADD(direct_io, thp_split) { TC(thp_split, PARENT, false) };
FIXTURE_VARIANT_ADD(direct_io, mthp) { TC(mthp, PARENT, false) };
FIXTURE_VARIANT_ADD(direct_io, ksm) { TC(ksm, PARENT, false) };

FIXTURE_VARIANT_ADD(direct_io, anon_threaded) {
	TC(anon, THREADED, false)
};

FIXTURE_VARIANT_ADD(direct_io, memfd_threaded) {
	TC(memfd, THREADED, false)
};

FIXTURE_VARIANT_ADD(direct_io, swapped_threaded) {
	TC(swapped, THREADED, false)
};

FIXTURE_VARIANT_ADD(direct_io, thp_split_threaded) {
	TC(thp_split, THREADED, false)
};

FIXTURE_VARIANT_ADD(direct_io, ksm_threaded) {
	TC(ksm, THREADED, false)
};

TEST_F_TIMEOUT(direct_io, both_ways, 120)
{
	COW_REPORT(cow_run_once(run_direct, &variant->tc));
}

int main(int argc, char **argv)
{
	cow_main_start();
	return test_harness_run(argc, argv);
}
