"""F6 to F8: connections that are held, floods of every kind, and siblings."""

import os
import socket
import sys
import threading

import raw

held = []


def hold(service, count, processes="1"):
    """So many connections that say nothing; each made by another process, where there are to be as many."""
    raw.many()
    for number in range(int(count)):
        if processes == "1":
            one = raw.connect(service, wait=number < 3000)
        else:
            mine, theirs = raw.pair()
            if os.fork() == 0:
                made = raw.connect(service)
                socket.send_fds(theirs, [b"x"], [made.fileno()])
                os._exit(0)
            one = socket.socket(fileno=socket.recv_fds(mine, 1, 1)[1][0])
            os.wait()
            mine.close()
            theirs.close()
        held.append(one)
    raw.tell("ready")


def watch(after):
    """End when the stage does, whatever we are at."""
    threading.Thread(target=raw.stay, daemon=True).start()
    after()


WHAT = {
    "garbage": lambda to, wait: raw.send(to, b"garbage", (), wait),
    "requests": lambda to, wait: raw.request(to, wait=wait),
    "headers": lambda to, wait: raw.send(to, raw.packet(id=7), (), wait),
    "large": lambda to, wait: raw.send(to, raw.packet(bytes(60000)), (), wait),
    "files": lambda to, wait: raw.send(
        to, raw.complex(*[raw.port(i + 1 | raw.FILE) for i in range(200)]), [0] * 200, wait
    ),
    "rights": lambda to, wait: many_rights(to, wait),
}


def many_rights(to, wait):
    ours, theirs = raw.pair()
    sent = raw.send(to, raw.complex(*[raw.port(i + 1) for i in range(200)]), [theirs] * 200, wait)
    ours.close()
    theirs.close()
    return sent


def fill(service, to, what):
    """Fill a connection, and go on as it is emptied; a new one when it has been ended. Answers are not read."""
    answers = []
    try:
        while True:
            sent = WHAT[what](to, False)
            if not sent:
                return to
            if not isinstance(sent, bool):
                answers.append(sent)
            if len(answers) > 200:
                answers.pop(0).close()
    except OSError:
        to.close()
        return raw.connect(service)


def flood_held(service, what, count="1"):
    """So many connections, each filled for ever."""
    raw.many()
    for _ in range(int(count)):
        held.append(raw.connect(service))

    def run():
        while True:
            for number, to in enumerate(held):
                try:
                    held[number] = fill(service, to, what)
                except OSError:
                    pass

    raw.tell("ready")
    watch(run)


def flood_fresh(service, what, each="64", processes="1"):
    """New connections for ever, so many messages on each."""
    raw.many()
    for _ in range(int(processes) - 1):
        if os.fork() == 0:
            sys.stdout = open(os.devnull, "w")
            break

    def run():
        alive = []
        while True:
            try:
                to = raw.connect(service, wait=False)
                for _ in range(int(each)):
                    alive.append(WHAT[what](to, False))
                    if not alive[-1]:
                        break
                alive.append(to)
            except OSError:
                pass
            if len(alive) > 500:
                for one in alive:
                    if not isinstance(one, bool) and one is not None:
                        one.close()
                alive.clear()

    raw.tell("ready")
    watch(run)


def sibling(service, how):
    """What was registered for us under 1 is filled, shut down or garbled."""
    (to,) = raw.claim(service).values()
    if how == "fill":
        while raw.send(to, raw.packet(bytes(1000)), (), False):
            pass
    elif how == "garble":
        for _ in range(10):
            raw.send(to, b"garbage", (), False)
    elif how == "once":  # as if it were a send-once right that is given up
        raw.send(to, raw.packet(bits=raw.ONCE, flags=4), (), False)
    else:
        to.shutdown(getattr(socket, how))
    held.append(to)
    raw.tell("ready")


def rights(service, count):
    """Messages of so many rights, for ever, over what was registered for us under 1."""
    raw.many()
    (to,) = raw.claim(service).values()

    def run():
        while True:
            ours, theirs = raw.pair()
            raw.send(to, raw.complex(*[raw.port(i + 1) for i in range(int(count))]), [theirs] * int(count))
            ours.close()
            theirs.close()

    raw.tell("ready")
    watch(run)


if __name__ == "__main__":
    raw.main({"hold": hold, "flood_held": flood_held, "flood_fresh": flood_fresh, "sibling": sibling, "rights": rights})
