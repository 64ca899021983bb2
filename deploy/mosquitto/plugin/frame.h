/* The framing of spool, snapshot and control topic: u32 length, u32 CRC-32, body (docs/protocols.md 1). */
#ifndef ZDM_FRAME_H
#define ZDM_FRAME_H

#include "bytes.h"

enum { FRAME_HEADER = 8, FRAME_LIMIT = 16 * 1024 * 1024 };

/* The next frame's body, taken out of `reader`; NULL body at the end, or, with `reader->failed`, where it is torn. */
struct frame {
	const uint8_t *body;
	size_t length;
};

struct frame read_frame(struct reader *reader);

/* Begin a frame in `writer`; the body is what is written until `end_frame` is given the mark. */
size_t begin_frame(struct writer *writer, uint8_t kind);
void end_frame(struct writer *writer, size_t mark);

#endif
