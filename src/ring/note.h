/* note.h - a short text that one thread writes and others read whole (a sequence lock over words). */
#ifndef IOK_RING_NOTE_H
#define IOK_RING_NOTE_H

#include <stdatomic.h>
#include <stdint.h>

#define IOK_NOTE_WORDS 30u /* 240 bytes, as iok_error.text */

struct iok_note {
    _Atomic uint32_t version; /* odd: being written */
    _Atomic uint64_t words[IOK_NOTE_WORDS];
};

void iok_note_write(struct iok_note *note, const char *text);
/* at holds IOK_NOTE_WORDS * 8 bytes; always NUL-terminated. */
void iok_note_read(struct iok_note *note, char *at);

#endif
