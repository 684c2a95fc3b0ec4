/**
 * \file sample.S
 * \brief test/samples.bin as samples[], test/outputs.bin as expected[].
 */
    .section .rodata.samples, "a", %progbits
    .global samples
    .balign 4
samples:
    .incbin "test/samples.bin"

    .section .rodata.expected, "a", %progbits
    .global expected
    .balign 4
expected:
    .incbin "test/outputs.bin"

    .section .note.GNU-stack, "", %progbits /* the stack holds no code */
