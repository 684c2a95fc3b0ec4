/**
 * \file slm_tile.h
 * \brief How the rows of tensors are divided into tiles.
 */
#ifndef SLM_TILE_H
#define SLM_TILE_H

#include <stdint.h>

/**
 * \brief Rows of the next tile: tiles are as equal as multiples of 4 allow, which is what kernels take at once.
 *
 * \param[in] left rows that are left, at least 1
 * \param[in] most rows of a tile at most, a multiple of 4
 */
static inline uint32_t slm_tile_rows(uint32_t left, uint32_t most)
{
    const uint32_t tiles = (left + most - 1u) / most;
    const uint32_t rows = ((left + tiles - 1u) / tiles + 3u) & ~3u;
    return rows < left ? rows : left;
}

#endif
