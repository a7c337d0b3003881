/* fuzz_codec.c - one fuzzer for all codecs.
 *
 * Invariants: whatever the peer sends and the program asks for, a codec reads no byte that it was not given, keeps the
 * contract of proto.h (the kit's host stops at each breach), ends in success or in a clear error, and leaves nothing
 * alive, also when an allocation fails. What it does, to the program and to the peer, does not depend on how the bytes
 * were cut: each input is run whole, in random pieces and byte by byte, and all logs have to be the same.
 *
 * Input:  [target][flags][seed of the cutting][failing allocation] then the peer's bytes, in which 0xff makes the next
 * byte an action: a call from the list below or one that is spelled out, one with a body or an answer in parts, a piece
 * of a body, a cursor (the byte behind it says which), a statement that is described, a cancelled caller, a ping, a reset, the end of the connection, or 0xff itself. Of a server's role, requests are answered at once,
 * and bodies are whole: fuzz_http_server.c has the rest.
 *
 *     fuzz_codec CODEC [options of libFuzzer] [corpus]     the targets of one codec
 *     fuzz_codec codecs                                    their names
 *     fuzz_codec seeds CODEC DIRECTORY TRANSCRIPT...       writes each connection of the transcripts as a first corpus */
#include "runs.h"

#define ESCAPE 0xffu
#define HEADER 4u
#define PARTS_MAX 4u
#define INPUT_MAX 4096u  /* as tools/fuzz tells libFuzzer: byte by byte the cost grows by the square */
#define SMALL_REPLY 300u /* a limit that inputs of some hundred bytes can cross */

enum flags {
    FLAG_SIGNED_IN = 1, /* the fuzzer itself answers the sign-in, so that it gets beyond */
    FLAG_ABANDON = 2,
    FLAG_SMALL = 4, /* replies are limited to SMALL_REPLY */
};

static const struct target {
    const char *codec, *url;
    bool server;
    struct iok_span signed_in; /* what a server says to the sign-in */
} targets[] = {
#define SAYS(text)                                                                                                     \
    {                                                                                                                  \
        (const uint8_t *)(text), sizeof(text) - 1                                                                      \
    }
    {"http", "http://u:p@h", false, SAYS("")},
    {"http", "http://h", true, SAYS("")},
    {"line", "line://h:1", false, SAYS("")},
    {"line", "line://h:1", true, SAYS("")},
    {"postgresql", "postgresql://u:p%C3%BC@h/d", false, SAYS("R\0\0\0\x8\0\0\0\0Z\0\0\0\5I")},
    {"postgresql", "postgresql://u:pw@h/d?statements=2", false, SAYS("R\0\0\0\x8\0\0\0\0Z\0\0\0\5I")},
    {"redis", "redis://u:pw@h/3?client_name=n", false, SAYS("%0\r\n+OK\r\n+OK\r\n+OK\r\n")},
    {"redis", "redis://u:pw@h/3?protocol=2", false, SAYS("+OK\r\n+OK\r\n+OK\r\n+OK\r\n")},
    {"redis", "redis://h", false, SAYS("%0\r\n+OK\r\n+OK\r\n")},
    {"redis", "redis://h?protocol=2", false, SAYS("+PONG\r\n+OK\r\n+OK\r\n")},
};
#define TARGETS (sizeof(targets) / sizeof(*targets))

static const char *const calls[][PARTS_MAX] = {
    {"GET", "k"},
    {"SET", "k", "v"},
    {"SUBSCRIBE", "a", "b"},
    {"UNSUBSCRIBE", "a"},
    {"PSUBSCRIBE", "a"},
    {"PUNSUBSCRIBE", "a"},
    {"SSUBSCRIBE", "a"},
    {"SUNSUBSCRIBE", "a"},
    {"MONITOR"},
    {"MULTI"},
    {"EXEC"},
    {"DISCARD"},
    {"RESET"},
    {"EVAL", "return", "0"},
    {"PING"},
    {"SUBSCRIBE"},
    {""},
    {"CLIENT", "NO-EVICT", "on"},
    {"SELECT $1", "1"},
    {"DEALLOCATE ALL"},
    {"COPY t TO STDOUT"},
    {"GET", "/"},
    {"HEAD", "/"},
    {"POST", "/", "body"},
    {"CONNECT", "h:1"},
};

