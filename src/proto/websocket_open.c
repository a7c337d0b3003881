/* websocket_open.c - the opening of a WebSocket (RFC 6455, 4): what a request has to ask and a reply has to say, and which
 * parameters of permessage-deflate (RFC 7692, 7.1) both agree on.
 *
 * What it is: a judge of fields that the codec of HTTP has read, and the values of those to write. What it is not: a
 * reader or writer of HTTP; and it does not look at Host, Origin or the target, which are for the program. */
#include "http1.h"
#include "websocket_private.h"

static const char guid[] = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"; /* RFC 6455, 1.3 */

#define NONCE_BYTES 16u

bool iok_ws_accept_key(struct iok_span key, char accept[IOK_WS_ACCEPT_BYTES])
{
    uint8_t text[IOK_WS_KEY_BYTES + sizeof(guid) - 1], sha1[IOK_SHA1_BYTES];
    if (key.n != IOK_WS_KEY_BYTES)
        return false;
    memcpy(text, key.p, key.n);
    memcpy(text + key.n, guid, sizeof(guid) - 1);
    return iok_sha1(iok_span(text, sizeof(text)), sha1) &&
           iok_base64(accept, iok_span(sha1, sizeof(sha1))) == IOK_WS_ACCEPT_BYTES;
}

/* ---- fields ----------------------------------------------------------------------------------------------------- */

/* The next value of the field from *at on. */
static bool next_value(const struct iok_token *fields, size_t n, const char *name, size_t *at, struct iok_span *value)
{
    for (; *at + 1 < n; *at += 2) {
        if (!iok_span_eq(iok_token_span(&fields[*at]), iok_span_of(name)))
            continue;
        *value = iok_token_span(&fields[*at + 1]);
        *at += 2;
        return true;
    }
    return false;
}

/* How often the field is there; *value is the last one's. */
static size_t count_values(const struct iok_token *fields, size_t n, const char *name, struct iok_span *value)
{
    size_t at = 0, count = 0;
    while (next_value(fields, n, name, &at, value))
        count++;
    return count;
}

/* Whether the word is in one of the field's lists, in letters of any case. */
static bool has_word(const struct iok_token *fields, size_t n, const char *name, const char *word)
{
    size_t at = 0;
    struct iok_span list, element;
    while (next_value(fields, n, name, &at, &list))
        while (http1_list_next(&list, &element))
            if (iok_span_eq_nocase(element, word))
                return true;
    return false;
}

/* ---- Sec-WebSocket-Extensions: RFC 6455, 9.1 -------------------------------------------------------------------- */

enum param { SERVER_NO_CONTEXT, CLIENT_NO_CONTEXT, SERVER_BITS, CLIENT_BITS, PARAMS };

static const char *const param_names[PARAMS] = {
    [SERVER_NO_CONTEXT] = "server_no_context_takeover",
    [CLIENT_NO_CONTEXT] = "client_no_context_takeover",
    [SERVER_BITS] = "server_max_window_bits",
    [CLIENT_BITS] = "client_max_window_bits",
};

struct extension {
    bool is_deflate;
    bool is_wrong; /* a parameter that is not known, or twice, or whose value is none */
    bool has[PARAMS];
    uint8_t bits[PARAMS]; /* 0: without a value */
};

static void skip_blanks(struct iok_span *s)
{
    while (s->n > 0 && (s->p[0] == ' ' || s->p[0] == '\t'))
        *s = iok_span_skip(*s, 1);
}

static bool take_octet(struct iok_span *s, uint8_t c)
{
    skip_blanks(s);
    if (s->n == 0 || s->p[0] != c)
        return false;
    *s = iok_span_skip(*s, 1);
    skip_blanks(s);
    return true;
}

static bool take_token(struct iok_span *s, struct iok_span *token)
{
    size_t n = 0;
    while (n < s->n && (http1_chars[s->p[n]] & HTTP1_TOKEN) != 0)
        n++;
    *token = iok_span(s->p, n);
    *s = iok_span_skip(*s, n);
    return n > 0;
}

/* A token, perhaps in quotes. With an escape in it, it is none that we know, and its text does not matter. */
static bool take_param_value(struct iok_span *s, struct iok_span *value)
{
    if (s->n == 0 || s->p[0] != '"')
        return take_token(s, value);
    size_t n = 1;
    while (n < s->n && s->p[n] != '"')
        n += s->p[n] == '\\' ? 2 : 1;
    if (n >= s->n)
        return false;
    *value = iok_span(s->p + 1, n - 1);
    *s = iok_span_skip(*s, n + 1);
    return true;
}

