/* SPDX-License-Identifier: GPL-2.0 */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM cow_pte

#if !defined(_TRACE_COW_PTE_H) || defined(TRACE_HEADER_MULTI_READ)
#define _TRACE_COW_PTE_H

#include <linux/tracepoint.h>
#include <linux/mm_types.h>

/* The caller says why: a fault, a system call, an observer. */
DECLARE_EVENT_CLASS(cow_pte_table,

	TP_PROTO(struct mm_struct *mm, unsigned long addr, unsigned long caller),

	TP_ARGS(mm, addr, caller),

	TP_STRUCT__entry(
		__field(void *,		mm)
		__field(unsigned long,	addr)
		__field(unsigned long,	caller)
	),

	TP_fast_assign(
		__entry->mm = mm;
		__entry->addr = addr;
		__entry->caller = caller;
	),

	TP_printk("mm=%p addr=0x%lx caller=%pS", __entry->mm, __entry->addr,
		  (void *)__entry->caller)
);

DEFINE_EVENT(cow_pte_table, cow_pte_break,
	TP_PROTO(struct mm_struct *mm, unsigned long addr, unsigned long caller),
	TP_ARGS(mm, addr, caller)
);

DEFINE_EVENT(cow_pte_table, cow_pte_reuse,
	TP_PROTO(struct mm_struct *mm, unsigned long addr, unsigned long caller),
	TP_ARGS(mm, addr, caller)
);

DEFINE_EVENT(cow_pte_table, cow_pte_drop,
	TP_PROTO(struct mm_struct *mm, unsigned long addr, unsigned long caller),
	TP_ARGS(mm, addr, caller)
);

DEFINE_EVENT(cow_pte_table, cow_pte_publish,
	TP_PROTO(struct mm_struct *mm, unsigned long addr, unsigned long caller),
	TP_ARGS(mm, addr, caller)
);

DEFINE_EVENT(cow_pte_table, cow_pte_join,
	TP_PROTO(struct mm_struct *mm, unsigned long addr, unsigned long caller),
	TP_ARGS(mm, addr, caller)
);

DEFINE_EVENT(cow_pte_table, cow_pte_leave,
	TP_PROTO(struct mm_struct *mm, unsigned long addr, unsigned long caller),
	TP_ARGS(mm, addr, caller)
);

TRACE_EVENT(cow_pte_fallback,

	TP_PROTO(struct mm_struct *mm, unsigned long addr, const char *reason),

	TP_ARGS(mm, addr, reason),

	TP_STRUCT__entry(
		__field(void *,		mm)
		__field(unsigned long,	addr)
		__string(reason, reason)
	),

	TP_fast_assign(
		__entry->mm = mm;
		__entry->addr = addr;
		__assign_str(reason);
	),

	TP_printk("mm=%p addr=0x%lx reason=%s", __entry->mm, __entry->addr,
		  __get_str(reason))
);

TRACE_EVENT(cow_pte_skip,

	TP_PROTO(struct mm_struct *oldmm, const char *reason),

	TP_ARGS(oldmm, reason),

	TP_STRUCT__entry(
		__field(void *,		oldmm)
		__string(reason, reason)
	),

	TP_fast_assign(
		__entry->oldmm = oldmm;
		__assign_str(reason);
	),

	TP_printk("oldmm=%p reason=%s", __entry->oldmm, __get_str(reason))
);

TRACE_EVENT(cow_pte_share,

	TP_PROTO(struct mm_struct *mm, struct mm_struct *oldmm,
		 unsigned long tables),

	TP_ARGS(mm, oldmm, tables),

	TP_STRUCT__entry(
		__field(void *,		mm)
		__field(void *,		oldmm)
		__field(unsigned long,	tables)
	),

	TP_fast_assign(
		__entry->mm = mm;
		__entry->oldmm = oldmm;
		__entry->tables = tables;
	),

	TP_printk("mm=%p oldmm=%p tables=%lu", __entry->mm, __entry->oldmm,
		  __entry->tables)
);

#endif /* _TRACE_COW_PTE_H */

/* This part must be outside protection */
#include <trace/define_trace.h>
