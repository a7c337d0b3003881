#include "note.h"

#include <string.h>

void iok_note_write(struct iok_note *note, const char *text)
{
    uint64_t words[IOK_NOTE_WORDS] = {0};
    size_t len = strnlen(text, sizeof(words) - 1);
    uint32_t version = atomic_load_explicit(&note->version, memory_order_relaxed);

    memcpy(words, text, len);
    atomic_store_explicit(&note->version, version + 1, memory_order_relaxed);
    atomic_thread_fence(memory_order_release);
    for (unsigned i = 0; i < IOK_NOTE_WORDS; i++) {
        atomic_store_explicit(&note->words[i], words[i], memory_order_relaxed);
    }
    atomic_store_explicit(&note->version, version + 2, memory_order_release);
}

void iok_note_read(struct iok_note *note, char *at)
{
    uint32_t before, after;

    do {
        before = atomic_load_explicit(&note->version, memory_order_acquire);
        for (unsigned i = 0; i < IOK_NOTE_WORDS; i++) {
            uint64_t word = atomic_load_explicit(&note->words[i], memory_order_relaxed);

            memcpy(at + i * sizeof(word), &word, sizeof(word));
        }
        atomic_thread_fence(memory_order_acquire);
        after = atomic_load_explicit(&note->version, memory_order_relaxed);
    } while (before != after || (before & 1u) != 0);
    at[IOK_NOTE_WORDS * sizeof(uint64_t) - 1] = '\0';
}
