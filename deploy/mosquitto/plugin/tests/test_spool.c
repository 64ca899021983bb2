#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>

#include "check.h"
#include "frame.h"
#include "spool.h"

enum { SKIPPED = 1000000, SEGMENTS = 64 };

static const struct spool_limits ROOMY = {
	.segment_bytes = 1 << 20, .total_bytes = 1 << 30, .free_bytes = 0, .sync_ms = 1000};
static struct spool spool;
static char folder[PATH_MAX], error[256];

/* What a reader finds: the numbers of whole records in order, and whether each segment ended where its file ends. */
static struct found {
	uint64_t first[SEGMENTS];
	int segments;
	uint64_t *numbers, newest_payload;
	size_t count, torn;
} found;

static int by_name(const struct dirent **a, const struct dirent **b)
{
	return strcmp((*a)->d_name, (*b)->d_name);
}

static int is_segment(const struct dirent *entry)
{
	return strstr(entry->d_name, ".spool") != NULL;
}

static void in_folder(const char *name, char out[PATH_MAX + 300])
{
	snprintf(out, PATH_MAX + 300, "%s/%s", folder, name);
}

static void take_record(struct frame frame)
{
	struct reader body = reader_over(frame.body, frame.length);
	read_u16(&body);
	uint64_t number = read_u64(&body);
	found.numbers = realloc(found.numbers, (found.count + 1) * sizeof *found.numbers);
	CHECK(found.numbers != NULL && !body.failed);
	found.numbers[found.count++] = number;
}

static void read_segment(const char *name)
{
	char path[PATH_MAX + 300];
	in_folder(name, path);
	FILE *file = fopen(path, "r");
	CHECK(file != NULL && fseek(file, 0, SEEK_END) == 0);
	size_t size = (size_t)ftell(file);
	rewind(file);
	uint8_t *data = malloc(size + 1);
	CHECK(data != NULL && fread(data, 1, size, file) == size);
	fclose(file);
	CHECK(size >= SEGMENT_HEADER && memcmp(data, "ZDMSPOOL\1\0\0\0\0\0\0\0", 16) == 0);
	struct reader reader = reader_over(data + 16, size - 16);
	uint64_t first = read_u64(&reader);
	CHECK(first == strtoull(name, NULL, 16) && memcmp(read_bytes(&reader, SPOOL_ID), spool.id, SPOOL_ID) == 0);
	CHECK(found.segments < SEGMENTS);
	found.first[found.segments++] = first;
	size_t before = found.count;
	for (struct frame frame; (frame = read_frame(&reader)).body != NULL;)
		take_record(frame);
	CHECK(found.count == before || found.numbers[before] == first);
	found.torn += reader.failed;
	free(data);
}

static void read_all(void)
{
	struct dirent **entries;
	free(found.numbers);
	memset(&found, 0, sizeof found);
	int count = scandir(folder, &entries, is_segment, by_name);
	for (int i = 0; i < count; i++) {
		read_segment(entries[i]->d_name);
		free(entries[i]);
	}
	CHECK(count >= 0);
	free(entries);
}

static bool open_spool(struct spool_limits limits)
{
	return spool_open(&spool, folder, limits, 1000, error, sizeof error);
}

static void fresh(struct spool_limits limits)
{
	snprintf(folder, sizeof folder, "%s/spool", fresh_folder());
	CHECK(open_spool(limits));
}

static struct record record_of(const void *payload, size_t length)
{
	return (struct record){.kind = RECORD_PUBLISH, .flags = 1, .time_ms = 2000, .session = 3, .device = {"dev-1", 5},
		.detail = {"j/data/dev-1/a", 14}, .payload = payload, .payload_length = length};
}

static bool append_bytes(size_t length)
{
	static char payload[1 << 20];
	struct record record = record_of(payload, length);
	uint64_t sequence = 0, wanted = spool.next;
	bool written = spool_append(&spool, &record, &sequence);
	CHECK(!written || sequence == wanted);
	return written;
}

