#include "bytes.h"

#include <stdlib.h>
#include <string.h>

struct reader reader_over(const void *data, size_t length)
{
	struct reader reader = {data, length, false};
	return reader;
}

const uint8_t *read_bytes(struct reader *reader, size_t length)
{
	if (reader->failed || length > reader->left) {
		reader->failed = true;
		return NULL;
	}
	const uint8_t *at = reader->at;
	reader->at += length;
	reader->left -= length;
	return at;
}

static uint64_t read_number(struct reader *reader, size_t size)
{
	const uint8_t *at = read_bytes(reader, size);
	uint64_t value = 0;
	if (at != NULL)
		for (size_t i = 0; i < size; i++)
			value |= (uint64_t)at[i] << (8 * i);
	return value;
}

uint8_t read_u8(struct reader *reader)
{
	return (uint8_t)read_number(reader, 1);
}

uint16_t read_u16(struct reader *reader)
{
	return (uint16_t)read_number(reader, 2);
}

uint32_t read_u32(struct reader *reader)
{
	return (uint32_t)read_number(reader, 4);
}

uint64_t read_u64(struct reader *reader)
{
	return read_number(reader, 8);
}

struct text read_text(struct reader *reader)
{
	struct text text = {"", 0};
	size_t length = read_u16(reader);
	const uint8_t *at = read_bytes(reader, length);
	if (at == NULL)
		return text;
	if (length > 0 && memchr(at, 0, length) != NULL) {
		reader->failed = true;
		return text;
	}
	text.at = (const char *)at;
	text.length = length;
	return text;
}

void write_bytes(struct writer *writer, const void *data, size_t length)
{
	if (writer->failed || length == 0)
		return;
	if (writer->length + length > writer->room) {
		size_t room = (writer->length + length) * 2;
		uint8_t *grown = realloc(writer->data, room);
		if (grown == NULL) {
			writer->failed = true;
			return;
		}
		writer->data = grown;
		writer->room = room;
	}
	memcpy(writer->data + writer->length, data, length);
	writer->length += length;
}

void put_u16(uint8_t *at, uint16_t value)
{
	at[0] = (uint8_t)value;
	at[1] = (uint8_t)(value >> 8);
}

void put_u32(uint8_t *at, uint32_t value)
{
	put_u16(at, (uint16_t)value);
	put_u16(at + 2, (uint16_t)(value >> 16));
}

void put_u64(uint8_t *at, uint64_t value)
{
	put_u32(at, (uint32_t)value);
	put_u32(at + 4, (uint32_t)(value >> 32));
}

void write_u8(struct writer *writer, uint8_t value)
{
	write_bytes(writer, &value, 1);
}

void write_u16(struct writer *writer, uint16_t value)
{
	uint8_t bytes[2];
	put_u16(bytes, value);
	write_bytes(writer, bytes, sizeof bytes);
}

void write_u32(struct writer *writer, uint32_t value)
{
	uint8_t bytes[4];
	put_u32(bytes, value);
	write_bytes(writer, bytes, sizeof bytes);
}

void write_u64(struct writer *writer, uint64_t value)
{
	uint8_t bytes[8];
	put_u64(bytes, value);
	write_bytes(writer, bytes, sizeof bytes);
}

void write_text(struct writer *writer, const char *text, size_t length)
{
	write_u16(writer, (uint16_t)length);
	write_bytes(writer, text, length);
}

void writer_free(struct writer *writer)
{
	free(writer->data);
	memset(writer, 0, sizeof *writer);
}
