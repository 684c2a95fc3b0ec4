/**
 * \file slm_tokenizer.c
 * \brief WordPiece over a stream of characters. The tables are described in slm2c/tokenizer.py, Tokenizer.to_bytes().
 */
#include "slm_tokenizer.h"

#include <stdbool.h>
#include <string.h>

#define WORD_BYTES (4u * SLM_TOKENIZER_WORD_CHARS)
#define HEADER_BYTES 64u
#define PLANES 17u
#define REPLACEMENT_CHARACTER 0xFFFDu
#define HANGUL_FIRST 0xAC00u
#define HANGUL_COUNT 11172u

/** The header: 32-bit words of the section, by number. */
enum {
    SECTION_BYTES = 0,
    UNKNOWN_ID = 1,
    WORD_CHARS = 2,
    HANGUL_DECOMPOSES = 3,
    IDS_BEFORE = 4,
    IDS_BEHIND = 5,
    SPECIAL_IDS = 6,
    RUN_COUNT = 7,
    RUNS = 8,
    REPLACEMENT_BYTES = 9,
    REPLACEMENTS = 10,
    ADDED_BYTES = 11,
    ADDED = 12,
    PIECE_BYTES = 13,
    DIRECTORY = 14
};

/** The text's own ids, and the word that is being read. */
typedef struct {
    const uint8_t *tables;
    int32_t *ids;
    uint32_t n;     /* ids so far */
    uint32_t limit; /* ids that fit */
    uint32_t chars; /* of the word, WORD_CHARS + 1 for any that is too long */
    uint32_t bytes; /* of the word */
    uint8_t word[WORD_BYTES];
} encoder;

/* Flash may hold the section at any address: GCC and clang turn these into single loads where the core allows that. */
static uint32_t load_u16(const uint8_t *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8;
}

static uint32_t load_u32(const uint8_t *p)
{
    return load_u16(p) | load_u16(p + 2) << 16;
}

static uint32_t header(const uint8_t *tables, uint32_t word)
{
    return load_u32(tables + (size_t)4u * word);
}

/** Whether `count` items of `width` bytes at `offset` lie in the section. */
static bool inside(const uint8_t *tables, uint32_t offset, uint32_t count, uint32_t width)
{
    const uint32_t size = header(tables, SECTION_BYTES);
    return offset <= size && count <= (size - offset) / width;
}

/** Everything that is the same for every text is checked here; replacements and added tokens where they are read. */
static slm_status check_tables(const uint8_t *tables, size_t size)
{
    if (size < HEADER_BYTES || header(tables, SECTION_BYTES) > size) {
        return SLM_ERR_BLOB_SIZE;
    }
    const uint32_t before = header(tables, IDS_BEFORE);
    const uint32_t behind = header(tables, IDS_BEHIND);
    const uint32_t runs = header(tables, RUNS);
    const uint32_t run_count = header(tables, RUN_COUNT);
    const uint32_t lengths = header(tables, PIECE_BYTES);
    const uint32_t directory = header(tables, DIRECTORY);
    /* Numbers first: no sum below overflows. */
    bool sound = header(tables, UNKNOWN_ID) <= UINT16_MAX && header(tables, WORD_CHARS) <= SLM_TOKENIZER_WORD_CHARS &&
                 before <= UINT16_MAX && behind <= UINT16_MAX && run_count <= UINT16_MAX && lengths <= WORD_BYTES;
    sound = sound && inside(tables, header(tables, SPECIAL_IDS), before + behind, 2u) &&
            inside(tables, runs, PLANES + 1u + 2u * run_count, 2u) &&
            inside(tables, header(tables, REPLACEMENTS), header(tables, REPLACEMENT_BYTES), 1u) &&
            inside(tables, header(tables, ADDED), header(tables, ADDED_BYTES), 1u) &&
            inside(tables, directory, 2u * lengths, 8u);
    for (uint32_t plane = 0; sound && plane < PLANES; plane++) {
        const uint8_t *first = tables + runs + (size_t)2u * plane;
        sound = load_u16(first) < load_u16(first + 2) && load_u16(first + 2) <= run_count;
    }
    for (uint32_t i = 0; sound && i < 2u * lengths; i++) {
        const uint8_t *entry = tables + directory + (size_t)8u * i;
        sound = inside(tables, load_u32(entry), load_u32(entry + 4), i % lengths + 3u);
    }
    return sound ? SLM_OK : SLM_ERR_BLOB_CHECKSUM;
}

