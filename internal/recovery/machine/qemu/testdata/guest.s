# The test guest; see guest_test.go. To assemble:
#   as --32 -o guest.o guest.s
#   ld -m elf_i386 -Ttext 0x7c00 --oformat binary -o guest.bin guest.o
#   base64 -w0 guest.bin
.code16
.globl _start
_start:
 cli
 xor %ax,%ax
 mov %ax,%ds
 mov %ax,%es
 mov %ax,%ss
 mov $0x7c00,%sp
 cld
 mov %dl,drive
 mov $0x602,%dx      # power button enable
 mov $0x100,%ax
 out %ax,%dx
again:
 sti
 movb $0x42,%ah      # read sector 1
 call disk
 jc bad
 mov $0x7e01,%si
 call print
 mov 0x7e00,%al
 cmp $'p',%al
 je poweroff
 cmp $'r',%al
 je reset
 cmp $'w',%al
 je write
wait:
 cmpb $'i',0x7e00    # ignore the power button
 je 1f
 mov $0x600,%dx
 in %dx,%ax
 test $1,%ah
 jnz poweroff
1: mov $0x3fd,%dx
 in %dx,%al
 test $1,%al
 jz wait
 mov $0x3f8,%dx
 in %dx,%al
 jmp again
poweroff:
 mov $0x604,%dx
 mov $0x2000,%ax
 out %ax,%dx
 jmp wait
reset:
 movb $'h',0x7e00
 mov $0x43,%ah
 call disk
 jc bad
 mov $0xcf9,%dx
 mov $6,%al
 out %al,%dx
1: hlt
 jmp 1b
write:
 mov $0x43,%ah
 call disk
 jc bad
 mov $wrote,%si
 call print
 movb $'h',0x7e00
 jmp wait
bad:
 mov $err,%si
 call print
 movb $'h',0x7e00
 jmp wait
disk:                # AH = 42 read, 43 write; sector 1 at 7e00
 mov drive,%dl
 mov $0,%al
 mov $dap,%si
 int $0x13
 ret
print:
 mov $0x3f8,%dx
1: lodsb
 test %al,%al
 jz 2f
 out %al,%dx
 jmp 1b
2: ret
err: .asciz "DISK ERROR\n"
wrote: .asciz "WROTE\n"
.balign 4
dap: .byte 16,0
 .word 1,0x7e00,0
 .quad 1
drive: .byte 0
