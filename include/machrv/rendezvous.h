/* The rendezvous protocol's own ids and limits, as Chromium puts them on the wire. */

#ifndef MACHRV_RENDEZVOUS_H
#define MACHRV_RENDEZVOUS_H

/* Message ids: four characters, the first in the highest byte. */
#define MACHRV_REQUEST_ID 0x6d727a76                 /* 'mrzv' */
#define MACHRV_REQUEST_WITH_INFO_PLIST_ID 0x6d727a56 /* 'mrzV' */
#define MACHRV_REPLY_ID 0x4d525a56                   /* 'MRZV' */

/* What Chromium's client accepts in one reply, today: it had room for 5 ports at first. */
#define MACHRV_CHROMIUM_MAX_PORTS 6
#define MACHRV_CHROMIUM_MAX_INFO_PLIST_SIZE (18 * 1024)

#endif
