#include <fcntl.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "check.h"
#include "given.h"

static struct knowledge knowledge;
static struct snapshot snapshot;
static char path[PATH_MAX + 32], told[256];

/* Notes of whom `changed` was told: "id state;" */
static void note(struct device *device, void *context)
{
	snprintf(told + strlen(told), sizeof told - strlen(told), "%s %d;", device->id, (int)device->state);
}

static void forget(void)
{
	devices_free(&knowledge.devices);
	memset(&knowledge, 0, sizeof knowledge);
	knowledge.changed = note;
	told[0] = 0;
}

static bool told_was(const char *wanted)
{
	bool same = strcmp(told, wanted) == 0;
	told[0] = 0;
	return same;
}

static void fresh(void)
{
	forget();
	snprintf(path, sizeof path, "%s/devices.snapshot", fresh_folder());
	CHECK(snapshot_open(&snapshot, path, &knowledge));
}

/* As after a restart. */
static void reopen(void)
{
	snapshot_close(&snapshot);
	forget();
	CHECK(snapshot_open(&snapshot, path, &knowledge));
}

static off_t file_size(void)
{
	struct stat about;
	CHECK(stat(path, &about) == 0);
	return about.st_size;
}

static enum applied change(uint64_t from, uint64_t to, uint8_t flags, const struct given *entries, uint32_t count)
{
	return apply(&knowledge, &snapshot, (struct span){"log", from, to, flags}, entries, count);
}

static const struct given A = {.state = ACTIVE, .id = "a"}, B = {.state = ACTIVE, .id = "b"}, C = {.state = ACTIVE, .id = "c"};

/* What is known */

static void changes_follow_each_other_without_a_gap(void)
{
	fresh();
	CHECK(change(0, 3, 0, &A, 1) == APPLY_GAP && find(&knowledge, "a") == NULL);
	CHECK(change(0, 3, FIRST | LAST, &A, 1) == APPLY_DONE && knowledge.place == 3);
	CHECK(change(3, 5, 0, &B, 1) == APPLY_DONE && find(&knowledge, "b") != NULL && knowledge.place == 5);
	CHECK(change(3, 6, 0, &C, 1) == APPLY_GAP && change(6, 7, 0, &C, 1) == APPLY_GAP);
	CHECK(apply(&knowledge, NULL, (struct span){"other", 5, 6, 0}, &C, 1) == APPLY_GAP);
	CHECK(apply(&knowledge, NULL, (struct span){"lo", 5, 6, 0}, &C, 1) == APPLY_GAP);
	CHECK(find(&knowledge, "c") == NULL && knowledge.place == 5 && strcmp(knowledge.log_id, "log") == 0);
	snapshot_close(&snapshot);
}

static void a_full_sync_removes_at_its_end_what_it_did_not_name(void)
{
	const struct given both[] = {A, B};
	fresh();
	change(0, 2, FIRST | LAST, both, 2);
	told[0] = 0;
	CHECK(change(0, 7, FIRST, &B, 1) == APPLY_DONE && knowledge.syncing);
	CHECK(find(&knowledge, "a")->state == ACTIVE && told_was("b 1;"));
	CHECK(change(7, 9, LAST, &C, 1) == APPLY_DONE && !knowledge.syncing);
	CHECK(find(&knowledge, "a") == NULL && find(&knowledge, "b") != NULL && told_was("c 1;a 2;"));
	CHECK(apply(&knowledge, NULL, (struct span){"new", 0, 1, FIRST | LAST}, NULL, 0) == APPLY_DONE);
	CHECK(knowledge.devices.by_id == NULL && strcmp(knowledge.log_id, "new") == 0);
	snapshot_close(&snapshot);
}

static void whose_session_may_have_ended_is_told_before_it_is_gone(void)
{
	const struct given removed = {.state = REMOVED, .id = "a"}, disabled = {.state = DISABLED, .id = "b"};
	const struct given unknown = {.state = REMOVED, .id = "z"};
	const struct given both[] = {A, B};
	fresh();
	change(0, 1, FIRST | LAST, both, 2);
	CHECK(told_was("a 1;b 1;"));
	CHECK(change(1, 2, 0, &removed, 1) == APPLY_DONE && told_was("a 2;") && find(&knowledge, "a") == NULL);
	CHECK(change(2, 3, 0, &disabled, 1) == APPLY_DONE && told_was("b 2;") && find(&knowledge, "b")->state == DISABLED);
	CHECK(change(3, 4, 0, &unknown, 1) == APPLY_DONE && told_was(""));
	snapshot_close(&snapshot);
}

