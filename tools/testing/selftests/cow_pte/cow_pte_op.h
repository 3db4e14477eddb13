/* SPDX-License-Identifier: GPL-2.0 */
/*
 * One operation on memory that three processes share, done by one of them: it
 * must give the same results as with the feature off, and the other two must
 * not notice.
 */
#ifndef COW_PTE_OP_H
#define COW_PTE_OP_H

#include <errno.h>
#include <sys/mman.h>

#include "cow_pte_util.h"

#define RW	(PROT_READ | PROT_WRITE)
#define ANON	(MAP_PRIVATE | MAP_ANONYMOUS)

/*
 * The field: T0 and T1 anonymous, T2 in four quarters: anonymous, anonymous
 * and read-only, private mapping of a file, nothing.  T3 and T4 are free.  T5
 * no operation touches: there the other threads of the actor keep busy.
 */
#define T(n)		(arena + (n) * TABLE)
#define QUARTER		(TABLE / 4)
#define Q(n)		(T(2) + (n) * QUARTER)

#define FIELD_TABLES	4

enum {
	/* The operation is on a file: everybody sees it */
	SEEN_BY_ALL	= 0x01,
	/* What the process sees may depend on reclaim */
	UNPREDICTABLE	= 0x02,
	/* The preparation rules out sharing */
	NOT_SHARED	= 0x04,
};

struct cow_op {
	int (*prepare)(void);	/* in the first process, before it forks */
	void (*run)(void);	/* in the process that acts, the actor */
	void (*remote)(void);	/* or in another, on the actor: cow_target */
	void (*others)(void);	/* then in the others */
	void (*finish)(void);	/* and again in the actor */
	unsigned int flags;
	/* Without a function to run: madvise(), from the arena's start on */
	size_t offset;
	size_t len;
	int advice;
};

enum cow_actor {
	ACTOR_PARENT,
	ACTOR_CHILD,
	ACTOR_THIRD,
	/* The child while its other threads use tables, on all CPUs */
	ACTOR_THREADED,
	/* The child, whose tables borrow from those of the others */
	ACTOR_BORROWER,
	/* The child, alone with tables that those of the others borrow from */
	ACTOR_LENDER,
};

struct cow_op_case {
	const struct cow_op *op;
	enum cow_actor actor;
};

extern int field_fd;
extern pid_t cow_target;

const char *cow_op_run(const struct cow_op *op, enum cow_actor actor);
const char *cow_field_start(enum cow_mode mode, const struct cow_op_case *tc);
void cow_field_check(const struct cow_op_case *tc, const char *when);
int cow_map_neighbour(void);
void cow_use_cpu(unsigned int nr);
unsigned int cow_op_proc(enum cow_actor actor);
long cow_shared_tables(unsigned int proc);
void cow_log_pages(const char *label, char *addr, size_t len,
		   unsigned int step);
void cow_log_pagemap(const char *label, __u64 mask);

/* Do it and note how it ended */
#define DO(call) do {							\
	long __ret;							\
									\
	errno = 0;							\
	__ret = (long)(call);						\
	cow_log(#call, 0, __ret == -1 ? -errno : __ret);		\
} while (0)

/* The members of a variant */
#define RUN(name)	.op.run = op_##name
#define ADVISE(o, l, a)	.op = { .offset = o, .len = l, .advice = a }

#endif /* COW_PTE_OP_H */
