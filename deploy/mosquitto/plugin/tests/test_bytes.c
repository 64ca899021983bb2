#include "bytes.h"
#include "check.h"
#include "frame.h"

static void numbers_come_back_in_little_endian_order(void)
{
	struct writer writer = {0};
	write_u8(&writer, 0xfe);
	write_u16(&writer, 0x1234);
	write_u32(&writer, 0x89abcdef);
	write_u64(&writer, UINT64_C(0xfedcba9876543210));
	CHECK(writer.length == 15 && writer.data[1] == 0x34 && writer.data[3] == 0xef && writer.data[14] == 0xfe);
	struct reader reader = reader_over(writer.data, writer.length);
	CHECK(read_u8(&reader) == 0xfe && read_u16(&reader) == 0x1234 && read_u32(&reader) == 0x89abcdef);
	CHECK(read_u64(&reader) == UINT64_C(0xfedcba9876543210) && reader.left == 0 && !reader.failed);
	writer_free(&writer);
}

static void a_read_beyond_the_end_fails_and_so_does_all_after_it(void)
{
	const uint8_t three[3] = {1, 2, 3};
	struct reader reader = reader_over(three, sizeof three);
	CHECK(read_u32(&reader) == 0 && reader.failed);
	CHECK(read_u8(&reader) == 0 && read_bytes(&reader, 0) == NULL && read_text(&reader).length == 0);
	reader = reader_over(three, sizeof three);
	CHECK(read_bytes(&reader, SIZE_MAX) == NULL && reader.failed);
	reader = reader_over(NULL, 0);
	CHECK(read_u8(&reader) == 0 && reader.failed);
}

static void texts_are_taken_whole_and_without_nul(void)
{
	struct writer writer = {0};
	write_text(&writer, "dev", 3);
	write_text(&writer, "", 0);
	write_text(&writer, "a\0b", 3);
	struct reader reader = reader_over(writer.data, writer.length);
	struct text text = read_text(&reader);
	CHECK(text.length == 3 && memcmp(text.at, "dev", 3) == 0);
	CHECK(read_text(&reader).length == 0 && !reader.failed);
	CHECK(read_text(&reader).length == 0 && reader.failed);
	for (size_t cut = 0; cut < 5; cut++) {
		reader = reader_over(writer.data, cut);
		CHECK(read_text(&reader).length == 0 && reader.failed);
	}
	writer_free(&writer);
}

static void a_writer_grows_and_can_be_used_again(void)
{
	struct writer writer = {0};
	for (uint32_t i = 0; i < 100000; i++)
		write_u32(&writer, i);
	CHECK(!writer.failed && writer.length == 400000);
	struct reader reader = reader_over(writer.data + 4 * 99999, 4);
	CHECK(read_u32(&reader) == 99999);
	writer_free(&writer);
	write_u8(&writer, 1);
	CHECK(writer.length == 1);
	writer_free(&writer);
}

static void a_frame_comes_back_as_it_was_written(void)
{
	struct writer writer = {0};
	for (uint8_t kind = 1; kind <= 3; kind++) {
		size_t mark = begin_frame(&writer, kind);
		write_bytes(&writer, "body", kind);
		end_frame(&writer, mark);
	}
	struct reader reader = reader_over(writer.data, writer.length);
	for (uint8_t kind = 1; kind <= 3; kind++) {
		struct frame frame = read_frame(&reader);
		CHECK(frame.length == kind + 1u && frame.body[0] == kind && memcmp(frame.body + 1, "body", kind) == 0);
	}
	CHECK(read_frame(&reader).body == NULL && !reader.failed);
	writer_free(&writer);
}

static void a_torn_frame_is_told_from_the_end(void)
{
	struct writer writer = {0};
	size_t mark = begin_frame(&writer, 'x');
	write_bytes(&writer, "payload", 7);
	end_frame(&writer, mark);
	for (size_t cut = 1; cut < writer.length; cut++) {
		struct reader reader = reader_over(writer.data, cut);
		CHECK(read_frame(&reader).body == NULL && reader.failed);
		CHECK(reader.left == cut);
	}
	for (size_t i = 0; i < writer.length * 8; i++) {
		writer.data[i / 8] ^= (uint8_t)(1u << i % 8);
		struct reader reader = reader_over(writer.data, writer.length);
		CHECK(read_frame(&reader).body == NULL && reader.failed);
		writer.data[i / 8] ^= (uint8_t)(1u << i % 8);
	}
	writer_free(&writer);
}

static void a_frame_has_a_body_and_not_too_much_of_one(void)
{
	const uint8_t nothing[FRAME_HEADER] = {0};
	struct reader reader = reader_over(nothing, sizeof nothing);
	CHECK(read_frame(&reader).body == NULL && reader.failed);
	struct writer writer = {0};
	char *payload = calloc(1, FRAME_LIMIT);
	CHECK(payload != NULL);
	for (size_t more = 0; more <= 1; more++) {
		size_t mark = begin_frame(&writer, 'x');
		write_bytes(&writer, payload, FRAME_LIMIT - 1 + more);
		end_frame(&writer, mark);
		reader = reader_over(writer.data, writer.length);
		CHECK((read_frame(&reader).body != NULL) == (more == 0));
		writer_free(&writer);
	}
	free(payload);
}

int main(void)
{
	RUN(numbers_come_back_in_little_endian_order);
	RUN(a_read_beyond_the_end_fails_and_so_does_all_after_it);
	RUN(texts_are_taken_whole_and_without_nul);
	RUN(a_writer_grows_and_can_be_used_again);
	RUN(a_frame_comes_back_as_it_was_written);
	RUN(a_torn_frame_is_told_from_the_end);
	RUN(a_frame_has_a_body_and_not_too_much_of_one);
	return check_done("bytes and frames");
}