static void a_session_ends_before_its_address_changes(void)
{
	const struct given moved = {.state = ACTIVE, .id = "a", .address = "sn1"};
	fresh();
	change(0, 1, FIRST | LAST, &A, 1);
	told[0] = 0;
	change(1, 2, 0, &moved, 1);
	CHECK(told_was("a 2;a 1;") && find(&knowledge, "a")->state == ACTIVE && at(&knowledge, "sn1") != NULL);
	change(2, 3, 0, &moved, 1);
	CHECK(told_was("a 1;"));
	snapshot_close(&snapshot);
}

static void of_two_devices_with_one_address_the_latest_has_it(void)
{
	const struct given earlier = {.state = ACTIVE, .id = "a", .address = "sn1"};
	const struct given later = {.state = ACTIVE, .id = "b", .address = "sn1"};
	const struct given by_id = {.state = ACTIVE, .id = "sn1"};
	fresh();
	change(0, 1, FIRST | LAST, &earlier, 1);
	told[0] = 0;
	change(1, 2, 0, &later, 1);
	CHECK(told_was("a 2;b 1;") && at(&knowledge, "sn1") == find(&knowledge, "b"));
	CHECK(strcmp(find(&knowledge, "a")->address, "a") == 0 && find(&knowledge, "a")->state == ACTIVE);
	change(2, 3, 0, &by_id, 1);
	CHECK(told_was("b 2;sn1 1;") && at(&knowledge, "sn1") == find(&knowledge, "sn1"));
	change(3, 4, 0, &later, 1);
	CHECK(at(&knowledge, "sn1") == find(&knowledge, "sn1") && find(&knowledge, "sn1")->state == ACTIVE);
	snapshot_close(&snapshot);
}

static void a_malformed_change_changes_nothing(void)
{
	struct given many[] = {A, {.state = ACTIVE, .id = ""}};
	struct writer writer = {0};
	uint64_t request;
	char long_id[LOG_ID_LIMIT + 2];
	fresh();
	change(0, 1, FIRST | LAST, &B, 1);
	CHECK(change(1, 2, 0, many, 2) == APPLY_MALFORMED && find(&knowledge, "a") == NULL && knowledge.place == 1);
	many[1] = C;
	give_apply(&writer, (struct span){"log", 1, 2, 0}, many, 2);
	struct frame body = body_of(&writer);
	for (size_t cut = 1; cut < body.length; cut++)
		CHECK(knowledge_apply(&knowledge, (struct frame){body.body, cut}, &request) == APPLY_MALFORMED);
	write_u8(&writer, 0);
	CHECK(knowledge_apply(&knowledge, body_of(&writer), &request) == APPLY_MALFORMED);
	memset(long_id, 'x', sizeof long_id);
	long_id[LOG_ID_LIMIT + 1] = 0;
	CHECK(apply(&knowledge, NULL, (struct span){long_id, 0, 1, FIRST}, &A, 1) == APPLY_MALFORMED);
	CHECK(find(&knowledge, "a") == NULL && find(&knowledge, "c") == NULL && knowledge.place == 1);
	writer_free(&writer);
	snapshot_close(&snapshot);
}

/* What is kept */

static void a_restart_knows_what_was_known(void)
{
	const struct given_key key = {7, KEY_HS256, "secret", 6};
	const struct given full = {.state = DISABLED, .id = "a", .address = "sn1", .keys = {key}, .keys_count = 1,
		.certificates = "xy"};
	const struct given removed = {.state = REMOVED, .id = "b"};
	const struct given both[] = {full, B};
	uint8_t print[FINGERPRINT];
	fresh();
	change(0, 4, FIRST | LAST, both, 2);
	change(4, 5, 0, &removed, 1);
	reopen();
	CHECK(strcmp(knowledge.log_id, "log") == 0 && knowledge.place == 5 && !knowledge.syncing);
	struct device *device = at(&knowledge, "sn1");
	fingerprint('y', print);
	CHECK(HASH_CNT(by_id, knowledge.devices.by_id) == 1 && device->state == DISABLED);
	CHECK(device_key(device, 7)->length == 6 && device_has_certificate(device, print));
	CHECK(change(5, 6, 0, &C, 1) == APPLY_DONE);
	reopen();
	CHECK(knowledge.place == 6 && find(&knowledge, "c") != NULL);
	snapshot_close(&snapshot);
}

