/* SPDX-License-Identifier: GPL-2.0 */
/* Samples of one quantity and their order statistics. */
#ifndef COWPTE_STATS_H
#define COWPTE_STATS_H

#include <stddef.h>

/* In the order the samples were taken; never reordered. */
struct series {
	double *v;
	size_t n;
	size_t cap;
};

struct summary {
	size_t n;
	double median;	/* mean of the two middle samples when n is even */
	double p99;	/* nearest rank: sample number ceil(0.99 n) */
	double min;
	double max;
};

void series_add(struct series *s, double v);
void series_free(struct series *s);
struct summary series_summary(const struct series *s);

#endif /* COWPTE_STATS_H */
