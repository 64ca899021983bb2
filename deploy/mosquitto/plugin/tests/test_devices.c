#include "access.h"
#include "check.h"
#include "given.h"

static const struct given_key KEY = {7, KEY_HS256, "secret", 6}, OTHER = {9, KEY_ES256, "public", 6};

static struct device *give(struct devices *devices, struct given given)
{
	struct writer writer = {0};
	struct entry entry;
	give_entry(&writer, &given);
	struct reader reader = reader_over(writer.data, writer.length);
	struct device *device =
		read_entry(&reader, &entry) && reader.left == 0 ? device_apply(devices, &entry) : NULL;
	writer_free(&writer);
	return device;
}

static bool is_malformed(struct given given)
{
	struct devices devices = {0};
	bool refused = give(&devices, given) == NULL;
	devices_free(&devices);
	return refused;
}

static void a_device_is_found_by_its_id_alone_when_it_has_no_other_name(void)
{
	struct devices devices = {0};
	struct device *device = give(&devices, (struct given){.state = ACTIVE, .id = "dev-1"});
	CHECK(device->state == ACTIVE && strcmp(device->address, "dev-1") == 0);
	CHECK(device_find(&devices, "dev-1", 5) == device && device_at(&devices, "dev-1", 5) == device);
	CHECK(device_find(&devices, "dev-", 4) == NULL && device_find(&devices, "dev-11", 6) == NULL);
	CHECK(device_at(&devices, "", 0) == NULL);
	devices_free(&devices);
}

static void with_an_address_of_its_own_it_is_met_there_and_nowhere_else(void)
{
	struct devices devices = {0};
	struct device *device = give(&devices, (struct given){.state = ACTIVE, .id = "dev-1", .address = "sn0123"});
	CHECK(device_at(&devices, "sn0123", 6) == device && device_at(&devices, "dev-1", 5) == NULL);
	CHECK(device_find(&devices, "dev-1", 5) == device && device_find(&devices, "sn0123", 6) == NULL);
	give(&devices, (struct given){.state = ACTIVE, .id = "dev-1", .address = "sn4567"});
	CHECK(device_at(&devices, "sn0123", 6) == NULL && device_at(&devices, "sn4567", 6) == device);
	give(&devices, (struct given){.state = ACTIVE, .id = "dev-1", .address = "dev-1"});
	CHECK(device_at(&devices, "sn4567", 6) == NULL && device_at(&devices, "dev-1", 5) == device);
	devices_free(&devices);
}

static void no_address_takes_an_id_away_from_its_device(void)
{
	struct devices devices = {0};
	struct device *owner = give(&devices, (struct given){.state = ACTIVE, .id = "dev-1"});
	give(&devices, (struct given){.state = ACTIVE, .id = "dev-2", .address = "dev-1"});
	CHECK(device_at(&devices, "dev-1", 5) == owner);
	devices_free(&devices);
}

static void an_entry_replaces_all_that_was_known(void)
{
	struct devices devices = {0};
	uint8_t print[FINGERPRINT];
	struct given given = {.state = ACTIVE, .id = "dev-1", .keys = {KEY, OTHER}, .keys_count = 2, .certificates = "ab"};
	struct device *device = give(&devices, given);
	CHECK(device_key(device, 7)->type == KEY_HS256 && device_key(device, 9)->type == KEY_ES256);
	CHECK(device_key(device, 7)->length == 6 && memcmp(device_key(device, 7)->bytes, "secret", 6) == 0);
	CHECK(device_key(device, 8) == NULL);
	fingerprint('b', print);
	CHECK(device_has_certificate(device, print));
	print[FINGERPRINT - 1] ^= 1;
	CHECK(!device_has_certificate(device, print));
	device->last_ms = 5;
	given = (struct given){.state = DISABLED, .id = "dev-1", .keys = {OTHER}, .keys_count = 1, .certificates = "c"};
	CHECK(give(&devices, given) == device && device->state == DISABLED && device->last_ms == 5);
	CHECK(device_key(device, 7) == NULL && device_key(device, 9) != NULL);
	fingerprint('b', print);
	CHECK(!device_has_certificate(device, print));
	devices_free(&devices);
}

static void a_session_stands_as_long_as_its_own_credential(void)
{
	struct devices devices = {0};
	struct given given = {.state = ACTIVE, .id = "d", .keys = {KEY, OTHER}, .keys_count = 2, .certificates = "a"};
	struct device *device = give(&devices, given);
	device->used = (struct credential){.key_id = 7};
	CHECK(device_session_stands(device));
	device->used.key_id = 8;
	CHECK(!device_session_stands(device));
	device->used = (struct credential){.by_certificate = true, .key_id = 7};
	CHECK(!device_session_stands(device));
	fingerprint('a', device->used.fingerprint);
	CHECK(device_session_stands(device));
	given.state = DISABLED;
	give(&devices, given);
	CHECK(!device_session_stands(device));
	devices_free(&devices);
}

