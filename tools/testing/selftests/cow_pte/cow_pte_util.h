/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Shared parts of the copy-on-write page table tests.
 *
 * A test builds a "world": a tree of forked processes that all carry out
 * calls the test sends them over socket pairs.  Every tracked page holds a
 * stamp (owner, page, version) and the world has a model of what each process
 * must see in each page, so that one check tells whether anything leaked from
 * one process into another.
 *
 * Scenarios that compare run twice: once with the feature off, as the
 * reference, and once with it on.  What they log must be the same both times.
 */
#ifndef COW_PTE_UTIL_H
#define COW_PTE_UTIL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/types.h>
#include <linux/types.h>

#include "kselftest.h"

#ifndef PR_SET_COW_PTE
#define PR_SET_COW_PTE	0x434f5750
#define PR_GET_COW_PTE	0x434f5751
#endif

/* Newer than the oldest headers these tests build with */
#ifndef MADV_DONTNEED_LOCKED
#define MADV_DONTNEED_LOCKED	24
#endif
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE		25
#endif
#ifndef MADV_SOFT_OFFLINE
#define MADV_SOFT_OFFLINE	101
#endif

#define COW_SYSFS	"/sys/kernel/mm/cow_pte/"

#define PAGE		4096UL
#define TABLE		(2UL << 20)	/* mapped by one PTE table */
#define TABLE_PAGES	(TABLE / PAGE)
#define ARENA_TABLES	6

#define COW_MAX_PROCS	72
#define COW_USUAL_PROCS	6
#define COW_MAX_PAGES	2048
#define COW_MAX_HOLES	64
#define COW_MAX_LOG	65536

/* What cow_peek() says of memory that cannot be read */
#define COW_SEGV	(~0ULL)
#define COW_BUS		(~1ULL)

/* The owner of pages of a mapped file, which no process wrote */
#define COW_FILE_OWNER	100

#define ARRAY_LEN(a)	(sizeof(a) / sizeof((a)[0]))
enum cow_mode { COW_OFF, COW_ON };

enum cow_how { COW_FORK, COW_CLONE, COW_CLONE3, COW_THREADED };

typedef long (*cow_fn)(const long *arg);

/* Returns NULL, or why it cannot run here */
typedef const char *(*cow_scenario_fn)(enum cow_mode mode, const void *arg);

struct cow_log {
	const char *label;
	long key;
	__u64 val;
};

struct cow_world {
	unsigned int nr_procs;
	unsigned int nr_pages;
	unsigned int nr_holes;
	unsigned int version;
	unsigned int nr_log;
	char skip[160];
	pid_t pid[COW_MAX_PROCS];
	char *page[COW_MAX_PAGES];
	bool readonly[COW_MAX_PAGES];
	char *hole[COW_MAX_HOLES];
	__u64 model[COW_MAX_PROCS][COW_MAX_PAGES];
	struct {
		unsigned int page;
		__u64 seen;
	} bad;
	struct cow_log log[COW_MAX_LOG];
};

struct cow_proc {
	pid_t pid;
	int pidfd;
	int parent;
	bool alive;
};

/* A kind of memory to share, see cow_pte_mem.c */
struct cow_mem {
	const char *name;
	/* Runs in the first process; 0, or -1 with a reason in skip[] */
	int (*prepare)(void);
	/* Number of tables of it that fork must share */
	unsigned int tables;
};

extern struct cow_world *world;
extern struct cow_proc cow_proc[COW_MAX_PROCS];
extern unsigned int cow_self;
extern char *arena;
extern const struct cow_mem cow_mem[];
extern const unsigned int cow_nr_mem;