enum action {
    ACTION_CANCEL = sizeof(calls) / sizeof(*calls),
    ACTION_PING,
    ACTION_RESET,
    ACTION_EOF,
    ACTION_PARTS, /* COPY whose answer is taken in parts */
    ACTION_BODY,  /* COPY with a body */
    ACTION_PIECE,
    ACTION_FINISH,
    ACTION_BREAK,
    ACTION_CURSOR, /* one is opened, asked for more, closed: a byte follows, enum cursor_bits */
    ACTION_MORE,
    ACTION_CLOSE,
    ACTION_DESCRIBE, /* of a statement, by enum cursor_bits, too */
    ACTION_BYTE,     /* 0xff from the peer */
    ACTION_CALL,     /* its arguments follow, as take_args reads them */
    ACTION_EXPECT,   /* of HTTP: a body that waits for its go */
    ACTION_UPGRADE,
    ACTIONS,
};

enum cursor_bits {
    CURSOR_ROWS = 3,        /* so many and one */
    CURSOR_OTHER = 4,       /* another name */
    CURSOR_PARAMETER = 8,   /* the statement takes one */
    CURSOR_COPY = 16,       /* the statement is a COPY */
    CURSOR_STATEMENT = 224, /* which of otherwise equal ones, by its top bits */
};

static unsigned first_target, n_targets; /* of the codec that was chosen */

/* ---- a run ------------------------------------------------------------------------------------------------------ */

/* The kernel asks these about every call before it is encoded. */
static void ask(struct kit_host *host, const struct iok_token *args, size_t n)
{
    struct iok_class class = {0};
    char text[40];
    if (host->proto->classify != NULL)
        host->proto->classify(args, n, &class);
    if (host->proto->describe != NULL && host->proto->describe(args, n, text, sizeof(text)) > sizeof(text))
        abort();
}

static void call(struct kit_host *host, const char *const parts[PARTS_MAX])
{
    struct iok_token args[PARTS_MAX];
    size_t n = 0;
    for (; n < PARTS_MAX && parts[n] != NULL; n++)
        args[n] =
            (struct iok_token){.type = IOK_TEXT, .len = (uint32_t)strlen(parts[n]), .p = (const uint8_t *)parts[n]};
    ask(host, args, n);
    kit_host_call(host, args, n, 0);
}

static struct iok_token text_token(const char *text)
{
    return (struct iok_token){.type = IOK_TEXT, .len = (uint32_t)strlen(text), .p = (const uint8_t *)text};
}

static const char *statement(unsigned bits)
{
    static const char *const statements[] = {"SELECT 1", "SELECT a",  "BEGIN", "INSERT",
                                             "ROLLBACK", "SET a = b", "",      "EXECUTE x"};
    return (bits & CURSOR_COPY) != 0 ? "COPY t FROM STDIN" : statements[(bits & CURSOR_STATEMENT) >> 5];
}

static void cursor(struct kit_host *host, unsigned action, unsigned bits)
{
    struct iok_token args[] = {{.type = IOK_ARRAY, .len = 3},
                               text_token("cursor"),
                               text_token((bits & CURSOR_OTHER) != 0 ? "d" : "c"),
                               {.type = IOK_I64, .i = action == ACTION_CLOSE ? 0 : 1 + (bits & CURSOR_ROWS)},
                               text_token(statement(bits)),
                               text_token("1")};
    size_t n = action != ACTION_CURSOR ? 4 : (bits & CURSOR_PARAMETER) != 0 ? 6 : 5;
    ask(host, args, n);
    kit_host_call(host, args, n, 0);
}

static void describe(struct kit_host *host, unsigned bits)
{
    struct iok_token args[] = {{.type = IOK_ARRAY, .len = 1}, text_token("describe"), text_token(statement(bits))};
    ask(host, args, 3);
    kit_host_call(host, args, 3, 0);
}

/* The same of HTTP, whose requests begin otherwise. */
static bool http_stream(struct kit_host *host, unsigned action)
{
    struct iok_token args[] = {
        text_token("POST"), text_token("/"), {.type = IOK_NULL}, text_token("expect"), text_token("100-continue")};
    bool upgrade = action == ACTION_UPGRADE;
    if (strcmp(host->proto->name, "http") != 0)
        return action >= ACTION_EXPECT;
    if (action != ACTION_PARTS && action != ACTION_BODY && action < ACTION_EXPECT)
        return false;
    if (upgrade) {
        args[3] = text_token("upgrade");
        args[4] = text_token("echo");
    }
    ask(host, args, action >= ACTION_EXPECT ? 5 : 2);
    kit_host_call(host, args, action >= ACTION_EXPECT ? 5 : 2,
                  (action == ACTION_PARTS || upgrade ? IOK_FLIGHT_PARTS : 0) |
                      (action == ACTION_PARTS ? 0 : IOK_FLIGHT_BODY));
    return true;
}