static void what_is_written_of_a_device_makes_the_same_device(void)
{
	struct devices devices = {0}, again = {0};
	struct given given = {.state = DISABLED, .id = "dev-1", .address = "sn1", .keys = {KEY, OTHER}, .keys_count = 2,
		.certificates = "ab"};
	struct writer writer = {0}, second = {0};
	struct entry entry;
	write_entry(&writer, give(&devices, given));
	struct reader reader = reader_over(writer.data, writer.length);
	CHECK(read_entry(&reader, &entry) && reader.left == 0);
	write_entry(&second, device_apply(&again, &entry));
	CHECK(writer.length == second.length && memcmp(writer.data, second.data, writer.length) == 0);
	writer_free(&writer);
	writer_free(&second);
	devices_free(&devices);
	devices_free(&again);
}

static void many_devices_come_and_go(void)
{
	struct devices devices = {0};
	char id[32], address[32];
	for (int i = 0; i < 5000; i++) {
		snprintf(id, sizeof id, "dev-%d", i);
		snprintf(address, sizeof address, "sn-%d", i);
		give(&devices, (struct given){.state = ACTIVE, .id = id, .address = i % 2 ? address : NULL, .certificates = "a"});
	}
	for (int i = 0; i < 5000; i += 3) {
		snprintf(id, sizeof id, "dev-%d", i);
		device_remove(&devices, device_find(&devices, id, strlen(id)));
	}
	for (int i = 0; i < 5000; i++) {
		snprintf(id, sizeof id, "dev-%d", i);
		snprintf(address, sizeof address, "sn-%d", i);
		const char *name = i % 2 ? address : id;
		CHECK((device_find(&devices, id, strlen(id)) != NULL) == (i % 3 != 0));
		CHECK((device_at(&devices, name, strlen(name)) != NULL) == (i % 3 != 0));
	}
	CHECK(HASH_CNT(by_id, devices.by_id) == 3333);
	devices_free(&devices);
	CHECK(devices.by_id == NULL && devices.by_address == NULL);
}

static void a_malformed_entry_is_refused(void)
{
	char longest[NAME_LIMIT + 2];
	memset(longest, 'x', sizeof longest);
	longest[NAME_LIMIT] = 0;
	CHECK(!is_malformed((struct given){.state = ACTIVE, .id = longest, .address = longest}));
	longest[NAME_LIMIT] = 'x';
	longest[NAME_LIMIT + 1] = 0;
	CHECK(is_malformed((struct given){.state = ACTIVE, .id = longest}));
	CHECK(is_malformed((struct given){.state = ACTIVE, .id = "d", .address = longest}));
	CHECK(is_malformed((struct given){.state = ACTIVE, .id = ""}));
	CHECK(is_malformed((struct given){.state = 3, .id = "d"}));
	for (int type = 0; type <= UINT8_MAX; type++) {
		struct given given = {.state = ACTIVE, .id = "d", .keys = {{1, (uint8_t)type, "k", 1}}, .keys_count = 1};
		CHECK(is_malformed(given) == (type != KEY_HS256 && type != KEY_ES256));
	}
	CHECK(is_malformed((struct given){.state = ACTIVE, .id = "d", .keys = {{1, KEY_HS256, "", 0}}, .keys_count = 1}));
}

static void an_entry_that_is_cut_short_anywhere_is_refused(void)
{
	struct writer writer = {0};
	struct given given = {.state = ACTIVE, .id = "dev-1", .address = "sn1", .keys = {KEY}, .keys_count = 1,
		.certificates = "a"};
	struct entry entry;
	give_entry(&writer, &given);
	for (size_t cut = 0; cut < writer.length; cut++) {
		/* A copy of its own, so that a read beyond it is seen. */
		uint8_t *copy = malloc(cut + 1);
		CHECK(copy != NULL);
		memcpy(copy, writer.data, cut);
		copy = realloc(copy, cut > 0 ? cut : 1);
		struct reader reader = reader_over(copy, cut);
		CHECK(!read_entry(&reader, &entry));
		free(copy);
	}
	writer_free(&writer);
}

/* Topics */

static bool publishes(const char *address, const char *topic, const char *inner)
{
	struct devices devices = {0};
	char out[TOPIC_LIMIT];
	const char *rest = NULL;
	struct device *device = give(&devices, (struct given){.state = ACTIVE, .id = "dev-1", .address = address});
	bool allowed = may_publish(device, topic, &rest);
	if (allowed && inner != NULL)
		CHECK(inner_topic(device, topic, rest, out) == strlen(inner) && strcmp(out, inner) == 0);
	devices_free(&devices);
	return allowed;
}

static bool receives(const char *address, const char *topic)
{
	struct devices devices = {0};
	bool allowed = may_receive(give(&devices, (struct given){.state = ACTIVE, .id = "dev-1", .address = address}), topic);
	devices_free(&devices);
	return allowed;
}

