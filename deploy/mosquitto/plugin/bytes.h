/* Reading and writing little-endian fields within bounds. */
#ifndef ZDM_BYTES_H
#define ZDM_BYTES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What is left to read. After a read beyond the end `failed` is set, and every read gives zero or nothing. */
struct reader {
	const uint8_t *at;
	size_t left;
	bool failed;
};

struct text {
	const char *at; /* not terminated */
	size_t length;
};

struct reader reader_over(const void *data, size_t length);
uint8_t read_u8(struct reader *reader);
uint16_t read_u16(struct reader *reader);
uint32_t read_u32(struct reader *reader);
uint64_t read_u64(struct reader *reader);
const uint8_t *read_bytes(struct reader *reader, size_t length);
/* u16 length and bytes; fails on a NUL inside, which no text of ours has. */
struct text read_text(struct reader *reader);

/* Grows as needed. `failed` is set when memory ran out; what follows is then ignored. */
struct writer {
	uint8_t *data;
	size_t length, room;
	bool failed;
};

void write_bytes(struct writer *writer, const void *data, size_t length);
void write_u8(struct writer *writer, uint8_t value);
void write_u16(struct writer *writer, uint16_t value);
void write_u32(struct writer *writer, uint32_t value);
void write_u64(struct writer *writer, uint64_t value);
void write_text(struct writer *writer, const char *text, size_t length);
void writer_free(struct writer *writer);

/* Fields in a place that is known to be large enough. */
void put_u16(uint8_t *at, uint16_t value);
void put_u32(uint8_t *at, uint32_t value);
void put_u64(uint8_t *at, uint64_t value);

#endif