static void a_full_sync_that_was_cut_off_is_still_under_way_after_a_restart(void)
{
	fresh();
	change(0, 4, FIRST | LAST, &A, 1);
	change(0, 2, FIRST, &B, 1);
	reopen();
	CHECK(knowledge.syncing && find(&knowledge, "a") != NULL && find(&knowledge, "b") != NULL);
	snapshot_close(&snapshot);
}

/* `count` changes of one device each: device n came with place n. */
static void write_devices(uint64_t count)
{
	char id[32];
	for (uint64_t i = knowledge.place + 1; i <= count; i++) {
		snprintf(id, sizeof id, "dev-%llu", (unsigned long long)i);
		const struct given one = {.state = ACTIVE, .id = id};
		CHECK(change(i - 1, i, i == 1 ? FIRST | LAST : 0, &one, 1) == APPLY_DONE);
	}
}

static void check_devices(uint64_t count)
{
	char id[32];
	CHECK(knowledge.place == count && HASH_CNT(by_id, knowledge.devices.by_id) == count);
	snprintf(id, sizeof id, "dev-%llu", (unsigned long long)count);
	CHECK(count == 0 || find(&knowledge, id) != NULL);
}

static void a_torn_tail_is_cut_off_and_the_place_is_the_one_before(void)
{
	fresh();
	write_devices(3);
	off_t before = file_size();
	write_devices(4);
	off_t whole = file_size();
	for (off_t cut = before; cut < whole; cut++) {
		snapshot_close(&snapshot);
		CHECK(truncate(path, cut) == 0);
		reopen();
		check_devices(3);
		CHECK(file_size() == before);
		write_devices(4);
		reopen();
		check_devices(4);
	}
	snapshot_close(&snapshot);
}

static void damage_anywhere_leads_to_an_earlier_state_never_to_a_false_one(void)
{
	fresh();
	write_devices(4);
	off_t whole = file_size();
	char *good = malloc((size_t)whole);
	CHECK(good != NULL);
	FILE *file = fopen(path, "r");
	CHECK(file != NULL && fread(good, 1, (size_t)whole, file) == (size_t)whole);
	fclose(file);
	for (off_t at = 0; at < whole; at++) {
		snapshot_close(&snapshot);
		int raw = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
		good[at] ^= 0x10;
		CHECK(raw >= 0 && write(raw, good, (size_t)whole) == whole && close(raw) == 0);
		good[at] ^= 0x10;
		reopen();
		CHECK(knowledge.place < 4);
		check_devices(knowledge.place);
	}
	free(good);
	snapshot_close(&snapshot);
}

/* Rewritten as soon as that may be. */
static void rewrite(void)
{
	snapshot.behind = true;
	CHECK(snapshot_tidy(&snapshot, &knowledge) && !snapshot.behind);
}

static void a_rewritten_file_says_the_same(void)
{
	fresh();
	write_devices(50);
	rewrite();
	write_devices(60);
	reopen();
	check_devices(60);
	CHECK(strcmp(knowledge.log_id, "log") == 0);
	snapshot_close(&snapshot);
}

static void where_devices_are_missing_a_full_sync_is_asked_for(void)
{
	fresh();
	write_devices(5);
	rewrite();
	off_t whole = file_size();
	for (off_t cut = 1; cut < whole; cut++) {
		write_devices(5);
		rewrite();
		snapshot_close(&snapshot);
		CHECK(truncate(path, cut) == 0);
		reopen();
		CHECK(knowledge.log_id[0] == 0);
		CHECK(change(5, 6, 0, &A, 1) == APPLY_GAP);
		forget();
		snapshot_close(&snapshot);
		CHECK(unlink(path) == 0 && snapshot_open(&snapshot, path, &knowledge));
	}
	snapshot_close(&snapshot);
}

