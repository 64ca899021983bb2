#include "thinning.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <zlib.h>

enum { LINE_ROOM = 8192, ALIKE = 14 };

static const char HANDSHAKE_FAILED[] = "OpenSSL Error[0]";

bool thinning_passes(struct thinning *thinning, const char *line, size_t length, uint64_t now_s)
{
	if (memmem(line, length, HANDSHAKE_FAILED, sizeof HANDSHAKE_FAILED - 1) != NULL)
		thinning->failed_handshakes++;
	if (now_s != thinning->second) {
		thinning->second = now_s;
		memset(thinning->passed, 0, sizeof thinning->passed);
	}
	const char *text = memchr(line, ' ', length);
	size_t rest = text == NULL ? 0 : length - (size_t)(text - line);
	uLong kind = crc32(0, (const Bytef *)text, (uInt)(rest < ALIKE ? rest : ALIKE)) % KINDS;
	if (thinning->passed[kind]++ < LINES_OF_A_KIND)
		return true;
	thinning->left_out++;
	return false;
}

static struct {
	int own, through; /* standard error as it was; the reading end of what stands in its place */
	pthread_t thread;
	bool begun;
	_Atomic uint64_t failed_handshakes;
} stream = {.own = -1, .through = -1};

static void say(const char *line, size_t length)
{
	while (length > 0) {
		ssize_t written = write(stream.own, line, length);
		if (written <= 0)
			return;
		line += written;
		length -= (size_t)written;
	}
}

static void pass_on(struct thinning *thinning, const char *line, size_t length)
{
	char note[64];
	if (!thinning_passes(thinning, line, length, (uint64_t)time(NULL)))
		return;
	if (thinning->left_out > 0) {
		int size = snprintf(note, sizeof note, "zdm: %u more lines were left out\n", thinning->left_out);
		say(note, (size_t)size);
		thinning->left_out = 0;
	}
	say(line, length);
}

/* Pass on the whole lines of `text`, or all of it when it is full; how many bytes that were. */
static size_t take_lines(struct thinning *thinning, const char *text, size_t length)
{
	size_t taken = 0;
	for (const char *end; (end = memchr(text + taken, '\n', length - taken)) != NULL;) {
		size_t line = (size_t)(end - (text + taken)) + 1;
		pass_on(thinning, text + taken, line);
		taken += line;
	}
	if (taken == 0 && length == LINE_ROOM) {
		pass_on(thinning, text, length);
		taken = length;
	}
	return taken;
}

static void *thin_out(void *argument)
{
	char text[LINE_ROOM];
	size_t held = 0;
	struct thinning thinning = {0};
	for (ssize_t got; (got = read(stream.through, text + held, sizeof text - held)) > 0;) {
		held += (size_t)got;
		size_t taken = take_lines(&thinning, text, held);
		held -= taken;
		memmove(text, text + taken, held);
		atomic_store(&stream.failed_handshakes, thinning.failed_handshakes);
	}
	say(text, held);
	return NULL;
}

bool thinning_begin(void)
{
	int ends[2];
	if (pipe(ends) != 0)
		return false;
	stream.own = dup(STDERR_FILENO);
	stream.through = ends[0];
	stream.begun = stream.own >= 0 && pthread_create(&stream.thread, NULL, thin_out, NULL) == 0;
	if (stream.begun)
		dup2(ends[1], STDERR_FILENO);
	close(ends[1]);
	return stream.begun;
}

void thinning_end(void)
{
	if (!stream.begun)
		return;
	/* The last writing end: the thread finishes with what is in between. */
	dup2(stream.own, STDERR_FILENO);
	pthread_join(stream.thread, NULL);
	close(stream.through);
	close(stream.own);
	stream.begun = false;
}

uint64_t thinning_failed_handshakes(void)
{
	return atomic_load(&stream.failed_handshakes);
}
