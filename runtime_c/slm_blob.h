/**
 * \file slm_blob.h
 * \brief The blob: everything that training changes, read in place from flash. docs/BLOB.md fixes its bits.
 */
#ifndef SLM_BLOB_H
#define SLM_BLOB_H

#include "slm.h"

#ifdef __cplusplus
extern "C" {
#endif

/** Version of the format; a blob of another version is refused. */
#define SLM_BLOB_FORMAT 1u

/** The first bytes of a blob. All numbers are little-endian. */
typedef struct {
    uint8_t magic[8];      /**< "SLM2CBLB" */
    uint32_t format;       /**< SLM_BLOB_FORMAT */
    uint32_t total_bytes;  /**< of the whole blob, a multiple of SLM_ALIGNMENT */
    uint32_t structure[4]; /**< hash of what the code expects: calls, shapes, offsets */
    uint32_t sections;     /**< entries of the section table, which follows */
    uint32_t reserved[2];  /**< 0 */
    uint32_t crc;          /**< CRC-32 of the header up to this field, then the section table */
} slm_blob_header;

/** What a section holds. */
typedef enum {
    SLM_SECTION_WEIGHTS = 1,   /**< the struct of the generated header */
    SLM_SECTION_TOKENIZER = 2, /**< tables of slm_tokenizer.h */
    SLM_SECTION_LABELS = 3     /**< count, offsets, texts: see slm_label */
} slm_section_kind;

/** An entry of the section table. */
typedef struct {
    uint32_t kind;   /**< slm_section_kind */
    uint32_t offset; /**< from the start of the blob, a multiple of SLM_ALIGNMENT */
    uint32_t bytes;  /**< without padding */
    uint32_t crc;    /**< CRC-32 of these bytes and the padding behind them */
} slm_blob_section;

/**
 * \brief Check a blob from its magic to the last checksum.
 *
 * Reads no byte outside of [blob, blob + bytes).
 *
 * \param[in] blob      aligned to SLM_ALIGNMENT
 * \param[in] bytes     how many may be read
 * \param[in] structure the hash of the code that will read it
 * \return SLM_OK, or which of the checks failed
 */
slm_status slm_blob_check(const void *blob, size_t bytes, const uint32_t structure[4]);

/**
 * \brief Find a section of a blob that slm_blob_check accepted.
 *
 * \param[out] bytes size of the section, 0 if there is none; may be null
 * \return its start, or null
 */
const void *slm_blob_find(const void *blob, slm_section_kind kind, uint32_t *bytes);

/** \brief CRC-32 (ISO 3309, as in zlib) of `bytes` bytes, continued from `crc`; 0 starts. */
uint32_t slm_crc32(uint32_t crc, const void *data, size_t bytes);

/**
 * \brief Text of a label.
 *
 * \param[in] labels section of kind SLM_SECTION_LABELS, or null
 * \param[in] bytes  its size
 * \param[in] index  class index
 * \return UTF-8, ends with 0; "" if there is no such label
 */
const char *slm_label(const void *labels, uint32_t bytes, uint32_t index);

#ifdef __cplusplus
}
#endif

#endif
