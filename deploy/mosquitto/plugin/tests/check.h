/* What the tests share: checks, running by name, a folder that is gone at the end, a limit that stands for a full disk. */
#ifndef ZDM_CHECK_H
#define ZDM_CHECK_H

#include <ftw.h>
#include <limits.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#define CHECK(condition) \
	do { \
		if (!(condition)) { \
			fprintf(stderr, "%s:%d: %s: not so: %s\n", __FILE__, __LINE__, checking, #condition); \
			exit(1); \
		} \
	} while (0)

#define RUN(test) \
	do { \
		checking = #test; \
		test(); \
		checks_run++; \
	} while (0)

static const char *checking = "";
static int checks_run;
static char check_folder[PATH_MAX];

static inline int check_remove(const char *path, const struct stat *about, int kind, struct FTW *at)
{
	return remove(path);
}

static inline void check_clean(void)
{
	if (check_folder[0] != 0)
		nftw(check_folder, check_remove, 16, FTW_DEPTH | FTW_PHYS);
	check_folder[0] = 0;
}

/* The end of `main`: says how many tests passed. */
static inline int check_done(const char *what)
{
	printf("plugin: %s: %d passed\n", what, checks_run);
	return 0;
}

/* A new empty folder; the one of the test before is removed. */
static inline const char *fresh_folder(void)
{
	static bool registered;
	const char *above = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp"; /* in memory, where syncing takes no time */
	if (!registered)
		atexit(check_clean);
	registered = true;
	check_clean();
	snprintf(check_folder, sizeof check_folder, "%s/zdm-check-XXXXXX", above);
	CHECK(mkdtemp(check_folder) != NULL);
	return check_folder;
}

/* No file grows beyond `bytes`, as on a full disk; RLIM_INFINITY ends that. */
static inline void limit_files(rlim_t bytes)
{
	struct rlimit limit;
	signal(SIGXFSZ, SIG_IGN);
	CHECK(getrlimit(RLIMIT_FSIZE, &limit) == 0);
	limit.rlim_cur = bytes < limit.rlim_max ? bytes : limit.rlim_max;
	CHECK(setrlimit(RLIMIT_FSIZE, &limit) == 0);
}

#endif
