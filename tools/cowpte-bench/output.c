// SPDX-License-Identifier: GPL-2.0
/* What the bench prints, for people and for programs. */
#include <err.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "output.h"

/*
 * Length of the UTF-8 sequence at @s, or 0 if there is none: a JSON text must
 * be UTF-8, an argument from the command line need not be.
 */
static size_t utf8_len(const unsigned char *s)
{
	unsigned int min, code;
	size_t len, i;

	if (*s < 0x80)
		return 1;
	if ((*s & 0xe0) == 0xc0) {
		len = 2;
		min = 0x80;
		code = *s & 0x1f;
	} else if ((*s & 0xf0) == 0xe0) {
		len = 3;
		min = 0x800;
		code = *s & 0x0f;
	} else if ((*s & 0xf8) == 0xf0) {
		len = 4;
		min = 0x10000;
		code = *s & 0x07;
	} else {
		return 0;
	}
	for (i = 1; i < len; i++) {
		if ((s[i] & 0xc0) != 0x80)
			return 0;
		code = code << 6 | (s[i] & 0x3f);
	}
	if (code < min || code > 0x10ffff || (code >= 0xd800 && code <= 0xdfff))
		return 0;
	return len;
}

static void json_string(struct json *j, const char *str)
{
	const unsigned char *s = (const unsigned char *)str;

	fputc('"', j->f);
	while (*s) {
		size_t len = utf8_len(s);

		if (!len)
			fputs("\\ufffd", j->f);
		else if (*s == '"' || *s == '\\')
			fprintf(j->f, "\\%c", *s);
		else if (*s < 0x20 || *s == 0x7f)
			fprintf(j->f, "\\u%04x", *s);
		else
			fwrite(s, 1, len, j->f);
		s += len ? len : 1;
	}
	fputc('"', j->f);
}

static void json_begin(struct json *j, const char *key)
{
	if (j->depth) {
		if (j->filled[j->depth])
			fputc(',', j->f);
		fprintf(j->f, "\n%*s", 2 * j->depth, "");
		j->filled[j->depth] = true;
	}
	if (key) {
		json_string(j, key);
		fputs(": ", j->f);
	}
}

void json_open(struct json *j, const char *key, char bracket)
{
	json_begin(j, key);
	fputc(bracket, j->f);
	if (++j->depth >= JSON_DEPTH)
		errx(1, "JSON nested too deeply");
	j->filled[j->depth] = false;
}

void json_close(struct json *j, char bracket)
{
	bool filled = j->filled[j->depth--];

	if (filled)
		fprintf(j->f, "\n%*s", 2 * j->depth, "");
	fputc(bracket, j->f);
	if (!j->depth)
		fputc('\n', j->f);
}

void json_str(struct json *j, const char *key, const char *val)
{
	json_begin(j, key);
	json_string(j, val);
}

void json_int(struct json *j, const char *key, long long val)
{
	json_begin(j, key);
	fprintf(j->f, "%lld", val);
}

/* JSON knows no infinities: a quotient without a value becomes null. */
void json_num(struct json *j, const char *key, double val)
{
	if (!isfinite(val)) {
		json_null(j, key);
		return;
	}
	json_begin(j, key);
	fprintf(j->f, "%.15g", val);
}

void json_bool(struct json *j, const char *key, bool val)
{
	json_begin(j, key);
	fputs(val ? "true" : "false", j->f);
}

void json_null(struct json *j, const char *key)
{
	json_begin(j, key);
	fputs("null", j->f);
}

/* Room for the row being filled, empty. */
static void table_reserve(struct table *t)
{
	size_t cap = t->cap ? 2 * t->cap : 16;

	if (t->rows < t->cap)
		return;
	t->cell = reallocarray(t->cell, cap * TABLE_COLS, CELL_SIZE);
	if (!t->cell)
		err(1, "table");
	memset(t->cell + t->cap * TABLE_COLS, 0,
	       (cap - t->cap) * TABLE_COLS * CELL_SIZE);
	t->cap = cap;
}

/* Begin an empty table; the first row added is its heading. */
void table_start(struct table *t, size_t text_cols)
{
	memset(t, 0, sizeof(*t));
	t->text_cols = text_cols;
	table_reserve(t);
}

void table_add(struct table *t, const char *fmt, ...)
{
	va_list ap;

	if (t->cols >= TABLE_COLS)
		errx(1, "table too wide");
	va_start(ap, fmt);
	vsnprintf(t->cell[t->rows * TABLE_COLS + t->cols++], CELL_SIZE, fmt, ap);
	va_end(ap);
}

void table_end_row(struct table *t)
{
	t->rows++;
	t->cols = 0;
	table_reserve(t);
}

/* Print and free. */
void table_print(struct table *t, FILE *f)
{
	size_t width[TABLE_COLS] = { 0 };
	size_t row, col;

	for (row = 0; row < t->rows; row++) {
		for (col = 0; col < TABLE_COLS; col++) {
			size_t len = strlen(t->cell[row * TABLE_COLS + col]);

			if (len > width[col])
				width[col] = len;
		}
	}
	for (row = 0; row < t->rows; row++) {
		size_t last = 0;

		for (col = 0; col < TABLE_COLS; col++) {
			if (t->cell[row * TABLE_COLS + col][0])
				last = col;
		}
		for (col = 0; col <= last; col++) {
			int w = width[col];

			if (!w)
				continue;
			if (col < t->text_cols)
				w = col == last ? 0 : -w;
			fprintf(f, "%s%*s", col ? "  " : "", w,
				t->cell[row * TABLE_COLS + col]);
		}
		fputc('\n', f);
	}
	free(t->cell);
	memset(t, 0, sizeof(*t));
}

const char *unit_name(enum unit unit)
{
	return unit == UNIT_INSTRUCTIONS ? "instructions" : "ns";
}

/* Four digits and a prefix: "145.2 us" or "145.2 k" (instructions). */
const char *fmt_time(char *buf, size_t size, double v, enum unit unit)
{
	static const char *const ns[] = { "ns", "us", "ms", "s" };
	static const char *const instr[] = { "", "k", "M", "G" };
	const char *const *suffix = unit == UNIT_INSTRUCTIONS ? instr : ns;
	double a = fabs(v);
	int i = 0;

	if (!isfinite(v)) {
		snprintf(buf, size, "-");
		return buf;
	}
	/* 999.95 would print as 1000.0 */
	while (a >= 999.95 && i < 3) {
		a /= 1000;
		v /= 1000;
		i++;
	}
	if (i || suffix[0][0])
		snprintf(buf, size, "%.*f %s", a < 99.995 ? 2 : 1, v, suffix[i]);
	else
		snprintf(buf, size, "%.*f", a < 99.995 ? 2 : 1, v);
	return buf;
}

/* The largest binary unit that divides the number: "64M", "1G", "1536K". */
const char *fmt_size(char *buf, size_t size, unsigned long long bytes)
{
	static const char suffix[] = "\0KMGT";
	size_t i = 0;

	while (bytes && !(bytes & 1023) && i < 4) {
		bytes >>= 10;
		i++;
	}
	if (i)
		snprintf(buf, size, "%llu%c", bytes, suffix[i]);
	else
		snprintf(buf, size, "%llu", bytes);
	return buf;
}