/** Takes one character off `*at`; each maximal subpart of what is not UTF-8 is U+FFFD. Never a surrogate. */
static uint32_t next_character(const uint8_t **at, const uint8_t *end)
{
    const uint32_t lead = *(*at)++;
    uint32_t tails = 0;
    uint32_t low = 0x80u; /* of the second byte: no overlong forms, surrogates, or more than U+10FFFF */
    uint32_t high = 0xBFu;
    if (lead < 0x80u) {
        return lead;
    }
    if (lead >= 0xC2u && lead <= 0xDFu) {
        tails = 1;
    } else if (lead >= 0xE0u && lead <= 0xEFu) {
        tails = 2;
        low = lead == 0xE0u ? 0xA0u : low;
        high = lead == 0xEDu ? 0x9Fu : high;
    } else if (lead >= 0xF0u && lead <= 0xF4u) {
        tails = 3;
        low = lead == 0xF0u ? 0x90u : low;
        high = lead == 0xF4u ? 0x8Fu : high;
    } else {
        return REPLACEMENT_CHARACTER;
    }
    uint32_t c = lead & (0x3Fu >> tails);
    for (uint32_t i = 0; i < tails; i++) {
        if (*at == end || **at < low || **at > high) {
            return REPLACEMENT_CHARACTER;
        }
        c = c << 6 | (*(*at)++ & 0x3Fu);
        low = 0x80u;
        high = 0xBFu;
    }
    return c;
}

/** The id of the longest piece that `text` begins with; its length in bytes is returned, 0 if there is none. */
static uint32_t longest_piece(const uint8_t *tables, bool continuing, const uint8_t *text, uint32_t bytes, int32_t *id)
{
    const uint32_t lengths = header(tables, PIECE_BYTES);
    const uint8_t *directory = tables + header(tables, DIRECTORY) + (continuing ? (size_t)8u * lengths : 0u);
    for (uint32_t length = bytes < lengths ? bytes : lengths; length > 0u; length--) {
        const uint8_t *entry = directory + (size_t)8u * (length - 1u);
        const uint8_t *records = tables + load_u32(entry);
        uint32_t low = 0;
        uint32_t high = load_u32(entry + 4);
        while (low < high) {
            const uint32_t middle = low + (high - low) / 2u;
            const uint8_t *record = records + (size_t)middle * (length + 2u);
            const int order = memcmp(text, record, length);
            if (order == 0) {
                *id = (int32_t)load_u16(record + length);
                return length;
            }
            if (order < 0) {
                high = middle;
            } else {
                low = middle + 1u;
            }
        }
    }
    return 0;
}

static void put_id(encoder *e, int32_t id)
{
    if (e->n < e->limit) {
        e->ids[e->n++] = id;
    }
}

/** Looks up the word that was read, if any, and begins another. */
static void end_word(encoder *e)
{
    const uint32_t first = e->n;
    bool known = e->chars <= header(e->tables, WORD_CHARS);
    for (uint32_t at = 0; known && at < e->bytes;) {
        int32_t id = 0;
        const uint32_t length = longest_piece(e->tables, at > 0u, &e->word[at], e->bytes - at, &id);
        known = length > 0u;
        put_id(e, id);
        at += length;
    }
    if (!known) {
        e->n = first;
        put_id(e, (int32_t)header(e->tables, UNKNOWN_ID));
    }
    e->chars = 0;
    e->bytes = 0;
}

static void put_byte(encoder *e, uint32_t byte)
{
    const uint32_t most = header(e->tables, WORD_CHARS);
    if ((byte & 0xC0u) != 0x80u && e->chars <= most) {
        e->chars++;
    }
    if (e->chars <= most && e->bytes < WORD_BYTES) {
        e->word[e->bytes++] = (uint8_t)byte;
    }
}

static void put_utf8(encoder *e, uint32_t c)
{
    if (c < 0x80u) {
        put_byte(e, c);
        return;
    }
    const uint32_t tails = c < 0x800u ? 1u : c < 0x10000u ? 2u : 3u;
    put_byte(e, (0x7F80u >> tails & 0xFFu) | c >> 6u * tails);
    for (uint32_t i = tails; i > 0u; i--) {
        put_byte(e, 0x80u | (c >> 6u * (i - 1u) & 0x3Fu));
    }
}

