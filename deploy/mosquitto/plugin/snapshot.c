#include "snapshot.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "frame.h"

enum { FIRST = 1, LAST = 2 };

static const uint64_t TIDY_FROM = 4 * 1024 * 1024, TIDY_GROWTH = 3;

struct change {
	uint64_t request, from, to;
	struct text log_id;
	uint8_t flags;
	uint32_t count;
	struct reader entries;
};

static bool read_change(struct frame body, struct change *change)
{
	struct reader reader = reader_over(body.body, body.length);
	read_u8(&reader);
	change->request = read_u64(&reader);
	change->log_id = read_text(&reader);
	change->from = read_u64(&reader);
	change->to = read_u64(&reader);
	change->flags = read_u8(&reader);
	change->count = read_u32(&reader);
	change->entries = reader;
	for (uint32_t i = 0; i < change->count && !reader.failed; i++) {
		struct entry entry;
		read_entry(&reader, &entry);
	}
	return !reader.failed && reader.left == 0 && change->log_id.length > 0 && change->log_id.length <= LOG_ID_LIMIT;
}

static bool fits(const struct knowledge *knowledge, const struct change *change)
{
	if (change->flags & FIRST)
		return true;
	return strlen(knowledge->log_id) == change->log_id.length &&
		memcmp(knowledge->log_id, change->log_id.at, change->log_id.length) == 0 &&
		knowledge->place == change->from;
}

static void tell(const struct knowledge *knowledge, struct device *device)
{
	if (knowledge->changed != NULL)
		knowledge->changed(device, knowledge->context);
}

/* End its session, whatever its state. */
static void cut(const struct knowledge *knowledge, struct device *device)
{
	enum state state = device->state;
	device->state = DISABLED;
	tell(knowledge, device);
	device->state = state;
}

/* A session lives under the address it came with, and of two devices with one address the latest has it. */
static void make_way(struct knowledge *knowledge, struct device *known, const struct entry *entry)
{
	struct text address = entry_address(entry);
	struct device *holder = address_holder(&knowledge->devices, address);
	if (known != NULL && !has_address(known, address))
		cut(knowledge, known);
	if (holder != NULL && holder != known) {
		cut(knowledge, holder);
		drop_address(&knowledge->devices, holder);
	}
}

static bool apply_entry(struct knowledge *knowledge, const struct entry *entry)
{
	struct device *known = device_find(&knowledge->devices, entry->id.at, entry->id.length);
	if (known == NULL && entry->state == REMOVED)
		return true;
	make_way(knowledge, known, entry);
	struct device *device = device_apply(&knowledge->devices, entry);
	if (device == NULL)
		return false;
	tell(knowledge, device);
	if (entry->state == REMOVED)
		device_remove(&knowledge->devices, device);
	return true;
}

/* Remove what the full sync has not named. */
static void sweep(struct knowledge *knowledge)
{
	struct device *device, *next;
	HASH_ITER(by_id, knowledge->devices.by_id, device, next)
	{
		if (device->sync == knowledge->devices.sync)
			continue;
		device->state = DISABLED;
		tell(knowledge, device);
		device_remove(&knowledge->devices, device);
	}
}

enum applied knowledge_apply(struct knowledge *knowledge, struct frame body, uint64_t *request)
{
	struct change change;
	bool whole = read_change(body, &change);
	*request = change.request;
	if (!whole)
		return APPLY_MALFORMED;
	if (!fits(knowledge, &change))
		return APPLY_GAP;
	if (change.flags & FIRST) {
		memcpy(knowledge->log_id, change.log_id.at, change.log_id.length);
		knowledge->log_id[change.log_id.length] = 0;
		knowledge->devices.sync++;
		knowledge->syncing = true;
	}
	for (uint32_t i = 0; i < change.count; i++) {
		struct entry entry;
		read_entry(&change.entries, &entry);
		if (!apply_entry(knowledge, &entry))
			return APPLY_FAILED;
	}
	knowledge->place = change.to;
	if (change.flags & LAST) {
		sweep(knowledge);
		knowledge->syncing = false;
	}
	return APPLY_DONE;
}

/* How many devices follow. */
static uint64_t load_place(struct knowledge *knowledge, struct reader reader)
{
	struct text log_id = read_text(&reader);
	uint64_t place = read_u64(&reader), devices = read_u64(&reader);
	if (reader.failed || log_id.length > LOG_ID_LIMIT)
		return UINT64_MAX;
	memcpy(knowledge->log_id, log_id.at, log_id.length);
	knowledge->log_id[log_id.length] = 0;
	knowledge->place = place;
	return devices;
}

