/* Leads connections of a client to other ports of this machine: each broker's address to the proxy in front of it.
 *
 * Brokers tell clients their own addresses, so a proxy that is only named as the first address is soon passed by. Loaded into a client
 * (LD_PRELOAD), this changes where `connect` goes. CHAOS_REDIRECT: "ADDRESS PORT PROXY_PORT;" for each address. Nothing else is changed, and no
 * right is needed. May not know: what goes through the connections. */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dlfcn.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

typedef int (*connect_function)(int, const struct sockaddr *, socklen_t);

/* The port of the proxy for an address; 0 if there is none. */
static int proxy_of(const char *address, int port) {
    char wanted[INET6_ADDRSTRLEN + 16];
    const char *table = getenv("CHAOS_REDIRECT"), *found;
    snprintf(wanted, sizeof wanted, "%s %d ", address, port);
    for (found = table ? strstr(table, wanted) : NULL; found; found = strstr(found + 1, wanted))
        if (found == table || found[-1] == ';')
            return atoi(found + strlen(wanted));
    return 0;
}

int connect(int socket, const struct sockaddr *to, socklen_t length) {
    connect_function original = (connect_function)dlsym(RTLD_NEXT, "connect");
    char address[INET6_ADDRSTRLEN] = "";
    if (to && to->sa_family == AF_INET && length >= sizeof(struct sockaddr_in)) {
        struct sockaddr_in changed;
        memcpy(&changed, to, sizeof changed);
        inet_ntop(AF_INET, &changed.sin_addr, address, sizeof address);
        int port = proxy_of(address, ntohs(changed.sin_port));
        if (port) {
            changed.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
            changed.sin_port = htons((unsigned short)port);
            return original(socket, (const struct sockaddr *)&changed, sizeof changed);
        }
    }
    if (to && to->sa_family == AF_INET6 && length >= sizeof(struct sockaddr_in6)) {
        struct sockaddr_in6 changed;
        memcpy(&changed, to, sizeof changed);
        inet_ntop(AF_INET6, &changed.sin6_addr, address, sizeof address);
        int port = proxy_of(strncmp(address, "::ffff:", 7) ? address : address + 7, ntohs(changed.sin6_port));
        if (port) {
            inet_pton(AF_INET6, "::ffff:127.0.0.1", &changed.sin6_addr);
            changed.sin6_port = htons((unsigned short)port);
            return original(socket, (const struct sockaddr *)&changed, sizeof changed);
        }
    }
    return original(socket, to, length);
}
