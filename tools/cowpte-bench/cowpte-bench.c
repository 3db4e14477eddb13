// SPDX-License-Identifier: GPL-2.0
/*
 * cowpte-bench - what copy-on-write page tables do to fork(), to the faults
 * after it, and to the memory that page tables take.
 *
 * This file reads the arguments, decides what can be measured on this kernel,
 * runs the jobs of worker.c and reports.
 */
#define _GNU_SOURCE
#include <argp.h>
#include <ctype.h>
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#include "common.h"
#include "hypervisor.h"
#include "micro.h"
#include "output.h"
#include "stats.h"
#include "worker.h"

#define EXIT_USAGE	2	/* bad arguments */
#define EXIT_MODE	3	/* this system cannot measure the mode asked for */

#define MAX_LIST	64
#define MAX_SIZE	0x800000000000ULL
#define MAX_REPS	1000000
#define MAX_CHILDREN	30000
#define MAX_METRICS	8
#define MAX_WARNINGS	64
#define ALL_PATTERNS	(BIT(NR_PATTERNS) - 1)

#define SYSFS_THP	"/sys/kernel/mm/transparent_hugepage/enabled"

/* Left free beyond what a measurement is known to take. */
#define MEMORY_SLACK	(48ULL << 20)

enum { MODE_OFF, MODE_ON, NR_MODES };
#define BOTH_MODES	(BIT(MODE_OFF) | BIT(MODE_ON))

static const char *const mode_name[] = { "off", "on" };
static const char *const pattern_name[] = { "table", "seq", "rand" };
static const char *const child_name[] = {
	[CHILD_EXIT] = "exit",
	[CHILD_WAIT] = "wait",
	[CHILD_EXEC] = "exec",
};

static const char *const alive_name[] = { "gone", "alive" };

/* The command line. */
static struct {
	const struct command *cmd;
	const struct metric *metric;
	unsigned int modes;
	unsigned long long size[MAX_LIST];
	size_t nr_sizes;
	unsigned int reps;
	bool thp;
	const char *json;
	bool samples;
	enum unit unit;
	const char *note;

	bool fifo;
	bool sched_given;
	enum child child;
	bool rewrite;
	unsigned int later;

	unsigned int patterns;
	unsigned int alive;		/* bit 0: gone, bit 1: alive */
	unsigned long long seed;

	unsigned int every;
	bool cold;

	unsigned int children[MAX_LIST];
	unsigned int nr_children;

	unsigned int pages;
	bool write;

	unsigned long ops;
	unsigned int loops;
} opt;

/* The system. */
static struct {
	struct utsname uts;
	bool feature;
	enum cowpte_sysmode sysmode;
	long min_tables;
	long cpus;
	char hypervisor[HYPERVISOR_NAME];
} host;

/* What a metric is measured in. */
enum dimension { DIM_TIME, DIM_KB, DIM_COUNT };

struct metric {
	const char *name;
	enum dimension dim;
	bool ratio;		/* off/on is worth printing */
};

/*
 * All samples for one combination of size, mode and whatever else a command
 * varies.
 */
struct point {
	unsigned long long size;
	unsigned long long tables;
	int mode;
	const char *key[2];	/* further dimensions, by name ... */
	const char *val[2];	/* ... and value */
	unsigned int number;	/* the same for a dimension with numbers */
	unsigned long long ops;
	struct series s[MAX_METRICS];
	struct series shared;
};

struct command {
	const char *name;
	const struct metric *metric;
	void (*run)(void);
	void (*print)(FILE *f);
	const struct argp *argp;
};

static struct point *points;
static size_t nr_points;

static char *warnings[MAX_WARNINGS];
static size_t nr_warnings;

static struct timespec started;
static bool progress_shown;

static void progress_clear(void)
{
	if (progress_shown)
		fputs("\r\033[K", stderr);
	progress_shown = false;
}

/* One line that overwrites itself, for who sits there and waits. */
static void __printf(1, 2) progress(const char *fmt, ...)
{
	struct timespec ts;
	va_list ap;

	if (!isatty(STDERR_FILENO))
		return;
	clock_gettime(CLOCK_MONOTONIC, &ts);
	if (ts.tv_sec - started.tv_sec < 2)
		return;
	fputs("\r\033[K", stderr);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fflush(stderr);
	progress_shown = true;
}

/* Say it once on stderr, and keep it for the JSON output. */
static void __printf(1, 2) add_warning(const char *fmt, ...)
{
	char *text;
	va_list ap;
	size_t i;

	va_start(ap, fmt);
	if (vasprintf(&text, fmt, ap) < 0)
		err(EXIT_FAILURE, "warning");
	va_end(ap);
	for (i = 0; i < nr_warnings; i++) {
		if (!strcmp(warnings[i], text)) {
			free(text);
			return;
		}
	}
	progress_clear();
	warnx("warning: %s", text);
	if (nr_warnings < MAX_WARNINGS)
		warnings[nr_warnings++] = text;
	else
		free(text);
}

static struct point *point_add(unsigned long long size, int mode)
{
	struct point *p;

	points = reallocarray(points, nr_points + 1, sizeof(*points));
	if (!points)
		err(EXIT_FAILURE, "results");
	p = &points[nr_points++];
	memset(p, 0, sizeof(*p));
	p->size = size;
	p->tables = (size + table_span() - 1) / table_span();
	p->mode = mode;
	return p;
}

/* The same measurement in the other mode, NULL if there is none. */
static const struct point *point_other(const struct point *p, int mode)
{
	size_t i;

	for (i = 0; i < nr_points; i++) {
		const struct point *q = &points[i];

		if (q->mode == mode && q->size == p->size &&
		    q->val[0] == p->val[0] && q->val[1] == p->val[1] &&
		    q->number == p->number)
			return q;
	}
	return NULL;
}

/* The same fork of a process without memory, NULL if that was not measured. */
static const struct point *point_empty(const struct point *p)
{
	size_t i;

	for (i = 0; i < nr_points; i++) {
		const struct point *q = &points[i];

		if (!q->size && q->mode == p->mode && q->val[0] == p->val[0])
			return q;
	}
	return NULL;
}

/*
 * Quotients only of what is really there: an overhead lost in noise can be
 * zero or negative, and "1000 times better" would then mean nothing.
 */
static double quotient(double off, double on)
{
	return off > 0 && on > 0 ? off / on : NAN;
}

static const char *fmt_ratio(char *buf, size_t size, double v)
{
	if (!isfinite(v))
		snprintf(buf, size, "-");
	else if (v < 9.995)
		snprintf(buf, size, "%.3f", v);
	else
		snprintf(buf, size, "%.1f", v);
	return buf;
}

/* A job with what all commands share. */
static struct job job_init(enum job_kind kind, unsigned long long size, int mode)
{
	return (struct job) {
		.kind = kind,
		.size = size,
		.on = mode == MODE_ON,
		.can_switch = host.feature,
		.thp = opt.thp,
	};
}

/* Refuse what would end with the OOM killer. */
static void check_memory(const char *what, unsigned long long need)
{
	unsigned long long kb;

	need += MEMORY_SLACK;
	if (meminfo_kb("MemAvailable", &kb) || need / 1024 <= kb)
		return;
	progress_clear();
	errx(EXIT_FAILURE,
	     "not enough memory for %s: %llu MiB needed, %llu MiB available",
	     what, need >> 20, kb >> 10);
}

static void job_run(const struct job *job, struct result *res)
{
	char size[32];

	worker_run(job, res);
	fmt_size(size, sizeof(size), job->size);
	if (res->error) {
		progress_clear();
		if (res->error == ECHILD)
			errx(EXIT_FAILURE, "size %s: %s", size, res->what);
		errno = res->error;
		err(EXIT_FAILURE, "size %s: %s", size, res->what);
	}
	if (job->thp && res->huge_kb * 1024 < job->size / 10 * 9)
		add_warning("size %s: only %llu kB are mapped by huge pages; see %s", size,
			    (unsigned long long)res->huge_kb, SYSFS_THP);
}

/* Whether a fork that should share did. */
static void check_shared(const struct job *job, __u64 shared,
			 __u64 fallback)
{
	unsigned long long tables = (job->size + table_span() - 1) / table_span();
	char size[32];

	/* Huge pages have no table of 4 KiB entries to share. */
	if (!job->on || job->thp || shared >= tables)
		return;
	fmt_size(size, sizeof(size), job->size);
	if (shared)
		add_warning("mode on, size %s: %llu of %llu tables shared (%llu fallbacks)", size,
			    (unsigned long long)shared, tables, (unsigned long long)fallback);
	else if (host.min_tables > 0 && tables <= (unsigned long)host.min_tables)
		add_warning("mode on, size %s: nothing shared, the process is below min_tables (%ld)",
			    size, host.min_tables);
	else
		add_warning("mode on, size %s: nothing shared, the figures show conventional forks",
			    size);
}

/*
 * fork
 */
enum { FORK_CALL, FORK_TOTAL };

static const struct metric fork_metric[] = {
	[FORK_CALL] = { "fork", DIM_TIME, true },
	[FORK_TOTAL] = { "fork_exit_wait", DIM_TIME, true },
	{ 0 }
};

