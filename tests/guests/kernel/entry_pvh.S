/* PVH: 32-bit protected mode, paging off, ebx at hvm_start_info. Goes to long mode and to main. */
    .section .note.pvh, "a", @note
    .long 4, 4, 18                  /* sizes of name and value; XEN_ELFNOTE_PHYS32_ENTRY */
    .asciz "Xen"
    .long _start

    .section .text.entry, "ax"
    .code32
    .globl _start
_start:
    mov $page_directory, %edi       /* 512 pages of 2 MiB, one to one */
    mov $0x83, %eax
1:  mov %eax, (%edi)
    movl $0, 4(%edi)
    add $0x200000, %eax
    add $8, %edi
    cmp $page_directory + 4096, %edi
    jne 1b
    movl $page_directory + 3, pointer_table
    movl $pointer_table + 3, page_map
    mov $page_map, %eax
    mov %eax, %cr3
    mov %cr4, %eax
    or $0x20, %eax                  /* PAE */
    mov %eax, %cr4
    mov $0xc0000080, %ecx           /* EFER */
    rdmsr
    or $0x100, %eax                 /* LME */
    wrmsr
    mov %cr0, %eax
    or $0x80000000, %eax            /* PG */
    mov %eax, %cr0
    lgdt gdt_pointer
    ljmp $8, $long_mode

    .code64
long_mode:
    mov $16, %eax
    mov %eax, %ds
    mov %eax, %es
    mov %eax, %ss
    mov $stack_top, %rsp
    mov %ebx, %edi
    call main
1:  jmp 1b

    .section .rodata
    .align 8
gdt:
    .quad 0, 0x00af9b000000ffff, 0x00cf93000000ffff
gdt_pointer:
    .word 23
    .long gdt

    .bss
    .align 4096
page_map:
    .skip 4096
pointer_table:
    .skip 4096
page_directory:
    .skip 4096
    .skip 8192
stack_top:
    .section .note.GNU-stack, "", @progbits
