/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A page that is pinned for long, by the process that calls these.
 */
#ifndef COW_PTE_RING_H
#define COW_PTE_RING_H

#include "cow_pte_util.h"

int cow_ring_open(void);
int cow_ring_pin(void *addr);
__u64 cow_ring_look(void);
int cow_ring_fill(__u64 stamp);
void cow_ring_close(void);

#endif /* COW_PTE_RING_H */