/** What the tables make of a character: the run of code points that it lies in is found by bisection. */
static void put_character(encoder *e, uint32_t c)
{
    const uint8_t *runs = e->tables + header(e->tables, RUNS);
    const uint8_t *starts = runs + (size_t)2u * (PLANES + 1u);
    const uint8_t *texts = starts + (size_t)2u * header(e->tables, RUN_COUNT);
    const uint8_t *plane = runs + (size_t)2u * (c >> 16);
    uint32_t run = load_u16(plane);
    uint32_t end = load_u16(plane + 2);
    while (end - run > 1u) {
        const uint32_t middle = run + (end - run) / 2u;
        if (load_u16(starts + (size_t)2u * middle) <= (c & 0xFFFFu)) {
            run = middle;
        } else {
            end = middle;
        }
    }

    const uint8_t *pool = e->tables + header(e->tables, REPLACEMENTS);
    const uint32_t pool_bytes = header(e->tables, REPLACEMENT_BYTES);
    const uint32_t offset = load_u16(texts + (size_t)2u * run);
    if (offset >= pool_bytes || pool[offset] >= pool_bytes - offset) {
        return; /* only in damaged tables */
    }
    for (uint32_t i = 1; i <= pool[offset]; i++) {
        const uint8_t byte = pool[offset + i];
        if (byte == (uint8_t)' ') {
            end_word(e);
        } else if (byte == 0u) {
            put_utf8(e, c);
        } else {
            put_byte(e, byte);
        }
    }
}

/** A Hangul syllable is put as its two or three jamo (Unicode 3.12) if the tokenizer decomposes. */
static void put_text_character(encoder *e, uint32_t c)
{
    const uint32_t s = c - HANGUL_FIRST;
    if (s >= HANGUL_COUNT || header(e->tables, HANGUL_DECOMPOSES) == 0u) {
        put_character(e, c);
        return;
    }
    put_character(e, 0x1100u + s / 588u);
    put_character(e, 0x1161u + s % 588u / 28u);
    if (s % 28u != 0u) {
        put_character(e, 0x11A7u + s % 28u);
    }
}

/** The id of the added token that the text goes on with; its length in bytes is returned, 0 if there is none. */
static size_t added_token(const uint8_t *tables, const uint8_t *at, const uint8_t *end, int32_t *id)
{
    const uint8_t *token = tables + header(tables, ADDED);
    uint32_t left = header(tables, ADDED_BYTES);
    while (left >= 4u) {
        const uint32_t bytes = load_u16(token + 2);
        if (bytes == 0u || bytes > left - 4u) {
            break; /* only in damaged tables */
        }
        if (bytes <= (size_t)(end - at) && memcmp(at, token + 4, bytes) == 0) {
            *id = (int32_t)load_u16(token);
            return bytes;
        }
        token += 4u + bytes;
        left -= 4u + bytes;
    }
    return 0;
}

slm_status slm_tokenize(const void *tables, size_t tables_size, const char *text, size_t text_bytes, int32_t *ids,
                        uint32_t max_ids, uint32_t *n)
{
    if (tables == NULL || text == NULL || ids == NULL || n == NULL) {
        return SLM_ERR_NULL;
    }
    const uint8_t *section = tables;
    const slm_status status = check_tables(section, tables_size);
    if (status != SLM_OK) {
        return status;
    }
    const uint32_t before = header(section, IDS_BEFORE);
    const uint32_t behind = header(section, IDS_BEHIND);
    const uint8_t *special = section + header(section, SPECIAL_IDS);
    if (before + behind > max_ids) {
        return SLM_ERR_LENGTH_MAX;
    }

    encoder e; /* not initialised as a whole: that would clear the word */
    e.tables = section;
    e.ids = ids + before;
    e.n = 0;
    e.limit = max_ids - before - behind;
    e.chars = 0;
    e.bytes = 0;
    const uint8_t *at = (const uint8_t *)text;
    const uint8_t *end = at + text_bytes;
    while (at < end && e.n < e.limit) {
        int32_t id = 0;
        const size_t bytes = added_token(section, at, end, &id);
        if (bytes > 0u) {
            end_word(&e);
            put_id(&e, id);
            at += bytes;
        } else {
            put_text_character(&e, next_character(&at, end));
        }
    }
    end_word(&e);

    const uint32_t count = before + e.n + behind;
    if (count == 0u) {
        return SLM_ERR_LENGTH_ZERO;
    }
    for (uint32_t i = 0; i < before + behind; i++) {
        ids[i < before ? i : e.n + i] = (int32_t)load_u16(special + (size_t)2u * i);
    }
    *n = count;
    return SLM_OK;
}
