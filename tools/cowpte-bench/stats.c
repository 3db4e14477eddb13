// SPDX-License-Identifier: GPL-2.0
/* Order statistics over raw samples. */
#include <err.h>
#include <stdlib.h>
#include <string.h>

#include "stats.h"

/* Append a sample. Running out of memory for a few doubles ends the program. */
void series_add(struct series *s, double v)
{
	if (s->n == s->cap) {
		size_t cap = s->cap ? 2 * s->cap : 16;
		double *p = reallocarray(s->v, cap, sizeof(*p));

		if (!p)
			err(1, "samples");
		s->v = p;
		s->cap = cap;
	}
	s->v[s->n++] = v;
}

void series_free(struct series *s)
{
	free(s->v);
	memset(s, 0, sizeof(*s));
}

static int cmp_double(const void *pa, const void *pb)
{
	double a = *(const double *)pa;
	double b = *(const double *)pb;

	return (a > b) - (a < b);
}

/* All zero, with n == 0, for a series without samples. */
struct summary series_summary(const struct series *s)
{
	struct summary sum = { .n = s->n };
	size_t rank;
	double *v;

	if (!s->n)
		return sum;
	v = reallocarray(NULL, s->n, sizeof(*v));
	if (!v)
		err(1, "samples");
	memcpy(v, s->v, s->n * sizeof(*v));
	qsort(v, s->n, sizeof(*v), cmp_double);

	sum.min = v[0];
	sum.max = v[s->n - 1];
	if (s->n % 2)
		sum.median = v[s->n / 2];
	else
		sum.median = (v[s->n / 2 - 1] + v[s->n / 2]) / 2;

	/* ceil(99 n / 100) in integers: 0.99 has no exact double. */
	rank = s->n - s->n / 100;
	sum.p99 = v[rank - 1];
	free(v);
	return sum;
}
