/* What the broker writes to standard error, passed on thinned out: it has a line for each connection that fails in TLS or
 * at its first packet, and nobody counts those, since no event of it tells of them. */
#ifndef ZDM_THINNING_H
#define ZDM_THINNING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { LINES_OF_A_KIND = 10, KINDS = 64 };

struct thinning {
	uint64_t second;
	unsigned passed[KINDS], left_out;
	uint64_t failed_handshakes;
};

/* Whether `line` is passed on: of those that begin alike, but for the time before them, ten in a second are. */
bool thinning_passes(struct thinning *thinning, const char *line, size_t length, uint64_t now_s);

/* Put standard error through a thread that thins it out, until `thinning_end`. */
bool thinning_begin(void);
void thinning_end(void);
uint64_t thinning_failed_handshakes(void);

#endif
