/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Single operations of a small process: what must cost the same on a kernel
 * with the feature as on one without.
 */
#ifndef COWPTE_MICRO_H
#define COWPTE_MICRO_H

#include "worker.h"

extern const unsigned int nr_micro_ops;

const char *micro_name(unsigned int op);
const char *micro_text(unsigned int op);
void micro_job(const struct job *job, struct result *res);

#endif /* COWPTE_MICRO_H */