static void stream(struct kit_host *host, unsigned action)
{
    struct iok_token copy = text_token("COPY t");
    struct iok_span row = iok_span_of("1\n");
    if (http_stream(host, action))
        return;
    if (action == ACTION_PARTS)
        kit_host_call(host, &copy, 1, IOK_FLIGHT_PARTS);
    else if (host->proto->body == NULL)
        return;
    else if (action == ACTION_BODY)
        kit_host_call(host, &copy, 1, IOK_FLIGHT_BODY);
    else
        kit_host_body(host, row,
                      action == ACTION_PIECE    ? IOK_BODY_PART
                      : action == ACTION_FINISH ? IOK_BODY_END
                                                : IOK_BODY_FAIL);
}

/* [number] and for each argument [type and length] and its bytes. What is short is shorter then. */
static size_t take_args(struct iok_span *in, struct iok_token args[PARTS_MAX])
{
    static const enum iok_type types[] = {IOK_TEXT, IOK_BYTES, IOK_I64,   IOK_F64,
                                          IOK_BOOL, IOK_NULL,  IOK_ARRAY, IOK_MAP};
    size_t n = in->n > 0 ? in->p[0] % (PARTS_MAX + 1) : 0;
    *in = iok_span_skip(*in, in->n > 0);
    for (size_t i = 0; i < n; i++) {
        uint8_t head = in->n > 0 ? in->p[0] : 0;
        size_t length = head >> 3;
        *in = iok_span_skip(*in, in->n > 0);
        length = length < in->n ? length : in->n;
        args[i] = (struct iok_token){.type = (uint8_t)types[head & 7], .len = (uint32_t)length, .i = head >> 3};
        if (args[i].type == IOK_F64)
            args[i].f = head / 3.0;
        if (args[i].type == IOK_BOOL)
            args[i].i &= 1;
        if (args[i].type == IOK_TEXT || args[i].type == IOK_BYTES) {
            args[i].p = in->p;
            *in = iok_span_skip(*in, length);
        }
    }
    return n;
}

static void answer_all(struct kit_host *host)
{
    static const struct iok_token line = {.type = IOK_BYTES, .len = 6, .p = (const uint8_t *)"answer"};
    static const struct iok_token http[] = {{.type = IOK_ARRAY, .len = 4},
                                            {.type = IOK_I64, .i = 404},
                                            {.type = IOK_NULL},
                                            {.type = IOK_ARRAY, .len = 0},
                                            {.type = IOK_BYTES, .len = 6, .p = (const uint8_t *)"answer"}};
    bool is_http = strcmp(host->proto->name, "http") == 0;
    while (host->n_requests > 0 && host->failed == 0)
        kit_host_answer(host, is_http ? http : &line, is_http ? 5 : 1);
}

static void receive(struct kit_host *host, struct iok_span bytes, uint32_t *cutting)
{
    while (bytes.n > 0)
        kit_host_recv(host, fuzz_piece(&bytes, cutting));
    answer_all(host);
}

static void act(struct kit_host *host, unsigned action, struct iok_span *in, uint32_t *cutting)
{
    struct iok_token args[PARTS_MAX];
    if (action == ACTION_BYTE)
        receive(host, iok_span("\xff", 1), cutting);
    else if (action == ACTION_EOF)
        kit_host_eof(host);
    else if (host->server)
        return;
    else if (action < ACTION_CANCEL)
        call(host, calls[action]);
    else if (action == ACTION_CANCEL)
        kit_host_cancel(host);
    else if (action == ACTION_PING && host->proto->ping != NULL)
        kit_host_ping(host);
    else if (action == ACTION_RESET && host->proto->reset != NULL)
        kit_host_reset(host);
    else if ((action >= ACTION_PARTS && action < ACTION_CURSOR) || action >= ACTION_EXPECT)
        stream(host, action);
    else if (action >= ACTION_CURSOR && action <= ACTION_DESCRIBE) {
        unsigned bits = in->n > 0 ? in->p[0] : 0;
        *in = iok_span_skip(*in, in->n > 0);
        if (action == ACTION_DESCRIBE)
            describe(host, bits);
        else
            cursor(host, action, bits);
    } else if (action == ACTION_CALL) {
        size_t n = take_args(in, args);
        ask(host, args, n);
        kit_host_call(host, args, n, 0);
    }
}

