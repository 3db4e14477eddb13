// SPDX-License-Identifier: GPL-2.0
#include <pthread.h>
#include <sched.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "cow_pte_op.h"

#define MPOL_DEFAULT	0
#define MPOL_BIND	2

#define CALM		T(5)
#define CALM_PAGES	16
#define NR_COMPANIONS	2

int field_fd;
pid_t cow_target;

/* What T5 holds: every process knows its own */
static __u64 calm[CALM_PAGES];

/*
 * The actor's other threads.  Each order is carried out once by each of them;
 * in between they use T5, which no operation changes.
 */
enum order { ORDER_READ, ORDER_COMPARE };

static struct {
	enum order order;
	unsigned int nr;	/* of the order */
	unsigned int done[NR_COMPANIONS];
	unsigned int bad;	/* 1 + a tracked page, that differed */
	__u64 seen;
	bool busy;		/* an operation is going on */
	bool calm_broken;
} companions;

void cow_log_pages(const char *label, char *addr, size_t len,
		   unsigned int step)
{
	size_t off;

	for (off = 0; off < len; off += step * PAGE)
		cow_log(label, off / PAGE, cow_peek(addr + off));
}

void cow_log_pagemap(const char *label, __u64 mask)
{
	unsigned int i;

	for (i = 0; i < world->nr_pages; i++)
		cow_log(label, i,
			cow_pagemap(getpid(), world->page[i]) & mask);
}

/* A file mapped by all, beside private memory */
int cow_map_neighbour(void)
{
	int fd = cow_stamped_file(memfd_create("neighbour", 0), 16 * PAGE);

	if (fd < 0 || mmap(Q(3), 16 * PAGE, RW, MAP_SHARED | MAP_FIXED, fd,
			   0) != Q(3))
		return -1;
	close(fd);
	return 0;
}

/* Which node memory comes from must not depend on the CPU it is needed on */
static int allocate_on_first_node(bool on)
{
	unsigned long mask = 1;

	if (access("/sys/devices/system/node/node1", F_OK))
		return 0;
	return on ? syscall(SYS_set_mempolicy, MPOL_BIND, &mask, 64) :
		    syscall(SYS_set_mempolicy, MPOL_DEFAULT, NULL, 0);
}

static void fill_calm(void)
{
	unsigned int i;

	for (i = 0; i < CALM_PAGES; i++) {
		calm[i] = cow_next_stamp(cow_self, i);
		cow_stamp(CALM + i * PAGE, calm[i]);
	}
}

/* The first pages of T5 belong to the threads of the actor */
static bool calm_intact(unsigned int first)
{
	unsigned int i;

	for (i = first; i < CALM_PAGES; i++)
		if (cow_peek(CALM + i * PAGE) != calm[i])
			return false;
	return true;
}

static int prepare_field(void)
{
	unsigned int first;
	char *file = Q(2);

	if (allocate_on_first_node(true))
		return -1;
	if (mmap(T(0), 2 * TABLE + 2 * QUARTER, RW, ANON | MAP_FIXED, -1,
		 0) != T(0) ||
	    mmap(CALM, TABLE, RW, ANON | MAP_FIXED, -1, 0) != CALM)
		return -1;
	madvise(T(0), 2 * TABLE + 2 * QUARTER, MADV_NOHUGEPAGE);
	madvise(CALM, TABLE, MADV_NOHUGEPAGE);
	cow_track_range(T(0), 32 * PAGE, 2);
	cow_track_range(T(0) + 32 * PAGE, TABLE - 32 * PAGE, 8);
	cow_track_range(T(1), TABLE, 32);
	cow_track_range(Q(0), QUARTER, 16);
	first = world->nr_pages;
	cow_track_range(Q(1), QUARTER, 16);
	memset(&world->readonly[first], true, world->nr_pages - first);
	if (mprotect(Q(1), QUARTER, PROT_READ))
		return -1;

	field_fd = cow_stamped_file(memfd_create("field", 0), QUARTER);
	if (field_fd < 0 ||
	    mmap(file, QUARTER, RW, MAP_PRIVATE | MAP_FIXED, field_fd,
		 0) != file)
		return -1;
	cow_track_range(file, QUARTER, 16);
	for (; file < Q(3); file += 16 * PAGE)
		cow_track(file + PAGE);
	fill_calm();
	cow_adopt();
	return allocate_on_first_node(false);
}

static long call_prepare(const long *arg)
{
	const struct cow_op *op = (void *)arg[0];

	if (prepare_field() || (op->prepare && op->prepare()))
		return -1;
	cow_adopt();
	return 0;
}

static void obey(enum order order)
{
	unsigned int i;

	for (i = 0; i < world->nr_pages; i++) {
		__u64 seen = cow_peek(world->page[i]);

		if (order == ORDER_READ || seen == world->model[cow_self][i])
			continue;
		companions.seen = seen;
		__atomic_store_n(&companions.bad, i + 1, __ATOMIC_RELEASE);
	}
}

