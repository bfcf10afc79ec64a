// Added by `roost plugin build`: how a policy fails so that the operator reads why.
#pragma once

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

// Ends the call without a decision. What is left in memory is a note that the host looks for:
// marks, the length of the text in bytes, the text; at most 1,024 bytes of it.
_Noreturn static inline void roost_fail(const char *text) {
  static _Alignas(8) struct {
    volatile uint8_t marks[16];
    uint32_t length;
    uint32_t zero;
    char text[1024];
  } note;
  size_t length = strlen(text);
  if (length > sizeof note.text) length = sizeof note.text;
  note.length = (uint32_t)length;
  memcpy(note.text, text, length);
  // Complemented, so that the marks stand nowhere but in a note.
  static const uint8_t not_marks[16] = {
      (uint8_t)~'1', (uint8_t)~'-', (uint8_t)~'r', (uint8_t)~'o', (uint8_t)~'o', (uint8_t)~'s',
      (uint8_t)~'t', (uint8_t)~'p', (uint8_t)~'n', (uint8_t)~'i', (uint8_t)~'c', (uint8_t)~':',
      (uint8_t)~'n', (uint8_t)~'o', (uint8_t)~'t', (uint8_t)~'e',
  };
  for (size_t at = 0; at < sizeof not_marks; at++) note.marks[at] = (uint8_t)~not_marks[at];
  __builtin_trap();
}
