#include "scene.h"

#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../../src/base/mem.h"
#include "../kit/bare_kernel.h"

#define RECOVERY                                                                                                       \
    (20 * SCENE_S) /* a look-up of 10 s, the longest pause of 2 s, and a connect_timeout of 5 s; and room */
#define CLOSE_TO_END (60 * SCENE_S) /* longer than any deadline */

struct scene scene;

/* ---- the transcript ---- */

void scene_say(const char *format, ...)
{
    char line[400];
    va_list args;
    int n = snprintf(line, sizeof(line), "+%.3fms ", (double)(scene.now - SCENE_START) / 1e6);

    va_start(args, format);
    n += vsnprintf(line + n, sizeof(line) - (size_t)n, format, args);
    va_end(args);
    for (const char *p = line; *p != '\0'; p++) {
        scene.hash = (scene.hash ^ (uint8_t)*p) * UINT64_C(0x100000001b3); /* FNV-1a */
    }
    if (scene.prints) {
        (void)puts(line);
    }
}

void violation(const char *format, ...)
{
    char seed[24];
    va_list args;

    if (!scene.prints) { /* again, with the transcript; it comes to the same place */
        (void)snprintf(seed, sizeof(seed), "%llu", (unsigned long long)scene.seed);
        (void)fflush(NULL);
        (void)execl("/proc/self/exe", "test_sim", "replay", seed, (char *)NULL);
    }
    (void)printf("+%.3fms seed %llu violates: ", (double)(scene.now - SCENE_START) / 1e6,
                 (unsigned long long)scene.seed);
    va_start(args, format);
    (void)vprintf(format, args);
    va_end(args);
    (void)printf("\n");
    (void)fflush(NULL);
    _exit(1);
}

/* ---- what happens when ---- */

/* In place of iok_now_ns, see tests/meson.build. */
uint64_t __wrap_iok_now_ns(void);

uint64_t __wrap_iok_now_ns(void)
{
    return scene.now;
}

static bool earlier(const struct event *a, const struct event *b)
{
    return a->at != b->at ? a->at < b->at : a->order < b->order;
}

