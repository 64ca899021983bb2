/* What the plugin counts, and the file from which ingestion reads it (docs/protocols.md 4). */
#ifndef ZDM_COUNTERS_H
#define ZDM_COUNTERS_H

#include <stdbool.h>
#include <stdint.h>

/* name as it is written, with its labels */
#define ZDM_COUNTERS(X) \
	X(CONNECTS, "connects_total") \
	X(DISCONNECTS, "disconnects_total") \
	X(REFUSED_UNKNOWN, "connects_refused_total{reason=\"unknown_device\"}") \
	X(REFUSED_DISABLED, "connects_refused_total{reason=\"disabled\"}") \
	X(REFUSED_CLIENT_ID, "connects_refused_total{reason=\"client_id\"}") \
	X(REFUSED_NO_PASSWORD, "connects_refused_total{reason=\"no_password\"}") \
	X(REFUSED_TOKEN_MALFORMED, "connects_refused_total{reason=\"token_malformed\"}") \
	X(REFUSED_TOKEN_KEY, "connects_refused_total{reason=\"token_key\"}") \
	X(REFUSED_TOKEN_ALGORITHM, "connects_refused_total{reason=\"token_algorithm\"}") \
	X(REFUSED_TOKEN_SIGNATURE, "connects_refused_total{reason=\"token_signature\"}") \
	X(REFUSED_TOKEN_SUBJECT, "connects_refused_total{reason=\"token_subject\"}") \
	X(REFUSED_TOKEN_EXPIRED, "connects_refused_total{reason=\"token_expired\"}") \
	X(REFUSED_CERTIFICATE, "connects_refused_total{reason=\"certificate\"}") \
	X(REFUSED_SERVICE, "connects_refused_total{reason=\"service\"}") \
	X(REFUSED_SPOOL, "connects_refused_total{reason=\"spool\"}") \
	X(REFUSED_TLS, "connects_refused_total{reason=\"tls\"}") \
	X(PUBLISHES, "publishes_total") \
	X(PUBLISHED_BYTES, "published_bytes_total") \
	X(DENIED_TOPIC, "publishes_refused_total{reason=\"topic\"}") \
	X(DENIED_RATE, "publishes_refused_total{reason=\"rate\"}") \
	X(DENIED_SPOOL, "publishes_refused_total{reason=\"spool\"}") \
	X(DENIED_SESSION, "publishes_refused_total{reason=\"session_over\"}") \
	X(DENIED_SUBSCRIBE, "subscribes_refused_total") \
	X(RETAIN_DROPPED, "retain_flags_dropped_total") \
	X(HANDED_LIVE, "handed_over_total{to=\"live\"}") \
	X(HANDED_AWAY, "handed_over_total{to=\"away\"}") \
	X(KICKS, "kicks_total") \
	X(CONTROL_MALFORMED, "control_refused_total{reason=\"malformed\"}") \
	X(CONTROL_GAP, "control_refused_total{reason=\"gap\"}") \
	X(CONTROL_FORBIDDEN, "control_refused_total{reason=\"forbidden\"}") \
	X(DEVICES, "devices") \
	X(SESSIONS, "sessions") \
	X(SPOOL_BYTES, "spool_bytes") \
	X(SPOOL_SEGMENTS, "spool_segments") \
	X(SPOOL_REFUSING, "spool_refusing") \
	X(SNAPSHOT_BEHIND, "snapshot_behind")

enum counter {
#define X(name, text) COUNT_##name,
	ZDM_COUNTERS(X)
#undef X
	COUNTERS
};

extern uint64_t counters[COUNTERS];

const char *counter_name(enum counter counter);

static inline void count(enum counter counter)
{
	counters[counter]++;
}

/* Write `path` anew if anything changed since the last call. */
bool counters_save(const char *path);

#endif
