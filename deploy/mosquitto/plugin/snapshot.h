/* What the broker knows, and the file that keeps it over a restart (docs/protocols.md 3 and 4). */
#ifndef ZDM_SNAPSHOT_H
#define ZDM_SNAPSHOT_H

#include "devices.h"
#include "frame.h"

enum { LOG_ID_LIMIT = 64 };

enum applied { APPLY_DONE = 0, APPLY_GAP = 1, APPLY_MALFORMED = 2, APPLY_FAILED = 3 };

struct knowledge {
	struct devices devices;
	char log_id[LOG_ID_LIMIT + 1]; /* empty: a full sync is needed */
	uint64_t place;
	bool syncing; /* a full sync has begun and not ended */
	/* Called when a device's entry has changed, before it is removed if it is: its session may no longer stand. */
	void (*changed)(struct device *device, void *context);
	void *context;
};

/* Apply the body of an `A` frame. Anything but APPLY_DONE has changed nothing, save APPLY_FAILED (no memory). */
enum applied knowledge_apply(struct knowledge *knowledge, struct frame body, uint64_t *request);

struct snapshot {
	char path[4096];
	int file;
	uint64_t size, rewritten;
	bool behind; /* a change could not be written: nothing more is, until all of it can be */
};

/* Read the file, as far as it is whole, into `knowledge`, and be ready to append. Where devices are missing from it, those
 * that are there count, and the log id is left empty: a full sync is needed. */
bool snapshot_open(struct snapshot *snapshot, const char *path, struct knowledge *knowledge);
/* Append an `A` frame that was applied. Where that fails the file is an older state, and `behind` is set. */
void snapshot_append(struct snapshot *snapshot, struct frame body);
/* Write it anew when it has grown well past what is live, or is behind. Call now and then. */
bool snapshot_tidy(struct snapshot *snapshot, const struct knowledge *knowledge);
void snapshot_close(struct snapshot *snapshot);

#endif