/* The same figures, of children that execute a program. */
static const struct metric exec_metric[] = {
	[FORK_CALL] = { "fork", DIM_TIME, true },
	[FORK_TOTAL] = { "fork_exec_wait", DIM_TIME, true },
	{ 0 }
};

static const char key_fork[] = "fork";
static const char val_first[] = "first";
static const char val_later[] = "later";

static void run_fork(void)
{
	struct result *res = result_alloc(opt.later + 1);
	unsigned int rep, i, k;
	size_t s;

	for (s = 0; s < opt.nr_sizes; s++) {
		unsigned long long size = opt.size[s];
		size_t index[NR_MODES] = { 0 };
		int mode;

		for (mode = MODE_OFF; mode <= MODE_ON; mode++) {
			struct point *p;

			if (!(opt.modes & BIT(mode)))
				continue;
			index[mode] = nr_points;
			p = point_add(size, mode);
			p->key[0] = key_fork;
			p->val[0] = val_first;
			if (!opt.later)
				continue;
			p = point_add(size, mode);
			p->key[0] = key_fork;
			p->val[0] = val_later;
		}
		for (rep = 0; rep < opt.reps; rep++) {
			for (k = 0; k < NR_MODES; k++) {
				struct job job;

				/* off on, on off: a drift hits both alike */
				mode = (k + rep) % NR_MODES;
				if (!(opt.modes & BIT(mode)))
					continue;
				progress("fork: size %zu of %zu, repetition %u of %u",
					 s + 1, opt.nr_sizes, rep + 1, opt.reps);
				check_memory("fork", size + size / 128);
				job = job_init(JOB_FORK, size, mode);
				job.later = opt.later;
				job.fifo = opt.fifo;
				job.child = opt.child;
				job.rewrite = opt.rewrite;
				job_run(&job, res);
				for (i = 0; i < res->nr; i++) {
					struct fork_rec *r = &res->rec[i].fork;
					struct point *p = &points[index[mode] + !!i];

					series_add(&p->s[FORK_CALL], r->fork_ns);
					series_add(&p->s[FORK_TOTAL], r->total_ns);
					series_add(&p->shared, r->shared);
					check_shared(&job, r->shared, r->fallback);
				}
			}
		}
	}
}

/* What one page table adds to a fork: NAN where that cannot be said. */
static double per_table(const struct point *p, int metric, bool of_min)
{
	const struct point *empty = point_empty(p);
	struct summary a, b;

	if (!p->tables || !empty)
		return NAN;
	a = series_summary(&p->s[metric]);
	b = series_summary(&empty->s[metric]);
	return (of_min ? a.min - b.min : a.median - b.median) / p->tables;
}

static void print_fork(FILE *f)
{
	const char *const title[] = {
		[FORK_CALL] = "fork(), as the parent waits for it",
		[FORK_TOTAL] = opt.child == CHILD_EXEC ?
			"fork + exec of a program that ends at once + wait" :
			"fork + exit of the child + wait",
	};
	char a[32], b[32], c[32], d[32], e[32], r[32];
	struct table t;
	size_t i;
	int m;

	for (m = FORK_CALL; m <= FORK_TOTAL; m++) {
		fprintf(f, "\n%s\n", title[m]);
		table_start(&t, 0);
		table_add(&t, "size");
		table_add(&t, "tables");
		table_add(&t, "fork");
		table_add(&t, "mode");
		table_add(&t, "median");
		table_add(&t, "p99");
		table_add(&t, "min");
		table_add(&t, "max");
		table_add(&t, "per table");
		if (opt.modes == BOTH_MODES)
			table_add(&t, "off/on");
		table_end_row(&t);
		for (i = 0; i < nr_points; i++) {
			const struct point *p = &points[i], *off;
			struct summary sum = series_summary(&p->s[m]);
			double each = per_table(p, m, false);

			table_add(&t, "%s", fmt_size(a, sizeof(a), p->size));
			table_add(&t, "%llu", p->tables);
			table_add(&t, "%s", p->val[0]);
			table_add(&t, "%s", mode_name[p->mode]);
			table_add(&t, "%s", fmt_time(a, sizeof(a), sum.median, opt.unit));
			table_add(&t, "%s", fmt_time(b, sizeof(b), sum.p99, opt.unit));
			table_add(&t, "%s", fmt_time(c, sizeof(c), sum.min, opt.unit));
			table_add(&t, "%s", fmt_time(d, sizeof(d), sum.max, opt.unit));
			table_add(&t, "%s", fmt_time(e, sizeof(e), each, opt.unit));
			off = p->mode == MODE_ON ? point_other(p, MODE_OFF) : NULL;
			if (off)
				table_add(&t, "%s",
					  fmt_ratio(r, sizeof(r),
						    quotient(series_summary(&off->s[m]).median,
							     sum.median)));
			table_end_row(&t);
		}
		table_print(&t, f);
	}
	fputs("\nfork: first of a fresh process, or later ones of the same process\n", f);
	fputs("per table: (median - median of size 0) / tables\n", f);
	fputs("off/on: quotient of the medians\n", f);
}

/*
 * fault
 */
enum {
	FAULT_OVERHEAD,
	FAULT_PASS,
	FAULT_BASE,
	FAULT_FORK,
	FAULT_TOTAL,
	FAULT_WORST,
	FAULT_BASE_WORST,
};

static const struct metric fault_metric[] = {
	[FAULT_OVERHEAD] = { "overhead", DIM_TIME, true },
	[FAULT_PASS] = { "rewrite", DIM_TIME, true },
	[FAULT_BASE] = { "rewrite_without_fork", DIM_TIME, false },
	[FAULT_FORK] = { "fork", DIM_TIME, true },
	[FAULT_TOTAL] = { "fork_and_rewrite", DIM_TIME, true },
	[FAULT_WORST] = { "worst_write", DIM_TIME, true },
	[FAULT_BASE_WORST] = { "worst_write_without_fork", DIM_TIME, false },
	{ 0 }
};

static const char key_pattern[] = "pattern";
static const char key_child[] = "child";

/*
 * A random order of @n pages, the same for each run with the same seed. It is
 * a shared mapping because fork() has nothing to do for one.
 */