static void a_record_is_laid_out_as_the_protocol_says(void)
{
	uint64_t sequence;
	char path[PATH_MAX + 300];
	uint8_t data[512];
	fresh(ROOMY);
	struct record record = record_of("{\"n\":1}", 7);
	CHECK(spool_append(&spool, &record, &sequence) && sequence == 2);
	record.kind = RECORD_CONNECTED;
	CHECK(spool_append(&spool, &record, &sequence) && sequence == 3);
	in_folder("0000000000000001.spool", path);
	FILE *file = fopen(path, "r");
	CHECK(file != NULL);
	size_t size = fread(data, 1, sizeof data, file);
	fclose(file);
	struct reader reader = reader_over(data + SEGMENT_HEADER, size - SEGMENT_HEADER);
	struct frame frame = read_frame(&reader);
	CHECK(frame.body[0] == RECORD_STARTED);
	frame = read_frame(&reader);
	struct reader body = reader_over(frame.body, frame.length);
	CHECK(read_u8(&body) == RECORD_PUBLISH && read_u8(&body) == 1 && read_u64(&body) == 2);
	CHECK(read_u64(&body) == 2000 && read_u64(&body) == 1 && read_u64(&body) == 3);
	struct text device = read_text(&body), topic = read_text(&body);
	CHECK(device.length == 5 && memcmp(device.at, "dev-1", 5) == 0 && topic.length == 14);
	CHECK(body.left == 7 && memcmp(body.at, "{\"n\":1}", 7) == 0);
	frame = read_frame(&reader);
	body = reader_over(frame.body + 26, frame.length - 26);
	CHECK(read_u64(&body) == 3); /* a session is named by the record that began it */
	CHECK(read_frame(&reader).body == NULL && !reader.failed);
	spool_close(&spool);
}

static void a_full_segment_is_followed_by_another(void)
{
	struct spool_limits limits = ROOMY;
	limits.segment_bytes = 4096;
	fresh(limits);
	for (int i = 0; i < 100; i++)
		CHECK(append_bytes(200));
	spool_close(&spool);
	read_all();
	CHECK(found.segments > 5 && found.torn == 0 && found.count == 101);
	for (size_t i = 0; i < found.count; i++)
		CHECK(found.numbers[i] == i + 1);
}

static void a_record_larger_than_a_segment_gets_one_of_its_own(void)
{
	struct spool_limits limits = ROOMY;
	limits.segment_bytes = 4096;
	fresh(limits);
	CHECK(append_bytes(100000) && append_bytes(100000) && append_bytes(10));
	spool_close(&spool);
	read_all();
	CHECK(found.segments == 4 && found.count == 4 && found.torn == 0);
}

static void what_no_frame_can_hold_is_refused(void)
{
	static char detail[2000], payload[FRAME_LIMIT];
	uint64_t sequence;
	fresh(ROOMY);
	struct record record = record_of(payload, sizeof payload);
	CHECK(!spool_append(&spool, &record, &sequence));
	record.payload_length = SIZE_MAX;
	CHECK(!spool_append(&spool, &record, &sequence));
	record.payload_length = 0;
	memset(detail, 'x', sizeof detail);
	record.detail = (struct text){detail, sizeof detail};
	CHECK(!spool_append(&spool, &record, &sequence));
	record.detail.length = 1024;
	record.device = (struct text){detail, 128};
	CHECK(spool_append(&spool, &record, &sequence) && sequence == 2);
	spool_close(&spool);
	read_all();
	CHECK(found.count == 2 && found.torn == 0);
}

static void numbers_go_on_after_a_restart_well_ahead_of_all_before(void)
{
	uint8_t id[SPOOL_ID];
	fresh(ROOMY);
	CHECK(append_bytes(10));
	memcpy(id, spool.id, sizeof id);
	spool_close(&spool);
	for (uint64_t start = 1; start <= 3; start++) {
		CHECK(open_spool(ROOMY) && memcmp(id, spool.id, sizeof id) == 0);
		CHECK(spool.boot == 3 + start * SKIPPED + (start - 1) && spool.next == spool.boot + 1);
		CHECK(spool.newest_ms == (start == 1 ? 2000 : 1000));
		spool_close(&spool);
	}
	read_all();
	CHECK(found.segments == 4 && found.count == 5 && found.torn == 0);
}

