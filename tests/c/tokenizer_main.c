/*
 * slm_tokenize() over many texts in one process, for tests/test_tokenizer.py.
 *
 * stdin:  requests: uint32 bytes of tables (UINT32_MAX: those of the request before), uint32 bytes of text,
 *         uint32 max_ids, the tables, the text.
 * stdout: for each, uint32 status, uint32 n as the call left it (UINT32_MAX before), n int32 ids if it is SLM_OK.
 *
 * Every buffer is exactly as large as what it holds: the address sanitizer sees any byte beyond.
 */
#include "slm_tokenizer.h"

#include <stdio.h>
#include <stdlib.h>

static void *allocate(size_t bytes)
{
    void *buffer = malloc(bytes);
    if (buffer == NULL) {
        abort();
    }
    return buffer;
}

static void *receive(size_t bytes)
{
    void *buffer = allocate(bytes);
    if (fread(buffer, 1, bytes, stdin) != bytes) {
        abort();
    }
    return buffer;
}

/* Whether any null pointer is refused, and *n left alone. */
static int refuses_null(void)
{
    const char tables[64] = {0};
    int32_t id = 0;
    uint32_t n = 7;
    return slm_tokenize(NULL, sizeof tables, "", 0, &id, 1, &n) == SLM_ERR_NULL &&
           slm_tokenize(tables, sizeof tables, NULL, 0, &id, 1, &n) == SLM_ERR_NULL &&
           slm_tokenize(tables, sizeof tables, "", 0, NULL, 1, &n) == SLM_ERR_NULL &&
           slm_tokenize(tables, sizeof tables, "", 0, &id, 1, NULL) == SLM_ERR_NULL && n == 7;
}

int main(void)
{
    if (!refuses_null()) {
        abort();
    }
    uint32_t request[3];
    void *tables = allocate(0);
    size_t tables_bytes = 0;
    while (fread(request, sizeof request, 1, stdin) == 1) {
        if (request[0] != UINT32_MAX) {
            free(tables);
            tables_bytes = request[0];
            tables = receive(tables_bytes);
        }
        char *text = receive(request[1]);
        int32_t *ids = allocate(request[2] * sizeof *ids);
        uint32_t n = UINT32_MAX;
        const uint32_t status = slm_tokenize(tables, tables_bytes, text, request[1], ids, request[2], &n);
        const uint32_t reply[2] = {status, n};
        fwrite(reply, sizeof reply, 1, stdout);
        fwrite(ids, sizeof *ids, status == SLM_OK ? n : 0u, stdout);
        free(ids);
        free(text);
    }
    free(tables);
    return 0;
}
