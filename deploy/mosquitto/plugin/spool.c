#include "spool.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <openssl/rand.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>
#include <zlib.h>

#include "frame.h"

/* A power cut may take what was not yet synced, numbers that were already read included; after a start none of those is
 * given again. More than can be written between two syncs. */
static const uint64_t SKIPPED_AT_START = 1000000;

enum { FIXED = 1 + 1 + 8 + 8 + 8 + 8, META_LIMIT = FRAME_HEADER + FIXED + 2 + 128 + 2 + 1024 };

static const char MAGIC[] = "ZDMSPOOL";
static const char SUFFIX[] = ".spool";

static bool path_in(const struct spool *spool, const char *name, char path[SPOOL_PATH])
{
	return (size_t)snprintf(path, SPOOL_PATH, "%s/%s", spool->folder, name) < SPOOL_PATH;
}

static bool is_segment(const char *name, uint64_t *first)
{
	char *end;
	if (strlen(name) != 16 + sizeof SUFFIX - 1 || strcmp(name + 16, SUFFIX) != 0)
		return false;
	*first = strtoull(name, &end, 16);
	return end == name + 16;
}

/* Sizes and number of the segments there are; the first number of the newest, or 0. */
static uint64_t survey(struct spool *spool)
{
	uint64_t newest = 0, first;
	spool->total = spool->segments = 0;
	DIR *folder = opendir(spool->folder);
	if (folder == NULL)
		return 0;
	for (struct dirent *entry; (entry = readdir(folder)) != NULL;) {
		struct stat about;
		if (!is_segment(entry->d_name, &first) || fstatat(dirfd(folder), entry->d_name, &about, 0) != 0)
			continue;
		spool->segments++;
		spool->total += (uint64_t)about.st_size;
		if (first >= newest)
			newest = first;
	}
	closedir(folder);
	return newest;
}

/* The number after the last whole record of a segment, and the newest time in it. */
static void scan(struct spool *spool, uint64_t first)
{
	char name[64], path[SPOOL_PATH];
	struct stat about;
	snprintf(name, sizeof name, "%016" PRIx64 "%s", first, SUFFIX);
	spool->next = first;
	int file = path_in(spool, name, path) ? open(path, O_RDONLY | O_CLOEXEC) : -1;
	if (file < 0)
		return;
	if (fstat(file, &about) == 0 && about.st_size > SEGMENT_HEADER) {
		void *data = mmap(NULL, (size_t)about.st_size, PROT_READ, MAP_PRIVATE, file, 0);
		if (data != MAP_FAILED) {
			struct reader reader =
				reader_over((uint8_t *)data + SEGMENT_HEADER, (size_t)about.st_size - SEGMENT_HEADER);
			for (struct frame frame; (frame = read_frame(&reader)).body != NULL;) {
				struct reader body = reader_over(frame.body, frame.length);
				read_u16(&body);
				uint64_t sequence = read_u64(&body), time = read_u64(&body);
				if (!body.failed && sequence >= spool->next)
					spool->next = sequence + 1;
				if (!body.failed && time > spool->newest_ms)
					spool->newest_ms = time;
			}
			munmap(data, (size_t)about.st_size);
		}
	}
	close(file);
}

static bool draw_id(struct spool *spool, const char *path)
{
	char draft[SPOOL_PATH];
	FILE *file = path_in(spool, "id.new", draft) ? fopen(draft, "w") : NULL;
	if (file == NULL)
		return false;
	bool written = RAND_bytes(spool->id, SPOOL_ID) == 1;
	for (int i = 0; i < SPOOL_ID; i++)
		fprintf(file, "%02x", spool->id[i]);
	fprintf(file, "\n");
	written = fflush(file) == 0 && fsync(fileno(file)) == 0 && written;
	return fclose(file) == 0 && written && rename(draft, path) == 0;
}

/* Numbers begin anew where no segment is left, and must not be taken for those that were given before. */
static bool take_id(struct spool *spool, bool anew)
{
	char path[SPOOL_PATH], text[2 * SPOOL_ID + 2] = {0};
	if (!path_in(spool, "id", path))
		return false;
	FILE *file = anew ? NULL : fopen(path, "r");
	if (file == NULL)
		return draw_id(spool, path);
	bool read = fread(text, 1, sizeof text - 1, file) >= 2 * SPOOL_ID;
	fclose(file);
	for (int i = 0; read && i < SPOOL_ID; i++) {
		unsigned byte;
		read = sscanf(text + (ptrdiff_t)2 * i, "%2x", &byte) == 1;
		spool->id[i] = (uint8_t)byte;
	}
	return read;
}

