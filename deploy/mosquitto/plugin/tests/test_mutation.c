/* Good input, spoiled: cut, spliced, repeated, with bits, bytes and lengths changed, and half of the time sealed again so
 * that it gets past the checksum. Always the same sequence; ZDM_MUTATIONS: how many of each kind (30,000). */
#include <fcntl.h>
#include <sys/stat.h>

#include "control.h"
#include "counters.h"
#include "given.h"
#include "jwt.h"
#include "token.h"

enum { SEEDS = 64, INPUT_LIMIT = 65536 };

static uint64_t state = UINT64_C(0x9e3779b97f4a7c15);
static long rounds = 30000;

static struct {
	uint8_t *data;
	size_t length;
} seeds[SEEDS];
static size_t seed_count;

static uint32_t any(uint32_t below)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return (uint32_t)(state >> 32) % below;
}

static void add_seed(struct writer *writer)
{
	CHECK(seed_count < SEEDS && !writer->failed);
	seeds[seed_count].data = writer->data;
	seeds[seed_count++].length = writer->length;
	memset(writer, 0, sizeof *writer);
}

static void drop_seeds(void)
{
	while (seed_count > 0)
		free(seeds[--seed_count].data);
}

/* A part of a seed goes over or between what is there. */
static size_t insert_part(uint8_t *data, size_t length)
{
	size_t from = any((uint32_t)seed_count), at = any((uint32_t)length + 1);
	size_t begin = any((uint32_t)seeds[from].length), size = any((uint32_t)(seeds[from].length - begin) + 1);
	if (at + size > INPUT_LIMIT)
		return length;
	if (any(2) == 0 && length + size <= INPUT_LIMIT) {
		memmove(data + at + size, data + at, length - at);
		length += size;
	}
	memcpy(data + at, seeds[from].data + begin, size);
	return at + size > length ? at + size : length;
}

static size_t spoil_once(uint8_t *data, size_t length)
{
	static const uint32_t edges[] = {0, 1, 2, 127, 128, 255, 256, 32767, 65535, 65536, 0x7fffffff, 0x80000000, UINT32_MAX};
	size_t at = length == 0 ? 0 : any((uint32_t)length), size;
	uint32_t edge = edges[any(sizeof edges / sizeof *edges)];
	switch (length == 0 ? 5 : any(6)) {
	case 0:
		data[at] ^= (uint8_t)(1u << any(8));
		return length;
	case 1:
		data[at] = (uint8_t)any(256);
		return length;
	case 2:
		size = (size_t)1 << any(3);
		for (size_t i = 0; i < size && at + i < length; i++)
			data[at + i] = (uint8_t)(edge >> 8 * i);
		return length;
	case 3:
		return at;
	case 4:
		size = any((uint32_t)(length - at)) + 1;
		memmove(data + at, data + at + size, length - at - size);
		return length - size;
	default:
		return insert_part(data, length);
	}
}

/* Lengths and checksums of the frames as if they had been meant so. */
static void seal(uint8_t *data, size_t length)
{
	for (size_t at = 0; length - at > FRAME_HEADER;) {
		struct reader reader = reader_over(data + at, length - at);
		size_t body = read_u32(&reader), rest = length - at - FRAME_HEADER;
		if (body == 0 || body > rest)
			body = rest;
		struct writer frame = {0};
		size_t mark = begin_frame(&frame, data[at + FRAME_HEADER]);
		write_bytes(&frame, data + at + FRAME_HEADER + 1, body - 1);
		end_frame(&frame, mark);
		memcpy(data + at, frame.data, frame.length);
		at += frame.length;
		writer_free(&frame);
	}
}

/* The next spoiled input, in a block of exactly its size, so that a read beyond it is seen. */
static uint8_t *next_input(size_t *length, bool framed)
{
	static uint8_t data[INPUT_LIMIT];
	size_t from = any((uint32_t)seed_count);
	*length = seeds[from].length;
	memcpy(data, seeds[from].data, *length);
	for (uint32_t times = any(8); times > 0; times--)
		*length = spoil_once(data, *length);
	if (framed && any(2) == 0)
		seal(data, *length);
	uint8_t *input = malloc(*length + (*length == 0));
	CHECK(input != NULL);
	return memcpy(input, data, *length);
}

/* Control topic and snapshot */

static void seed_down(struct writer *writer, bool timed)
{
	if (timed)
		write_u64(writer, 3);
	write_text(writer, "down", 4);
	write_text(writer, "dev-1", 5);
	write_u32(writer, 7);
	write_bytes(writer, "payload", 7);
}

static void seed_move(struct writer *writer)
{
	write_text(writer, "dev-1", 5);
	write_u64(writer, 3);
}