static void it_is_rewritten_once_it_has_grown_well_past_what_is_live(void)
{
	static char bulk[60000];
	const struct given big = {.state = ACTIVE, .id = "a", .keys = {{1, KEY_HS256, bulk, sizeof bulk}}, .keys_count = 1};
	off_t largest = 0;
	fresh();
	change(0, 1, FIRST | LAST, &big, 1);
	for (uint64_t i = 1; i < 200; i++) {
		change(i, i + 1, 0, &big, 1);
		CHECK(snapshot_tidy(&snapshot, &knowledge));
		largest = file_size() > largest ? file_size() : largest;
	}
	CHECK(largest < 5 * 1024 * 1024 && largest > 3 * 1024 * 1024 && file_size() == (off_t)snapshot.size);
	reopen();
	CHECK(knowledge.place == 200);
	snapshot_close(&snapshot);
}

static void on_a_full_disk_it_falls_behind_and_catches_up_with_room(void)
{
	fresh();
	write_devices(5);
	limit_files((rlim_t)file_size() + 10);
	write_devices(8);
	check_devices(8); /* all the same in force */
	limit_files(10);
	CHECK(snapshot.behind && !snapshot_tidy(&snapshot, &knowledge));
	reopen();
	check_devices(5);
	write_devices(8);
	limit_files(RLIM_INFINITY);
	off_t stuck = file_size();
	write_devices(9);
	CHECK(file_size() == stuck);
	CHECK(snapshot.behind && snapshot_tidy(&snapshot, &knowledge) && !snapshot.behind);
	write_devices(10);
	reopen();
	check_devices(10);
	snapshot_close(&snapshot);
}

static void a_kill_at_any_moment_leaves_a_state_that_was(void)
{
	for (int round = 0; round < 20; round++) {
		int ready[2];
		fresh();
		CHECK(pipe(ready) == 0);
		pid_t writer = fork();
		CHECK(writer >= 0);
		if (writer == 0) {
			for (uint64_t i = 1;; i++) {
				write_devices(i);
				if (i % 7 == 0)
					rewrite();
				if (i == 20 && write(ready[1], "x", 1) != 1)
					_exit(1);
			}
		}
		char byte;
		CHECK(read(ready[0], &byte, 1) == 1);
		usleep((useconds_t)(round * 150));
		kill(writer, SIGKILL);
		waitpid(writer, NULL, 0);
		close(ready[0]);
		close(ready[1]);
		reopen();
		CHECK(knowledge.place >= 20);
		check_devices(knowledge.place);
		snapshot_close(&snapshot);
	}
}

static void a_file_that_cannot_be_opened_is_told(void)
{
	forget();
	CHECK(!snapshot_open(&snapshot, "/nowhere/devices.snapshot", &knowledge));
	CHECK(!snapshot_open(&snapshot, fresh_folder(), &knowledge));
	memset(path, 'x', sizeof path - 1);
	CHECK(!snapshot_open(&snapshot, path, &knowledge));
}

int main(void)
{
	RUN(changes_follow_each_other_without_a_gap);
	RUN(a_full_sync_removes_at_its_end_what_it_did_not_name);
	RUN(whose_session_may_have_ended_is_told_before_it_is_gone);
	RUN(a_session_ends_before_its_address_changes);
	RUN(of_two_devices_with_one_address_the_latest_has_it);
	RUN(a_malformed_change_changes_nothing);
	RUN(a_restart_knows_what_was_known);
	RUN(a_full_sync_that_was_cut_off_is_still_under_way_after_a_restart);
	RUN(a_torn_tail_is_cut_off_and_the_place_is_the_one_before);
	RUN(damage_anywhere_leads_to_an_earlier_state_never_to_a_false_one);
	RUN(a_rewritten_file_says_the_same);
	RUN(where_devices_are_missing_a_full_sync_is_asked_for);
	RUN(it_is_rewritten_once_it_has_grown_well_past_what_is_live);
	RUN(on_a_full_disk_it_falls_behind_and_catches_up_with_room);
	RUN(a_kill_at_any_moment_leaves_a_state_that_was);
	RUN(a_file_that_cannot_be_opened_is_told);
	forget();
	return check_done("snapshot");
}
