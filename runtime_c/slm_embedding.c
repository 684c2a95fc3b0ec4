#include "slm_embedding.h"
#include "slm_layout.h"
#include "slm_math.h"
#include <stddef.h>

#define LOOKUPS 3u

/* Unused lookups have null ids. */
SLM_INLINE void embed(const slm_embedding_params *params, const int32_t *const ids[LOOKUPS],
                      const int8_t *const tables[LOOKUPS], const int8_t *rows, void *output, slm_type type,
                      uint32_t count, uint32_t columns)
{
    for (uint32_t i = 0; i < count; i++) {
        for (uint32_t c = 0; c < columns; c++) {
            int32_t sum = params->offset;
            for (uint32_t k = 0; k < LOOKUPS; k++) {
                if (ids[k] != NULL) {
                    sum += params->weights[k] * tables[k][(uint32_t)ids[k][i] * columns + c];
                }
            }
            if (rows != NULL) {
                sum += params->rows_weight * rows[i * columns + c];
            }
            slm_store(output, type, (int32_t)(i * columns + c), slm_saturate(sum >> params->shift, type));
        }
    }
}

void slm_embedding_s8(const slm_embedding_params *params, const int32_t *ids0, const int8_t *table0, const int8_t *rows,
                      int8_t *output, uint32_t count, uint32_t columns)
{
    const int32_t *const ids[LOOKUPS] = {ids0, NULL, NULL};
    const int8_t *const tables[LOOKUPS] = {table0, NULL, NULL};
    embed(params, ids, tables, rows, output, SLM_S8, count, columns);
}

void slm_embedding_s16(const slm_embedding_params *params, const int32_t *ids0, const int8_t *table0,
                       const int8_t *rows, int16_t *output, uint32_t count, uint32_t columns)
{
    const int32_t *const ids[LOOKUPS] = {ids0, NULL, NULL};
    const int8_t *const tables[LOOKUPS] = {table0, NULL, NULL};
    embed(params, ids, tables, rows, output, SLM_S16, count, columns);
}

void slm_embedding2_s8(const slm_embedding_params *params, const int32_t *ids0, const int8_t *table0,
                       const int32_t *ids1, const int8_t *table1, const int8_t *rows, int8_t *output, uint32_t count,
                       uint32_t columns)
{
    const int32_t *const ids[LOOKUPS] = {ids0, ids1, NULL};
    const int8_t *const tables[LOOKUPS] = {table0, table1, NULL};
    embed(params, ids, tables, rows, output, SLM_S8, count, columns);
}

void slm_embedding2_s16(const slm_embedding_params *params, const int32_t *ids0, const int8_t *table0,
                        const int32_t *ids1, const int8_t *table1, const int8_t *rows, int16_t *output, uint32_t count,
                        uint32_t columns)
{
    const int32_t *const ids[LOOKUPS] = {ids0, ids1, NULL};
    const int8_t *const tables[LOOKUPS] = {table0, table1, NULL};
    embed(params, ids, tables, rows, output, SLM_S16, count, columns);
}

void slm_embedding3_s8(const slm_embedding_params *params, const int32_t *ids0, const int8_t *table0,
                       const int32_t *ids1, const int8_t *table1, const int32_t *ids2, const int8_t *table2,
                       const int8_t *rows, int8_t *output, uint32_t count, uint32_t columns)
{
    const int32_t *const ids[LOOKUPS] = {ids0, ids1, ids2};
    const int8_t *const tables[LOOKUPS] = {table0, table1, table2};
    embed(params, ids, tables, rows, output, SLM_S8, count, columns);
}

void slm_embedding3_s16(const slm_embedding_params *params, const int32_t *ids0, const int8_t *table0,
                        const int32_t *ids1, const int8_t *table1, const int32_t *ids2, const int8_t *table2,
                        const int8_t *rows, int16_t *output, uint32_t count, uint32_t columns)
{
    const int32_t *const ids[LOOKUPS] = {ids0, ids1, ids2};
    const int8_t *const tables[LOOKUPS] = {table0, table1, table2};
    embed(params, ids, tables, rows, output, SLM_S16, count, columns);
}