static void seed_frames(void)
{
	static const struct given_key key = {7, KEY_HS256, "secret", 6}, other = {UINT32_MAX, KEY_ES256, "public", 6};
	const struct given entries[] = {
		{.state = ACTIVE, .id = "dev-1", .keys = {key, other}, .keys_count = 2, .certificates = "ab"},
		{.state = ACTIVE, .id = "dev-2", .address = "sn1", .certificates = "c"},
		{.state = DISABLED, .id = "dev-3", .address = "dev-1"},
		{.state = REMOVED, .id = "dev-1"},
		{.state = ACTIVE, .id = "sn1", .keys = {key}, .keys_count = 1},
		{.state = ACTIVE, .id = "dev-3", .address = "sn1"},
	};
	struct writer writer = {0};
	for (uint8_t flags = 0; flags < 4; flags++)
		for (uint32_t count = 0; count <= 6; count += 2) {
			give_apply(&writer, (struct span){"log", 1, 1, flags}, entries, count);
			add_seed(&writer);
			give_apply(&writer, (struct span){"log", 1, 1, flags}, entries + 6 - count, count);
			add_seed(&writer);
		}
	for (int i = 0; i < 6; i++) {
		size_t mark = begin_frame(&writer, 'E');
		give_entry(&writer, &entries[i]);
		end_frame(&writer, mark);
	}
	size_t mark = begin_frame(&writer, 'P');
	write_text(&writer, "log", 3);
	write_u64(&writer, 1);
	write_u64(&writer, 3);
	end_frame(&writer, mark);
	add_seed(&writer);
	mark = begin_frame(&writer, 'H');
	write_u64(&writer, 1);
	end_frame(&writer, mark);
	for (const char *kind = "STM"; *kind != 0; kind++) {
		mark = begin_frame(&writer, (uint8_t)*kind);
		write_u64(&writer, 2);
		write_u32(&writer, 2);
		for (int i = 0; i < 2; i++)
			*kind == 'M' ? seed_move(&writer) : seed_down(&writer, *kind == 'T');
		end_frame(&writer, mark);
		add_seed(&writer);
	}
}

static enum sent hand_over(const struct down *down, void *context)
{
	/* Every byte of it can be read. */
	volatile uint8_t sum = 0;
	for (size_t i = 0; i < down->id.length; i++)
		sum = (uint8_t)(sum + down->id.at[i]);
	for (size_t i = 0; i < down->device.length; i++)
		sum = (uint8_t)(sum + down->device.at[i]);
	for (size_t i = 0; i < down->payload_length; i++)
		sum = (uint8_t)(sum + down->payload[i]);
	return SEND_DONE;
}

static void moved(struct text device, uint64_t time_ms, void *context)
{
	volatile uint8_t sum = (uint8_t)time_ms;
	for (size_t i = 0; i < device.length; i++)
		sum = (uint8_t)(sum + device.at[i]);
}

/* Both tables hold the same devices, and each is written and read as itself. */
static void check_knowledge(const struct knowledge *knowledge)
{
	size_t own = 0;
	for (struct device *device = knowledge->devices.by_id; device != NULL; device = device->by_id.next) {
		struct writer writer = {0};
		struct entry entry;
		CHECK(find(knowledge, device->id) == device);
		struct device *found = at(knowledge, device->address);
		bool has_own = strcmp(device->address, device->id) != 0;
		CHECK(found == device || (has_own && found != NULL && strcmp(found->id, device->address) == 0));
		own += has_own;
		write_entry(&writer, device);
		struct reader reader = reader_over(writer.data, writer.length);
		CHECK(read_entry(&reader, &entry) && reader.left == 0);
		writer_free(&writer);
	}
	CHECK(HASH_CNT(by_address, knowledge->devices.by_address) == own);
}

static void check_answers(const struct writer *answer)
{
	struct reader reader = reader_over(answer->data, answer->length);
	for (struct frame frame; (frame = read_frame(&reader)).body != NULL;)
		CHECK(frame.body[0] == 'h' || frame.body[0] == 'a' || frame.body[0] == 's');
	CHECK(!answer->failed && reader.left == 0);
}

static void the_control_topic_takes_anything(void)
{
	struct knowledge knowledge = {0};
	struct control control = {&knowledge, NULL, hand_over, moved, NULL};
	uint64_t applied = 0;
	seed_frames();
	for (long i = 0; i < rounds; i++) {
		size_t length;
		uint8_t *input = next_input(&length, true);
		struct writer answer = {0};
		struct device *before = knowledge.devices.by_id;
		control_handle(&control, input, length, &answer);
		applied += before != knowledge.devices.by_id;
		check_answers(&answer);
		check_knowledge(&knowledge);
		writer_free(&answer);
		free(input);
		if (HASH_CNT(by_id, knowledge.devices.by_id) > 50)
			devices_free(&knowledge.devices);
	}
	CHECK(applied > (uint64_t)rounds / 100); /* not all of it is refused at the door */
	devices_free(&knowledge.devices);
	drop_seeds();
}

