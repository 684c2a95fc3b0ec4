/**
 * \file slm_tokenizer.h
 * \brief Text to token ids: WordPiece as Hugging Face `tokenizers` does it, from tables in the blob.
 */
#ifndef SLM_TOKENIZER_H
#define SLM_TOKENIZER_H

#include "slm.h"

/** Characters of the longest word that is looked up; a longer one is unknown. The word is buffered on the stack. */
#define SLM_TOKENIZER_WORD_CHARS 100u

/**
 * \brief The token ids of a text, special tokens included, cut off at the end if they are too many.
 *
 * The result is that of Tokenizer.encode() in slm2c/tokenizer.py, for any bytes. Bytes that are not UTF-8 count as
 * U+FFFD, one for each maximal subpart (Unicode 3.9, table 3-8), as in Python's bytes.decode("utf-8", "replace").
 * NUL is a character like others. The text is read once, and no further than \p max_ids needs. Stack: 0.6 KB.
 *
 * Any \p tables are safe: damage changes the ids or is reported, but nothing outside is read or written.
 *
 * \param[in]  tables       the blob's tokenizer section, made by Tokenizer.to_bytes(); any alignment
 * \param[in]  tables_size  its size in bytes
 * \param[in]  text         UTF-8, not terminated
 * \param[in]  text_bytes   its size in bytes; 0 is allowed
 * \param[out] ids          the ids, 0..65535; those behind *n may be overwritten as well
 * \param[in]  max_ids      how many \p ids holds, at least the number of special tokens
 * \param[out] n            how many ids there are, 1..max_ids
 *
 * \return SLM_OK, SLM_ERR_NULL, SLM_ERR_BLOB_SIZE (\p tables is cut short), SLM_ERR_BLOB_CHECKSUM (\p tables
 *         contradicts itself), SLM_ERR_LENGTH_MAX (\p max_ids has no room for the special tokens) or
 *         SLM_ERR_LENGTH_ZERO (there are no special tokens, and the text has no token either).
 */
slm_status slm_tokenize(const void *tables, size_t tables_size, const char *text, size_t text_bytes, int32_t *ids,
                        uint32_t max_ids, uint32_t *n);

#endif
