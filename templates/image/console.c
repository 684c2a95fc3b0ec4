/**
 * \file console.c
 * \brief Lines and numbers over any driver.
 */
#include "console.h"

#include "board.h"
#include "decimal.h"

#define BACKSPACE 0x08
#define DELETE 0x7F

void console_print(const char *text)
{
    for (; *text != '\0'; text++) {
        if (*text == '\n') {
            console_put('\r');
        }
        console_put(*text);
    }
}

void console_print_int(int64_t value)
{
    char text[DECIMAL_BYTES];
    console_print(decimal(text, value));
}

/** Whether a byte continues a character of UTF-8. */
static int continues(char c)
{
    return ((unsigned)c & 0xC0u) == 0x80u;
}

static void echo(const char *text)
{
    if (CONSOLE_ECHO) {
        console_print(text);
    }
}

int32_t console_line(char *line, uint32_t size)
{
    static int after_cr; /* an LF that follows a CR ends no second line */
    uint32_t length = 0u;
    int overlong = 0;
    for (;;) {
        const int c = console_get();
        if (c == CONSOLE_END) {
            return CONSOLE_END;
        }
        const int second = c == '\n' && after_cr;
        after_cr = c == '\r';
        if (c == '\r' || (c == '\n' && !second)) {
            echo("\n");
            line[length] = '\0';
            return overlong ? CONSOLE_TOO_LONG : (int32_t)length;
        }
        if ((c == BACKSPACE || c == DELETE) && length > 0u) {
            do {
                length--;
            } while (length > 0u && continues(line[length]));
            echo("\b \b");
        } else if ((c >= ' ' && c != DELETE) || c == '\t') {
            overlong |= length + 1u == size;
            if (!overlong) {
                line[length++] = (char)c;
                if (CONSOLE_ECHO) {
                    console_put((char)c);
                }
            }
        }
    }
}