static void a_snapshot_is_read_whatever_is_in_it(void)
{
	char path[PATH_MAX + 32];
	snprintf(path, sizeof path, "%s/devices.snapshot", fresh_folder());
	seed_frames();
	for (long i = 0; i < rounds / 5; i++) {
		struct knowledge knowledge = {0}, again = {0};
		struct snapshot snapshot;
		struct stat about;
		size_t length;
		uint8_t *input = next_input(&length, true);
		int file = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
		CHECK(file >= 0 && write(file, input, length) == (ssize_t)length && close(file) == 0);
		CHECK(snapshot_open(&snapshot, path, &knowledge));
		snapshot_close(&snapshot);
		check_knowledge(&knowledge);
		CHECK(stat(path, &about) == 0 && (size_t)about.st_size <= length);
		/* What was cut off was of no use: a second reading says the same. */
		CHECK(snapshot_open(&snapshot, path, &again) && (off_t)snapshot.size == about.st_size);
		CHECK(again.place == knowledge.place && strcmp(again.log_id, knowledge.log_id) == 0);
		CHECK(HASH_CNT(by_id, again.devices.by_id) == HASH_CNT(by_id, knowledge.devices.by_id));
		snapshot_close(&snapshot);
		devices_free(&knowledge.devices);
		devices_free(&again.devices);
		free(input);
	}
	drop_seeds();
}

/* Tokens */

static char good[2][JWT_ROOM];

static void seed_tokens(struct devices *devices)
{
	static const char *const headers[] = {"{\"alg\":\"HS256\"}", "{\"alg\":\"ES256\",\"typ\":\"JWT\"}"};
	static const char *const claims[] = {"{\"sub\":\"dev-1\",\"key\":0,\"exp\":1700003600}",
		"{\"sub\":\"dev-1\",\"key\":1,\"user\":\"dev-1\",\"exp\":1700003600}"};
	EVP_PKEY *pair = EVP_EC_gen("P-256");
	uint8_t der[1024];
	struct given given = {.state = ACTIVE, .id = "dev-1", .keys_count = 2,
		.keys = {{0, KEY_HS256, "secret", 6}, {1, KEY_ES256, der, public_der(pair, der)}}};
	struct writer writer = {0};
	struct entry entry;
	give_entry(&writer, &given);
	struct reader reader = reader_over(writer.data, writer.length);
	CHECK(read_entry(&reader, &entry) && device_apply(devices, &entry) != NULL);
	writer_free(&writer);
	for (int i = 0; i < 2; i++) {
		jwt_begin(good[i], headers[i], strlen(headers[i]), claims[i], strlen(claims[i]));
		if (i == 0)
			sign_hs256(good[i], "secret", 6);
		else
			sign_es256(good[i], pair);
		write_bytes(&writer, good[i], strlen(good[i]));
		add_seed(&writer);
		write_bytes(&writer, claims[i], strlen(claims[i]));
		add_seed(&writer);
	}
	EVP_PKEY_free(pair);
}

/* Half of them have spoiled claims that were signed for real. */
static void signed_anew(char token[JWT_ROOM], const uint8_t *claims, size_t length)
{
	jwt_begin(token, "{\"alg\":\"HS256\"}", 15, (const char *)claims, length < 3000 ? length : 3000);
	sign_hs256(token, "secret", 6);
}

static void no_spoiled_token_lets_in(void)
{
	struct devices devices = {0};
	char token[JWT_ROOM];
	seed_tokens(&devices);
	const struct device *device = device_find(&devices, "dev-1", 5);
	for (long i = 0; i < rounds; i++) {
		uint32_t key;
		size_t length;
		uint8_t *input = next_input(&length, false);
		bool real = any(2) == 0;
		if (real)
			signed_anew(token, input, length);
		else
			snprintf(token, sizeof token, "%.*s", (int)length, (const char *)input);
		enum token_verdict verdict = token_check(token, device, 1700000000, &key);
		CHECK(real || verdict != TOKEN_GOOD || strcmp(token, good[0]) == 0 || strcmp(token, good[1]) == 0);
		free(input);
	}
	devices_free(&devices);
	drop_seeds();
}

int main(void)
{
	const char *wanted = getenv("ZDM_MUTATIONS");
	if (wanted != NULL)
		rounds = atol(wanted);
	RUN(the_control_topic_takes_anything);
	RUN(a_snapshot_is_read_whatever_is_in_it);
	RUN(no_spoiled_token_lets_in);
	return check_done("mutations");
}
