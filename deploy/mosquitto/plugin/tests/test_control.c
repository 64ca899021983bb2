#include "check.h"
#include "control.h"
#include "counters.h"
#include "given.h"

static struct knowledge knowledge;
static char handed[256]; /* "id device payload;" of each, with "@time" where the session must be as old */
static char moves[256];  /* "device time;" of each */
static enum sent refusal;
static int refused_at;

static enum sent hand_over(const struct down *down, void *context)
{
	if (refused_at-- == 0)
		return refusal;
	char time[32] = "";
	if (down->began_by_ms != UINT64_MAX)
		snprintf(time, sizeof time, "@%llu", (unsigned long long)down->began_by_ms);
	snprintf(handed + strlen(handed), sizeof handed - strlen(handed), "%.*s %.*s %.*s%s;", (int)down->id.length,
		down->id.at, (int)down->device.length, down->device.at, (int)down->payload_length,
		(const char *)down->payload, time);
	return SEND_DONE;
}

static void moved(struct text device, uint64_t time_ms, void *context)
{
	snprintf(moves + strlen(moves), sizeof moves - strlen(moves), "%.*s %llu;", (int)device.length, device.at,
		(unsigned long long)time_ms);
}

static struct writer ask(const struct writer *asked)
{
	struct control control = {&knowledge, NULL, hand_over, moved, NULL};
	struct writer answer = {0};
	handed[0] = moves[0] = 0;
	counters[COUNT_CONTROL_MALFORMED] = counters[COUNT_CONTROL_GAP] = 0;
	control_handle(&control, asked->data, asked->length, &answer);
	CHECK(!answer.failed);
	return answer;
}

static void forget(void)
{
	devices_free(&knowledge.devices);
	memset(&knowledge, 0, sizeof knowledge);
	refused_at = -1;
}

static struct reader next_answer(struct reader *answers, uint8_t kind, uint64_t request)
{
	struct frame frame = read_frame(answers);
	CHECK(frame.body != NULL);
	struct reader reader = reader_over(frame.body, frame.length);
	CHECK(read_u8(&reader) == kind && read_u64(&reader) == request);
	return reader;
}

/* What the one answer says, which is then freed. */
static uint8_t only_status(struct writer *answer, uint8_t kind)
{
	struct reader answers = reader_over(answer->data, answer->length);
	struct reader reader = next_answer(&answers, kind, 77);
	uint8_t status = read_u8(&reader);
	CHECK(answers.left == 0 && !reader.failed);
	writer_free(answer);
	return status;
}

static void give_hello(struct writer *writer, uint64_t request)
{
	size_t mark = begin_frame(writer, 'H');
	write_u64(writer, request);
	end_frame(writer, mark);
}

static void give_down(struct writer *writer, const char *id, const char *device, const char *payload)
{
	give_text(writer, id);
	give_text(writer, device);
	write_u32(writer, (uint32_t)strlen(payload));
	write_bytes(writer, payload, strlen(payload));
}

static size_t begin_send(struct writer *writer, uint32_t count)
{
	size_t mark = begin_frame(writer, 'S');
	write_u64(writer, 77);
	write_u32(writer, count);
	return mark;
}

static void check_place(const char *log_id, uint64_t place, uint64_t devices)
{
	struct writer asked = {0};
	give_hello(&asked, 5);
	struct writer answer = ask(&asked);
	struct reader answers = reader_over(answer.data, answer.length);
	struct reader reader = next_answer(&answers, 'h', 5);
	struct text said = read_text(&reader);
	CHECK(said.length == strlen(log_id) && memcmp(said.at, log_id, said.length) == 0);
	CHECK(read_u64(&reader) == place && read_u64(&reader) == devices && read_text(&reader).length > 0);
	CHECK(!reader.failed && reader.left == 0 && answers.left == 0);
	writer_free(&asked);
	writer_free(&answer);
}

static void hello_tells_how_far_the_broker_is(void)
{
	const struct given devices[] = {{.state = ACTIVE, .id = "dev-1"}, {.state = ACTIVE, .id = "dev-2"}};
	forget();
	check_place("", 0, 0);
	apply(&knowledge, NULL, (struct span){"log", 0, 9, FIRST | LAST}, devices, 2);
	check_place("log", 9, 2);
	apply(&knowledge, NULL, (struct span){"log", 0, 3, FIRST}, devices, 1);
	check_place("", 3, 2); /* only a full sync will do */
}

static void apply_is_answered_with_what_became_of_it(void)
{
	const struct given device = {.state = ACTIVE, .id = "dev-1"};
	const struct {
		struct span span;
		enum applied applied;
	} steps[] = {
		{{"log", 0, 4, 0}, APPLY_GAP},
		{{"log", 0, 4, FIRST | LAST}, APPLY_DONE},
		{{"log", 4, 5, 0}, APPLY_DONE},
		{{"log", 4, 5, 0}, APPLY_GAP},
		{{"other", 5, 6, 0}, APPLY_GAP},
		{{"", 5, 6, FIRST}, APPLY_MALFORMED},
	};
	forget();
	for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
		struct writer asked = {0};
		give_apply(&asked, steps[i].span, &device, 1);
		struct writer answer = ask(&asked);
		CHECK(only_status(&answer, 'a') == steps[i].applied);
		CHECK(counters[COUNT_CONTROL_GAP] == (steps[i].applied == APPLY_GAP));
		CHECK(counters[COUNT_CONTROL_MALFORMED] == (steps[i].applied == APPLY_MALFORMED));
		writer_free(&asked);
	}
	check_place("log", 5, 1);
}