static __u32 *random_order(size_t n)
{
	unsigned long long x = opt.seed * 2 + 1;
	__u32 *order, tmp;
	size_t i, j;

	order = mmap(NULL, n * sizeof(*order), PROT_READ | PROT_WRITE,
		     MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	if (order == MAP_FAILED)
		err(EXIT_FAILURE, "random order of %zu pages", n);
	for (i = 0; i < n; i++)
		order[i] = i;
	for (i = n; i > 1; i--) {
		/* xorshift64*, of which the upper bits are the good ones */
		x ^= x >> 12;
		x ^= x << 25;
		x ^= x >> 27;
		j = ((x * 0x2545f4914f6cdd1dULL) >> 32) * i >> 32;
		tmp = order[i - 1];
		order[i - 1] = order[j];
		order[j] = tmp;
	}
	return order;
}

/* All repetitions for one size, pattern and fate of the child. */
static void run_fault_one(unsigned long long size, int pattern, int alive,
			  struct result *res)
{
	size_t pages = size / sysconf(_SC_PAGESIZE);
	struct fault_rec *r = &res->rec[0].fault;
	size_t index[NR_MODES] = { 0 };
	__u32 *order = NULL;
	unsigned int rep, k;
	int mode;

	for (mode = MODE_OFF; mode <= MODE_ON; mode++) {
		struct point *p;

		if (!(opt.modes & BIT(mode)))
			continue;
		index[mode] = nr_points;
		p = point_add(size, mode);
		p->key[0] = key_pattern;
		p->val[0] = pattern_name[pattern];
		p->key[1] = key_child;
		p->val[1] = alive_name[alive];
	}
	if (pattern == PATTERN_RAND)
		order = random_order(pages);

	for (rep = 0; rep < opt.reps; rep++) {
		for (k = 0; k < NR_MODES; k++) {
			struct point *p;
			struct job job;

			mode = (k + rep) % NR_MODES;
			if (!(opt.modes & BIT(mode)))
				continue;
			progress("fault: %s, child %s, repetition %u of %u",
				 pattern_name[pattern], alive_name[alive],
				 rep + 1, opt.reps);
			check_memory("fault",
				     (alive ? 2 : 1) * (size + size / 128));
			job = job_init(JOB_FAULT, size, mode);
			job.pattern = pattern;
			job.child_alive = alive;
			job.order = order;
			job.fifo = opt.fifo;
			job_run(&job, res);

			p = &points[index[mode]];
			p->ops = r->ops;
			series_add(&p->s[FAULT_PASS], r->pass_ns);
			series_add(&p->s[FAULT_BASE], r->base_ns);
			series_add(&p->s[FAULT_OVERHEAD],
				   (double)r->pass_ns - (double)r->base_ns);
			series_add(&p->s[FAULT_FORK], r->fork_ns);
			series_add(&p->s[FAULT_TOTAL], r->fork_ns + r->pass_ns);
			series_add(&p->s[FAULT_WORST], r->worst_ns);
			series_add(&p->s[FAULT_BASE_WORST], r->base_worst_ns);
			series_add(&p->shared, r->shared);
			check_shared(&job, r->shared, 0);
		}
	}
	if (order)
		munmap(order, pages * sizeof(*order));
}

static void run_fault(void)
{
	struct result *res = result_alloc(1);
	int pattern, alive;
	size_t s;

	for (s = 0; s < opt.nr_sizes; s++) {
		for (pattern = 0; pattern < NR_PATTERNS; pattern++) {
			if (!(opt.patterns & BIT(pattern)))
				continue;
			for (alive = 1; alive >= 0; alive--) {
				if (opt.alive & BIT(alive))
					run_fault_one(opt.size[s], pattern, alive, res);
			}
		}
	}
}

static void print_fault(FILE *f)
{
	char a[32], b[32], c[32], d[32], e[32], r[32], q[32];
	struct table t;
	size_t i;

	fputs("\nwriting again after fork()\n", f);
	table_start(&t, 0);
	table_add(&t, "size");
	table_add(&t, "pages");
	table_add(&t, "pattern");
	table_add(&t, "child");
	table_add(&t, "mode");
	table_add(&t, "no fork");
	table_add(&t, "after fork");
	table_add(&t, "overhead");
	table_add(&t, "min");
	table_add(&t, "max");
	table_add(&t, "worst write");
	table_add(&t, "fork+writes");
	if (opt.modes == BOTH_MODES) {
		table_add(&t, "write off/on");
		table_add(&t, "overhead off/on");
		table_add(&t, "fork+writes off/on");
	}
	table_end_row(&t);
	for (i = 0; i < nr_points; i++) {
		const struct point *p = &points[i], *off;
		struct summary base = series_summary(&p->s[FAULT_BASE]);
		struct summary pass = series_summary(&p->s[FAULT_PASS]);
		struct summary over = series_summary(&p->s[FAULT_OVERHEAD]);
		struct summary worst = series_summary(&p->s[FAULT_WORST]);
		struct summary total = series_summary(&p->s[FAULT_TOTAL]);
		double n = p->ops;

		table_add(&t, "%s", fmt_size(a, sizeof(a), p->size));
		table_add(&t, "%llu", p->ops);
		table_add(&t, "%s", p->val[0]);
		table_add(&t, "%s", p->val[1]);
		table_add(&t, "%s", mode_name[p->mode]);
		table_add(&t, "%s", fmt_time(a, sizeof(a), base.median / n, opt.unit));
		table_add(&t, "%s", fmt_time(b, sizeof(b), pass.median / n, opt.unit));
		table_add(&t, "%s", fmt_time(c, sizeof(c), over.median / n, opt.unit));
		table_add(&t, "%s", fmt_time(d, sizeof(d), over.min / n, opt.unit));
		table_add(&t, "%s", fmt_time(e, sizeof(e), over.max / n, opt.unit));
		table_add(&t, "%s", fmt_time(r, sizeof(r), worst.max, opt.unit));
		table_add(&t, "%s", fmt_time(r, sizeof(r), total.median, opt.unit));
		off = p->mode == MODE_ON ? point_other(p, MODE_OFF) : NULL;
		if (off) {
			double w = series_summary(&off->s[FAULT_PASS]).median;
			double o = series_summary(&off->s[FAULT_OVERHEAD]).median;
			double all = series_summary(&off->s[FAULT_TOTAL]).median;

			table_add(&t, "%s", fmt_ratio(q, sizeof(q), quotient(w, pass.median)));
			table_add(&t, "%s", fmt_ratio(q, sizeof(q), quotient(o, over.median)));
			table_add(&t, "%s", fmt_ratio(q, sizeof(q), quotient(all, total.median)));
		}
		table_end_row(&t);
	}
	table_print(&t, f);
	fputs("\nmedians per page written; pattern table writes one page per page table\n", f);
	fputs("overhead: after fork - no fork; min, max: of the overhead\n", f);
	fputs("worst write: the longest single one of all repetitions\n", f);
	fputs("fork+writes: what the call took, and all writes after it\n", f);
}

/*
 * window
 */
enum {
	WINDOW_FORK,
	WINDOW_FIRST,
	WINDOW_WORST,
	WINDOW_SECOND,
	WINDOW_EXIT,
	WINDOW_REWRITE,
	WINDOW_SUM,
	WINDOW_CHILD,
};

static const struct metric window_metric[] = {
	[WINDOW_FORK] = { "fork", DIM_TIME, true },
	[WINDOW_FIRST] = { "first_write", DIM_TIME, true },
	[WINDOW_WORST] = { "worst_write", DIM_TIME, true },
	[WINDOW_SECOND] = { "second_write", DIM_TIME, true },
	[WINDOW_EXIT] = { "child_exit", DIM_TIME, true },
	[WINDOW_REWRITE] = { "rewrite", DIM_TIME, true },
	[WINDOW_SUM] = { "sum", DIM_TIME, true },
	[WINDOW_CHILD] = { "child_that_writes", DIM_TIME, true },
	{ 0 }
};

static const char key_caches[] = "caches";

static void run_window(void)
{
	struct result *res = result_alloc(1);
	struct window_rec *r = &res->rec[0].window;
	unsigned int rep, k;
	size_t s;
	int mode;

	for (s = 0; s < opt.nr_sizes; s++) {
		unsigned long long size = opt.size[s];
		size_t index[NR_MODES] = { 0 };

		if (size < table_span())
			errx(EXIT_USAGE,
			     "window needs sizes of %zu kB and more: memory of one page table",
			     table_span() >> 10);
		for (mode = MODE_OFF; mode <= MODE_ON; mode++) {
			if (!(opt.modes & BIT(mode)))
				continue;
			index[mode] = nr_points;
			point_add(size, mode);
			points[index[mode]].key[0] = key_caches;
			points[index[mode]].val[0] = opt.cold ? "cold" : "warm";
		}
		for (rep = 0; rep < opt.reps; rep++) {
			for (k = 0; k < NR_MODES; k++) {
				struct point *p;
				struct job job;

				mode = (k + rep) % NR_MODES;
				if (!(opt.modes & BIT(mode)))
					continue;
				progress("window: repetition %u of %u", rep + 1, opt.reps);
				check_memory("window", 2 * (size + size / 128) +
					     (opt.cold ? 256ULL << 20 : 0));
				job = job_init(JOB_WINDOW, size, mode);
				job.every = opt.every;
				job.cold = opt.cold;
				job.fifo = opt.fifo;
				job_run(&job, res);

				p = &points[index[mode]];
				p->ops = r->tables;
				series_add(&p->s[WINDOW_FORK], r->fork_ns);
				series_add(&p->s[WINDOW_FIRST], r->first_ns);
				series_add(&p->s[WINDOW_WORST], r->worst_ns);
				series_add(&p->s[WINDOW_SECOND], r->second_ns);
				series_add(&p->s[WINDOW_EXIT], r->exit_ns);
				series_add(&p->s[WINDOW_REWRITE], r->rewrite_ns);
				series_add(&p->s[WINDOW_SUM], r->fork_ns + r->first_ns +
					   r->exit_ns + r->rewrite_ns);
				series_add(&p->s[WINDOW_CHILD], r->child_ns);
				series_add(&p->shared, r->shared);
				check_shared(&job, r->shared, 0);
			}
		}
	}
}

/* What a step took, by table that was written, but for single calls. */
static void print_window(FILE *f)
{
	char a[32], r[32];
	struct table t;
	size_t i, m;

	fputs("\nwriting while the child of fork() is there, and after it\n", f);
	table_start(&t, 0);
	table_add(&t, "size");
	table_add(&t, "written");
	table_add(&t, "caches");
	table_add(&t, "mode");
	for (m = 0; window_metric[m].name; m++)
		table_add(&t, "%s", window_metric[m].name);
	table_end_row(&t);
	for (i = 0; i < nr_points; i++) {
		const struct point *p = &points[i], *off;

		table_add(&t, "%s", fmt_size(a, sizeof(a), p->size));
		table_add(&t, "%llu of %llu", p->ops, p->tables);
		table_add(&t, "%s", p->val[0]);
		table_add(&t, "%s", mode_name[p->mode]);
		for (m = 0; window_metric[m].name; m++) {
			double n = m == WINDOW_FORK || m == WINDOW_WORST ? 1 : p->ops;

			table_add(&t, "%s", fmt_time(a, sizeof(a),
						     series_summary(&p->s[m]).median / n,
						     opt.unit));
		}
		table_end_row(&t);
		off = p->mode == MODE_ON ? point_other(p, MODE_OFF) : NULL;
		if (!off)
			continue;
		table_add(&t, " ");
		table_add(&t, " ");
		table_add(&t, " ");
		table_add(&t, "off/on");
		for (m = 0; window_metric[m].name; m++)
			table_add(&t, "%s",
				  fmt_ratio(r, sizeof(r),
					    quotient(series_summary(&off->s[m]).median,
						     series_summary(&p->s[m]).median)));
		table_end_row(&t);
	}
	table_print(&t, f);
	fputs("\nmedians, by page table of which something is written, but for two:\n", f);
	fputs("fork and worst_write are as they are\n", f);
	fputs("first, second write: one page of each table, then another, the child idle\n", f);
	fputs("child_exit: until it is reaped; rewrite: all pages of these tables after it\n", f);
	fputs("sum: fork, first write, child's exit and rewrite\n", f);
	fputs("child_that_writes: fork, child writes one page of each table, exit, wait\n", f);
}

/*
 * memory
 */
enum { MEM_TOTAL, MEM_PER_CHILD, MEM_VMPTE, MEM_VMCOWPTE };

static const struct metric memory_metric[] = {
	[MEM_TOTAL] = { "pagetables", DIM_KB, true },
	[MEM_PER_CHILD] = { "pagetables_per_child", DIM_KB, true },
	[MEM_VMPTE] = { "child_vmpte", DIM_KB, false },
	[MEM_VMCOWPTE] = { "child_vmcowpte", DIM_KB, false },
	{ 0 }
};

/*
 * PageTables is the whole system's: whatever else starts or ends meanwhile is
 * in the figures too, and shows as figures that do not agree.
 */
static void check_quiet(void)
{
	size_t i;

	for (i = 0; i < nr_points; i++) {
		struct summary sum = series_summary(&points[i].s[MEM_TOTAL]);

		if (sum.max - sum.min > 64 && sum.max - sum.min > sum.median / 10) {
			add_warning("the figures vary by over 10%%: other processes change PageTables too");
			return;
		}
	}
}

static void run_memory(void)
{
	unsigned int most = opt.children[opt.nr_children - 1];
	struct result *res = result_alloc(opt.nr_children);
	unsigned int rep, i, k;
	size_t s;

	for (s = 0; s < opt.nr_sizes; s++) {
		unsigned long long size = opt.size[s];
		size_t index[NR_MODES] = { 0 };
		int mode;

		for (mode = MODE_OFF; mode <= MODE_ON; mode++) {
			if (!(opt.modes & BIT(mode)))
				continue;
			index[mode] = nr_points;
			for (i = 0; i < opt.nr_children; i++)
				point_add(size, mode)->number = opt.children[i];
		}
		for (rep = 0; rep < opt.reps; rep++) {
			for (k = 0; k < NR_MODES; k++) {
				struct job job;

				mode = (k + rep) % NR_MODES;
				if (!(opt.modes & BIT(mode)))
					continue;
				progress("memory: size %zu of %zu, repetition %u of %u",
					 s + 1, opt.nr_sizes, rep + 1, opt.reps);
				/* a conventional child: its tables and a stack */
				check_memory("memory",
					     size + size / 128 +
					     most * (size / 512 + (512ULL << 10)));
				job = job_init(JOB_MEMORY, size, mode);
				job.children = opt.children;
				job.nr_children = opt.nr_children;
				job_run(&job, res);
				if (res->inexact)
					add_warning("not root: PageTables may be off by 500 kB per CPU");
				for (i = 0; i < res->nr; i++) {
					struct memory_rec *r = &res->rec[i].memory;
					struct point *p = &points[index[mode] + i];

					series_add(&p->s[MEM_TOTAL], r->pagetables_kb);
					series_add(&p->s[MEM_PER_CHILD],
						   (double)r->pagetables_kb / p->number);
					series_add(&p->s[MEM_VMPTE], r->vmpte_kb);
					series_add(&p->s[MEM_VMCOWPTE], r->vmcowpte_kb);
					series_add(&p->shared, r->shared);
					check_shared(&job, r->shared / p->number, 0);
				}
			}
		}
	}
	check_quiet();
}

static void print_memory(FILE *f)
{
	struct table t;
	char a[32], r[32];
	size_t i;

	fputs("\npage-table memory of idle children, kB\n", f);
	table_start(&t, 0);
	table_add(&t, "size");
	table_add(&t, "children");
	table_add(&t, "mode");
	table_add(&t, "all children");
	table_add(&t, "min");
	table_add(&t, "max");
	table_add(&t, "per child");
	table_add(&t, "VmPTE");
	table_add(&t, "VmCowPTE");
	if (opt.modes == BOTH_MODES)
		table_add(&t, "off/on");
	table_end_row(&t);
	for (i = 0; i < nr_points; i++) {
		const struct point *p = &points[i], *off;
		struct summary sum = series_summary(&p->s[MEM_TOTAL]);

		table_add(&t, "%s", fmt_size(a, sizeof(a), p->size));
		table_add(&t, "%u", p->number);
		table_add(&t, "%s", mode_name[p->mode]);
		table_add(&t, "%.0f", sum.median);
		table_add(&t, "%.0f", sum.min);
		table_add(&t, "%.0f", sum.max);
		table_add(&t, "%.1f", series_summary(&p->s[MEM_PER_CHILD]).median);
		table_add(&t, "%.0f", series_summary(&p->s[MEM_VMPTE]).median);
		table_add(&t, "%.0f", series_summary(&p->s[MEM_VMCOWPTE]).median);
		off = p->mode == MODE_ON ? point_other(p, MODE_OFF) : NULL;
		if (off)
			table_add(&t, "%s",
				  fmt_ratio(r, sizeof(r),
					    quotient(series_summary(&off->s[MEM_TOTAL]).median,
						     sum.median)));
		table_end_row(&t);
	}
	table_print(&t, f);
	fputs("\nall children: growth of PageTables, which counts each table once; medians\n", f);
	fputs("VmPTE, VmCowPTE: of the last child, from its /proc/PID/status\n", f);
}

/*
 * shm
 */
enum { SHM_TOTAL, SHM_VMPTE, SHM_FIRST, SHM_AGAIN, SHM_PUNCH, SHM_EXIT };

static const struct metric shm_metric[] = {
	[SHM_TOTAL] = { "pagetables", DIM_KB, true },
	[SHM_VMPTE] = { "child_vmpte", DIM_KB, false },
	[SHM_FIRST] = { "first_touch", DIM_TIME, true },
	[SHM_AGAIN] = { "second_touch", DIM_TIME, true },
	[SHM_PUNCH] = { "hole_punch", DIM_TIME, true },
	[SHM_EXIT] = { "exit", DIM_TIME, true },
	{ 0 }
};

/* Whether the tables that can be shared are. */
static void check_joined(const struct job *job, __u64 joined, unsigned int n)
{
	unsigned long long tables = job->size / table_span();
	char size[32];

	if (job->on && joined < tables * n) {
		fmt_size(size, sizeof(size), job->size);
		add_warning("mode on, size %s: only %llu of %llu tables shared", size,
			    (unsigned long long)joined, tables * n);
	}
}

static void run_shm(void)
{
	unsigned int most = opt.children[opt.nr_children - 1];
	struct result *res = result_alloc(opt.nr_children);
	unsigned int rep, i, k;
	size_t s;

	for (s = 0; s < opt.nr_sizes; s++) {
		unsigned long long size = opt.size[s];
		unsigned long long tables = size / table_span();
		size_t index[NR_MODES] = { 0 };
		int mode;

		if (!tables)
			errx(EXIT_USAGE,
			     "shm needs sizes of %zu kB and more: memory of one page table",
			     table_span() >> 10);
		for (mode = MODE_OFF; mode <= MODE_ON; mode++) {
			if (!(opt.modes & BIT(mode)))
				continue;
			index[mode] = nr_points;
			for (i = 0; i < opt.nr_children; i++) {
				struct point *p = point_add(size, mode);

				p->number = opt.children[i];
				p->ops = tables;
			}
		}
		for (rep = 0; rep < opt.reps; rep++) {
			for (k = 0; k < NR_MODES; k++) {
				struct job job;

				mode = (k + rep) % NR_MODES;
				if (!(opt.modes & BIT(mode)))
					continue;
				progress("shm: size %zu of %zu, repetition %u of %u",
					 s + 1, opt.nr_sizes, rep + 1, opt.reps);
				check_memory("shm",
					     tables * opt.pages * sysconf(_SC_PAGESIZE) +
					     most * ((mode == MODE_ON ? 0 : size / 512) +
						     (192ULL << 10)));
				job = job_init(JOB_SHM, size, mode);
				job.children = opt.children;
				job.nr_children = opt.nr_children;
				job.pages = opt.pages;
				job.write = opt.write;
				job.fifo = opt.fifo;
				job_run(&job, res);
				if (res->inexact)
					add_warning("not root: PageTables may be off by 500 kB per CPU");
				for (i = 0; i < res->nr; i++) {
					struct shm_rec *r = &res->rec[i].shm;
					struct point *p = &points[index[mode] + i];

					series_add(&p->s[SHM_TOTAL], r->pagetables_kb);
					series_add(&p->s[SHM_VMPTE], r->vmpte_kb);
					series_add(&p->s[SHM_FIRST],
						   (double)r->first_ns / tables);
					series_add(&p->s[SHM_AGAIN],
						   (double)r->again_ns / tables);
					series_add(&p->s[SHM_PUNCH], r->punch_ns);
					series_add(&p->s[SHM_EXIT], r->exit_ns);
					series_add(&p->shared, r->joined);
					check_joined(&job, r->joined, p->number);
				}
			}
		}
	}
	check_quiet();
}

static void print_shm(FILE *f)
{
	struct table t;
	char a[32], r[32];
	size_t i;
	int m;

	fprintf(f, "\nmemory that processes share, the last one %s %u page%s of each table\n",
		opt.write ? "writes" : "reads", opt.pages, opt.pages > 1 ? "s" : "");
	table_start(&t, 0);
	table_add(&t, "size");
	table_add(&t, "children");
	table_add(&t, "mode");
	for (m = 0; shm_metric[m].name; m++)
		table_add(&t, "%s%s", shm_metric[m].name,
			  shm_metric[m].dim == DIM_KB ? ", kB" : "");
	table_end_row(&t);
	for (i = 0; i < nr_points; i++) {
		const struct point *p = &points[i], *off;

		table_add(&t, "%s", fmt_size(a, sizeof(a), p->size));
		table_add(&t, "%u", p->number);
		table_add(&t, "%s", mode_name[p->mode]);
		for (m = 0; shm_metric[m].name; m++) {
			double v = series_summary(&p->s[m]).median;

			if (shm_metric[m].dim == DIM_KB)
				table_add(&t, "%.0f", v);
			else
				table_add(&t, "%s", fmt_time(a, sizeof(a), v, opt.unit));
		}
		table_end_row(&t);
		off = p->mode == MODE_ON ? point_other(p, MODE_OFF) : NULL;
		if (!off)
			continue;
		table_add(&t, " ");
		table_add(&t, " ");
		table_add(&t, "off/on");
		for (m = 0; shm_metric[m].name; m++)
			table_add(&t, "%s", shm_metric[m].ratio ?
				  fmt_ratio(r, sizeof(r),
					    quotient(series_summary(&off->s[m]).median,
						     series_summary(&p->s[m]).median)) :
				  " ");
		table_end_row(&t);
	}
	table_print(&t, f);
	fputs("\npagetables: growth of PageTables by all children; medians\n", f);
	fputs("first_touch, second_touch: of the last child, by table\n", f);
	fputs("hole_punch: a page is given back that all have mapped\n", f);
	fputs("exit: of the last child, until it is reaped\n", f);
}

/*
 * micro
 */
static const struct metric micro_metric[] = {
	{ "time", DIM_TIME, true },
	{ 0 }
};

static const char key_op[] = "op";

static void run_micro(void)
{
	struct result *res = result_alloc(nr_micro_ops * opt.loops);
	size_t index[NR_MODES] = { 0 };
	unsigned int rep, i, k, op, slot;
	int mode;

	for (mode = MODE_OFF; mode <= MODE_ON; mode++) {
		if (!(opt.modes & BIT(mode)))
			continue;
		index[mode] = nr_points;
		for (op = 0; op < nr_micro_ops; op++) {
			struct point *p;

			if (!(opt.ops & BIT(op)))
				continue;
			p = point_add(0, mode);
			p->key[0] = key_op;
			p->val[0] = micro_name(op);
		}
	}
	for (rep = 0; rep < opt.reps; rep++) {
		for (k = 0; k < NR_MODES; k++) {
			struct job job;

			mode = (k + rep) % NR_MODES;
			if (!(opt.modes & BIT(mode)))
				continue;
			progress("micro: repetition %u of %u", rep + 1, opt.reps);
			job = job_init(JOB_MICRO, 0, mode);
			job.ops = opt.ops;
			job.loops = opt.loops;
			job.fifo = opt.fifo;
			job_run(&job, res);
			slot = 0;
			for (op = 0; op < nr_micro_ops; op++) {
				if (!(opt.ops & BIT(op)))
					continue;
				for (i = 0; i < opt.loops; i++)
					series_add(&points[index[mode] + slot].s[0],
						   res->rec[slot * opt.loops + i].micro.time);
				slot++;
			}
		}
	}
}

static void print_micro(FILE *f)
{
	char a[32], b[32], r[32], q[32];
	unsigned int op;
	struct table t;
	size_t i;

	fputs("\nsingle operations of a small process\n", f);
	table_start(&t, 2);
	table_add(&t, "op");
	table_add(&t, "what");
	table_add(&t, "mode");
	table_add(&t, "min");
	table_add(&t, "median");
	if (opt.modes == BOTH_MODES) {
		table_add(&t, "min off/on");
		table_add(&t, "median off/on");
	}
	table_end_row(&t);
	for (op = 0; op < nr_micro_ops; op++) {
		for (i = 0; i < nr_points; i++) {
			const struct point *p = &points[i], *off;
			struct summary sum = series_summary(&p->s[0]);

			if (p->val[0] != micro_name(op))
				continue;
			table_add(&t, "%s", p->val[0]);
			table_add(&t, "%s", micro_text(op));
			table_add(&t, "%s", mode_name[p->mode]);
			table_add(&t, "%s", fmt_time(a, sizeof(a), sum.min, opt.unit));
			table_add(&t, "%s", fmt_time(b, sizeof(b), sum.median, opt.unit));
			off = p->mode == MODE_ON ? point_other(p, MODE_OFF) : NULL;
			if (off) {
				struct summary o = series_summary(&off->s[0]);

				table_add(&t, "%s", fmt_ratio(r, sizeof(r),
							      quotient(o.min, sum.min)));
				table_add(&t, "%s", fmt_ratio(q, sizeof(q),
							      quotient(o.median, sum.median)));
			}
			table_end_row(&t);
		}
	}
	table_print(&t, f);
	fputs("\npages: per page, of 64; the others: per call\n", f);
}

/*
 * Reports
 */
static void print_header(FILE *f)
{
	char size[32], span[32];

	fprintf(f, "cowpte-bench %s %s: %s %s %s, %ld CPU%s, page %s, page table spans %s\n",
		COWPTE_VERSION, opt.cmd->name, host.uts.sysname, host.uts.release,
		host.uts.machine, host.cpus, host.cpus == 1 ? "" : "s",
		fmt_size(size, sizeof(size), sysconf(_SC_PAGESIZE)),
		fmt_size(span, sizeof(span), table_span()));
	if (host.feature) {
		fprintf(f, "copy-on-write page tables: %s",
			cowpte_sysmode_name(host.sysmode));
		if (host.min_tables >= 0)
			fprintf(f, ", min_tables %ld", host.min_tables);
		fputc('\n', f);
	} else {
		fputs("copy-on-write page tables: not in this kernel\n", f);
	}
	fprintf(f, "unit %s (CLOCK_MONOTONIC_RAW), %s pages, %u repetition%s",
		unit_name(opt.unit), opt.thp ? "huge" : "small", opt.reps,
		opt.reps == 1 ? "" : "s");
	if (opt.cmd->run != run_memory)
		fprintf(f, ", a forking parent SCHED_%s", opt.fifo ? "FIFO" : "OTHER");
	if (opt.cmd->run == run_micro)
		fprintf(f, ", %u loops", opt.loops);
	if (opt.cmd->run == run_fork)
		fprintf(f, ", the child: %s%s", child_name[opt.child],
			opt.rewrite ? ", memory rewritten between forks" : "");
	fputc('\n', f);
	if (host.hypervisor[0])
		fprintf(f, "virtual machine: %s%s\n", host.hypervisor,
			strncmp(host.hypervisor, "TCG", 3) ? "" :
			" (emulated: times are not those of hardware)");
	if (opt.note)
		fprintf(f, "note: %s\n", opt.note);
}

static void json_metric(struct json *j, const struct point *p, int m)
{
	const struct metric *metric = &opt.metric[m];
	struct summary sum = series_summary(&p->s[m]);
	size_t i;

	json_open(j, metric->name, '{');
	switch (metric->dim) {
	case DIM_TIME:
		json_str(j, "unit", unit_name(opt.unit));
		break;
	case DIM_KB:
		json_str(j, "unit", "kB");
		break;
	case DIM_COUNT:
		break;
	}
	json_int(j, "n", sum.n);
	json_num(j, "median", sum.median);
	json_num(j, "p99", sum.p99);
	json_num(j, "min", sum.min);
	json_num(j, "max", sum.max);
	if (p->ops)
		json_num(j, "median_per_op", sum.median / p->ops);
	if (opt.cmd->run == run_fork && p->tables) {
		json_num(j, "median_per_table", per_table(p, m, false));
		json_num(j, "min_per_table", per_table(p, m, true));
	}
	if (opt.samples) {
		json_open(j, "samples", '[');
		for (i = 0; i < p->s[m].n; i++)
			json_num(j, NULL, p->s[m].v[i]);
		json_close(j, ']');
	}
	json_close(j, '}');
}

static void json_dimensions(struct json *j, const struct point *p)
{
	size_t d;

	json_int(j, "size", p->size);
	json_int(j, "tables", p->tables);
	for (d = 0; d < 2 && p->key[d]; d++)
		json_str(j, p->key[d], p->val[d]);
	if (p->number)
		json_int(j, "children", p->number);
}

static void json_ratios(struct json *j)
{
	const struct metric *metric = opt.metric;
	size_t i;
	int m;

	json_open(j, "ratios_off_on", '[');
	for (i = 0; i < nr_points; i++) {
		const struct point *on = &points[i], *off;

		off = on->mode == MODE_ON ? point_other(on, MODE_OFF) : NULL;
		if (!off)
			continue;
		json_open(j, NULL, '{');
		json_dimensions(j, on);
		for (m = 0; metric[m].name; m++) {
			struct summary a = series_summary(&off->s[m]);
			struct summary b = series_summary(&on->s[m]);

			if (!metric[m].ratio)
				continue;
			json_open(j, metric[m].name, '{');
			json_num(j, "median", quotient(a.median, b.median));
			json_num(j, "min", quotient(a.min, b.min));
			json_close(j, '}');
		}
		json_close(j, '}');
	}
	json_close(j, ']');
}

static void print_json(FILE *f)
{
	struct json j = { .f = f };
	size_t i;
	int m;

	json_open(&j, NULL, '{');
	json_str(&j, "tool", "cowpte-bench");
	json_str(&j, "version", COWPTE_VERSION);
	json_str(&j, "command", opt.cmd->name);
	json_str(&j, "kernel", host.uts.release);
	json_str(&j, "kernel_version", host.uts.version);
	json_str(&j, "machine", host.uts.machine);
	json_int(&j, "cpus", host.cpus);
	json_int(&j, "page_size", sysconf(_SC_PAGESIZE));
	json_int(&j, "table_span", table_span());
	if (host.hypervisor[0])
		json_str(&j, "hypervisor", host.hypervisor);
	else
		json_null(&j, "hypervisor");
	json_bool(&j, "emulated", !strncmp(host.hypervisor, "TCG", 3));
	json_open(&j, "cow_pte", '{');
	json_bool(&j, "present", host.feature);
	if (host.feature) {
		json_str(&j, "enabled", cowpte_sysmode_name(host.sysmode));
		json_int(&j, "min_tables", host.min_tables);
	}
	json_close(&j, '}');
	json_str(&j, "mode", opt.modes == BOTH_MODES ? "both" :
		 mode_name[opt.modes == BIT(MODE_ON)]);
	json_str(&j, "clock", "CLOCK_MONOTONIC_RAW");
	json_str(&j, "unit", unit_name(opt.unit));
	json_str(&j, "pages", opt.thp ? "huge" : "small");
	json_int(&j, "reps", opt.reps);
	if (opt.cmd->run != run_memory)
		json_str(&j, "sched", opt.fifo ? "fifo" : "other");
	if (opt.cmd->run == run_fork) {
		json_str(&j, "child", child_name[opt.child]);
		json_bool(&j, "rewrite", opt.rewrite);
	}
	if (opt.cmd->run == run_micro)
		json_int(&j, "loops", opt.loops);
	if (opt.note)
		json_str(&j, "note", opt.note);
	else
		json_null(&j, "note");
	json_open(&j, "warnings", '[');
	for (i = 0; i < nr_warnings; i++)
		json_str(&j, NULL, warnings[i]);
	json_close(&j, ']');
	json_open(&j, "results", '[');
	for (i = 0; i < nr_points; i++) {
		const struct point *p = &points[i];

		json_open(&j, NULL, '{');
		json_dimensions(&j, p);
		json_str(&j, "mode", mode_name[p->mode]);
		if (p->ops) {
			json_int(&j, "ops", p->ops);
			json_str(&j, "op", opt.cmd->run == run_window ?
				 "page table written" : opt.cmd->run == run_shm ?
				 "page table touched" : "page written");
		}
		json_num(&j, "shared_tables_median",
			 series_summary(&p->shared).median);
		json_open(&j, "metrics", '{');
		for (m = 0; opt.metric[m].name; m++)
			json_metric(&j, p, m);
		json_close(&j, '}');
		json_close(&j, '}');
	}
	json_close(&j, ']');
	json_ratios(&j);
	json_close(&j, '}');
}

/*
 * The system
 */
static void look_at_host(void)
{
	uname(&host.uts);
	host.cpus = sysconf(_SC_NPROCESSORS_ONLN);
	host.min_tables = -1;
	host.feature = cowpte_get() >= 0;
	if (host.feature) {
		host.sysmode = cowpte_sysmode();
		host.min_tables = cowpte_min_tables();
		/* Started with the feature on: fork the workers without. */
		cowpte_set(false);
	}
	hypervisor_name(host.hypervisor);
}

/* Give up, unless the other of both modes is left. */
static void __printf(2, 3)
drop_mode(int mode, const char *fmt, ...)
{
	char text[256];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	opt.modes &= ~BIT(mode);
	if (!opt.modes)
		errx(EXIT_MODE, "cannot measure mode %s: %s", mode_name[mode],
		     text);
	add_warning("only mode %s is measured: %s", mode_name[!mode], text);
}

/* Reduce opt.modes to what this system can do. */
static void check_modes(void)
{
	int on = cowpte_get();

	if (opt.modes & BIT(MODE_ON)) {
		if (on == -EOPNOTSUPP)
			drop_mode(MODE_ON, "%s", COWPTE_UNSUPPORTED);
		else if (on < 0)
			drop_mode(MODE_ON, "%s", COWPTE_MISSING);
		else if (host.sysmode == COWPTE_SYS_NEVER)
			drop_mode(MODE_ON, "no fork shares; as root: echo prctl > %s",
				  COWPTE_SYSFS_ENABLED);
	}
	if (opt.modes & BIT(MODE_ON) && opt.cmd->run == run_shm &&
	    cowpte_filemode() != COWPTE_SYS_PRCTL)
		drop_mode(MODE_ON, "not for opted-in processes; as root: echo prctl > %s",
			  COWPTE_SYSFS_FILE);
	if (opt.modes & BIT(MODE_OFF) && host.sysmode == COWPTE_SYS_ALWAYS)
		drop_mode(MODE_OFF, "every fork shares; as root: echo prctl > %s",
			  COWPTE_SYSFS_ENABLED);
	if (opt.modes & BIT(MODE_ON)) {
		struct cowpte_vmstat vs;
		int error;

		if (cowpte_vmstat(&vs))
			add_warning("no cow_pte counters in /proc/vmstat: sharing is unchecked");
		/* Some security module may refuse what the kernel offers. */
		error = cowpte_set(true);
		if (error)
			drop_mode(MODE_ON, "prctl(PR_SET_COW_PTE): %s",
				  strerror(-error));
		cowpte_set(false);
	}
}

static void check_sched(void)
{
	if (opt.cmd->run == run_memory)
		return;
	if (!opt.sched_given)
		opt.fifo = fifo_allowed();
	else if (opt.fifo && !fifo_allowed())
		err(EXIT_FAILURE, "--sched fifo");
}

/*
 * Arguments
 */

/* A decimal number without sign, from @min to @max. */
static unsigned long long number_arg(const struct argp_state *state,
				     const char *what, const char *arg,
				     unsigned long long min,
				     unsigned long long max)
{
	unsigned long long val;
	char *end;

	errno = 0;
	val = strtoull(arg, &end, 10);
	if (!isdigit((unsigned char)arg[0]) || *end)
		argp_error(state, "%s: '%s' is not a number", what, arg);
	if (errno || val < min || val > max)
		argp_error(state, "%s: '%s' is not between %llu and %llu", what,
			   arg, min, max);
	return val;
}

/* A number of bytes with an optional suffix, in whole pages. */
static unsigned long long size_arg(const struct argp_state *state, const char *arg)
{
	unsigned long long page = sysconf(_SC_PAGESIZE);
	unsigned long long val;
	unsigned int shift = 0;
	char *end;

	errno = 0;
	val = strtoull(arg, &end, 10);
	if (!isdigit((unsigned char)arg[0]))
		argp_error(state, "'%s' is not a size", arg);
	switch (toupper((unsigned char)*end)) {
	case 'T':
		shift += 10;
		fallthrough;
	case 'G':
		shift += 10;
		fallthrough;
	case 'M':
		shift += 10;
		fallthrough;
	case 'K':
		shift += 10;
		end++;
		if (!strcasecmp(end, "iB"))
			end += 2;
		break;
	}
	if (*end)
		argp_error(state, "'%s' is not a size: use a number with K, M, G or T",
			   arg);
	if (errno || val > MAX_SIZE >> shift)
		argp_error(state, "size '%s' is too large", arg);
	val = (val << shift) + page - 1;
	return val - val % page;
}

/*
 * Call @one for each part of a comma-separated list. Empty parts, as in "1,,2",
 * are errors of the list and not of the part.
 */
static void for_list(const struct argp_state *state, const char *what,
		     const char *arg,
		     void (*one)(const struct argp_state *state, const char *part))
{
	char *copy = strdup(arg), *rest = copy, *part;

	if (!copy)
		err(EXIT_FAILURE, "arguments");
	while ((part = strsep(&rest, ","))) {
		if (!*part)
			argp_error(state, "empty entry in the list of %s", what);
		one(state, part);
	}
	free(copy);
}

static void one_size(const struct argp_state *state, const char *part)
{
	unsigned long long val = size_arg(state, part);
	size_t i;

	for (i = 0; i < opt.nr_sizes; i++) {
		if (opt.size[i] == val)
			argp_error(state, "size '%s' given twice", part);
	}
	if (opt.nr_sizes == MAX_LIST)
		argp_error(state, "more than %d sizes", MAX_LIST);
	opt.size[opt.nr_sizes++] = val;
}

static void one_pattern(const struct argp_state *state, const char *part)
{
	int i;

	for (i = 0; i < NR_PATTERNS; i++) {
		if (!strcmp(part, pattern_name[i])) {
			opt.patterns |= BIT(i);
			return;
		}
	}
	argp_error(state, "'%s' is not a pattern: use table, seq, rand", part);
}

static void one_alive(const struct argp_state *state, const char *part)
{
	int i;

	for (i = 0; i < 2; i++) {
		if (!strcmp(part, alive_name[i])) {
			opt.alive |= BIT(i);
			return;
		}
	}
	argp_error(state, "'%s' is not a fate of the child: use alive, gone", part);
}

static void one_children(const struct argp_state *state, const char *part)
{
	unsigned int val = number_arg(state, "--children", part, 1, MAX_CHILDREN);

	if (opt.nr_children && val <= opt.children[opt.nr_children - 1])
		argp_error(state, "the numbers of children must rise");
	if (opt.nr_children == MAX_LIST)
		argp_error(state, "more than %d numbers of children", MAX_LIST);
	opt.children[opt.nr_children++] = val;
}

static const struct argp_option common_options[] = {
	{ "mode", 'm', "MODE", 0,
	  "off: conventional fork; on: shared page tables; both (default): in turn", 0 },
	{ "size", 's', "LIST", 0,
	  "Sizes of memory (default 64M,256M,1G for fork, 256M for the others)", 0 },
	{ "reps", 'r', "N", 0,
	  "Repetitions, each in a fresh process (default 10 for fork, else 5)", 0 },
	{ "thp", 'T', NULL, 0,
	  "Transparent huge pages (MADV_HUGEPAGE) instead of small pages", 0 },
	{ "json", 'j', "FILE", 0,
	  "Write the results as JSON too; '-': to standard output, without table", 0 },
	{ "samples", 'S', NULL, 0,
	  "Put every raw sample into the JSON output", 0 },
	{ "unit", 'u', "UNIT", 0,
	  "What the clock counts: ns (default); instructions (QEMU -icount shift=0)", 0 },
	{ "note", 'n', "TEXT", 0,
	  "Text to put into the outputs: the machine, the boot parameters", 0 },
	{ 0 }
};

static error_t parse_common(int key, char *arg, struct argp_state *state)
{
	switch (key) {
	case 'm':
		if (!strcmp(arg, "off"))
			opt.modes = BIT(MODE_OFF);
		else if (!strcmp(arg, "on"))
			opt.modes = BIT(MODE_ON);
		else if (!strcmp(arg, "both"))
			opt.modes = BOTH_MODES;
		else
			argp_error(state, "'%s' is not a mode: use off, on, both", arg);
		break;
	case 's':
		opt.nr_sizes = 0;
		for_list(state, "sizes", arg, one_size);
		break;
	case 'r':
		opt.reps = number_arg(state, "--reps", arg, 1, MAX_REPS);
		break;
	case 'T':
		opt.thp = true;
		break;
	case 'j':
		opt.json = arg;
		break;
	case 'S':
		opt.samples = true;
		break;
	case 'u':
		if (!strcmp(arg, "ns"))
			opt.unit = UNIT_NS;
		else if (!strcmp(arg, "instructions"))
			opt.unit = UNIT_INSTRUCTIONS;
		else
			argp_error(state, "'%s' is not a unit: use ns, instructions", arg);
		break;
	case 'n':
		opt.note = arg;
		break;
	default:
		return ARGP_ERR_UNKNOWN;
	}
	return 0;
}

static const struct argp common_argp = { common_options, parse_common, NULL, NULL,
					 NULL, NULL, NULL };
static const struct argp_child with_common[] = {
	{ &common_argp, 0, "Options of all commands:", 1 },
	{ 0 }
};

enum {
	OPT_CHILD = 0x100,
	OPT_SCHED,
	OPT_LATER,
	OPT_REWRITE,
	OPT_PATTERN,
	OPT_SEED,
	OPT_EVERY,
	OPT_COLD,
	OPT_PAGES,
	OPT_WRITE,
	OPT_CHILDREN,
	OPT_OPS,
	OPT_LOOPS,
};

static const struct argp_option fork_options[] = {
	{ "child", OPT_CHILD, "WHAT", 0,
	  "exit (default): it exits at once; wait: it idles until fork() has returned; "
	  "exec: it executes a program that ends at once", 0 },
	{ "sched", OPT_SCHED, "POLICY", 0,
	  "fifo (default for root): the child cannot take the parent's CPU; other", 0 },
	{ "later", OPT_LATER, "N", 0,
	  "Forks after the first in each process (default 4)", 0 },
	{ "rewrite", OPT_REWRITE, NULL, 0,
	  "Write every page again before each fork, as a busy server does", 0 },
	{ 0 }
};

static error_t parse_fork(int key, char *arg, struct argp_state *state)
{
	int i;

	switch (key) {
	case OPT_CHILD:
		for (i = 0; i < (int)ARRAY_SIZE(child_name) && strcmp(arg, child_name[i]); i++)
			;
		if (i == ARRAY_SIZE(child_name))
			argp_error(state, "'%s': use exit, wait or exec", arg);
		opt.child = i;
		break;
	case OPT_SCHED:
		if (strcmp(arg, "fifo") && strcmp(arg, "other"))
			argp_error(state, "'%s' is not a policy: use fifo, other", arg);
		opt.fifo = !strcmp(arg, "fifo");
		opt.sched_given = true;
		break;
	case OPT_LATER:
		opt.later = number_arg(state, "--later", arg, 0, MAX_REPS);
		break;
	case OPT_REWRITE:
		opt.rewrite = true;
		break;
	case ARGP_KEY_ARG:
		argp_error(state, "unexpected argument '%s'", arg);
		break;
	default:
		return ARGP_ERR_UNKNOWN;
	}
	return 0;
}

static const struct argp_option fault_options[] = {
	{ "pattern", OPT_PATTERN, "LIST", 0,
	  "table: one page per page table; seq: all pages; rand: all, in random order", 0 },
	{ "child", OPT_CHILD, "LIST", 0,
	  "alive: it idles meanwhile; gone: it is reaped before (default both)", 0 },
	{ "seed", OPT_SEED, "N", 0,
	  "Of the random order (default 1)", 0 },
	{ 0 }
};

static error_t parse_fault(int key, char *arg, struct argp_state *state)
{
	switch (key) {
	case OPT_PATTERN:
		opt.patterns = 0;
		for_list(state, "patterns", arg, one_pattern);
		break;
	case OPT_CHILD:
		opt.alive = 0;
		for_list(state, "fates", arg, one_alive);
		break;
	case OPT_SEED:
		opt.seed = number_arg(state, "--seed", arg, 0, ~0ULL >> 1);
		break;
	case ARGP_KEY_ARG:
		argp_error(state, "unexpected argument '%s'", arg);
		break;
	case ARGP_KEY_END: {
		size_t i;

		for (i = 0; i < opt.nr_sizes; i++) {
			if (!opt.size[i])
				argp_error(state, "size 0 has no pages to write");
			/* page numbers of the random order are 32 bits wide */
			if (opt.size[i] / sysconf(_SC_PAGESIZE) > UINT32_MAX)
				argp_error(state, "a size is too large for 'fault'");
		}
		break;
	}
	default:
		return ARGP_ERR_UNKNOWN;
	}
	return 0;
}

static const struct argp_option memory_options[] = {
	{ "children", OPT_CHILDREN, "LIST", 0,
	  "Numbers of idle children, rising (default 1,2,4,8,16)", 0 },
	{ 0 }
};

static error_t parse_memory(int key, char *arg, struct argp_state *state)
{
	switch (key) {
	case OPT_CHILDREN:
		opt.nr_children = 0;
		for_list(state, "numbers of children", arg, one_children);
		break;
	case ARGP_KEY_ARG:
		argp_error(state, "unexpected argument '%s'", arg);
		break;
	default:
		return ARGP_ERR_UNKNOWN;
	}
	return 0;
}

static const struct argp_option shm_options[] = {
	{ "children", OPT_CHILDREN, "LIST", 0,
	  "Numbers of children that use the memory, rising (default 1,2,4,8,16)", 0 },
	{ "pages", OPT_PAGES, "N", 0,
	  "Pages of each page table that they touch (default 1)", 0 },
	{ "write", OPT_WRITE, NULL, 0, "They write to them, instead of reading", 0 },
	{ 0 }
};

static error_t parse_shm(int key, char *arg, struct argp_state *state)
{
	switch (key) {
	case OPT_PAGES:
		opt.pages = number_arg(state, "--pages", arg, 1,
				       table_span() / sysconf(_SC_PAGESIZE));
		break;
	case OPT_WRITE:
		opt.write = true;
		break;
	default:
		return parse_memory(key, arg, state);
	}
	return 0;
}

static void one_op(const struct argp_state *state, const char *part)
{
	unsigned int op;

	for (op = 0; op < nr_micro_ops; op++) {
		if (!strcmp(part, micro_name(op))) {
			opt.ops |= BIT(op);
			return;
		}
	}
	argp_error(state, "'%s' is not an operation; without --ops all are measured and listed",
		   part);
}

static const struct argp_option micro_options[] = {
	{ "ops", OPT_OPS, "LIST", 0, "Operations, by name (default all)", 0 },
	{ "loops", OPT_LOOPS, "N", 0,
	  "Runs of each operation in each repetition (default 200)", 0 },
	{ 0 }
};

static error_t parse_micro(int key, char *arg, struct argp_state *state)
{
	switch (key) {
	case OPT_OPS:
		opt.ops = 0;
		for_list(state, "operations", arg, one_op);
		break;
	case OPT_LOOPS:
		opt.loops = number_arg(state, "--loops", arg, 1, MAX_REPS);
		break;
	case ARGP_KEY_ARG:
		argp_error(state, "unexpected argument '%s'", arg);
		break;
	case ARGP_KEY_END:
		if (opt.nr_sizes || opt.thp)
			argp_error(state, "'micro' has no --size and no --thp");
		break;
	default:
		return ARGP_ERR_UNKNOWN;
	}
	return 0;
}

#define EXIT_DOC \
	"\vTimes are in nanoseconds of CLOCK_MONOTONIC_RAW, memory in kB (1024 bytes), " \
	"sizes in bytes with the binary suffixes K, M, G, T. p99 is by nearest rank.\n\n" \
	"Exit status: 0 success (also when of both modes only one could be measured, " \
	"which standard error says), 1 failure, 2 bad arguments, " \
	"3 this system cannot measure the mode asked for."

#define FORK_DOC \
	"Time of fork() in the parent, and of fork, exit of the child and wait; for " \
	"the first fork of a process and for later ones. Size 0 is always measured."

#define FAULT_DOC \
	"Time to write memory again after fork(), and of the same writes without a " \
	"fork before."

#define WINDOW_DOC \
	"Time to write memory while the child of a fork is there, of the child's " \
	"end, and of the writes after it."

#define SHM_DOC \
	"What memory costs that many processes share: page tables, the first touch by " \
	"one more process, a hole in it, the end of a process."

#define MICRO_DOC \
	"Single operations of a small process: fork, exec, exit, page faults, and calls " \
	"that change mappings. The shortest of many is what to compare between kernels."

static const struct argp fork_argp = {
	fork_options, parse_fork, "",
	FORK_DOC EXIT_DOC, with_common, NULL, NULL
};

static const struct argp fault_argp = {
	fault_options, parse_fault, "",
	FAULT_DOC EXIT_DOC, with_common, NULL, NULL
};

static const struct argp_option window_options[] = {
	{ "every", OPT_EVERY, "N", 0,
	  "Write to every Nth page table only (default 1: to each)", 0 },
	{ "cold", OPT_COLD, NULL, 0,
	  "Displace what the kernel keeps about the memory from the caches before each step", 0 },
	{ 0 }
};

static error_t parse_window(int key, char *arg, struct argp_state *state)
{
	switch (key) {
	case OPT_EVERY:
		opt.every = number_arg(state, "--every", arg, 1, 1 << 20);
		break;
	case OPT_COLD:
		opt.cold = true;
		break;
	case ARGP_KEY_ARG:
		argp_error(state, "unexpected argument '%s'", arg);
		break;
	default:
		return ARGP_ERR_UNKNOWN;
	}
	return 0;
}

static const struct argp window_argp = {
	window_options, parse_window, "",
	WINDOW_DOC EXIT_DOC, with_common, NULL, NULL
};

static const struct argp memory_argp = {
	memory_options, parse_memory, "",
	"Page-table memory taken by idle children of a process."
	EXIT_DOC, with_common, NULL, NULL
};

static const struct argp shm_argp = {
	shm_options, parse_shm, "",
	SHM_DOC EXIT_DOC, with_common, NULL, NULL
};

static const struct argp micro_argp = {
	micro_options, parse_micro, "",
	MICRO_DOC EXIT_DOC, with_common, NULL, NULL
};

static const struct command commands[] = {
	{ "fork", fork_metric, run_fork, print_fork, &fork_argp },
	{ "fault", fault_metric, run_fault, print_fault, &fault_argp },
	{ "window", window_metric, run_window, print_window, &window_argp },
	{ "memory", memory_metric, run_memory, print_memory, &memory_argp },
	{ "shm", shm_metric, run_shm, print_shm, &shm_argp },
	{ "micro", micro_metric, run_micro, print_micro, &micro_argp },
};

static void parse_command(struct argp_state *state, const char *name)
{
	int argc = state->argc - state->next + 1;
	char **argv = &state->argv[state->next - 1];
	char title[64];
	char *saved = argv[0];
	size_t i;

	for (i = 0; i < ARRAY_SIZE(commands); i++) {
		if (!strcmp(name, commands[i].name))
			opt.cmd = &commands[i];
	}
	if (!opt.cmd)
		argp_error(state, "unknown command '%s'", name);

	/* argp takes the name for its messages from here */
	snprintf(title, sizeof(title), "%s %s", program_invocation_short_name,
		 name);
	argv[0] = title;
	argp_parse(opt.cmd->argp, argc, argv, 0, NULL, NULL);
	argv[0] = saved;
	state->next = state->argc;
}

static error_t parse_main(int key, char *arg, struct argp_state *state)
{
	switch (key) {
	case ARGP_KEY_ARG:
		parse_command(state, arg);
		break;
	case ARGP_KEY_NO_ARGS:
		argp_error(state,
			   "a command is missing: fork, fault, window, memory, shm or micro");
		break;
	default:
		return ARGP_ERR_UNKNOWN;
	}
	return 0;
}

static const struct argp main_argp = {
	NULL, parse_main, "COMMAND [OPTION...]",
	"Measures what copy-on-write page tables do to fork().\n\n"
	"Commands:\n"
	"  fork      time of fork, and of fork + exit + wait, by memory size\n"
	"  fault     time to write memory again after fork\n"
	"  window    the same step by step: during the child's life, at its end, after it\n"
	"  memory    page-table memory by number of children\n"
	"  shm       memory that many processes share: page tables, first touch\n"
	"  micro     fork, exec, exit, faults, mmap, mprotect of a small process\n\n"
	"'cowpte-bench COMMAND --help' lists the options of a command."
	EXIT_DOC, NULL, NULL, NULL
};

/* What the options did not say. */
static void set_defaults(void)
{
	static const unsigned int children[] = { 1, 2, 4, 8, 16 };
	size_t i;

	if (!opt.nr_sizes) {
		if (opt.cmd->run == run_fork) {
			opt.size[opt.nr_sizes++] = 64ULL << 20;
			opt.size[opt.nr_sizes++] = 256ULL << 20;
			opt.size[opt.nr_sizes++] = 1ULL << 30;
		} else {
			opt.size[opt.nr_sizes++] = 256ULL << 20;
		}
	}
	/* The derived figures of fork need the empty process. */
	if (opt.cmd->run == run_fork) {
		for (i = 0; i < opt.nr_sizes && opt.size[i]; i++)
			;
		if (i == opt.nr_sizes) {
			if (opt.nr_sizes == MAX_LIST)
				errx(EXIT_USAGE, "more than %d sizes, with 0",
				     MAX_LIST);
			memmove(opt.size + 1, opt.size,
				opt.nr_sizes++ * sizeof(opt.size[0]));
			opt.size[0] = 0;
		}
	}
	if (!opt.reps)
		opt.reps = opt.cmd->run == run_fork ? 10 : 5;
	if (!opt.nr_children) {
		memcpy(opt.children, children, sizeof(children));
		opt.nr_children = ARRAY_SIZE(children);
	}
	opt.metric = opt.cmd->metric;
	if (opt.cmd->run == run_fork && opt.child == CHILD_EXEC)
		opt.metric = exec_metric;
	if (opt.samples && !opt.json)
		errx(EXIT_USAGE, "--samples needs --json");
}

static void finish(FILE *f, const char *name)
{
	bool bad = ferror(f);

	if (fclose(f) || bad)
		err(EXIT_FAILURE, "%s: write", name);
}

/* A file that cannot be written should not cost a measurement. */
static void check_json(void)
{
	int fd = open(opt.json, O_WRONLY | O_CREAT | O_CLOEXEC, 0666);

	if (fd < 0)
		err(EXIT_FAILURE, "%s", opt.json);
	close(fd);
}

/* What was in the file stays until all results are written beside it. */
static void write_json(void)
{
	struct stat st;
	bool regular = !stat(opt.json, &st) && S_ISREG(st.st_mode);
	char *name;
	FILE *f;

	if (asprintf(&name, "%s%s", opt.json, regular ? ".new" : "") < 0)
		err(EXIT_FAILURE, "%s", opt.json);
	f = fopen(name, "we");
	if (!f)
		err(EXIT_FAILURE, "%s", name);
	print_json(f);
	finish(f, name);
	if (regular && rename(name, opt.json))
		err(EXIT_FAILURE, "%s", opt.json);
	free(name);
}

int main(int argc, char **argv)
{
	bool json_stdout;

	/* As what a measured child executes: see exec_nothing(). */
	if (argc == 1 && !strcmp(argv[0], NOTHING_ARGV0))
		return EXIT_SUCCESS;

	opt.modes = BOTH_MODES;
	opt.ops = BIT(nr_micro_ops) - 1;
	opt.loops = 200;
	opt.later = 4;
	opt.patterns = ALL_PATTERNS;
	opt.alive = 3;
	opt.seed = 1;
	opt.every = 1;
	opt.pages = 1;
	argp_err_exit_status = EXIT_USAGE;
	argp_program_version = "cowpte-bench " COWPTE_VERSION;
	argp_parse(&main_argp, argc, argv, ARGP_IN_ORDER, NULL, NULL);
	set_defaults();

	json_stdout = opt.json && !strcmp(opt.json, "-");
	if (opt.json && !json_stdout)
		check_json();
	clock_gettime(CLOCK_MONOTONIC, &started);
	look_at_host();
	check_modes();
	check_sched();
	opt.cmd->run();
	progress_clear();

	if (opt.json && !json_stdout)
		write_json();
	if (json_stdout) {
		print_json(stdout);
	} else {
		print_header(stdout);
		opt.cmd->print(stdout);
	}
	finish(stdout, "standard output");
	return EXIT_SUCCESS;
}