/* Indices of cow_mem[] */
enum cow_mem_kind {
	MEM_anon,
	MEM_sparse,
	MEM_holes,
	MEM_straddle,
	MEM_heap,
	MEM_stack,
	MEM_tmpfs,
	MEM_memfd,
	MEM_exe,
	MEM_readonly_neighbour,
	MEM_protections,
	MEM_confetti,
	MEM_zeropage,
	MEM_swapped,
	MEM_thp_split,
	MEM_thp,
	MEM_mthp,
	MEM_ksm,
	MEM_mremapped,
	MEM_shared_neighbour,
	MEM_dontfork_neighbour,
	MEM_file_neighbour,
	MEM_mlocked_neighbour,
};

/* Set-up and the two modes */
void cow_without_rseq(char **argv);
void cow_main_start(void);
int cow_available(void);
void cow_set_system_mode(enum cow_mode mode);
void cow_set_file_mode(enum cow_mode mode);
const char *cow_run(cow_scenario_fn scenario, const void *arg);
const char *cow_run_off(cow_scenario_fn scenario, const void *arg);
const char *cow_run_once(cow_scenario_fn scenario, const void *arg);
const char *cow_run_warm(cow_scenario_fn scenario, const void *arg);

/* The world and its processes; for the test process */
void cow_prepare(void);
void cow_world_start(enum cow_mode mode);
void cow_world_start_big(enum cow_mode mode, unsigned int max_procs);
void cow_world_stop(void);
long cow_try_call_args(unsigned int proc, cow_fn fn, const long *arg);
long cow_call_args(unsigned int proc, cow_fn fn, const long *arg);
void cow_send_args(unsigned int proc, cow_fn fn, const long *arg);
unsigned int cow_fork(unsigned int parent, enum cow_how how);
void cow_fork_as(unsigned int child, unsigned int parent, enum cow_how how);
void cow_fork_again(unsigned int proc);
void cow_exit(unsigned int proc);
void cow_exit_start(unsigned int proc);
void cow_exec_start(unsigned int proc);
void cow_exit_wait(unsigned int proc);
void cow_reap(unsigned int proc);
void cow_check(unsigned int proc, const char *when);
void cow_check_all(const char *when);
void cow_poke(unsigned int proc, unsigned int page);
void cow_poke_all(unsigned int proc);
unsigned int cow_track_hole(unsigned int hole);
const char *cow_mem_start(enum cow_mode mode, const struct cow_mem *mem);
const char *cow_mem_start_big(enum cow_mode mode, const struct cow_mem *mem,
			      unsigned int max_procs);
void cow_check_rss(unsigned int proc);
void cow_check_counters(unsigned int proc, const char *when);
void cow_check_all_counters(const char *when);
void cow_must_share(enum cow_mode mode, const struct cow_mem *mem);

#define cow_call(proc, fn, ...) \
	cow_call_args(proc, fn, ((long[6]) { __VA_ARGS__ }))
#define cow_try_call(proc, fn, ...) \
	cow_try_call_args(proc, fn, ((long[6]) { __VA_ARGS__ }))

#define cow_send(proc, fn, ...) \
	cow_send_args(proc, fn, ((long[6]) { __VA_ARGS__ }))

/* For code that runs in the world's processes */
__u64 cow_peek(const void *addr);
int cow_try_write(void *addr, unsigned int page);
__u64 cow_next_stamp(unsigned int owner, unsigned int page);
__u64 cow_stamp_word(__u64 stamp, unsigned int slot);
void cow_stamp(void *addr, __u64 stamp);
const char *cow_describe(__u64 val, char *buf, size_t len);
void cow_fill_page(void *buf, __u64 stamp);
unsigned int cow_track(void *addr);
void cow_track_range(char *addr, size_t len, unsigned int step);
void cow_add_hole(void *addr);
void cow_adopt(void);
void cow_log(const char *label, long key, __u64 val);
int cow_skip(const char *fmt, ...) __printf(1, 2);
int cow_tmpfile(void);
int cow_stamped_file(int fd, size_t len);
int cow_direct_device(size_t len);

/* Failing allocations, see cow_with_failure() */
enum cow_faults {
	COW_FAULTS_ALL,
	COW_FAULTS_TABLES,	/* page tables, as good as only */
};

