/*
 * Stands in for CoreFoundation, Security.framework and csops_audittoken: functions with their names and prototypes, over objects
 * that are counted. What a test sets decides what they answer; what they were asked stays to be read.
 */

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef struct object {
    char kind; /* d: data, s: string, m: dictionary, r: requirement, c: code, k: constant */
    long length;
    int references;
    char *bytes;
    const struct object *keys[8], *values[8];
} object;

/* What a test sets. */
int answer_requirement, answer_guest, answer_check, answer_team_errno, answer_category = -1, answer_no_bundle;
char answer_team[65], answer_path[1024], answer_fulfilled[4096];
int answer_own;
/* What was asked. */
char asked_text[4096], asked_token[32], asked_plist[65536], asked_path[1024];
long asked_plist_length, asked_dynamic, asked_pid;
/* How many objects there are. */
int live;

int kCFTypeDictionaryKeyCallBacks, kCFTypeDictionaryValueCallBacks;

static object yes = {'k'}, audit = {'k'}, dynamic = {'k'}, dynamic_plist = {'k'};
const object *kCFBooleanTrue = &yes, *kSecGuestAttributeAudit = &audit, *kSecGuestAttributeDynamicCode = &dynamic,
             *kSecGuestAttributeDynamicCodeInfoPlist = &dynamic_plist;

static object *create(char kind, const void *bytes, long length)
{
    object *new = calloc(1, sizeof *new);
    new->kind = kind;
    new->length = length;
    new->references = 1;
    new->bytes = calloc(1, (size_t)length + 1);
    if (bytes)
        memcpy(new->bytes, bytes, (size_t)length);
    live++;
    return new;
}

void CFRelease(object *it)
{
    if (it->references < 1 || it->kind == 'k')
        abort();
    if (--it->references == 0) {
        live--;
        for (int i = 0; it->kind == 'm' && i < it->length; i++)
            if (it->values[i] && it->values[i]->kind != 'k')
                CFRelease((object *)it->values[i]);
        free(it->bytes);
        free(it);
    }
}

object *CFStringCreateWithBytes(void *allocator, const uint8_t *bytes, long length, uint32_t encoding, uint8_t external)
{
    return allocator || encoding != 0x08000100 || external ? NULL : create('s', bytes, length);
}

object *CFDataCreate(void *allocator, const uint8_t *bytes, long length)
{
    return allocator ? NULL : create('d', bytes, length);
}

long CFDataGetLength(const object *data) { return data->length; }
const uint8_t *CFDataGetBytePtr(const object *data) { return (const uint8_t *)data->bytes; }

object *CFDictionaryCreate(void *allocator, const object **keys, const object **values, long count, const void *of_keys,
                           const void *of_values)
{
    object *new;
    if (allocator || count > 8 || of_keys != &kCFTypeDictionaryKeyCallBacks || of_values != &kCFTypeDictionaryValueCallBacks)
        return NULL;
    new = create('m', NULL, 0);
    new->length = count;
    for (long i = 0; i < count; i++) {
        new->keys[i] = keys[i];
        new->values[i] = values[i];
        if (values[i]->kind != 'k')
            ((object *)values[i])->references++;
    }
    return new;
}

/* The bundle's dictionary: its bytes stand for the whole. */
static object bundle = {'k'}, information = {.kind = 'k', .length = 5, .bytes = "plist"};
static object outer_information = {.kind = 'k', .length = 5, .bytes = "outer"};

object *CFBundleGetMainBundle(void) { return &bundle; }
object *CFBundleGetInfoDictionary(object *of)
{
    return answer_no_bundle ? NULL : of == &bundle ? &information : of->kind == 'b' ? &outer_information : NULL;
}

object *CFBundleCopyBundleURL(object *of) { return of != &bundle ? NULL : create('u', answer_path, (long)strlen(answer_path)); }

