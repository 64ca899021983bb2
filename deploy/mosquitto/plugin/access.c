#include "access.h"

#include <stdio.h>
#include <string.h>

static const char DATA[] = "j/data/", UP[] = "j/up/", DOWN[] = "j/dn/";

/* What follows `prefix` and the device's address; NULL when `topic` does not begin so. */
static const char *after_address(const char *topic, const char *prefix, const struct device *device)
{
	size_t prefix_length = strlen(prefix), address_length = strlen(device->address);
	if (strncmp(topic, prefix, prefix_length) != 0)
		return NULL;
	if (strncmp(topic + prefix_length, device->address, address_length) != 0)
		return NULL;
	const char *rest = topic + prefix_length + address_length;
	return *rest == 0 || *rest == '/' ? rest : NULL;
}

bool may_publish(const struct device *device, const char *topic, const char **rest)
{
	*rest = after_address(topic, DATA, device);
	if (*rest != NULL)
		return true;
	*rest = after_address(topic, UP, device);
	return *rest != NULL && **rest == 0;
}

bool may_receive(const struct device *device, const char *topic)
{
	const char *rest = after_address(topic, DOWN, device);
	return rest != NULL && *rest == 0;
}

size_t inner_topic(const struct device *device, const char *topic, const char *rest, char out[TOPIC_LIMIT])
{
	const char *prefix = topic[2] == 'd' ? DATA : UP;
	int length = snprintf(out, TOPIC_LIMIT, "%s%s%s", prefix, device->id, rest);
	return length > 0 && length < TOPIC_LIMIT ? (size_t)length : 0;
}

void down_topic(const struct device *device, char out[TOPIC_LIMIT])
{
	snprintf(out, TOPIC_LIMIT, "%s%s", DOWN, device->address);
}
