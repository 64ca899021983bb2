#include "counters.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

uint64_t counters[COUNTERS];

static const char *const names[COUNTERS] = {
#define X(name, text) text,
	ZDM_COUNTERS(X)
#undef X
};

const char *counter_name(enum counter counter)
{
	return names[counter];
}

/* Every line has the same length at every save: written over the old text, the new one needs no room on a full disk. */
static size_t render(char *text, size_t room)
{
	size_t length = 0;
	for (int i = 0; i < COUNTERS && length < room; i++)
		length += (size_t)snprintf(text + length, room - length, "%s %020" PRIu64 "\n", names[i], counters[i]);
	return length;
}

bool counters_save(const char *path)
{
	static uint64_t saved[COUNTERS];
	static bool ever;
	char text[128 * COUNTERS];
	if (ever && memcmp(saved, counters, sizeof saved) == 0)
		return true;
	size_t length = render(text, sizeof text);
	int file = length < sizeof text ? open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600) : -1;
	if (file < 0)
		return false;
	bool written = pwrite(file, text, length, 0) == (ssize_t)length && ftruncate(file, (off_t)length) == 0;
	close(file);
	if (!written)
		return false;
	memcpy(saved, counters, sizeof saved);
	ever = true;
	return true;
}