unsigned char CFURLGetFileSystemRepresentation(const object *url, unsigned char absolute, char *into, long size)
{
    if (url->kind != 'u' || absolute != 1 || size < (long)strlen(url->bytes) + 1)
        return 0;
    strcpy(into, url->bytes);
    return 1;
}

object *CFURLCreateFromFileSystemRepresentation(void *allocator, const char *path, long length, unsigned char directory)
{
    if (allocator || directory != 1 || length >= (long)sizeof asked_path)
        return NULL;
    memcpy(asked_path, path, (size_t)length);
    asked_path[length] = 0;
    return create('u', path, length);
}

object *CFBundleCreate(void *allocator, const object *url) { return allocator || url->kind != 'u' ? NULL : create('b', NULL, 0); }

object *CFDictionaryCreateMutableCopy(void *allocator, long capacity, const object *of)
{
    return allocator || capacity ? NULL : create('s', of->bytes, of->length);
}

void CFDictionaryRemoveValue(object *dictionary, const object *key)
{
    if (dictionary->kind != 's' || strcmp(key->bytes, "CFBundleNumericVersion"))
        abort();
    dictionary->bytes[0] = 'P';
}

object *CFPropertyListCreateData(void *allocator, const object *of, long format, size_t options, void *error)
{
    return allocator || format != 100 || options || error ? NULL : create('d', of->bytes, of->length);
}

int32_t SecRequirementCreateWithString(const object *text, uint32_t flags, object **into)
{
    if (answer_requirement || flags || text->kind != 's')
        return answer_requirement;
    *into = create('r', text->bytes, text->length);
    return 0;
}

int32_t SecCodeCopyGuestWithAttributes(void *host, const object *attributes, uint32_t flags, object **into)
{
    if (answer_guest)
        return answer_guest;
    if (host || flags || attributes->kind != 'm')
        return -67070;
    asked_plist_length = -1;
    asked_dynamic = 0;
    for (long i = 0; i < attributes->length; i++) {
        const object *key = attributes->keys[i], *value = attributes->values[i];
        if (key == &audit && value->kind == 'd' && value->length == sizeof asked_token)
            memcpy(asked_token, value->bytes, sizeof asked_token);
        else if (key == &dynamic && value == &yes)
            asked_dynamic = 1;
        else if (key == &dynamic_plist && value->kind == 'd')
            memcpy(asked_plist, value->bytes, (size_t)(asked_plist_length = value->length));
        else
            return -67066;
    }
    *into = create('c', NULL, 0);
    return 0;
}

int32_t SecCodeCheckValidity(const object *code, uint32_t flags, const object *requirement)
{
    if (code->kind != 'c' || flags || requirement->kind != 'r')
        return -67071;
    memcpy(asked_text, requirement->bytes, (size_t)requirement->length + 1);
    return answer_check;
}

/* kSecCSBasicValidateOnly, of a process as it runs. */
int32_t SecStaticCodeCheckValidity(const object *code, uint32_t flags, const object *requirement)
{
    if (code->kind != 'c' || flags != 6 || !asked_dynamic)
        return -67071;
    if (!requirement)
        return answer_own;
    return strcmp(requirement->bytes, answer_fulfilled) ? -67050 : 0;
}

int csops_audittoken(int pid, unsigned int operation, void *into, size_t size, const uint32_t *token)
{
    struct {
        uint32_t type, length;
        char team[65];
    } *team = into;
    asked_pid = pid;
    errno = ESRCH;
    if (!token || token[5] != (uint32_t)pid)
        return -1;
    errno = EINVAL;
    if (operation == 14 && size == 73) {
        errno = answer_team_errno;
        team->type = 0;
        team->length = 8;
        memcpy(team->team, answer_team, sizeof answer_team);
        return answer_team_errno ? -1 : 0;
    }
    if (operation == 17 && size == 4 && answer_category >= 0) {
        *(uint32_t *)into = (uint32_t)answer_category;
        return 0;
    }
    return -1;
}