struct cow_outcome {
	bool injected;
	long ret;
	int err;
};

const char *cow_faults_start(enum cow_faults which);
void cow_with_failure(unsigned int nth, cow_fn fn, const long *arg,
		      struct cow_outcome *outcome);
long cow_fork_and_reap(const long *arg);

const char *cow_commit_start(void);
void cow_commit_stop(void);
long cow_fork_in_vain(const long *arg);

/* Does anything stay behind?  For the test process */
struct cow_usage {
	/* Pages of page tables, anonymous memory, swap, on LRU lists */
	long slack[4];
	long before[4];
};

/*
 * The test process itself may need some more memory; and each CPU keeps two
 * handfuls of free slots of swap, and some of pages on their way to the lists.
 */
#define COW_USAGE	{ .slack = { 0, 16, 300, 200 } }

void cow_usage_start(struct cow_usage *usage);
bool cow_usage_grown(const struct cow_usage *usage);

#define COW_STAMP_SLOTS	8
#define COW_SLOT_BYTES	(PAGE / COW_STAMP_SLOTS)

/* Anywhere */
void cow_fail(const char *fmt, ...)
	__noreturn __printf(1, 2);
FILE *cow_open_proc(pid_t pid, const char *name);
int cow_read_file(const char *path, char *buf, size_t len);
int cow_write_file(const char *path, const char *val);
long cow_read_field(const char *path, const char *field);
long cow_vmstat(const char *field);
long cow_page_tables(void);
long cow_anon_pages(void);
long cow_anon_lru(void);
long cow_swap_used(void);
long cow_status(pid_t pid, const char *field);
long cow_stat(pid_t pid, const char *field);
long cow_smaps_field(const char *addr, const char *field);
__u64 cow_pagemap(pid_t pid, const void *addr);
void cow_fold_vmstat(void);
long cow_settle(long (*read_value)(void), long limit);
struct argp_state;
unsigned long long cow_arg_number(struct argp_state *state, const char *arg,
				  unsigned long long most);
__u64 cow_random(__u64 *state);
long cow_env(const char *name, long def);

int cow_cgroup_enter(long swap);
int cow_cgroup_limit(long mib, bool swap);
int cow_cgroup_limit_to_use(bool swap);
int cow_cgroup_oom_group(void);
int cow_cgroup_reclaim(long mib);
int cow_swap_device(char *dev, size_t len, long most);
int cow_ksm_scan(void);

#define PM_BIT(n)	(1ULL << (n))
#define PM_PRESENT	PM_BIT(63)
#define PM_SWAP		PM_BIT(62)
#define PM_FILE		PM_BIT(61)
#define PM_WP		PM_BIT(57)
#define PM_EXCLUSIVE	PM_BIT(56)
#define PM_SOFT_DIRTY	PM_BIT(55)
#define PM_PFN_MASK	(PM_SOFT_DIRTY - 1)

/* PAGEMAP_SCAN is newer than the oldest headers these tests build with */
struct scan_arg {
	__u64 size, flags, start, end, walk_end, vec, vec_len, max_pages;
	__u64 category_inverted, category_mask, category_anyof_mask, return_mask;
};

struct scan_region {
	__u64 start, end, categories;
};

#define IOC_SCAN		_IOWR('f', 16, struct scan_arg)
#define SCAN_WP_MATCHING	0x1
#define SCAN_IS_WRITTEN		0x2
/* WPALLOWED, FILE, PRESENT, SWAPPED, PFNZERO, HUGE, SOFT_DIRTY */
#define SCAN_CATEGORIES		0xfd

/* Ends the body of a test case: skipped if cow_run() etc. gave a reason */
#define COW_REPORT(reason) do {						\
	const char *__reason = (reason);				\
									\
	if (__reason)							\
		SKIP(break, "%s", __reason);				\
} while (0)

#endif /* COW_PTE_UTIL_H */