static int open_segment(struct spool *spool)
{
	char name[64], path[SPOOL_PATH];
	uint8_t header[SEGMENT_HEADER] = {0};
	snprintf(name, sizeof name, "%016" PRIx64 "%s", spool->next, SUFFIX);
	if (!path_in(spool, name, path))
		return -1;
	int file = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0600);
	if (file < 0)
		return -1;
	memcpy(header, MAGIC, 8);
	put_u16(header + 8, 1);
	put_u64(header + 16, spool->next);
	memcpy(header + 24, spool->id, SPOOL_ID);
	if (write(file, header, sizeof header) != sizeof header) {
		close(file);
		unlink(path);
		return -1;
	}
	return file;
}

static void sync_folder(const struct spool *spool)
{
	int folder = open(spool->folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (folder >= 0) {
		fsync(folder);
		close(folder);
	}
}

static void *keep_synced(void *argument)
{
	struct spool *spool = argument;
	pthread_mutex_lock(&spool->mutex);
	while (!spool->ending) {
		struct timespec until;
		clock_gettime(CLOCK_REALTIME, &until);
		until.tv_sec += spool->limits.sync_ms / 1000;
		until.tv_nsec += (long)(spool->limits.sync_ms % 1000) * 1000000;
		if (until.tv_nsec >= 1000000000) {
			until.tv_sec++;
			until.tv_nsec -= 1000000000;
		}
		pthread_cond_timedwait(&spool->wake, &spool->mutex, &until);
		int retired = spool->retired, file = spool->dirty && spool->file >= 0 ? dup(spool->file) : -1;
		spool->retired = -1;
		spool->dirty = false;
		pthread_mutex_unlock(&spool->mutex);
		if (retired >= 0) {
			fdatasync(retired);
			close(retired);
			sync_folder(spool);
		}
		if (file >= 0) {
			fdatasync(file);
			close(file);
		}
		pthread_mutex_lock(&spool->mutex);
	}
	pthread_mutex_unlock(&spool->mutex);
	return NULL;
}

/* Begin a new segment; the old one is handed to the thread. False when that cannot be: the old one stays. */
static bool rotate(struct spool *spool)
{
	int file = open_segment(spool);
	if (file < 0)
		return false;
	pthread_mutex_lock(&spool->mutex);
	int full = spool->file, waiting = spool->retired;
	spool->retired = full;
	spool->file = file;
	pthread_mutex_unlock(&spool->mutex);
	if (waiting >= 0) {
		fdatasync(waiting);
		close(waiting);
	}
	pthread_cond_signal(&spool->wake);
	spool->size = SEGMENT_HEADER;
	spool->total += SEGMENT_HEADER;
	spool->segments++;
	return true;
}

static uint64_t free_bytes(const struct spool *spool)
{
	struct statvfs about;
	return statvfs(spool->folder, &about) == 0 ? (uint64_t)about.f_bavail * about.f_frsize : 0;
}

void spool_look(struct spool *spool)
{
	survey(spool);
	spool->refusing = spool->total >= spool->limits.total_bytes || free_bytes(spool) < spool->limits.free_bytes;
}

static bool fail(char *error, size_t room, const char *what)
{
	snprintf(error, room, "%s: %s", what, strerror(errno));
	return false;
}

static bool begin(struct spool *spool, uint64_t newest, uint64_t now_ms)
{
	spool->next = 1;
	if (newest > 0) {
		scan(spool, newest);
		spool->next += SKIPPED_AT_START;
	}
	spool->file = open_segment(spool);
	if (spool->file < 0)
		return false;
	sync_folder(spool);
	spool->size = SEGMENT_HEADER;
	spool_look(spool);
	spool->boot = spool->next;
	struct record started = {.kind = RECORD_STARTED, .time_ms = now_ms, .device = {"", 0}, .detail = {"", 0}};
	bool refusing = spool->refusing;
	uint64_t sequence;
	spool->refusing = false; /* this one is written while there is any room at all */
	bool written = spool_append(spool, &started, &sequence);
	spool->refusing = refusing;
	return written;
}

bool spool_open(
	struct spool *spool, const char *folder, struct spool_limits limits, uint64_t now_ms, char *error, size_t room)
{
	char path[SPOOL_PATH];
	memset(spool, 0, sizeof *spool);
	spool->limits = limits;
	spool->lock = spool->file = spool->retired = -1;
	pthread_mutex_init(&spool->mutex, NULL);
	pthread_cond_init(&spool->wake, NULL);
	if ((size_t)snprintf(spool->folder, SPOOL_PATH, "%s", folder) >= SPOOL_PATH)
		return fail(error, room, "spool folder's name is too long");
	if (mkdir(folder, 0700) != 0 && errno != EEXIST)
		return fail(error, room, "cannot make the spool folder");
	spool->lock = path_in(spool, "writer.lock", path) ? open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600) : -1;
	if (spool->lock < 0 || flock(spool->lock, LOCK_EX | LOCK_NB) != 0)
		return fail(error, room, "another broker writes to this spool");
	uint64_t newest = survey(spool);
	if (!take_id(spool, newest == 0))
		return fail(error, room, "cannot read or make the spool's id");
	if (!begin(spool, newest, now_ms))
		return fail(error, room, "cannot begin a segment");
	if (pthread_create(&spool->syncer, NULL, keep_synced, spool) != 0)
		return fail(error, room, "cannot start the thread that syncs");
	spool->started = true;
	return true;
}

