#include "slm.h"

const char *slm_status_text(slm_status status)
{
    switch (status) {
    case SLM_OK:
        return "ok";
    case SLM_ERR_NULL:
        return "a required pointer is null";
    case SLM_ERR_ARENA_SIZE:
        return "the arena is too small";
    case SLM_ERR_ARENA_ALIGN:
        return "the arena is not aligned";
    case SLM_ERR_BLOB_ALIGN:
        return "the blob is not aligned";
    case SLM_ERR_BLOB_SIZE:
        return "the blob is truncated";
    case SLM_ERR_BLOB_MAGIC:
        return "not a slm2c blob";
    case SLM_ERR_BLOB_VERSION:
        return "the blob has another format version";
    case SLM_ERR_BLOB_STRUCTURE:
        return "the blob is that of another model";
    case SLM_ERR_BLOB_CHECKSUM:
        return "the blob is damaged";
    case SLM_ERR_LENGTH_ZERO:
        return "the input has no token";
    case SLM_ERR_LENGTH_MAX:
        return "the input has too many tokens";
    case SLM_ERR_LENGTH_FIXED:
        return "the input must have the model's full length";
    case SLM_ERR_TOKEN:
        return "a token id lies outside the vocabulary";
    case SLM_ERR_NOT_READY:
        return "the model was not initialised";
    default:
        return "unknown status";
    }
}
