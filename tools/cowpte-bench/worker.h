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

enum job_kind { JOB_FORK, JOB_FAULT, JOB_MEMORY };

/* Which pages a fault job writes. */
enum pattern {
	PATTERN_TABLE,	/* one page under each page table */
	PATTERN_SEQ,	/* every page, by address */
	PATTERN_RAND,	/* every page, in the order given */
	NR_PATTERNS,
};

struct job {
	enum job_kind kind;
	size_t size;		/* bytes of anonymous memory to map and fill */
	bool on;		/* share page tables at fork */
	bool can_switch;	/* the kernel has the prctl */
	bool thp;		/* ask for huge pages, else forbid them */

	/* JOB_FORK */
	bool fifo;		/* SCHED_FIFO for the parent, not the child */
	bool child_waits;	/* stay until killed, instead of _exit() */
	bool rewrite;		/* write all pages between two forks */
	unsigned int later;	/* forks after the first */

	/* JOB_FAULT */
	enum pattern pattern;
	bool child_alive;	/* during the writes, else reaped before */
	const __u32 *order;	/* PATTERN_RAND: page numbers, MAP_SHARED */

	/* JOB_MEMORY */
	const unsigned int *children;	/* numbers of children, rising */
	unsigned int nr_children;
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
	__u64 pass_ns;	/* the pass after fork */
	__u64 worst_ns;	/* longest single write after fork */
	__u64 shared;
	__u64 brk;
	__u64 reuse;
};

struct memory_rec {
	__s64 pagetables_kb;	/* growth of PageTables: by all children */
	__u64 vmpte_kb;	/* of the last child */
	__u64 vmcowpte_kb;
	__u64 shared;	/* by all forks so far */
};

union record {
	struct fork_rec fork;
	struct fault_rec fault;
	struct memory_rec memory;
};

struct result {
	int error;		/* errno, with @what set */
	char what[128];
	__u64 huge_kb;	/* memory mapped by huge pages */
	bool inexact;		/* PageTables could not be brought up to date */
	unsigned int nr;	/* records filled */
	union record rec[];
};

bool fifo_allowed(void);
size_t table_span(void);
struct result *result_alloc(unsigned int records);
void worker_run(const struct job *job, struct result *res);

#endif /* COWPTE_WORKER_H */
