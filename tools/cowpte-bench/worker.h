/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The measurements. Each runs in a worker process of its own, which sets its
 * mode, maps and fills its memory, forks, and leaves its figures in a shared
 * mapping: nothing of one repetition is left for the next.
 */
#ifndef COWPTE_WORKER_H
#define COWPTE_WORKER_H

#include <linux/types.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "common.h"

enum job_kind { JOB_FORK, JOB_FAULT, JOB_WINDOW, JOB_MEMORY, JOB_SHM, JOB_MICRO };

/* Which pages a fault job writes. */
enum pattern {
	PATTERN_TABLE,	/* one page under each page table */
	PATTERN_SEQ,	/* every page, by address */
	PATTERN_RAND,	/* every page, in the order given */
	NR_PATTERNS,
};

/* What the child of a fork job does. */
enum child {
	CHILD_EXIT,	/* _exit() at once */
	CHILD_WAIT,	/* stay until killed */
	CHILD_EXEC,	/* execute a program that does nothing */
};

struct job {
	enum job_kind kind;
	size_t size;		/* bytes of anonymous memory to map; all but shm fill them */
	bool on;		/* share page tables at fork */
	bool can_switch;	/* the kernel has the prctl */
	bool thp;		/* ask for huge pages, else forbid them */

	bool fifo;		/* SCHED_FIFO for a forking parent, not the child */

	/* JOB_FORK */
	enum child child;
	bool rewrite;		/* write all pages between two forks */
	unsigned int later;	/* forks after the first */

	/* JOB_FAULT */
	enum pattern pattern;
	bool child_alive;	/* during the writes, else reaped before */
	const __u32 *order;	/* PATTERN_RAND: page numbers, MAP_SHARED */

	/* JOB_WINDOW */
	unsigned int every;		/* the first of so many tables is written */
	bool cold;			/* what the kernel knows of pages is not cached */

	/* JOB_MEMORY and JOB_SHM */
	const unsigned int *children;	/* numbers of children, rising */
	unsigned int nr_children;

	/* JOB_SHM */
	unsigned int pages;		/* touched of each table */
	bool write;			/* by writing to them */

	/* JOB_MICRO */
	unsigned long ops;		/* one bit for each operation */
	unsigned int loops;
};

struct fork_rec {
	__u64 fork_ns;	/* call to return in the parent */
	__u64 total_ns;	/* fork, exit of the child, wait */
	__u64 shared;	/* cow_pte_share of the whole system meanwhile */
	__u64 fallback;
};

struct fault_rec {
	__u64 ops;		/* pages written per pass */
	__u64 base_ns;	/* the pass without a fork before */
	__u64 base_worst_ns;
	__u64 fork_ns;
	__u64 pass_ns;	/* the pass after fork */
	__u64 worst_ns;	/* longest single write after fork */
	__u64 shared;
	__u64 brk;
	__u64 reuse;
};

struct window_rec {
	__u64 tables;		/* written, of those that there are */
	__u64 fork_ns;
	__u64 first_ns;		/* one write to each of these, the child is idle */
	__u64 worst_ns;		/* the longest of them */
	__u64 second_ns;	/* another page of each */
	__u64 exit_ns;		/* from the end of the child until it is reaped */
	__u64 rewrite_ns;	/* all other pages of these tables */
	__u64 child_ns;		/* another child writes to each of these and exits */
	__u64 shared;
};

struct memory_rec {
	__s64 pagetables_kb;	/* growth of PageTables: by all children */
	__u64 vmpte_kb;	/* of the last child */
	__u64 vmcowpte_kb;
	__u64 shared;	/* by all forks so far */
};

struct shm_rec {
	__s64 pagetables_kb;	/* growth of PageTables: by all children */
	__u64 vmpte_kb;		/* of the last child */
	__u64 first_ns;		/* the last child touches the memory */
	__u64 again_ns;		/* once more */
	__u64 punch_ns;		/* a page is given back that all have mapped */
	__u64 exit_ns;		/* from the end of the last child until it is reaped */
	__u64 joined;		/* tables, by all children */
};

struct micro_rec {
	double time;		/* of one operation, ns */
};

union record {
	struct fork_rec fork;
	struct fault_rec fault;
	struct window_rec window;
	struct memory_rec memory;
	struct shm_rec shm;
	struct micro_rec micro;
};

struct result {
	int error;		/* errno, with @what set */
	char what[128];
	__u64 huge_kb;	/* memory mapped by huge pages */
	bool inexact;		/* PageTables could not be brought up to date */
	unsigned int nr;	/* records filled */
	union record rec[];
};

/* The name under which a program of this package does nothing and ends. */
#define NOTHING_ARGV0	"cowpte-nothing"

bool fifo_allowed(void);
size_t table_span(void);
struct result *result_alloc(unsigned int records);
void worker_run(const struct job *job, struct result *res);

/* For the jobs. */
__u64 now(void);
void job_fail(struct result *res, int error, const char *fmt, ...)
	__printf(3, 4) __noreturn;
void exec_nothing(void) __noreturn;
pid_t fork_idle(const struct job *job, struct result *res, __u64 *ns);
void reap(pid_t pid, bool kill_it, struct result *res);
void one_fork(const struct job *job, struct result *res, struct fork_rec *rec);

/* A write that happens, and happens here, whatever the optimiser thinks. */
static inline void touch(unsigned char *p, unsigned char val)
{
	__atomic_store_n(p, val, __ATOMIC_RELAXED);
	__atomic_signal_fence(__ATOMIC_SEQ_CST);
}

#endif /* COWPTE_WORKER_H */
