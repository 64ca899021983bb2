#include "control.h"

#include <string.h>

#include "counters.h"
#include "frame.h"

static const char VERSION[] = "1";

static void answer_hello(const struct control *control, struct frame frame, struct writer *answer)
{
	const struct knowledge *knowledge = control->knowledge;
	struct reader reader = reader_over(frame.body, frame.length);
	/* In the middle of a full sync nothing else will do than a new one. */
	const char *log_id = knowledge->syncing ? "" : knowledge->log_id;
	read_u8(&reader);
	uint64_t request = read_u64(&reader);
	if (reader.failed || reader.left > 0) {
		count(COUNT_CONTROL_MALFORMED);
		return;
	}
	size_t mark = begin_frame(answer, 'h');
	write_u64(answer, request);
	write_text(answer, log_id, strlen(log_id));
	write_u64(answer, knowledge->place);
	write_u64(answer, HASH_CNT(by_id, knowledge->devices.by_id));
	write_text(answer, VERSION, strlen(VERSION));
	end_frame(answer, mark);
}

static void answer_apply(struct control *control, struct frame frame, struct writer *answer)
{
	const struct knowledge *knowledge = control->knowledge;
	uint64_t request = 0;
	enum applied applied = knowledge_apply(control->knowledge, frame, &request);
	if (applied == APPLY_DONE && control->snapshot != NULL)
		snapshot_append(control->snapshot, frame);
	if (applied == APPLY_GAP)
		count(COUNT_CONTROL_GAP);
	if (applied == APPLY_MALFORMED)
		count(COUNT_CONTROL_MALFORMED);
	size_t mark = begin_frame(answer, 'a');
	write_u64(answer, request);
	write_u8(answer, (uint8_t)applied);
	write_text(answer, knowledge->log_id, strlen(knowledge->log_id));
	write_u64(answer, knowledge->place);
	end_frame(answer, mark);
}

static void read_down(struct reader *reader, bool timed, struct down *down)
{
	down->began_by_ms = timed ? read_u64(reader) : UINT64_MAX;
	down->id = read_text(reader);
	down->device = read_text(reader);
	down->payload_length = read_u32(reader);
	down->payload = read_bytes(reader, down->payload_length);
	/* What the spool could never note. */
	if (down->id.length > NAME_LIMIT || down->device.length > NAME_LIMIT)
		reader->failed = true;
}

static enum sent send_all(struct control *control, struct reader reader, bool timed)
{
	struct down down;
	uint32_t number = read_u32(&reader);
	struct reader first = reader;
	for (uint32_t i = 0; i < number && !reader.failed; i++)
		read_down(&reader, timed, &down);
	if (reader.failed || reader.left > 0)
		return SEND_MALFORMED;
	enum sent sent = SEND_DONE;
	for (uint32_t i = 0; i < number && sent == SEND_DONE; i++) {
		read_down(&first, timed, &down);
		sent = control->hand_over(&down, control->context);
	}
	return sent;
}

static enum sent move_all(struct control *control, struct reader reader)
{
	uint32_t number = read_u32(&reader);
	struct reader first = reader;
	for (uint32_t i = 0; i < number && !reader.failed; i++) {
		read_text(&reader);
		read_u64(&reader);
	}
	if (reader.failed || reader.left > 0)
		return SEND_MALFORMED;
	for (uint32_t i = 0; i < number; i++) {
		struct text device = read_text(&first);
		control->moved(device, read_u64(&first), control->context);
	}
	return SEND_DONE;
}

static void answer_send(struct control *control, struct frame frame, struct writer *answer)
{
	struct reader reader = reader_over(frame.body, frame.length);
	uint8_t kind = read_u8(&reader);
	uint64_t request = read_u64(&reader);
	enum sent sent = kind == 'M' ? move_all(control, reader) : send_all(control, reader, kind == 'T');
	if (sent == SEND_MALFORMED)
		count(COUNT_CONTROL_MALFORMED);
	size_t mark = begin_frame(answer, 's');
	write_u64(answer, request);
	write_u8(answer, (uint8_t)sent);
	end_frame(answer, mark);
}

void control_handle(struct control *control, const void *payload, size_t length, struct writer *answer)
{
	struct reader reader = reader_over(payload, length);
	for (struct frame frame; (frame = read_frame(&reader)).body != NULL;) {
		switch (frame.body[0]) {
		case 'H':
			answer_hello(control, frame, answer);
			break;
		case 'A':
			answer_apply(control, frame, answer);
			break;
		case 'S':
		case 'T':
		case 'M':
			answer_send(control, frame, answer);
			break;
		default:
			count(COUNT_CONTROL_MALFORMED);
		}
	}
	if (reader.failed)
		count(COUNT_CONTROL_MALFORMED);
}