void cow_use_cpu(unsigned int nr)
{
	cpu_set_t cpus;

	CPU_ZERO(&cpus);
	CPU_SET(nr % sysconf(_SC_NPROCESSORS_ONLN), &cpus);
	sched_setaffinity(0, sizeof(cpus), &cpus);
}

static void *companion(void *arg)
{
	long self = (long)arg;
	char *own = CALM + self * PAGE;
	__u64 stamp = calm[self];
	unsigned int done = 0, nr;
	__u32 version = 0;

	cow_use_cpu(self);
	for (;;) {
		nr = __atomic_load_n(&companions.nr, __ATOMIC_ACQUIRE);
		if (nr != done) {
			obey(companions.order);
			__atomic_store_n(&companions.done[self], nr,
					 __ATOMIC_RELEASE);
			done = nr;
		}
		if (!calm_intact(NR_COMPANIONS) || cow_peek(own) != stamp)
			__atomic_store_n(&companions.calm_broken, true,
					 __ATOMIC_RELAXED);
		/* cow_next_stamp() is not for several threads */
		version++;
		stamp = (__u64)(cow_self + 1) << 56 | (__u64)self << 40 |
			(__u64)version << 8;
		cow_stamp(own, stamp);
		/* One of them leaves the actor's CPU to the actor */
		if (!self || !__atomic_load_n(&companions.busy,
					      __ATOMIC_RELAXED))
			usleep(500);
	}
	return NULL;
}

static void give_order(enum order order)
{
	unsigned int i;

	companions.order = order;
	__atomic_store_n(&companions.nr, companions.nr + 1, __ATOMIC_RELEASE);
	for (i = 0; i < NR_COMPANIONS; i++)
		while (__atomic_load_n(&companions.done[i],
				       __ATOMIC_ACQUIRE) != companions.nr)
			usleep(100);
}

static long call_start_companions(const long *arg)
{
	pthread_attr_t attr;
	pthread_t thread;
	long i;

	memset(&companions, 0, sizeof(companions));
	cow_use_cpu(0);
	pthread_attr_init(&attr);
	/* mlockall() populates stacks */
	pthread_attr_setstacksize(&attr, 64 * 1024);
	for (i = 0; i < NR_COMPANIONS; i++) {
		errno = pthread_create(&thread, &attr, companion, (void *)i);
		if (errno)
			return -1;
	}
	give_order(ORDER_READ);
	return 0;
}

/* The other threads see what this one does */
static long call_compare(const long *arg)
{
	give_order(ORDER_COMPARE);
	__atomic_store_n(&companions.busy, false, __ATOMIC_RELAXED);
	if (!companions.bad)
		return companions.calm_broken ? -2 : 0;
	world->bad.page = companions.bad - 1;
	world->bad.seen = companions.seen;
	return 1;
}

static long call_warm_up(const long *arg)
{
	__atomic_store_n(&companions.busy, true, __ATOMIC_RELAXED);
	give_order(ORDER_READ);
	return 0;
}

static long call_check_calm(const long *arg)
{
	return !calm_intact(arg[0] ? NR_COMPANIONS : 0);
}

/* For the operations that are one call of madvise(), see their variants */
static void do_madvise(const struct cow_op *op)
{
	DO(madvise(arena + op->offset, op->len, op->advice));
}

static long call_run(const long *arg)
{
	const struct cow_op *op = (void *)arg[0];

	cow_target = arg[1];
	if (op->remote)
		op->remote();
	else if (op->run)
		op->run();
	else
		do_madvise(op);
	return 0;
}

static long call_hook(const long *arg)
{
	((void (*)(void))arg[0])();
	return 0;
}

/* What the process sees, also noted unless reclaim may have changed it */
static long call_look(const long *arg)
{
	unsigned int i;

	cow_adopt();
	for (i = 0; arg[0] && i < world->nr_pages; i++)
		cow_log("page", i, world->model[cow_self][i]);
	return 0;
}

static long call_write_all(const long *arg)
{
	unsigned int i;

	for (i = 0; i < world->nr_pages; i++)
		cow_log("write", i, cow_try_write(world->page[i], i));
	return 0;
}

/* The number of the actor's process */
unsigned int cow_op_proc(enum cow_actor actor)
{
	return actor >= ACTOR_THREADED ? ACTOR_CHILD : actor;
}

/* Number of tables that a process may have in common with others */
long cow_shared_tables(unsigned int proc)
{
	return cow_status(cow_proc[proc].pid, "VmCowPTE") / (long)(PAGE / 1024);
}

/* Have a process make a copy of each table, by one write */
static void write_tables(unsigned int proc)
{
	uintptr_t last = 0, table;
	unsigned int i;

	for (i = 0; i < world->nr_pages; i++) {
		table = (uintptr_t)world->page[i] / TABLE;
		if (table == last || world->readonly[i])
			continue;
		cow_poke(proc, i);
		last = table;
	}
}

