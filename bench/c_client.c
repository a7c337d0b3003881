/* c_client.c - what libiokernel does without an interpreter: GET in a closed loop with a fixed number in flight.
 *
 * It uses a port as an event-loop binding would: wait, drain a burst of completions, submit a successor for each, end
 * the drain. So the difference to a binding's figure is the binding and its language, and the difference to
 * redis-benchmark is the price of the kernel thread. Not an example of good manners: see examples/.
 *
 * Prints one JSON object with the keys of bench/redis/meter.py; any failed call ends it with an error. */
#include <getopt.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include <iokernel.h>

enum {
    DRAIN_MAX = 256,       /* completions per drain, as the asyncio binding's */
    SAMPLE_EVERY = 16,     /* calls per latency sample, as in worker.py */
    SAMPLES_MAX = 1 << 18, /* 4 million calls; later samples overwrite the oldest */
    WAIT_MS = 5000,        /* without any reply for that long something is broken */
};

struct options {
    const char *url;
    const char *key;
    double seconds, warmup;
    uint32_t depth;
    uint32_t size;  /* bytes of the value */
    int server_pid; /* 0: do not measure it */
    enum iok_handoff handoff;
};

/* One end of the measured window. Times in nanoseconds. */
struct snapshot {
    uint64_t at, calls, cpu_main, cpu_process, cpu_server;
    long switches_voluntary, switches_forced;
    struct iok_kernel_stats kernel;
};

struct client {
    struct options opt;
    struct iok_kernel *kernel;
    struct iok_port *port;
    struct iok_service *service;
    uint64_t calls; /* ended */
    uint64_t sampled;
};

static uint32_t samples[SAMPLES_MAX]; /* nanoseconds */

static void fail(const char *what, const struct iok_error *err)
{
    fprintf(stderr, "c_client: %s: %s (%s)\n", what, err->text, iok_errno_name(err->code));
    exit(1);
}

static void fail_code(const char *what, int code)
{
    fprintf(stderr, "c_client: %s: %s\n", what, iok_errno_text(code));
    exit(1);
}