/* RFC 7692, 7.1.2: 8 to 15, without zeros before it. 0: not so. */
static uint8_t read_bits(struct iok_span value)
{
    uint64_t bits = 0;
    if (value.n == 0 || value.p[0] == '0' || !http1_length(value, &bits) || bits < 8 || bits > 15)
        return 0;
    return (uint8_t)bits;
}

static void note_param(struct extension *x, struct iok_span name, const struct iok_span *value)
{
    size_t i = 0;
    while (i < PARAMS && !iok_span_eq(name, iok_span_of(param_names[i])))
        i++;
    if (i == PARAMS || x->has[i]) {
        x->is_wrong = true;
        return;
    }
    x->has[i] = true;
    x->bits[i] = value != NULL && i >= SERVER_BITS ? read_bits(*value) : 0;
    bool needs_value = i == SERVER_BITS || (i == CLIENT_BITS && value != NULL);
    x->is_wrong |= needs_value ? x->bits[i] == 0 : value != NULL;
}

/* Takes an element off the list. 1: it is in *x; 0: there is none any more; -1: it is no such list. */
static int next_extension(struct iok_span *list, struct extension *x)
{
    struct iok_span name, value;
    *x = (struct extension){0};
    while (take_octet(list, ','))
        ;
    skip_blanks(list);
    if (list->n == 0)
        return 0;
    if (!take_token(list, &name))
        return -1;
    x->is_deflate = iok_span_eq(name, iok_span_of("permessage-deflate"));
    while (take_octet(list, ';')) {
        if (!take_token(list, &name))
            return -1;
        bool has_value = take_octet(list, '=');
        if (has_value && !take_param_value(list, &value))
            return -1;
        note_param(x, name, has_value ? &value : NULL);
    }
    skip_blanks(list);
    return list->n == 0 || list->p[0] == ',' ? 1 : -1;
}

static size_t write_extension(char at[IOK_WS_EXTENSION_BYTES], const struct extension *x)
{
    size_t n = iok_span_of("permessage-deflate").n;
    memcpy(at, "permessage-deflate", n);
    for (size_t i = 0; i < PARAMS; i++) {
        size_t length = strlen(param_names[i]);
        if (!x->has[i])
            continue;
        memcpy(at + n, "; ", 2);
        memcpy(at + n + 2, param_names[i], length);
        n += 2 + length;
        if (x->bits[i] != 0) {
            at[n++] = '=';
            n += iok_format_i64(at + n, x->bits[i]);
        }
    }
    return n;
}

static uint8_t smaller(uint8_t a, uint8_t b)
{
    a = a != 0 ? a : 15;
    b = b != 0 ? b : 15;
    return a < b ? a : b;
}

/* ---- the server's role: RFC 6455, 4.2 --------------------------------------------------------------------------- */

bool iok_ws_is_asked_for(const struct iok_ws_request *request)
{
    return has_word(request->fields, request->n, "upgrade", "websocket");
}

bool iok_ws_next_protocol(const struct iok_ws_request *request, struct iok_ws_protocols *at, struct iok_span *protocol)
{
    while (!http1_list_next(&at->rest, protocol))
        if (!next_value(request->fields, request->n, "sec-websocket-protocol", &at->field, &at->rest))
            return false;
    return true;
}

bool iok_ws_offers(const struct iok_ws_request *request, struct iok_span protocol)
{
    struct iok_ws_protocols at = {0};
    struct iok_span offered;
    while (iok_ws_next_protocol(request, &at, &offered))
        if (iok_span_eq(offered, protocol))
            return true;
    return false;
}

/* RFC 7692, 5: what the client prefers comes first; one that asks for what is not known is passed over. */
static void accept_deflate(const struct extension *x, const struct iok_ws_deflate *wish, struct iok_ws_opening *out)
{
    struct extension answer = {.is_deflate = true};
    struct iok_ws_deflate *agreed = &out->deflate;
    agreed->on = true;
    agreed->server_no_context = answer.has[SERVER_NO_CONTEXT] = x->has[SERVER_NO_CONTEXT] || wish->server_no_context;
    agreed->client_no_context = answer.has[CLIENT_NO_CONTEXT] = x->has[CLIENT_NO_CONTEXT] || wish->client_no_context;
    agreed->server_bits = smaller(x->bits[SERVER_BITS], wish->server_bits);
    answer.has[SERVER_BITS] = x->has[SERVER_BITS] || agreed->server_bits < 15;
    answer.bits[SERVER_BITS] = agreed->server_bits;
    /* 7.1.2.2: only a client that says so can be told. */
    agreed->client_bits = x->has[CLIENT_BITS] ? smaller(x->bits[CLIENT_BITS], wish->client_bits) : 15;
    answer.has[CLIENT_BITS] = x->has[CLIENT_BITS] && agreed->client_bits < 15;
    answer.bits[CLIENT_BITS] = agreed->client_bits;
    out->n_extensions = write_extension(out->extensions, &answer);
}

