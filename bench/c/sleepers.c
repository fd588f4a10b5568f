/*
 * Processes that are there and do nothing: `sleepers COUNT` prints their pids, one a line, and keeps them until its
 * standard input ends.
 */

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    int count = argc == 2 ? atoi(argv[1]) : 0;
    pid_t *pids = calloc((size_t)(count > 0 ? count : 1), sizeof *pids);
    for (int i = 0; i < count; i++) {
        pids[i] = fork();
        if (pids[i] == 0) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            for (;;)
                pause();
        }
        if (pids[i] < 0) {
            perror("fork");
            return 1;
        }
        printf("%d\n", (int)pids[i]);
    }
    fflush(stdout);
    while (getchar() != EOF)
        ;
    for (int i = 0; i < count; i++)
        kill(pids[i], SIGKILL);
    while (wait(NULL) > 0)
        ;
    return 0;
}
