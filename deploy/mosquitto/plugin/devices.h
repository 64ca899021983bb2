/* What the broker knows of devices: found by id and by the address that they use in topics. */
#ifndef ZDM_DEVICES_H
#define ZDM_DEVICES_H

#include <stdbool.h>
#include <stdint.h>
#include <uthash.h>

#include "bytes.h"

enum { FINGERPRINT = 32, NAME_LIMIT = 128 };

enum state { REMOVED = 0, ACTIVE = 1, DISABLED = 2 };
enum key_type { KEY_HS256 = 1, KEY_ES256 = 2 };

struct key {
	uint32_t id;
	enum key_type type;
	uint16_t length;
	uint8_t *bytes;
};

/* With what a session proved itself. */
struct credential {
	bool by_certificate;
	uint32_t key_id;
	uint8_t fingerprint[FINGERPRINT];
};

struct device {
	char *address; /* == id where it has none of its own */
	enum state state;
	uint8_t keys_count, certificates_count;
	struct key *keys;
	uint8_t (*certificates)[FINGERPRINT];
	uint64_t sync; /* the full sync that named it last */
	uint64_t last_ms; /* newest time stamped on a message of it */
	/* The live session, if `client` is set. */
	const void *client;
	uint64_t session, session_ms; /* its number, and when it began */
	struct credential used;
	const char *leaving; /* why it is being disconnected, when we know */
	uint64_t owed_session; /* a `disconnected` record that the spool could not take */
	double allowance; /* token bucket */
	uint64_t allowance_ms;
	UT_hash_handle by_id, by_address;
	char id[];
};

/* An entry of `apply`; its texts and bytes lie in the frame it was read from. */
struct entry {
	enum state state;
	struct text id, address;
	uint8_t keys_count, certificates_count;
	struct reader keys; /* of all keys, checked */
	const uint8_t *certificates;
};

/* False when malformed. */
bool read_entry(struct reader *reader, struct entry *entry);

struct devices {
	struct device *by_id, *by_address;
	uint64_t sync;
};

struct device *device_find(const struct devices *devices, const char *id, size_t length);
struct device *device_at(const struct devices *devices, const char *address, size_t length);
/* Who has it as an address of its own. */
struct device *address_holder(const struct devices *devices, struct text address);
struct text entry_address(const struct entry *entry);
bool has_address(const struct device *device, struct text address);
/* Back to its id. */
void drop_address(struct devices *devices, struct device *device);
/* Make or replace; NULL when memory ran out. No other device may hold the address. State REMOVED keeps the device, disabled,
 * for the caller to remove. */
struct device *device_apply(struct devices *devices, const struct entry *entry);
void device_remove(struct devices *devices, struct device *device);
void devices_free(struct devices *devices);
const struct key *device_key(const struct device *device, uint32_t id);
bool device_has_certificate(const struct device *device, const uint8_t fingerprint[FINGERPRINT]);
/* Whether the live session's credential still counts. */
bool device_session_stands(const struct device *device);
void write_entry(struct writer *writer, const struct device *device);

#endif