/* Errors are compared by their code: the text may show what else had come. */
static void without_texts(struct kit_text *log, const struct kit_text *events)
{
    const char *line = events->n > 0 ? events->p : "";
    while (*line != '\0') {
        const char *end = strchr(line, '\n') + 1;
        bool error = strncmp(line, "error IOK_", 10) == 0 || strncmp(line, "refused IOK_", 12) == 0;
        const char *stop = error ? strchr(line, '"') : end;
        kit_text_put(log, line, (size_t)(stop - line));
        line = end;
    }
}

static void run(const uint8_t *header, struct iok_span in, uint32_t cutting, struct kit_text *log)
{
    const struct target *target = &targets[first_target + header[0] % n_targets];
    unsigned flags = header[1];
    struct kit_host host = {.abandon = (flags & FLAG_ABANDON) != 0, .server = target->server};
    bool tls;
    const struct iok_proto *proto = iok_proto_find(iok_span(target->url, strcspn(target->url, ":")), &tls);
    kit_host_open(&host, proto, target->url, (flags & FLAG_SMALL) != 0 ? SMALL_REPLY : 1u << 20);
    if ((flags & FLAG_SIGNED_IN) != 0)
        receive(&host, target->signed_in, &cutting);
    while (in.n > 0) {
        const uint8_t *escape = memchr(in.p, ESCAPE, in.n);
        size_t n = escape != NULL ? (size_t)(escape - in.p) : in.n;
        receive(&host, iok_span(in.p, n), &cutting);
        in = iok_span_skip(in, n);
        if (escape == NULL)
            break;
        unsigned action = in.n > 1 ? in.p[1] % ACTIONS : (unsigned)ACTION_EOF;
        in = iok_span_skip(in, in.n > 1 ? 2 : 1);
        act(&host, action, &in, &cutting);
    }
    without_texts(log, &host.events);
    kit_text_quote(log, iok_span(host.sent.p, host.sent.n));
    if (!kit_host_close(&host))
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerInitialize(int *argc, char ***argv);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < HEADER)
        return 0;
    return fuzz_runs(run, data, iok_span(data + HEADER, size - HEADER), data[2], data[3]);
}

/* ---- seeds ------------------------------------------------------------------------------------------------------- */

struct seeds {
    const char *directory;
    struct kit_text name; /* of the transcript, for file names */
    unsigned connections;
    bool open;     /* the connection is of our codec */
    size_t beyond; /* where what follows the sign-in begins, 0 if it was not done */
    struct kit_text bytes;
};

static void put_action(struct seeds *seeds, unsigned action)
{
    kit_text_put(&seeds->bytes, (uint8_t[]){ESCAPE, (uint8_t)action}, 2);
}

static void put_received(struct seeds *seeds, struct iok_span bytes)
{
    for (size_t i = 0; i < bytes.n; i++) {
        if (bytes.p[i] == ESCAPE)
            put_action(seeds, ACTION_BYTE);
        else
            kit_text_put(&seeds->bytes, &bytes.p[i], 1);
    }
}

/* From the list where it has the request's name, else the name alone. */
static void put_call(struct seeds *seeds, struct iok_span name)
{
    size_t n = name.n < 31 ? name.n : 31;
    for (unsigned i = 0; i < ACTION_CANCEL; i++) {
        if (iok_span_eq_nocase(name, calls[i][0])) {
            put_action(seeds, i);
            return;
        }
    }
    put_action(seeds, ACTION_CALL);
    kit_text_put(&seeds->bytes, (uint8_t[]){1, (uint8_t)(n << 3)}, 2);
    kit_text_put(&seeds->bytes, name.p, n);
}

static void write_seed(struct seeds *seeds, unsigned target, unsigned flags, struct iok_span bytes)
{
    const uint8_t header[HEADER] = {(uint8_t)target, (uint8_t)flags, (uint8_t)seeds->connections, 0};
    char path[4096];
    snprintf(path, sizeof(path), "%s/%s-%u-%u-%u", seeds->directory, seeds->name.p, seeds->connections, target, flags);
    FILE *file = fopen(path, "wb");
    if (file == NULL || fwrite(header, 1, HEADER, file) != HEADER || fwrite(bytes.p, 1, bytes.n, file) != bytes.n ||
        fclose(file) != 0) {
        perror(path);
        exit(1);
    }
}