/* `missing`: devices that the place stands for and that have not come yet. */
static void load_frame(struct knowledge *knowledge, struct frame frame, uint64_t *missing)
{
	struct reader reader = reader_over(frame.body, frame.length);
	struct entry entry;
	uint64_t request;
	switch (read_u8(&reader)) {
	case 'P':
		*missing = load_place(knowledge, reader);
		break;
	case 'E':
		if (read_entry(&reader, &entry) && apply_entry(knowledge, &entry) && *missing > 0)
			--*missing;
		break;
	case 'A':
		knowledge_apply(knowledge, frame, &request);
		break;
	default:
		break;
	}
}

/* How many bytes of the file are whole. */
static uint64_t load(int file, uint64_t size, struct knowledge *knowledge)
{
	void *data = size > 0 ? mmap(NULL, size, PROT_READ, MAP_PRIVATE, file, 0) : MAP_FAILED;
	if (data == MAP_FAILED)
		return 0;
	struct reader reader = reader_over(data, size);
	uint64_t whole = 0, missing = 0;
	for (struct frame frame; (frame = read_frame(&reader)).body != NULL;) {
		load_frame(knowledge, frame, &missing);
		whole = size - reader.left;
	}
	munmap(data, size);
	if (missing > 0)
		knowledge->log_id[0] = 0;
	return whole;
}

bool snapshot_open(struct snapshot *snapshot, const char *path, struct knowledge *knowledge)
{
	struct stat about;
	memset(snapshot, 0, sizeof *snapshot);
	snapshot->file = -1;
	if ((size_t)snprintf(snapshot->path, sizeof snapshot->path, "%s", path) >= sizeof snapshot->path)
		return false;
	snapshot->file = open(path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
	if (snapshot->file < 0 || fstat(snapshot->file, &about) != 0)
		return false;
	snapshot->size = load(snapshot->file, (uint64_t)about.st_size, knowledge);
	return ftruncate(snapshot->file, (off_t)snapshot->size) == 0;
}

static bool write_all(int file, const uint8_t *data, size_t length)
{
	while (length > 0) {
		ssize_t written = write(file, data, length);
		if (written <= 0)
			return false;
		data += written;
		length -= (size_t)written;
	}
	return true;
}

void snapshot_append(struct snapshot *snapshot, struct frame body)
{
	struct writer writer = {0};
	if (snapshot->behind)
		return;
	size_t mark = begin_frame(&writer, body.body[0]);
	write_bytes(&writer, body.body + 1, body.length - 1);
	end_frame(&writer, mark);
	bool written = !writer.failed && write_all(snapshot->file, writer.data, writer.length);
	if (written)
		snapshot->size += writer.length;
	else
		snapshot->behind = true;
	writer_free(&writer);
}

static bool write_whole(int file, const struct knowledge *knowledge, uint64_t *size)
{
	struct writer writer = {0};
	size_t mark = begin_frame(&writer, 'P');
	write_text(&writer, knowledge->log_id, strlen(knowledge->log_id));
	write_u64(&writer, knowledge->place);
	write_u64(&writer, HASH_CNT(by_id, knowledge->devices.by_id));
	end_frame(&writer, mark);
	for (struct device *device = knowledge->devices.by_id; device != NULL; device = device->by_id.next) {
		mark = begin_frame(&writer, 'E');
		write_entry(&writer, device);
		end_frame(&writer, mark);
	}
	*size = writer.length;
	bool written = !writer.failed && write_all(file, writer.data, writer.length);
	writer_free(&writer);
	return written;
}

bool snapshot_tidy(struct snapshot *snapshot, const struct knowledge *knowledge)
{
	char draft[sizeof snapshot->path + 4];
	bool grown = snapshot->size >= TIDY_FROM && snapshot->size >= snapshot->rewritten * TIDY_GROWTH;
	if (knowledge->syncing || !(grown || snapshot->behind))
		return true;
	snprintf(draft, sizeof draft, "%s.new", snapshot->path);
	int file = open(draft, O_RDWR | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0600);
	uint64_t size = 0;
	if (file < 0)
		return false;
	if (!write_whole(file, knowledge, &size) || rename(draft, snapshot->path) != 0) {
		close(file);
		unlink(draft);
		return false;
	}
	close(snapshot->file);
	snapshot->file = file;
	snapshot->size = snapshot->rewritten = size;
	snapshot->behind = false;
	return true;
}

void snapshot_close(struct snapshot *snapshot)
{
	if (snapshot->file >= 0)
		close(snapshot->file);
}
