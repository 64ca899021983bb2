#include "counters.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

uint64_t counters[COUNTERS];

static const char *const names[COUNTERS] = {
#define X(name, text) text,
	ZDM_COUNTERS(X)
#undef X
};

bool counters_save(const char *path)
{
	static uint64_t saved[COUNTERS];
	static bool ever;
	if (ever && memcmp(saved, counters, sizeof saved) == 0)
		return true;
	char draft[4096];
	if ((size_t)snprintf(draft, sizeof draft, "%s.new", path) >= sizeof draft)
		return false;
	FILE *file = fopen(draft, "w");
	if (file == NULL)
		return false;
	for (int i = 0; i < COUNTERS; i++)
		fprintf(file, "%s %" PRIu64 "\n", names[i], counters[i]);
	if (fclose(file) != 0 || rename(draft, path) != 0)
		return false;
	memcpy(saved, counters, sizeof saved);
	ever = true;
	return true;
}
