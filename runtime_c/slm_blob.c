#include "slm_blob.h"

#include <stdbool.h>
#include <string.h>

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "blobs are little-endian and read in place: build for a little-endian core"
#endif

/* The bits that docs/BLOB.md fixes. */
_Static_assert(sizeof(slm_blob_header) == 48 && offsetof(slm_blob_header, format) == 8 &&
                   offsetof(slm_blob_header, total_bytes) == 12 && offsetof(slm_blob_header, structure) == 16 &&
                   offsetof(slm_blob_header, sections) == 32 && offsetof(slm_blob_header, reserved) == 36 &&
                   offsetof(slm_blob_header, crc) == 44,
               "slm_blob_header");
_Static_assert(sizeof(slm_blob_section) == 16 && offsetof(slm_blob_section, offset) == 4 &&
                   offsetof(slm_blob_section, bytes) == 8 && offsetof(slm_blob_section, crc) == 12,
               "slm_blob_section");

uint32_t slm_crc32(uint32_t crc, const void *data, size_t bytes)
{
    /* Half a byte at a time: 64 bytes of table, ten instructions a byte, and a blob is read once. */
    static const uint32_t table[16] = {
        0x00000000u, 0x1DB71064u, 0x3B6E20C8u, 0x26D930ACu, 0x76DC4190u, 0x6B6B51F4u, 0x4DB26158u, 0x5005713Cu,
        0xEDB88320u, 0xF00F9344u, 0xD6D6A3E8u, 0xCB61B38Cu, 0x9B64C2B0u, 0x86D3D2D4u, 0xA00AE278u, 0xBDBDF21Cu,
    };
    const uint8_t *p = data;
    crc = ~crc;
    for (size_t i = 0; i < bytes; i++) {
        crc ^= p[i];
        crc = (crc >> 4) ^ table[crc & 15u];
        crc = (crc >> 4) ^ table[crc & 15u];
    }
    return ~crc;
}

static const slm_blob_section *sections_of(const void *blob)
{
    return (const slm_blob_section *)((const slm_blob_header *)blob + 1);
}

/** Whether the header's sizes fit each other and `bytes`. All of them are multiples of SLM_ALIGNMENT. */
static bool sizes_are_sound(const slm_blob_header *header, size_t bytes)
{
    const uint32_t total = header->total_bytes;
    return total <= bytes && total >= sizeof *header && total % SLM_ALIGNMENT == 0u &&
           header->sections <= (total - sizeof *header) / sizeof(slm_blob_section);
}

/** Whether a section lies inside the blob, and it and the padding behind it have its checksum. */
static bool section_is_sound(const slm_blob_header *header, const slm_blob_section *section)
{
    if (section->offset % SLM_ALIGNMENT != 0u || section->offset > header->total_bytes ||
        section->bytes > header->total_bytes - section->offset) {
        return false;
    }
    const size_t padded = ((size_t)section->bytes + SLM_ALIGNMENT - 1u) / SLM_ALIGNMENT * SLM_ALIGNMENT;
    return slm_crc32(0u, (const uint8_t *)header + section->offset, padded) == section->crc;
}

slm_status slm_blob_check(const void *blob, size_t bytes, const uint32_t structure[4])
{
    static const uint8_t magic[8] = {'S', 'L', 'M', '2', 'C', 'B', 'L', 'B'};
    const slm_blob_header *header = blob;
    if (blob == NULL || structure == NULL) {
        return SLM_ERR_NULL;
    }
    if ((uintptr_t)blob % SLM_ALIGNMENT != 0u) {
        return SLM_ERR_BLOB_ALIGN;
    }
    if (bytes < sizeof *header) {
        return SLM_ERR_BLOB_SIZE;
    }
    if (memcmp(header->magic, magic, sizeof magic) != 0) {
        return SLM_ERR_BLOB_MAGIC;
    }
    if (header->format != SLM_BLOB_FORMAT) {
        return SLM_ERR_BLOB_VERSION;
    }
    if (!sizes_are_sound(header, bytes)) {
        return SLM_ERR_BLOB_SIZE;
    }
    const slm_blob_section *section = sections_of(blob);
    const uint32_t crc = slm_crc32(0u, header, offsetof(slm_blob_header, crc));
    if (slm_crc32(crc, section, header->sections * sizeof *section) != header->crc) {
        return SLM_ERR_BLOB_CHECKSUM;
    }
    if (memcmp(header->structure, structure, sizeof header->structure) != 0) {
        return SLM_ERR_BLOB_STRUCTURE;
    }
    for (uint32_t i = 0; i < header->sections; i++) {
        if (!section_is_sound(header, &section[i])) {
            return SLM_ERR_BLOB_CHECKSUM;
        }
    }
    return SLM_OK;
}

const void *slm_blob_find(const void *blob, slm_section_kind kind, uint32_t *bytes)
{
    const slm_blob_header *header = blob;
    const slm_blob_section *section = sections_of(blob);
    for (uint32_t i = 0; i < header->sections; i++) {
        if (section[i].kind == (uint32_t)kind) {
            if (bytes != NULL) {
                *bytes = section[i].bytes;
            }
            return (const uint8_t *)blob + section[i].offset;
        }
    }
    if (bytes != NULL) {
        *bytes = 0u;
    }
    return NULL;
}

const char *slm_label(const void *labels, uint32_t bytes, uint32_t index)
{
    const uint32_t *table = labels; /* count, then the offset of each text */
    const char *texts = labels;
    if (labels == NULL || bytes / sizeof *table < (size_t)index + 2u || index >= table[0] ||
        table[1u + index] >= bytes || texts[bytes - 1u] != '\0') {
        return "";
    }
    return texts + table[1u + index];
}