static void a_torn_tail_is_left_behind_and_written_past(void)
{
	char path[PATH_MAX + 300];
	struct stat about;
	fresh(ROOMY);
	CHECK(append_bytes(50) && append_bytes(50));
	spool_close(&spool);
	in_folder("0000000000000001.spool", path);
	CHECK(stat(path, &about) == 0);
	for (off_t cut = 1; cut < 100; cut += 7) {
		char other[PATH_MAX + 300];
		CHECK(truncate(path, about.st_size - cut) == 0);
		CHECK(open_spool(ROOMY) && spool.boot == 3 + SKIPPED && append_bytes(5));
		spool_close(&spool);
		read_all();
		CHECK(found.segments == 2 && found.torn == 1 && found.count == 4);
		in_folder("00000000000f4243.spool", other);
		CHECK(unlink(other) == 0);
	}
}

static void a_damaged_or_empty_newest_segment_does_not_stop_a_start(void)
{
	char path[PATH_MAX + 300];
	fresh(ROOMY);
	spool_close(&spool);
	in_folder("0000000000000001.spool", path);
	for (off_t size = 0; size <= SEGMENT_HEADER; size += 8) {
		CHECK(truncate(path, size) == 0 && open_spool(ROOMY) && spool.boot == 1 + SKIPPED);
		spool_close(&spool);
		char other[PATH_MAX + 300];
		in_folder("00000000000f4241.spool", other);
		CHECK(unlink(other) == 0);
	}
}

static void begun_anew_it_has_another_id(void)
{
	char path[PATH_MAX + 300];
	uint8_t id[SPOOL_ID];
	fresh(ROOMY);
	memcpy(id, spool.id, sizeof id);
	spool_close(&spool);
	in_folder("0000000000000001.spool", path);
	CHECK(unlink(path) == 0 && open_spool(ROOMY));
	CHECK(spool.boot == 1 && memcmp(id, spool.id, sizeof id) != 0);
	memcpy(id, spool.id, sizeof id);
	spool_close(&spool);
	CHECK(open_spool(ROOMY) && memcmp(id, spool.id, sizeof id) == 0);
	spool_close(&spool);
	read_all();
}

static void of_two_writers_the_second_is_told(void)
{
	struct spool second;
	fresh(ROOMY);
	CHECK(!spool_open(&second, folder, ROOMY, 1000, error, sizeof error) && strstr(error, "another broker") != NULL);
	spool_close(&second);
	spool_close(&spool);
	CHECK(open_spool(ROOMY));
	spool_close(&spool);
}

static void a_folder_that_cannot_be_used_is_told(void)
{
	char path[PATH_MAX + 300];
	snprintf(folder, sizeof folder, "%s/missing/spool", fresh_folder());
	CHECK(!open_spool(ROOMY) && strstr(error, "folder") != NULL);
	spool_close(&spool);
	fresh(ROOMY);
	spool_close(&spool);
	in_folder("id", path);
	CHECK(truncate(path, 3) == 0 && !open_spool(ROOMY) && strstr(error, "id") != NULL);
	spool_close(&spool);
}

static void beyond_its_size_it_refuses_until_there_is_room(void)
{
	char path[PATH_MAX + 300];
	struct spool_limits limits = ROOMY;
	limits.segment_bytes = 4096;
	limits.total_bytes = 20000;
	fresh(limits);
	while (append_bytes(500))
		CHECK(spool.total <= limits.total_bytes);
	spool_look(&spool);
	uint64_t next = spool.next;
	CHECK(!append_bytes(500) && spool.next == next && spool.total <= limits.total_bytes);
	in_folder("0000000000000001.spool", path); /* read and deleted */
	CHECK(unlink(path) == 0);
	spool_look(&spool);
	CHECK(!spool.refusing && append_bytes(500));
	spool_close(&spool);
	read_all();
	CHECK(found.torn == 0 && found.numbers[found.count - 1] == next);
}

static void it_leaves_the_disk_the_room_it_was_told_to(void)
{
	struct spool_limits limits = ROOMY;
	limits.free_bytes = UINT64_MAX;
	fresh(limits);
	CHECK(spool.refusing && !append_bytes(1));
	spool.limits.free_bytes = 0;
	spool_look(&spool);
	CHECK(!spool.refusing && append_bytes(1));
	spool_close(&spool);
	read_all();
	CHECK(found.count == 2);
}

