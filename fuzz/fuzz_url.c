/* fuzz_url.c - service URLs: iok_url_parse and all that iok_service_make checks.
 *
 * Invariants: whatever the text, it becomes a service, or an error with a code of its own and a text of printable
 * characters. The text for people (iok_url_safe_text) is a URL again, of the same parts without the secrets, and stays
 * as it is when it is parsed and written once more. A password is never in either, also when the URL is wrong.
 *
 * Input:  without a newline it is the URL. With newlines it is scheme, user, password's beginning, and what follows the
 * '@'; a known secret becomes the password's end. When the last part is missing the '@' is, too, as if host and user
 * had been forgotten. */
#include <stdio.h>
#include <stdlib.h>

#include "../src/kernel/kernel.h"
#include "../tests/kit/kit.h"

#define SECRET "QzXj7-hunter2"

static void stop(const char *what, const char *url, const char *text)
{
    fprintf(stderr, "%s\n  url:  %s\n  text: %s\n", what, url, text);
    abort();
}

static void check_text(const char *url, const char *text, bool has_secret)
{
    if (has_secret && strstr(text, SECRET) != NULL)
        stop("a secret is shown", url, text);
    for (; *text != '\0'; text++)
        if ((unsigned char)*text < ' ' || *text == 0x7f)
            stop("a control character is shown", url, text);
}

static void check_error(const char *url, int rc, const struct iok_error *err, bool has_secret)
{
    if (rc != err->code || (rc != IOK_EURL && rc != IOK_EOPTION && rc != IOK_ETLS) || strlen(err->text) < 10)
        stop("not a clear error", url, err->text);
    check_text(url, err->text, has_secret);
}

static bool same(struct iok_span a, struct iok_span b)
{
    return iok_span_eq(a, b);
}

/* Escapes may make the text longer than a URL may be. */
static void check_again(const char *url, const struct iok_url *parsed, const char *safe)
{
    static char once_more[4 * IOK_URL_BYTES_MAX];
    struct iok_url again;
    struct iok_error err;
    if (strlen(safe) > IOK_URL_BYTES_MAX)
        return;
    if (iok_url_parse(&again, safe, &err) != 0)
        stop(err.text, url, safe);
    bool hosts = again.n_hosts == parsed->n_hosts;
    for (uint32_t i = 0; i < again.n_hosts && hosts; i++)
        hosts = same(again.hosts[i].name, parsed->hosts[i].name) && again.hosts[i].port == parsed->hosts[i].port;
    if (!hosts || !same(again.scheme, parsed->scheme) || !same(again.user, parsed->user) ||
        !same(again.path, parsed->path) || again.unix_socket != parsed->unix_socket)
        stop("the text is that of another URL", url, safe);
    iok_url_safe_text(&again, once_more, sizeof(once_more));
    if (strcmp(safe, once_more) != 0)
        stop(once_more, url, safe);
    iok_url_deinit(&again);
}

static void check_url(const char *url, bool has_secret)
{
    static char safe[4 * IOK_URL_BYTES_MAX];
    struct iok_url parsed;
    struct iok_error err;
    int rc = iok_url_parse(&parsed, url, &err);
    if (rc != 0) {
        check_error(url, rc, &err, has_secret);
        return;
    }
    size_t n = iok_url_safe_text(&parsed, safe, sizeof(safe));
    if (n != strlen(safe) || (parsed.has_password && parsed.storage_bytes == 0))
        stop("a wrong length", url, safe);
    check_text(url, safe, has_secret);
    check_again(url, &parsed, safe);
    iok_url_deinit(&parsed);
}

static void check_service(const char *url, bool has_secret)
{
    struct iok_error err;
    struct iok_service *service = iok_service_make(url, &err);
    if (service == NULL) {
        check_error(url, err.code, &err, has_secret);
        return;
    }
    check_text(url, service->name, has_secret);
    iok_service_drop(service);
}

/* The next line of *in, without what would be no text. */
static struct iok_span take_line(struct iok_span *in)
{
    const uint8_t *end = in->n > 0 ? memchr(in->p, '\n', in->n) : NULL;
    struct iok_span line = iok_span(in->p, end != NULL ? (size_t)(end - in->p) : in->n);
    *in = iok_span_skip(*in, line.n + (end != NULL));
    return line;
}

/* True if the secret stands where a password does. */
static bool make_url(struct iok_span in, struct kit_text *url)
{
    if (in.n == 0 || memchr(in.p, '\n', in.n) == NULL) {
        kit_text_put(url, in.p, in.n);
        return false;
    }
    struct iok_span scheme = take_line(&in), user = take_line(&in), start = take_line(&in);
    kit_text_put(url, scheme.p, scheme.n);
    kit_text_put(url, "://", 3);
    kit_text_put(url, user.p, user.n);
    kit_text_put(url, ":", 1);
    kit_text_put(url, start.p, start.n);
    kit_text_put(url, SECRET, sizeof(SECRET) - 1);
    bool in_authority = strcspn(url->p, ":/?#") == scheme.n && strpbrk(url->p + scheme.n + 3, "/?#@") == NULL;
    if (in.n > 0) {
        kit_text_put(url, "@", 1);
        kit_text_put(url, in.p, in.n);
    }
    const char *first = memchr(url->p, '\0', url->n) == NULL ? strstr(url->p, SECRET) : NULL;
    bool once = first != NULL && strstr(first + 1, SECRET) == NULL;
    return once && (in.n > 0 || in_authority);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct kit_text url = {0};
    bool has_secret = make_url(iok_span(data, size), &url);
    kit_text_put(&url, "", 0);
    check_url(url.p, has_secret);
    check_service(url.p, has_secret);
    kit_text_free(&url);
    return 0;
}
