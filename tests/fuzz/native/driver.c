/* In libFuzzer's place, where there is none: tests/fuzz/native.py writes inputs (four bytes of length, then the input) and reads a
   byte for each that has passed. */

#include "target.h"

#include <errno.h>

static bool whole(void *into, size_t size)
{
    for (size_t at = 0; at < size;) {
        ssize_t got = read(STDIN_FILENO, (char *)into + at, size - at);
        if (got <= 0)
            return false;
        at += (size_t)got;
    }
    return true;
}

int main(int argc, char **argv)
{
    static uint8_t data[1 << 16];
    uint32_t size;
    LLVMFuzzerInitialize(&argc, &argv);
    while (whole(&size, sizeof size) && size <= sizeof data && whole(data, size)) {
        uint8_t *exact = malloc(size ? size : 1); /* so that a sanitizer knows where it ends */
        if (!exact)
            return 1;
        memcpy(exact, data, size);
        LLVMFuzzerTestOneInput(exact, size);
        free(exact);
        if (write(STDOUT_FILENO, "", 1) != 1)
            return 1;
    }
    return 0;
}
