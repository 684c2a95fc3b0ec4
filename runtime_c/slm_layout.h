/**
 * \file slm_layout.h
 * \brief How kernels read and write tensors of several types and layouts; specified by slm2c/ops/layout.py.
 */
#ifndef SLM_LAYOUT_H
#define SLM_LAYOUT_H

#include "slm_math.h"
#include <stdbool.h>

/** Element type of an activation or constant. */
typedef enum {
    SLM_S8,
    SLM_S16
} slm_type;

/** \brief data[index]; one load where the type is a constant. */
SLM_INLINE int32_t slm_load(const void *data, slm_type type, int32_t index)
{
    return type == SLM_S8 ? ((const int8_t *)data)[index] : ((const int16_t *)data)[index];
}

/** \brief data[index] = value, which the caller has saturated. */
SLM_INLINE void slm_store(void *data, slm_type type, int32_t index, int32_t value)
{
    if (type == SLM_S8) {
        ((int8_t *)data)[index] = (int8_t)value;
    } else {
        ((int16_t *)data)[index] = (int16_t)value;
    }
}

/** \brief value limited to the range of a type. */
SLM_INLINE int32_t slm_saturate(int32_t value, slm_type type)
{
    return type == SLM_S8 ? slm_clamp(value, INT8_MIN, INT8_MAX) : slm_clamp(value, INT16_MIN, INT16_MAX);
}

#define SLM_MAX_AXES 6
#define SLM_OUTER_AXES (SLM_MAX_AXES - 1)

/** A number of elements: fixed + per_token * tokens. */
typedef struct {
    int32_t fixed;
    int32_t per_token;
} slm_extent;

/** One loop of a walk. */
typedef struct {
    slm_extent size; /**< at least 1 for every token count */
    slm_extent step; /**< distance between neighbours, may be 0 or negative */
} slm_axis;

/** Element (i0, i1, ...) lies at start + i0 * axis[0].step + i1 * axis[1].step + ...; lies in the blob. */
typedef struct {
    slm_extent start;
    slm_axis axis[SLM_MAX_AXES]; /**< outermost first; those that are not needed have size 1 */
} slm_layout;

/** A walk over a layout in runs along its innermost axis. */
typedef struct {
    int32_t at;     /**< where the current run starts */
    int32_t length; /**< elements in a run */
    int32_t step;   /**< distance between neighbours in a run */
    int32_t size[SLM_OUTER_AXES];
    int32_t stride[SLM_OUTER_AXES];
    int32_t index[SLM_OUTER_AXES];
} slm_walk;

static inline int32_t slm_extent_at(slm_extent extent, uint32_t tokens)
{
    return extent.fixed + extent.per_token * (int32_t)tokens;
}

/** \brief Number of elements. */
static inline uint32_t slm_layout_size(const slm_layout *layout, uint32_t tokens)
{
    int32_t size = 1;
    for (int32_t k = 0; k < SLM_MAX_AXES; k++) {
        size *= slm_extent_at(layout->axis[k].size, tokens);
    }
    return (uint32_t)size;
}

/** \brief Set the walk to its first run. */
static inline void slm_walk_begin(slm_walk *walk, const slm_layout *layout, uint32_t tokens)
{
    const slm_axis *innermost = &layout->axis[SLM_OUTER_AXES];
    walk->at = slm_extent_at(layout->start, tokens);
    walk->length = slm_extent_at(innermost->size, tokens);
    walk->step = slm_extent_at(innermost->step, tokens);
    for (int32_t k = 0; k < SLM_OUTER_AXES; k++) {
        walk->size[k] = slm_extent_at(layout->axis[k].size, tokens);
        walk->stride[k] = slm_extent_at(layout->axis[k].step, tokens);
        walk->index[k] = 0;
    }
}

/** \brief Go to the next run; false after the last one, and the walk is at its first run again. */
static inline bool slm_walk_next(slm_walk *walk)
{
    for (int32_t k = SLM_OUTER_AXES - 1; k >= 0; k--) {
        walk->at += walk->stride[k];
        walk->index[k]++;
        if (walk->index[k] < walk->size[k]) {
            return true;
        }
        walk->at -= walk->stride[k] * walk->size[k];
        walk->index[k] = 0;
    }
    return false;
}

#endif
