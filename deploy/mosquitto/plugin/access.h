/* Which topics a device may use (spec: mqtt-device-protocol 5). */
#ifndef ZDM_ACCESS_H
#define ZDM_ACCESS_H

#include "devices.h"

enum { TOPIC_LIMIT = 1024 };

/* `j/data/<address>[/…]` or `j/up/<address>`; what follows the address is `rest` (with its slash, or empty). */
bool may_publish(const struct device *device, const char *topic, const char **rest);
/* `j/dn/<address>` exactly: to subscribe and to be sent. */
bool may_receive(const struct device *device, const char *topic);
/* The topic with the device id in place of the address, into `out`; the length, or 0 when it does not fit. */
size_t inner_topic(const struct device *device, const char *topic, const char *rest, char out[TOPIC_LIMIT]);
void down_topic(const struct device *device, char out[TOPIC_LIMIT]);

#endif