static uint64_t clock_ns(clockid_t clock)
{
    struct timespec ts;
    clock_gettime(clock, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

/* redis-server does its work on its main thread, which is the one that this file tells about. */
static uint64_t server_cpu_ns(int pid)
{
    char path[64];
    unsigned long long ns = 0;
    snprintf(path, sizeof(path), "/proc/%d/schedstat", pid);
    FILE *file = pid > 0 ? fopen(path, "r") : NULL;
    if (file) {
        if (fscanf(file, "%llu", &ns) != 1)
            ns = 0;
        fclose(file);
    }
    return ns;
}

static double rss_mb(void)
{
    long pages = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    if (file) {
        if (fscanf(file, "%*d %ld", &pages) != 1)
            pages = 0;
        fclose(file);
    }
    return (double)pages * (double)sysconf(_SC_PAGESIZE) / 1e6;
}

static void take_snapshot(struct client *cl, struct snapshot *out)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    out->switches_voluntary = usage.ru_nvcsw;
    out->switches_forced = usage.ru_nivcsw;
    out->calls = cl->calls;
    out->cpu_main = clock_ns(CLOCK_THREAD_CPUTIME_ID);
    out->cpu_process = clock_ns(CLOCK_PROCESS_CPUTIME_ID);
    out->cpu_server = server_cpu_ns(cl->opt.server_pid);
    iok_kernel_stats(cl->kernel, &out->kernel);
    out->at = clock_ns(CLOCK_MONOTONIC);
}

static void submit_get(struct client *cl)
{
    struct iok_error err;
    struct iok_call *call = iok_call_new(cl->port, cl->service, &err);
    if (!call)
        fail("new call", &err);
    iok_call_static(call, "GET", 3);
    iok_call_text(call, cl->opt.key, strlen(cl->opt.key));
    int rc = iok_submit(call);
    if (rc < 0)
        fail_code("submit", rc);
}

static void finish_get(struct client *cl, struct iok_call *call)
{
    size_t n;
    const struct iok_token *reply = iok_call_reply(call, &n);
    if (iok_call_outcome(call) != IOK_DONE || n != 1) {
        struct iok_error err;
        if (iok_call_error(call, &err) == 0)
            fail_code("unexpected reply", IOK_EPROTO);
        fail("GET", &err);
    }
    if ((reply->type != IOK_BYTES && reply->type != IOK_TEXT) || reply->len != cl->opt.size)
        fail_code("the value is missing or of another size", IOK_ETYPE);
    if (cl->calls % SAMPLE_EVERY == 0) {
        struct iok_stamps stamps;
        iok_call_stamps(call, &stamps);
        samples[cl->sampled++ % SAMPLES_MAX] = (uint32_t)(stamps.picked_up - stamps.submitted);
    }
    cl->calls++;
    iok_call_free(call);
}

/* Goes on until the clock says `until`; keeps as many calls in flight as it finds. */
static void run_until(struct client *cl, uint64_t until)
{
    while (clock_ns(CLOCK_MONOTONIC) < until) {
        int rc = iok_wait(cl->port, WAIT_MS);
        if (rc == IOK_EINTR)
            continue;
        if (rc < 0)
            fail_code("wait", rc);
        iok_drain_begin(cl->port);
        struct iok_call *call;
        for (int i = 0; i < DRAIN_MAX && (call = iok_poll(cl->port)) != NULL; i++) {
            finish_get(cl, call);
            submit_get(cl);
        }
        iok_drain_end(cl->port);
    }
}

static void open_client(struct client *cl)
{
    struct iok_error err;
    struct iok_options options = {.handoff = cl->opt.handoff, .port_calls_max = cl->opt.depth + 1};
    if (!(cl->kernel = iok_kernel_new(&options, &err)))
        fail("kernel", &err);
    if (!(cl->port = iok_port_new(cl->kernel, &err)))
        fail("port", &err);
    if (!(cl->service = iok_service_new(cl->port, cl->opt.url, &err)))
        fail("service", &err);
    struct iok_call *ready = iok_call_new(cl->port, cl->service, &err);
    if (!ready)
        fail("new call", &err);
    iok_call_ready(ready);
    iok_call_timeout(ready, WAIT_MS);
    int rc = iok_submit(ready);
    if (rc < 0)
        fail_code("submit", rc);
    iok_wait_call(ready, -1);
    if (iok_call_outcome(ready) != IOK_DONE) {
        iok_call_error(ready, &err);
        fail("connect", &err);
    }
    iok_call_free(ready);
}

static void close_client(struct client *cl)
{
    iok_service_close(cl->service, cl->port);
    iok_port_free(cl->port);
    iok_service_unref(cl->service);
    iok_kernel_free(cl->kernel);
}

static int by_value(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

static void report(struct client *cl, const struct snapshot *first, const struct snapshot *last)
{
    size_t n = cl->sampled < SAMPLES_MAX ? (size_t)cl->sampled : SAMPLES_MAX;
    qsort(samples, n, sizeof(samples[0]), by_value);
    double seconds = (double)(last->at - first->at) / 1e9;
    uint64_t calls = last->calls - first->calls;
    double each = calls ? (double)calls : 1;
    uint64_t process = last->cpu_process - first->cpu_process, app = last->cpu_main - first->cpu_main;
    const struct iok_kernel_stats *a = &first->kernel, *b = &last->kernel;

    printf("{\"version\": \"libiokernel %s\", \"requests_per_s\": %.1f, \"requests\": %llu, \"seconds\": %.4f, ",
           iok_version(), (double)calls / seconds, (unsigned long long)calls, seconds);
    if (n)
        printf("\"samples\": %zu, \"p50_us\": %.2f, \"p99_us\": %.2f, ", n, samples[n / 2] / 1e3,
               samples[n * 99 / 100] / 1e3);
    printf("\"cpu_application_us\": %.4f, \"cpu_other_us\": %.4f, \"cpu_server_us\": %.4f, ", (double)app / each / 1e3,
           (double)(process > app ? process - app : 0) / each / 1e3,
           (double)(last->cpu_server - first->cpu_server) / each / 1e3);
    printf("\"switches_voluntary\": %.5f, \"switches_forced\": %.5f, \"rss_mb\": %.2f, ",
           (double)(last->switches_voluntary - first->switches_voluntary) / each,
           (double)(last->switches_forced - first->switches_forced) / each, rss_mb());
    printf("\"wakeups\": %.5f, \"port_wakeups\": %.5f, \"polls_blocking\": %.5f, \"leads\": %.5f, \"rounds\": %.5f}\n",
           (double)(b->wakeups - a->wakeups) / each, (double)(b->port_wakeups - a->port_wakeups) / each,
           (double)(b->polls_blocking - a->polls_blocking) / each, (double)(b->leads - a->leads) / each,
           (double)(b->rounds - a->rounds) / each);
}

static void usage(void)
{
    fputs("usage: c_client --url URL [--depth N] [--seconds S] [--warmup S] [--handoff auto|wake|spin|lead]\n"
          "                [--key KEY] [--size BYTES] [--server-pid PID]\n"
          "GETs KEY, which must hold SIZE bytes, with N calls in flight.\n",
          stderr);
    exit(2);
}

static enum iok_handoff parse_handoff(const char *name)
{
    static const char *const names[] = {"auto", "wake", "spin", "lead"}; /* in the order of enum iok_handoff */
    for (unsigned i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if (strcmp(name, names[i]) == 0)
            return (enum iok_handoff)i;
    }
    usage();
    return IOK_HANDOFF_AUTO;
}

static void parse(int argc, char **argv, struct options *opt)
{
    static const struct option known[] = {
        {"url", required_argument, NULL, 'u'},
        {"depth", required_argument, NULL, 'd'},
        {"seconds", required_argument, NULL, 's'},
        {"warmup", required_argument, NULL, 'w'},
        {"handoff", required_argument, NULL, 'h'},
        {"key", required_argument, NULL, 'k'},
        {"size", required_argument, NULL, 'z'},
        {"server-pid", required_argument, NULL, 'p'},
        {NULL, 0, NULL, 0},
    };
    *opt = (struct options){.key = "bench:get:64", .size = 64, .depth = 1, .seconds = 1.5, .warmup = 0.3};
    int c;
    while ((c = getopt_long(argc, argv, "", known, NULL)) != -1) {
        switch (c) {
        case 'u':
            opt->url = optarg;
            break;
        case 'd':
            opt->depth = (uint32_t)strtoul(optarg, NULL, 10);
            break;
        case 's':
            opt->seconds = strtod(optarg, NULL);
            break;
        case 'w':
            opt->warmup = strtod(optarg, NULL);
            break;
        case 'h':
            opt->handoff = parse_handoff(optarg);
            break;
        case 'k':
            opt->key = optarg;
            break;
        case 'z':
            opt->size = (uint32_t)strtoul(optarg, NULL, 10);
            break;
        case 'p':
            opt->server_pid = (int)strtol(optarg, NULL, 10);
            break;
        default:
            usage();
        }
    }
    if (!opt->url || optind != argc || opt->depth == 0 || opt->seconds <= 0)
        usage();
}

int main(int argc, char **argv)
{
    struct client cl = {0};
    struct snapshot first, last;
    parse(argc, argv, &cl.opt);
    open_client(&cl);

    iok_drain_begin(cl.port);
    for (uint32_t i = 0; i < cl.opt.depth; i++)
        submit_get(&cl);
    iok_drain_end(cl.port);
    run_until(&cl, clock_ns(CLOCK_MONOTONIC) + (uint64_t)(cl.opt.warmup * 1e9));
    cl.sampled = 0;
    take_snapshot(&cl, &first);
    run_until(&cl, first.at + (uint64_t)(cl.opt.seconds * 1e9));
    take_snapshot(&cl, &last);

    report(&cl, &first, &last);
    close_client(&cl);
    return 0;
}
