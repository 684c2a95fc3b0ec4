/**
 * \file slm.h
 * \brief What every generated model and every caller of one shares: status codes and memory alignment.
 */
#ifndef SLM_H
#define SLM_H

#include <stddef.h>
#include <stdint.h>

/** Alignment in bytes of the arena and of the blob: the widest load that a kernel issues (LDRD needs 4, MVE 16). */
#define SLM_ALIGNMENT 16u

/** Declares a variable with that alignment: `static SLM_ALIGNED uint8_t arena[...];` */
#if !defined(__cplusplus)
#define SLM_ALIGNED _Alignas(SLM_ALIGNMENT)
#elif defined(__GNUC__)
#define SLM_ALIGNED __attribute__((aligned(SLM_ALIGNMENT))) /* clang refuses alignas behind `static` */
#else
#define SLM_ALIGNED alignas(SLM_ALIGNMENT)
#endif

#ifdef __cplusplus
extern "C" {
#endif

/** What an entry point returns. Anything but SLM_OK leaves outputs untouched. */
typedef enum {
    SLM_OK = 0,
    SLM_ERR_NULL,           /**< a required pointer is null */
    SLM_ERR_ARENA_SIZE,     /**< the arena is smaller than <NAME>_ARENA_SIZE */
    SLM_ERR_ARENA_ALIGN,    /**< the arena is not aligned to SLM_ALIGNMENT */
    SLM_ERR_BLOB_ALIGN,     /**< the blob is not aligned to SLM_ALIGNMENT */
    SLM_ERR_BLOB_SIZE,      /**< the blob is shorter than its header says: truncated */
    SLM_ERR_BLOB_MAGIC,     /**< not a slm2c blob */
    SLM_ERR_BLOB_VERSION,   /**< a blob of another format version */
    SLM_ERR_BLOB_STRUCTURE, /**< a blob of another model: its structure hash is not that of this code */
    SLM_ERR_BLOB_CHECKSUM,  /**< the blob is damaged */
    SLM_ERR_LENGTH_ZERO,    /**< n is 0, or the text has no token */
    SLM_ERR_LENGTH_MAX,     /**< n is greater than <NAME>_MAX_TOKENS */
    SLM_ERR_LENGTH_FIXED,   /**< n must be <NAME>_MAX_TOKENS: this model has a fixed length */
    SLM_ERR_TOKEN,          /**< a token id lies outside the vocabulary */
    SLM_ERR_NOT_READY       /**< the model was not initialised */
} slm_status;

/** real = scale * (q - zero_point). No kernel touches the float; it is for callers that want real values. */
typedef struct {
    float scale;
    int32_t zero_point;
} slm_quant;

/** \brief A status as text, for logs; never null. */
const char *slm_status_text(slm_status status);

#ifdef __cplusplus
}
#endif

#endif
