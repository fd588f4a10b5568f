/* Return codes and limits of the bootstrap namespace. Values as in launchd-842, liblaunch/bootstrap.h. */

#ifndef MACHRV_BOOTSTRAP_H
#define MACHRV_BOOTSTRAP_H

/* Apple's own <servers/bootstrap.h> is not in every SDK, and its values have not changed since 2005. */
#define BOOTSTRAP_MAX_NAME_LEN 128
#define BOOTSTRAP_SUCCESS 0
#define BOOTSTRAP_NOT_PRIVILEGED 1100
#define BOOTSTRAP_NAME_IN_USE 1101
#define BOOTSTRAP_UNKNOWN_SERVICE 1102
#define BOOTSTRAP_SERVICE_ACTIVE 1103
#define BOOTSTRAP_BAD_COUNT 1104
#define BOOTSTRAP_NO_MEMORY 1105
#define BOOTSTRAP_NO_CHILDREN 1106

#endif
