/**
 * \file decimal.h
 * \brief A number in decimal, without the C library.
 */
#ifndef DECIMAL_H
#define DECIMAL_H

#include <stdint.h>

/** Bytes of the longest, its sign and end included. */
#define DECIMAL_BYTES 21

/** \brief Write a number to the end of `text`. \return where it begins */
static inline const char *decimal(char text[DECIMAL_BYTES], int64_t value)
{
    char *at = &text[DECIMAL_BYTES - 1];
    uint64_t rest = value < 0 ? 0u - (uint64_t)value : (uint64_t)value;
    *at = '\0';
    do {
        *--at = (char)('0' + (int)(rest % 10u));
        rest /= 10u;
    } while (rest != 0u);
    if (value < 0) {
        *--at = '-';
    }
    return at;
}

#endif
