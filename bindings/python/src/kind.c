/* kind.c - values of a kind (enum iok_kind) that is bytes or an array become the Python objects for it. It is apart from
 * value.c since few replies have any.
 *
 *     UUID uuid.UUID   TIMETZ time   INTERVAL timedelta, or values.Interval if it has months or is too long
 *     INET, NETWORK IPv4Address, IPv4Interface, IPv4Network and those of version 6
 *     RANGE values.Range   MULTIRANGE values.Multirange */
#include "core.h"

#include <datetime.h>

static const int64_t day_us = INT64_C(86400000000);

static PyObject *uuid_type, *interval_type, *range_type, *multirange_type;
static PyObject *address_types[2], *interface_types[2], *network_types[2]; /* of versions 4 and 6 */

/* The class, imported at its first use: most programs need none of them. Borrowed. */
static PyObject *kind_class(PyObject **type, const char *module, const char *name)
{
    if (*type == NULL) {
        *type = core_import(module, name);
    }
    return *type;
}

static uint64_t kind_u64(const uint8_t *p, int n)
{
    uint64_t value = 0;
    for (int i = 0; i < n; i++) {
        value = value << 8 | p[i];
    }
    return value;
}

static PyObject *kind_wrong(void)
{
    PyErr_SetString(PyExc_SystemError, "iokernel: a reply's tape has a value that is not of its kind");
    return NULL;
}

static PyObject *kind_uuid(const struct iok_token *t)
{
    PyObject *type = kind_class(&uuid_type, "uuid", "UUID");
    return type == NULL ? NULL : PyObject_CallFunction(type, "Oy#", Py_None, (const char *)t->p, (Py_ssize_t)t->len);
}

static PyObject *kind_timetz(const struct iok_token *t)
{
    int64_t us = (int64_t)kind_u64(t->p, 8);
    int east = (int32_t)kind_u64(t->p + 8, 4), seconds = (int)(us / 1000000);
    PyObject *offset = PyDelta_FromDSU(0, east, 0);
    PyObject *zone = offset == NULL ? NULL : PyTimeZone_FromOffset(offset);
    PyObject *value = NULL;
    if (zone != NULL) {
        value = PyDateTimeAPI->Time_FromTime(seconds / 3600, seconds / 60 % 60, seconds % 60, (int)(us % 1000000), zone,
                                             PyDateTimeAPI->TimeType);
    }
    Py_XDECREF(offset);
    Py_XDECREF(zone);
    return value;
}

static PyObject *kind_interval(const struct iok_token *t)
{
    int64_t us = (int64_t)kind_u64(t->p, 8);
    int days = (int32_t)kind_u64(t->p + 8, 4), months = (int32_t)kind_u64(t->p + 12, 4);
    int64_t all_days = days + us / day_us, rest = us % day_us;
    if (months == 0 && all_days > -999999999 && all_days < 999999999) {
        return PyDelta_FromDSU((int)all_days, (int)(rest / 1000000), (int)(rest % 1000000));
    }
    PyObject *type = kind_class(&interval_type, "iokernel.values", "Interval");
    return type == NULL ? NULL : PyObject_CallFunction(type, "iiL", months, days, (long long)us);
}

static PyObject *kind_address(const struct iok_token *t)
{
    static const char *const names[] = {"IPv4Address",   "IPv6Address", "IPv4Interface",
                                        "IPv6Interface", "IPv4Network", "IPv6Network"};
    int version = t->len > 5 ? 1 : 0;
    Py_ssize_t octets = version == 0 ? 4 : 16;
    bool network = t->subtype == IOK_KIND_NETWORK;
    PyObject **types = network ? network_types : (Py_ssize_t)t->len == octets ? address_types : interface_types;
    int name = network ? 4 : (Py_ssize_t)t->len == octets ? 0 : 2;
    PyObject *type = kind_class(&types[version], "ipaddress", names[name + version]);
    if (type == NULL) {
        return NULL;
    }
    if (name == 0) {
        return PyObject_CallFunction(type, "y#", (const char *)t->p, octets);
    }
    return PyObject_CallFunction(type, "((y#i))", (const char *)t->p, octets, (int)t->p[octets]);
}

PyObject *kind_of_bytes(const struct iok_token *t)
{
    switch (t->subtype) {
    case IOK_KIND_UUID:
        return kind_uuid(t);
    case IOK_KIND_TIMETZ:
        return t->len == 12 ? kind_timetz(t) : kind_wrong();
    case IOK_KIND_INTERVAL:
        return t->len == 16 ? kind_interval(t) : kind_wrong();
    case IOK_KIND_INET:
        return t->len == 4 || t->len == 5 || t->len == 16 || t->len == 17 ? kind_address(t) : kind_wrong();
    case IOK_KIND_NETWORK:
        return t->len == 5 || t->len == 17 ? kind_address(t) : kind_wrong();
    default:
        return kind_wrong();
    }
}

PyObject *kind_of_list(PyObject *list, uint16_t kind)
{
    PyObject *value = NULL;
    if (list == NULL) {
        return NULL;
    }
    if (kind == IOK_KIND_MULTIRANGE) {
        PyObject *type = kind_class(&multirange_type, "iokernel.values", "Multirange");
        value = type == NULL ? NULL : PyObject_CallOneArg(type, list);
    } else if (kind == IOK_KIND_RANGE && PyList_GET_SIZE(list) == 3) {
        PyObject *type = kind_class(&range_type, "iokernel.values", "Range");
        value = type == NULL ? NULL : PyObject_Vectorcall(type, ((PyListObject *)list)->ob_item, 3, NULL);
    } else {
        kind_wrong();
    }
    Py_DECREF(list);
    return value;
}

int kind_init(void)
{
    PyDateTime_IMPORT;
    return PyDateTimeAPI == NULL ? -1 : 0;
}