/* As the transcript has it, and with the fuzzer's own sign-in, as that of the targets is not the transcript's. */
static void end_connection(struct seeds *seeds)
{
    struct iok_span bytes = iok_span(seeds->bytes.p, seeds->bytes.n);
    for (unsigned i = 0; seeds->open && bytes.n + HEADER <= INPUT_MAX && i < n_targets; i++) {
        write_seed(seeds, i, 0, bytes);
        if (seeds->beyond > 0)
            write_seed(seeds, i, FLAG_SIGNED_IN, iok_span_skip(bytes, seeds->beyond));
    }
    kit_text_free(&seeds->bytes);
    seeds->beyond = 0;
}

static void take_step(void *owner, const char *verb, struct iok_span bytes)
{
    /* in the order of enum action */
    static const char *const verbs[] = {"cancel", "ping",  "reset",  "eof",  "parts", "body",     "piece",
                                        "finish", "break", "cursor", "more", "close", "described"};
    struct seeds *seeds = owner;
    bool tls;
    if (strcmp(verb, "url") == 0 || strcmp(verb, "server") == 0) {
        end_connection(seeds);
        bytes.n = strcspn((const char *)bytes.p, ":+");
        const struct iok_proto *proto = iok_proto_find(bytes, &tls);
        seeds->open = proto != NULL && strcmp(proto->name, targets[first_target].codec) == 0;
        seeds->connections++;
    } else if (strcmp(verb, "ready") == 0 && seeds->beyond == 0) {
        seeds->beyond = seeds->bytes.n;
    } else if (strcmp(verb, "recv") == 0) {
        put_received(seeds, bytes);
    } else if (strcmp(verb, "call") == 0) {
        put_call(seeds, bytes);
    }
    for (unsigned i = 0; i < sizeof(verbs) / sizeof(*verbs); i++)
        if (strcmp(verb, verbs[i]) == 0)
            put_action(seeds, ACTION_CANCEL + i);
    if (strcmp(verb, "cursor") == 0 || strcmp(verb, "more") == 0 || strcmp(verb, "close") == 0 ||
        strcmp(verb, "described") == 0)
        kit_text_put(&seeds->bytes, &(uint8_t){bytes.n > 0 && bytes.p[0] == 'd' ? CURSOR_OTHER : 0}, 1);
}

static void write_seeds(const char *directory, const char *path)
{
    static char script[1u << 20];
    struct seeds seeds = {.directory = directory};
    const char *name = strrchr(path, '/') != NULL ? strrchr(path, '/') + 1 : path;
    FILE *file = fopen(path, "rb");
    if (file == NULL) {
        perror(path);
        exit(1);
    }
    script[fread(script, 1, sizeof(script) - 1, file)] = '\0';
    fclose(file);
    kit_text_put(&seeds.name, name, strcspn(name, "."));
    kit_script_steps(script, take_step, &seeds);
    end_connection(&seeds);
    kit_text_free(&seeds.name);
}

/* ---- the command line -------------------------------------------------------------------------------------------- */

static bool choose(const char *codec)
{
    for (unsigned i = 0; i < TARGETS; i++) {
        if (strcmp(targets[i].codec, codec) != 0)
            continue;
        first_target = n_targets == 0 ? i : first_target;
        n_targets++;
    }
    return n_targets > 0;
}

static void print_codecs(void)
{
    for (unsigned i = 0; i < TARGETS; i++)
        if (i == 0 || strcmp(targets[i].codec, targets[i - 1].codec) != 0)
            printf("%s\n", targets[i].codec);
}

/* Takes our own words away, so that libFuzzer finds its own. */
int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    char **words = *argv;
    bool seeds = *argc > 3 && strcmp(words[1], "seeds") == 0;
    if (*argc > 1 && strcmp(words[1], "codecs") == 0) {
        print_codecs();
        exit(0);
    }
    if (*argc < 2 || !choose(words[1 + seeds])) {
        fprintf(stderr, "the first argument is a codec, or codecs, or seeds; see the head of fuzz_codec.c\n");
        exit(1);
    }
    for (int i = 4; seeds && i < *argc; i++)
        write_seeds(words[3], words[i]);
    if (seeds)
        exit(0);
    words[1] = words[0];
    *argv = words + 1;
    --*argc;
    return 0;
}
