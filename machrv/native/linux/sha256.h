/* SHA-256 (FIPS 180-4), for file names. */

#ifndef MACHRV_SHA256_H
#define MACHRV_SHA256_H

#include <stddef.h>

#pragma GCC visibility push(hidden)

#define SHA256_HEX 64

/* The digest in hexadecimal, and a NUL. */
void sha256_hex(const void *data, size_t size, char hex[SHA256_HEX + 1]);

#pragma GCC visibility pop

#endif
