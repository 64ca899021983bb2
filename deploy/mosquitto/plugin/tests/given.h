/* Entries and frames as provisioning writes them. */
#ifndef ZDM_GIVEN_H
#define ZDM_GIVEN_H

#include "frame.h"
#include "snapshot.h"

enum { FIRST = 1, LAST = 2 };

struct given_key {
	uint32_t id;
	uint8_t type;
	const void *bytes;
	size_t length;
};

struct given {
	uint8_t state;
	const char *id, *address;
	struct given_key keys[4];
	uint8_t keys_count;
	const char *certificates; /* a fingerprint for each character, made of it alone */
};

static inline void fingerprint(char letter, uint8_t out[FINGERPRINT])
{
	memset(out, letter, FINGERPRINT);
}

static inline void give_text(struct writer *writer, const char *text)
{
	write_text(writer, text == NULL ? "" : text, text == NULL ? 0 : strlen(text));
}

static inline void give_entry(struct writer *writer, const struct given *given)
{
	const char *certificates = given->certificates == NULL ? "" : given->certificates;
	uint8_t print[FINGERPRINT];
	write_u8(writer, given->state);
	give_text(writer, given->id);
	give_text(writer, given->address);
	write_u8(writer, given->keys_count);
	for (int i = 0; i < given->keys_count; i++) {
		write_u32(writer, given->keys[i].id);
		write_u8(writer, given->keys[i].type);
		write_u16(writer, (uint16_t)given->keys[i].length);
		write_bytes(writer, given->keys[i].bytes, given->keys[i].length);
	}
	write_u8(writer, (uint8_t)strlen(certificates));
	for (; *certificates != 0; certificates++) {
		fingerprint(*certificates, print);
		write_bytes(writer, print, sizeof print);
	}
}

struct span {
	const char *log_id;
	uint64_t from, to;
	uint8_t flags;
};

/* An `A` frame, whole. */
static inline void give_apply(struct writer *writer, struct span span, const struct given *entries, uint32_t count)
{
	size_t mark = begin_frame(writer, 'A');
	write_u64(writer, 77);
	give_text(writer, span.log_id);
	write_u64(writer, span.from);
	write_u64(writer, span.to);
	write_u8(writer, span.flags);
	write_u32(writer, count);
	for (uint32_t i = 0; i < count; i++)
		give_entry(writer, &entries[i]);
	end_frame(writer, mark);
}

static inline struct frame body_of(const struct writer *writer)
{
	return (struct frame){writer->data + FRAME_HEADER, writer->length - FRAME_HEADER};
}

/* Applied to `knowledge`, and to `snapshot` if there is one. */
static inline enum applied apply(struct knowledge *knowledge, struct snapshot *snapshot, struct span span,
	const struct given *entries, uint32_t count)
{
	struct writer writer = {0};
	uint64_t request = 0;
	give_apply(&writer, span, entries, count);
	enum applied applied = knowledge_apply(knowledge, body_of(&writer), &request);
	if (applied == APPLY_DONE && snapshot != NULL)
		snapshot_append(snapshot, body_of(&writer));
	writer_free(&writer);
	return request == 77 ? applied : APPLY_FAILED;
}

static inline struct device *find(const struct knowledge *knowledge, const char *id)
{
	return device_find(&knowledge->devices, id, strlen(id));
}

static inline struct device *at(const struct knowledge *knowledge, const char *address)
{
	return device_at(&knowledge->devices, address, strlen(address));
}

#endif
