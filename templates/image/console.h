/**
 * \file console.h
 * \brief A line of text in, text out. console_put() and console_get() are the driver's, console_<kind>.c.
 */
#ifndef CONSOLE_H
#define CONSOLE_H

#include <stdint.h>

/** What console_line() says of a line that does not fit, and was thrown away. */
#define CONSOLE_TOO_LONG (-1)

/** What both say at the end of the input, which only a file or a pipe has. */
#define CONSOLE_END (-2)

/** \brief Make the device ready; clocks and pins are so already (board.c). */
void console_init(void);

/** \brief Send a byte, when the device can take it. */
void console_put(char c);

/** \brief Wait for a byte. \return 0 to 255, or CONSOLE_END */
int console_get(void);

/** \brief Send a string; a line break becomes CR LF. */
void console_print(const char *text);

/** \brief Send a number in decimal. */
void console_print_int(int64_t value);

/**
 * \brief Read a line, which CR, LF or both end. Backspace takes back a character of UTF-8; other control
 *        characters but tab are ignored.
 *
 * \param[out] line without its end, closed with 0
 * \param[in]  size bytes of line, with that 0
 * \return length in bytes, CONSOLE_TOO_LONG, or CONSOLE_END, which drops what came without an end of line
 */
int32_t console_line(char *line, uint32_t size);

#endif
