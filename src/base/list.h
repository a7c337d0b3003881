/* list.h - intrusive doubly linked lists. A node is in at most one list. */
#ifndef IOK_BASE_LIST_H
#define IOK_BASE_LIST_H

#include <stdbool.h>
#include <stddef.h>

struct iok_node {
    struct iok_node *prev, *next; /* both NULL: in no list */
};

struct iok_list {
    struct iok_node head; /* a ring through the head */
};

#define iok_container(node, type, member) ((type *)(void *)((char *)(node)-offsetof(type, member)))

static inline void iok_list_init(struct iok_list *list)
{
    list->head.prev = list->head.next = &list->head;
}

static inline bool iok_list_empty(const struct iok_list *list)
{
    return list->head.next == &list->head;
}

static inline bool iok_node_linked(const struct iok_node *node)
{
    return node->next != NULL;
}

static inline void iok_list_insert_(struct iok_node *prev, struct iok_node *node)
{
    node->prev = prev;
    node->next = prev->next;
    prev->next->prev = node;
    prev->next = node;
}

static inline void iok_list_push(struct iok_list *list, struct iok_node *node)
{
    iok_list_insert_(list->head.prev, node);
}

static inline void iok_list_push_front(struct iok_list *list, struct iok_node *node)
{
    iok_list_insert_(&list->head, node);
}

/* Does nothing when the node is in no list. */
static inline void iok_list_remove(struct iok_node *node)
{
    if (iok_node_linked(node)) {
        node->prev->next = node->next;
        node->next->prev = node->prev;
        node->prev = node->next = NULL;
    }
}

static inline struct iok_node *iok_list_first(const struct iok_list *list)
{
    return iok_list_empty(list) ? NULL : list->head.next;
}

static inline struct iok_node *iok_list_pop(struct iok_list *list)
{
    struct iok_node *node = iok_list_first(list);

    if (node != NULL) {
        iok_list_remove(node);
    }
    return node;
}

/* Runs over a list; the current node may be removed. */
#define iok_list_each(list, node, after)                                                                               \
    for (struct iok_node *node = (list)->head.next, *after = node->next; node != &(list)->head;                        \
         node = after, after = node->next)

#endif
