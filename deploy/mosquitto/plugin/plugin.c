/* The plugin as Mosquitto sees it: its events, turned into who may, what happened, and one device. */
#include <errno.h>
#include <mosquitto.h>
#include <mosquitto_broker.h>
#include <mosquitto_plugin.h>
#include <openssl/crypto.h>
#include <openssl/sha.h>
#include <openssl/x509.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "access.h"
#include "control.h"
#include "counters.h"
#include "snapshot.h"
#include "spool.h"
#include "thinning.h"
#include "token.h"

#define EXPORT __attribute__((visibility("default")))

static const char CONTROL_TOPIC[] = "$CONTROL/zdm/v1", ANSWER_TOPIC[] = "$CONTROL/zdm/v1/response";
static const char *const SERVICES[] = {"zdm-ingestion", "zdm-provisioning"};

/* How far ahead of the clock a time found in the spool may be and still count (a clock may have been wrong). */
static const uint64_t TRUSTED_AHEAD_MS = 60000;

enum { SECRET = 64, PATH_ROOM = 4096 };

static struct {
	mosquitto_plugin_id_t *id;
	struct knowledge knowledge;
	struct snapshot snapshot;
	struct spool spool;
	struct control control;
	char secret[SECRET + 1];
	char counters[PATH_ROOM];
	double rate, burst;
	uint64_t tick_s;
} plugin;