/* Frame header and everything of the body but the payload, into `meta`; its length, or 0 when it does not fit. */
static size_t lay_out(const struct spool *spool, const struct record *record, uint8_t meta[META_LIMIT])
{
	size_t length = FRAME_HEADER + FIXED + 2 + record->device.length + 2 + record->detail.length;
	if (length > META_LIMIT || record->payload_length > FRAME_LIMIT - length)
		return 0;
	uint8_t *at = meta + FRAME_HEADER;
	*at++ = (uint8_t)record->kind;
	*at++ = record->flags;
	put_u64(at, spool->next);
	put_u64(at + 8, record->time_ms);
	put_u64(at + 16, spool->boot);
	put_u64(at + 24, record->kind == RECORD_CONNECTED ? spool->next : record->session);
	at += 32;
	put_u16(at, (uint16_t)record->device.length);
	memcpy(at + 2, record->device.at, record->device.length);
	at += 2 + record->device.length;
	put_u16(at, (uint16_t)record->detail.length);
	memcpy(at + 2, record->detail.at, record->detail.length);
	uLong crc = crc32(0, meta + FRAME_HEADER, (uInt)(length - FRAME_HEADER));
	if (record->payload_length > 0)
		crc = crc32(crc, record->payload, (uInt)record->payload_length);
	put_u32(meta, (uint32_t)(length - FRAME_HEADER + record->payload_length));
	put_u32(meta + 4, (uint32_t)crc);
	return length;
}

bool spool_append(struct spool *spool, const struct record *record, uint64_t *sequence)
{
	uint8_t meta[META_LIMIT];
	size_t meta_length = lay_out(spool, record, meta), length = meta_length + record->payload_length;
	if (meta_length == 0 || spool->refusing || spool->total + length > spool->limits.total_bytes)
		return false;
	if (spool->size + length > spool->limits.segment_bytes && spool->size > SEGMENT_HEADER && !rotate(spool))
		return false;
	struct iovec pieces[2] = {
		{.iov_base = meta, .iov_len = meta_length},
		{.iov_base = NULL, .iov_len = record->payload_length},
	};
	memcpy(&pieces[1].iov_base, &record->payload, sizeof(void *)); /* writev only reads */
	ssize_t written = writev(spool->file, pieces, record->payload_length > 0 ? 2 : 1);
	if (written != (ssize_t)length) {
		/* Part of a record would be taken for damage: back to the last good end, or nothing more into this segment. */
		if (written > 0 && ftruncate(spool->file, (off_t)spool->size) != 0)
			spool->size = spool->limits.segment_bytes;
		return false;
	}
	spool->size += length;
	spool->total += length;
	*sequence = spool->next++;
	pthread_mutex_lock(&spool->mutex);
	spool->dirty = true;
	pthread_mutex_unlock(&spool->mutex);
	return true;
}

void spool_close(struct spool *spool)
{
	if (spool->started) {
		pthread_mutex_lock(&spool->mutex);
		spool->ending = true;
		pthread_cond_signal(&spool->wake);
		pthread_mutex_unlock(&spool->mutex);
		pthread_join(spool->syncer, NULL);
	}
	if (spool->retired >= 0)
		close(spool->retired);
	if (spool->file >= 0) {
		fdatasync(spool->file);
		close(spool->file);
	}
	if (spool->lock >= 0)
		close(spool->lock);
	pthread_mutex_destroy(&spool->mutex);
	pthread_cond_destroy(&spool->wake);
}
