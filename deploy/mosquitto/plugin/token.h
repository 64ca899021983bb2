/* A device's token: a JWT in the password (spec: mqtt-device-protocol 4). */
#ifndef ZDM_TOKEN_H
#define ZDM_TOKEN_H

#include "devices.h"

enum { TOKEN_LIMIT = 4096, TOKEN_SKEW_S = 300 };

enum token_verdict {
	TOKEN_GOOD,
	TOKEN_MALFORMED,
	TOKEN_WRONG_SUBJECT,
	TOKEN_UNKNOWN_KEY,
	TOKEN_WRONG_ALGORITHM,
	TOKEN_BAD_SIGNATURE,
	TOKEN_EXPIRED,
};

/* Whether `token` is this device's and valid at `now_s`; `key_id` is then the key that signed it. The type of the stored
 * key picks the algorithm; what the token says of it must agree. */
enum token_verdict token_check(const char *token, const struct device *device, uint64_t now_s, uint32_t *key_id);

#endif
