/* role.h - what a server is among its like, and which of them a service wishes for. PostgreSQL's words, in the meanings
 * of libpq's target_session_attrs; other protocols have the same two or three under other names. */
#ifndef IOK_BASE_ROLE_H
#define IOK_BASE_ROLE_H

#include <stdbool.h>
#include <stdint.h>

/* What a codec says of the server; 0: it is not known. */
enum iok_role {
    IOK_ROLE_KNOWN = 1,
    IOK_ROLE_STANDBY = 2,   /* it follows a primary */
    IOK_ROLE_READ_ONLY = 4, /* it refuses to write, unless asked to do otherwise; every standby does */
};

enum iok_wish {
    IOK_WISH_ANY = 0,
    IOK_WISH_PRIMARY,
    IOK_WISH_STANDBY,
    IOK_WISH_PREFER_STANDBY, /* or any, when there is no standby */
    IOK_WISH_READ_WRITE,
    IOK_WISH_READ_ONLY,
};

/* Whether a server of this role is what is wished for. The second choice of PREFER_STANDBY is the caller's business. */
static inline bool iok_role_fits(uint32_t role, enum iok_wish wish)
{
    bool standby = (role & IOK_ROLE_STANDBY) != 0;
    bool read_only = standby || (role & IOK_ROLE_READ_ONLY) != 0;

    switch (wish) {
    case IOK_WISH_ANY:
        return true;
    case IOK_WISH_PRIMARY:
        return (role & IOK_ROLE_KNOWN) != 0 && !standby;
    case IOK_WISH_STANDBY:
    case IOK_WISH_PREFER_STANDBY:
        return (role & IOK_ROLE_KNOWN) != 0 && standby;
    case IOK_WISH_READ_WRITE:
        return (role & IOK_ROLE_KNOWN) != 0 && !read_only;
    case IOK_WISH_READ_ONLY:
        return (role & IOK_ROLE_KNOWN) != 0 && read_only;
    }
    return false;
}

/* Whether calls are meant to write: a refusal to write means then that the role is not what it was. */
static inline bool iok_wish_writes(enum iok_wish wish)
{
    return wish == IOK_WISH_PRIMARY || wish == IOK_WISH_READ_WRITE;
}

#endif
