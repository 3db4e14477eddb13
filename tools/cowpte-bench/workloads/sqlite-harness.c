// SPDX-License-Identifier: GPL-2.0
/*
 * The target of afl.sh: loads a large SQLite database in memory, then runs the
 * SQL text on its standard input on it. Built by afl-cc it becomes a server
 * that forks once per input, after the database is loaded.
 *
 * usage: sqlite-harness MEBIBYTES < SQL
 */
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MAX_INPUT	4096
/* Limits of one input, in units of sqlite3_progress_handler(). */
#define STEPS		1000
#define MAX_CALLS	20

static sqlite3 *db;

static void die(const char *what)
{
	fprintf(stderr, "sqlite-harness: %s: %s\n", what,
		db ? sqlite3_errmsg(db) : "no database");
	exit(1);
}

static int too_long(void *calls)
{
	return ++*(int *)calls > MAX_CALLS;
}

/* Rows of a number, a key to look up and 900 bytes, some four in a page. */
static void load(long long mib)
{
	static char fill[900];
	sqlite3_stmt *insert;
	long long i, n = mib * 1024;

	memset(fill, 'x', sizeof(fill));
	if (sqlite3_open(":memory:", &db) ||
	    sqlite3_exec(db, "PRAGMA journal_mode=OFF; BEGIN;"
			 "CREATE TABLE big(id INTEGER PRIMARY KEY, k INT, v TEXT);"
			 "CREATE TABLE t(a, b, c);"
			 "INSERT INTO t VALUES(1, 'one', 1.5), (2, 'two', NULL);",
			 NULL, NULL, NULL) ||
	    sqlite3_prepare_v2(db, "INSERT INTO big VALUES(?, ?, ?)", -1, &insert, NULL))
		die("create");
	for (i = 0; i < n; i++) {
		sqlite3_bind_int64(insert, 1, i);
		sqlite3_bind_int64(insert, 2, i * 2654435761LL % n);
		sqlite3_bind_text(insert, 3, fill, sizeof(fill), SQLITE_STATIC);
		if (sqlite3_step(insert) != SQLITE_DONE)
			die("insert");
		sqlite3_reset(insert);
	}
	sqlite3_finalize(insert);
	if (sqlite3_exec(db, "COMMIT", NULL, NULL, NULL))
		die("commit");
}

int main(int argc, char **argv)
{
	static char sql[MAX_INPUT + 1];
	char *end = NULL;
	long long mib = argc == 2 ? strtoll(argv[1], &end, 10) : 0;
	int calls = 0;
	ssize_t len;

	if (mib < 1 || mib > 1 << 20 || *end) {
		fputs("usage: sqlite-harness MEBIBYTES < SQL\n", stderr);
		return 2;
	}
	load(mib);

#ifdef __AFL_HAVE_MANUAL_CONTROL
	__AFL_INIT();
#endif

	len = read(STDIN_FILENO, sql, MAX_INPUT);
	if (len < 0)
		return 1;
	sql[len] = '\0';
	sqlite3_progress_handler(db, STEPS, too_long, &calls);
	/* Wrong SQL is as good an input as any. */
	sqlite3_exec(db, sql, NULL, NULL, NULL);
	return 0;
}
