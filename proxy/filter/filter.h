/* What the two halves of the filter know of each other. */
#pragma once

#include <string.h>

#include "call.h"

#define MOST_BODY (128 * 1024) /* reading and changing more takes about as long as a small query takes altogether */
#define MOST_REASON (64 * 1024)

void relay_failure(Call *call, Buffer reason); /* ask Python for the answer to a call that the upstream did not answer */
void note_answered(Call *call);

static inline bool is_named(const Header *header, const char *name) {
  return header->name_length == strlen(name) && memcmp(header->name, name, header->name_length) == 0;
}