void scene_at(uint64_t at, enum what what, unsigned subject, uint64_t arg)
{
    struct event event = {
        .at = at, .what = (uint16_t)what, .subject = (uint16_t)subject, .arg = arg, .order = scene.order++};
    size_t i = scene.n_events++;

    if (scene.n_events > scene.cap_events) {
        scene.cap_events = 2 * scene.n_events + 500;
        scene.events = realloc(scene.events, scene.cap_events * sizeof(event));
        must(scene.events != NULL, "out of memory");
    }
    while (i > 0 && earlier(&event, &scene.events[(i - 1) / 2])) {
        scene.events[i] = scene.events[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    scene.events[i] = event;
}

static struct event next_event(void)
{
    struct event first = scene.events[0], last = scene.events[--scene.n_events];
    size_t i = 0, child;

    while ((child = 2 * i + 1) < scene.n_events) {
        child += child + 1 < scene.n_events && earlier(&scene.events[child + 1], &scene.events[child]);
        if (earlier(&last, &scene.events[child])) {
            break;
        }
        scene.events[i] = scene.events[child];
        i = child;
    }
    scene.events[i] = last;
    return first;
}

static void happen(const struct event *event)
{
    switch ((enum what)event->what) {
    case EVENT_PROGRAM:
        program_act();
        break;
    case EVENT_CHAOS:
        if (!scene.calm && scene.acts_left > 0) {
            server_fate();
            scene_at(scene.now + dice_spread(&scene.wire, 10000, scene.unrest), EVENT_CHAOS, 0, 0);
        }
        break;
    default:
        wire_event(event);
    }
}

void scene_rest(void)
{
    must(bare_kernel_rest(scene.kernel), "the kernel does not come to rest");
}

/* The next thing happens, unless it is later than until: then false. */
static bool step(uint64_t until)
{
    uint64_t timer = iok_core_deadline(&scene.kernel->core);
    uint64_t at = scene.n_events > 0 && scene.events[0].at < timer ? scene.events[0].at : timer;

    if (at > until) {
        scene.now = until > scene.now ? until : scene.now;
        return false;
    }
    scene.now = at > scene.now ? at : scene.now;
    while (scene.n_events > 0 && scene.events[0].at <= scene.now) {
        struct event event = next_event();

        happen(&event);
        if (dice_chance(&scene.wire, 700)) {
            break; /* else several events come in one turn */
        }
    }
    scene_rest();
    truth_step();
    return true;
}

/* ---- a seed from its beginning to its end ---- */

/* The core knows of every link that is broken, and has others in their place. A connection of HTTP that is idle may be
 * closed. */
static bool connected(void)
{
    for (uint32_t i = 0; i < scene.n_links; i++) {
        if (scene.links[i].state == LINK_BROKEN) {
            return false;
        }
    }
    for (uint32_t i = 0; i < scene.n_services; i++) {
        if (!scene.services[i].closed && scene.services[i].speaks != SPEAKS_HTTP &&
            iok_count_get(&scene.services[i].handle->ready_conns) == 0) {
            return false;
        }
    }
    return true;
}

static void all_end(void)
{
    uint64_t end = scene.now + CLOSE_TO_END;

    for (program_poll(true); scene.n_live > 0; program_poll(true)) {
        must(step(end), "%u calls hang, #%u is one", scene.n_live, scene.live[0]);
    }
}

/* All is well from now on: everything must come to its end, and new calls must succeed. */
static void heal(void)
{
    uint64_t end = scene.now + RECOVERY;

    say("all is well from here on");
    scene.calm = scene.well = true;
    server_calm();
    wire_calm();
    program_give_up();
    scene_rest();
    while (!connected()) {
        must(step(end), "not connected again within %.3g s", (double)RECOVERY / 1e9);
        program_poll(true);
    }
    all_end();
    program_probe();
    scene_rest();
    all_end();
}

static void stop(void)
{
    bool orderly = dice_chance(&scene.plot, 500);

    if (orderly) {
        say("the program ends");
        program_close();
        while (scene.n_live > 0) { /* each that ends makes room for another */
            uint32_t before = scene.n_live;

            scene_rest();
            truth_step();
            program_poll(true);
            must(scene.n_live < before, "%u calls live on", before);
        }
        scene_rest();
    }
    say("the kernel stops");
    iok_core_stop(&scene.kernel->core);
    for (uint32_t i = 0; i < scene.n_live; i++) {
        scene.records[scene.live[i]].left = truth_untaken(scene.records[scene.live[i]].call);
    }
    if (!orderly) {
        program_late();
    }
    program_poll(true);
}

static void set_up(uint64_t seed)
{
    struct dice dice = {seed};

    scene.seed = seed;
    scene.now = SCENE_START;
    scene.order = 0;
    scene.n_events = 0;
    scene.hash = UINT64_C(0xcbf29ce484222325);
    scene.wire.state = dice_next(&dice);
    scene.plot.state = dice_next(&dice);
    scene.own.state = dice_next(&dice);
    scene.well = false;
    scene.calm = dice_below(&dice, 10) == 0;
    wire_init();
    server_init();
    scene.memory = iok_mem_live();
    scene.kernel = bare_kernel_new(&scene.net, (uint32_t)dice_spread(&scene.plot, 16, 256));
    must(scene.kernel != NULL, "no kernel");
    if (dice_chance(&scene.plot, 300)) {
        scene.kernel->port_bytes_max = dice_spread(&scene.plot, 10000, 1000000);
    }
    program_init();
    scene.unrest = dice_spread(&scene.wire, 5 * SCENE_MS, 20 * SCENE_S);
    scene_at(scene.now, EVENT_CHAOS, 0, 0);
}

uint64_t scene_play(uint64_t seed, bool talks, bool prints)
{
    scene.talks = talks;
    scene.prints = prints;
    set_up(seed);
    scene_rest();
    while (scene.acts_left > 0) {
        (void)step(UINT64_MAX);
    }
    if (dice_chance(&scene.plot, 500)) {
        heal();
    }
    stop();
    server_calm();
    while (scene.n_events > 0) { /* what is on its way still arrives, and may run */
        struct event event = next_event();

        scene.now = event.at > scene.now ? event.at : scene.now;
        happen(&event);
    }
    truth_final();
    program_free();
    bare_kernel_free(scene.kernel);
    must(iok_mem_live() == scene.memory, "%ld allocations are left", iok_mem_live() - scene.memory);
    return scene.hash;
}

void scene_free(void)
{
    for (uint32_t i = 0; i < LINKS_MAX; i++) {
        free(scene.links[i].up.p);
        free(scene.links[i].down.p);
    }
    free(scene.events);
}
