#include <fcntl.h>

#include "check.h"
#include "thinning.h"

static struct thinning thinning;

static bool passes(const char *line, uint64_t now_s)
{
	return thinning_passes(&thinning, line, strlen(line), now_s);
}

static void of_lines_that_begin_alike_ten_a_second_pass(void)
{
	char line[128];
	for (uint64_t second = 1; second <= 2; second++)
		for (int i = 0; i < 100; i++) {
			snprintf(line, sizeof line, "2026-01-01T00:00:0%d: Protocol error from client-%d\n", i % 10, i);
			CHECK(passes(line, second) == (i < LINES_OF_A_KIND));
		}
	CHECK(thinning.left_out == 180);
	CHECK(passes("2026-01-01T00:00:00: zdm: the spool is full\n", 2));
}

static void lines_of_any_shape_are_taken(void)
{
	static const char *const lines[] = {"", " ", "\n", "word", "word \n", "a b"};
	for (size_t i = 0; i < sizeof lines / sizeof *lines; i++)
		CHECK(passes(lines[i], 9));
}

/* Writes to standard error what `text` says, so often, as the broker would; what came out of it into `out`. */
static size_t thinned(const char *text, int times, char *out, size_t room)
{
	char path[PATH_MAX + 16];
	snprintf(path, sizeof path, "%s/log", fresh_folder());
	int own = dup(STDERR_FILENO), file = open(path, O_RDWR | O_CREAT, 0600);
	CHECK(file >= 0 && dup2(file, STDERR_FILENO) == STDERR_FILENO && thinning_begin());
	for (int i = 0; i < times; i++)
		fprintf(stderr, "%s", text);
	thinning_end();
	fprintf(stderr, "after\n");
	CHECK(dup2(own, STDERR_FILENO) == STDERR_FILENO && close(own) == 0);
	ssize_t size = pread(file, out, room - 1, 0);
	CHECK(size > 0 && close(file) == 0);
	out[size] = 0;
	return (size_t)size;
}

static void a_storm_is_thinned_out_and_counted(void)
{
	static char out[1 << 20];
	uint64_t before = thinning_failed_handshakes();
	size_t size = thinned("now: OpenSSL Error[0]: wrong\nnow: OpenSSL Error[1]: more\n", 20000, out, sizeof out);
	CHECK(thinning_failed_handshakes() - before == 20000);
	CHECK(size < 20000 && strcmp(out + size - 6, "after\n") == 0);
}

static void what_is_no_storm_passes_as_it_was(void)
{
	static char out[1 << 20], wide[20000];
	thinned("now: one\nnow: two\nnow: three without an end", 1, out, sizeof out);
	CHECK(strcmp(out, "now: one\nnow: two\nnow: three without an endafter\n") == 0);
	memset(wide, 'x', sizeof wide - 1);
	CHECK(thinned(wide, 1, out, sizeof out) == sizeof wide - 1 + 6);
}

int main(void)
{
	RUN(of_lines_that_begin_alike_ten_a_second_pass);
	RUN(lines_of_any_shape_are_taken);
	RUN(a_storm_is_thinned_out_and_counted);
	RUN(what_is_no_storm_passes_as_it_was);
	return check_done("thinning");
}
