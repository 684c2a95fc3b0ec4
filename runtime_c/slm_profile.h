/**
 * \file slm_profile.h
 * \brief Where the time of a model goes on the device: an entry for each node of the model, and counters of its runs.
 *
 * Exists only where SLM_PROFILE is defined: for all files that include a model's header, or for none, since the model
 * then has one field more. The application supplies the clock; slm_profile_clock.h has that of most cores.
 */
#ifndef SLM_PROFILE_H
#define SLM_PROFILE_H

#include "slm.h"

#ifdef __cplusplus
extern "C" {
#endif

/** A node of the model, as report.json lists them. */
typedef struct {
    const char *name;      /**< in the ONNX file */
    const char *operation; /**< what it does */
} slm_profile_node;

/** What the kernel calls of a node took, in all runs together. */
typedef struct {
    uint64_t ticks; /**< of the clock; interrupts are in it */
    uint32_t calls; /**< more than one a run where the node is computed in tiles; 0 for a node without a kernel */
} slm_profile_entry;

/** Counters of a model, for the application to read between runs. Times are in ticks of the clock. */
typedef struct {
    uint32_t runs;                 /**< that ended with SLM_OK */
    uint32_t errors;               /**< runs and texts that were refused */
    slm_status last_error;         /**< why the last of these was; SLM_OK if none was */
    uint64_t last;                 /**< the last run */
    uint64_t shortest;             /**< run; 0 before the first */
    uint64_t longest;              /**< run */
    uint64_t sum;                  /**< of all runs: that of all entries, and */
    uint64_t other;                /**< what the profile itself takes, and the way out */
    uint64_t run;                  /**< of the run that is under way, so far */
    uint32_t mark;                 /**< the clock when the last interval ended */
    uint32_t count;                /**< of nodes */
    const slm_profile_node *nodes; /**< [count] */
    slm_profile_entry *entries;    /**< [count] */
} slm_profile;

/**
 * \brief The application's clock: a counter that goes up and wraps at 2^32, such as the cycles of the core.
 *
 * A kernel call must not take longer than it needs to wrap: 21 s at 200 MHz.
 */
uint32_t slm_profile_clock(void);

/** \brief Begin a run. For generated code, as the next three; a null profile is left alone. */
void slm_profile_begin(slm_profile *profile);

/** \brief A kernel call of node `index` has ended; it began when the one before ended, the first one with the run. */
void slm_profile_lap(slm_profile *profile, uint32_t index);

/** \brief End a run. \param[in] status what it returns */
void slm_profile_end(slm_profile *profile, slm_status status);

/** \brief Count what was refused before a run. \param[in] status why */
void slm_profile_refuse(slm_profile *profile, slm_status status);

/**
 * \brief Print the counters and a line for each node with a kernel: its number in the report, ticks a run, share, kernel
 *        calls in all runs, operator, name.
 *
 * \param[in] print writes a string, for instance to a UART
 */
void slm_profile_print(const slm_profile *profile, void (*print)(const char *text));

#ifdef __cplusplus
}
#endif

#endif