/* All processes, and the actor's threads, see what the model says */
void cow_field_check(const struct cow_op_case *tc, const char *when)
{
	unsigned int i, proc = cow_op_proc(tc->actor);
	bool threaded = tc->actor == ACTOR_THREADED && cow_proc[proc].alive;
	long ret;

	cow_check_all(when);
	for (i = 0; i < 3; i++)
		if (cow_proc[i].alive &&
		    cow_call(i, call_check_calm, threaded && i == proc))
			cow_fail("%s: process %u: T5 has changed", when, i);
	if (!threaded)
		return;
	ret = cow_call(proc, call_compare, 0);
	if (ret == -2)
		cow_fail("%s: a thread saw T5 change", when);
	if (ret)
		cow_fail("%s: a thread sees %#llx in page %u, not %#llx", when,
			 world->bad.seen, world->bad.page,
			 world->model[proc][world->bad.page]);
}

/**
 * cow_field_start() - a new world of three processes that share the field
 *
 * Returns NULL or the reason why it cannot be had; there is no world then.
 */
const char *cow_field_start(enum cow_mode mode, const struct cow_op_case *tc)
{
	static const struct cow_mem field = { .tables = FIELD_TABLES };
	unsigned int proc = cow_op_proc(tc->actor);

	cow_world_start(mode);
	if (cow_call(0, call_prepare, (long)tc->op)) {
		if (!world->skip[0])
			cow_fail("preparation failed: %s", strerror(errno));
		cow_world_stop();
		return world->skip;
	}
	cow_fork(0, COW_FORK);
	cow_fork(0, COW_FORK);
	if (!(tc->op->flags & NOT_SHARED))
		cow_must_share(mode, &field);
	if (tc->actor == ACTOR_THREADED &&
	    cow_call(proc, call_start_companions, 0))
		cow_fail("pthread_create: %s", strerror(errno));
	cow_field_check(tc, "after fork");
	/* (Where nothing is shared, nothing is lent, and a write may wait.) */
	if (tc->actor == ACTOR_BORROWER && !(tc->op->flags & NOT_SHARED))
		write_tables(ACTOR_CHILD);
	if (tc->actor == ACTOR_LENDER && !(tc->op->flags & NOT_SHARED)) {
		write_tables(ACTOR_PARENT);
		write_tables(ACTOR_THIRD);
	}
	/* The last that they did before the operation */
	if (tc->actor == ACTOR_THREADED)
		cow_call(proc, call_warm_up, 0);
	return NULL;
}

static void write_all(const struct cow_op_case *tc, unsigned int proc,
		      const char *when)
{
	cow_call(proc, call_write_all, 0);
	cow_field_check(tc, when);
}

static void run_hook(unsigned int proc, void (*hook)(void))
{
	if (hook && !world->skip[0])
		cow_call(proc, call_hook, (long)hook);
}

static const char *run_op(enum cow_mode mode, const void *arg)
{
	const struct cow_op_case *tc = arg;
	const struct cow_op *op = tc->op;
	bool look = !(op->flags & UNPREDICTABLE);
	unsigned int i, late, actor = cow_op_proc(tc->actor);
	const char *why;

	why = cow_field_start(mode, tc);
	if (why)
		return why;

	cow_call(op->remote ? (actor + 1) % 3 : actor, call_run, (long)op,
		 world->pid[actor]);
	run_hook((actor + 1) % 3, op->others);
	run_hook((actor + 2) % 3, op->others);
	run_hook(actor, op->finish);
	if (world->skip[0]) {
		cow_world_stop();
		return world->skip;
	}
	for (i = 0; i < 3; i++) {
		if (i != actor && !(op->flags & SEEN_BY_ALL))
			cow_check(i, "after the operation");
		else
			cow_call(i, call_look, look);
	}
	cow_field_check(tc, "after the operation");

	/* Share what it left behind, then write everywhere */
	late = cow_fork(actor, COW_FORK);
	cow_call(late, call_look, look);
	write_all(tc, actor, "after the actor wrote");
	write_all(tc, late, "after its child wrote");
	write_all(tc, (actor + 1) % 3, "after another process wrote");
	write_all(tc, (actor + 2) % 3, "after all wrote");
	cow_exit(actor);
	cow_field_check(tc, "after the actor's exit");
	write_all(tc, (actor + 1) % 3, "when the actor is gone");
	cow_world_stop();
	return NULL;
}

/**
 * cow_op_run() - have one of three processes do an operation, off and on
 *
 * Returns NULL or the reason why it was skipped.
 */
const char *cow_op_run(const struct cow_op *op, enum cow_actor actor)
{
	struct cow_op_case tc = { .op = op, .actor = actor };

	return cow_run(run_op, &tc);
}
