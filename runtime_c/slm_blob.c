#include "slm_blob.h"

#include <string.h>

uint32_t slm_crc32(uint32_t crc, const void *data, size_t bytes)
{
    /* Half a byte at a time: 64 bytes of table, and flash is read no faster than this anyway. */
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

static int section_is_inside(const slm_blob_header *header, const slm_blob_section *section)
{
    return section->offset % SLM_ALIGNMENT == 0u && section->offset <= header->total_bytes &&
           section->bytes <= header->total_bytes - section->offset;
}

slm_status slm_blob_check(const void *blob, size_t bytes, const uint32_t structure[4])
{
    static const uint8_t magic[8] = {'S', 'L', 'M', '2', 'C', 'B', 'L', 'B'};
    const slm_blob_header *header = blob;
    if (blob == NULL) {
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
    if (header->total_bytes > bytes ||
        header->sections > (header->total_bytes - sizeof *header) / sizeof(slm_blob_section) ||
        header->total_bytes < sizeof *header) {
        return SLM_ERR_BLOB_SIZE;
    }
    const slm_blob_section *section = sections_of(blob);
    uint32_t crc = slm_crc32(0u, header, offsetof(slm_blob_header, crc));
    if (slm_crc32(crc, section, header->sections * sizeof *section) != header->crc) {
        return SLM_ERR_BLOB_CHECKSUM;
    }
    if (memcmp(header->structure, structure, sizeof header->structure) != 0) {
        return SLM_ERR_BLOB_STRUCTURE;
    }
    for (uint32_t i = 0; i < header->sections; i++) {
        if (!section_is_inside(header, &section[i]) ||
            slm_crc32(0u, (const uint8_t *)blob + section[i].offset, section[i].bytes) != section[i].crc) {
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

const char *slm_label(const void *labels, uint32_t index)
{
    const uint32_t *table = labels; /* count, then the offset of each text */
    return labels == NULL || index >= table[0] ? "" : (const char *)labels + table[1u + index];
}