static void on_a_full_disk_nothing_of_a_refused_record_stays(void)
{
	fresh(ROOMY);
	CHECK(append_bytes(100));
	for (rlim_t room = 0; room < 300; room += 11) {
		uint64_t next = spool.next;
		limit_files(spool.size + room);
		bool written = append_bytes(200);
		limit_files(RLIM_INFINITY);
		CHECK(written == (spool.next == next + 1));
		read_all();
		CHECK(found.torn == 0 && found.count == spool.next - 1);
	}
	CHECK(append_bytes(200));
	spool_close(&spool);
	read_all();
	CHECK(found.torn == 0 && found.segments == 1);
}

static void on_a_full_disk_a_new_segment_waits_for_room(void)
{
	struct spool_limits limits = ROOMY;
	limits.segment_bytes = 1000;
	fresh(limits);
	CHECK(append_bytes(900));
	limit_files(10);
	CHECK(!append_bytes(900) && !append_bytes(900));
	limit_files(RLIM_INFINITY);
	CHECK(append_bytes(900));
	spool_close(&spool);
	read_all();
	CHECK(found.count == 3 && found.torn == 0);
}

static void a_full_disk_at_the_start_is_told(void)
{
	fresh(ROOMY);
	spool_close(&spool);
	limit_files(10);
	CHECK(!open_spool(ROOMY) && error[0] != 0);
	limit_files(RLIM_INFINITY);
	spool_close(&spool);
	CHECK(open_spool(ROOMY));
	spool_close(&spool);
}

static void what_is_not_a_segment_is_none_of_its_business(void)
{
	static const char *const names[] = {"place", ".place.new", "lock", "0000000000000009.spool.damaged", "9.spool",
		"000000000000000g.spool", "0000000000000009.spoo"};
	char path[PATH_MAX + 300];
	fresh(ROOMY);
	spool_close(&spool);
	for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
		in_folder(names[i], path);
		close(open(path, O_WRONLY | O_CREAT, 0600));
	}
	CHECK(open_spool(ROOMY) && spool.segments == 2 && spool.boot == 2 + SKIPPED);
	spool_close(&spool);
}

static void the_thread_that_syncs_keeps_up_with_many_segments(void)
{
	struct spool_limits limits = {.segment_bytes = 2000, .total_bytes = 1 << 30, .free_bytes = 0, .sync_ms = 1};
	fresh(limits);
	for (int i = 0; i < 500; i++)
		CHECK(append_bytes(200));
	spool_close(&spool);
	struct stat about;
	char path[PATH_MAX + 300];
	in_folder("0000000000000001.spool", path);
	CHECK(stat(path, &about) == 0 && about.st_size <= 2000);
}

int main(void)
{
	RUN(a_record_is_laid_out_as_the_protocol_says);
	RUN(a_full_segment_is_followed_by_another);
	RUN(a_record_larger_than_a_segment_gets_one_of_its_own);
	RUN(what_no_frame_can_hold_is_refused);
	RUN(numbers_go_on_after_a_restart_well_ahead_of_all_before);
	RUN(a_torn_tail_is_left_behind_and_written_past);
	RUN(a_damaged_or_empty_newest_segment_does_not_stop_a_start);
	RUN(begun_anew_it_has_another_id);
	RUN(of_two_writers_the_second_is_told);
	RUN(a_folder_that_cannot_be_used_is_told);
	RUN(beyond_its_size_it_refuses_until_there_is_room);
	RUN(it_leaves_the_disk_the_room_it_was_told_to);
	RUN(on_a_full_disk_nothing_of_a_refused_record_stays);
	RUN(on_a_full_disk_a_new_segment_waits_for_room);
	RUN(a_full_disk_at_the_start_is_told);
	RUN(what_is_not_a_segment_is_none_of_its_business);
	RUN(the_thread_that_syncs_keeps_up_with_many_segments);
	free(found.numbers);
	return check_done("spool");
}