static void a_device_publishes_to_its_own_topics(void)
{
	CHECK(publishes(NULL, "j/up/dev-1", "j/up/dev-1"));
	CHECK(publishes(NULL, "j/data/dev-1", "j/data/dev-1"));
	CHECK(publishes(NULL, "j/data/dev-1/env", "j/data/dev-1/env"));
	CHECK(publishes(NULL, "j/data/dev-1/a/b/c", "j/data/dev-1/a/b/c"));
	CHECK(publishes(NULL, "j/data/dev-1/", "j/data/dev-1/"));
	CHECK(publishes(NULL, "j/data/dev-1//a", "j/data/dev-1//a"));
	CHECK(publishes("sn0123", "j/data/sn0123/env", "j/data/dev-1/env"));
	CHECK(publishes("sn0123", "j/up/sn0123", "j/up/dev-1"));
}

static void a_device_publishes_nowhere_else(void)
{
	static const char *const foreign[] = {"", "j", "j/data", "j/data/", "j/data/dev-", "j/data/dev-11", "j/data/dev-1x",
		"j/data/dev-1x/env", "j/data/dev-2/env", "j/data//dev-1", "j/data/DEV-1", "/j/data/dev-1", "j//data/dev-1",
		"J/data/dev-1", "j/datadev-1", "j/dn/dev-1", "j/dn/dev-1/x", "j/up/dev-1/", "j/up/dev-1/x", "j/up/dev-1x",
		"j/up/", "j/up/dev-2", "j/upp/dev-1", "j/alert/dev-1", "x/j/data/dev-1", "$SYS/broker", "$CONTROL/zdm/v1",
		"$share/g/j/data/dev-1", "j/data/+", "j/data/#", "j/data/sn0123"};
	for (size_t i = 0; i < sizeof foreign / sizeof *foreign; i++)
		CHECK(!publishes(NULL, foreign[i], NULL));
	CHECK(!publishes("sn0123", "j/data/dev-1/env", NULL));
	CHECK(!publishes("sn0123", "j/up/dev-1", NULL));
}

static void a_device_receives_on_one_topic_only(void)
{
	static const char *const foreign[] = {"#", "+", "+/+/+", "j/#", "j/dn/#", "j/dn/+", "j/dn/dev-1/#", "j/dn/dev-1/",
		"j/dn/dev-1/x", "j/dn/dev-", "j/dn/dev-11", "j/dn/dev-2", "/j/dn/dev-1", "$SYS/#", "$share/g/j/dn/dev-1",
		"$share/g/#", "$CONTROL/#", "j/data/dev-1", "j/up/dev-1", ""};
	CHECK(receives(NULL, "j/dn/dev-1"));
	CHECK(receives("sn0123", "j/dn/sn0123") && !receives("sn0123", "j/dn/dev-1"));
	for (size_t i = 0; i < sizeof foreign / sizeof *foreign; i++)
		CHECK(!receives(NULL, foreign[i]));
}

static void a_topic_too_long_to_be_noted_is_told(void)
{
	struct devices devices = {0};
	char topic[2 * TOPIC_LIMIT], out[TOPIC_LIMIT];
	const char *rest;
	struct device *device = give(&devices, (struct given){.state = ACTIVE, .id = "dev-1", .address = "s"});
	for (int length = TOPIC_LIMIT - 20; length < TOPIC_LIMIT + 20; length++) {
		int inner = length + 4; /* "dev-1" for "s" */
		snprintf(topic, sizeof topic, "j/data/s/%0*d", length - 9, 0);
		CHECK(may_publish(device, topic, &rest));
		size_t wanted = inner < TOPIC_LIMIT ? (size_t)inner : 0;
		CHECK(inner_topic(device, topic, rest, out) == wanted);
	}
	down_topic(device, out);
	CHECK(strcmp(out, "j/dn/s") == 0);
	devices_free(&devices);
}

int main(void)
{
	RUN(a_device_is_found_by_its_id_alone_when_it_has_no_other_name);
	RUN(with_an_address_of_its_own_it_is_met_there_and_nowhere_else);
	RUN(no_address_takes_an_id_away_from_its_device);
	RUN(an_entry_replaces_all_that_was_known);
	RUN(a_session_stands_as_long_as_its_own_credential);
	RUN(what_is_written_of_a_device_makes_the_same_device);
	RUN(many_devices_come_and_go);
	RUN(a_malformed_entry_is_refused);
	RUN(an_entry_that_is_cut_short_anywhere_is_refused);
	RUN(a_device_publishes_to_its_own_topics);
	RUN(a_device_publishes_nowhere_else);
	RUN(a_device_receives_on_one_topic_only);
	RUN(a_topic_too_long_to_be_noted_is_told);
	return check_done("devices and topics");
}
