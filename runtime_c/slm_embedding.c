#include "slm_embedding.h"
#include "slm_dsp.h"
#include "slm_layout.h"
#include <stddef.h>

/* A sum of as many terms as there are lookups; unused ids and tables are null. */
SLM_INLINE void embed(const slm_embedding_params *params, uint32_t lookups, const int32_t *ids0, const int8_t *table0,
                      const int32_t *ids1, const int8_t *table1, const int32_t *ids2, const int8_t *table2,
                      const int8_t *rows, void *output, slm_type type, uint32_t count, uint32_t columns)
{
    const slm_embedding_params p = *params;
    for (uint32_t i = 0; i < count; i++) {
        const int8_t *row0 = table0 + (uint32_t)ids0[i] * columns;
        const int8_t *row1 = lookups > 1u ? table1 + (uint32_t)ids1[i] * columns : NULL;
        const int8_t *row2 = lookups > 2u ? table2 + (uint32_t)ids2[i] * columns : NULL;
        const int8_t *position = rows == NULL ? row0 : rows + i * columns; /* no rows have the weight 0 */
        for (uint32_t c = 0; c < columns; c++) {
            int32_t sum = p.offset + p.weights[0] * row0[c] + p.rows_weight * position[c];
            if (lookups > 1u) {
                sum += p.weights[1] * row1[c];
            }
            if (lookups > 2u) {
                sum += p.weights[2] * row2[c];
            }
            sum >>= p.shift;
            slm_store(output, type, (int32_t)(i * columns + c), type == SLM_S8 ? slm_ssat_8(sum) : slm_ssat_16(sum));
        }
    }
}

void slm_embedding_s8(const slm_embedding_params *params, const int32_t *ids0, const int8_t *table0, const int8_t *rows,
                      int8_t *output, uint32_t count, uint32_t columns)
{
    embed(params, 1u, ids0, table0, NULL, NULL, NULL, NULL, rows, output, SLM_S8, count, columns);
}

void slm_embedding_s16(const slm_embedding_params *params, const int32_t *ids0, const int8_t *table0,
                       const int8_t *rows, int16_t *output, uint32_t count, uint32_t columns)
{
    embed(params, 1u, ids0, table0, NULL, NULL, NULL, NULL, rows, output, SLM_S16, count, columns);
}

void slm_embedding2_s8(const slm_embedding_params *params, const int32_t *ids0, const int8_t *table0,
                       const int32_t *ids1, const int8_t *table1, const int8_t *rows, int8_t *output, uint32_t count,
                       uint32_t columns)
{
    embed(params, 2u, ids0, table0, ids1, table1, NULL, NULL, rows, output, SLM_S8, count, columns);
}

void slm_embedding2_s16(const slm_embedding_params *params, const int32_t *ids0, const int8_t *table0,
                        const int32_t *ids1, const int8_t *table1, const int8_t *rows, int16_t *output, uint32_t count,
                        uint32_t columns)
{
    embed(params, 2u, ids0, table0, ids1, table1, NULL, NULL, rows, output, SLM_S16, count, columns);
}

void slm_embedding3_s8(const slm_embedding_params *params, const int32_t *ids0, const int8_t *table0,
                       const int32_t *ids1, const int8_t *table1, const int32_t *ids2, const int8_t *table2,
                       const int8_t *rows, int8_t *output, uint32_t count, uint32_t columns)
{
    embed(params, 3u, ids0, table0, ids1, table1, ids2, table2, rows, output, SLM_S8, count, columns);
}

void slm_embedding3_s16(const slm_embedding_params *params, const int32_t *ids0, const int8_t *table0,
                        const int32_t *ids1, const int8_t *table1, const int32_t *ids2, const int8_t *table2,
                        const int8_t *rows, int16_t *output, uint32_t count, uint32_t columns)
{
    embed(params, 3u, ids0, table0, ids1, table1, ids2, table2, rows, output, SLM_S16, count, columns);
}
