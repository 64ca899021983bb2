#include "frame.h"

#include <zlib.h>

struct frame read_frame(struct reader *reader)
{
	struct frame none = {NULL, 0};
	if (reader->failed || reader->left == 0)
		return none;
	struct reader ahead = *reader;
	uint32_t length = read_u32(&ahead), crc = read_u32(&ahead);
	const uint8_t *body = read_bytes(&ahead, length);
	if (ahead.failed || length == 0 || length > FRAME_LIMIT || crc32(0, body, length) != crc) {
		reader->failed = true;
		return none;
	}
	*reader = ahead;
	return (struct frame){body, length};
}

size_t begin_frame(struct writer *writer, uint8_t kind)
{
	size_t mark = writer->length;
	write_u64(writer, 0);
	write_u8(writer, kind);
	return mark;
}

void end_frame(struct writer *writer, size_t mark)
{
	if (writer->failed)
		return;
	uint32_t length = (uint32_t)(writer->length - mark - FRAME_HEADER);
	put_u32(writer->data + mark, length);
	put_u32(writer->data + mark + 4, (uint32_t)crc32(0, writer->data + mark + FRAME_HEADER, length));
}
