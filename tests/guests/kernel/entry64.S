/* 64-bit Linux boot protocol: long mode, paging on, rsi at the zero page. */
    .section .text.entry, "ax"
    .globl _start
_start:
    lea stack_top(%rip), %rsp
    mov %rsi, %rdi
    call main
1:  jmp 1b

    .bss
    .align 16
    .skip 8192
stack_top:
    .section .note.GNU-stack, "", @progbits
