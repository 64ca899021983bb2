/* What our services ask of the plugin on the control topic (docs/protocols.md 3). */
#ifndef ZDM_CONTROL_H
#define ZDM_CONTROL_H

#include "snapshot.h"

enum sent { SEND_DONE = 0, SEND_MALFORMED = 2, SEND_FAILED = 3, SEND_SPOOL_REFUSES = 4 };

struct down {
	struct text id, device;
	const uint8_t *payload;
	uint32_t payload_length;
	uint64_t began_by_ms; /* it is for a session that began then or before */
};

struct control {
	struct knowledge *knowledge;
	struct snapshot *snapshot; /* NULL: nothing is kept (tests) */
	/* Hand one message over and note in the spool what became of it. */
	enum sent (*hand_over)(const struct down *down, void *context);
	/* The device has connected to another broker: end its session here, unless that began at that time or later. */
	void (*moved)(struct text device, uint64_t time_ms, void *context);
	void *context;
};

/* Do what the frames of one publish ask; the answers, a frame for each, go into `answer`. */
void control_handle(struct control *control, const void *payload, size_t length, struct writer *answer);

#endif