static int read_extensions(struct iok_error *err, const struct iok_ws_request *request,
                           const struct iok_ws_deflate *wish, struct iok_ws_opening *out)
{
    size_t at = 0;
    struct iok_span list;
    while (next_value(request->fields, request->n, "sec-websocket-extensions", &at, &list)) {
        struct extension x;
        int rc;
        while ((rc = next_extension(&list, &x)) > 0)
            if (x.is_deflate && !x.is_wrong && wish->on && !out->deflate.on)
                accept_deflate(&x, wish, out);
        if (rc < 0)
            return iok_err(err, IOK_EPROTO, "a Sec-WebSocket-Extensions that is no list of extensions");
    }
    return 0;
}

static int check_protocols(struct iok_error *err, const struct iok_ws_request *request)
{
    struct iok_ws_protocols at = {0};
    struct iok_span protocol;
    while (iok_ws_next_protocol(request, &at, &protocol))
        if (protocol.n == 0 || !http1_all(protocol, HTTP1_TOKEN))
            return iok_err(err, IOK_EPROTO, "a Sec-WebSocket-Protocol that is no list of names");
    return 0;
}

static bool has_body(const struct iok_ws_request *request)
{
    struct iok_span value;
    return count_values(request->fields, request->n, "transfer-encoding", &value) > 0 ||
           (count_values(request->fields, request->n, "content-length", &value) > 0 &&
            !iok_span_eq(value, iok_span_of("0")));
}

static bool is_key(struct iok_span key)
{
    uint8_t nonce[NONCE_BYTES];
    size_t n;
    return key.n == IOK_WS_KEY_BYTES && iok_base64_decode(key, nonce, sizeof(nonce), &n) && n == NONCE_BYTES;
}

int iok_ws_read_request(struct iok_error *err, const struct iok_ws_request *request, const struct iok_ws_deflate *wish,
                        struct iok_ws_opening *out, int *status)
{
    const struct iok_token *fields = request->fields;
    struct iok_span key = {0}, version = {0};
    *out = (struct iok_ws_opening){0};
    *status = 400;
    if (!iok_span_eq(request->method, iok_span_of("GET")) || request->minor < 1)
        return iok_err(err, IOK_EPROTO, "a WebSocket opens with GET and HTTP/1.1");
    if (!iok_ws_is_asked_for(request) || !has_word(fields, request->n, "connection", "upgrade"))
        return iok_err(err, IOK_EPROTO, "a WebSocket opens with Upgrade: websocket and Connection: Upgrade");
    if (count_values(fields, request->n, "sec-websocket-version", &version) != 1)
        return iok_err(err, IOK_EPROTO, "not one Sec-WebSocket-Version");
    if (!iok_span_eq(version, iok_span_of("13"))) {
        *status = 426; /* 4.4 */
        return iok_err(err, IOK_EPROTO, "another version of WebSocket than 13");
    }
    if (count_values(fields, request->n, "sec-websocket-key", &key) != 1 || !is_key(key))
        return iok_err(err, IOK_EPROTO, "not one Sec-WebSocket-Key of 16 octets in base64");
    if (has_body(request)) /* it could be taken for frames, or frames for it */
        return iok_err(err, IOK_EPROTO, "a WebSocket opens with a request without a body");
    int rc = check_protocols(err, request);
    if (rc != 0 || (rc = read_extensions(err, request, wish, out)) != 0)
        return rc;
    if (!iok_ws_accept_key(key, out->accept)) {
        *status = 503;
        return iok_err(err, IOK_ENOMEM, "no SHA-1 for Sec-WebSocket-Accept");
    }
    return 0;
}

/* ---- the client's role: RFC 6455, 4.1 --------------------------------------------------------------------------- */

int iok_ws_make_key(struct iok_io *io, char key[IOK_WS_KEY_BYTES])
{
    uint64_t random[4];
    uint8_t nonce[IOK_SHA256_BYTES];
    for (size_t i = 0; i < 4; i++)
        random[i] = io->host->random(io);
    if (!iok_sha256(iok_span(random, sizeof(random)), nonce))
        return iok_io_fail(io, IOK_ENOMEM, "no SHA-256 for Sec-WebSocket-Key");
    iok_base64(key, iok_span(nonce, NONCE_BYTES));
    return 0;
}

