/* SPDX-License-Identifier: GPL-2.0 */
/* A JSON writer, a text table with aligned columns, and number formats. */
#ifndef COWPTE_OUTPUT_H
#define COWPTE_OUTPUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#include "common.h"

#define JSON_DEPTH	16
#define TABLE_COLS	16
#define CELL_SIZE	32

/* Writes commas and indentation; the caller keeps the nesting right. */
struct json {
	FILE *f;
	int depth;
	bool filled[JSON_DEPTH];
};

/* A NULL @key writes an array element, or the outermost value. */
void json_open(struct json *j, const char *key, char bracket);
void json_close(struct json *j, char bracket);
void json_str(struct json *j, const char *key, const char *val);
void json_int(struct json *j, const char *key, long long val);
void json_num(struct json *j, const char *key, double val);
void json_bool(struct json *j, const char *key, bool val);
void json_null(struct json *j, const char *key);

struct table {
	size_t cols;
	size_t rows;
	size_t cap;
	size_t text_cols;	/* the first columns are flush left */
	char (*cell)[CELL_SIZE];
};

void table_start(struct table *t, size_t text_cols);
void table_add(struct table *t, const char *fmt, ...)
	__printf(2, 3);
void table_end_row(struct table *t);
void table_print(struct table *t, FILE *f);

enum unit { UNIT_NS, UNIT_INSTRUCTIONS };

const char *unit_name(enum unit unit);
const char *fmt_time(char *buf, size_t size, double v, enum unit unit);
const char *fmt_size(char *buf, size_t size, unsigned long long bytes);

#endif /* COWPTE_OUTPUT_H */
