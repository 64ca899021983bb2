#include "devices.h"

#include <stdlib.h>
#include <string.h>

bool read_entry(struct reader *reader, struct entry *entry)
{
	uint8_t state = read_u8(reader);
	entry->id = read_text(reader);
	entry->address = read_text(reader);
	entry->keys_count = read_u8(reader);
	struct reader keys = *reader;
	for (int i = 0; i < entry->keys_count; i++) {
		read_u32(reader);
		uint8_t type = read_u8(reader);
		size_t length = read_u16(reader);
		read_bytes(reader, length);
		if (length == 0 || (type != KEY_HS256 && type != KEY_ES256))
			reader->failed = true;
	}
	entry->keys = keys;
	entry->certificates_count = read_u8(reader);
	entry->certificates = read_bytes(reader, (size_t)entry->certificates_count * FINGERPRINT);
	if (state > DISABLED || entry->id.length == 0 || entry->id.length > NAME_LIMIT || entry->address.length > NAME_LIMIT)
		reader->failed = true;
	entry->state = (enum state)state;
	return !reader->failed;
}

struct device *device_find(const struct devices *devices, const char *id, size_t length)
{
	struct device *found;
	HASH_FIND(by_id, devices->by_id, id, length, found);
	return found;
}

/* Only devices with an address of their own are in the second table: most have none. */
static bool has_own_address(const struct device *device)
{
	return device->address != device->id;
}

struct device *address_holder(const struct devices *devices, struct text address)
{
	struct device *found;
	HASH_FIND(by_address, devices->by_address, address.at, address.length, found);
	return found;
}

struct device *device_at(const struct devices *devices, const char *address, size_t length)
{
	/* The id first: no address, whoever was given it, takes an id away from its device. */
	struct device *found = device_find(devices, address, length);
	return found == NULL || has_own_address(found) ? address_holder(devices, (struct text){address, length}) : found;
}

struct text entry_address(const struct entry *entry)
{
	return entry->address.length > 0 ? entry->address : entry->id;
}

static void forget_credentials(struct device *device)
{
	for (int i = 0; i < device->keys_count; i++)
		explicit_bzero(device->keys[i].bytes, device->keys[i].length);
	free(device->keys);
	free(device->certificates);
	device->keys = NULL;
	device->certificates = NULL;
	device->keys_count = device->certificates_count = 0;
}

/* How many bytes all keys of an entry have together. */
static size_t key_bytes(const struct entry *entry)
{
	struct reader reader = entry->keys;
	size_t sum = 0;
	for (int i = 0; i < entry->keys_count; i++) {
		read_u32(&reader);
		read_u8(&reader);
		size_t length = read_u16(&reader);
		read_bytes(&reader, length);
		sum += length;
	}
	return sum;
}

/* One block: the keys, then the bytes of all of them. */
static bool take_keys(struct device *device, const struct entry *entry)
{
	struct reader reader = entry->keys;
	if (entry->keys_count == 0)
		return true;
	device->keys = calloc(1, entry->keys_count * sizeof *device->keys + key_bytes(entry));
	if (device->keys == NULL)
		return false;
	uint8_t *at = (uint8_t *)(device->keys + entry->keys_count);
	for (int i = 0; i < entry->keys_count; i++) {
		struct key *key = &device->keys[i];
		key->id = read_u32(&reader);
		key->type = (enum key_type)read_u8(&reader);
		key->length = read_u16(&reader);
		key->bytes = at;
		memcpy(at, read_bytes(&reader, key->length), key->length);
		at += key->length;
	}
	device->keys_count = entry->keys_count;
	return true;
}

static bool take_certificates(struct device *device, const struct entry *entry)
{
	size_t size = (size_t)entry->certificates_count * FINGERPRINT;
	if (size == 0)
		return true;
	device->certificates = malloc(size);
	if (device->certificates == NULL)
		return false;
	memcpy(device->certificates, entry->certificates, size);
	device->certificates_count = entry->certificates_count;
	return true;
}

void drop_address(struct devices *devices, struct device *device)
{
	if (!has_own_address(device))
		return;
	HASH_DELETE(by_address, devices->by_address, device);
	free(device->address);
	device->address = device->id;
}

static bool is(const char *string, struct text text)
{
	return strlen(string) == text.length && memcmp(string, text.at, text.length) == 0;
}

bool has_address(const struct device *device, struct text address)
{
	return is(device->address, address);
}

static bool take_address(struct devices *devices, struct device *device, const struct entry *entry)
{
	struct text wanted = entry_address(entry);
	if (has_address(device, wanted))
		return true;
	drop_address(devices, device);
	if (is(device->id, wanted))
		return true;
	char *address = strndup(wanted.at, wanted.length);
	if (address == NULL)
		return false;
	device->address = address;
	HASH_ADD_KEYPTR(by_address, devices->by_address, device->address, wanted.length, device);
	return true;
}

static struct device *make(struct devices *devices, struct text id)
{
	struct device *device = calloc(1, sizeof *device + id.length + 1);
	if (device == NULL)
		return NULL;
	memcpy(device->id, id.at, id.length);
	device->address = device->id;
	HASH_ADD(by_id, devices->by_id, id, (unsigned)id.length, device);
	return device;
}

struct device *device_apply(struct devices *devices, const struct entry *entry)
{
	struct device *device = device_find(devices, entry->id.at, entry->id.length);
	if (device == NULL && (device = make(devices, entry->id)) == NULL)
		return NULL;
	forget_credentials(device);
	device->sync = devices->sync;
	device->state = DISABLED;
	if (!take_address(devices, device, entry) || !take_keys(device, entry) || !take_certificates(device, entry))
		return NULL;
	device->state = entry->state == ACTIVE ? ACTIVE : DISABLED;
	return device;
}

void device_remove(struct devices *devices, struct device *device)
{
	drop_address(devices, device);
	HASH_DELETE(by_id, devices->by_id, device);
	forget_credentials(device);
	free(device);
}

void devices_free(struct devices *devices)
{
	struct device *device, *next;
	HASH_ITER(by_id, devices->by_id, device, next)
		device_remove(devices, device);
}

const struct key *device_key(const struct device *device, uint32_t id)
{
	for (int i = 0; i < device->keys_count; i++)
		if (device->keys[i].id == id)
			return &device->keys[i];
	return NULL;
}

bool device_has_certificate(const struct device *device, const uint8_t fingerprint[FINGERPRINT])
{
	for (int i = 0; i < device->certificates_count; i++)
		if (memcmp(device->certificates[i], fingerprint, FINGERPRINT) == 0)
			return true;
	return false;
}

bool device_session_stands(const struct device *device)
{
	if (device->state != ACTIVE)
		return false;
	return device->used.by_certificate ? device_has_certificate(device, device->used.fingerprint)
					   : device_key(device, device->used.key_id) != NULL;
}

void write_entry(struct writer *writer, const struct device *device)
{
	write_u8(writer, (uint8_t)device->state);
	write_text(writer, device->id, strlen(device->id));
	write_text(writer, device->address, strlen(device->address));
	write_u8(writer, device->keys_count);
	for (int i = 0; i < device->keys_count; i++) {
		write_u32(writer, device->keys[i].id);
		write_u8(writer, (uint8_t)device->keys[i].type);
		write_u16(writer, device->keys[i].length);
		write_bytes(writer, device->keys[i].bytes, device->keys[i].length);
	}
	write_u8(writer, device->certificates_count);
	write_bytes(writer, device->certificates, (size_t)device->certificates_count * FINGERPRINT);
}