static uint64_t now_ms(void)
{
	struct timespec now;
	clock_gettime(CLOCK_REALTIME, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static struct text text_of(const char *string)
{
	return (struct text){string, strlen(string)};
}

/* Arrival, unique and rising per device, also over a restart. */
static uint64_t stamp(struct device *device)
{
	uint64_t now = now_ms(), time = now;
	if (plugin.spool.newest_ms >= time && plugin.spool.newest_ms - now <= TRUSTED_AHEAD_MS)
		time = plugin.spool.newest_ms + 1;
	if (device->last_ms >= time)
		time = device->last_ms + 1;
	return time;
}

static bool is_service(const char *name)
{
	for (size_t i = 0; i < sizeof SERVICES / sizeof *SERVICES; i++)
		if (strcmp(name, SERVICES[i]) == 0)
			return true;
	return false;
}

static bool over_unix_socket(const struct mosquitto *client)
{
	const char *address = mosquitto_client_address(client);
	return address != NULL && (address[0] == '/' || strcmp(address, "unix-socket") == 0);
}

/* The device whose live session `client` is. */
static struct device *device_of(const struct mosquitto *client)
{
	const char *address = mosquitto_client_id(client);
	struct device *device =
		address == NULL ? NULL : device_at(&plugin.knowledge.devices, address, strlen(address));
	return device != NULL && device->client == client ? device : NULL;
}

/* Presence */

static bool write_disconnected(struct device *device, uint64_t session, const char *reason)
{
	struct record record = {
		.kind = RECORD_DISCONNECTED,
		.time_ms = now_ms(),
		.session = session,
		.device = text_of(device->id),
		.detail = text_of(reason),
	};
	uint64_t sequence;
	return spool_append(&plugin.spool, &record, &sequence);
}

static void forget_session(struct device *device)
{
	count(COUNT_DISCONNECTS);
	counters[COUNT_SESSIONS]--;
	device->client = NULL;
	device->leaving = NULL;
}

static void session_ended(struct device *device, const char *reason)
{
	if (!write_disconnected(device, device->session, reason))
		device->owed_session = device->session;
	forget_session(device);
}

/* False when it cannot be written: the former session then goes on. */
static bool take_over(struct device *device)
{
	if (!write_disconnected(device, device->session, "taken_over"))
		return false;
	forget_session(device);
	return true;
}

static bool session_began(struct device *device, const struct mosquitto *client, const struct credential *credential)
{
	char detail[512], what[2 * FINGERPRINT + 1];
	if (device->owed_session != 0 && write_disconnected(device, device->owed_session, "closed"))
		device->owed_session = 0;
	bool former = device->client != NULL;
	if (former && !take_over(device))
		return false;
	if (credential->by_certificate)
		for (int i = 0; i < FINGERPRINT; i++)
			snprintf(what + (ptrdiff_t)2 * i, 3, "%02x", credential->fingerprint[i]);
	else
		snprintf(what, sizeof what, "%u", credential->key_id);
	const char *address = mosquitto_client_address(client);
	snprintf(detail, sizeof detail, "address=%s by=%s credential=%s client=%s", address == NULL ? "" : address,
		credential->by_certificate ? "certificate" : "token", what, device->address);
	struct record record = {
		.kind = RECORD_CONNECTED,
		.time_ms = now_ms(),
		.device = text_of(device->id),
		.detail = text_of(detail),
	};
	if (!spool_append(&plugin.spool, &record, &device->session)) {
		/* The former session has ended, and this one does not begin. */
		if (former)
			mosquitto_kick_client_by_clientid(device->address, false);
		return false;
	}
	device->client = client;
	device->session_ms = record.time_ms;
	device->used = *credential;
	device->leaving = NULL;
	count(COUNT_CONNECTS);
	counters[COUNT_SESSIONS]++;
	return true;
}

static void kick(struct device *device, const char *reason)
{
	if (device->client == NULL)
		return;
	count(COUNT_KICKS);
	device->leaving = reason;
	mosquitto_kick_client_by_clientid(device->address, false);
	/* Should the broker not know the client any more, the session is over all the same. */
	if (device->client != NULL)
		session_ended(device, reason);
}

static void device_changed(struct device *device, void *context)
{
	if (device->client != NULL && !device_session_stands(device))
		kick(device, "kicked");
}

/* Who */

static int refuse(enum counter why, const char *id)
{
	count(why);
	mosquitto_log_printf(MOSQ_LOG_NOTICE, "zdm: refused %.64s: %s", id == NULL ? "?" : id, counter_name(why));
	return MOSQ_ERR_AUTH;
}

static int admit_service(const struct mosquitto *client, const char *id, const char *user, const char *password)
{
	if (!over_unix_socket(client) || user == NULL || strcmp(user, id) != 0 || password == NULL ||
			strlen(password) != SECRET || CRYPTO_memcmp(password, plugin.secret, SECRET) != 0)
		return refuse(COUNT_REFUSED_SERVICE, id);
	return MOSQ_ERR_SUCCESS;
}

static bool fingerprint_of(X509 *certificate, uint8_t out[FINGERPRINT])
{
	unsigned length = 0;
	return X509_digest(certificate, EVP_sha256(), out, &length) == 1 && length == FINGERPRINT;
}

/* The common name is the device's id or address. The chain to our CA is checked by the TLS layer before. */
static bool common_name_is(X509 *certificate, const struct device *device)
{
	char name[NAME_LIMIT + 1];
	int length = X509_NAME_get_text_by_NID(X509_get_subject_name(certificate), NID_commonName, name, sizeof name);
	if (length <= 0 || strlen(name) != (size_t)length)
		return false;
	return strcmp(name, device->id) == 0 || strcmp(name, device->address) == 0;
}

static int admit_certificate(struct device *device, const struct mosquitto *client, X509 *certificate)
{
	struct credential credential = {.by_certificate = true};
	bool good = fingerprint_of(certificate, credential.fingerprint) && common_name_is(certificate, device) &&
		device_has_certificate(device, credential.fingerprint);
	if (!good)
		return refuse(COUNT_REFUSED_CERTIFICATE, device->id);
	return session_began(device, client, &credential) ? MOSQ_ERR_SUCCESS : refuse(COUNT_REFUSED_SPOOL, device->id);
}

static int admit_token(struct device *device, const struct mosquitto *client, const char *password)
{
	static const enum counter reasons[] = {
		[TOKEN_MALFORMED] = COUNT_REFUSED_TOKEN_MALFORMED,
		[TOKEN_WRONG_SUBJECT] = COUNT_REFUSED_TOKEN_SUBJECT,
		[TOKEN_UNKNOWN_KEY] = COUNT_REFUSED_TOKEN_KEY,
		[TOKEN_WRONG_ALGORITHM] = COUNT_REFUSED_TOKEN_ALGORITHM,
		[TOKEN_BAD_SIGNATURE] = COUNT_REFUSED_TOKEN_SIGNATURE,
		[TOKEN_EXPIRED] = COUNT_REFUSED_TOKEN_EXPIRED,
	};
	struct credential credential = {.by_certificate = false};
	if (password == NULL)
		return refuse(COUNT_REFUSED_NO_PASSWORD, device->id);
	enum token_verdict verdict = token_check(password, device, now_ms() / 1000, &credential.key_id);
	if (verdict != TOKEN_GOOD)
		return refuse(reasons[verdict], device->id);
	return session_began(device, client, &credential) ? MOSQ_ERR_SUCCESS : refuse(COUNT_REFUSED_SPOOL, device->id);
}

static int on_basic_auth(int event, void *data, void *userdata)
{
	struct mosquitto_evt_basic_auth *asked = data;
	const char *id = mosquitto_client_id(asked->client);
	if (id == NULL)
		return refuse(COUNT_REFUSED_CLIENT_ID, NULL);
	if (is_service(id))
		return admit_service(asked->client, id, asked->username, asked->password);
	if (over_unix_socket(asked->client))
		return refuse(COUNT_REFUSED_SERVICE, id);
	struct device *device = device_at(&plugin.knowledge.devices, id, strlen(id));
	if (device == NULL)
		return refuse(COUNT_REFUSED_UNKNOWN, id);
	if (device->state != ACTIVE)
		return refuse(COUNT_REFUSED_DISABLED, id);
	X509 *certificate = mosquitto_client_certificate(asked->client);
	if (asked->username != NULL ? strcmp(asked->username, id) != 0 : certificate == NULL) {
		X509_free(certificate);
		return refuse(COUNT_REFUSED_CLIENT_ID, id);
	}
	if (certificate == NULL)
		return admit_token(device, asked->client, asked->password);
	int answer = admit_certificate(device, asked->client, certificate);
	X509_free(certificate);
	return answer;
}

static int on_disconnect(int event, void *data, void *userdata)
{
	struct mosquitto_evt_disconnect *told = data;
	struct device *device = device_of(told->client);
	if (device != NULL)
		session_ended(device, device->leaving != NULL ? device->leaving : "closed");
	return MOSQ_ERR_SUCCESS;
}

static int deny(enum counter why)
{
	count(why);
	return MOSQ_ERR_ACL_DENIED;
}

static int service_may(const struct mosquitto_evt_acl_check *asked)
{
	bool allowed = (asked->access == MOSQ_ACL_WRITE && strcmp(asked->topic, CONTROL_TOPIC) == 0) ||
		(asked->access == MOSQ_ACL_READ && strcmp(asked->topic, ANSWER_TOPIC) == 0);
	return allowed ? MOSQ_ERR_SUCCESS : deny(COUNT_DENIED_TOPIC);
}

/* Of a session that is over: its will, or what it sent before the broker closed it. A publish that is denied is
 * acknowledged; one that fails is not, and the connection is closed. */
static int too_late(void)
{
	count(COUNT_DENIED_SESSION);
	return MOSQ_ERR_AUTH;
}

static int on_acl_check(int event, void *data, void *userdata)
{
	struct mosquitto_evt_acl_check *asked = data;
	const char *rest, *id = mosquitto_client_id(asked->client);
	struct device *device = device_of(asked->client);
	if (device == NULL && id != NULL && is_service(id) && over_unix_socket(asked->client))
		return service_may(asked);
	if (device == NULL)
		return asked->access == MOSQ_ACL_WRITE ? too_late() : MOSQ_ERR_ACL_DENIED;
	switch (asked->access) {
	case MOSQ_ACL_WRITE:
		return may_publish(device, asked->topic, &rest) ? MOSQ_ERR_SUCCESS : deny(COUNT_DENIED_TOPIC);
	case MOSQ_ACL_SUBSCRIBE:
		return may_receive(device, asked->topic) ? MOSQ_ERR_SUCCESS : deny(COUNT_DENIED_SUBSCRIBE);
	case MOSQ_ACL_READ:
		return may_receive(device, asked->topic) ? MOSQ_ERR_SUCCESS : MOSQ_ERR_ACL_DENIED;
	default:
		return MOSQ_ERR_SUCCESS;
	}
}

/* What happened */

static bool within_rate(struct device *device, uint64_t time)
{
	if (plugin.rate <= 0)
		return true;
	double elapsed = time > device->allowance_ms ? (double)(time - device->allowance_ms) / 1000 : 0;
	device->allowance += elapsed * plugin.rate;
	if (device->allowance_ms == 0 || device->allowance > plugin.burst)
		device->allowance = plugin.burst;
	device->allowance_ms = time;
	if (device->allowance < 1)
		return false;
	device->allowance -= 1;
	return true;
}

/* No PUBACK and the connection closed, so that the device sends it again: never acknowledged and dropped. */
static int not_taken(struct device *device, enum counter why, const char *reason)
{
	count(why);
	device->leaving = reason;
	return MOSQ_ERR_NOMEM;
}

static int on_message(int event, void *data, void *userdata)
{
	struct mosquitto_evt_message *message = data;
	struct device *device = device_of(message->client);
	char topic[TOPIC_LIMIT];
	const char *rest = NULL;
	if (device == NULL)
		return too_late();
	if (!may_publish(device, message->topic, &rest))
		return deny(COUNT_DENIED_TOPIC);
	size_t length = inner_topic(device, message->topic, rest, topic);
	if (length == 0)
		return deny(COUNT_DENIED_TOPIC);
	if (!within_rate(device, now_ms()))
		return not_taken(device, COUNT_DENIED_RATE, "rate_limit");
	struct record record = {
		.kind = RECORD_PUBLISH,
		.flags = (uint8_t)((message->qos & 3) | (message->retain ? 8 : 0)),
		.time_ms = stamp(device),
		.session = device->session,
		.device = text_of(device->id),
		.detail = {topic, length},
		.payload = message->payload,
		.payload_length = message->payloadlen,
	};
	uint64_t sequence;
	if (!spool_append(&plugin.spool, &record, &sequence))
		return not_taken(device, COUNT_DENIED_SPOOL, "spool_refuses");
	device->last_ms = record.time_ms;
	count(COUNT_PUBLISHES);
	counters[COUNT_PUBLISHED_BYTES] += message->payloadlen;
	if (message->retain) {
		/* The message counts; nothing is ever retained. */
		count(COUNT_RETAIN_DROPPED);
		message->retain = false;
	}
	return MOSQ_ERR_SUCCESS;
}

/* One device */

static bool hand_to(const struct device *device, const struct down *down)
{
	char topic[TOPIC_LIMIT];
	down_topic(device, topic);
	return mosquitto_broker_publish_copy(
		       device->address, topic, (int)down->payload_length, down->payload, 1, false, NULL) == MOSQ_ERR_SUCCESS;
}

static enum sent hand_over(const struct down *down, void *context)
{
	const struct device *device = device_find(&plugin.knowledge.devices, down->device.at, down->device.length);
	bool live = device != NULL && device->client != NULL && device->session_ms <= down->began_by_ms;
	if (plugin.spool.refusing)
		return SEND_SPOOL_REFUSES;
	if (live && !hand_to(device, down))
		return SEND_FAILED;
	count(live ? COUNT_HANDED_LIVE : COUNT_HANDED_AWAY);
	struct record record = {
		.kind = RECORD_HANDED,
		.flags = live ? 1 : 0,
		.time_ms = now_ms(),
		.session = live ? device->session : 0,
		.device = down->device,
		.detail = down->id,
	};
	uint64_t sequence;
	return spool_append(&plugin.spool, &record, &sequence) ? SEND_DONE : SEND_SPOOL_REFUSES;
}

/* As where a client connects again to the same broker: the newest connection counts. */
static void moved(struct text id, uint64_t time_ms, void *context)
{
	struct device *device = device_find(&plugin.knowledge.devices, id.at, id.length);
	if (device != NULL && device->client != NULL && device->session_ms < time_ms)
		kick(device, "taken_over");
}

static int on_control(int event, void *data, void *userdata)
{
	struct mosquitto_evt_control *asked = data;
	const char *id = mosquitto_client_id(asked->client);
	if (id == NULL || !is_service(id) || !over_unix_socket(asked->client)) {
		count(COUNT_CONTROL_FORBIDDEN);
		return MOSQ_ERR_ACL_DENIED;
	}
	struct writer answer = {0};
	control_handle(&plugin.control, asked->payload, asked->payloadlen, &answer);
	int sent = answer.failed ? MOSQ_ERR_NOMEM
				 : mosquitto_broker_publish_copy(id, ANSWER_TOPIC, (int)answer.length, answer.data, 1, false, NULL);
	writer_free(&answer);
	return sent;
}

/* Once a second */

static void pay_what_is_owed(void)
{
	for (struct device *device = plugin.knowledge.devices.by_id; device != NULL; device = device->by_id.next) {
		if (device->owed_session == 0)
			continue;
		if (!write_disconnected(device, device->owed_session, "closed"))
			return;
		device->owed_session = 0;
	}
}

static int on_tick(int event, void *data, void *userdata)
{
	uint64_t now = now_ms() / 1000;
	if (now == plugin.tick_s)
		return MOSQ_ERR_SUCCESS;
	plugin.tick_s = now;
	bool refused = plugin.spool.refusing;
	spool_look(&plugin.spool);
	if (refused != plugin.spool.refusing)
		mosquitto_log_printf(plugin.spool.refusing ? MOSQ_LOG_ERR : MOSQ_LOG_NOTICE, "zdm: the spool %s",
			plugin.spool.refusing ? "is full: publishes are refused" : "has room again");
	if (refused && !plugin.spool.refusing)
		pay_what_is_owed();
	snapshot_tidy(&plugin.snapshot, &plugin.knowledge);
	counters[COUNT_DEVICES] = HASH_CNT(by_id, plugin.knowledge.devices.by_id);
	counters[COUNT_SPOOL_BYTES] = plugin.spool.total;
	counters[COUNT_SPOOL_SEGMENTS] = plugin.spool.segments;
	counters[COUNT_SPOOL_REFUSING] = plugin.spool.refusing;
	counters[COUNT_SNAPSHOT_BEHIND] = plugin.snapshot.behind;
	counters[COUNT_REFUSED_TLS] = thinning_failed_handshakes();
	counters_save(plugin.counters);
	return MOSQ_ERR_SUCCESS;
}

/* Start and end */

static const struct {
	int event;
	MOSQ_FUNC_generic_callback callback;
	const char *topic;
} EVENTS[] = {
	{MOSQ_EVT_BASIC_AUTH, on_basic_auth, NULL},
	{MOSQ_EVT_DISCONNECT, on_disconnect, NULL},
	{MOSQ_EVT_ACL_CHECK, on_acl_check, NULL},
	{MOSQ_EVT_MESSAGE, on_message, NULL},
	{MOSQ_EVT_CONTROL, on_control, CONTROL_TOPIC},
	{MOSQ_EVT_TICK, on_tick, NULL},
};

enum { EVENT_COUNT = sizeof EVENTS / sizeof *EVENTS };

static const char *option(struct mosquitto_opt *options, int number, const char *name, const char *fallback)
{
	for (int i = 0; i < number; i++)
		if (strcmp(options[i].key, name) == 0)
			return options[i].value;
	return fallback;
}

static bool read_secret(const char *path)
{
	FILE *file = fopen(path, "r");
	if (file == NULL)
		return false;
	size_t length = fread(plugin.secret, 1, SECRET, file);
	fclose(file);
	return length == SECRET && strspn(plugin.secret, "0123456789abcdef") == SECRET;
}

static int complain(const char *what)
{
	mosquitto_log_printf(MOSQ_LOG_ERR, "zdm: %s", what);
	return MOSQ_ERR_INVAL;
}

static int open_parts(struct mosquitto_opt *options, int number)
{
	char error[256];
	const char *secret = option(options, number, "secret", NULL), *spool = option(options, number, "spool", NULL);
	const char *snapshot = option(options, number, "snapshot", NULL);
	const char *counters_path = option(options, number, "counters", NULL);
	struct spool_limits limits = {
		.segment_bytes = strtoull(option(options, number, "segment_bytes", "67108864"), NULL, 10),
		.total_bytes = strtoull(option(options, number, "spool_bytes", "4294967296"), NULL, 10),
		.free_bytes = strtoull(option(options, number, "free_bytes", "134217728"), NULL, 10),
		.sync_ms = (unsigned)strtoul(option(options, number, "sync_ms", "1000"), NULL, 10),
	};
	plugin.rate = strtod(option(options, number, "rate", "200"), NULL);
	plugin.burst = strtod(option(options, number, "burst", "2000"), NULL);
	if (secret == NULL || spool == NULL || snapshot == NULL || counters_path == NULL || limits.sync_ms == 0)
		return complain("plugin_opt secret, spool, snapshot and counters are needed");
	if ((size_t)snprintf(plugin.counters, PATH_ROOM, "%s", counters_path) >= PATH_ROOM)
		return complain("plugin_opt counters is too long");
	if (!read_secret(secret))
		return complain("plugin_opt secret: no file with 64 hex digits");
	if (!snapshot_open(&plugin.snapshot, snapshot, &plugin.knowledge))
		return complain("plugin_opt snapshot: cannot be opened");
	if (!spool_open(&plugin.spool, spool, limits, now_ms(), error, sizeof error))
		return complain(error);
	return MOSQ_ERR_SUCCESS;
}

EXPORT int mosquitto_plugin_version(int count_given, const int *versions)
{
	for (int i = 0; i < count_given; i++)
		if (versions[i] == MOSQ_PLUGIN_VERSION)
			return MOSQ_PLUGIN_VERSION;
	return -1;
}

EXPORT int mosquitto_plugin_init(mosquitto_plugin_id_t *id, void **userdata, struct mosquitto_opt *options, int number)
{
	umask(0077);
	plugin.id = id;
	int opened = open_parts(options, number);
	if (opened != MOSQ_ERR_SUCCESS)
		return opened;
	plugin.knowledge.changed = device_changed;
	plugin.control = (struct control){&plugin.knowledge, &plugin.snapshot, hand_over, moved, NULL};
	for (int i = 0; i < EVENT_COUNT; i++) {
		int rc = mosquitto_callback_register(id, EVENTS[i].event, EVENTS[i].callback, EVENTS[i].topic, NULL);
		if (rc != MOSQ_ERR_SUCCESS)
			return rc;
	}
	mosquitto_log_printf(MOSQ_LOG_NOTICE, "zdm: ready with %u devices, spool continues at %llu",
		HASH_CNT(by_id, plugin.knowledge.devices.by_id), (unsigned long long)plugin.spool.boot);
	return thinning_begin() ? MOSQ_ERR_SUCCESS : complain("cannot stand between the broker and its log");
}

EXPORT int mosquitto_plugin_cleanup(void *userdata, struct mosquitto_opt *options, int number)
{
	for (int i = 0; i < EVENT_COUNT; i++)
		mosquitto_callback_unregister(plugin.id, EVENTS[i].event, EVENTS[i].callback, EVENTS[i].topic);
	for (struct device *device = plugin.knowledge.devices.by_id; device != NULL; device = device->by_id.next)
		if (device->client != NULL)
			session_ended(device, "closed");
	spool_close(&plugin.spool);
	snapshot_close(&plugin.snapshot);
	counters_save(plugin.counters);
	devices_free(&plugin.knowledge.devices);
	explicit_bzero(plugin.secret, sizeof plugin.secret);
	thinning_end();
	return MOSQ_ERR_SUCCESS;
}