size_t iok_ws_write_offer(const struct iok_ws_deflate *wish, char at[IOK_WS_EXTENSION_BYTES])
{
    struct extension offer = {.is_deflate = true};
    if (!wish->on)
        return 0;
    offer.has[SERVER_NO_CONTEXT] = wish->server_no_context;
    offer.has[CLIENT_NO_CONTEXT] = wish->client_no_context;
    offer.has[SERVER_BITS] = smaller(wish->server_bits, 15) < 15;
    offer.bits[SERVER_BITS] = wish->server_bits;
    offer.has[CLIENT_BITS] = true; /* without a value: the server may choose */
    offer.bits[CLIENT_BITS] = smaller(wish->client_bits, 15) < 15 ? wish->client_bits : 0;
    return write_extension(at, &offer);
}

bool iok_ws_read_offer(struct iok_span offer, struct iok_ws_deflate *wish)
{
    struct extension x, more;
    if (next_extension(&offer, &x) != 1 || !x.is_deflate || x.is_wrong || next_extension(&offer, &more) != 0)
        return false;
    *wish = (struct iok_ws_deflate){true, x.has[SERVER_NO_CONTEXT], x.has[CLIENT_NO_CONTEXT], x.bits[SERVER_BITS],
                                    x.bits[CLIENT_BITS]};
    return true;
}

/* RFC 7692, 7.1: what was asked for is granted by saying so. */
static bool grants(const struct extension *x, const struct iok_ws_deflate *wish)
{
    bool has_bits = !x->has[CLIENT_BITS] || x->bits[CLIENT_BITS] != 0;
    bool narrow = smaller(x->bits[SERVER_BITS], 15) <= smaller(wish->server_bits, 15);
    return has_bits && narrow && (!wish->server_no_context || x->has[SERVER_NO_CONTEXT]);
}

static int read_answer(struct iok_error *err, const struct iok_token *fields, size_t n,
                       const struct iok_ws_deflate *wish, struct iok_ws_opening *out)
{
    size_t at = 0;
    struct iok_span list;
    struct iok_ws_deflate *agreed = &out->deflate;
    while (next_value(fields, n, "sec-websocket-extensions", &at, &list)) {
        struct extension x;
        int rc;
        while ((rc = next_extension(&list, &x)) > 0) {
            if (!x.is_deflate || !wish->on || agreed->on)
                return iok_err(err, IOK_EPROTO, "the server wants an extension of WebSocket that it was not offered");
            if (x.is_wrong || !grants(&x, wish))
                return iok_err(err, IOK_EPROTO, "the server wants permessage-deflate otherwise than it was offered");
            *agreed = (struct iok_ws_deflate){
                .on = true,
                .server_no_context = x.has[SERVER_NO_CONTEXT],
                .client_no_context = x.has[CLIENT_NO_CONTEXT] || wish->client_no_context,
                .server_bits = smaller(x.bits[SERVER_BITS], 15),
                .client_bits = smaller(x.bits[CLIENT_BITS], wish->client_bits),
            };
            out->n_extensions = write_extension(out->extensions, &x);
        }
        if (rc < 0)
            return iok_err(err, IOK_EPROTO, "a Sec-WebSocket-Extensions that is no list of extensions");
    }
    return 0;
}

static bool is_in(struct iok_span list, struct iok_span word)
{
    struct iok_span element;
    while (http1_list_next(&list, &element))
        if (iok_span_eq(element, word))
            return true;
    return false;
}

int iok_ws_read_reply(struct iok_error *err, const struct iok_token *fields, size_t n, const char key[IOK_WS_KEY_BYTES],
                      struct iok_span protocols, const struct iok_ws_deflate *wish, struct iok_ws_opening *out)
{
    struct iok_span accept = {0};
    *out = (struct iok_ws_opening){0};
    if (!iok_ws_accept_key(iok_span(key, IOK_WS_KEY_BYTES), out->accept))
        return iok_err(err, IOK_ENOMEM, "no SHA-1 for Sec-WebSocket-Accept");
    if (!has_word(fields, n, "upgrade", "websocket") || !has_word(fields, n, "connection", "upgrade"))
        return iok_err(err, IOK_EPROTO, "the server changes to another protocol than WebSocket");
    if (count_values(fields, n, "sec-websocket-accept", &accept) != 1 ||
        !iok_span_eq(accept, iok_span(out->accept, IOK_WS_ACCEPT_BYTES)))
        return iok_err(err, IOK_EPROTO, "the server's Sec-WebSocket-Accept is not what it has to be");
    size_t chosen = count_values(fields, n, "sec-websocket-protocol", &out->protocol);
    if (chosen > 1 || (chosen == 1 && protocols.p != NULL && !is_in(protocols, out->protocol)))
        return iok_err(err, IOK_EPROTO, "the server chose a subprotocol that it was not offered");
    return read_answer(err, fields, n, wish, out);
}
