#include "slm_profile.h"

#ifdef SLM_PROFILE

void slm_profile_begin(slm_profile *profile)
{
    if (profile != NULL) {
        profile->run = 0u;
        profile->mark = slm_profile_clock();
    }
}

void slm_profile_lap(slm_profile *profile, uint32_t index)
{
    const uint32_t now = slm_profile_clock();
    if (profile == NULL) {
        return;
    }
    slm_profile_entry *const entry = &profile->entries[index];
    const uint32_t ticks = now - profile->mark;
    entry->ticks += ticks;
    entry->calls++;
    /* Two readings, so that this function is no part of the next call. */
    const uint32_t mark = slm_profile_clock();
    profile->other += mark - now;
    profile->run += (uint64_t)ticks + (mark - now);
    profile->mark = mark;
}

void slm_profile_end(slm_profile *profile, slm_status status)
{
    const uint32_t now = slm_profile_clock();
    if (profile == NULL) {
        return;
    }
    if (status != SLM_OK) {
        slm_profile_refuse(profile, status);
        return;
    }
    profile->other += now - profile->mark;
    profile->run += now - profile->mark;
    profile->last = profile->run;
    profile->sum += profile->run;
    if (profile->runs == 0u || profile->run < profile->shortest) {
        profile->shortest = profile->run;
    }
    if (profile->run > profile->longest) {
        profile->longest = profile->run;
    }
    profile->runs++;
}

void slm_profile_refuse(slm_profile *profile, slm_status status)
{
    if (profile != NULL) {
        profile->errors++;
        profile->last_error = status;
    }
}

/** Print a number, right in `width` columns. */
static void print_number(uint64_t value, uint32_t width, void (*print)(const char *text))
{
    char text[32];
    char *const end = &text[sizeof text - 1u];
    char *at = end;
    *at = '\0';
    do {
        *--at = (char)('0' + (int)(value % 10u));
        value /= 10u;
    } while (value != 0u);
    while ((uint32_t)(end - at) < width) {
        *--at = ' ';
    }
    print(at);
}

/** Print text, and what is missing to `width` columns. */
static void print_left(const char *text, uint32_t width, void (*print)(const char *text))
{
    print(text);
    for (uint32_t i = 0u; i < width; i++) {
        if (*text == '\0') {
            print(" ");
        } else {
            text++;
        }
    }
}

static void print_ticks(uint64_t ticks, uint64_t sum, uint32_t runs, void (*print)(const char *text))
{
    const uint64_t permille = sum == 0u ? 0u : (1000u * ticks + sum / 2u) / sum;
    print_number(ticks / runs, 14u, print);
    print_number(permille / 10u, 5u, print);
    print(".");
    print_number(permille % 10u, 1u, print);
    print(" %");
}

static void print_counter(const char *name, uint64_t value, void (*print)(const char *text))
{
    print(name);
    print_number(value, 1u, print);
}

void slm_profile_print(const slm_profile *profile, void (*print)(const char *text))
{
    const uint32_t runs = profile->runs == 0u ? 1u : profile->runs;
    print_counter("runs ", profile->runs, print);
    print_counter(", errors ", profile->errors, print);
    if (profile->errors != 0u) {
        print(" (the last: ");
        print(slm_status_text(profile->last_error));
        print(")");
    }
    print_counter("; ticks of a run: last ", profile->last, print);
    print_counter(", shortest ", profile->shortest, print);
    print_counter(", longest ", profile->longest, print);
    print_counter(", mean ", profile->sum / runs, print);
    print("\n call   ticks a run   share   calls  operator    node\n");
    for (uint32_t i = 0u; i < profile->count; i++) {
        const slm_profile_entry *const entry = &profile->entries[i];
        if (entry->calls != 0u) {
            print_number(i, 5u, print);
            print_ticks(entry->ticks, profile->sum, runs, print);
            print_number(entry->calls, 8u, print);
            print("  ");
            print_left(profile->nodes[i].operation, 12u, print);
            print(profile->nodes[i].name);
            print("\n");
        }
    }
    print("other");
    print_ticks(profile->other, profile->sum, runs, print);
    print("\n  all");
    print_ticks(profile->sum, profile->sum, runs, print);
    print("\n");
}

#endif
