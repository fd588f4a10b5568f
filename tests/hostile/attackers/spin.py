"""No attack: processes that compute, to compare a flood with."""

import os
import sys
import threading

import raw


def spin(service, processes="1"):
    for _ in range(int(processes) - 1):
        if os.fork() == 0:
            sys.stdout = open(os.devnull, "w")
            break
    raw.tell("ready")
    threading.Thread(target=raw.stay, daemon=True).start()
    while True:
        os.getppid()


if __name__ == "__main__":
    raw.main({"spin": spin})