static void messages_are_handed_over_in_order(void)
{
	struct writer asked = {0};
	forget();
	size_t mark = begin_send(&asked, 3);
	give_down(&asked, "m1", "dev-1", "one");
	give_down(&asked, "m2", "dev-2", "");
	give_down(&asked, "m3", "dev-1", "three");
	end_frame(&asked, mark);
	struct writer answer = ask(&asked);
	CHECK(only_status(&answer, 's') == SEND_DONE);
	CHECK(strcmp(handed, "m1 dev-1 one;m2 dev-2 ;m3 dev-1 three;") == 0);
	refused_at = 1;
	refusal = SEND_SPOOL_REFUSES;
	answer = ask(&asked);
	CHECK(only_status(&answer, 's') == SEND_SPOOL_REFUSES && strcmp(handed, "m1 dev-1 one;") == 0);
	writer_free(&asked);
}

static void of_a_malformed_send_nothing_is_handed_over(void)
{
	char longest[NAME_LIMIT + 2];
	memset(longest, 'x', sizeof longest);
	longest[NAME_LIMIT + 1] = 0;
	for (int kind = 0; kind < 6; kind++) {
		struct writer asked = {0};
		forget();
		size_t mark = begin_send(&asked, kind == 0 ? 1 : kind == 1 ? UINT32_MAX : 2);
		give_down(&asked, "m1", "dev-1", "one");
		if (kind != 5)
			give_down(&asked, kind == 2 ? longest : "m2", kind == 3 ? longest : "dev-1", "two");
		else
			write_bytes(&asked, "\0\0\0\0\xff\xff\xff\xff", 8);
		if (kind == 4)
			write_u8(&asked, 0);
		end_frame(&asked, mark);
		struct writer answer = ask(&asked);
		CHECK(only_status(&answer, 's') == SEND_MALFORMED && handed[0] == 0);
		CHECK(counters[COUNT_CONTROL_MALFORMED] == 1);
		writer_free(&asked);
	}
}

static void a_message_of_its_time_is_handed_over_with_the_time(void)
{
	struct writer asked = {0};
	forget();
	size_t mark = begin_frame(&asked, 'T');
	write_u64(&asked, 77);
	write_u32(&asked, 2);
	write_u64(&asked, 1714637105250);
	give_down(&asked, "m1", "dev-1", "one");
	write_u64(&asked, UINT64_MAX);
	give_down(&asked, "m2", "dev-1", "two");
	end_frame(&asked, mark);
	struct writer answer = ask(&asked);
	CHECK(only_status(&answer, 's') == SEND_DONE);
	CHECK(strcmp(handed, "m1 dev-1 one@1714637105250;m2 dev-1 two;") == 0);
	writer_free(&asked);
}

static void moves_are_told_all_of_them_or_none(void)
{
	for (int kind = 0; kind < 4; kind++) {
		struct writer asked = {0};
		forget();
		size_t mark = begin_frame(&asked, 'M');
		write_u64(&asked, 77);
		write_u32(&asked, kind == 1 ? 1 : kind == 2 ? UINT32_MAX : 2);
		give_text(&asked, "dev-1");
		write_u64(&asked, 12);
		give_text(&asked, "dev-2");
		if (kind != 3)
			write_u64(&asked, 34);
		end_frame(&asked, mark);
		struct writer answer = ask(&asked);
		CHECK(only_status(&answer, 's') == (kind == 0 ? SEND_DONE : SEND_MALFORMED));
		CHECK(strcmp(moves, kind == 0 ? "dev-1 12;dev-2 34;" : "") == 0);
		CHECK(counters[COUNT_CONTROL_MALFORMED] == (kind != 0));
		writer_free(&asked);
	}
}

static void each_frame_of_a_publish_has_its_answer(void)
{
	struct writer asked = {0};
	forget();
	give_hello(&asked, 1);
	give_apply(&asked, (struct span){"log", 0, 1, FIRST | LAST}, NULL, 0);
	size_t mark = begin_frame(&asked, '?');
	end_frame(&asked, mark);
	mark = begin_send(&asked, 0);
	end_frame(&asked, mark);
	write_bytes(&asked, "torn", 4);
	struct writer answer = ask(&asked);
	struct reader answers = reader_over(answer.data, answer.length);
	next_answer(&answers, 'h', 1);
	next_answer(&answers, 'a', 77);
	next_answer(&answers, 's', 77);
	CHECK(answers.left == 0 && counters[COUNT_CONTROL_MALFORMED] == 2);
	writer_free(&answer);
	writer_free(&asked);
}

static void a_hello_of_another_length_is_malformed(void)
{
	for (size_t length = 0; length < 12; length++) {
		struct writer asked = {0};
		size_t mark = begin_frame(&asked, 'H');
		write_bytes(&asked, "xxxxxxxxxxxx", length);
		end_frame(&asked, mark);
		struct writer answer = ask(&asked);
		CHECK((answer.length == 0) == (length != 8) && counters[COUNT_CONTROL_MALFORMED] == (length != 8));
		writer_free(&answer);
		writer_free(&asked);
	}
}

int main(void)
{
	RUN(hello_tells_how_far_the_broker_is);
	RUN(apply_is_answered_with_what_became_of_it);
	RUN(messages_are_handed_over_in_order);
	RUN(of_a_malformed_send_nothing_is_handed_over);
	RUN(a_message_of_its_time_is_handed_over_with_the_time);
	RUN(moves_are_told_all_of_them_or_none);
	RUN(each_frame_of_a_publish_has_its_answer);
	RUN(a_hello_of_another_length_is_malformed);
	forget();
	return check_done("control");
}
