#include "check.h"
#include "counters.h"

#include <ctype.h>

static char text[16384];

static void save_and_read(const char *path)
{
	CHECK(counters_save(path));
	FILE *file = fopen(path, "r");
	CHECK(file != NULL);
	text[fread(text, 1, sizeof text - 1, file)] = 0;
	fclose(file);
}

static void what_was_counted_is_in_the_file(void)
{
	char path[PATH_MAX + 16];
	snprintf(path, sizeof path, "%s/counters", fresh_folder());
	counters[COUNT_PUBLISHES] = UINT64_MAX;
	count(COUNT_DENIED_TOPIC);
	save_and_read(path);
	CHECK(strstr(text, "\npublishes_total 18446744073709551615\n") != NULL);
	CHECK(strstr(text, "\npublishes_refused_total{reason=\"topic\"} 00000000000000000001\n") != NULL);
	CHECK(strstr(text, "\nkicks_total 00000000000000000000\n") != NULL);
}

static void every_line_is_a_sample_of_its_own(void)
{
	int lines = 0;
	for (char *line = text, *end; (end = strchr(line, '\n')) != NULL; line = end + 1, lines++) {
		char *space = strrchr(line, ' ');
		CHECK(islower((unsigned char)*line));
		*end = 0;
		space = strrchr(line, ' ');
		CHECK(space != NULL && space[1] != 0 && strspn(space + 1, "0123456789") == strlen(space + 1));
		*space = 0;
		for (char *other = end + 1, *stop; (stop = strchr(other, '\n')) != NULL; other = stop + 1)
			CHECK(strncmp(other, line, strlen(line)) != 0 || other[strlen(line)] != ' ');
	}
	CHECK(lines == COUNTERS);
}

static void the_file_is_written_only_when_something_changed(void)
{
	char path[PATH_MAX + 16];
	snprintf(path, sizeof path, "%s/counters", fresh_folder());
	count(COUNT_KICKS);
	save_and_read(path);
	CHECK(unlink(path) == 0 && counters_save(path) && access(path, F_OK) != 0);
	count(COUNT_KICKS);
	save_and_read(path);
	CHECK(strstr(text, "\nkicks_total 00000000000000000002\n") != NULL);
}

static void a_file_that_cannot_be_written_is_tried_again(void)
{
	char path[PATH_MAX + 32];
	const char *folder = fresh_folder();
	count(COUNT_KICKS);
	snprintf(path, sizeof path, "%s/missing/counters", folder);
	CHECK(!counters_save(path));
	snprintf(path, sizeof path, "%s/counters", folder);
	limit_files(16);
	CHECK(!counters_save(path));
	limit_files(RLIM_INFINITY);
	save_and_read(path);
}

static void on_a_full_disk_the_file_goes_on(void)
{
	char path[PATH_MAX + 16];
	snprintf(path, sizeof path, "%s/counters", fresh_folder());
	counters[COUNT_KICKS] = 9;
	save_and_read(path);
	limit_files((rlim_t)strlen(text));
	counters[COUNT_KICKS] = UINT64_MAX;
	save_and_read(path);
	limit_files(RLIM_INFINITY);
	CHECK(strstr(text, "\nkicks_total 18446744073709551615\n") != NULL);
}

int main(void)
{
	RUN(what_was_counted_is_in_the_file);
	RUN(every_line_is_a_sample_of_its_own);
	RUN(the_file_is_written_only_when_something_changed);
	RUN(a_file_that_cannot_be_written_is_tried_again);
	RUN(on_a_full_disk_the_file_goes_on);
	return check_done("counters");
}
