/*
 * What slm_blob_check says to each blob of standard input, a status a line; then what slm_label makes of its labels.
 * A blob: uint32 size, 16 bytes of the structure hash that is expected, the bytes.
 */
#include "slm_blob.h"

#include <stdio.h>
#include <stdlib.h>

int main(void)
{
    uint32_t size;
    uint32_t structure[4];
    while (fread(&size, sizeof size, 1u, stdin) == 1u && fread(structure, sizeof structure, 1u, stdin) == 1u) {
        uint8_t *blob = malloc(size == 0u ? 1u : size); /* of its own, so that ASan finds a read behind it */
        if (blob == NULL || fread(blob, 1u, size, stdin) != size) {
            return 1;
        }
        const slm_status status = slm_blob_check(blob, size, structure);
        printf("%d", (int)status);
        if (status == SLM_OK) {
            uint32_t bytes;
            const void *labels = slm_blob_find(blob, SLM_SECTION_LABELS, &bytes);
            for (uint32_t i = 0; i < 4u; i++) {
                printf(" %s", slm_label(labels, bytes, i));
            }
            printf(" %s", slm_label(labels, bytes, UINT32_MAX));
        }
        printf("\n");
        free(blob);
    }
    return 0;
}
