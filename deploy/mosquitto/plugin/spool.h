/* The spool: what happened, in order, on disk before it is acknowledged (docs/protocols.md 2). */
#ifndef ZDM_SPOOL_H
#define ZDM_SPOOL_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "bytes.h"

enum { SPOOL_ID = 8, SEGMENT_HEADER = 32, SPOOL_PATH = 4096 };

enum record_kind {
	RECORD_PUBLISH = 1,
	RECORD_CONNECTED = 2,
	RECORD_DISCONNECTED = 3,
	RECORD_STARTED = 4,
	RECORD_HANDED = 5,
};

struct record {
	enum record_kind kind;
	uint8_t flags;
	uint64_t time_ms, session;
	struct text device, detail;
	const void *payload;
	size_t payload_length;
};

struct spool_limits {
	uint64_t segment_bytes, total_bytes, free_bytes;
	unsigned sync_ms;
};

struct spool {
	char folder[SPOOL_PATH];
	struct spool_limits limits;
	uint8_t id[SPOOL_ID];
	uint64_t next, boot, newest_ms;
	int lock, file;
	uint64_t size, total, segments;
	bool refusing; /* beyond the limits, as of the last look */
	/* The thread that syncs; `dirty` and `retired` are shared with it. */
	pthread_t syncer;
	pthread_mutex_t mutex;
	pthread_cond_t wake;
	bool dirty, ending, started;
	int retired; /* a full segment still to be synced and closed; -1 for none */
};

/* Take the folder, go on numbering after what is there, begin a segment, write `broker started`. False: `error` says why. */
bool spool_open(
	struct spool *spool, const char *folder, struct spool_limits limits, uint64_t now_ms, char *error, size_t room);
/* False when it was not written: nothing of it is then in the file. `sequence` is its number when it was. */
bool spool_append(struct spool *spool, const struct record *record, uint64_t *sequence);
/* Look at the disk and at what has been read and deleted. Once a second. */
void spool_look(struct spool *spool);
void spool_close(struct spool *spool);

#endif
